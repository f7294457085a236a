//! Reports side by side.

use super::{Report, Row};
use crate::chart::{Bars, COLORS};

/// What one report says of a piece of work, and how often as fast it is as the first report that has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// The rate, in words; nothing if it was not measured.
    pub rate: Option<String>,
    /// Its ratio to the first report that measured it.
    pub ratio: Option<f64>,
}

/// A piece of work in all reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Kind and sizes.
    pub work: String,
    /// In the order of the reports.
    pub cells: Vec<Cell>,
}

/// Sets the reports side by side: every piece of work that any of them has, in the order of first mention.
pub fn lines(reports: &[Report]) -> Vec<Line> {
    let mut kinds: Vec<(&str, &str)> = Vec::new();
    for row in reports.iter().flat_map(|report| &report.rows) {
        if !kinds.contains(&(&row.name, &row.shape)) {
            kinds.push((&row.name, &row.shape));
        }
    }
    let line = |(name, shape): (&str, &str)| {
        let of = |report: &Report| -> Option<Row> {
            report.rows.iter().find(|row| row.name == name && row.shape == shape && row.seconds.is_some()).cloned()
        };
        let rows: Vec<Option<Row>> = reports.iter().map(of).collect();
        let base = rows.iter().flatten().next().map(Row::rate);
        let cell = |row: &Option<Row>| Cell {
            rate: row.as_ref().map(Row::rate_text),
            ratio: row.as_ref().zip(base).map(|(row, base)| row.rate() / base),
        };
        Line { work: format!("{name}: {shape}"), cells: rows.iter().map(cell).collect() }
    };
    kinds.into_iter().map(line).collect()
}

/// What a report is called among others: its device, and its driver where two devices have one name.
pub fn names(reports: &[Report]) -> Vec<String> {
    let full = |report: &Report| {
        let device = &report.device;
        let mut name = format!("{} ({})", device.name, device.backend);
        if reports
            .iter()
            .filter(|other| other.device.name == device.name && other.device.backend == device.backend)
            .count()
            > 1
        {
            name = format!("{name} {}", if device.driver.is_empty() { &report.machine.system } else { &device.driver });
        }
        name
    };
    reports.iter().map(full).collect()
}

/// The ratios as bars.
pub fn picture(reports: &[Report]) -> Bars {
    let lines = lines(reports);
    Bars {
        title: "Speed, as a multiple of the first device's".into(),
        names: names(reports),
        colors: COLORS.iter().copied().cycle().take(reports.len()).collect(),
        groups: lines
            .into_iter()
            .map(|line| (line.work, line.cells.into_iter().map(|cell| cell.ratio).collect()))
            .collect(),
    }
}
