//! `gossamer bench`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use gossamer::bench::{self, Choice, Options, Report, Row, compare};
use gossamer::device::{Device, adapters};
use gossamer::files::{check_output, is_stdout};
use gossamer::ops::linear::Tile;
use gossamer::terminal::{Progress, say};

use crate::output::screen;

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
    /// Set reports side by side, as a table and as a picture
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
    match &args.command {
        Some(Command::Compare { reports, png }) => side_by_side(reports, png.as_deref()),
        None => measure(args),
    }
}

fn measure(args: &Args) -> Result<()> {
    let options = if args.quick { Options::quick() } else { Options::full() };
    let devices = match args.all {
        false => vec![args.device.clone()],
        true => {
            let gpus = adapters().into_iter().filter(|adapter| adapter.computes);
            std::iter::once("cpu".to_string()).chain(gpus.map(|adapter| format!("gpu:{}", adapter.index))).collect()
        }
    };
    if args.all && args.out.as_ref().is_some_and(is_stdout) {
        bail!("--all writes a report for each device, which standard output cannot hold: name a file with --out");
    }
    // Found out now, not after minutes of measuring.
    (1..=devices.len()).filter_map(|n| out_file(args, n)).try_for_each(check_output)?;
    let mut failed = 0;
    for (number, name) in devices.iter().enumerate() {
        let out = out_file(args, number + 1);
        let done = if args.autotune { tune(name, &options, args.quick) } else { one(name, &options, out.as_deref()) };
        match done {
            Err(error) if args.all => {
                failed += 1;
                say(format_args!("{name}: {error:#}"));
            }
            result => result?,
        }
    }
    match failed {
        0 => Ok(()),
        n => bail!("{n} of {} devices could not be measured", devices.len()),
    }
}

/// Where the numbers of device `number` go.
fn out_file(args: &Args, number: usize) -> Option<PathBuf> {
    match (&args.out, args.all) {
        (Some(path), true) => Some(numbered(path, number)),
        (path, _) => path.clone(),
    }
}

/// `a/b.json` as `a/b-2.json`.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{number}.json"))
}

fn one(device: &str, options: &Options, file: Option<&Path>) -> Result<()> {
    let device = Device::open(device)?;
    let progress = Progress::new();
    let mut out = screen(&[file])?;
    writeln!(out, "{}", device.describe())?;
    writeln!(out, "{:24} {:48} {:>10} {:>10} {:>10}", "", "", "median", "fastest", "slowest")?;
    // Whoever stopped reading still gets the file.
    progress.stage("measuring");
    let report = bench::run(&device, options, &mut |row| {
        progress.aside(|| drop(writeln!(out, "{}", line(row))));
        progress.stage(&format!("measuring, after {} {}", row.name, row.shape));
    })?;
    drop(progress);
    if let Some(file) = file {
        report.save(file)?;
    }
    writeln!(out, "{} golden cases agreed before", report.golden_cases)?;
    if let Some(file) = file {
        writeln!(out, "{}", file.display())?;
    }
    Ok(())
}

fn tune(device: &str, options: &Options, quick: bool) -> Result<()> {
    let device = Device::open(device)?;
    let progress = Progress::new();
    let mut out = std::io::stdout();
    writeln!(out, "{}", device.describe())?;
    let Device::Gpu(gpu) = device else {
        writeln!(out, "has nothing to tune")?;
        return Ok(());
    };
    let depth = if quick { 64 } else { 1024 };
    progress.stage("measuring tiles");
    bench::autotune(&gpu, options, depth, &mut |choice| {
        progress.aside(|| drop(writeln!(out, "{}", choice_line(choice))));
    })?;
    drop(progress);
    match gpu.save_tuning()? {
        Some(path) => writeln!(out, "{}", path.display())?,
        None => writeln!(out, "not kept: GOSSAMER_CACHE names no folder")?,
    }
    Ok(())
}

fn choice_line(choice: &Choice) -> String {
    let shape = |tile: Tile| format!("{} × {}", tile.shape().0, tile.shape().1);
    let times: Vec<_> =
        choice.seconds.iter().map(|(tile, seconds)| format!("{} {:.3} ms", shape(*tile), seconds * 1e3)).collect();
    let (m, n, k) = choice.sizes;
    format!("{m} × {n} × {k}: {}; best {}", times.join(", "), shape(choice.best))
}

fn line(row: &Row) -> String {
    match (&row.seconds, &row.skipped) {
        (Some(seconds), _) => {
            let ms = |s: f64| if s < 0.1 { format!("{:.3} ms", s * 1e3) } else { format!("{:.0} ms", s * 1e3) };
            let [median, fastest, slowest] = [seconds.median, seconds.fastest, seconds.slowest].map(ms);
            format!("{:24} {:48} {median:>10} {fastest:>10} {slowest:>10} {:>14}", row.name, row.shape, row.rate_text())
        }
        (None, why) => {
            format!("{:24} {:48} left out: {}", row.name, row.shape, why.as_deref().unwrap_or("not measured"))
        }
    }
}

fn side_by_side(paths: &[PathBuf], png: Option<&Path>) -> Result<()> {
    png.map_or(Ok(()), check_output)?;
    let reports = paths.iter().map(|path| Report::load(path)).collect::<Result<Vec<_>, _>>()?;
    let mut out = screen(&[png])?;
    for (number, (name, report)) in compare::names(&reports).iter().zip(&reports).enumerate() {
        let machine = &report.machine;
        let driver =
            if report.device.driver.is_empty() { String::new() } else { format!(", {}", report.device.driver) };
        writeln!(out, "[{}] {name}{driver}; {}, {} threads", number + 1, machine.system, machine.threads)?;
    }
    let lines = compare::lines(&reports);
    let width = lines.iter().map(|line| line.work.chars().count()).max().unwrap_or(0);
    write!(out, "\n{:width$}", "")?;
    (1..=reports.len()).try_for_each(|number| write!(out, " {:>22}", format!("[{number}]")))?;
    writeln!(out)?;
    for line in &lines {
        write!(out, "{:width$}", line.work)?;
        for cell in &line.cells {
            let text = match (&cell.rate, cell.ratio) {
                (Some(rate), Some(ratio)) => format!("{rate} ×{ratio:.2}"),
                _ => "–".into(),
            };
            write!(out, " {text:>22}")?;
        }
        writeln!(out)?;
    }
    if let Some(png) = png {
        compare::picture(&reports).save(png).with_context(|| format!("drawing {}", png.display()))?;
        writeln!(out, "\n{}", png.display())?;
    }
    Ok(())
}
