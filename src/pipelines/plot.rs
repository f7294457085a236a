//! The curves of runs, over each other.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use toml::{Table as Toml, Value};

use crate::chart::{Axis, Chart, Series};
use crate::report::{Column, Report, Table};
use crate::train::config::{RunConfig, leaves};
use crate::train::metrics::{self, MetricsLine};
use crate::train::norms::is_per_parameter;
use crate::{Error, Result};

const SEED: &str = "run.seed";
/// Runs that differ in more settings than this are named by their folders.
const SETTINGS: usize = 4;

/// Which curves of which runs.
#[derive(Clone, Copy, Debug)]
pub struct PlotRequest<'a> {
    /// The runs' folders.
    pub runs: &'a [PathBuf],
    /// The metrics, by their names in `metrics.jsonl`; `val` is `validation_loss`.
    pub metrics: &'a [String],
    /// What they are drawn over.
    pub x: PlotX,
    /// Whether the horizontal axis is logarithmic.
    pub log_x: bool,
    /// Whether the vertical axis is.
    pub log_y: bool,
    /// Whether runs that differ only in their seed are one curve: their mean, with the least and
    /// most of them around it.
    pub group_seeds: bool,
}

/// What curves are drawn over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PlotX {
    /// Steps done
    #[default]
    Step,
    /// Tokens seen
    Tokens,
    /// Seconds of training
    Seconds,
}

/// Curves, drawn and as numbers.
#[derive(Clone, Debug)]
pub struct Plot {
    /// The drawing.
    pub chart: Chart,
    curves: Table,
}

struct Run {
    path: PathBuf,
    lines: Vec<MetricsLine>,
    /// The settings that results depend on, by their full names.
    settings: Option<BTreeMap<String, Value>>,
}

/// Reads the metrics of runs, finished or not.
///
/// # Errors
/// Returns [`Error::Request`] for a run that is named twice or has no metrics, and where nothing
/// can be drawn; [`Error::Unknown`] for a metric that a run has not logged; [`Error::Io`] and
/// [`Error::File`] for files that cannot be read.
pub fn plot(request: &PlotRequest) -> Result<Plot> {
    let mut runs: Vec<Run> = Vec::new();
    for path in request.runs {
        let run = Run::open(path)?;
        if runs.iter().any(|other| other.path.canonicalize().ok() == path.canonicalize().ok()) {
            return Err(Error::Request(format!("{} is named twice", path.display())));
        }
        runs.push(run);
    }
    let names: Vec<&str> =
        request.metrics.iter().map(|name| if name == "val" { "validation_loss" } else { name }).collect();
    let groups = groups(&runs, request.group_seeds);
    let titles = titles(&groups);
    let mut series = Vec::new();
    let columns = [Column::text("curve"), Column::number("runs"), Column::number("points"), Column::number("last")];
    let numbers = [Column::number("value").title("last value"), Column::number("least"), Column::number("most")];
    let mut curves = Table::new("curves", columns.into_iter().chain(numbers));
    for metric in &names {
        for (group, title) in groups.iter().zip(&titles) {
            let points = group.iter().map(|run| run.points(metric, request)).collect::<Result<Vec<_>>>()?;
            let points = common(points);
            let mean = (group.len() > 1).then(|| format!("mean of {} seeds, least to most", group.len()));
            let metric = (names.len() > 1).then(|| metric.to_string());
            let title = Some(title.clone()).filter(|title| !title.is_empty());
            let name = [metric, title, mean].into_iter().flatten().collect::<Vec<_>>().join("; ");
            let line = Series::spread(name, series.len(), &points);
            let (Some(last), false) = (line.points.last().copied(), line.points.is_empty()) else {
                let message = "no step was logged by all of them, so that they have no mean";
                return Err(Error::Request(format!("{}: {message}", listed(group))));
            };
            let ys = || line.points.iter().map(|point| point.1);
            let extremes = [ys().fold(f64::INFINITY, f64::min), ys().fold(f64::NEG_INFINITY, f64::max)];
            let row = [line.name.as_str().into(), group.len().into(), line.points.len().into(), last.0.into()];
            curves.push(row.into_iter().chain([last.1, extremes[0], extremes[1]].map(Into::into)));
            series.push(line);
        }
    }
    let labels: Vec<String> = names.iter().map(|name| metrics::label(name)).collect();
    let title = match &request.runs {
        [only] => only.display().to_string(),
        runs => format!("{} of {} runs", names.join(", ").replace('_', " "), runs.len()),
    };
    let x = Axis { log: request.log_x, ..Axis::linear(request.x.label()) };
    let y = Axis { log: request.log_y, ..Axis::linear(labels.join(", ")) };
    Ok(Plot { chart: Chart { title, x, y, series }, curves })
}

impl Plot {
    /// A row for each curve.
    pub fn report(self) -> Report {
        Report::new().table(self.curves)
    }
}

impl PlotX {
    fn label(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Tokens => "tokens",
            Self::Seconds => "training time (s)",
        }
    }
}

impl Run {
    fn open(path: &Path) -> Result<Self> {
        let file = path.join("metrics.jsonl");
        let lines = metrics::read(path)?;
        if lines.is_empty() {
            let why = match (path.is_dir(), file.exists()) {
                (false, _) => "there is no such folder",
                (true, false) => "no metrics.jsonl is in it: it is not the folder of a run",
                (true, true) => "the run has not logged anything yet",
            };
            return Err(Error::Request(format!("{}: {why}", path.display())));
        }
        let config = path.join("config.toml");
        let settings = if config.exists() { Some(settings(&RunConfig::load(&config)?)?) } else { None };
        Ok(Self { path: path.into(), lines, settings })
    }

