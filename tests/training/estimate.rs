//! The memory that a run needs is estimated before it starts, and then it needs that.

use gossamer::Error;
use gossamer::device::Device;
use gossamer::model::ModelConfig;
use gossamer::train::config::RunConfig;
use gossamer::train::estimate::Estimate;
use gossamer::train::step::Trainer;

use crate::common::devices;
use crate::tiny::{model, optimizer, schedule, step, trainer};

/// The estimate over what is allocated after some steps.
fn ratio(device: &Device, config: &RunConfig) -> f64 {
    let estimate = Estimate::new(config, device).unwrap().device_bytes();
    let mut trainer: Trainer = trainer(device, config.model.clone(), config.train.clone(), config.sparsity.clone());
    for _ in 0..config.train.steps {
        step(&mut trainer).unwrap();
    }
    estimate as f64 / device.allocated() as f64
}

fn config(change: impl FnOnce(&mut RunConfig)) -> RunConfig {
    let mut config = RunConfig::preset("quickstart").unwrap();
    config.model = ModelConfig { block_size: 16, vocab_size: 128, d_model: 48, ..model() };
    config.train = optimizer(14);
    config.sparsity = schedule();
    change(&mut config);
    config
}

fn variants() -> Vec<(&'static str, RunConfig)> {
    vec![
        ("as it is", config(|_| ())),
        ("layers", config(|c| c.model.n_layer = 6)),
        ("one layer", config(|c| c.model.n_layer = 1)),
        ("width", config(|c| c.model.d_model = 96)),
        ("small width", config(|c| c.model.d_model = 16)),
        ("batch", config(|c| c.train.batch_size = 16)),
        ("batch of one", config(|c| c.train.batch_size = 1)),
        ("no sinks", config(|c| c.model.sink = false)),
        ("positions", config(|c| c.model.d_pos_emb = Some(16))),
        ("many positions", config(|c| (c.model.d_pos_emb, c.model.n_layer, c.train.batch_size) = (Some(32), 5, 12))),
        ("trained positions", config(|c| (c.model.d_pos_emb, c.train.train_positions) = (Some(16), true))),
        ("accumulate", config(|c| c.train.accumulate = 3)),
        ("tied", config(|c| c.model.tied_unembed = true)),
        ("no bigrams", config(|c| c.model.enable_bigram_table = false)),
        ("fixed bigrams", config(|c| c.model.learnable_bigram_table = false)),
        ("vocabulary", config(|c| c.model.vocab_size = 512)),
        ("small vocabulary", config(|c| c.model.vocab_size = 40)),
        ("small vocabulary, batch", config(|c| (c.model.vocab_size, c.train.batch_size) = (40, 24))),
        ("LayerNorm", config(|c| c.model.rms_norm = false)),
        ("no AbsTopK", config(|c| c.model.afrac = None)),
        (
            "dense GPT-2",
            config(|c| {
                let model = ModelConfig {
                    block_size: 16,
                    vocab_size: 128,
                    n_layer: 3,
                    n_head: 4,
                    d_model: 48,
                    ..ModelConfig::default()
                };
                (c.model, c.train.batch_size) = (model, 12);
            }),
        ),
        ("narrow heads", config(|c| (c.model.d_head, c.train.batch_size) = (Some(4), 12))),
        ("narrow MLP", config(|c| (c.model.d_mlp, c.train.batch_size) = (Some(64), 12))),
        ("wide MLP", config(|c| (c.model.d_mlp, c.train.batch_size) = (Some(512), 12))),
    ]
}

#[test]
fn the_estimate_is_within_a_tenth() {
    let mut off = Vec::new();
    for (name, config) in variants() {
        let ratio = ratio(&Device::cpu(), &config);
        println!("{name}: {ratio:.3}");
        if !(0.9..=1.1).contains(&ratio) {
            off.push(format!("{name}: {ratio:.3} of what was allocated"));
        }
    }
    for device in devices().into_iter().filter(|device| !device.is_cpu()) {
        let ratio = ratio(&device, &config(|_| ()));
        println!("GPU {ratio:.3}");
        if !(0.9..=1.1).contains(&ratio) {
            off.push(format!("{}: {ratio:.3} of what was allocated", device.describe()));
        }
    }
    assert!(off.is_empty(), "{}", off.join("\n"));
}

#[test]
fn a_model_that_cannot_be_is_an_error_and_no_estimate() {
    let odd = config(|c| c.model.n_head = 5);
    let Err(Error::Config { key, .. }) = Estimate::new(&odd, &Device::cpu()) else { panic!("5 heads of width 48 / 5") };
    assert_eq!(key, "n_head");
}

#[test]
fn what_no_machine_can_hold_is_estimated_roughly() {
    // 3 · 2³² · 2²⁴ weights of attention's input and a third of it of its output; a weight, its
    // gradient and two moments of 4 bytes. Everything else is less than 2⁴⁰ bytes.
    let huge = config(|c| {
        (c.model.n_head, c.model.d_head) = (1 << 16, Some(1 << 16));
        (c.model.d_model, c.model.d_mlp, c.model.n_layer) = (1 << 24, Some(64), 1);
    });
    let bytes = Estimate::new(&huge, &Device::cpu()).unwrap().state_bytes;
    assert!((1 << 62..(1 << 62) + (1 << 40)).contains(&bytes), "{bytes}");
}
