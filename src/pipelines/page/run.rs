//! What a page has of a run: curves, weights, tasks, circuits and bridges; `run.js` shows it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::circuits::with_circuits;
use super::{ExportRequest, Page};
use crate::circuits::pipeline::SearchRequest;
use crate::circuits::{Circuit, circuit_files, labels::count, tasks};
use crate::formats::{ModelFiles, Pretrained};
use crate::model::{self, WeightReport};
use crate::observer::{Observer, Stage};
use crate::pipelines::inspect::shape;
use crate::pipelines::{CircuitRequest, evaluate_task};
use crate::report::{Column, Table};
use crate::settings::grouped;
use crate::text::source::Source;
use crate::train::bridge_loss::term;
use crate::train::metrics::{self, MetricsLine};
use crate::train::norms::is_per_parameter;
use crate::{Error, Result};

/// Points of a curve at most: more are averaged in groups.
const POINTS: usize = 400;

/// A run to report on.
pub struct RunReport<'a> {
    /// Its folder.
    pub folder: &'a Path,
    /// The files of its newest checkpoint and the model in them, if there is a checkpoint.
    pub model: Option<(&'a ModelFiles, &'a Pretrained)>,
    /// Held-out pairs of each built-in task that the model is tried on; 0 for no tasks.
    pub pairs: usize,
    /// The change of the task loss, in nats, from which on circuits' nodes and edges are shown at
    /// first.
    pub threshold: Option<f64>,
    /// Hears how far it is.
    pub observer: &'a Observer<'a>,
    /// Hears what is left out.
    pub note: &'a dyn Fn(String),
}

/// What is shown of a run.
#[derive(Default, Serialize)]
pub(super) struct PageRun {
    folder: String,
    facts: Vec<[String; 2]>,
    /// Its settings, as TOML; none for a folder with a model alone.
    settings: String,
    charts: Vec<PageChart>,
    tables: Vec<PageTable>,
}

/// Curves over steps.
#[derive(Serialize)]
struct PageChart {
    title: &'static str,
    unit: &'static str,
    /// Logged steps that a point is the mean of, at most.
    averaged: usize,
    curves: Vec<PageCurve>,
}

#[derive(Serialize)]
struct PageCurve {
    name: String,
    points: Vec<(u64, f64)>,
}

#[derive(Serialize)]
struct PageTable {
    title: &'static str,
    about: String,
    /// Whether each row is about the circuit at the same position in the page.
    of_circuits: bool,
    numbers: Vec<bool>,
    rows: Vec<Vec<String>>,
}

/// The charts of a report: a title, a unit, and which metrics it shows.
type ChartRow = (&'static str, &'static str, fn(&str) -> bool);

/// What no row of this table takes is shown in a chart of "other metrics".
const CHARTS: &[ChartRow] = &[
    ("loss", "nats per token", |name| matches!(name, "loss" | "validation_loss")),
    ("bridges: normalised errors", "share of the variance", |name| term(name).is_some() && name.starts_with("nmse")),
    ("bridges: other terms", "nats per token", |name| term(name).is_some() && !name.starts_with("nmse")),
    ("density", "share of weights not zero", |name| matches!(name, "density" | "embed_density")),
    ("nonzero weights", "", |name| name == "nonzeros"),
    ("learning rate", "", |name| name == "lr"),
    ("gradient", "root mean square", |name| name == "grad_rms"),
    ("speed", "tokens per second", |name| name == "tokens_per_second"),
];

/// The report of a run as a page of HTML: what it trained with, its curves, densities, tasks,
/// circuits and bridges.
///
/// # Errors
/// Returns [`Error::Request`] for a folder that holds no run and no model; those of reading its
/// files and of the forward pass.
pub fn run_report(report: &RunReport) -> Result<String> {
    let folder = report.folder;
    let logged = metrics::read(folder)?;
    let settings_path = folder.join("config.toml");
    let settings = match std::fs::read_to_string(&settings_path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::io(&settings_path, e)),
    };
    if settings.is_empty() && logged.is_empty() && report.model.is_none() {
        return Err(Error::Request(format!("{} has no run and no model in it", folder.display())));
    }
    let circuits = report.circuits()?;
    let mut run =
        PageRun { folder: folder.display().to_string(), settings, charts: charts(&logged), ..Default::default() };
    run.facts.extend(progress(&logged));
    if let Some((files, model)) = report.model {
        let weights = model::inspect(&files.config, files.weights.as_ref(), 0)?;
        run.facts.extend(sizes(files, &weights));
        if let Some(table) = report.tasks(model)? {
            run.tables.push(table);
        }
        run.tables.push(densities(&weights));
    }
    run.tables.extend(bridges(&logged));
    if !circuits.is_empty() {
        run.tables.insert(0, circuit_table(&circuits));
    }
    let source = Source::default();
    let requests: Vec<ExportRequest> = circuits
        .iter()
        .map(|(file, circuit)| {
            let (data, max_tokens) = (&source, SearchRequest::MEAN_TOKENS);
            ExportRequest {
                circuit: CircuitRequest { circuit, file, payload: None, task: None, data, max_tokens },
                model: report.model.map(|(_, model)| model),
                threshold: report.threshold,
                // Minutes for a folder of circuits; those with a file of statistics have them.
                measure: false,
                observer: report.observer,
                note: report.note,
            }
        })
        .collect();
    let title = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy();
    with_circuits(&Page { run: Some(&run), ..Page::new(&title) }, &requests)
}

