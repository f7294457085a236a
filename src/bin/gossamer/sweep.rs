//! `gossamer sweep`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use gossamer::sweep::{Done, Shard, Sweep, circuits, collect};
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
    /// One table and a chart of what came out, from all shards
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
        (Some(Command::Collect { from, plot }), _) => gather(from, plot),
        (None, Some(file)) => sweep(file, args.shard.unwrap_or(Shard::WHOLE)),
        (None, None) => bail!("which sweep?"),
    }
}

fn sweep(file: &Path, shard: Shard) -> Result<()> {
    let sweep = Sweep::load(file)?;
    let programs = std::env::current_exe().context("where is this program?")?;
    let programs = programs.parent().unwrap_or(Path::new("."));
    let mine: Vec<_> = (0..sweep.jobs.len()).filter(|&at| shard.has(at)).collect();
    if mine.is_empty() {
        say(format_args!("of {} jobs none belongs to shard {shard}", sweep.jobs.len()));
    }
    signals::listen(|_| ()).context("signals cannot be heard")?;
    let mut failed = Vec::new();
    for (done, &at) in mine.iter().enumerate() {
        let job = &sweep.jobs[at];
        let asked = || signals::stop().load(Ordering::Relaxed);
        if asked() {
            say("stopped; the same call goes on with what is not done");
            return Ok(());
        }
        let how = match job.run(programs, signals::wait_forwarding)? {
            Done::Now => "done",
            Done::Before => "was done",
            Done::Stopped | Done::Failed if asked() => "stopped",
            Done::Stopped => bail!("{}: it was asked to stop; the same call goes on with it", job.name),
            Done::Failed => {
                failed.push(job.file("stderr"));
                "failed"
            }
        };
        print(format_args!("{}/{}  {:8}  {}", done + 1, mine.len(), how, job.name));
    }
    match failed.first() {
        None => Ok(()),
        Some(log) => bail!("{} of {} jobs failed; the first says why in {}", failed.len(), mine.len(), log.display()),
    }
}

fn gather(from: &Path, plot: &[String]) -> Result<()> {
    let (results, folder) = match from.is_dir() {
        true => (circuits(from)?, from.to_path_buf()),
        false => {
            let sweep = Sweep::load(from)?;
            let (results, missing) = collect(&sweep)?;
            if missing > 0 {
                let jobs = sweep.jobs.len();
                say(format_args!("{missing} of {jobs} jobs are not done yet: `gossamer sweep` does them"));
            }
            (results, sweep.folder)
        }
    };
    if results.table.rows().is_empty() {
        bail!("{}: nothing is done yet", from.display());
    }
    let default = results.main_column().map(str::to_string).into_iter().collect();
    let plot = if plot.is_empty() { default } else { plot.to_vec() };
    let path = folder.join("table.csv");
    results.table.save_csv(&path)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}\n{}", results.table.text(), path.display())?;
    for column in plot {
        let path = folder.join(format!("{}.png", column.replace(['/', '\\'], "-")));
        results.chart(&column)?.save(&path)?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}
