//! Training that continues: from a model, and by a longer schedule.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::tempdir;

use super::{assert_same_results, fails, gossamer, resume, succeeds, text, tiny, train};

/// The last line of a run's metrics.
fn last(run: &Path) -> Value {
    let lines = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    serde_json::from_str(lines.lines().last().expect("a line")).expect("JSON")
}

#[test]
fn a_run_continues_by_a_longer_schedule_in_a_folder_of_its_own() {
    let dir = tempdir().expect("a folder");
    let run = dir.path().join("run");
    succeeds(&mut tiny(&run, &[]));
    let before = fs::read(run.join("config.toml")).expect("settings");
    let said = succeeds(train(&["--resume", text(&run), "--steps", "60"]).current_dir(dir.path()));
    assert!(said.contains("resumed     at step 40"), "{said}");
    let longer = dir.path().join("run-60");
    let lines = fs::read_to_string(longer.join("metrics.jsonl")).expect("metrics");
    let steps: Vec<u64> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["step"].as_u64().expect("a step"))
        .collect();
    assert_eq!(steps, (1..=60).collect::<Vec<_>>());
    // Densities stay at their targets; of the learning rate, a third of the way remains.
    assert_eq!(last(&longer)["density"], 0.0625);
    let first: Value = serde_json::from_str(lines.lines().nth(40).expect("step 41")).expect("JSON");
    assert!((first["lr"].as_f64().expect("a rate") - 0.04 * 20.0 / 60.0).abs() < 1e-12, "{first}");
    // The run that it continues is as it was, and the new one can be stopped and resumed.
    assert_eq!(fs::read(run.join("config.toml")).expect("settings"), before);
    assert!(!run.join("checkpoints/step-60").exists());
    let again = dir.path().join("again");
    succeeds(&mut train(&["--resume", text(&run), "--steps", "60", "--out", text(&again)]));
    fs::remove_dir_all(again.join("checkpoints/step-60")).expect("removed");
    succeeds(&mut resume(&again));
    assert_same_results(&longer, &again, 60);
}

#[test]
fn continuing_refuses_what_cannot_be_meant() {
    let dir = tempdir().expect("a folder");
    let run = dir.path().join("run");
    succeeds(&mut tiny(&run, &[]));
    let longer = |more: &[&str]| train(&[&["--resume", text(&run)], more].concat());
    fails(&mut longer(&["--steps", "40"]), &["step-40", "has done 40 steps already"]);
    fails(&mut longer(&["--out", "elsewhere"]), &["--out needs --steps"]);
    let full = dir.path().join("full");
    fs::create_dir(&full).expect("a folder");
    fs::write(full.join("notes"), "mine").expect("written");
    fails(&mut longer(&["--steps", "50", "--out", text(&full)]), &["full: is not empty"]);
    fails(&mut train(&["--resume", text(&full), "--steps", "50"]), &["holds no run to resume"]);
    fails(&mut longer(&["--init", "model"]), &["cannot be used with"]);
}

#[test]
fn a_sparse_model_keeps_its_density_and_learns_on() {
    let dir = tempdir().expect("a folder");
    let (run, on) = (dir.path().join("run"), dir.path().join("on"));
    succeeds(&mut tiny(&run, &[]));
    let settings =
        ["--set", "steps=5 checkpoint_every=5 log_every=1 norms_every=1 samples=0 tasks=false device=cpu lr=0.001"];
    let more = ["--set", "generated_documents=90 val_fraction=0.1 batch_size=4", "--seed", "3"];
    let arguments = [&["--init", text(&run), "--out", text(&on)][..], &settings, &more].concat();
    succeeds(&mut train(&arguments));
    let config = fs::read_to_string(on.join("config.toml")).expect("settings");
    let from = run.canonicalize().expect("a path").join("checkpoints/step-40");
    assert!(config.contains(&format!("init = \"{}\"", text(&from))), "{config}");
    assert!(config.contains("d_model = 16") && config.contains("initial_density = 0.0625"), "{config}");
    assert_eq!(last(&on)["nonzeros"], last(&run)["nonzeros"]);
    assert!(last(&on)["grad_norm/lm_head.weight"].as_f64().expect("a norm") > 0.0);
    // Not from random weights: the loss begins where the model's ended.
    let first = |run: &Path| -> f64 {
        let lines = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
        let line: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
        line["loss"].as_f64().expect("a loss")
    };
    let ended = last(&run)["loss"].as_f64().expect("a loss");
    assert!((first(&on) - ended).abs() < 0.7 && first(&on) < first(&run) - 0.5, "{} {ended}", first(&on));
}

#[test]
fn a_dense_folder_is_made_sparse() {
    let dir = tempdir().expect("a folder");
    let (run, folder, on) = (dir.path().join("run"), dir.path().join("folder"), dir.path().join("on"));
    succeeds(&mut tiny(&run, &["target_density=1.0", "embed_target_density=1.0", "afrac=none"]));
    succeeds(&mut gossamer(&["convert", text(&run), text(&folder)]));
    let settings = "steps=10 log_every=1 samples=0 tasks=false device=cpu target_density=0.1 generated_documents=60 batch_size=4 \
                    val_fraction=0.1 eval_every=0";
    succeeds(&mut train(&["--init", text(&folder), "--out", text(&on), "--set", settings]));
    let config = fs::read_to_string(on.join("config.toml")).expect("settings");
    assert!(config.contains("initial_density = 1.0") && config.contains("target_density = 0.1"), "{config}");
    assert_eq!(last(&on)["density"], 0.1);
    // Another shape than the model's.
    let wider = ["--init", text(&folder), "--out", "wider", "--set", "d_model=32"];
    fails(&mut train(&wider), &["model.d_model", "is 32", "which training starts from, has 16"]);
    fs::remove_file(folder.join("tokenizer.json")).expect("removed");
    fails(&mut train(&["--init", text(&folder), "--out", "none"]), &["comes without a tokenizer", "--tokenizer"]);
}
