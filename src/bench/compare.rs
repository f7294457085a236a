//! Several reports, compared.

use super::{BenchReport, Row};
use crate::chart::{Bar, Bars};

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

/// A ratio with two decimals, or two digits if it is small.
pub fn times(ratio: f64) -> String {
    let decimals = (1.0 - ratio.log10().floor()).clamp(2.0, 9.0) as usize;
    format!("×{ratio:.decimals$}")
}

/// The ratios as bars, each with its rate.
pub fn bars(reports: &[BenchReport]) -> Bars {
    let names: Vec<_> =
        names(reports).into_iter().zip(1..).map(|(name, number)| format!("[{number}] {name}")).collect();
    let bar = |speed: Speed| {
        let (rate, ratio) = speed.rate.zip(speed.ratio)?;
        Some(Bar { ratio, text: format!("{rate} {}", times(ratio)) })
    };
    let group = |line: Comparison| (line.work, line.speeds.into_iter().map(bar).collect());
    Bars {
        title: format!("Speed relative to {}", names.first().map_or("nothing", String::as_str)),
        baseline: "times the speed of [1], or of the first that was measured".into(),
        names,
        groups: lines(reports).into_iter().map(group).collect(),
    }
}