impl RunReport<'_> {
    /// The circuits in the run's folder that can be read.
    fn circuits(&self) -> Result<Vec<(PathBuf, Circuit)>> {
        let mut circuits = Vec::new();
        for path in circuit_files(&self.folder.join("circuits"))? {
            match Circuit::load(&path) {
                Ok(circuit) => circuits.push((path, circuit)),
                Err(error) => (self.note)(format!("left out: {error}")),
            }
        }
        Ok(circuits)
    }

    /// How well the model does the built-in tasks.
    fn tasks(&self, model: &Pretrained) -> Result<Option<PageTable>> {
        if self.pairs == 0 || model.tokenizer().is_err() {
            return Ok(None);
        }
        let columns = [
            Column::text("task"),
            Column::percent("accuracy"),
            Column::decimals("loss", 3).unit("nats"),
            Column::text("remarks"),
        ];
        let mut table = Table::new("tasks", columns);
        let all = tasks::all()?;
        for (done, task) in all.iter().enumerate() {
            let (done, total) = (done as u64, Some(all.len() as u64));
            self.observer.advance(&Stage { name: "trying tasks", done, total, unit: "tasks" })?;
            let evaluation = evaluate_task(model, task, self.pairs, 0)?;
            let test = evaluation.test.as_ref();
            let notes = test.and_then(|score| score.notes.as_ref()).map(ToString::to_string);
            table.push([
                evaluation.task.into(),
                test.map(|score| score.accuracy).into(),
                test.map(|score| score.loss).into(),
                evaluation.error.or(notes).into(),
            ]);
        }
        let about =
            format!("The model, on {} from held-out templates each; chance is 50 %.", count(self.pairs, "pair"));
        Ok(Some(PageTable::new("tasks", about, &table)))
    }
}

impl PageTable {
    fn new(title: &'static str, about: String, table: &Table) -> Self {
        Self { title, about, of_circuits: false, numbers: table.numeric(), rows: table.texts() }
    }
}

/// How far the run is, and its last losses.
fn progress(logged: &[MetricsLine]) -> Vec<[String; 2]> {
    let Some(last) = logged.last() else { return Vec::new() };
    let mut facts = vec![["steps".into(), grouped(last.step)]];
    facts.extend(last.get("tokens").map(|tokens| ["tokens".into(), grouped(tokens as u64)]));
    for (name, title) in [("validation_loss", "validation loss"), ("loss", "training loss")] {
        let line = logged.iter().rev().find_map(|line| Some((line.step, line.get(name)?)));
        facts.extend(line.map(|(step, loss)| {
            let at = if step == last.step { String::new() } else { format!(" at step {}", grouped(step)) };
            [title.into(), format!("{loss:.3} nats per token{at}")]
        }));
    }
    facts
}

/// What the model is made of.
fn sizes(files: &ModelFiles, weights: &WeightReport) -> Vec<[String; 2]> {
    let (nonzeros, all) = (grouped(weights.matrix_nonzeros), grouped(weights.matrix_parameters));
    let share = 100.0 * weights.matrix_nonzeros as f64 / weights.matrix_parameters.max(1) as f64;
    vec![
        ["model".into(), shape(&files.config)],
        ["weights".into(), format!("{nonzeros} of {all} are not zero ({share:.1} %)")],
    ]
}

