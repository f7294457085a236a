//! A model small enough to be trained on a software GPU, and something to learn.

use gossamer::device::Device;
use gossamer::model::{Batch, Model, ModelConfig, TopkSites};
use gossamer::sparsity::{LrDecay, Schedule};
use gossamer::train::config::{GradRms, OptimizerConfig};
use gossamer::train::step::{StepNumbers, Trainer};
use rand::RngExt;

use crate::common::rng;

/// The paper's model at width 32: RMSNorm, sinks, bigram table, a quarter of the activations.
pub fn model() -> ModelConfig {
    ModelConfig {
        block_size: 16,
        vocab_size: 40,
        n_layer: 2,
        n_head: 4,
        d_model: 32,
        rms_norm: true,
        afrac: Some(0.25),
        afrac_loctypes: TopkSites("attn_in,attn_out,mlp_in,mlp_out,mlp_neuron,attn_v,attn_k,attn_q".into()),
        tied_unembed: false,
        enable_bigram_table: true,
        learnable_bigram_table: true,
        sink: true,
        ..ModelConfig::default()
    }
}

/// Steps of batches of four.
pub fn optimizer(steps: u64) -> OptimizerConfig {
    OptimizerConfig {
        steps,
        batch_size: 4,
        accumulate: 1,
        lr: 2e-2,
        warmup_frac: 0.1,
        sharkfin: true,
        beta1: 0.9,
        beta2: 0.95,
        eps: 0.1,
        weight_decay: 0.1,
        grad_rms: GradRms::Normalize,
        train_positions: false,
        lr_decay: LrDecay::Linear,
    }
}

/// From dense through 1/4 and 1/16, where devices change to compressed weights, to 1/20.
pub fn schedule() -> Schedule {
    Schedule {
        target_density: 0.05,
        embed_target_density: 0.1,
        anneal_start_frac: 0.1,
        anneal_stop_frac: 0.7,
        min_alive: 1,
        sparse_biases: false,
        ..Schedule::DENSE
    }
}

/// Training of a fresh model.
pub fn trainer(device: &Device, config: ModelConfig, optimizer: OptimizerConfig, schedule: Schedule) -> Trainer {
    Trainer::new(Model::new(config, 7, device).unwrap(), optimizer, schedule).unwrap()
}

/// `n` sequences whose next token mostly follows from the last.
pub fn sequences(config: &ModelConfig, step: u64, n: usize) -> Vec<Vec<u32>> {
    let (mut rng, vocab) = (rng(1000 + step), config.vocab_size as u32);
    (0..n)
        .map(|_| {
            let mut token = rng.random_range(0..vocab);
            let next = |_| {
                token = if rng.random::<f32>() < 0.8 { (3 * token + 1) % vocab } else { rng.random_range(0..vocab) };
                token
            };
            (0..config.block_size).map(next).collect()
        })
        .collect()
}

/// The next step, on the step's own sequences cut into micro-batches.
pub fn step(trainer: &mut Trainer) -> gossamer::Result<StepNumbers> {
    let (size, accumulate) = (trainer.optimizer.batch_size, trainer.optimizer.accumulate);
    let config = trainer.model.config.clone();
    let batches: Vec<_> = sequences(&config, trainer.steps_done(), size * accumulate)
        .chunks(size)
        .map(|chunk| Batch::new(&trainer.model.device, &config, &chunk.concat(), size).unwrap())
        .collect();
    let record = trainer.step(&batches)?;
    trainer.numbers(&record)
}

/// All steps' losses.
pub fn losses(trainer: &mut Trainer) -> Vec<f64> {
    (0..trainer.optimizer.steps).map(|_| step(trainer).unwrap().loss).collect()
}
