//! Density and learning rate as functions of the step (method: section 2).

use serde::{Deserialize, Serialize};

use crate::settings::{self, Setting, Takes, above, numeric, within};
use crate::{Error, Result};

/// How the densities of the weights fall during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Density of hidden matrices at the end: 0.0625 keeps one weight in 16.
    pub target_density: f64,
    /// Density of embedding, unembedding and, if they are sparse, biases at the end.
    pub embed_target_density: f64,
    /// Fraction of training at which the densities start to fall from 1.
    pub anneal_start_frac: f64,
    /// Fraction of training at which they reach their targets.
    pub anneal_stop_frac: f64,
    /// How many weights of every neuron and attention channel survive first.
    pub min_alive: usize,
    /// Whether biases are made sparse too.
    pub sparse_biases: bool,
}

/// What each setting may be.
pub const SPARSITY_SETTINGS: &[Setting<Schedule>] = &[
    numeric!(target_density, above(0.0, 1.0), "density of hidden matrices at the end"),
    numeric!(embed_target_density, above(0.0, 1.0), "density of embeddings at the end"),
    numeric!(anneal_start_frac, within(0.0, 1.0), "share of training at which densities start to fall"),
    numeric!(anneal_stop_frac, within(0.0, 1.0), "share of training at which they reach their targets"),
    numeric!(min_alive, Takes::Count(0, 1 << 24), "weights of every neuron that survive first"),
    Setting::other("sparse_biases", Takes::Flag, "biases are made sparse too"),
];

/// The learning rate: linear warm-up, linear decay to 0, and the factor √(target density / current
/// density).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sharkfin {
    /// Peak learning rate.
    pub lr: f64,
    /// Fraction of training spent warming up.
    pub warmup_frac: f64,
    /// Whether the density's factor applies.
    pub sharkfin: bool,
}

impl Schedule {
    /// How far the densities have fallen at `step` of `steps`: 0 at the start, 1 at the targets.
    fn progress(&self, step: u64, steps: u64) -> f64 {
        let (start, stop) = (self.anneal_start_frac * steps as f64, self.anneal_stop_frac * steps as f64);
        match step as f64 {
            step if step < start => 0.0,
            step if step >= stop => 1.0,
            step => (step - start) / (stop - start),
        }
    }

    /// Density of the hidden matrices after the update of `step`.
    pub fn density(&self, step: u64, steps: u64) -> f64 {
        fallen(self.target_density, self.progress(step, steps))
    }

    /// Density of embedding, unembedding and sparse biases after the update of `step`.
    pub fn embed_density(&self, step: u64, steps: u64) -> f64 {
        fallen(self.embed_target_density, self.progress(step, steps))
    }

    /// Returns an error that names a setting with an impossible value.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn validate(&self) -> Result<()> {
        settings::check("sparsity", SPARSITY_SETTINGS, self)?;
        let (start, stop) = (self.anneal_start_frac, self.anneal_stop_frac);
        if start > stop {
            return Err(Error::config(
                "sparsity.anneal_stop_frac",
                format!(
                    "{stop} is less than sparsity.anneal_start_frac, {start}: densities fall from the latter to the former"
                ),
            ));
        }
        Ok(())
    }
}

/// From 1 to `target`, and exactly there at the end: 1 − (1 − target) may be a rounding less, and
/// cost a weight.
fn fallen(target: f64, progress: f64) -> f64 {
    (1.0 - progress) + target * progress
}

impl Sharkfin {
    /// Learning rate at `step` of `steps`, counted from 0.
    pub fn at(&self, step: u64, steps: u64, schedule: &Schedule) -> f64 {
        let warm = (self.warmup_frac * steps as f64).floor();
        let (step_f, steps_f) = (step as f64, steps as f64);
        let shape = if step_f < warm { step_f / warm } else { (steps_f - step_f) / (steps_f - warm).max(1.0) };
        let fin = if self.sharkfin { (schedule.target_density / schedule.density(step, steps)).sqrt() } else { 1.0 };
        self.lr * shape * fin
    }
}
