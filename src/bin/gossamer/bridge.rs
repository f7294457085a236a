//! `gossamer bridge`.

use std::path::PathBuf;

use anyhow::Result;
use gossamer::bridges::{Objective, evaluate};
use gossamer::files::check_output;
use gossamer::model::Weights;
use gossamer::settings::count;
use gossamer::terminal::{Progress, screen};

use crate::bridged::{Bridged, BridgedArgs};
use crate::open::SourceArgs;


#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Errors of the bridges at every site, and how far models that go on across them stray from the dense model
    Eval(EvalArgs),
}

#[derive(clap::Args)]
struct EvalArgs {
    /// The sparse model: a run of `train bridges`, or one of its checkpoints
    #[command(flatten)]
    sparse: SourceArgs,
    #[command(flatten)]
    bridged: BridgedArgs,
    /// Sequences that run at once; each goes through a model once for every site
    #[arg(long, default_value_t = 8, value_parser = count::<usize>(1, 65_536))]
    batch_size: usize,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Draw the divergences of all hybrids into this file
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Eval(args) => eval(args),
    }
}

fn eval(args: &EvalArgs) -> Result<()> {
    args.png.as_ref().map_or(Ok(()), check_output)?;
    let progress = Progress::new();
    progress.stage("opening the models");
    let Bridged { dense, sparse, bridges, sequences, .. } = args.bridged.open(&args.sparse)?;
    let dense_weights = Weights::constant(&dense, &[]);
    let observer = progress.observer();
    let objective = Objective { observer, ..Objective::new(&dense, &dense_weights, &sparse, &bridges) };
    progress.stage("measuring means");
    let result = evaluate(&objective, &sequences, args.batch_size)?;
    drop(progress);
    if let Some(path) = &args.png {
        result.chart()?.save(path)?;
    }
    Ok(result.report()?.write(&mut screen(&[args.png.as_deref()])?, args.json)?)
}
