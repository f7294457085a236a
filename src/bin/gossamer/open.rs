//! The arguments that name a model, its tokenizer and a device.

use std::path::PathBuf;

use anyhow::Result;
use gossamer::device::Device;
use gossamer::formats::{FindOptions, ModelFiles, Pretrained};
use gossamer::model::WeightFormat;

/// Tokens of text at most: all are held in memory.
pub const MAX_TOKENS: u64 = 1_000_000_000;

/// Which model.
#[derive(clap::Args)]
pub struct SourceArgs {
    /// A run, a checkpoint, a Hugging Face folder, a published folder, its .pt or .safetensors file, or a Hub id
    /// such as openai/circuit-sparsity
    pub model: String,
    /// A tokenizer.json, if the model comes without one or with the wrong one
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Do not go to the network; take from the Hub's cache what is there
    #[arg(long)]
    pub offline: bool,
}

/// Which model, and where it runs.
#[derive(clap::Args)]
pub struct ModelArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// auto, cpu, gpu, gpu:INDEX or gpu:PART-OF-A-NAME (see `gossamer devices`)
    #[arg(long, default_value = "auto")]
    pub device: String,
}

impl SourceArgs {
    pub fn files(&self) -> Result<ModelFiles> {
        let (offline, tokenizer) = (self.offline, self.tokenizer.clone());
        Ok(ModelFiles::find(
            &self.model,
            &FindOptions { offline, tokenizer, progress: true, ..FindOptions::default() },
        )?)
    }
}

impl ModelArgs {
    pub fn open(&self) -> Result<Pretrained> {
        Ok(self.source.files()?.pretrained(WeightFormat::Sparse, &Device::open(&self.device)?)?)
    }
}
