//! Training: the sparse model's recipe is the one without bridges, and the objective falls.

use gossamer::bridges::BridgeTrainer;
use gossamer::device::Device;
use gossamer::files::load_tensors;
use gossamer::model::{Model, ModelConfig};
use gossamer::observer::Observer;
use gossamer::sparsity::Schedule;
use gossamer::train::bridge::{BridgeConfig, EncoderKind};
use gossamer::train::bridge_loss::{Coefficients, Ramps};
use gossamer::train::config::{OptimizerConfig, RunConfig};
use gossamer::train::run::Trainable;
use gossamer::train::step::Trainer;

use crate::common::devices;
use crate::variants::{config, prompts};

fn optimizer(steps: u64, accumulate: usize) -> OptimizerConfig {
    OptimizerConfig { steps, batch_size: 3, accumulate, lr: 2e-2, ..RunConfig::preset("quickstart").unwrap().train }
}

fn schedule() -> Schedule {
    Schedule {
        target_density: 0.1,
        embed_target_density: 0.3,
        min_alive: 1,
        ..RunConfig::preset("quickstart").unwrap().sparsity
    }
}

fn sparse_config() -> ModelConfig {
    config(r#""d_model": 16, "afrac": 0.25, "rms_norm": true, "sink": true, "tied_unembed": false"#)
}

fn trainer_of(device: &Device, optimizer: OptimizerConfig) -> Trainer {
    Trainer::new(Model::new(sparse_config(), 7, device).unwrap(), optimizer, schedule()).unwrap()
}

fn settings(coefficients: Coefficients) -> BridgeConfig {
    BridgeConfig { dense: "dense".into(), lr: 1e-2, coefficients, ..BridgeConfig::default() }
}

fn bridged(device: &Device, optimizer: OptimizerConfig, coefficients: Coefficients) -> BridgeTrainer {
    bridged_by(device, optimizer, settings(coefficients))
}

fn bridged_by(device: &Device, optimizer: OptimizerConfig, settings: BridgeConfig) -> BridgeTrainer {
    let dense = Model::new(config(""), 3, device).unwrap();
    BridgeTrainer::new(trainer_of(device, optimizer), dense, settings, 7, None).unwrap()
}

/// A number of every step, by name.
fn logged(trainer: &mut BridgeTrainer, steps: u64, name: &str) -> Vec<f64> {
    let step = |step| {
        let record = trainer.step(&batches(step, 1), &Observer::default()).unwrap();
        let (_, more) = trainer.numbers(&record).unwrap();
        more.iter().find(|(found, _)| found == name).map(|(_, value)| *value)
    };
    (0..steps).filter_map(step).collect()
}

/// The micro-batches of a step.
fn batches(step: u64, accumulate: usize) -> Vec<Vec<u32>> {
    (0..accumulate).map(|i| prompts(&sparse_config(), 10 * step + i as u64, 3, 7)).collect()
}

/// Without the terms of the bridges, the sparse model is trained as it is alone, to the last bit.
#[test]
fn the_sparse_recipe_is_unchanged() {
    let none = Coefficients::zero().with("cross_entropy", 1.0).unwrap();
    let device = Device::cpu();
    let mut alone = trainer_of(&device, optimizer(12, 2));
    let mut beside = bridged(&device, optimizer(12, 2), none);
    for step in 0..12 {
        let batches = batches(step, 2);
        let (a, b) = (
            Trainable::step(&mut alone, &batches, &Observer::default()).unwrap(),
            beside.step(&batches, &Observer::default()).unwrap(),
        );
        let ((a, _), (b, _)) = (Trainable::numbers(&alone, &a).unwrap(), beside.numbers(&b).unwrap());
        assert_eq!((a.loss, a.grad_rms, a.lr, a.density), (b.loss, b.grad_rms, b.lr, b.density), "step {step}");
    }
    assert_eq!(alone.model.parameters.to_host().unwrap(), beside.sparse.model.parameters.to_host().unwrap());
}

#[test]
fn the_objective_falls_and_every_term_is_named() {
    let sites = |term: &'static str| (0..5).map(move |site| format!("{term}/{site}"));
    let terms: Vec<String> = ["nmse_enc", "nmse_dec", "kl_d2s", "kl_s2d"].into_iter().flat_map(sites).collect();
    for device in devices() {
        let steps = if device.is_cpu() { 150 } else { 30 };
        let mut trainer = bridged(&device, optimizer(steps, 1), Coefficients::default());
        let mut seen = Vec::new();
        for _ in 0..steps {
            let record = trainer.step(&batches(0, 1), &Observer::default()).unwrap();
            let (numbers, more) = trainer.numbers(&record).unwrap();
            let value = |name: &str| more.iter().find(|(found, _)| found == name).unwrap().1;
            let sum: f64 = terms.iter().map(|term| value(term)).sum();
            assert!((more[0].1 - sum - numbers.loss).abs() < 1e-4 * more[0].1, "their coefficients are 1");
            seen.push(more);
        }
        let names: Vec<_> = seen[0].iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[..2], ["objective", "bridge_lr"]);
        let (first, last) = (seen[0][0].1, seen[seen.len() - 1][0].1);
        assert!(last < 0.95 * first, "{} from {first} to {last}", device.describe());
    }
}

