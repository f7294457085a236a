//! What most programs need: `use gossamer::prelude::*`.

pub use crate::device::Device;
pub use crate::formats::{FindOptions, ModelFiles, Pretrained};
pub use crate::model::{
    ActivationCache, AnswerTokens, Edit, Gradients, Hooks, Interventions, Metric, Model, ModelConfig, NoHooks,
    PromptTensor, Prompts, Run, Sampling, Site, SiteKind, WeightFormat,
};
pub use crate::text::tokenizer::Tokenizer;
