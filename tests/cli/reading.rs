//! What the commands read as text and how they write tokens.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use super::{gossamer, succeeds, text, tiny, train};

/// A tiny run, and a tokenizer of 260 entries, 40 fewer than the run's model has.
fn run_and_small_tokenizer() -> (TempDir, PathBuf, PathBuf) {
    let folder = tempdir().unwrap();
    let (run, small) = (folder.path().join("run"), folder.path().join("small.json"));
    succeeds(&mut tiny(&run, &[]));
    let code = folder.path().join("code.py");
    fs::write(&code, gossamer::text::python::document(5, 0)).unwrap();
    succeeds(&mut train(&["tokenizer", "--data", text(&code), "--vocab-size", "260", "--out", text(&small)]));
    (folder, run, small)
}

fn json(arguments: &[&str]) -> Value {
    let output = gossamer(arguments).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn ids_beyond_the_tokenizer_are_written_alike() {
    let (_folder, run, small) = run_and_small_tokenizer();
    let with = ["--device", "cpu", "--tokenizer", text(&small), "--prompt", "x = "];
    let said = succeeds(gossamer(&["generate", text(&run), "--max-new-tokens", "200"]).args(with));
    let written = |n: u32| said.contains(&format!("<{n}>"));
    assert!((260..300).any(written), "{said}");
    let said = succeeds(gossamer(&["run", text(&run), "--top", "300"]).args(with));
    assert!((260..300).all(|n| said.contains(&format!("`<{n}>`"))), "{said}");
    assert!(said.contains("`x` ` ` `=` ` `"), "{said}");
    assert!(said.contains(r"`\n`"), "{said}");
}

#[test]
fn json_has_the_text_itself() {
    let (_folder, run, _) = run_and_small_tokenizer();
    let said = json(&["run", text(&run), "--device", "cpu", "--prompt", "x\n", "--top", "300", "--json"]);
    assert_eq!(said["texts"], serde_json::json!(["x", "\n"]));
    assert!(said["next"].as_array().unwrap().iter().any(|next| next["text"] == "\n"));
}

#[test]
fn special_tokens_in_prompts_are_asked_for() {
    let (_folder, run, _) = run_and_small_tokenizer();
    let tokens = |more: &[&str]| {
        let all = [&["run", text(&run), "--device", "cpu", "--prompt", "<|endoftext|>", "--json"], more].concat();
        json(&all)["tokens"].as_array().unwrap().clone()
    };
    assert!(tokens(&[]).len() > 5);
    assert_eq!(tokens(&["--special"]), [299]);
}

/// A task of `pairs` pairs of each split that a tiny run's tokenizer takes.
fn few_pairs(folder: &Path, pairs: &str) -> PathBuf {
    let path = folder.join("mine.jsonl");
    succeeds(&mut gossamer(&["tasks", "show", "var_if", "--count", pairs, "--save", text(&path)]));
    path
}

#[test]
fn a_task_with_few_pairs_is_evaluated_on_those() {
    let (folder, run, _) = run_and_small_tokenizer();
    let file = few_pairs(folder.path(), "20");
    let arguments = ["tasks", "eval", text(&run), "--device", "cpu", "--task", text(&file)];
    let said = succeeds(&mut gossamer(&arguments));
    assert!(said.contains("train pairs instead of 128") && said.contains("test pairs instead of 128"), "{said}");
    let score = json(&[&arguments[..], &["--json"]].concat())[0].clone();
    let pairs = score["train"]["pairs"].as_u64().unwrap();
    assert!((1..=20).contains(&pairs), "{score}");
    assert!(score["answers"][0]["text"].is_string() && score["answers"][0]["token"].is_u64(), "{score}");
}

#[test]
fn cropped_prompts_of_a_task_are_counted() {
    let (folder, run, _) = run_and_small_tokenizer();
    let file = few_pairs(folder.path(), "20");
    let said = succeeds(&mut gossamer(&["tasks", "eval", text(&run), "--device", "cpu", "--task", text(&file)]));
    // A block has 16 tokens, the prompts have more.
    assert!(said.contains("train prompts are cropped to their last 16 tokens"), "{said}");
}

#[test]
fn a_circuit_is_sought_with_the_pairs_there_are() {
    let (folder, run, _) = run_and_small_tokenizer();
    let file = few_pairs(folder.path(), "20");
    let out = folder.path().join("circuits");
    let fixed = ["circuit", text(&run), "--device", "cpu", "--mean-tokens", "512", "--set", "steps=3"];
    let mut command = train(&fixed);
    let said = succeeds(command.args(["--target-loss", "0.7", "--task", text(&file), "--out", text(&out)]));
    assert!(said.contains("note: mine: all") && out.join("mine.json").exists(), "{said}");
    let circuit = out.join("mine.json");
    crate::measure::plant_nodes(&circuit);
    for verb in ["stats", "binarise"] {
        let fixed = ["circuit", verb, text(&circuit), "--model", text(&run), "--device", "cpu"];
        let said = succeeds(gossamer(&fixed).args(["--task", text(&file)]));
        assert!(said.contains("note: all"), "{verb}: {said}");
    }
}

#[test]
fn nothing_is_run_for_a_task_without_usable_pairs() {
    let (folder, run, _) = run_and_small_tokenizer();
    let file = folder.path().join("mine.jsonl");
    let line = r#"{"positive": "x", "negative": "y", "target": "not one token", "alternative": "("}"#;
    fs::write(&file, [line; 10].join("\n")).unwrap();
    let out = folder.path().join("circuits");
    let mut command = train(&["circuit", text(&run), "--device", "cpu", "--task", text(&file), "--out", text(&out)]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("is not a single token"), "{said}");
    assert!(!out.join("means.safetensors").exists(), "means were taken for nothing");
}

#[test]
fn settings_and_models_may_begin_with_a_byte_order_mark() {
    let folder = tempdir().unwrap();
    let (config, run) = (folder.path().join("c.toml"), folder.path().join("run"));
    fs::write(&config, "\u{feff}[train]\nwarmup_frac = 0.0\n").unwrap();
    succeeds(tiny(&run, &[]).args(["--config", text(&config)]));
    let path = run.join("checkpoints/step-40/config.json");
    let json = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("\u{feff}{json}")).unwrap();
    succeeds(&mut gossamer(&["generate", text(&run), "--device", "cpu", "--max-new-tokens", "1"]));
}

