//! `gossamer circuit stats` and `binarise` on a circuit of a tiny run. That run does no task; the
//! circuit's nodes are put in by hand.

use std::fs;
use std::path::{Path, PathBuf};

use gossamer::circuits::statistics::SNIPPETS;
use gossamer::circuits::{Binary, Circuit, Counts, Node, NodeEntry, Statistics};
use gossamer::files::load_tensors;
use tempfile::tempdir;

use crate::circuit::page_data;
use crate::{fails, gossamer, succeeds, text, tiny, train};

/// Puts nodes into a circuit file, whose means are next to it.
pub(crate) fn plant_nodes(file: &Path) {
    let mut circuit = Circuit::load(file).unwrap();
    let means = load_tensors(file.with_file_name("means.safetensors")).unwrap();
    for name in ["0.attn.act_in[3]", "0.attn.v[2]", "0.attn.resid_delta[5]"] {
        let mut entry = NodeEntry::new(name.parse::<Node>().unwrap(), &circuit.model);
        entry.mean = means[&entry.site].data[entry.index].into();
        circuit.nodes.retain(|other| other.node() != entry.node());
        circuit.nodes.push(entry);
    }
    (circuit.edges, circuit.biases) = (Vec::new(), Vec::new());
    circuit.counts = Counts::of(circuit.model.n_layer, &circuit.nodes, &circuit.edges, &circuit.biases);
    circuit.normalised().save(file).unwrap();
}

/// A run in `folder` and a circuit file next to its means.
pub(crate) fn circuit(folder: &Path) -> (PathBuf, PathBuf) {
    let run = folder.join("run");
    succeeds(&mut tiny(&run, &[]));
    // Chance is log 2, which no nodes at all reach.
    let fixed = ["circuit", text(&run), "--device", "cpu", "--mean-tokens", "512", "--target-loss", "0.7"];
    let settings = ["--set", "steps=3", "--set", "pairs=4", "--set", "eval_pairs=8", "--task", "single_double_quote"];
    succeeds(train(&fixed).args(settings));
    let file = run.join("circuits/single_double_quote.json");
    plant_nodes(&file);
    (run, file)
}

#[test]
fn statistics_and_steps_are_printed_and_kept_beside_the_circuit() {
    let folder = tempdir().unwrap();
    let (run, file) = circuit(folder.path());
    let (run, name) = (text(&run), text(&file));
    let found = Circuit::load(&file).unwrap();

    let stats = ["circuit", "stats", name, "--model", run, "--device", "cpu", "--max-tokens", "600"];
    let said = succeeds(&mut gossamer(&stats));
    let kept = file.with_extension("statistics.json");
    assert!(said.contains("0.attn.act_in[3]") && said.contains('[') && said.contains(text(&kept)), "{said}");
    let read = Statistics::load(&kept).unwrap();
    assert_eq!((read.model.as_str(), read.task.as_str()), (found.model.hash.as_str(), "single_double_quote"));
    let nodes: Vec<_> = found.nodes.iter().map(NodeEntry::node).collect();
    assert_eq!(read.nodes.iter().map(|n| n.node).collect::<Vec<_>>(), nodes);
    for node in &read.nodes {
        assert_eq!(node.corpus.count, 600 / 16 * 16);
        assert!(node.clean.count > 8 && node.counterfactual.count > 8);
        assert_eq!(node.clean.quantiles[3].top.snippets.len(), SNIPPETS, "eight pairs");
    }
    let bytes = fs::read(&kept).unwrap();
    succeeds(&mut gossamer(&stats));
    assert_eq!(fs::read(&kept).unwrap(), bytes);
    // Text of one's own.
    let own = folder.path().join("own.py");
    fs::write(&own, "x = 'one'\nprint(x)\n".repeat(30)).unwrap();
    succeeds(gossamer(&stats).args(["--data", text(&own)]));
    assert_ne!(fs::read(&kept).unwrap(), bytes);

    let binarise = ["circuit", "binarise", name, "--model", run, "--device", "cpu"];
    let said = succeeds(&mut gossamer(&binarise));
    let kept = file.with_extension("binary.json");
    assert!(said.contains("0.attn.v[2]") && said.contains("all nodes binary"), "{said}");
    let read = Binary::load(&kept).unwrap();
    assert_eq!(read.steps.iter().map(|step| step.node).collect::<Vec<_>>(), nodes);
    assert!(read.train.binary <= std::f64::consts::LN_2 + 1e-2, "the smallest scale is next to chance");
    let bytes = fs::read(&kept).unwrap();
    succeeds(&mut gossamer(&binarise));
    assert_eq!(fs::read(&kept).unwrap(), bytes);
}

