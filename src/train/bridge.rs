//! Settings of a run that trains a sparse model together with bridges to a dense one: the section
//! `bridge` of its `config.toml` (method: section 5).

use serde::{Deserialize, Serialize};

use super::bridge_loss::{Coefficients, Ramps};
use crate::Result;

/// What encoders keep of the sparse stream that their linear map gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncoderKind {
    /// The entries with the largest magnitudes, `floor(encoder_afrac · d_model)` of them.
    #[default]
    AbsTopK,
    /// The entries whose magnitude is at least `e^log_eps`, which every channel learns.
    Threshold,
}

/// The dense model, and how the bridges to it are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeConfig {
    /// The dense model: whatever commands take for a model.
    pub dense: String,
    /// The sparse model that training starts from; none: a new one.
    pub sparse: Option<String>,
    /// What encoders keep.
    pub encoder: EncoderKind,
    /// AbsTopK: encoders keep `floor(encoder_afrac · d_model)` entries of the sparse stream.
    pub encoder_afrac: f64,
    /// Thresholds: how sharply the soft thresholds of training divide what is kept from what is not,
    /// at the start of the anneal and at its end.
    pub sharpness: (f64, f64),
    /// Thresholds: the fraction of training at which they start to sharpen.
    pub sharpness_start_frac: f64,
    /// Thresholds: the fraction of training from which they are hard, and learn no more.
    pub sharpness_stop_frac: f64,
    /// Peak learning rate of the bridges, whose Adam has the run's decay and betas.
    pub lr: f64,
    /// The fraction of training that the bridges' learning rate spends warming up; none: the run's.
    pub warmup_frac: Option<f64>,
    /// Epsilon of the bridges' Adam.
    pub eps: f64,
    /// Whether the sparse streams are constants in the encoders' errors, as in the method;
    /// otherwise these errors move the sparse model as well.
    pub detach_target: bool,
    /// The divergences are from so many most probable tokens of the dense model alone, their
    /// probabilities scaled to a sum of 1, an approximation; none: from all.
    pub kl_top: Option<usize>,
    /// Whether the other predictions, too, are scaled to a sum of 1 over the tokens of `kl_top`.
    pub kl_top_renormalize: bool,
    /// What each term of the objective is multiplied by.
    pub coefficients: Coefficients,
    /// The fraction of training over which each coefficient rises.
    pub ramps: Ramps,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            dense: String::new(),
            sparse: None,
            encoder: EncoderKind::default(),
            encoder_afrac: 0.25,
            sharpness: (1.0, 100.0),
            sharpness_start_frac: 0.0,
            sharpness_stop_frac: 0.5,
            lr: 1e-3,
            warmup_frac: None,
            eps: 1e-8,
            detach_target: true,
            kl_top: None,
            kl_top_renormalize: false,
            coefficients: Coefficients::default(),
            ramps: Ramps::default(),
        }
    }
}

impl BridgeConfig {
    /// Returns an error that names the setting for an impossible value.
    pub(crate) fn validate(&self) -> Result<()> {
        super::settings::check_bridge(self)
    }

    /// The sharpness of thresholds at `step` of `steps`: none once they are hard, as they always
    /// are outside of training.
    pub(crate) fn sharpness_at(&self, step: u64, steps: u64) -> Option<f32> {
        let at = |frac: f64| frac * steps as f64;
        let (start, stop, step) = (at(self.sharpness_start_frac), at(self.sharpness_stop_frac), step as f64);
        let (first, last) = self.sharpness;
        match step {
            step if step >= stop => None,
            step if step < start => Some(first as f32),
            step => Some((first + (last - first) * (step - start) / (stop - start)) as f32),
        }
    }

    /// The coefficients at `step` of `steps`.
    pub(crate) fn coefficients_at(&self, step: u64, steps: u64) -> Coefficients {
        self.coefficients.ramped(&self.ramps, (step + 1) as f64 / steps as f64)
    }
}
