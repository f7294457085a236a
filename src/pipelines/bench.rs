//! Benchmarks of devices, and comparisons of their reports.

use std::path::{Path, PathBuf};

use crate::bench::{self, Options, Row, ShareTimes, TileTimes, compare};
use crate::device::{Device, adapters, cpu, on_worker};
use crate::files::{check_output, is_stdout};
use crate::ops::linear::Tile;
use crate::report::{Cell, Column, Report, Table};
use crate::{Error, Result};

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct BenchRequest<'a> {
    /// The device.
    pub device: &'a str,
    /// The CPU and every usable graphics adapter instead.
    pub all: bool,
    /// Fewer runs, and no large sizes on slow devices.
    pub quick: bool,
    /// Only find which ways to compute products are fastest, and keep them for later runs.
    pub autotune: bool,
    /// The file to write; with `all`, `FILE-1.json` and so on.
    pub out: Option<&'a Path>,
}

/// Measures devices. `print` receives each line as soon as it is known.
///
/// # Errors
/// Returns [`Error::Request`] if `out` cannot hold all reports, and the errors of the device and of
/// writing. With `all`, logs the errors of a device and continues with the next one.
pub fn run(request: &BenchRequest, print: &mut dyn FnMut(&str)) -> Result<()> {
    let BenchRequest { device, all, quick, autotune, out } = *request;
    let devices = if all { all_devices() } else { vec![device.to_string()] };
    if all && out.is_some_and(is_stdout) {
        let message =
            "--all writes a report for each device, which standard output cannot hold: name a file with --out";
        return Err(Error::Request(message.into()));
    }
    let file = |at: usize| out.map(|path| if all { numbered(path, at + 1) } else { path.into() });
    // Minutes of measuring come before the file is written.
    (0..devices.len()).filter_map(file).try_for_each(check_output)?;
    let mut failed = 0;
    for (at, name) in devices.iter().enumerate() {
        let result = if autotune { tune(name, quick, print) } else { measure(name, quick, file(at).as_deref(), print) };
        match result {
            Err(error) if all => {
                failed += 1;
                tracing::error!("{name}: {error}");
            }
            result => result?,
        }
    }
    if failed > 0 {
        return Err(Error::Device(format!("{failed} of {} could not be measured", devices.len())));
    }
    Ok(())
}

fn all_devices() -> Vec<String> {
    let gpus = adapters().into_iter().filter(|adapter| adapter.computes);
    std::iter::once("cpu".to_string()).chain(gpus.map(|adapter| format!("gpu:{}", adapter.index))).collect()
}

/// `a/b.json` as `a/b-2.json`, for the second device.
fn numbered(path: &Path, number: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{number}.json"))
}

fn measure(device: &str, quick: bool, file: Option<&Path>, print: &mut dyn FnMut(&str)) -> Result<()> {
    let device = Device::open(device)?;
    print(&device.describe());
    let mut numbers = vec!["median", "fastest", "slowest", "rate"];
    if !device.is_cpu() {
        numbers.extend(["launches", "host", "bytes"]);
    }
    let numbers = numbers.into_iter().map(|name| Column::number(name).width(10));
    let columns = [Column::text("work").width(24), Column::text("size").width(48)].into_iter().chain(numbers);
    let table = Table::new("rows", columns);
    print(&table.heading());
    let report = bench::run(&device, &options(quick), &mut |row| print(&table.line(&cells(row))))?;
    if let Some(file) = file {
        report.save(file)?;
    }
    print(&format!("{} golden cases agreed before", report.golden_cases));
    if let Some(file) = file {
        print(&file.display().to_string());
    }
    Ok(())
}

fn options(quick: bool) -> Options {
    if quick { Options::quick() } else { Options::full() }
}

