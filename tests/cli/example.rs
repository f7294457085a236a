//! `gossamer example`.

use std::fs;

use gossamer::circuits::Circuit;
use tempfile::tempdir;

use crate::{fails, gossamer, succeeds, text};

#[test]
fn the_example_is_a_model_whose_circuits_are_its_own() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("runs/example");
    let said = succeeds(&mut gossamer(&["example", "--out", text(&out)]));
    assert!(said.contains("gossamer bridge eval") && said.contains(text(&out)), "{said}");
    assert!(fs::metadata(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/example.zip")).unwrap().len() < 3_000_000);

    assert!(out.join(gossamer::example::CIRCUIT).exists());
    let circuit = out.join("circuits/single_double_quote.json");
    let found = Circuit::load(&circuit).unwrap();
    // The model is found around the circuit's file, wherever that is; its numbers are the file's.
    let eval = ["circuit", "eval", text(&circuit), "--device", "cpu", "--controls", "0", "--no-parts", "--json"];
    let output = gossamer(&eval).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let measured: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let loss = measured["calibrated"]["test"]["circuit"]["loss"].as_f64().unwrap();
    assert!((loss - found.losses.test.circuit).abs() < 1e-4, "{loss} {}", found.losses.test.circuit);

    let steer = ["steer", text(&out), "--circuit", text(&circuit), "--pairs", "4", "--device", "cpu"];
    succeeds(&mut gossamer(&steer));
    fails(&mut gossamer(&["example", "--out", text(&out)]), &["is not empty", "--out"]);
}
