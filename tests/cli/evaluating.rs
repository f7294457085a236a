//! `gossamer circuit eval` and `edit`, `run --circuit`, and `train circuit --exclude`, on a circuit
//! of a tiny run whose nodes are put in by hand.

use std::fs;

use gossamer::circuits::{Circuit, Node, NodeEntry};
use serde_json::Value;
use tempfile::tempdir;

use crate::measure::circuit;
use crate::{fails, gossamer, succeeds, text, tiny, train};

fn names(circuit: &Circuit) -> Vec<String> {
    circuit.nodes.iter().map(|entry| entry.node().to_string()).collect()
}

/// The JSON of standard output, which notes may follow.
fn first_json(said: &str) -> Value {
    serde_json::Deserializer::from_str(said).into_iter().next().expect("JSON").expect("whole")
}

#[test]
fn a_circuit_is_evaluated_with_every_ablation_and_calibration() {
    let folder = tempdir().unwrap();
    let (run, file) = circuit(folder.path());
    let eval = ["circuit", "eval", text(&file), "--device", "cpu", "--json"];
    let json = |more: &[&str]| -> Value { first_json(&succeeds(gossamer(&eval).args(more))) };
    let found = json(&["--controls", "2"]);
    for set in ["uncalibrated", "calibrated"] {
        for split in ["train", "test"] {
            for part in ["model", "circuit", "complement"] {
                let score = &found[set][split][part];
                assert!(score["loss"].is_f64() && score["accuracy"].is_f64(), "{set} {split} {part}");
            }
        }
    }
    assert!(found["faithfulness"].is_f64() || found["faithfulness"].is_null());
    assert_eq!(found["minimality"]["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(found["controls"]["random_circuits"].as_array().unwrap().len(), 2);
    assert_eq!(found, json(&["--controls", "2"]), "the same seed gives the same numbers");
    let loss = |found: &Value| found["uncalibrated"]["test"]["circuit"]["loss"].as_f64().unwrap();
    let ablations = ["mean", "task-mean", "zero", "resample", "interchange"];
    for name in ablations {
        let ablated = json(&["--ablation", name, "--no-parts", "--controls", "0"]);
        assert_eq!(ablated["ablation"], name);
        assert!(loss(&ablated).is_finite() && (name != "mean" || loss(&ablated) == loss(&found)), "{name}");
    }
    let none = json(&["--calibration", "none", "--no-parts", "--pairs", "4"]);
    assert_eq!(none["calibrated"], none["uncalibrated"]);
    assert_eq!(none["pairs"], serde_json::json!([4, 4]));
    // Another task, another model, and words for people.
    assert_eq!(json(&["--task", "var_if", "--no-parts"])["task"], "var_if");
    let other = folder.path().join("other");
    succeeds(&mut tiny(&other, &["seed=3"]));
    assert_ne!(loss(&json(&["--model", text(&other), "--no-parts"])), loss(&found));
    let said = succeeds(gossamer(&eval[..5]).args(["--model", text(&run)]));
    for word in ["faithfulness", "interchange accuracy", "random circuit 10", "sufficient", "0.attn.v[2]"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn a_circuit_is_edited_into_a_whole_file() {
    let folder = tempdir().unwrap();
    let (run, file) = circuit(folder.path());
    let edited = folder.path().join("run/circuits/edited.json");
    let edit = |more: &[&str]| {
        let mut command = gossamer(&["circuit", "edit", text(&file), "--model", text(&run), "--device", "cpu"]);
        command.args(more).args(["--out", text(&edited)]);
        command
    };
    succeeds(&mut edit(&["--remove", "0.attn.v[2]", "--add", "0.mlp.post_act[1]", "0.attn.v[4]"]));
    let circuit = Circuit::load(&edited).unwrap();
    assert_eq!(names(&circuit), ["0.attn.act_in[3]", "0.attn.v[4]", "0.attn.resid_delta[5]", "0.mlp.post_act[1]"]);
    assert!(circuit.nodes.iter().map(NodeEntry::node).all(|node: Node| node.layer == Some(0)));
    let shown = succeeds(&mut gossamer(&["circuit", "show", text(&edited)]));
    assert!(shown.contains("4 nodes"), "{shown}");
    // The same numbers by evaluation.
    let eval = ["circuit", "eval", text(&edited), "--device", "cpu", "--no-parts", "--controls", "0", "--json"];
    let found: Value = first_json(&succeeds(&mut gossamer(&eval)));
    assert_eq!(found["calibrated"]["test"]["circuit"]["loss"], circuit.losses.test.circuit);
    assert_eq!(
        found["uncalibrated"]["train"]["complement"]["loss"],
        circuit.losses.train.ablated_uncalibrated.unwrap()
    );

    let before = fs::read(&edited).unwrap();
    fails(&mut edit(&["--remove", "0.attn.v[7]"]), &["0.attn.v[7]"]);
    fails(&mut edit(&["--add", "0.attn.v[2]"]), &["0.attn.v[2]", "already"]);
    fails(&mut edit(&["--add", "9.attn.v[2]"]), &["9.attn.v[2]"]);
    fails(&mut edit(&["--add", "0.attn.v[2"]), &["0.attn.v[2"]);
    assert_eq!(fs::read(&edited).unwrap(), before, "what fails writes nothing");

    succeeds(&mut edit(&[]));
    let measured = Circuit::load(&edited).unwrap();
    assert_eq!(names(&measured), ["0.attn.act_in[3]", "0.attn.v[2]", "0.attn.resid_delta[5]"]);
    assert!(measured.nodes.iter().all(|entry| entry.difference.is_some()), "it is not measured anew");
}

#[test]
fn a_prompt_runs_through_a_circuit_and_without_it() {
    let folder = tempdir().unwrap();
    let (run, file) = circuit(folder.path());
    let run = ["run", text(&run), "--device", "cpu", "--prompt", "x = 1", "--circuit", text(&file), "--json"];
    let found: Value = first_json(&succeeds(&mut gossamer(&run)));
    let next = &found["next"][0];
    assert!(["before", "circuit", "complement"].iter().all(|name| next[name].is_f64()), "{next}");
    assert_ne!(next["circuit"], next["before"]);
    fails(gossamer(&run).args(["--set", "0.attn.q=patch", "--patch-from", "y"]), &["circuit", "=patch"]);
}

#[test]
fn excluded_nodes_are_in_no_circuit() {
    let folder = tempdir().unwrap();
    let (run, _) = circuit(folder.path());
    let fixed = ["circuit", text(&run), "--device", "cpu", "--mean-tokens", "512", "--target-loss", "0.7", "--task"];
    let settings = ["var_if", "--set", "steps=3 pairs=4 eval_pairs=8", "--exclude", "0.attn.v[1]", "0.attn.v[2]"];
    succeeds(train(&fixed).args(settings));
    let found = Circuit::load(run.join("circuits/var_if.json")).unwrap();
    assert_eq!(found.excluded.iter().map(Node::to_string).collect::<Vec<_>>(), ["0.attn.v[1]", "0.attn.v[2]"]);
    fails(train(&fixed).args(["var_if", "--exclude", "7.attn.v[1]"]), &["7.attn.v[1]"]);
}

#[test]
fn a_curve_has_circuits_of_every_size() {
    let folder = tempdir().unwrap();
    let (run, csv, png) = (folder.path().join("run"), folder.path().join("curve.csv"), folder.path().join("curve.png"));
    succeeds(&mut tiny(&run, &[]));
    let curve = ["circuit", "curve", text(&run), "--device", "cpu", "--task", "var_if", "--seeds", "2", "--json"];
    let settings = ["--set", "steps=3 pairs=4 eval_pairs=8", "--mean-tokens", "512", "--target-loss", "0.7", "1e-6"];
    let files = ["--csv", text(&csv), "--png", text(&png)];
    let found: Value = first_json(&succeeds(gossamer(&curve).args(settings).args(files)));
    let points = found["points"].as_array().unwrap();
    let of = |seed: u64| points.iter().filter(move |point| point["seed"] == seed).collect::<Vec<_>>();
    for (seed, model_loss) in (0..2).zip(found["model_loss"].as_array().unwrap()) {
        let nodes: Vec<_> = of(seed).iter().map(|point| point["nodes"].as_u64().unwrap()).collect();
        assert_eq!(nodes[..6], [1, 2, 3, 4, 6, 8]);
        assert!(of(seed).windows(2).all(|pair| pair[0]["edges"].as_u64() <= pair[1]["edges"].as_u64()));
        // All nodes are the model.
        let last = of(seed).last().copied().unwrap().clone();
        assert_eq!(last["uncalibrated"], *model_loss);
        assert!((last["faithfulness"].as_f64().unwrap_or(1.0) - 1.0).abs() < 1e-6, "{last}");
    }
    let targets: Vec<_> = found["targets"].as_array().unwrap().iter().map(|point| point["target"].clone()).collect();
    assert_eq!(targets, [0.7, 0.7], "nothing reaches the other one");
    let rows = fs::read_to_string(&csv).unwrap();
    assert_eq!(rows.lines().count(), 1 + points.len() + targets.len());
    assert!(rows.starts_with("seed,target,nodes,edges,train_loss,loss,uncalibrated,accuracy,ablated,faithfulness"));
    assert!(fs::read(&png).unwrap().starts_with(b"\x89PNG"));
    fails(gossamer(&curve).args(["--target-loss", "0"]), &["target_loss"]);
    fails(gossamer(&curve).args(["--set", "stepz=3"]), &["stepz", "steps"]);
}
