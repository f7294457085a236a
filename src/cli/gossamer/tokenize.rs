//! `gossamer tokenize`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::open::LoadArgs;
use crate::cli::FieldArgs;
use crate::error::Error;
use crate::text::tokenizer::{Tokenizer, is_in};

#[derive(clap::Args)]
pub struct Args {
    /// A tokenizer (tokenizer.json, vocab.json or encoder.json, or the folder of one), or a model with
    /// one
    tokenizer: String,
    /// The text
    #[arg(long, required_unless_present = "data", conflicts_with = "data")]
    text: Option<String>,
    /// Files and folders of text, - for standard input, or hub:OWNER/NAME: the ids of each document
    /// on a line; may be repeated
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    field: FieldArgs,
    /// Only the ids
    #[arg(long)]
    ids: bool,
    /// Do not go to the network; take from the Hub's cache what is there
    #[arg(long)]
    offline: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let tokenizer = open(args)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if let Some(text) = &args.text {
        write(&mut out, &tokenizer, text, args.ids)?;
    }
    if !args.data.is_empty() {
        let source = args.field.source(&args.data, args.offline);
        let (mut documents, mut written) = (source.documents()?, false);
        for document in documents.by_ref() {
            write(&mut out, &tokenizer, &document?, true)?;
            written = true;
        }
        if !written {
            return Err(Error::Data(source.no_documents(&documents.skipped())).into());
        }
    }
    Ok(out.flush().map_err(|source| Error::io("-", source))?)
}

/// Of these the folder of a model, or of a run, has one.
const MODELS: [&str; 3] = ["config.json", "beeg_config.json", "config.toml"];

/// The tokenizer itself, or that of a model.
fn open(args: &Args) -> Result<Tokenizer> {
    let path = Path::new(&args.tokenizer);
    // What is in the folder of no model should be a tokenizer: its error says what there is instead.
    let no_model = || path.is_dir() && !MODELS.iter().any(|name| path.join(name).exists());
    if path.is_file() || is_in(path) || no_model() {
        return Ok(Tokenizer::load(path)?);
    }
    let load = LoadArgs { tokenizer: None, offline: args.offline };
    let tokenizer = load.files(&args.tokenizer)?.load_tokenizer()?;
    tokenizer.with_context(|| format!("{} comes without a tokenizer", args.tokenizer))
}

/// Writes the ids of a text as JSON, or each with its text.
fn write(out: &mut impl Write, tokenizer: &Tokenizer, text: &str, only_ids: bool) -> Result<()> {
    let ids = tokenizer.encode(text)?;
    let written = match only_ids {
        true => writeln!(out, "{}", serde_json::json!(ids)),
        false => ids.iter().try_for_each(|&id| writeln!(out, "{id:>8}  {}", tokenizer.show(id))),
    };
    Ok(written.map_err(|source| Error::io("-", source))?)
}
