//! The commands that open models: recorded numbers against the golden ones, conversions,
//! generation, interventions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gossamer::files::{HostTensor, load_ids, load_tensors};
use serde_json::Value;
use tempfile::TempDir;

use crate::{fails, gossamer, succeeds, text, tiny};

const CASES: [&str; 4] = ["dense_gpt2", "paper", "relu_cat_pos", "sink_sparse"];

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/forward").join(case)
}

/// A folder with a golden case's configuration and one of its files of weights.
fn published(case: &str, weights: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["beeg_config.json", weights] {
        fs::copy(golden(case).join(name), folder.path().join(name)).unwrap();
    }
    folder
}

/// All that `gossamer record` writes of a model on a golden case's tokens.
fn record(model: &Path, case: &str, device: &str) -> BTreeMap<String, HostTensor> {
    let folder = tempfile::tempdir().unwrap();
    let (out, tokens) = (folder.path().join("record.safetensors"), golden(case).join("inputs.safetensors"));
    succeeds(&mut gossamer(&[
        "record",
        text(model),
        "--device",
        device,
        "--tokens",
        text(&tokens),
        "--out",
        text(&out),
    ]));
    assert_eq!(load_ids(&out, "tokens").unwrap(), load_ids(&tokens, "tokens").unwrap());
    load_tensors(&out).unwrap()
}

/// The largest difference relative to `1 + max|want|`, or why there is none.
fn difference(got: Option<&HostTensor>, want: &HostTensor) -> Result<f32, String> {
    let got = got.ok_or("missing")?;
    if got.shape != want.shape || got.data.is_empty() {
        return Err(format!("{:?} instead of {:?}", got.shape, want.shape));
    }
    if !got.data.iter().all(|v| v.is_finite()) {
        return Err("not finite".into());
    }
    let scale = 1.0 + want.data.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    Ok(got.data.iter().zip(&want.data).fold(0.0f32, |m, (g, w)| m.max((g - w).abs())) / scale)
}

#[test]
fn recorded_numbers_are_the_golden_ones_from_both_formats_on_both_devices() {
    for case in CASES {
        let expected = load_tensors(golden(case).join("expected.safetensors")).unwrap();
        let expected_sites: BTreeMap<_, _> = expected
            .iter()
            .filter_map(|(name, t)| name.strip_prefix("act/").or((name == "logits").then_some("logits")).zip(Some(t)))
            .collect();
        assert!(expected_sites.len() > 20, "{expected_sites:?}");
        for device in ["cpu", "gpu"] {
            let [safetensors, torch] = ["model.safetensors", "final_model.pt"]
                .map(|weights| record(published(case, weights).path(), case, device));
            for (site, want) in &expected_sites {
                match difference(safetensors.get(*site), want) {
                    Ok(e) if e <= 2e-5 => {}
                    other => panic!("{case} on {device}, {site}: {other:?}"),
                }
            }
            assert_eq!(safetensors, torch, "{case} on {device}: the formats hold the same numbers");
        }
    }
}

#[test]
fn the_comparison_sees_a_planted_error() {
    let want = HostTensor { shape: vec![2], data: vec![1.0, 2.0] };
    let off = HostTensor { shape: vec![2], data: vec![1.0, 2.001] };
    assert_eq!(difference(Some(&want), &want), Ok(0.0));
    assert!(difference(Some(&off), &want).unwrap() > 2e-5);
    assert!(difference(None, &want).is_err());
    assert!(difference(Some(&HostTensor { shape: vec![1, 2], ..want.clone() }), &want).is_err());
    assert!(difference(Some(&HostTensor { data: vec![1.0, f32::NAN], ..want.clone() }), &want).is_err());
}

#[test]
fn a_converted_model_records_the_same_bits() {
    for case in CASES {
        let (source, place) = (published(case, "final_model.pt"), tempfile::tempdir().unwrap());
        let out = place.path().join("converted");
        succeeds(&mut gossamer(&["convert", text(source.path()), text(&out)]));
        for file in ["config.json", "beeg_config.json", "model.safetensors"] {
            assert!(out.join(file).is_file(), "{file}");
        }
        assert_eq!(record(source.path(), case, "cpu"), record(&out, case, "cpu"), "{case}");
        fails(&mut gossamer(&["convert", text(source.path()), text(&out)]), &["converted"]);
        succeeds(&mut gossamer(&["convert", text(source.path()), text(&out), "--force"]));
    }
}