    /// The metric's finite values, by what they are drawn over.
    fn points(&self, metric: &str, request: &PlotRequest) -> Result<Vec<(f64, f64)>> {
        if !self.lines.iter().any(|line| line.has(metric)) {
            let mut known: Vec<&str> = self.lines.iter().flat_map(MetricsLine::names).collect();
            known.sort_unstable();
            known.dedup();
            let parameters = known.iter().any(|name| is_per_parameter(name));
            known.retain(|name| !is_per_parameter(name));
            let more = if parameters { ", and those of each parameter, such as grad_norm/NAME" } else { "" };
            let kind = "metric of this run";
            let known = format!("{}{more} ({})", known.join(", "), self.path.display());
            return Err(Error::Unknown { kind, name: metric.into(), known });
        }
        let (mut tokens, mut seconds) = (0.0, 0.0);
        let mut points = Vec::new();
        for line in &self.lines {
            let seen = line.get("tokens").unwrap_or(tokens);
            seconds +=
                line.get("tokens_per_second").filter(|speed| *speed > 0.0).map_or(0.0, |speed| (seen - tokens) / speed);
            tokens = seen;
            let x = match request.x {
                PlotX::Step => line.step as f64,
                PlotX::Tokens => tokens,
                PlotX::Seconds => seconds,
            };
            points.extend(line.get(metric).map(|y| (x, y)));
        }
        let drawn = |&(x, y): &(f64, f64)| (!request.log_x || x > 0.0) && (!request.log_y || y > 0.0);
        points.retain(drawn);
        if points.is_empty() {
            let log = if request.log_x || request.log_y { " above 0, as logarithmic axes need" } else { "" };
            return Err(Error::Request(format!("{}: {metric} has no finite value{log}", self.path.display())));
        }
        Ok(points)
    }
}

/// All settings but those that change no result.
fn settings(config: &RunConfig) -> Result<BTreeMap<String, Value>> {
    let table: Toml = config.to_toml()?.parse().map_err(|e| Error::Request(format!("config.toml: {e}")))?;
    let counts = |name: &str| !name.starts_with("run.") || [SEED, "run.init"].contains(&name);
    Ok(leaves(table).into_iter().filter(|(name, _)| counts(name)).collect())
}

/// The runs of each curve, in the order in which they are named.
fn groups(runs: &[Run], group_seeds: bool) -> Vec<Vec<&Run>> {
    let mut groups: Vec<Vec<&Run>> = Vec::new();
    let unseeded = |run: &Run| {
        run.settings.clone().map(|mut settings| {
            settings.remove(SEED);
            settings
        })
    };
    for run in runs {
        let own = unseeded(run);
        let same =
            |group: &&mut Vec<&Run>| group_seeds && own.is_some() && group.iter().all(|other| unseeded(other) == own);
        match groups.iter_mut().find(same) {
            Some(group) => group.push(run),
            None => groups.push(vec![run]),
        }
    }
    groups
}

/// What tells the curves apart: the settings that differ, or else the folders; nothing for one.
fn titles(groups: &[Vec<&Run>]) -> Vec<String> {
    if groups.len() == 1 {
        return vec![String::new()];
    }
    let folders = || groups.iter().map(|group| listed(group)).collect();
    // The seeds of a group are in its curve.
    let seeds_differ = groups.iter().all(|group| group.len() == 1);
    let mut names: Vec<&String> =
        groups.iter().flatten().flat_map(|run| &run.settings).flat_map(BTreeMap::keys).collect();
    names.sort_unstable();
    names.dedup();
    let of = |group: &[&Run], name: &str| -> Option<Value> { group.first()?.settings.as_ref()?.get(name).cloned() };
    names.retain(|name| {
        (seeds_differ || *name != SEED) && groups.iter().any(|group| of(group, name) != of(&groups[0], name))
    });
    let short = |name: &str| {
        let last = name.rsplit('.').next().unwrap_or(name);
        let alone = names.iter().filter(|other| other.rsplit('.').next() == Some(last)).count() == 1;
        if alone { last.to_string() } else { name.to_string() }
    };
    let title = |group: &Vec<&Run>| {
        let value = |name: &&String| match of(group, name) {
            Some(Value::String(text)) => format!("{} {text}", short(name)),
            Some(value) => format!("{} {value}", short(name)),
            None => format!("no {}", short(name)),
        };
        names.iter().map(value).collect::<Vec<_>>().join(", ")
    };
    let titles: Vec<String> = groups.iter().map(title).collect();
    let known = groups.iter().flatten().all(|run| run.settings.is_some());
    let distinct = titles.iter().enumerate().all(|(at, title)| !titles[..at].contains(title));
    if known && distinct && names.len() <= SETTINGS { titles } else { folders() }
}

/// The points at each x that all runs have: a mean would jump where one of them ends.
fn common(mut runs: Vec<Vec<(f64, f64)>>) -> Vec<Vec<(f64, f64)>> {
    let mut counts: HashMap<u64, usize> = HashMap::new();
    runs.iter().flatten().for_each(|point| *counts.entry(point.0.to_bits()).or_default() += 1);
    let all = runs.len();
    runs.iter_mut().for_each(|run| run.retain(|point| counts.get(&point.0.to_bits()) == Some(&all)));
    runs
}

fn listed(runs: &[&Run]) -> String {
    runs.iter().map(|run| run.path.display().to_string()).collect::<Vec<_>>().join(", ")
}