fn densities(weights: &WeightReport) -> PageTable {
    let columns =
        [Column::text("parameter"), Column::text("shape"), Column::number("nonzeros"), Column::percent("density")];
    let mut table = Table::new("weights", columns);
    for tensor in &weights.tensors {
        let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        let shape = shape.join("×");
        table.push([tensor.name.as_str().into(), shape.into(), tensor.nonzeros.into(), tensor.density.into()]);
    }
    PageTable::new("weights", "Of the newest checkpoint.".into(), &table)
}

fn circuit_table(circuits: &[(PathBuf, Circuit)]) -> PageTable {
    let loss = |name: &str| Column::decimals(name, 3);
    let columns = [
        Column::text("task"),
        Column::number("nodes"),
        Column::number("edges"),
        loss("loss"),
        loss("uncalibrated"),
        Column::percent("accuracy"),
        loss("model"),
        loss("complement"),
        Column::text("file"),
    ];
    let mut table = Table::new("circuits", columns);
    for (path, circuit) in circuits {
        let test = &circuit.losses.test;
        table.push([
            circuit.task.question().into(),
            circuit.counts.nodes.into(),
            circuit.counts.edges.into(),
            test.circuit.into(),
            test.circuit_uncalibrated.into(),
            test.accuracy_circuit.into(),
            test.model.into(),
            test.ablated.into(),
            path.file_name().unwrap_or_default().to_string_lossy().into_owned().into(),
        ]);
    }
    let about = "Losses on held-out pairs, in nats: of the circuit alone, of the whole model, and of the complement, \
                 the model without the circuit. Chance is 0.693. Select a row to see its circuit below.";
    PageTable { of_circuits: true, ..PageTable::new("circuits", about.into(), &table) }
}

/// The last value of each term of the bridge loss.
fn bridges(logged: &[MetricsLine]) -> Option<PageTable> {
    let columns = [Column::text("term"), Column::number("last value"), Column::text("meaning")];
    let mut table = Table::new("bridges", columns);
    let last = logged.last()?;
    for name in last.names() {
        if let (Some(term), Some(value)) = (term(name), last.get(name)) {
            table.push([name.into(), value.into(), term.about.trim_start_matches("of ").into()]);
        }
    }
    let about = format!("Terms of the loss at step {}.", grouped(last.step));
    (!table.rows().is_empty()).then(|| PageTable::new("bridges", about, &table))
}

/// The charts of what was logged.
fn charts(logged: &[MetricsLine]) -> Vec<PageChart> {
    let mut names: Vec<&str> = Vec::new();
    for name in logged.iter().flat_map(MetricsLine::names) {
        if !names.contains(&name) && name != "tokens" && !is_per_parameter(name) {
            names.push(name);
        }
    }
    let mut charts = Vec::new();
    let other: ChartRow = ("other metrics", "", |name| !CHARTS.iter().any(|(.., shows)| shows(name)));
    for (title, unit, shows) in CHARTS.iter().chain([&other]) {
        let mut averaged = 1;
        let curve = |&name: &&str| {
            let points: Vec<_> = logged.iter().filter_map(|line| Some((line.step, line.get(name)?))).collect();
            let (points, group) = thinned(&points);
            averaged = averaged.max(group);
            PageCurve { name: name.into(), points }
        };
        let curves: Vec<_> = names.iter().filter(|name| shows(name)).map(curve).collect();
        if curves.iter().any(|curve| curve.points.len() > 1) {
            charts.push(PageChart { title, unit, averaged, curves });
        }
    }
    charts
}

/// At most [`POINTS`] points, the means of groups of equal size, each at its last step; and the size.
fn thinned(points: &[(u64, f64)]) -> (Vec<(u64, f64)>, usize) {
    let group = points.len().div_ceil(POINTS).max(1);
    let mean = |part: &[(u64, f64)]| {
        let sum: f64 = part.iter().map(|(_, value)| value).sum();
        Some((part.last()?.0, sum / part.len() as f64))
    };
    (points.chunks(group).filter_map(mean).collect(), group)
}

#[cfg(test)]
mod tests {
    use super::{POINTS, thinned};

    #[test]
    fn curves_of_many_points_are_means_of_groups() {
        let points: Vec<(u64, f64)> = (1..=2 * POINTS as u64 + 1).map(|step| (step, step as f64)).collect();
        let (thin, group) = thinned(&points);
        assert_eq!((group, thin.len()), (3, 267));
        assert_eq!((thin[0], thin[266]), ((3, 2.0), (801, 800.0)));
        assert_eq!(thinned(&points[..POINTS]).0, points[..POINTS]);
        assert_eq!(thinned(&[]), (vec![], 1));
    }
}
