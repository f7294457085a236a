//! Checkpoints that are damaged, gone back to, or made with other settings.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use super::{assert_same_results, fails, gossamer, results, resume, succeeds, text, tiny};

/// A finished run of forty steps with all its checkpoints.
fn run(settings: &[&str]) -> (TempDir, PathBuf) {
    let dir = tempdir().expect("a folder");
    let run = dir.path().join("run");
    succeeds(tiny(&run, &["keep_checkpoints=0"]).args(settings.iter().flat_map(|setting| ["--set", setting])));
    (dir, run)
}

fn step(run: &Path, step: u64) -> PathBuf {
    run.join(format!("checkpoints/step-{step}"))
}

/// Changes the text of a file.
#[track_caller]
fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).expect("a text");
    assert!(text.contains(from), "no {from:?} in {text}");
    fs::write(file, text.replace(from, to)).expect("written");
}

/// Makes a checkpoint one of an earlier version, which knew neither checksums nor settings.
fn made_earlier(checkpoint: &Path) {
    let file = checkpoint.join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&file).expect("a state")).expect("JSON");
    let fields = state.as_object_mut().expect("fields");
    assert!(fields.remove("checksums").is_some() && fields.remove("settings").is_some());
    fs::write(&file, state.to_string()).expect("written");
}

/// Writes `value` over the number at `index` of a tensor of a safetensors file.
fn overwrite(file: &Path, tensor: &str, index: usize, value: f32) {
    let mut bytes = fs::read(file).expect("a file");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let json: Value = serde_json::from_slice(&bytes[8..8 + header]).expect("a header");
    let begin = json[tensor]["data_offsets"][0].as_u64().expect("a place") as usize;
    let at = 8 + header + begin + 4 * index;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    fs::write(file, bytes).expect("written");
}

#[test]
fn a_run_goes_on_from_any_checkpoint_to_the_same_bytes() {
    let (dir, run) = run(&[]);
    let whole = dir.path().join("whole");
    succeeds(&mut tiny(&whole, &["keep_checkpoints=0"]));
    let said = succeeds(&mut resume(&step(&run, 20)));
    assert!(said.contains("resumed     at step 20"), "{said}");
    assert_same_results(&run, &whole, 40);
    // What came after it is aside, whole, and out of the way.
    for later in [25, 30, 35, 40] {
        assert!(run.join(format!("checkpoints/aside/step-{later}/model.safetensors")).exists(), "{later}");
    }
    assert!(!run.join("checkpoints/aside/step-20").exists());
    let kept = fs::read_to_string(run.join("checkpoints/aside/metrics-step-40.jsonl")).unwrap();
    assert!(kept.lines().count() >= 40, "{kept}");
    // A second time, from inside, with a name that is taken there.
    let mut inside = resume(Path::new("step-35"));
    succeeds(inside.current_dir(run.join("checkpoints")));
    assert!(run.join("checkpoints/aside/step-40-2/state.json").exists());
    assert_same_results(&run, &whole, 40);
    fails(&mut resume(&step(&run, 7)), &["no checkpoint step-7", "step-5, step-10", "step-40"]);
}

#[test]
fn a_damaged_newest_checkpoint_names_the_newest_whole_one_and_the_way_on() {
    let (dir, run) = run(&[]);
    let whole = dir.path().join("whole");
    succeeds(&mut tiny(&whole, &["keep_checkpoints=0"]));
    // Two that are damaged: one cut off, one with a single bit turned over, which still reads as a
    // number.
    let cut = step(&run, 40).join("optimizer.safetensors");
    let bytes = fs::read(&cut).expect("a file");
    fs::write(&cut, &bytes[..bytes.len() / 2]).expect("written");
    let turned = step(&run, 35).join("model.safetensors");
    let mut bytes = fs::read(&turned).expect("a file");
    *bytes.last_mut().expect("a byte") ^= 1;
    fs::write(&turned, bytes).expect("written");

    let way = format!("train --resume {}", text(&step(&run, 30)));
    fails(&mut resume(&run), &[text(&cut), "newest whole checkpoint", &way]);
    fails(&mut resume(&step(&run, 35)), &[text(&turned), "checksum", &way]);
    succeeds(&mut resume(&step(&run, 30)));
    assert_same_results(&run, &whole, 40);
}

#[test]
fn a_run_whose_newest_checkpoint_does_not_open_names_the_newest_that_does() {
    let (_dir, run) = run(&[]);
    let weights = step(&run, 40).join("model.safetensors");
    fs::write(&weights, &fs::read(&weights).expect("a file")[..100]).expect("written");
    let earlier = step(&run, 35);
    for command in [["generate", text(&run), "--device", "cpu", "--prompt", "x"].as_slice(), &["inspect", text(&run)]] {
        fails(&mut gossamer(command), &[text(&weights), "newest whole checkpoint", text(&earlier)]);
    }
    succeeds(&mut gossamer(&["inspect", text(&earlier)]));
}

