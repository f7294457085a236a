//! The transformer: its configuration, its parameters, the forward pass with its named sites, and
//! generation.

mod attention;
mod batch;
mod config;
mod evaluate;
mod finite;
mod folder;
mod forward;
mod generate;
pub(crate) mod hash;
mod hooks;
mod inspect;
mod intervene;
mod kv_cache;
mod means;
mod parameters;
mod run;
mod shapes;
mod site;
mod weights;

pub use batch::{Batch, QueryPositions};
pub use config::{Activation, AttentionLayers, ConfigFile, MODEL_SETTINGS, ModelConfig, ResidualActivation, TopkSites};
pub use evaluate::{Evaluation, evaluate};
pub(crate) use finite::all_finite;
pub use finite::{NotFinite, first_not_finite};
pub use folder::parse_config;
pub use forward::{LossOutput, Pass};
pub use generate::{Generator, Sampling, probabilities, ranked};
pub use hash::expect_model;
pub use hooks::{Hooks, LinearLayer, NoHooks, Recorder};
pub use inspect::{Element, LayerReport, TensorReport, WeightReport, inspect};
pub use intervene::{Action, Channels, Edit, EditSites, Interventions, Positions};
pub use kv_cache::KvCache;
pub use means::means;
pub(crate) use parameters::fill_normal;
pub use parameters::{Kind, Parameter, ParameterValue, Parameters, WeightFormat};
pub use run::{ActivationCache, AnswerTokens, Gradients, Metric, PromptTensor, Prompts, Run, SiteGradient};
pub(crate) use shapes::{EMBEDDING, UNEMBEDDING};
pub use shapes::{check_shapes, check_tied, check_weights, is_buffer};
pub use site::{Site, SiteKind};
pub use weights::Weights;

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

    /// How many weights of the layers' matrices are not zero, and how many there are.
    ///
    /// # Errors
    /// Those of the device.
    pub fn hidden_weights(&self) -> Result<(u64, u64)> {
        let hidden = || self.parameters.iter().filter(|parameter| matches!(parameter.kind, Kind::Hidden(_)));
        let nonzeros = hidden().map(Parameter::nonzeros).sum::<Result<u64>>()?;
        Ok((nonzeros, hidden().map(|parameter| parameter.len() as u64).sum()))
    }
}
