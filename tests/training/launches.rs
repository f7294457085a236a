//! A training step launches as many kernels as is documented: it cannot grow unseen.

use gossamer::model::{Batch, Model};
use gossamer::train::config::RunConfig;
use gossamer::train::step::Trainer;

use crate::common::gpu;

/// Launches of a step of the preset `quickstart` with other numbers of layers and batches of 2,
/// once the step before has done the same.
fn launches(layers: usize, sparse: bool) -> u64 {
    let device = gpu(true, false);
    let mut config = RunConfig::preset("quickstart").unwrap();
    (config.model.n_layer, config.train.batch_size) = (layers, 2);
    config.train.steps = 1_000_000;
    (config.sparsity.anneal_start_frac, config.sparsity.anneal_stop_frac) = (0.0, if sparse { 0.0 } else { 1.0 });
    let model = Model::new(config.model.clone(), 0, &device).unwrap();
    let mut trainer = Trainer::new(model, config.train.clone(), config.sparsity.clone()).unwrap();
    trainer.use_compressed = Some(sparse);
    let tokens: Vec<u32> = (0..config.tokens_per_step() as u32).map(|i| i * i % 97).collect();
    let mut counted = 0;
    for _ in 0..2 {
        let before = device.usage().unwrap();
        trainer.step(&[Batch::new(&device, &config.model, &tokens, 2).unwrap()]).unwrap();
        counted = device.usage().unwrap().since(&before).launches();
    }
    counted
}

#[test]
fn a_step_launches_as_many_kernels_as_documented() {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/devices.md")).unwrap();
    for (what, sparse) in [("all weights", false), ("sparse weights", true)] {
        let [two, three] = [2, 3].map(|layers| launches(layers, sparse));
        let row = format!("| {what} | {two} | {} |", three - two);
        assert!(docs.contains(&row), "docs/devices.md should have the row {row}");
    }
}

#[test]
fn a_steady_step_makes_no_bind_groups() {
    let device = gpu(true, false);
    let mut config = RunConfig::preset("quickstart").unwrap();
    (config.model.n_layer, config.train.batch_size) = (1, 2);
    (config.model.d_model, config.model.vocab_size, config.model.block_size) = (32, 64, 8);
    config.sparsity.anneal_stop_frac = 0.0;
    config.sparsity.anneal_start_frac = 0.0;
    let model = Model::new(config.model.clone(), 0, &device).unwrap();
    let mut trainer = Trainer::new(model, config.train.clone(), config.sparsity.clone()).unwrap();
    trainer.use_compressed = Some(true);
    let tokens: Vec<u32> = (0..config.tokens_per_step() as u32).map(|i| i * i % 61).collect();
    let mut made = Vec::new();
    for _ in 0..6 {
        let before = device.usage().unwrap();
        trainer.step(&[Batch::new(&device, &config.model, &tokens, 2).unwrap()]).unwrap();
        let usage = device.usage().unwrap().since(&before);
        made.push(usage.bind_groups);
        assert!(usage.launches() > 50 && usage.bytes > 0);
    }
    assert!(made[0] > 50 && made[5] == 0, "{made:?}");
}