#[test]
fn data_says_how_many_documents_were_divided_and_skipped() {
    let folder = tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let story = |n: u64| gossamer::text::python::document(5, n);
    let stories: Vec<String> = (0..40).map(story).collect();
    fs::write(data.join("stories.txt"), stories.join("<|endoftext|>\n") + "<|endoftext|>\n").unwrap();
    fs::write(data.join("lines.jsonl"), "{\"text\": null}\n{\"text\": \"\\ud800\"}\n{\"text\": \"fine\"}\n{\n")
        .unwrap();
    let said = succeeds(tiny(&folder.path().join("run"), &[]).args(["--data", text(&data)]));
    for part in ["41 documents (40 <|endoftext|> between them)", "1 skipped that have no string in the text field"] {
        assert!(said.contains(part), "{said}");
    }
    for reason in ["1 skipped that have half of a surrogate pair", "1 skipped that are not JSON objects"] {
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn evaluation_says_what_it_skipped() {
    let (folder, run, _) = run_and_small_tokenizer();
    let data = folder.path().join("lines.jsonl");
    fs::write(&data, "{\"text\": null}\n{\"text\": \"x = 1\\ny = 2\\n\"}\n{\n").unwrap();
    let eval = |data: &Path| gossamer(&["eval", text(&run), "--device", "cpu", "--data", text(data)]);
    let said = succeeds(&mut eval(&data));
    assert!(
        said.contains("note: 1 skipped that are not JSON objects, 1 skipped that have no string in the text field"),
        "{said}"
    );
    fs::write(&data, "{\"text\": null}\n").unwrap();
    super::fails(&mut eval(&data), &["lines.jsonl", "1 skipped that have no string in the text field"]);
}

/// The most memory that a command had, in bytes.
#[cfg(target_os = "linux")]
fn peak(command: &mut std::process::Command) -> u64 {
    let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
    let (status, mut peak) = (format!("/proc/{}/status", child.id()), 0);
    while child.try_wait().unwrap().is_none() {
        let said = fs::read_to_string(&status).unwrap_or_default();
        let line = said.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = kib.map_or(peak, |kib| 1024 * kib);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(child.wait().unwrap().success());
    peak
}

#[test]
#[cfg(target_os = "linux")]
fn memory_for_one_long_line_is_bounded() {
    let folder = tempdir().unwrap();
    let data = folder.path().join("line.txt");
    let line: String = (0..120).map(|n| gossamer::text::python::document(5, n).replace('\n', " ")).collect();
    fs::write(&data, line.repeat(4_000_000 / line.len())).unwrap();
    // 200 bytes a byte would be 0.8 GB.
    let bytes = peak(tiny(&folder.path().join("run"), &[]).args(["--data", text(&data)]));
    assert!(bytes > 0 && bytes < 300 << 20, "{} MiB", bytes >> 20);
}
