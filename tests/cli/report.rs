//! `gossamer report`.

use std::fs;

use serde_json::Value;
use tempfile::tempdir;

use crate::circuit::page_data;
use crate::measure::circuit;
use crate::{fails, gossamer, succeeds, text, tiny};

/// The table of that title: its headings, then its rows.
fn table<'a>(run: &'a Value, title: &str) -> Vec<Vec<&'a str>> {
    let tables = run["tables"].as_array().unwrap();
    let table = tables.iter().find(|table| table["title"] == title).unwrap_or_else(|| panic!("no {title}"));
    let rows = table["rows"].as_array().unwrap().iter();
    rows.map(|row| row.as_array().unwrap().iter().map(|cell| cell.as_str().unwrap()).collect()).collect()
}

#[test]
fn a_report_has_what_the_runs_files_say() {
    let folder = tempdir().unwrap();
    let (run, file) = circuit(folder.path());
    succeeds(&mut gossamer(&["report", text(&run), "--device", "cpu", "--pairs", "8"]));
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.len() < 2_000_000 && page.matches("src=").count() + page.matches("href=").count() == 0);
    let data = page_data(&page);
    let run_data = &data["run"];
    assert_eq!(data["title"], "run");
    assert_eq!(run_data["settings"], fs::read_to_string(run.join("config.toml")).unwrap());

    let lines = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let losses: Vec<f64> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64().unwrap()).collect();
    let charts = run_data["charts"].as_array().unwrap();
    let chart = charts.iter().find(|chart| chart["title"] == "loss").unwrap();
    let curve = chart["curves"].as_array().unwrap().iter().find(|curve| curve["name"] == "loss").unwrap();
    let points: Vec<f64> = curve["points"].as_array().unwrap().iter().map(|point| point[1].as_f64().unwrap()).collect();
    assert_eq!(points, losses);

    let circuits = table(run_data, "circuits");
    assert_eq!((circuits.len(), circuits[1][8]), (2, "single_double_quote.json"));
    let saved: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(circuits[1][1], saved["counts"]["nodes"].to_string());
    assert_eq!(data["circuits"].as_array().unwrap().len(), 1);
    assert_eq!(table(run_data, "tasks").len(), 21);
    let weights = table(run_data, "weights");
    let embedding = weights.iter().find(|row| row[0] == "transformer.wte.weight").unwrap();
    assert_eq!(embedding[1], "300×16");
}

#[test]
fn a_run_without_a_checkpoint_has_curves() {
    let folder = tempdir().unwrap();
    let run = folder.path().join("begun");
    succeeds(&mut tiny(&run, &["train.steps=3"]));
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    let out = folder.path().join("page.html");
    let said = succeeds(&mut gossamer(&["report", text(&run), "--out", text(&out)]));
    assert!(said.contains("no checkpoint yet"), "{said}");
    let data = page_data(&fs::read_to_string(out).unwrap());
    assert_eq!(data["run"]["charts"][0]["curves"][0]["points"].as_array().unwrap().len(), 3);
    assert_eq!(data["circuits"].as_array().unwrap().len(), 0);
}

#[test]
fn damaged_circuits_are_left_out_by_name() {
    let folder = tempdir().unwrap();
    let run = folder.path().join("run");
    succeeds(&mut tiny(&run, &["train.steps=1"]));
    fs::create_dir_all(run.join("circuits")).unwrap();
    fs::write(run.join("circuits/var_if.json"), "{").unwrap();
    let said = succeeds(&mut gossamer(&["report", text(&run), "--pairs", "0", "--device", "cpu"]));
    assert!(said.contains("left out") && said.contains("var_if.json"), "{said}");
}

#[test]
fn folders_without_a_run_are_named() {
    let folder = tempdir().unwrap();
    fails(&mut gossamer(&["report", text(&folder.path().join("none"))]), &["none"]);
    fails(&mut gossamer(&["report", text(folder.path())]), &[text(folder.path())]);
    assert!(!folder.path().join("report.html").exists());
}