#[test]
fn other_models_means_and_tasks_are_refused() {
    let folder = tempdir().unwrap();
    let (run, file) = circuit(folder.path());
    let other = folder.path().join("other");
    succeeds(&mut tiny(&other, &["run.seed=9"]));
    let hash = Circuit::load(&file).unwrap().model.hash;
    for command in ["stats", "binarise"] {
        let run = |circuit: &Path, model: &Path| {
            gossamer(&["circuit", command, text(circuit), "--model", text(model), "--device", "cpu"])
        };
        fails(&mut run(&file, &other), &["another model", &hash]);
        fails(&mut run(&folder.path().join("none.json"), &other), &["none.json"]);
        fails(&mut run(&file, &folder.path().join("nowhere")), &["nowhere"]);
        fails(&mut gossamer(&["circuit", command, text(&file)]), &["--model"]);
    }
    let change = |change: &dyn Fn(&mut Circuit)| {
        let mut circuit = Circuit::load(&file).unwrap();
        change(&mut circuit);
        let changed = file.with_file_name("changed.json");
        circuit.save(&changed).unwrap();
        gossamer(&["circuit", "binarise", text(&changed), "--model", text(&run), "--device", "cpu"])
    };
    fails(&mut change(&|c| c.nodes[0].mean += 1.0), &["mean activations", "0.attn.act_in[3]"]);
    fails(&mut change(&|c| c.task.name = "mine".into()), &["mine", ".jsonl"]);
    succeeds(change(&|c| c.task.name = "mine".into()).args(["--task", "single_double_quote"]));
    fs::remove_file(file.with_file_name("changed.binary.json")).unwrap();
    // The pairs' hash decides; files of earlier versions have only a version.
    succeeds(&mut change(&|c| c.task.version += 1));
    fs::remove_file(file.with_file_name("changed.binary.json")).unwrap();
    let earlier = |c: &mut Circuit| (c.task.version, c.task.hash) = (c.task.version + 1, String::new());
    fails(&mut change(&earlier), &["version"]);
    fails(&mut change(&|c| c.task.variant = 9), &["single_double_quote#10"]);
    fails(&mut change(&|c| c.settings = serde_json::json!({ "stepz": 1 })), &["settings", "stepz"]);
    assert!(!file.with_file_name("changed.binary.json").exists());
}

#[test]
fn a_page_shows_what_was_measured_in_the_model() {
    let folder = tempdir().unwrap();
    let (run, file) = circuit(folder.path());
    let stats = ["circuit", "stats", text(&file), "--model", text(&run), "--device", "cpu", "--max-tokens", "600"];
    succeeds(&mut gossamer(&stats));
    let known = Statistics::load(file.with_extension("statistics.json")).unwrap();

    // The model is the one that the circuit names.
    let page = succeeds(&mut gossamer(&["circuit", "export", text(&file), "--format", "html", "--device", "cpu"]));
    let circuit = &page_data(&page)["circuits"][0];
    let value = &circuit["statistics"]["0.attn.v[2]"];
    let node = known.nodes.iter().find(|entry| entry.node.to_string() == "0.attn.v[2]").unwrap();
    assert_eq!(value["corpus"]["histogram"], serde_json::json!(node.corpus.histogram));
    let snippet = &value["corpus"]["quantiles"][0]["top"]["snippets"][0];
    let (at, kept) = (snippet["position"].as_u64().unwrap() as usize, &node.corpus.quantiles[0].top.snippets[0]);
    assert_eq!(snippet["tokens"][at], kept.tokens[kept.position]);
    let (shown, exact) = (snippet["activations"][at].as_f64().unwrap(), f64::from(kept.activations[kept.position]));
    assert!((shown - exact).abs() <= 0.006 * exact.abs(), "{shown} {exact}");
    assert!(circuit["tokens"][kept.tokens[kept.position].to_string()].is_string());
    // Each token attends to itself and those before it, to a sink besides.
    let prompt = &circuit["prompts"][0];
    let rows = prompt["attention"][0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), prompt["tokens"].as_array().unwrap().len());
    for (query, row) in rows.iter().enumerate() {
        let shares: Vec<(usize, f64)> = serde_json::from_value(row.clone()).unwrap();
        assert!(shares.iter().all(|&(key, _)| key <= query), "{query}: {shares:?}");
        assert!((0.0..=1.01).contains(&shares.iter().map(|(_, share)| share).sum::<f64>()), "{shares:?}");
    }
}

/// The lines of the table of a search's trials.
fn trials(tune: &[&str]) -> Vec<Vec<String>> {
    let folder = tempdir().unwrap();
    let run = folder.path().join("run");
    succeeds(&mut tiny(&run, &[]));
    let fixed = ["circuit", text(&run), "--device", "cpu", "--mean-tokens", "512", "--target-loss", "0.7"];
    let settings = ["--set", "steps=3 pairs=4 eval_pairs=8", "--task", "single_double_quote"];
    succeeds(train(&fixed).args(settings).args(tune));
    let table = fs::read_to_string(run.join("circuits/single_double_quote.trials.csv")).unwrap();
    table.lines().map(|line| line.split(',').map(str::to_string).collect()).collect()
}

#[test]
fn every_trial_of_a_search_is_listed() {
    let lines = trials(&["--tune", "18"]);
    let column = |name: &str| lines[0].iter().position(|other| other == name).unwrap();
    assert_eq!(lines.len(), 1 + 19);
    assert!(lines.iter().all(|line| line.len() == lines[0].len()));
    // The first has the given settings, the others do not.
    assert_eq!(lines[1][column("lr")], "0.01");
    assert!(lines[2..].iter().all(|line| line[column("lr")] != "0.01"));
    assert!(lines[1..].iter().any(|line| line[column("on_front")] == "true"));
}

#[test]
fn a_search_ends_when_its_minutes_have_passed() {
    assert_eq!(trials(&["--tune-minutes", "0.000000001"]).len(), 1 + 1, "the first trial is always made");
    assert_eq!(trials(&["--tune-minutes", "60", "--tune", "1"]).len(), 1 + 2, "and no more than --tune allows");
}
