//! Commands that find nothing to do say so, and do not succeed.

use std::collections::BTreeMap;
use std::fs;

use gossamer::circuits::{Circuit, Counts};
use gossamer::files::{HostIds, save_arrays};
use tempfile::tempdir;

use super::{fails, finish, gossamer, succeeds, text, tiny, train};

#[test]
fn tasks_of_which_none_can_be_evaluated() {
    let dir = tempdir().unwrap();
    let (run, file) = (dir.path().join("run"), dir.path().join("mine.jsonl"));
    succeeds(&mut tiny(&run, &["train.steps=2"]));
    // Both answers are several tokens each.
    let pair = r#"{"positive": "a", "negative": "b", "target": "xqzj0123", "alternative": "jzqx3210"}"#;
    fs::write(&file, format!("{pair}\n").repeat(40)).unwrap();
    let eval = ["tasks", "eval", text(&run), "--device", "cpu", "--pairs", "4", "--task", text(&file)];
    fails(&mut gossamer(&eval), &["none of the 1 tasks could be evaluated"]);
    let output = gossamer(&eval).arg("--json").output().unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(rows[0]["error"].is_string(), "{rows}");
    assert_eq!(finish(output).0, Some(1));
    // One that can be is enough.
    succeeds(gossamer(&eval).arg("single_double_quote"));
}

#[test]
fn a_search_without_success_names_no_folder_of_circuits() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    succeeds(&mut tiny(&run, &["train.steps=2"]));
    let search = |target: &str| {
        let fixed = ["circuit", text(&run), "--device", "cpu", "--mean-tokens", "512", "--task", "single_double_quote"];
        let settings = ["--set", "steps=3", "--set", "pairs=4", "--set", "eval_pairs=8", "--target-loss", target];
        let mut command = train(&fixed);
        command.args(settings);
        command
    };
    let said = fails(&mut search("1e-9"), &["no circuit was found"]);
    assert!(!said.contains("circuits are in"), "{said}");
    assert!(succeeds(&mut search("0.7")).contains("circuits are in"));

    // What there is to measure of a circuit are its nodes.
    let file = run.join("circuits/single_double_quote.json");
    let mut circuit = Circuit::load(&file).unwrap();
    (circuit.nodes, circuit.edges, circuit.biases) = (Vec::new(), Vec::new(), Vec::new());
    circuit.counts = Counts::of(circuit.model.n_layer, &[], &[], &[]);
    circuit.normalised().save(&file).unwrap();
    for what in ["stats", "binarise"] {
        fails(&mut gossamer(&["circuit", what, text(&file), "--model", text(&run)]), &["has no nodes"]);
    }
    assert!(!run.join("circuits/single_double_quote.statistics.json").exists());
}

#[test]
fn text_that_has_nothing_to_predict_or_to_write() {
    let dir = tempdir().unwrap();
    let (run, tokens) = (dir.path().join("run"), dir.path().join("tokens.safetensors"));
    succeeds(&mut tiny(&run, &["train.steps=2"]));
    let ids = HostIds { shape: vec![3, 1], data: vec![1, 2, 3] };
    save_arrays(&tokens, &BTreeMap::new(), &BTreeMap::from([("tokens".to_string(), ids)]), None).unwrap();
    fails(&mut gossamer(&["eval", text(&run), "--tokens", text(&tokens)]), &["nothing to evaluate", "single token"]);
    for option in ["--num-samples", "--max-new-tokens"] {
        fails(&mut gossamer(&["generate", text(&run), option, "0"]), &["'0'", option]);
    }
    fails(&mut gossamer(&["tasks", "show", "var_if", "--count", "0"]), &["'0'", "--count"]);
}