#[test]
fn settings_that_were_changed_are_named_with_both_values() {
    let (_dir, run) = run(&["sparsity.target_density=0.25"]);
    let settings = run.join("config.toml");
    let whole = fs::read_to_string(&settings).expect("settings");
    for (from, to, said) in [
        ("\ntarget_density = 0.25", "\ntarget_density = 0.125", ["sparsity.target_density = 0.25", "says 0.125"]),
        ("seed = 0", "seed = 5", ["run.seed = 0", "says 5"]),
        ("beta2 = 0.95", "beta2 = 0.9", ["train.beta2 = 0.95", "says 0.9"]),
    ] {
        fs::write(&settings, &whole).expect("written");
        edit(&settings, from, to);
        let said = fails(&mut resume(&run), &[said[0], said[1], "config.toml"]);
        assert!(!said.contains("newest whole checkpoint"), "none fits those settings: {said}");
    }
    // What says only how the run is watched may change.
    fs::write(&settings, &whole).expect("written");
    edit(&settings, "log_every = 1", "log_every = 2");
    succeeds(&mut resume(&run));
}

#[test]
fn a_checkpoint_without_checksums_is_checked_by_its_numbers() {
    let (_dir, run) = run(&["sparsity.target_density=0.25"]);
    let newest = step(&run, 40);
    made_earlier(&newest);
    let before = results(&run, 40);
    // The first of these may be a zero that damage made another number, or a density that was
    // lowered.
    edit(&run.join("config.toml"), "\ntarget_density = 0.25", "\ntarget_density = 0.125");
    let hidden = ["model.safetensors", "transformer.h.0.attn.c_attn.weight", "sparsity.target_density", "config.toml"];
    fails(&mut resume(&run), &hidden);
    edit(&run.join("config.toml"), "\ntarget_density = 0.125", "\ntarget_density = 0.25");
    for (file, tensor, name) in [
        ("model.safetensors", "transformer.ln_f.weight", "transformer.ln_f.weight holds NaN"),
        ("optimizer.safetensors", "v.transformer.wte.weight", "v.transformer.wte.weight holds NaN"),
    ] {
        let path = newest.join(file);
        let whole = fs::read(&path).expect("a file");
        overwrite(&path, tensor, 3, f32::NAN);
        fails(&mut resume(&run), &[text(&path), name, "newest whole checkpoint", "step-35"]);
        fs::write(&path, whole).expect("written");
    }
    succeeds(&mut resume(&run));
    assert!(results(&run, 40) == before);
}

#[test]
fn a_state_that_is_of_another_step_or_torn_is_named() {
    let (_dir, run) = run(&[]);
    let state = step(&run, 40).join("state.json");
    let whole = fs::read_to_string(&state).expect("a state");
    for (from, to) in [("\"step\": 40", "\"step\": 39"), ("\"step\": 40", "\"step\": 41"), ("{", "")] {
        edit(&state, from, to);
        fails(&mut resume(&run), &["step-40/state.json", "step-35"]);
        fs::write(&state, &whole).expect("written");
    }
}

#[test]
fn a_tokenizer_that_is_gone_or_exchanged_is_named_before_a_corpus_is_made() {
    let (dir, run) = run(&[]);
    let tokenizer = run.join("tokenizer.json");
    let own = fs::read(&tokenizer).expect("a tokenizer");
    fs::remove_file(&tokenizer).expect("removed");
    fails(&mut resume(&run), &["tokenizer.json", "is missing", "put that file back"]);
    let other = dir.path().join("other");
    succeeds(&mut tiny(&other, &["generated_documents=40"]));
    let corpora = || fs::read_dir(dir.path().join("cache")).expect("a cache").count();
    let before = corpora();
    fs::copy(other.join("tokenizer.json"), &tokenizer).expect("copied");
    fails(&mut resume(&run), &["tokenizer.json", "is not the tokenizer of this run's checkpoints"]);
    assert_eq!(corpora(), before, "a corpus was made with a foreign tokenizer");
    fs::write(&tokenizer, own).expect("written");
    succeeds(&mut resume(&run));
}

#[test]
fn metrics_that_end_in_half_a_line_are_gone_on_with() {
    let (dir, run) = run(&[]);
    let whole = dir.path().join("whole");
    succeeds(&mut tiny(&whole, &["keep_checkpoints=0"]));
    let path = run.join("metrics.jsonl");
    let mut log = fs::read(&path).expect("metrics");
    log.truncate(log.len() - 20);
    fs::write(&path, &log).expect("written");
    succeeds(&mut resume(&step(&run, 35)));
    assert_same_results(&run, &whole, 40);
}
