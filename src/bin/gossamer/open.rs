//! What the commands share: naming a model, its tokenizer, a device, and tokens to run it on.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use gossamer::device::Device;
use gossamer::files::load_ids;
use gossamer::formats::folder::{FindOptions, ModelFiles};
use gossamer::model::{Model, WeightFormat};
use gossamer::terminal::say;
use gossamer::text::corpus::Source;
use gossamer::text::notation;
use gossamer::text::sequences::sequences;
use gossamer::text::tokenizer::Tokenizer;

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
        Ok(ModelFiles::find(
            &self.model,
            &FindOptions { offline: self.offline, progress: true, ..FindOptions::default() },
        )?)
    }

    /// The tokenizer that was named, or the one that came with the model.
    pub fn tokenizer_of(&self, files: &ModelFiles) -> Result<Option<Tokenizer>> {
        let path = self.tokenizer.as_ref().or(files.tokenizer.as_ref());
        Ok(path.map(Tokenizer::load).transpose()?)
    }
}

/// A model ready to run.
pub struct Opened {
    pub model: Model,
    tokenizer: Option<Tokenizer>,
}

impl ModelArgs {
    /// Loads the model for inference.
    pub fn open(&self) -> Result<Opened> {
        let files = self.source.files()?;
        let tokenizer = self.source.tokenizer_of(&files)?;
        let device = Device::open(&self.device)?;
        let model = files.load(WeightFormat::Sparse, &device)?;
        if let Some(tokenizer) = tokenizer.as_ref().filter(|t| t.vocab_size() > model.config.vocab_size) {
            let (theirs, ours) = (tokenizer.vocab_size(), model.config.vocab_size);
            bail!("the tokenizer has {theirs} entries, but the model only {ours}: name the right one with --tokenizer");
        }
        Ok(Opened { model, tokenizer })
    }
}

impl Opened {
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().context(
            "the model comes without a tokenizer.json: name one with --tokenizer (the published models' is in \
             openai/circuit-sparsity on the Hub)",
        )
    }

    /// A prompt's tokens, with special ones only if they are asked for; of nothing, the end-of-text token, after which documents begin.
    pub fn encode(&self, prompt: &str, special: bool) -> Result<Vec<u32>> {
        let tokenizer = self.tokenizer()?;
        match prompt {
            "" => Ok(vec![tokenizer.end_of_text().context("an empty prompt, and a tokenizer without <|endoftext|>")?]),
            text if special => Ok(tokenizer.encode_special(text)?),
            text => Ok(tokenizer.encode(text)?),
        }
    }

    /// A token as it is shown everywhere.
    pub fn show(&self, id: u32) -> String {
        notation::token(&self.token_text(id))
    }

    /// A token's text, for files.
    pub fn token_text(&self, id: u32) -> String {
        self.tokenizer.as_ref().map_or_else(|| notation::unknown(id), |tokenizer| tokenizer.token_text(id))
    }

    /// A token, for JSON.
    pub fn token_json(&self, id: u32) -> serde_json::Value {
        serde_json::json!({ "token": id, "text": self.token_text(id) })
    }

    /// Sequences of the model's own length from files, or from generated Python where there are none.
    pub fn sequences(&self, data: &[PathBuf], max_tokens: usize) -> Result<Vec<Vec<u32>>> {
        let (tokenizer, length) = (self.tokenizer()?, self.model.config.block_size);
        if data.is_empty() {
            let documents = gossamer::text::python::documents(0).map(Ok);
            return Ok(sequences(documents, tokenizer, length, max_tokens)?);
        }
        sequences_of(data, tokenizer, length, max_tokens)
    }
}

/// Sequences of `length` tokens from files, which are named where that fails; says how many documents were skipped.
pub fn sequences_of(
    data: &[PathBuf],
    tokenizer: &Tokenizer,
    length: usize,
    max_tokens: usize,
) -> Result<Vec<Vec<u32>>> {
    let mut documents = Source::new(data).documents()?;
    let found = sequences(documents.by_ref(), tokenizer, length, max_tokens);
    let skipped = documents.skipped().listed();
    if !skipped.is_empty() {
        say(format_args!("note: {skipped}"));
    }
    let places = || data.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    found.with_context(places)
}

/// Token ids from the tensor `tokens`, `(T)` or `(B, T)`, of a safetensors file.
pub fn token_file(path: &PathBuf) -> Result<Vec<Vec<u32>>> {
    let (shape, ids) = load_ids(path, "tokens")?;
    let length = match shape[..] {
        [length] | [_, length] if length > 0 && !ids.is_empty() => length,
        _ => bail!("{}: tensor `tokens` is {shape:?}, expected (T) or (B, T)", path.display()),
    };
    Ok(ids.chunks(length).map(<[u32]>::to_vec).collect())
}
