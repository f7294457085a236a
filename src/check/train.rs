//! A short training run: loss, learning rate, densities, gradient and nonzero count of every step,
//! and the final weights with exactly the expected zeros.

use serde::Deserialize;

use super::choices::Choices;
use super::golden::Case;
use super::{Comparison, LOSS, WEIGHT, Worst, largest};
use crate::Result;
use crate::device::Device;
use crate::model::{Batch, NoHooks};
use crate::ops::count_nonzero;
use crate::sparsity::Schedule;
use crate::train::config::{GradRms, OptimizerConfig};
use crate::train::step::Trainer;

#[derive(Deserialize)]
struct Meta {
    hyperparameters: Hyperparameters,
    log: Vec<Logged>,
}

#[derive(Deserialize)]
struct Hyperparameters {
    total_steps: u64,
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    target_density: f64,
    embed_target_density: f64,
    sparse_biases: bool,
    min_alive: usize,
    grad_rms: GradRms,
    warmup_frac: f64,
    anneal_start_frac: f64,
    anneal_stop_frac: f64,
    sharkfin: bool,
}

#[derive(Deserialize)]
struct Logged {
    loss: f64,
    lr: f64,
    density: f64,
    embed_density: f64,
    grad_rms: f64,
    nonzero_matrix_weights: u64,
}

impl Hyperparameters {
    fn optimizer(&self, batch: usize) -> OptimizerConfig {
        OptimizerConfig {
            steps: self.total_steps,
            batch_size: batch,
            accumulate: 1,
            lr: self.lr,
            warmup_frac: self.warmup_frac,
            sharkfin: self.sharkfin,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            weight_decay: self.weight_decay,
            grad_rms: self.grad_rms,
            train_positions: false,
        }
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            target_density: self.target_density,
            embed_target_density: self.embed_target_density,
            anneal_start_frac: self.anneal_start_frac,
            anneal_stop_frac: self.anneal_stop_frac,
            min_alive: self.min_alive,
            sparse_biases: self.sparse_biases,
        }
    }
}

pub(super) fn run(case: &Case, device: &Device) -> Result<Vec<Comparison>> {
    let meta: Meta = serde_json::from_value(case.meta()?).map_err(|e| case.error(e.to_string()))?;
    let h = meta.hyperparameters;
    let (shape, tokens) = case.tokens()?;
    let &[steps, batch, _] = shape.as_slice() else {
        return Err(case.error(format!("tokens are {shape:?}, expected (steps, B, T)")));
    };
    let mut trainer = Trainer::new(case.model(device)?, h.optimizer(batch), h.schedule())?;
    let mut losses = Worst::new("losses", LOSS);
    let mut scales = Worst::new("gradient rms", LOSS);
    let mut schedules = Worst::new("lr, densities", 1e-12);
    let mut counts = Worst::new("nonzero counts", 0.0);
    let choices = Choices::of(case)?;
    let relative = |got: f64, want: f64| if want == 0.0 { got.abs() } else { ((got - want) / want).abs() };
    for (want, tokens) in meta.log.iter().zip(tokens.chunks(tokens.len() / steps.max(1))) {
        let batch = Batch::new(device, &trainer.model.config, tokens, batch)?;
        let mut sites = choices.at(trainer.steps_done(), NoHooks);
        let record = trainer.step_with(&[batch], &mut sites, |p, schedule, at, decay| {
            choices.apply_topk_and_decay(p, schedule, at, decay)
        })?;
        let got = trainer.numbers(&record)?;
        let at = format!("step {}", got.step);
        losses.see(&at, Ok(relative(got.loss, want.loss)));
        scales.see(&at, Ok(relative(got.grad_rms, want.grad_rms)));
        for (got, want) in [(got.lr, want.lr), (got.density, want.density), (got.embed_density, want.embed_density)] {
            schedules.see(&at, Ok(relative(got, want)));
        }
        let mut nonzeros = 0;
        for p in trainer.model.parameters.iter().filter(|p| p.kind.is_matrix()) {
            nonzeros += u64::from(count_nonzero::forward(p.dense()?)?.read()?.first().copied().unwrap_or(0));
        }
        counts.see(&at, Ok(nonzeros.abs_diff(want.nonzero_matrix_weights) as f64));
    }

    let [weights, mut zeros] = compare_weights(case, &trainer)?;
    zeros.note(choices.describe());
    Ok([losses, scales, schedules, counts, weights, zeros].map(Worst::comparison).into())
}

/// The weights at the end, and which of them are zero.
fn compare_weights(case: &Case, trainer: &Trainer) -> Result<[Worst; 2]> {
    let expected = case.tensors("expected.safetensors")?;
    let got = trainer.model.parameters.to_host()?;
    let mut weights = Worst::new("weights at the end", WEIGHT);
    let mut zeros = Worst::new("zero pattern", 0.0);
    for (name, want) in &expected {
        let Some(got) = got.get(name).filter(|g| g.shape == want.shape) else {
            weights.see(name, Err("missing or of another shape".into()));
            continue;
        };
        weights.see(name, largest(&got.data, &want.data).map(|(d, scale)| if scale == 0.0 { d } else { d / scale }));
        let differ = got.data.iter().zip(&want.data).filter(|(g, w)| (**g == 0.0) != (**w == 0.0)).count();
        zeros.see(name, Ok(differ as f64));
    }
    Ok([weights, zeros])
}
