//! Models with numbers that are not finite: every answer is refused with the first site that is not
//! finite, and what helps to find out why still works.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use gossamer::circuits::Circuit;
use gossamer::files::{load_tensors, save_tensors};
use gossamer::model::Model;
use serde_json::Value;
use tempfile::TempDir;

use crate::{fails, gossamer, succeeds, text, tiny, train};

/// A tiny run that all tests of this file start from, untied and with its unembedding left dense.
static RUN: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    succeeds(&mut tiny(&folder.path().join("run"), &["train.steps=5", "embed_target_density=1"]));
    folder
});

/// A folder with the model of [`RUN`], changed by hand.
fn planted(name: &str, change: impl FnOnce(&mut [f32])) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let source = RUN.path().join("run/checkpoints/step-5");
    fs::copy(source.join("config.json"), folder.path().join("config.json")).expect("copied");
    fs::copy(RUN.path().join("run/tokenizer.json"), folder.path().join("tokenizer.json")).expect("copied");
    let mut tensors = load_tensors(source.join("model.safetensors")).expect("tensors");
    change(&mut tensors.get_mut(name).expect("the parameter").data);
    save_tensors(folder.path().join("model.safetensors"), &tensors, None).expect("written");
    folder
}

/// One NaN in the weights that make queries.
fn broken() -> TempDir {
    planted("transformer.h.0.attn.c_attn.weight", |data| data[3] = f32::NAN)
}

/// What helps, in every message.
const HELP: [&str; 2] = ["gossamer inspect", "gossamer record"];

fn on_cpu<'a>(command: &'a str, model: &'a TempDir, more: &[&'a str]) -> Vec<&'a str> {
    [&[command, text(model.path()), "--device", "cpu"], more].concat()
}

#[track_caller]
fn refused(arguments: &[&str], site: &str) -> String {
    let verb = if site == "logits" { "are" } else { "is" };
    let said = fails(&mut gossamer(arguments), &[&format!("{site} {verb} not finite")]);
    assert!(HELP.iter().all(|help| said.contains(help)), "{said}");
    said
}

#[test]
fn generated_text_ends_where_a_number_is_not_finite() {
    let model = broken();
    let said = refused(&on_cpu("generate", &model, &["--prompt", "x = 1"]), "0.attn.q");
    assert!(said.contains("transformer.h.0.attn.c_attn.weight holds NaN at [0, 3]"), "{said}");
}

#[test]
fn a_next_token_is_refused_as_text_and_as_json() {
    let model = broken();
    refused(&on_cpu("run", &model, &["--prompt", "x = 1"]), "0.attn.q");
    let said = refused(&on_cpu("run", &model, &["--prompt", "x = 1", "--json"]), "0.attn.q");
    assert!(!said.contains("null"), "{said}");
}

#[test]
fn a_loss_is_refused() {
    let (model, folder) = (broken(), tempfile::tempdir().expect("a folder"));
    let data = folder.path().join("own.py");
    fs::write(&data, "x = 'one'\nprint(x)\n".repeat(30)).expect("written");
    refused(&on_cpu("eval", &model, &["--data", text(&data)]), "0.attn.q");
    let said = refused(&on_cpu("eval", &model, &["--data", text(&data), "--json"]), "0.attn.q");
    assert!(!said.contains("null"), "{said}");
}

#[test]
fn tasks_are_refused() {
    let model = broken();
    let arguments = ["tasks", "eval", text(model.path()), "--device", "cpu", "--pairs", "4", "--json"];
    let said = refused(&arguments, "0.attn.q");
    assert!(!said.contains("null"), "{said}");
}

#[test]
fn a_search_for_circuits_ends() {
    for (model, site) in [(broken(), "0.attn.q is"), (overflow(), "logits are")] {
        let search = ["circuit", text(model.path()), "--device", "cpu", "--mean-tokens", "256"];
        let settings = ["--task", "single_double_quote", "--set", "eval_pairs=8", "--set", "steps=3"];
        fails(train(&search).args(settings), &[&format!("{site} not finite"), HELP[0], HELP[1]]);
    }
}

/// A finite weight with which only the logits are too large.
fn overflow() -> TempDir {
    planted("transformer.ln_f.weight", |data| data.fill(3e38))
}

#[test]
fn finite_weights_whose_logits_overflow_give_no_answer() {
    let model = overflow();
    for arguments in [&["generate"][..], &["run"]] {
        let said = refused(&on_cpu(arguments[0], &model, &["--prompt", "x = 1"]), "logits");
        assert!(said.contains("All weights are finite"), "{said}");
    }
}

#[test]
fn sites_that_overflow_on_the_way_are_named() {
    // Products of queries and keys; a stream whose squares overflow under a norm.
    let attention = planted("transformer.h.0.attn.c_attn.bias", |data| data[..32].fill(1e25));
    refused(&on_cpu("generate", &attention, &["--prompt", "x = 1"]), "0.attn.y");
    let stream = planted("transformer.wte.weight", |data| data.fill(1e30));
    refused(&on_cpu("generate", &stream, &["--prompt", "x = 1"]), "0.attn.act_in");
}