#[test]
fn half_precision_files_convert_to_the_same_bits_and_stay_small() {
    let case = "sink_sparse";
    for dtype in ["f16", "bf16"] {
        let source = published(case, "final_model.pt");
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/torch/sink_sparse_{dtype}.pt"));
        fs::copy(&data, source.path().join("final_model.pt")).unwrap();
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("converted");
        succeeds(&mut gossamer(&["convert", text(source.path()), text(&out)]));
        let recorded = record(source.path(), case, "cpu");
        assert_eq!(recorded, record(&out, case, "cpu"), "{dtype}");
        let whole = record(&golden(case), case, "cpu");
        let off = difference(recorded.get("logits"), &whole["logits"]).unwrap();
        assert!(off > 1e-6, "{dtype} rounds the weights, and then AbsTopK chooses otherwise: {off}");
        let size = |path: &Path| fs::metadata(path.join("model.safetensors")).unwrap().len();
        assert!(size(&out) < size(&golden(case)) * 6 / 10, "{dtype} is kept");
    }
}

/// A tiny trained run with its tokenizer.
fn run() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    succeeds(&mut tiny(&run, &[]));
    (folder, run)
}

/// Standard output alone.
fn prints(arguments: &[&str]) -> String {
    let output = gossamer(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_run_can_be_generated_from_looked_into_and_converted() {
    let (folder, run) = run();
    let model = ["--device", "cpu"];
    let with = |command: &str, more: &[&str]| prints(&[&[command, text(&run)], &model[..], more].concat());

    let sampled = ["--prompt", "def square(x):", "--max-new-tokens", "40", "--temperature", "0.8", "--top-p", "0.95"];
    let first = with("generate", &sampled);
    assert!(first.starts_with("def square(x):") && first.len() > 20, "{first}");
    assert_eq!(first, with("generate", &sampled), "the same seed");
    assert_ne!(first, with("generate", &[&sampled[..], &["--seed", "1"]].concat()), "another seed");
    let both = with("generate", &[&sampled[..], &["--num-samples", "2"]].concat());
    assert!(both.starts_with(&format!("--- 1 ---\n{first}--- 2 ---\n")), "{both}");
    let greedy = ["--prompt", "x = ", "--max-new-tokens", "3"];
    assert_eq!(
        with("generate", &[&greedy[..], &["--greedy"]].concat()),
        with("generate", &[&greedy[..], &["--top-k", "1", "--seed", "5"]].concat())
    );

    // All of the last residual stream set to zero leaves every prompt with the same next token.
    let json = |prompt: &str, edits: &[&str]| -> Value {
        serde_json::from_str(&with("run", &[&["--prompt", prompt, "--json", "--top", "3"], edits].concat())).unwrap()
    };
    let blank = |prompt| json(prompt, &["--set", "final_resid=0"])["next"].clone();
    let probabilities = |next: &Value, which: &str| -> Vec<(u64, f64)> {
        let rows = next.as_array().unwrap().iter();
        let mut rows: Vec<_> = rows.map(|r| (r["token"].as_u64().unwrap(), r[which].as_f64().unwrap())).collect();
        rows.sort_by(|a, b| b.1.total_cmp(&a.1));
        rows.truncate(3);
        rows
    };
    // The bigram table speaks past the residual stream: the prompts end alike.
    let (a, b) = (blank("a = 1"), blank("total = 1"));
    assert_eq!(probabilities(&a, "after"), probabilities(&b, "after"));
    assert_ne!(probabilities(&a, "before"), probabilities(&a, "after"));
    // Patched from itself, nothing changes; from another prompt, the last position becomes the
    // other's.
    let patch = |from| json("a = 1", &["--set", "final_resid@-1=patch", "--patch-from", from])["next"].clone();
    let itself = patch("a = 1");
    assert_eq!(probabilities(&itself, "before"), probabilities(&itself, "after"));
    let other = json("total = 1", &[])["next"].clone();
    assert_eq!(probabilities(&patch("total = 1"), "after"), probabilities(&other, "before"));
    // Means from a file are those taken on the spot.
    let means = folder.path().join("means.safetensors");
    with("record", &["--mean", "--max-tokens", "16384", "--sites", "mlp", "--out", text(&means)]);
    let ablate = ["--set", "*.mlp.post_act=mean"];
    assert_eq!(json("def f(", &ablate), json("def f(", &[&ablate[..], &["--means", text(&means)]].concat()));
    let table = with("run", &["--prompt", "def f(", "--set", "0.attn.q[h1.3]@-1*=2"]);
    assert!(table.contains("before   after  next token"), "{table}");

    let report: Value = serde_json::from_str(&with_source("inspect", &run, &["--json"])).unwrap();
    assert_eq!(report["tokenizer_vocab_size"], 300);
    let counted = report["report"]["matrix_nonzeros"].as_u64().unwrap();
    let text_report = with_source("inspect", &run, &[]);
    assert!(text_report.contains(&format!("{counted} of ")), "{text_report}");
    assert!(text_report.contains("tokenizer: 300 entries, as the model"), "{text_report}");

    let data = folder.path().join("some.py");
    fs::write(&data, "def f(x):\n    return x + 1\n".repeat(40)).unwrap();
    let losses = folder.path().join("losses.safetensors");
    let eval = with("eval", &["--data", text(&data), "--json", "--losses", text(&losses)]);
    let eval: Value = serde_json::from_str(&eval).unwrap();
    let each = &load_tensors(&losses).unwrap()["losses"];
    let mean = each.data.iter().map(|&l| f64::from(l)).sum::<f64>() / each.data.len() as f64;
    assert_eq!(each.shape[1], 15);
    assert_eq!(eval["predictions"].as_u64().unwrap(), each.data.len() as u64);
    assert!((eval["loss"].as_f64().unwrap() - mean).abs() < 1e-9 && mean > 1.0, "{eval}");

    let converted = folder.path().join("converted");
    with_source("convert", &run, &[text(&converted)]);
    let after = prints(&[&["generate", text(&converted)], &model[..], &sampled[..]].concat());
    assert_eq!(after, first, "the tokenizer and every number came along");
}

/// A command that needs no device.
fn with_source(command: &str, model: &Path, more: &[&str]) -> String {
    prints(&[&[command, text(model)], more].concat())
}

#[test]
fn what_cannot_be_is_said() {
    let (folder, run) = run();
    let run = text(&run);
    let out = folder.path().join("out.safetensors");
    fails(&mut gossamer(&["generate", "/nowhere/model"]), &["/nowhere/model"]);
    fails(&mut gossamer(&["generate", run, "--temperature=-1"]), &["temperature"]);
    fails(&mut gossamer(&["generate", run, "--top-p", "0"]), &["top-p"]);
    fails(&mut gossamer(&["generate", run, "--top-k", "0"]), &["top-k"]);
    fails(&mut gossamer(&["run", run, "--prompt", "x", "--set", "0.mlp.nothing=1"]), &["0.mlp.nothing", "post_act"]);
    fails(&mut gossamer(&["run", run, "--prompt", "x", "--set", "0.mlp.post_act[99]=1"]), &["99", "32"]);
    fails(&mut gossamer(&["run", run, "--prompt", "x", "--set", "0.mlp.post_act@7=1"]), &["position", "7"]);
    fails(&mut gossamer(&["run", run, "--prompt", "x", "--set", "0.mlp.post_act=patch"]), &["0.mlp.post_act"]);
    fails(&mut gossamer(&["run", run, "--prompt", "x", "--set", "nonsense"]), &["nonsense"]);
    let long = "x = 1\n".repeat(50);
    fails(&mut gossamer(&["run", run, "--prompt", &long]), &["block_size"]);
    // Before the model is opened.
    fails(&mut gossamer(&["record", "none", "--prompt", "x", "--sites", "(", "--out", text(&out)]), &["sites", "("]);
    fails(&mut gossamer(&["record", run, "--prompt", "x", "--sites", "none", "--out", text(&out)]), &["none"]);
    fails(&mut gossamer(&["eval", run]), &["--data"]);
    fails(&mut gossamer(&["eval", run, "--tokens", "/nowhere.safetensors"]), &["/nowhere.safetensors"]);
    // Published folders come without a tokenizer.
    let paper = published("paper", "model.safetensors");
    fails(&mut gossamer(&["generate", text(paper.path()), "--prompt", "x"]), &["--tokenizer"]);
    let tokenizer = Path::new(run).join("tokenizer.json");
    fails(
        &mut gossamer(&["generate", text(paper.path()), "--prompt", "x", "--tokenizer", text(&tokenizer)]),
        &["300", "64"],
    );
    assert!(!out.exists());
}