fn cells(row: &Row) -> Vec<Cell> {
    let ms = |s: f64| if s < 0.1 { format!("{:.3} ms", s * 1e3) } else { format!("{:.0} ms", s * 1e3) };
    let mut cells: Vec<Cell> = vec![row.name.as_str().into(), row.shape.as_str().into()];
    match &row.seconds {
        Some(s) => cells.extend([ms(s.median), ms(s.fastest), ms(s.slowest), row.rate_text()].map(Cell::Text)),
        None => cells.push(format!("left out: {}", row.skipped.as_deref().unwrap_or("not measured")).into()),
    }
    if let (Some(launches), Some(host), Some(bytes)) = (row.launches, row.host_seconds, row.bytes) {
        cells.extend([launches.to_string(), ms(host), format!("{:.2} MB", bytes as f64 / 1e6)].map(Cell::Text));
    }
    cells
}

fn tune(device: &str, quick: bool, print: &mut dyn FnMut(&str)) -> Result<()> {
    let device = Device::open(device)?;
    print(&device.describe());
    let options = options(quick);
    let path = match &device {
        Device::Gpu(gpu) => {
            let depth = if quick { 64 } else { 1024 };
            bench::autotune(gpu, &options, depth, &mut |choice| print(&choice_line(choice)))?;
            gpu.save_tuning()?
        }
        _ => {
            // What small products decide would be wrong for the large ones that take the time.
            let (rows, width) = (1024, if quick { 512 } else { 1024 });
            on_worker(|| {
                let mut lines = Vec::new();
                bench::autotune_cpu(&options, rows, width, &mut |choice| lines.push(share_line(choice)))?;
                Ok::<_, Error>(lines)
            })?
            .iter()
            .for_each(|line| print(line));
            cpu::save_tuning()?
        }
    };
    print(&path.map_or("not kept: GOSSAMER_CACHE names no folder".into(), |path| path.display().to_string()));
    Ok(())
}

fn share_line(choice: &ShareTimes) -> String {
    let times: Vec<_> =
        choice.seconds.iter().map(|(share, seconds)| format!("{share:.3}: {:.2} ms", seconds * 1e3)).collect();
    format!("{} {:.3} ({}; otherwise {:.2} ms)", choice.name, choice.best, times.join(", "), choice.reference * 1e3)
}

fn choice_line(choice: &TileTimes) -> String {
    let shape = |tile: Tile| format!("{} × {}", tile.shape().0, tile.shape().1);
    let times: Vec<_> =
        choice.seconds.iter().map(|(tile, seconds)| format!("{} {:.3} ms", shape(*tile), seconds * 1e3)).collect();
    let (m, n, k) = choice.sizes;
    format!("{m} × {n} × {k}: {}; best {}", times.join(", "), shape(choice.best))
}

/// Compares saved reports, and draws the ratios to the first into `chart`, if it is given.
///
/// # Errors
/// Returns the errors of reading the reports and of writing the picture.
pub fn compare_reports(paths: &[PathBuf], chart: Option<&Path>) -> Result<Report> {
    let reports = paths.iter().map(|path| bench::BenchReport::load(path)).collect::<Result<Vec<_>>>()?;
    let mut result = Report::new();
    for (number, (name, report)) in compare::names(&reports).iter().zip(&reports).enumerate() {
        let (machine, driver) = (&report.machine, &report.device.driver);
        let comma = if driver.is_empty() { "" } else { ", " };
        let text = format!("{name}{comma}{driver}; {}, {} threads", machine.system, machine.threads);
        result = result.fact(&format!("[{}]", number + 1), name.as_str(), text);
    }
    let numbers = (1..=reports.len()).map(|number| Column::number(format!("[{number}]")).width(22));
    let mut table = Table::new("work", std::iter::once(Column::text("work")).chain(numbers));
    for line in compare::lines(&reports) {
        let cell = |cell: compare::Speed| match (cell.rate, cell.ratio) {
            (Some(rate), Some(ratio)) => Cell::Text(format!("{rate} {}", compare::times(ratio))),
            _ => "–".into(),
        };
        table.push(std::iter::once(line.work.into()).chain(line.speeds.into_iter().map(cell)));
    }
    result = result.table(table);
    if let Some(chart) = chart {
        compare::bars(&reports).draw()?.save(chart)?;
        result = result.paragraph(chart.display().to_string());
    }
    Ok(result)
}
