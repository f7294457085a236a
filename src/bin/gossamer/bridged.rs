//! Opening two models and the bridges between them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use gossamer::bridges::{BridgeFile, Bridges};
use gossamer::device::Device;
use gossamer::formats::{FindOptions, ModelFiles};
use gossamer::model::{Model, WeightFormat};
use gossamer::settings::count;
use gossamer::text::python;
use gossamer::text::sequences::{sequences, sequences_of};
use gossamer::text::tokenizer::Tokenizer;

use crate::open::{MAX_TOKENS, SourceArgs};

/// Beside the sparse model.
#[derive(clap::Args)]
pub struct BridgedArgs {
    /// The dense model, if it is no longer where it was
    #[arg(long, value_name = "MODEL")]
    pub dense: Option<String>,
    /// Files and folders of text (.py, .txt, .jsonl with a field `text`) [default: generated Python that no run trains on]
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub data: Vec<PathBuf>,
    /// Tokens of text to read at most, but at least a sequence
    #[arg(long, default_value_t = 16_384, value_parser = count::<usize>(1, MAX_TOKENS))]
    pub max_tokens: usize,
    /// auto, cpu, gpu, gpu:INDEX or gpu:PART-OF-A-NAME (see `gossamer devices`)
    #[arg(long, default_value = "auto")]
    pub device: String,
}

/// A dense and a sparse model, joined.
pub struct Bridged {
    pub dense: Model,
    pub sparse: Model,
    pub bridges: Bridges,
    pub tokenizer: Tokenizer,
    /// Text that both models can read.
    pub sequences: Vec<Vec<u32>>,
}

impl BridgedArgs {
    /// Opens the sparse model with the bridges beside it, and the dense model that they name.
    pub fn open(&self, sparse: &SourceArgs) -> Result<Bridged> {
        let files = sparse.files()?;
        let folder = files.weights_path.parent().context("a model without a folder")?;
        let about = BridgeFile::load(folder)?;
        let name = match &self.dense {
            Some(name) => PathBuf::from(name),
            None => about.dense_path(folder),
        };
        let options = FindOptions { offline: sparse.offline, progress: true, ..FindOptions::default() };
        let dense = ModelFiles::find(name, &options).context("the dense model (name another place with --dense)")?;
        let tokenizer = files.load_tokenizer()?;
        let tokenizer = tokenizer.context("the model comes without a tokenizer.json: name one with --tokenizer")?;
        let device = Device::open(&self.device)?;
        let (sparse, dense) = (files.load(WeightFormat::Sparse, &device)?, dense.load(WeightFormat::Sparse, &device)?);
        let hash = dense.hash()?;
        let bridges = about.open(folder, (&dense, hash.as_str()), &sparse)?;
        let length = sparse.config.block_size.min(dense.config.block_size);
        let sequences = match self.data.is_empty() {
            true => sequences(python::documents(u64::MAX).map(Ok), &tokenizer, length, self.max_tokens)?,
            false => sequences_of(&self.data, &tokenizer, length, self.max_tokens)?,
        };
        Ok(Bridged { dense, sparse, bridges, tokenizer, sequences })
    }
}
