use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::results::{Row, value};
use super::{Job, Results, Sweep};
use crate::circuits::Circuit;
use crate::report::Cell;
use crate::{Error, Result};

/// The results of the finished jobs, and the number of unfinished ones. The results of a training run are
/// those of its last line of metrics, of a circuit search a row for each circuit, of any other command the numbers of the
/// JSON that it printed.
///
/// Numbers with `seconds` or `per_second` in their names are left out: the same jobs give the same table, however they
/// were split.
///
/// # Errors
/// Returns [`Error::Io`], and [`Error::File`] naming a damaged file.
pub fn collect(sweep: &Sweep) -> Result<(Results, usize)> {
    let (mut rows, mut missing) = (Vec::new(), 0);
    for job in &sweep.jobs {
        if job.is_done()? {
            rows.extend(job_rows(job)?);
        } else {
            missing += 1;
        }
    }
    Ok((Results::new(&rows), missing))
}

/// The circuits in a folder, a row each.
///
/// # Errors
/// Returns the errors of reading them.
pub fn circuits(folder: &Path) -> Result<Results> {
    Ok(Results::new(&circuit_rows(&BTreeMap::new(), folder, |path| Circuit::load(path).map(Some))?))
}

/// Results, and the files that hold them.
#[derive(Clone, Debug)]
pub struct Collected {
    /// The results.
    pub results: Results,
    /// The number of jobs; 0 for a folder of circuits.
    pub jobs: usize,
    /// The number of unfinished jobs.
    pub missing: usize,
    /// The table as CSV and the charts; none if no job is finished.
    pub files: Vec<PathBuf>,
}

/// Collects the results of a sweep's file or of a folder of circuits, and writes into its folder `table.csv` and a chart of
/// each column in `plot`, or of the main one.
///
/// # Errors
/// Returns the errors of reading, [`Error::Unknown`] for a column that does not exist, and [`Error::Io`].
pub fn collect_into_files(from: &Path, plot: &[String]) -> Result<Collected> {
    let (results, folder, jobs, missing) = if from.is_dir() {
        (circuits(from)?, from.to_path_buf(), 0, 0)
    } else {
        let sweep = Sweep::load(from)?;
        let (results, missing) = collect(&sweep)?;
        (results, sweep.folder, sweep.jobs.len(), missing)
    };
    let mut files = Vec::new();
    if !results.table.rows().is_empty() {
        let default: Vec<_> = results.main_column().into_iter().collect();
        let plot = if plot.is_empty() { default } else { plot.iter().map(String::as_str).collect() };
        files.push(folder.join("table.csv"));
        results.table.save_csv(&files[0])?;
        for column in plot {
            let path = folder.join(format!("{}.png", column.replace(['/', '\\'], "-")));
            results.chart(column)?.save(&path)?;
            files.push(path);
        }
    }
    Ok(Collected { results, jobs, missing, files })
}

fn job_rows(job: &Job) -> Result<Vec<Row>> {
    let inputs: BTreeMap<_, _> = job.values.iter().map(|(name, text)| (name.clone(), value(text))).collect();
    let metrics = job.out.join("metrics.jsonl");
    if metrics.exists() {
        let text = fs::read_to_string(&metrics).map_err(|e| Error::io(&metrics, e))?;
        // The last line of a run that was killed may be incomplete.
        let whole = |line: &&str| line.ends_with('\n') || serde_json::from_str::<Value>(line).is_ok();
        let last = text.split_inclusive('\n').rfind(whole);
        let last = serde_json::from_str(last.unwrap_or("{}"));
        let outputs = numbers(&last.map_err(|e| Error::file(&metrics, e.to_string()))?);
        return Ok(vec![Row { inputs, outputs }]);
    }
    // A job may write any JSON.
    let circuits = circuit_rows(&inputs, &job.out, |path| match Circuit::load(path) {
        Err(Error::File { .. }) => Ok(None),
        circuit => circuit.map(Some),
    })?;
    if !circuits.is_empty() {
        return Ok(circuits);
    }
    let printed = job.file("stdout");
    let text = fs::read_to_string(&printed).map_err(|e| Error::io(&printed, e))?;
    let outputs = serde_json::from_str(&text).map_or_else(|_| BTreeMap::new(), |json| numbers(&json));
    Ok(vec![Row { inputs, outputs }])
}

fn circuit_rows(
    inputs: &BTreeMap<String, Cell>,
    folder: &Path,
    load: impl Fn(&Path) -> Result<Option<Circuit>>,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if !folder.is_dir() {
        return Ok(rows);
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        paths.push(entry.map_err(|e| Error::io(folder, e))?.path());
    }
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Measurements of a circuit are next to it.
        let Some(name) = name
            .strip_suffix(".json")
            .filter(|name| !name.starts_with('.') && !name.ends_with(".statistics") && !name.ends_with(".binary"))
        else {
            continue;
        };
        let Some(circuit) = load(&path)? else { continue };
        let (counts, losses) = (&circuit.counts, &circuit.losses.test);
        let mut inputs = inputs.clone();
        inputs.insert("circuit".into(), name.into());
        let outputs = [
            ("nodes", counts.nodes as f64),
            ("edges", counts.edges as f64),
            ("loss_of_model", losses.model),
            ("loss_of_circuit", losses.circuit),
            ("loss_without", losses.ablated),
            ("accuracy_of_circuit", losses.accuracy_circuit),
        ];
        let outputs = outputs.map(|(name, number)| (name.to_string(), Cell::Number(number))).into();
        rows.push(Row { inputs, outputs });
    }
    Ok(rows)
}

/// All numbers in `json` by their path, except speeds, which differ between equal runs.
fn numbers(json: &Value) -> BTreeMap<String, Cell> {
    fn walk(path: &str, json: &Value, found: &mut BTreeMap<String, Cell>) {
        let below = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
        match json {
            Value::Number(number) => {
                found.extend(number.as_f64().map(|number| (path.to_string(), Cell::Number(number))));
            }
            Value::Object(fields) => fields.iter().for_each(|(key, value)| walk(&below(key), value, found)),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(i, item)| walk(&below(&i.to_string()), item, found))
            }
            _ => {}
        }
    }
    let mut found = BTreeMap::new();
    walk("", json, &mut found);
    found.retain(|name, _| !name.contains("per_second") && !name.contains("seconds"));
    found
}
