//! What the commands share: naming a model, its tokenizer and a device, and where results are printed.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use gossamer::device::Device;
use gossamer::files::is_stdout;
use gossamer::formats::{FindOptions, ModelFiles, Pretrained};
use gossamer::model::WeightFormat;
use gossamer::terminal::Progress;

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

/// Standard output, or standard error if one of the `files` is standard output, which must then hold nothing else.
pub fn screen(files: &[Option<&Path>]) -> Result<Box<dyn Write>> {
    match files.iter().flatten().filter(|file| is_stdout(file)).count() {
        0 => Ok(Box::new(io::stdout())),
        1 => Ok(Box::new(io::stderr())),
        n => bail!("{n} files are to be standard output, which can be only one: name the others"),
    }
}

/// Prints lines while work is shown as progress. Work continues where they cannot be written.
pub struct Lines<'a> {
    progress: &'a Progress,
    out: Box<dyn Write>,
    result: io::Result<()>,
}

impl<'a> Lines<'a> {
    pub fn new(progress: &'a Progress, out: Box<dyn Write>) -> Self {
        Self { progress, out, result: Ok(()) }
    }

    pub fn print(&mut self, line: &str) {
        let written = self.progress.aside(|| writeln!(self.out, "{line}"));
        if self.result.is_ok() {
            self.result = written;
        }
    }

    /// The first error of writing a line.
    pub fn finish(mut self) -> io::Result<()> {
        self.result.and_then(|()| self.out.flush())
    }
}