#[test]
fn only_tokens_that_are_used_matter() {
    // The token of "#", of which the other prompt has none.
    let tokenizer = gossamer::text::tokenizer::Tokenizer::load(RUN.path().join("run/tokenizer.json")).expect("one");
    let token = tokenizer.encode("#").expect("tokens")[0] as usize;
    let model = planted("transformer.wte.weight", |data| data[token * 16 + 2] = f32::INFINITY);
    succeeds(&mut gossamer(&on_cpu("run", &model, &["--prompt", "x = 1"])));
    let said = refused(&on_cpu("run", &model, &["--prompt", "x#"]), "0.resid_in");
    assert!(said.contains("inf at position 1, channel 2"), "{said}");
}

#[test]
fn a_gpu_finds_the_same_site() {
    let model = broken();
    let arguments = ["generate", text(model.path()), "--device", "gpu", "--prompt", "x = 1", "--max-new-tokens", "2"];
    refused(&arguments, "0.attn.q");
}

#[test]
fn recording_works_and_says_which_sites_are_not_finite() {
    let (model, folder) = (broken(), tempfile::tempdir().expect("a folder"));
    let out = folder.path().join("record.safetensors");
    let said = succeeds(&mut gossamer(&on_cpu("record", &model, &["--prompt", "x = 1", "--out", text(&out)])));
    assert!(said.contains("the first of them 0.attn.q") && said.contains("0.attn.q holds"), "{said}");
    let recorded = load_tensors(&out).expect("tensors");
    assert!(recorded["0.attn.act_in"].data.iter().all(|v| v.is_finite()));
    assert!(recorded["0.attn.q"].data.iter().any(|v| v.is_nan()) && recorded["logits"].data[0].is_nan());
    let mean = ["--mean", "--max-tokens", "64", "--out", text(&out)];
    let said = succeeds(&mut gossamer(&on_cpu("record", &model, &mean)));
    assert!(said.contains("0.attn.q"), "{said}");
}

#[test]
fn inspection_works_and_says_which_weights_are_not_finite() {
    let model = broken();
    let said = succeeds(&mut gossamer(&["inspect", text(model.path())]));
    assert!(said.contains("not finite: 1 entries, the first of them NaN [0,3]"), "{said}");
    let said = gossamer(&["inspect", text(model.path()), "--json"]).output().expect("it runs").stdout;
    let json: Value = serde_json::from_slice(&said).expect("JSON");
    let tensors = json["report"]["tensors"].as_array().expect("tensors");
    let tensor = tensors.iter().find(|t| t["name"] == "transformer.h.0.attn.c_attn.weight").expect("it is there");
    assert_eq!(tensor["first_not_finite"], serde_json::json!({ "index": [0, 3], "value": "NaN" }));
    assert!(tensor["rms"].as_f64().expect("a number") > 0.0);
}

#[test]
fn training_does_not_begin_with_weights_that_are_not_finite() {
    let (model, folder) = (broken(), tempfile::tempdir().expect("a folder"));
    let dense = RUN.path().join("run");
    let mut bridges = train(&["bridges", "--dense", text(&dense), "--sparse", text(model.path())]);
    bridges.args(["--out", text(&folder.path().join("out")), "--set", "run.device=cpu", "--set", "train.steps=2"]);
    fails(&mut bridges, &["transformer.h.0.attn.c_attn.weight is not finite"]);
}

/// A circuit whose file says that it is a part of that model.
fn circuit_of(model: &Path) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let run = RUN.path().join("run");
    let search = ["circuit", text(&run), "--device", "cpu", "--mean-tokens", "256", "--target-loss", "0.7"];
    let settings = ["--task", "single_double_quote", "--set", "eval_pairs=8", "--set", "steps=2"];
    succeeds(train(&search).args(settings).args(["--out", text(folder.path())]));
    let file = folder.path().join("single_double_quote.json");
    let mut circuit = Circuit::load(&file).expect("a circuit");
    circuit.model.hash = Model::load(model, &gossamer::device::Device::cpu()).expect("a model").hash().expect("one");
    let node = gossamer::circuits::NodeEntry::new("0.attn.v[2]".parse().expect("a node"), &circuit.model);
    (circuit.nodes, circuit.edges, circuit.biases) = (vec![node], Vec::new(), Vec::new());
    circuit.counts = gossamer::circuits::Counts::of(1, &circuit.nodes, &circuit.edges, &circuit.biases);
    circuit.save(&file).expect("written");
    (folder, file)
}

#[test]
fn statistics_and_binary_circuits_are_refused() {
    let model = broken();
    let (_folder, file) = circuit_of(model.path());
    for command in ["stats", "binarise"] {
        refused(&["circuit", command, text(&file), "--model", text(model.path()), "--device", "cpu"], "0.attn.q");
    }
}
