//! `gossamer plot`.

use std::fs;
use std::path::{Path, PathBuf};

use gossamer::train::config::RunConfig;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::{fails, gossamer, succeeds, text};

/// A run that logged these losses, at steps 10, 20, …, at 50 tokens a second.
fn run(folder: &Path, name: &str, settings: &[&str], losses: &[Option<f64>]) -> PathBuf {
    let run = folder.join(name);
    fs::create_dir(&run).unwrap();
    let mut config = RunConfig::preset("circuits").unwrap();
    config.set_all(settings).unwrap();
    fs::write(run.join("config.toml"), config.to_toml().unwrap()).unwrap();
    let line = |(at, loss): (usize, &Option<f64>)| {
        let step = 10 * (at + 1);
        let mut line = json!({ "step": step, "loss": loss, "tokens": 100 * step, "tokens_per_second": 50.0 });
        if at % 2 == 1 {
            line["validation_loss"] = json!(7.0);
        }
        format!("{line}\n")
    };
    fs::write(run.join("metrics.jsonl"), losses.iter().enumerate().map(line).collect::<String>()).unwrap();
    run
}

fn plot(runs: &[&PathBuf], more: &[&str]) -> std::process::Command {
    let mut command = gossamer(&["plot"]);
    command.args(runs).args(more);
    command
}

/// The rows of the curves that are drawn into `out`.
fn curves(runs: &[&PathBuf], out: &Path, more: &[&str]) -> Vec<Value> {
    let said = succeeds(plot(runs, more).args(["--json", "--out", text(out)]));
    let json: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
    json["curves"].as_array().expect("rows").clone()
}

/// A folder with runs of two learning rates and, of the second, two seeds.
fn three() -> (TempDir, [PathBuf; 3]) {
    let dir = tempdir().unwrap();
    let of = |name, settings: &[&str], losses: [f64; 3]| run(dir.path(), name, settings, &losses.map(Some));
    let runs = [
        of("a", &["lr=0.01", "seed=0", "log_every=5"], [6.0, 5.0, 4.0]),
        of("b", &["lr=0.02", "seed=0"], [6.0, 4.0, 2.0]),
        of("c", &["lr=0.02", "seed=1"], [6.0, 3.0, 1.0]),
    ];
    (dir, runs)
}

#[test]
fn curves_are_named_by_the_settings_that_differ() {
    let (dir, [a, b, c]) = three();
    let out = dir.path().join("curves.svg");
    let rows = curves(&[&a, &b, &c], &out, &[]);
    let names: Vec<_> = rows.iter().map(|row| row["curve"].as_str().unwrap()).collect();
    assert_eq!(names, ["seed 0, lr 0.01", "seed 0, lr 0.02", "seed 1, lr 0.02"]);
    assert_eq!(
        rows[1],
        json!({ "curve": names[1], "runs": 1, "points": 3, "last": 30.0, "value": 2.0, "least": 2.0, "most": 6.0 })
    );
    let svg = fs::read_to_string(&out).unwrap();
    assert!(names.iter().all(|name| svg.contains(name)) && svg.contains("loss (nats per token)"), "{svg}");
    // Three lines, and one for each in the legend.
    assert_eq!(svg.matches("<polyline").count(), 6);
    // Alike but for what changes no number: by their folders.
    let twin = run(dir.path(), "twin", &["lr=0.01", "seed=0", "log_every=10"], &[Some(1.0)]);
    let rows = curves(&[&a, &twin], &out, &[]);
    assert_eq!(rows[1]["curve"], text(&twin));
    assert_eq!(curves(&[&a], &out, &[])[0]["curve"], "");
}

#[test]
fn runs_that_differ_in_their_seed_are_one_curve_with_a_spread() {
    let (dir, [a, b, c]) = three();
    let out = dir.path().join("curves.svg");
    let rows = curves(&[&a, &b, &c], &out, &["--group-seeds"]);
    let names: Vec<_> = rows.iter().map(|row| row["curve"].as_str().unwrap()).collect();
    assert_eq!(names, ["lr 0.01", "lr 0.02; mean of 2 seeds, least to most"]);
    assert_eq!((&rows[1]["value"], &rows[1]["most"], &rows[1]["runs"]), (&json!(1.5), &json!(6.0), &json!(2)));
    let svg = fs::read_to_string(&out).unwrap();
    // The spread, and its sample in the legend.
    assert_eq!(svg.matches("fill-opacity=\"0.18\"").count(), 2);
}

#[test]
fn curves_go_over_steps_tokens_or_seconds_on_any_axes() {
    let (dir, [a, ..]) = three();
    for (x, last) in [("step", 30.0), ("tokens", 3000.0), ("seconds", 60.0)] {
        let out = dir.path().join("a.svg");
        assert_eq!(curves(&[&a], &out, &["--x", x])[0]["last"], json!(last));
    }
    for (name, start) in [("a.png", &b"\x89PNG"[..]), ("a.pdf", b"%PDF-"), ("a.svg", b"<svg")] {
        let out = dir.path().join(name);
        let rows = curves(&[&a], &out, &["--metric", "loss", "--metric", "val", "--log-x", "--log-y"]);
        assert_eq!((rows[0]["curve"].as_str(), rows[1]["curve"].as_str()), (Some("loss"), Some("validation_loss")));
        assert_eq!((&rows[1]["points"], &rows[1]["value"]), (&json!(1), &json!(7.0)));
        assert!(fs::read(&out).unwrap().starts_with(start), "{name}");
    }
    // A run that is being written ends in half a line; not every value is finite.
    let torn = run(dir.path(), "torn", &[], &[Some(2.0), None]);
    let mut log = fs::read_to_string(torn.join("metrics.jsonl")).unwrap();
    log += "{\"step\":30,\"lo";
    fs::write(torn.join("metrics.jsonl"), log).unwrap();
    assert_eq!(curves(&[&torn], &dir.path().join("a.svg"), &[])[0]["points"], json!(1));
}

#[test]
fn what_cannot_be_drawn_is_named() {
    let (dir, [a, b, _]) = three();
    let out = dir.path().join("a.svg");
    let to = ["--out", text(&out)];
    let refused = |runs: &[&PathBuf], more: &[&str], culprits: &[&str]| fails(plot(runs, more).args(to), culprits);
    refused(&[&a, &b, &dir.path().join("b/../a")], &[], &["is named twice"]);
    refused(&[&a, &dir.path().join("none")], &[], &["none", "no such folder"]);
    refused(&[&dir.path().to_path_buf()], &[], &[text(dir.path()), "not the folder of a run"]);
    refused(&[&run(dir.path(), "empty", &[], &[])], &[], &["empty", "not logged anything"]);
    refused(&[&a], &["--metric", "los"], &["los", "loss, tokens, tokens_per_second, validation_loss", text(&a)]);
    refused(&[&run(dir.path(), "nan", &[], &[None])], &[], &["nan", "no finite value"]);
    refused(&[&run(dir.path(), "zero", &[], &[Some(0.0)])], &["--log-y"], &["zero", "above 0"]);
    fs::write(b.join("metrics.jsonl"), "{}\n").unwrap();
    refused(&[&a, &b], &[], &["metrics.jsonl", "line 1"]);
    assert!(!out.exists());
    fails(plot(&[&a], &["--out", "a.jpg"]).current_dir(dir.path()), &["a.jpg", ".png, .svg, .pdf"]);
    fails(&mut plot(&[&a], &[]), &["--out"]);
    fails(&mut gossamer(&["plot", "--out", "a.png"]), &["RUN"]);
}
