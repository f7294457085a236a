//! Settings of a run that trains a sparse model together with bridges to a dense one: the section
//! `bridge` of its `config.toml` (method: section 5).

use serde::{Deserialize, Serialize};

use super::bridge_loss::Coefficients;
use crate::Result;

/// The dense model, and how the bridges to it are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BridgeConfig {
    /// The dense model: whatever commands take for a model.
    pub dense: String,
    /// The sparse model that training starts from; none: a new one.
    pub sparse: Option<String>,
    /// Encoders keep `floor(encoder_afrac · d_model)` entries of the sparse stream.
    pub encoder_afrac: f64,
    /// Peak learning rate of the bridges, whose Adam has the run's warm-up, decay and betas.
    pub lr: f64,
    /// Epsilon of the bridges' Adam.
    pub eps: f64,
    /// Whether the sparse streams are constants in the encoders' errors, as in the method;
    /// otherwise these errors move the sparse model as well.
    pub detach_target: bool,
    /// The divergences are from only so many most probable tokens of the dense model, an
    /// approximation; none: from all.
    pub kl_top: Option<usize>,
    /// What each term of the objective is multiplied by.
    pub coefficients: Coefficients,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            dense: String::new(),
            sparse: None,
            encoder_afrac: 0.25,
            lr: 1e-3,
            eps: 1e-8,
            detach_target: true,
            kl_top: None,
            coefficients: Coefficients::default(),
        }
    }
}

impl BridgeConfig {
    /// Returns an error that names the setting for an impossible value.
    pub(crate) fn validate(&self) -> Result<()> {
        super::settings::check_bridge(self)
    }
}
