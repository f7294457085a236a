//! `gossamer bench`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Subcommand;
use gossamer::files::{check_output, is_stdout};
use gossamer::pipelines::bench::{all_devices, compare_reports, measure, numbered, tune};
use gossamer::terminal::{Lines, Progress, say, screen};


#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// auto, cpu, gpu, gpu:INDEX or gpu:PART-OF-A-NAME (see `gossamer devices`)
    #[arg(long, default_value = "auto")]
    device: String,
    /// The CPU and every graphics adapter, one after the other
    #[arg(long, conflicts_with = "device")]
    all: bool,
    /// Under a minute: fewer runs, and without the larger pieces on slow devices
    #[arg(long)]
    quick: bool,
    /// Measure only which tiles of the dense product are fastest, and use those from now on (GPUs)
    #[arg(long, conflicts_with = "out")]
    autotune: bool,
    /// Write the numbers to this file, as JSON; with --all, to FILE-1.json and so on
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Compare reports in a table and a picture
    Compare {
        /// Files that `gossamer bench --out` wrote; ratios are to the first
        #[arg(required = true)]
        reports: Vec<PathBuf>,
        /// Draw the ratios
        #[arg(long, value_name = "FILE.png")]
        png: Option<PathBuf>,
    },
}

pub fn run(args: &Args) -> Result<()> {
    let Some(Command::Compare { reports, png }) = &args.command else { return run_all(args) };
    let mut out = screen(&[png.as_deref()])?;
    png.as_ref().map_or(Ok(()), check_output)?;
    Ok(compare_reports(reports, png.as_deref())?.write(&mut out, false)?)
}

fn run_all(args: &Args) -> Result<()> {
    let devices = if args.all { all_devices() } else { vec![args.device.clone()] };
    if args.all && args.out.as_ref().is_some_and(is_stdout) {
        bail!("--all writes a report for each device, which standard output cannot hold: name a file with --out");
    }
    let out = |at: usize| args.out.as_ref().map(|path| if args.all { numbered(path, at + 1) } else { path.clone() });
    // Minutes of measuring come before the file is written.
    (0..devices.len()).filter_map(out).try_for_each(check_output)?;
    let mut failed = 0;
    for (at, name) in devices.iter().enumerate() {
        match run_one(args, name, out(at)) {
            Err(error) if args.all => {
                failed += 1;
                say(format_args!("{name}: {error:#}"));
            }
            result => result?,
        }
    }
    if failed > 0 {
        bail!("{failed} of {} devices could not be measured", devices.len());
    }
    Ok(())
}

fn run_one(args: &Args, device: &str, file: Option<PathBuf>) -> Result<()> {
    let progress = Progress::new();
    // The measurement continues if nobody reads its lines any more: the file is still written.
    let mut lines = Lines::new(&progress, screen(&[file.as_deref()])?);
    progress.stage("measuring");
    if args.autotune {
        tune(device, args.quick, &mut |line| lines.print(line))?;
    } else {
        measure(device, args.quick, file.as_deref(), &mut |line| lines.print(line))?;
    }
    Ok(lines.finish()?)
}
