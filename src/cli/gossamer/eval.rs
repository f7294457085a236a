//! `gossamer eval`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use crate::pipelines::{EvaluateRequest, TokenSource, evaluate};
use crate::cli::FieldArgs;
use crate::settings::count;

use super::open::{JsonArgs, MAX_TOKENS, ModelArgs, report};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Files and folders of text (.py, .txt, .jsonl, .csv, .tsv, .parquet; also .gz, .zst, .xz), -
    /// for standard input, or hub:OWNER/NAME; cut into sequences of block_size; may be repeated
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    field: FieldArgs,
    /// Tokens instead of text: a safetensors file with a tensor `tokens`, (B, T)
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    tokens: Option<PathBuf>,
    /// Tokens of text to read at most, but at least a sequence
    #[arg(long, default_value_t = 65_536, conflicts_with = "tokens", value_parser = count::<usize>(1, MAX_TOKENS))]
    max_tokens: usize,
    /// Sequences that run at once
    #[arg(long, default_value_t = 8, value_parser = count::<usize>(1, 65_536))]
    batch_size: usize,
    /// Write the loss of every token, (sequences, T − 1), to this safetensors file
    #[arg(long, value_name = "FILE")]
    losses: Option<PathBuf>,
    #[command(flatten)]
    output: JsonArgs,
}

pub fn run(args: &Args) -> Result<()> {
    if args.tokens.is_none() && args.data.is_empty() {
        bail!("nothing to evaluate on: name text with --data or tokens with --tokens");
    }
    let losses = args.losses.as_deref();
    report(&[losses], args.output.json, |progress| {
        let model = args.model.open(progress)?;
        progress.stage("reading text");
        let source = args.field.source(&args.data, args.model.source.load.offline);
        let text = TokenSource::Text { data: &source, max_tokens: args.max_tokens };
        let tokens = args.tokens.as_deref().map_or(text, TokenSource::File);
        let request = EvaluateRequest { tokens, batch_size: args.batch_size, keep_losses: losses.is_some() };
        let result = evaluate(&model, &request, &progress.observer())?;
        losses.map_or(Ok(()), |path| result.save_losses(path))?;
        Ok(result.report()?)
    })
}
