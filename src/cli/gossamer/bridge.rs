//! `gossamer bridge`, and the arguments that name a pair of models.

use std::path::PathBuf;

use anyhow::Result;
use crate::chart::picture_file;
use crate::cli::FieldArgs;
use crate::bridges::PairRequest;
use crate::settings::count;

use super::open::{DeviceArgs, JsonArgs, MAX_TOKENS, SourceArgs, report};

/// A sparse model with bridges to a dense one.
#[derive(clap::Args)]
pub struct PairArgs {
    /// The sparse model with its bridges: a run of `train bridges`, or one of its checkpoints
    #[command(flatten)]
    pub sparse: SourceArgs,
    /// The dense model, if it is no longer where it was
    #[arg(long, value_name = "MODEL")]
    dense: Option<String>,
    /// Files and folders of text (.py, .txt, .jsonl, .csv, .tsv, .parquet; also .gz, .zst, .xz), -
    /// for standard input, or hub:OWNER/NAME [default: generated Python that no run trains on]
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    field: FieldArgs,
    /// Tokens of text to read at most, but at least a sequence
    #[arg(long, default_value_t = 16_384, value_parser = count::<usize>(1, MAX_TOKENS))]
    max_tokens: usize,
    #[command(flatten)]
    device: DeviceArgs,
}

impl PairArgs {
    pub fn request(&self) -> PairRequest {
        PairRequest {
            sparse: self.sparse.model.clone(),
            dense: self.dense.clone(),
            tokenizer: self.sparse.load.tokenizer.clone(),
            offline: self.sparse.load.offline,
            data: self.field.source(&self.data, self.sparse.load.offline),
            max_tokens: self.max_tokens,
            device: self.device.device.clone(),
        }
    }
}

#[derive(clap::Subcommand)]
pub enum Args {
    /// Errors of the bridges at every site, and how far models that continue across them are from
    /// the dense model
    Eval(EvalArgs),
}

#[derive(clap::Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pair: PairArgs,
    /// Sequences that run at once; each goes through a model once for every site
    #[arg(long, default_value_t = 8, value_parser = count::<usize>(1, 65_536))]
    batch_size: usize,
    #[command(flatten)]
    output: JsonArgs,
    /// Draw the divergences of all hybrids into this file (.png, .svg or .pdf)
    #[arg(long, alias = "png", value_name = "FILE", value_parser = picture_file)]
    chart: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let Args::Eval(args) = args;
    let chart = args.chart.as_deref();
    report(&[chart], args.output.json, |progress| {
        progress.stage("opening the models");
        let pair = args.pair.request().open()?;
        progress.stage("measuring means");
        let result = pair.evaluate(args.batch_size, progress.observer())?;
        chart.map_or(Ok(()), |path| result.chart()?.save(path))?;
        Ok(result.report()?)
    })
}
