//! `gossamer bench`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use crate::chart::picture_file;
use crate::pipelines::bench::{self, BenchRequest, compare_reports};
use crate::terminal::{Lines, Progress, screen};

use super::open::{DeviceArgs, report};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    device: DeviceArgs,
    /// The CPU and every graphics adapter, one after the other
    #[arg(long, conflicts_with = "device")]
    all: bool,
    /// Under a minute: fewer runs, and without the larger pieces on slow devices
    #[arg(long)]
    quick: bool,
    /// Measure only which ways to compute products are fastest, and use those from now on
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
        /// Draw the ratios into this file (.png, .svg or .pdf)
        #[arg(long, alias = "png", value_name = "FILE", value_parser = picture_file)]
        chart: Option<PathBuf>,
    },
}

pub fn run(args: &Args) -> Result<()> {
    if let Some(Command::Compare { reports, chart }) = &args.command {
        return report(&[chart.as_deref()], false, |_| Ok(compare_reports(reports, chart.as_deref())?));
    }
    let Args { all, quick, autotune, .. } = *args;
    let request = BenchRequest { device: &args.device.device, all, quick, autotune, out: args.out.as_deref() };
    let progress = Progress::new();
    let mut lines = Lines::new(&progress, screen(&[request.out])?);
    progress.stage("measuring");
    bench::run(&request, &mut |line| lines.print(line))?;
    Ok(lines.finish()?)
}
