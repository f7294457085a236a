use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::results::{ResultRow, value};
use super::{Results, Sweep, SweepJob};
use crate::circuits::Circuit;
use crate::report::{Cell, Report};
use crate::train::norms::is_per_parameter;
use crate::{Error, Result};

/// The results of the finished jobs, and the number of unfinished ones. The results of a training
/// run are those of its last line of metrics, of a circuit search a row for each circuit, of any
/// other command the numbers of the JSON that it printed.
///
/// Numbers with `seconds` or `per_second` in their names are omitted: the same jobs give the same
/// table, however they were split.
fn collect(sweep: &Sweep) -> Result<(Results, usize)> {
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
fn circuits(folder: &Path) -> Result<Results> {
    Ok(Results::new(&circuit_rows(&BTreeMap::new(), folder, |path| Circuit::load(path).map(Some))?))
}

/// Collects the results of a sweep's file or of a folder of circuits, and writes into its folder
/// `table.csv` and a chart of each column in `plot`, or of the main one, in `format`, which is one of
/// [`FORMATS`](crate::chart::FORMATS). Logs how many jobs are not done.
///
/// # Errors
/// Returns the errors of reading, [`Error::Data`] if no job is done, [`Error::Unknown`] for a
/// column that does not exist, and [`Error::Io`].
pub fn collect_report(from: &Path, plot: &[String], format: &str) -> Result<Report> {
    let (results, folder) = if from.is_dir() {
        (circuits(from)?, from.to_path_buf())
    } else {
        let sweep = Sweep::load(from)?;
        let (results, missing) = collect(&sweep)?;
        if missing > 0 {
            let jobs = sweep.jobs.len();
            tracing::info!("{missing} of {jobs} jobs are not done yet: `gossamer sweep` does them");
        }
        (results, sweep.folder)
    };
    if results.table.rows().is_empty() {
        return Err(Error::Data(format!("{}: nothing is done yet", from.display())));
    }
    let default: Vec<_> = results.main_column().into_iter().collect();
    let plot = if plot.is_empty() { default } else { plot.iter().map(String::as_str).collect() };
    let mut files = vec![folder.join("table.csv")];
    results.table.save_csv(&files[0])?;
    for column in plot {
        files.push(folder.join(format!("{}.{format}", column.replace(['/', '\\'], "-"))));
        results.chart(column)?.save(&files[files.len() - 1])?;
    }
    let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    Ok(Report::new().table(results.table).paragraph(files.join("\n")))
}

fn job_rows(job: &SweepJob) -> Result<Vec<ResultRow>> {
    let inputs: BTreeMap<_, _> = job.values.iter().map(|(name, text)| (name.clone(), value(text))).collect();
    let metrics = job.out.join("metrics.jsonl");
    if metrics.exists() {
        let text = fs::read_to_string(&metrics).map_err(|e| Error::io(&metrics, e))?;
        // The last line of a run that was killed may be incomplete.
        let whole = |line: &&str| line.ends_with('\n') || serde_json::from_str::<Value>(line).is_ok();
        let last = text.split_inclusive('\n').rfind(whole);
        let last = serde_json::from_str(last.unwrap_or("{}"));
        let mut outputs = numbers(&last.map_err(|e| Error::file(&metrics, e.to_string()))?);
        outputs.retain(|name, _| !is_per_parameter(name));
        return Ok(vec![ResultRow { inputs, outputs }]);
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
    Ok(vec![ResultRow { inputs, outputs }])
}

fn circuit_rows(
    inputs: &BTreeMap<String, Cell>,
    folder: &Path,
    load: impl Fn(&Path) -> Result<Option<Circuit>>,
) -> Result<Vec<ResultRow>> {
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
        rows.push(ResultRow { inputs, outputs });
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
