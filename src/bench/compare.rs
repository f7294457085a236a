//! Several reports, compared.

use super::{BenchReport, Row};
use crate::chart::{Bars, COLORS};

/// The speed of a piece of work in one report.
#[derive(Clone, Debug, PartialEq)]
pub struct Speed {
    /// The rate with its unit; nothing if it was not measured.
    pub rate: Option<String>,
    /// The rate relative to that of the first report that measured it.
    pub ratio: Option<f64>,
}

/// A piece of work in all reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Kind and sizes.
    pub work: String,
    /// In the order of the reports.
    pub speeds: Vec<Speed>,
}

/// Every piece of work that any of the reports has, in order of first occurrence.
pub fn lines(reports: &[BenchReport]) -> Vec<Comparison> {
    let mut kinds: Vec<(&str, &str)> = Vec::new();
    for row in reports.iter().flat_map(|report| &report.rows) {
        if !kinds.contains(&(&row.name, &row.shape)) {
            kinds.push((&row.name, &row.shape));
        }
    }
    let line = |(name, shape): (&str, &str)| {
        let of = |report: &BenchReport| -> Option<Row> {
            report.rows.iter().find(|row| row.name == name && row.shape == shape && row.seconds.is_some()).cloned()
        };
        let rows: Vec<Option<Row>> = reports.iter().map(of).collect();
        let base = rows.iter().flatten().next().map(Row::rate);
        let cell = |row: &Option<Row>| Speed {
            rate: row.as_ref().map(Row::rate_text),
            ratio: row.as_ref().zip(base).map(|(row, base)| row.rate() / base),
        };
        Comparison { work: format!("{name}: {shape}"), speeds: rows.iter().map(cell).collect() }
    };
    kinds.into_iter().map(line).collect()
}

/// A name for each report: its device, and its driver where two devices have one name.
pub fn names(reports: &[BenchReport]) -> Vec<String> {
    let full = |report: &BenchReport| {
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
pub fn bars(reports: &[BenchReport]) -> Bars {
    let lines = lines(reports);
    Bars {
        title: "Speed, as a multiple of the first device's".into(),
        names: names(reports),
        colors: COLORS.iter().copied().cycle().take(reports.len()).collect(),
        groups: lines
            .into_iter()
            .map(|line| (line.work, line.speeds.into_iter().map(|speed| speed.ratio).collect()))
            .collect(),
    }
}
