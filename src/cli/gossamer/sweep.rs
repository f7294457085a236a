//! `gossamer sweep`.

use std::io::stdout;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use crate::chart::FORMATS;
use crate::sweep::{Shard, Sweep, collect_report};
use crate::terminal::{print, say, signals};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The sweep: a TOML file with a command and the values to try (docs/clusters.md)
    #[arg(required = true)]
    file: Option<PathBuf>,
    /// Do only this part of the jobs, such as 0/3, 1/3 or 2/3
    #[arg(long, value_name = "INDEX/COUNT")]
    shard: Option<Shard>,
    /// Where the programs are that jobs run.
    #[arg(skip)]
    pub programs: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// One table and a chart of the results of all shards
    Collect {
        /// The sweep's file, or a folder of circuits
        from: PathBuf,
        /// The column to draw; may be repeated [default: a loss, or the edges]
        #[arg(long, value_name = "COLUMN")]
        plot: Vec<String>,
        /// What the charts are written as
        #[arg(long, default_value = FORMATS[0], value_parser = FORMATS)]
        format: String,
    },
}

pub fn run(args: &Args) -> Result<()> {
    match (&args.command, &args.file) {
        (Some(Command::Collect { from, plot, format }), _) => Ok(collect_report(from, plot, format)?.write(&mut stdout(), false)?),
        (None, Some(file)) => sweep(file, args.shard.unwrap_or(Shard::WHOLE), &args.programs),
        (None, None) => bail!("which sweep?"),
    }
}

fn sweep(file: &Path, shard: Shard, programs: &Path) -> Result<()> {
    let sweep = Sweep::load(file)?;
    signals::listen(|_| ()).context("signals cannot be received")?;
    let result = sweep.run(shard, programs, signals::stop(), signals::wait_forwarding, &mut |line| print(line))?;
    match result.failed.first() {
        _ if result.jobs == 0 => say(format_args!("of {} jobs none belongs to shard {shard}", sweep.jobs.len())),
        _ if result.stopped => say("stopped; the same command continues with the remaining jobs"),
        None => {}
        Some(log) => {
            let (failed, jobs) = (result.failed.len(), result.jobs);
            bail!("{failed} of {jobs} jobs failed; the first says why in {}", log.display())
        }
    }
    Ok(())
}
