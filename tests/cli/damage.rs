//! Checkpoints and tokenizers that are damaged or of another model; training that diverges.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::tempdir;

use super::{assert_same_results, contents, fails, resume, succeeds, text, tiny, train};

/// A finished run.
fn finished(folder: &Path, name: &str, settings: &[&str]) -> PathBuf {
    let run = folder.join(name);
    succeeds(&mut tiny(&run, settings));
    run
}

#[test]
fn a_damaged_checkpoint_is_named_and_nothing_is_deleted() {
    let dir = tempdir().unwrap();
    let run = finished(dir.path(), "run", &[]);
    let newest = run.join("checkpoints/step-40");
    let foreign = finished(dir.path(), "foreign", &["d_mlp=48"]).join("checkpoints/step-40");

    let truncated = |name: &str, keep: usize| {
        let bytes = fs::read(newest.join(name)).unwrap();
        (name.to_string(), bytes[..bytes.len() * keep / 10].to_vec())
    };
    let borrowed = |name: &str| (name.to_string(), fs::read(foreign.join(name)).unwrap());
    let nonsense = |name: &str, text: &str| (name.to_string(), text.as_bytes().to_vec());
    let mut damages = Vec::new();
    for name in ["model.safetensors", "optimizer.safetensors", "state.json", "config.json"] {
        damages.extend([truncated(name, 0), truncated(name, 5), truncated(name, 9)]);
    }
    damages.extend(["model.safetensors", "optimizer.safetensors", "config.json"].map(borrowed));
    damages.push(nonsense("config.json", "[1, 2]"));
    damages.push(nonsense("config.json", "{\"d_model\": \"wide\"}"));
    damages.push(nonsense("config.json", "{\"d_model\": 1000000000000}"));
    damages.push(nonsense(
        "state.json",
        "{\"version\": 99, \"step\": 40, \"steps\": 40, \"corpus\": \"\", \"tokenizer\": \"\"}",
    ));
    damages.push(nonsense(
        "state.json",
        "{\"version\": 1, \"step\": 7, \"steps\": 9, \"corpus\": \"\", \"tokenizer\": \"\"}",
    ));
    for (name, bytes) in damages {
        let path = newest.join(&name);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        let before = contents(&run);
        let said = fails(&mut resume(&run), &["step-40"]);
        // Which of two files that contradict each other is wrong cannot be known.
        assert!(said.contains(&name) || said.contains("model.safetensors") || said.contains("config.json"), "{said}");
        assert!(contents(&run) == before, "{name}: something was changed or deleted");
        fs::write(&path, whole).unwrap();
    }
    for name in ["model.safetensors", "optimizer.safetensors", "state.json", "config.json"] {
        let aside = dir.path().join(name);
        fs::rename(newest.join(name), &aside).unwrap();
        fails(&mut resume(&run), &[name]);
        fs::rename(aside, newest.join(name)).unwrap();
    }

    // Without the damaged one, the run continues from the one before, to the same end.
    let whole = finished(dir.path(), "whole", &[]);
    fs::remove_dir_all(&newest).unwrap();
    let said = succeeds(&mut resume(&run));
    assert!(said.contains("at step 35"), "{said}");
    assert_same_results(&run, &whole, 40);
}

#[test]
fn a_folder_is_resumed_only_with_a_run_and_begun_only_without() {
    let dir = tempdir().unwrap();
    let run = finished(dir.path(), "run", &[]);
    let before = contents(&run);
    fails(&mut tiny(&run, &[]), &[text(&run), "already there", "--resume", "--out"]);
    assert!(contents(&run) == before);

    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fails(&mut resume(&empty), &[text(&empty), "no run to resume"]);
    fails(&mut resume(&dir.path().join("nosuch")), &["nosuch", "no run to resume"]);
    fails(resume(&run).args(["--seed", "1"]), &["--seed"]);
    let settings = fs::read_to_string(run.join("config.toml")).unwrap();
    for (damaged, culprit) in [
        (settings.replace("batch_size", "batchsize"), "batchsize"),
        (settings.replace("\nlr = ", "\nlr = -"), "lr"),
        (settings.replace("steps = 40", "steps = 41"), "config.toml says 41"),
        (settings.replace("d_mlp = 32", "d_mlp = 33"), "config.json"),
        (String::new(), "config.toml"),
    ] {
        assert!(damaged != settings);
        fs::write(run.join("config.toml"), damaged).unwrap();
        fails(&mut resume(&run), &[culprit]);
    }
}

#[test]
fn a_tokenizer_that_does_not_fit_is_refused() {
    let dir = tempdir().unwrap();
    let run = finished(dir.path(), "run", &[]);
    let own = fs::read_to_string(run.join("tokenizer.json")).unwrap();
    let other_size = finished(dir.path(), "other-size", &["vocab_size=290"]).join("tokenizer.json");
    let other_text = finished(dir.path(), "other-text", &["generated_documents=40"]).join("tokenizer.json");
    let out = dir.path().join("out");
    fails(tiny(&out, &[]).args(["--tokenizer", text(&other_size)]), &["model.vocab_size", "300", "290"]);
    fails(tiny(&out, &[]).args(["--tokenizer", text(&dir.path().join("none.json"))]), &["none.json"]);
    let damaged = dir.path().join("damaged.json");
    for contents in [&own[..own.len() / 2], "", "{}", "[]", "null", &own.replace("\"BPE\"", "\"Unigram\"")] {
        fs::write(&damaged, contents).unwrap();
        fails(tiny(&out, &[]).args(["--tokenizer", text(&damaged)]), &["damaged.json"]);
    }
    assert!(!out.exists());

    for foreign in [fs::read_to_string(other_size).unwrap(), fs::read_to_string(other_text).unwrap(), "{".into()] {
        assert!(foreign != own);
        fs::write(run.join("tokenizer.json"), foreign).unwrap();
        fails(&mut resume(&run), &["tokenizer.json"]);
    }
    fs::write(run.join("tokenizer.json"), own).unwrap();
    succeeds(&mut resume(&run));
}

#[test]
fn numbers_that_are_not_finite_stop_the_run_and_keep_the_last_good_checkpoint() {
    for device in ["cpu", "gpu"] {
        let dir = tempdir().unwrap();
        let run = dir.path().join("run");
        // The first step's rate is 0, and its checkpoint good; the second's ruins the weights,
        // which must not displace it.
        let settings = ["lr=1e30", "warmup_frac=0.5", "checkpoint_every=1", "keep_checkpoints=1"];
        let said = fails(tiny(&run, &settings).args(["--device", device]), &["not finite", "last good checkpoint"]);
        assert!(said.contains("error: step 2: loss") || said.contains("error: step 2: the gradient of "), "{said}");
        let kept = contents(&run.join("checkpoints"));
        assert_eq!(kept.len(), 4);
        assert!(kept.keys().all(|path| path.parent().is_some_and(|p| p.ends_with("step-1"))), "{:?}", kept.keys());
        let said = fails(&mut resume(&run), &["resumed     at step 1", "not finite"]);
        assert!(said.contains("step 2"), "{said}");
        assert!(contents(&run.join("checkpoints")) == kept);
    }
}

#[test]
fn a_rate_beyond_single_precision_is_refused() {
    let dir = tempdir().unwrap();
    for (setting, key) in [("lr=1e300", "train.lr"), ("weight_decay=1e300", "train.weight_decay")] {
        fails(&mut tiny(&dir.path().join(setting), &[setting]), &[key, "is not a number"]);
    }
    fails(&mut train(&["--set", "lr=1e400", "--out", text(&dir.path().join("run"))]), &["train.lr"]);
}
