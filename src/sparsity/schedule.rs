//! Density and learning rate as functions of the step (method: section 2).

use serde::{Deserialize, Serialize};

use crate::settings::{self, Setting, Takes, above, numeric, within};
use crate::{Error, Result};

/// The curve along which the densities go from their start to their targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnnealCurve {
    /// By equal amounts, or, with an exponent `e`, by `1 - (1 - x)^e` of the way at share `x`.
    #[default]
    Linear,
    /// By equal factors: a straight line on a logarithmic axis.
    Exponential,
    /// As a power of the step: a straight line where both axes are logarithmic.
    PowerLaw,
}

/// How the densities of the weights fall during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Density of hidden matrices at the end: 0.0625 keeps one weight in 16.
    pub target_density: f64,
    /// Density of embedding, unembedding and, if they are sparse, biases at the end.
    pub embed_target_density: f64,
    /// Density of hidden matrices at the start: below 1 for a model that is sparse already.
    #[serde(default = "whole")]
    pub initial_density: f64,
    /// Density of embedding, unembedding and, if they are sparse, biases at the start.
    #[serde(default = "whole")]
    pub embed_initial_density: f64,
    /// The curve from the initial densities to the targets.
    #[serde(default)]
    pub anneal: AnnealCurve,
    /// The exponent of the linear curve.
    #[serde(default = "whole")]
    pub anneal_exponent: f64,
    /// Fraction of training at which the densities start to fall.
    pub anneal_start_frac: f64,
    /// Fraction of training at which they reach their targets.
    pub anneal_stop_frac: f64,
    /// How many weights of every neuron and attention channel survive first.
    pub min_alive: usize,
    /// Whether biases are made sparse too.
    pub sparse_biases: bool,
}

/// What runs of earlier versions had.
fn whole() -> f64 {
    1.0
}

/// What each setting may be.
pub const SPARSITY_SETTINGS: &[Setting<Schedule>] = &[
    numeric!(target_density, above(0.0, 1.0), "density of hidden matrices at the end"),
    numeric!(embed_target_density, above(0.0, 1.0), "density of embeddings at the end"),
    numeric!(initial_density, above(0.0, 1.0), "density of hidden matrices at the start"),
    numeric!(embed_initial_density, above(0.0, 1.0), "density of embeddings at the start"),
    Setting::other(
        "anneal",
        Takes::OneOf(&["linear", "exponential", "power_law"]),
        "curve from the initial densities to the targets",
    ),
    numeric!(anneal_exponent, above(0.0, 100.0), "of the linear curve: above 1 falls faster at first"),
    numeric!(anneal_start_frac, within(0.0, 1.0), "share of training at which densities start to fall"),
    numeric!(anneal_stop_frac, within(0.0, 1.0), "share of training at which they reach their targets"),
    numeric!(min_alive, Takes::Count(0, 1 << 24), "weights of every neuron that survive first"),
    Setting::other("sparse_biases", Takes::Flag, "biases are made sparse too"),
];

/// What the learning rate does after warming up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrDecay {
    /// Falls to 0 by equal amounts.
    #[default]
    Linear,
    /// Falls to 0 along half a period of a cosine.
    Cosine,
    /// Stays.
    Constant,
}

/// The learning rate: linear warm-up, decay, and the factor √(target density / current density).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sharkfin {
    /// Peak learning rate.
    pub lr: f64,
    /// Fraction of training spent warming up.
    pub warmup_frac: f64,
    /// What follows the warm-up.
    pub decay: LrDecay,
    /// Whether the density's factor applies.
    pub sharkfin: bool,
}

impl Schedule {
    /// All weights stay.
    pub const DENSE: Self = Self {
        target_density: 1.0,
        embed_target_density: 1.0,
        initial_density: 1.0,
        embed_initial_density: 1.0,
        anneal: AnnealCurve::Linear,
        anneal_exponent: 1.0,
        anneal_start_frac: 0.0,
        anneal_stop_frac: 0.0,
        min_alive: 0,
        sparse_biases: false,
    };

    /// Density at `step` of `steps` on the way from `initial` to `target`.
    fn between(&self, (initial, target): (f64, f64), step: u64, steps: u64) -> f64 {
        let (start, stop) = (self.anneal_start_frac * steps as f64, self.anneal_stop_frac * steps as f64);
        let step = step as f64;
        if step < start {
            return initial;
        }
        // Equal ends, summed below, may be a rounding less, and cost a weight.
        if step >= stop || initial == target {
            return target;
        }
        let progress = (step - start) / (stop - start);
        match self.anneal {
            // As one sum, 1 - (1 - target) may be a rounding less than the target, and cost a weight.
            AnnealCurve::Linear if self.anneal_exponent == 1.0 => (1.0 - progress) * initial + target * progress,
            AnnealCurve::Linear => {
                let remaining = (1.0 - progress).powf(self.anneal_exponent);
                remaining * initial + (1.0 - remaining) * target
            }
            AnnealCurve::Exponential => initial * (target / initial).powf(progress),
            AnnealCurve::PowerLaw => initial * (target / initial).powf((step / start).ln() / (stop / start).ln()),
        }
    }

    /// Density of the hidden matrices after the update of `step`.
    pub fn density(&self, step: u64, steps: u64) -> f64 {
        self.between((self.initial_density, self.target_density), step, steps)
    }

    /// Density of embedding, unembedding and sparse biases after the update of `step`.
    pub fn embed_density(&self, step: u64, steps: u64) -> f64 {
        self.between((self.embed_initial_density, self.embed_target_density), step, steps)
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
        if self.anneal == AnnealCurve::PowerLaw && start == 0.0 {
            let message = "must be above 0 for a power law, which has no value at step 0";
            return Err(Error::config("sparsity.anneal_start_frac", message));
        }
        Ok(())
    }
}

impl Sharkfin {
    /// Learning rate at `step` of `steps`, counted from 0.
    pub fn at(&self, step: u64, steps: u64, schedule: &Schedule) -> f64 {
        let warm = (self.warmup_frac * steps as f64).floor();
        let (step_f, steps_f) = (step as f64, steps as f64);
        let remaining = (steps_f - step_f) / (steps_f - warm).max(1.0);
        let shape = match self.decay {
            _ if step_f < warm => step_f / warm,
            LrDecay::Linear => remaining,
            LrDecay::Cosine => 0.5 - 0.5 * (std::f64::consts::PI * remaining).cos(),
            LrDecay::Constant => 1.0,
        };
        let fin = if self.sharkfin { (schedule.target_density / schedule.density(step, steps)).sqrt() } else { 1.0 };
        self.lr * shape * fin
    }
}
