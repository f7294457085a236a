//! `gossamer eval`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use gossamer::files::check_output;
use gossamer::model::evaluate;
use gossamer::pipelines::{TokenSource, evaluation_report};
use gossamer::settings::count;
use gossamer::terminal::{Progress, screen};

use crate::open::{MAX_TOKENS, ModelArgs};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Files and folders of text (.py, .txt, .jsonl with a field `text`), cut into sequences of block_size; may be
    /// repeated
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    /// TokenSource instead of text: a safetensors file with a tensor `tokens`, (B, T)
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    tokens: Option<PathBuf>,
    /// TokenSource of text to read at most, but at least a sequence
    #[arg(long, default_value_t = 65_536, conflicts_with = "tokens", value_parser = count::<usize>(1, MAX_TOKENS))]
    max_tokens: usize,
    /// Sequences that run at once
    #[arg(long, default_value_t = 8, value_parser = count::<usize>(1, 65_536))]
    batch_size: usize,
    /// Write the loss of every token, (sequences, T − 1), to this safetensors file
    #[arg(long, value_name = "FILE")]
    losses: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    if args.tokens.is_none() && args.data.is_empty() {
        bail!("nothing to evaluate on: name text with --data or tokens with --tokens");
    }
    args.losses.as_ref().map_or(Ok(()), check_output)?;
    let progress = Progress::new();
    progress.stage("opening the model");
    let opened = args.model.open()?;
    progress.stage("reading text");
    let text = TokenSource::Text { data: &args.data, max_tokens: args.max_tokens };
    let sequences = args.tokens.as_deref().map_or(text, TokenSource::File).sequences(&opened)?;
    if sequences.iter().all(|sequence| sequence.len() < 2) {
        let count = sequences.len();
        bail!("nothing to evaluate on: all {count} sequences have a single token, after which none follows");
    }
    let keep = args.losses.is_some();
    let result = evaluate(&opened.model, &sequences, args.batch_size, keep, &progress.observer())?;
    drop(progress);
    args.losses.as_ref().map_or(Ok(()), |path| result.save_losses(path))?;
    Ok(evaluation_report(&result)?.write(&mut screen(&[args.losses.as_deref()])?, args.json)?)
}
