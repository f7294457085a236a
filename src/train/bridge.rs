//! Settings of a run that trains a sparse model together with bridges to a dense one: the section `bridge` of its
//! `config.toml` (method: section 5).

use serde::{Deserialize, Serialize};

use crate::Result;

/// What each term of the objective counts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Coefficients {
    /// Of the sparse model's own cross-entropy.
    pub cross_entropy: f64,
    /// Of the encoders' normalised squared errors.
    pub nmse_enc: f64,
    /// Of the decoders' normalised squared errors.
    pub nmse_dec: f64,
    /// Of the divergences of the sparse model continued from encoded dense streams.
    pub kl_d2s: f64,
    /// Of the divergences of the dense model continued from decoded sparse streams.
    pub kl_s2d: f64,
}

impl Default for Coefficients {
    fn default() -> Self {
        Self { cross_entropy: 1.0, nmse_enc: 1.0, nmse_dec: 1.0, kl_d2s: 1.0, kl_s2d: 1.0 }
    }
}

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
    /// Whether the encoders' errors draw the sparse stream to what the encoders give, too; the method holds it constant.
    pub draw_sparse: bool,
    /// The divergences are from only so many most probable tokens of the dense model, an approximation; none: from all.
    pub kl_top: Option<usize>,
    /// What each term of the objective counts.
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
            draw_sparse: false,
            kl_top: None,
            coefficients: Coefficients::default(),
        }
    }
}

impl BridgeConfig {
    /// Complains about impossible values, naming the setting.
    ///
    /// # Errors
    /// [`crate::Error::Config`].
    pub fn validate(&self) -> Result<()> {
        super::settings::check_bridge(self)
    }
}