#[test]
fn checkpoints_go_on_bit_for_bit_and_other_models_are_refused() {
    let device = Device::cpu();
    let folder = tempfile::tempdir().unwrap();
    let all = Coefficients::default();
    let trainer = bridged(&device, optimizer(8, 1), all);
    trainer.save(folder.path()).unwrap();
    let maps = load_tensors(folder.path().join("bridges.safetensors")).unwrap();
    assert_eq!(maps, trainer.bridges.to_host().unwrap());
    let open = |dense: Model, sparse: Trainer| {
        let opened = BridgeTrainer::new(sparse, dense, settings(all), 8, Some(folder.path()));
        opened.map(|opened| opened.bridges.to_host().unwrap()).map_err(|error| error.to_string())
    };
    let dense = |seed| Model::new(config(""), seed, &device).unwrap();
    let sparse = || trainer_of(&device, optimizer(8, 1));
    assert_eq!(open(dense(3), sparse()).unwrap(), maps);
    let message = open(dense(4), sparse()).unwrap_err();
    assert!(
        message.contains("bridges.json") && message.contains("(from dense) was made with another dense model"),
        "{message}"
    );
    let mut other = sparse();
    Trainable::step(&mut other, &batches(0, 1), &Observer::default()).unwrap();
    let message = open(dense(3), other).unwrap_err();
    assert!(message.contains("another sparse model"), "{message}");
    std::fs::remove_file(folder.path().join("bridges_optimizer.safetensors")).unwrap();
    assert!(open(dense(3), sparse()).unwrap_err().contains("bridges_optimizer.safetensors"));
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let device = Device::cpu();
    let new = |dense: ModelConfig, settings: BridgeConfig| {
        let dense = Model::new(dense, 3, &device).unwrap();
        let refused = BridgeTrainer::new(trainer_of(&device, optimizer(8, 1)), dense, settings, 7, None);
        refused.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let fine = || settings(Coefficients::default());
    assert!(new(config(r#""block_size": 6"#), fine()).contains("reads 6 tokens at most"));
    assert!(new(config(r#""n_layer": 1"#), fine()).contains("equally many"));
    assert!(new(config(""), BridgeConfig { lr: 0.0, ..fine() }).contains("bridge.lr"));
    assert!(new(config(""), BridgeConfig { encoder_afrac: f64::NAN, ..fine() }).contains("bridge.encoder_afrac"));
    let coefficients = Coefficients::default().with("kl_s2d", -1.0).unwrap();
    assert!(new(config(""), settings(coefficients)).contains("bridge.coefficients.kl_s2d"));
}

#[test]
fn the_bridges_warm_up_on_their_own() {
    let device = Device::cpu();
    let lr = |warmup_frac| {
        let settings = BridgeConfig { warmup_frac, ..settings(Coefficients::default()) };
        logged(&mut bridged_by(&device, optimizer(8, 1), settings), 8, "bridge_lr")
    };
    let want =
        |warm: f64| (0..8).map(f64::from).map(move |s| if s < warm { s / warm } else { (8.0 - s) / (8.0 - warm) });
    for (warmup_frac, warm) in [(Some(0.5), 4.0), (Some(0.0), 0.0), (Some(0.25), 2.0)] {
        let off = lr(warmup_frac).into_iter().zip(want(warm)).find(|(lr, want)| (lr - 1e-2 * want).abs() > 1e-12);
        assert_eq!(off, None, "{warmup_frac:?}");
    }
    assert_eq!(lr(None), lr(Some(optimizer(8, 1).warmup_frac)));
}

/// The objective is the sum of the terms, each times what its coefficient has risen to.
#[test]
fn coefficients_rise_along_their_ramps() {
    let coefficients = Coefficients::zero().with("kl_sparse", 3.0).unwrap();
    let ramps = Ramps::zero().with("kl_sparse", 0.5).unwrap();
    let trainer = || {
        let settings = BridgeConfig { ramps, ..settings(coefficients) };
        bridged_by(&Device::cpu(), optimizer(8, 1), settings)
    };
    let (objective, kl) = (logged(&mut trainer(), 8, "objective"), logged(&mut trainer(), 8, "kl_sparse"));
    assert_eq!((objective.len(), kl.len()), (8, 8));
    for (step, (objective, kl)) in objective.iter().zip(&kl).enumerate() {
        let want = 3.0 * ((step + 1) as f64 / 4.0).min(1.0);
        assert!((objective / kl - want).abs() < 1e-9, "step {step}: {} instead of {want}", objective / kl);
    }
}

#[test]
fn a_ramp_scales_the_gradient() {
    let first = |coefficient, ramp| {
        let coefficients = Coefficients::zero().with("nmse_dec", coefficient).unwrap();
        let ramps = Ramps::zero().with("nmse_dec", ramp).unwrap();
        // With a large epsilon Adam's steps are in proportion to the gradients.
        let settings = BridgeConfig { ramps, eps: 1e3, warmup_frac: Some(0.0), ..settings(coefficients) };
        let mut trainer = bridged_by(&Device::cpu(), optimizer(8, 1), settings);
        trainer.step(&batches(0, 1), &Observer::default()).unwrap();
        trainer.bridges.to_host().unwrap()
    };
    assert_eq!(first(4.0, 0.5), first(1.0, 0.0));
    assert_ne!(first(4.0, 0.5), first(4.0, 0.0));
}

#[test]
fn thresholds_learn_until_they_are_hard() {
    for device in devices() {
        let settings = BridgeConfig {
            encoder: EncoderKind::Threshold,
            sharpness: (2.0, 20.0),
            sharpness_start_frac: 0.25,
            ..settings(Coefficients::default())
        };
        let mut trainer = bridged_by(&device, optimizer(8, 1), settings);
        let log_eps = |trainer: &BridgeTrainer| trainer.bridges.to_host().unwrap()["enc.2.log_eps"].data.clone();
        let start = log_eps(&trainer);
        let before = logged(&mut trainer, 4, "objective");
        let soft = log_eps(&trainer);
        assert!(soft.iter().zip(&start).any(|(a, b)| a != b), "{soft:?}");
        let after = logged(&mut trainer, 4, "objective");
        assert!(before.iter().chain(&after).all(|v| v.is_finite()));
    }
}

#[test]
fn other_settings_that_do_not_fit_are_refused() {
    let refused = |change: fn(&mut BridgeConfig)| {
        let mut settings = settings(Coefficients::default());
        change(&mut settings);
        let dense = Model::new(config(""), 3, &Device::cpu()).unwrap();
        let refused = BridgeTrainer::new(trainer_of(&Device::cpu(), optimizer(8, 1)), dense, settings, 7, None);
        refused.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert!(refused(|s| s.sharpness = (0.0, 1.0)).contains("bridge.sharpness"));
    assert!(refused(|s| s.sharpness.1 = f64::INFINITY).contains("bridge.sharpness"));
    let message = refused(|s| (s.sharpness_start_frac, s.sharpness_stop_frac) = (0.6, 0.5));
    assert!(message.contains("bridge.sharpness_stop_frac") && message.contains("0.6"), "{message}");
    assert!(refused(|s| s.warmup_frac = Some(1.5)).contains("bridge.warmup_frac"));
    assert!(refused(|s| s.ramps = s.ramps.with("kl_d2s", 2.0).unwrap()).contains("bridge.ramps.kl_d2s"));
}
