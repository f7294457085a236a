//! What commands share: the arguments that name a model and a device, and the way to a report.

use std::path::{Path, PathBuf};

use crate::device::Device;
use crate::files::check_output;
use crate::formats::{FindOptions, ModelFiles, Pretrained};
use crate::model::WeightFormat;
use crate::pipelines::Prompt;
use crate::report::Report;
use crate::terminal::{Progress, screen};
use anyhow::Result;

/// Tokens of text at most: all are held in memory.
pub const MAX_TOKENS: u64 = 1_000_000_000;

/// Which model.
#[derive(clap::Args)]
pub struct SourceArgs {
    /// A run, a checkpoint, a Hugging Face folder, a published folder, its .pt or .safetensors
    /// file, or a Hub id such as openai/circuit-sparsity
    pub model: String,
    #[command(flatten)]
    pub load: LoadArgs,
}

/// How a model is found.
#[derive(clap::Args)]
pub struct LoadArgs {
    /// A tokenizer.json, if the model comes without one or with the wrong one
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Do not go to the network; take from the Hub's cache what is there
    #[arg(long)]
    pub offline: bool,
}

/// Where to compute.
#[derive(clap::Args)]
pub struct DeviceArgs {
    /// auto, cpu, gpu, gpu:INDEX or gpu:PART-OF-A-NAME (see `gossamer devices`)
    #[arg(long, default_value = "auto")]
    pub device: String,
}

/// How to print.
#[derive(clap::Args)]
pub struct JsonArgs {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Which model, and where it runs.
#[derive(clap::Args)]
pub struct ModelArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl LoadArgs {
    pub fn files(&self, model: &str) -> Result<ModelFiles> {
        let (offline, tokenizer) = (self.offline, self.tokenizer.clone());
        let options = FindOptions { offline, tokenizer, progress: true, ..FindOptions::default() };
        Ok(ModelFiles::find(model, &options)?)
    }

    pub fn open(&self, model: &str, device: &DeviceArgs, progress: &Progress) -> Result<Pretrained> {
        progress.stage("opening the model");
        Ok(self.files(model)?.pretrained(WeightFormat::Sparse, &Device::open(&device.device)?)?)
    }
}

impl ModelArgs {
    pub fn open(&self, progress: &Progress) -> Result<Pretrained> {
        self.source.load.open(&self.source.model, &self.device, progress)
    }
}

/// Ids of tokens instead of a text.
#[derive(clap::Args)]
pub struct IdsArgs {
    /// The prompt as token ids, such as 5,17,3; a model without a tokenizer has no other
    #[arg(long, value_name = "IDS", value_delimiter = ',', conflicts_with = "prompt")]
    pub ids: Vec<u32>,
}

impl IdsArgs {
    /// The prompt: the ids, or else the text.
    pub fn prompt<'a>(&'a self, text: &'a str, special: bool) -> Prompt<'a> {
        if self.ids.is_empty() { Prompt::Text { text, special } } else { Prompt::Ids(&self.ids) }
    }
}

/// Prints the report of `work`, which shows its progress and writes `files`. Checks first that the
/// files can be written.
pub fn report(files: &[Option<&Path>], json: bool, work: impl FnOnce(&Progress) -> Result<Report>) -> Result<()> {
    files.iter().flatten().try_for_each(check_output)?;
    let mut out = screen(files)?;
    let progress = Progress::new();
    let report = work(&progress)?;
    drop(progress);
    Ok(report.write(&mut out, json)?)
}
