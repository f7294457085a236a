//! `gossamer record`.

use std::path::PathBuf;

use anyhow::Result;
use crate::pipelines::{Prompt, RecordRequest, TokenSource, record};
use crate::settings::count;
use regex::Regex;

use crate::cli::FieldArgs;

use super::open::{IdsArgs, MAX_TOKENS, ModelArgs, report};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to run the model on
    #[arg(long, required_unless_present_any = ["ids", "tokens", "data", "mean"], conflicts_with_all = ["tokens", "data"])]
    prompt: Option<String>,
    #[command(flatten)]
    ids: IdsArgs,
    /// Read special tokens in the prompt, such as <|endoftext|>, as those tokens, not as text
    #[arg(long, requires = "prompt")]
    special: bool,
    /// A safetensors file with a tensor `tokens`, (T) or (B, T)
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    tokens: Option<PathBuf>,
    /// Which sites: a regular expression over names such as 3.mlp.post_act or final_resid
    #[arg(long, value_name = "REGEX", default_value = ".")]
    sites: Regex,
    /// The safetensors file to write: `tokens`, `logits` (B, T, V), and each site (B, T, width)
    /// under its name
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write instead the mean of every channel over all positions, (width) for each site
    #[arg(long)]
    mean: bool,
    /// Files and folders of text to take means over [default: generated Python]; may be repeated
    #[arg(long, value_name = "PATH", num_args = 1.., requires = "mean")]
    data: Vec<PathBuf>,
    #[command(flatten)]
    field: FieldArgs,
    /// Tokens of --data to read at most
    #[arg(long, default_value_t = 65_536, conflicts_with_all = ["prompt", "tokens"], value_parser = count::<usize>(1, MAX_TOKENS))]
    max_tokens: usize,
}

pub fn run(args: &Args) -> Result<()> {
    report(&[Some(&args.out)], false, |progress| {
        let model = args.model.open(progress)?;
        progress.stage("recording");
        let source = args.field.source(&args.data, args.model.source.load.offline);
        let tokens = match (&args.prompt, &args.tokens) {
            _ if !args.ids.ids.is_empty() => TokenSource::Prompt(Prompt::Ids(&args.ids.ids)),
            (Some(text), _) => TokenSource::Prompt(Prompt::Text { text, special: args.special }),
            (None, Some(path)) => TokenSource::File(path),
            (None, None) => TokenSource::Text { data: &source, max_tokens: args.max_tokens },
        };
        let request = RecordRequest { tokens, sites: args.sites.as_str(), mean: args.mean };
        let recording = record(&model, &request, &progress.observer())?;
        recording.save(&args.out)?;
        Ok(recording.report(&args.out))
    })
}
