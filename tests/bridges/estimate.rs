//! The memory that training bridges needs is estimated before it starts, and then it needs that.

use gossamer::Error;
use gossamer::bridges::{BridgeTrainer, estimate};
use gossamer::device::Device;
use gossamer::model::{Model, ModelConfig};
use gossamer::observer::Observer;
use gossamer::train::bridge::{BridgeConfig, EncoderKind};
use gossamer::train::bridge_loss::Coefficients;
use gossamer::train::config::RunConfig;
use gossamer::train::run::Trainable;
use gossamer::train::step::Trainer;

use crate::variants::{config as model, prompts};

/// A run and its dense model.
fn pair(dense: &str, sparse: &str, change: impl FnOnce(&mut RunConfig)) -> (RunConfig, ModelConfig) {
    let block = r#""block_size": 24, "vocab_size": 60"#;
    let wide = |more: &str| model(&format!("{block}{}{more}", if more.is_empty() { "" } else { ", " }));
    let mut config = RunConfig::preset("quickstart").unwrap();
    config.model = wide(sparse);
    (config.train.steps, config.train.batch_size) = (20, 8);
    config.bridge = Some(BridgeConfig { dense: "dense".into(), ..BridgeConfig::default() });
    change(&mut config);
    (config, wide(dense))
}

fn ratio(device: &Device, (config, dense): &(RunConfig, ModelConfig)) -> f64 {
    let estimate = estimate(config, dense, device).unwrap().device_bytes();
    let sparse = Model::new(config.model.clone(), 3, device).unwrap();
    let trainer = Trainer::new(sparse, config.train.clone(), config.sparsity.clone()).unwrap();
    let dense = Model::new(dense.clone(), 4, device).unwrap();
    let mut trainer = BridgeTrainer::new(trainer, dense, config.bridge.clone().unwrap(), 7, None).unwrap();
    for step in 0..config.train.steps {
        let one = |i| prompts(&config.model, 10 * step + i as u64, config.train.batch_size, config.model.block_size);
        let batches: Vec<_> = (0..config.train.accumulate).map(one).collect();
        trainer.step(&batches, &Observer::default()).unwrap();
    }
    estimate as f64 / device.allocated() as f64
}

#[test]
fn the_estimate_is_within_a_tenth() {
    const SPARSE: &str = r#""d_model": 48, "afrac": 0.25, "rms_norm": true, "sink": true, "tied_unembed": false"#;
    let bigrams = format!(r#"{SPARSE}, "enable_bigram_table": true, "learnable_bigram_table": true, "d_pos_emb": 8"#);
    let variants = [
        ("as it is", pair("", SPARSE, |_| ())),
        ("three layers", pair(r#""n_layer": 3"#, &format!(r#"{SPARSE}, "n_layer": 3"#), |_| ())),
        ("bigrams and positions", pair(r#""d_model": 32"#, &bigrams, |_| ())),
        ("a wide dense model", pair(r#""d_model": 96"#, SPARSE, |c| c.train.batch_size = 2)),
        ("accumulate", pair("", SPARSE, |c| (c.train.batch_size, c.train.accumulate) = (4, 3))),
        ("most probable", pair("", SPARSE, |c| c.bridge.as_mut().unwrap().kl_top = Some(8))),
        (
            "most probable alone",
            pair("", SPARSE, |c| {
                let bridge = c.bridge.as_mut().unwrap();
                (bridge.kl_top, bridge.kl_top_renormalize) = (Some(8), true);
            }),
        ),
        ("thresholds", pair("", SPARSE, |c| c.bridge.as_mut().unwrap().encoder = EncoderKind::Threshold)),
        (
            "both models compared",
            pair("", SPARSE, |c| {
                c.bridge.as_mut().unwrap().coefficients = Coefficients::default().with("kl_sparse", 1.0).unwrap();
            }),
        ),
    ];
    let mut off = Vec::new();
    for (name, pair) in variants {
        let ratio = ratio(&Device::cpu(), &pair);
        println!("{name}: {ratio:.3}");
        if !(0.9..=1.1).contains(&ratio) {
            off.push(format!("{name}: {ratio:.3} of what was allocated"));
        }
    }
    assert!(off.is_empty(), "{}", off.join("\n"));
}

#[test]
fn models_between_which_there_are_no_bridges_are_an_error_and_no_estimate() {
    let (config, dense) = pair(r#""n_layer": 3"#, "", |_| ());
    let Err(Error::Mismatch(message)) = estimate(&config, &dense, &Device::cpu()) else { panic!("3 layers and 2") };
    assert!(message.contains("the dense model has 3 layers and the sparse one 2"), "{message}");
}
