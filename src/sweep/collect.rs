//! What came out of jobs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{Cell, Job, Sweep, Table};
use crate::circuits::Circuit;
use crate::{Error, Result};

type Row = (BTreeMap<String, Cell>, BTreeMap<String, Cell>);

/// The table of what the jobs that are done left behind, and how many are not done. Of a run: its last line of metrics. Of circuits: a row
/// each. Of any other command: the numbers of the JSON that it printed.
///
/// Numbers whose names speak of `seconds` or `per_second` are left out: the same jobs give the same table, however they were split.
///
/// # Errors
/// [`Error::Io`], and [`Error::File`] naming a file that is damaged.
pub fn collect(sweep: &Sweep) -> Result<(Table, usize)> {
    let (mut rows, mut missing) = (Vec::new(), 0);
    for job in &sweep.jobs {
        match job.is_done()? {
            true => rows.extend(of_job(job)?),
            false => missing += 1,
        }
    }
    Ok((Table::new(rows), missing))
}

/// The table of the circuits in a folder, those of all shards.
///
/// # Errors
/// Those of reading them.
pub fn circuits(folder: &Path) -> Result<Table> {
    Ok(Table::new(of_circuits(&BTreeMap::new(), folder, |path| Circuit::load(path).map(Some))?))
}

fn of_job(job: &Job) -> Result<Vec<Row>> {
    let tried: BTreeMap<_, _> = job.values.iter().map(|(name, value)| (name.clone(), Cell::parse(value))).collect();
    let metrics = job.out.join("metrics.jsonl");
    if metrics.exists() {
        let text = fs::read_to_string(&metrics).map_err(|e| Error::io(&metrics, e))?;
        // A run that was killed may have left a last line that is not whole.
        let whole = |line: &&str| line.ends_with('\n') || serde_json::from_str::<serde_json::Value>(line).is_ok();
        let last = text.split_inclusive('\n').rfind(whole);
        let last = serde_json::from_str(last.unwrap_or("{}"));
        return Ok(vec![(tried, numbers(&last.map_err(|e| Error::file(&metrics, e.to_string()))?))]);
    }
    // A job may write any JSON.
    let circuits = of_circuits(&tried, &job.out, |path| match Circuit::load(path) {
        Err(Error::File { .. }) => Ok(None),
        circuit => circuit.map(Some),
    })?;
    if !circuits.is_empty() {
        return Ok(circuits);
    }
    let printed = job.file("stdout");
    let text = fs::read_to_string(&printed).map_err(|e| Error::io(&printed, e))?;
    Ok(vec![(tried, serde_json::from_str(&text).map_or_else(|_| BTreeMap::new(), |json| numbers(&json)))])
}

fn of_circuits(
    tried: &BTreeMap<String, Cell>,
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
        // Measurements of a circuit stand beside it.
        let Some(name) = name
            .strip_suffix(".json")
            .filter(|name| !name.starts_with('.') && !name.ends_with(".statistics") && !name.ends_with(".binary"))
        else {
            continue;
        };
        let Some(circuit) = load(&path)? else { continue };
        let (counts, losses) = (&circuit.counts, &circuit.losses.test);
        let mut tried = tried.clone();
        tried.insert("circuit".into(), Cell::Text(name.into()));
        let came_out = [
            ("nodes", counts.nodes as f64),
            ("edges", counts.edges as f64),
            ("loss_of_model", losses.model),
            ("loss_of_circuit", losses.circuit),
            ("loss_without", losses.ablated),
            ("accuracy_of_circuit", losses.accuracy_circuit),
        ];
        rows.push((tried, came_out.map(|(name, number)| (name.into(), Cell::Number(number))).into()));
    }
    Ok(rows)
}

/// All numbers in `json` by their path, but for speeds, which no two runs share.
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
