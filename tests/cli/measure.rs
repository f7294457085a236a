//! `gossamer circuit stats` and `binarise` on a circuit of a tiny run. That run does no task; the
//! circuit's nodes are put in by hand.

use std::fs;
use std::path::{Path, PathBuf};

use gossamer::circuits::statistics::SNIPPETS;
use gossamer::circuits::{Binary, Circuit, Counts, Node, NodeEntry, Statistics};
use gossamer::files::load_tensors;
use tempfile::tempdir;

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
