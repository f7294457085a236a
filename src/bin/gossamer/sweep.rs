//! `gossamer sweep`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use gossamer::report::Report;
use gossamer::sweep::{Shard, Sweep, collect_into_files};
use gossamer::terminal::{print, say, signals};

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
    },
}

pub fn run(args: &Args) -> Result<()> {
    match (&args.command, &args.file) {
        (Some(Command::Collect { from, plot }), _) => {
            let collected = collect_into_files(from, plot)?;
            if collected.missing > 0 {
                let (missing, jobs) = (collected.missing, collected.jobs);
                say(format_args!("{missing} of {jobs} jobs are not done yet: `gossamer sweep` does them"));
            }
            if collected.results.table.rows().is_empty() {
                bail!("{}: nothing is done yet", from.display());
            }
            let paths: Vec<_> = collected.files.iter().map(|path| path.display().to_string()).collect();
            let report = Report::new().table(collected.results.table).paragraph(paths.join("\n"));
            Ok(report.write(&mut std::io::stdout(), false)?)
        }
        (None, Some(file)) => sweep(file, args.shard.unwrap_or(Shard::WHOLE)),
        (None, None) => bail!("which sweep?"),
    }
}

fn sweep(file: &Path, shard: Shard) -> Result<()> {
    let sweep = Sweep::load(file)?;
    let program = std::env::current_exe().context("where is this program?")?;
    let folder = program.parent().unwrap_or(Path::new("."));
    signals::listen(|_| ()).context("signals cannot be received")?;
    let mut line = |line: &str| print(line);
    let result = sweep.run(shard, folder, signals::stop(), signals::wait_forwarding, &mut line)?;
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
