//! `gossamer eval`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use gossamer::files::{HostTensor, check_output, save_tensors};
use gossamer::model::evaluate;
use gossamer::settings::count;
use gossamer::terminal::Progress;

use crate::open::{MAX_TOKENS, ModelArgs, token_file};
use crate::output::screen;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Files and folders of text (.py, .txt, .jsonl with a field `text`), cut into sequences of block_size; may be repeated
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
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
    let sequences = match &args.tokens {
        Some(path) => token_file(path)?,
        None => opened.sequences(&args.data, args.max_tokens)?,
    };
    if sequences.iter().all(|sequence| sequence.len() < 2) {
        bail!(
            "nothing to evaluate on: all {} sequences have a single token, after which none follows",
            sequences.len()
        );
    }
    let keep = args.losses.is_some();
    let result = evaluate(&opened.model, &sequences, args.batch_size, keep, &progress.observer())?;
    drop(progress);
    if let Some(path) = &args.losses {
        let shape = vec![result.losses.len(), result.losses.first().map_or(0, Vec::len)];
        let losses = HostTensor { shape, data: result.losses.concat() };
        save_tensors(path, &BTreeMap::from([("losses".to_string(), losses)]), None)?;
    }
    let mut out = screen(&[args.losses.as_deref()])?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&result)?)?;
        return Ok(());
    }
    writeln!(out, "loss      {:.6} nats per token, over {} tokens", result.loss, result.predictions)?;
    writeln!(out, "kurtosis  {:.2} of final_resid over each token's channels", result.kurtosis)?;
    writeln!(out, "          {:.2} over each channel's tokens (3 is normal)", result.channel_kurtosis)?;
    Ok(())
}
