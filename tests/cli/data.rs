//! What is read: missing, empty, not text, or changed behind the run's back.

use std::fs;

use tempfile::tempdir;

use super::{contents, fails, resume, succeeds, text, tiny};

/// Python enough for a vocabulary of 300.
fn program(seed: u64) -> String {
    (0..20).map(|index| gossamer::text::python::document(seed, index)).collect()
}

#[test]
fn data_that_cannot_be_used_is_named() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("run");
    let missing = dir.path().join("missing");
    fails(tiny(&out, &[]).args(["--data", text(&missing)]), &[text(&missing)]);

    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fails(tiny(&out, &[]).args(["--data", text(&empty)]), &["no documents", "empty"]);

    let binary = dir.path().join("binary");
    fs::create_dir(&binary).unwrap();
    fs::write(binary.join("a.py"), b"x = '\xff\xfe'\n").unwrap();
    fails(tiny(&out, &[]).args(["--data", text(&binary)]), &["no documents", "binary", "UTF-8"]);

    let image = dir.path().join("image.png");
    fs::write(&image, "not text").unwrap();
    fails(tiny(&out, &[]).args(["--data", text(&image)]), &["image.png"]);

    let short = dir.path().join("short.txt");
    fs::write(&short, "x = 1\n").unwrap();
    fails(tiny(&out, &[]).args(["--data", text(&short)]), &["vocab_size"]);
    assert!(!out.exists(), "a refused run wrote something");
}

#[test]
fn a_start_that_its_data_stops_can_be_corrected_and_repeated() {
    let dir = tempdir().unwrap();
    let (first, out, stories) = (dir.path().join("first"), dir.path().join("run"), dir.path().join("a.jsonl"));
    succeeds(&mut tiny(&first, &[]));
    let story = |seed| serde_json::json!({ "story": program(seed) }).to_string();
    fs::write(&stories, (0..8).map(story).collect::<Vec<_>>().join("\n")).unwrap();
    let tokenizer = first.join("tokenizer.json");
    let train = |field: &str| {
        let mut command = tiny(&out, &[]);
        command.args(["--data", text(&stories), "--tokenizer", text(&tokenizer), "--text-field", field]);
        command
    };
    fails(&mut train("nope"), &["no documents", "nope"]);
    succeeds(&mut train("story"));
}

#[test]
fn files_that_are_not_utf8_are_skipped_and_counted() {
    let dir = tempdir().unwrap();
    let (mixed, out) = (dir.path().join("mixed"), dir.path().join("run"));
    fs::create_dir(&mixed).unwrap();
    for index in 0..4 {
        fs::write(mixed.join(format!("good-{index}.py")), program(index)).unwrap();
    }
    fs::write(mixed.join("bad-1.py"), b"x = '\xff'\n").unwrap();
    fs::write(mixed.join("bad-2.txt"), b"\xc3\x28").unwrap();
    for note in ["", "(cached)"] {
        let out = out.join(format!("run{}", note.len()));
        let said = succeeds(tiny(&out, &[]).args(["--data", text(&mixed)]));
        assert!(said.contains("4 documents") && said.contains("2 skipped that are not UTF-8") && said.contains(note));
    }
}

#[test]
fn data_that_changed_since_is_refused() {
    let dir = tempdir().unwrap();
    let (folder, out) = (dir.path().join("code"), dir.path().join("run"));
    fs::create_dir(&folder).unwrap();
    for index in 0..3 {
        fs::write(folder.join(format!("{index}.py")), program(index)).unwrap();
    }
    succeeds(tiny(&out, &[]).args(["--data", text(&folder)]));
    let before = contents(&out.join("checkpoints"));
    fs::write(folder.join("2.py"), program(9)).unwrap();
    fails(&mut resume(&out), &["state.json", "the data is no longer what this run was trained on"]);
    fs::remove_dir_all(&folder).unwrap();
    fails(&mut resume(&out), &["code"]);
    assert!(contents(&out.join("checkpoints")) == before);
}
