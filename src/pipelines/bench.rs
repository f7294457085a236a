//! Benchmarks of devices, and comparisons of their reports.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::bench::{self, Choice, Options, Row, compare};
use crate::device::{Device, adapters};
use crate::ops::linear::Tile;
use crate::report::{Cell, Column, Report, Table};

/// The names of the CPU and of every usable graphics adapter.
pub fn all_devices() -> Vec<String> {
    let gpus = adapters().into_iter().filter(|adapter| adapter.computes);
    std::iter::once("cpu".to_string()).chain(gpus.map(|adapter| format!("gpu:{}", adapter.index))).collect()
}

/// `a/b.json` as `a/b-2.json`, for the second device.
pub fn numbered(path: &Path, number: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{number}.json"))
}

/// Measures a device and writes the numbers to `file`, if there is one. `print` receives each line as soon as it is known.
///
/// # Errors
/// Returns the errors of [`bench::run`] and of writing.
pub fn measure(device: &str, quick: bool, file: Option<&Path>, print: &mut dyn FnMut(&str)) -> Result<()> {
    let device = Device::open(device)?;
    print(&device.describe());
    let numbers = ["median", "fastest", "slowest", "rate"].map(|name| Column::number(name).width(10));
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
    cells
}

/// Measures which tiles of the dense product are fastest on a GPU, and keeps them for later runs.
///
/// # Errors
/// Returns the errors of the device and of writing its cache.
pub fn tune(device: &str, quick: bool, print: &mut dyn FnMut(&str)) -> Result<()> {
    let device = Device::open(device)?;
    print(&device.describe());
    let Device::Gpu(gpu) = device else {
        print("has nothing to tune");
        return Ok(());
    };
    let depth = if quick { 64 } else { 1024 };
    bench::autotune(&gpu, &options(quick), depth, &mut |choice| print(&choice_line(choice)))?;
    let path = gpu.save_tuning()?;
    print(&path.map_or("not kept: GOSSAMER_CACHE names no folder".into(), |path| path.display().to_string()));
    Ok(())
}

fn choice_line(choice: &Choice) -> String {
    let shape = |tile: Tile| format!("{} × {}", tile.shape().0, tile.shape().1);
    let times: Vec<_> =
        choice.seconds.iter().map(|(tile, seconds)| format!("{} {:.3} ms", shape(*tile), seconds * 1e3)).collect();
    let (m, n, k) = choice.sizes;
    format!("{m} × {n} × {k}: {}; best {}", times.join(", "), shape(choice.best))
}

/// Compares saved reports, and draws the ratios to the first into `png`, if it is given.
///
/// # Errors
/// Returns the errors of reading the reports and of writing the picture.
pub fn compare_reports(paths: &[PathBuf], png: Option<&Path>) -> Result<Report> {
    let reports = paths.iter().map(|path| bench::Report::load(path)).collect::<Result<Vec<_>>>()?;
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
        let cell = |cell: compare::Cell| match (cell.rate, cell.ratio) {
            (Some(rate), Some(ratio)) => Cell::Text(format!("{rate} ×{ratio:.2}")),
            _ => "–".into(),
        };
        table.push(std::iter::once(line.work.into()).chain(line.cells.into_iter().map(cell)));
    }
    result = result.table(table);
    if let Some(png) = png {
        compare::picture(&reports).save(png)?;
        result = result.paragraph(png.display().to_string());
    }
    Ok(result)
}
