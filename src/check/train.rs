//! A short training run: every step's loss, learning rate, densities, gradient and nonzero count, and the weights at the
//! end with exactly the expected zeros.

use serde::Deserialize;

use super::choices::Choices;
use super::golden::Case;
use super::{LOSS, Verdict, WEIGHT, Worst, largest};
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

pub(super) fn run(case: &Case, device: &Device) -> Result<Vec<Verdict>> {
    let meta: Meta = serde_json::from_value(case.meta()?).map_err(|e| case.error(e.to_string()))?;
    let h = meta.hyperparameters;
    let (shape, tokens) = case.tokens()?;
    let &[steps, batch, _] = shape.as_slice() else {
        return Err(case.error(format!("tokens are {shape:?}, expected (steps, B, T)")));
    };
    let optimizer = OptimizerConfig {
        steps: h.total_steps,
        batch_size: batch,
        accumulate: 1,
        lr: h.lr,
        warmup_frac: h.warmup_frac,
        sharkfin: h.sharkfin,
        beta1: h.beta1,
        beta2: h.beta2,
        eps: h.eps,
        weight_decay: h.weight_decay,
        grad_rms: h.grad_rms,
        train_positions: false,
    };
    let schedule = Schedule {
        target_density: h.target_density,
        embed_target_density: h.embed_target_density,
        anneal_start_frac: h.anneal_start_frac,
        anneal_stop_frac: h.anneal_stop_frac,
        min_alive: h.min_alive,
        sparse_biases: h.sparse_biases,
    };
    let mut trainer = Trainer::new(case.model(device)?, optimizer, schedule)?;
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
    zeros.note(choices.describe());
    Ok([losses, scales, schedules, counts, weights, zeros].map(Worst::verdict).into())
}
