//! The transformer: its configuration, its parameters, the forward pass with its named sites, and generation.

mod config;
mod folder;
mod forward;
mod generate;
mod parameters;

pub use config::{Activation, ConfigFile, ModelConfig, ResidualActivation, SparsePlaces};
pub use folder::parse_config;
pub use forward::{Batch, Recorder, Sites, Weights};
pub use generate::{Sampling, generate};
pub use parameters::{Kind, Parameter, Parameters};

use crate::Result;
use crate::device::Device;

/// A model on a device: what it is, and its numbers.
pub struct Model {
    /// Shapes and variants.
    pub config: ModelConfig,
    /// All parameters by their published names.
    pub parameters: Parameters,
    /// Where the parameters live.
    pub device: Device,
}

impl Model {
    /// A freshly initialised model (see [`Parameters::initialise`]).
    ///
    /// # Errors
    /// [`crate::Error::Config`] for impossible shapes, and the device's limits.
    pub fn new(config: ModelConfig, seed: u64, device: &Device) -> Result<Self> {
        config.validate()?;
        let parameters = Parameters::initialise(&config, seed, device)?;
        Ok(Self { config, parameters, device: device.clone() })
    }
}
