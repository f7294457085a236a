//! `train tokenizer`.

use std::fs;

use tempfile::tempdir;

use super::{fails, succeeds, text, tiny, train};

#[test]
fn a_tokenizer_is_trained_the_same_way_twice_and_used() {
    let dir = tempdir().unwrap();
    let code = dir.path().join("code");
    fs::create_dir(&code).unwrap();
    for index in 0..40 {
        fs::write(code.join(format!("{index}.py")), gossamer::text::python::document(5, index)).unwrap();
    }
    let [a, b] = ["a.json", "b.json"].map(|name| dir.path().join(name));
    for out in [&a, &b] {
        let arguments = ["tokenizer", "--data", text(&code), "--vocab-size", "400", "--out", text(out)];
        let said = succeeds(&mut train(&arguments));
        assert!(said.contains("400 entries from 40 documents"), "{said}");
    }
    assert!(fs::read(&a).unwrap() == fs::read(&b).unwrap());
    let run = dir.path().join("run");
    succeeds(tiny(&run, &["model.vocab_size=400"]).args(["--tokenizer", text(&a)]));
    assert!(fs::read(run.join("tokenizer.json")).unwrap() == fs::read(&a).unwrap());
    fails(tiny(&dir.path().join("other"), &[]).args(["--tokenizer", text(&a)]), &["model.vocab_size", "400"]);
}

#[test]
fn its_errors_name_the_culprit() {
    let dir = tempdir().unwrap();
    let (empty, code, out) = (dir.path().join("empty"), dir.path().join("code.py"), dir.path().join("t.json"));
    fs::create_dir(&empty).unwrap();
    fs::write(&code, gossamer::text::python::document(5, 0)).unwrap();
    let with = |data: &std::path::Path, size: &str, out: &std::path::Path| {
        train(&["tokenizer", "--data", text(data), "--vocab-size", size, "--out", text(out)])
    };
    fails(&mut with(&dir.path().join("nosuch"), "300", &out), &["nosuch"]);
    fails(&mut with(&empty, "300", &out), &["no documents in", "empty"]);
    fails(&mut with(&code, "100", &out), &["vocab-size", "100"]);
    fails(&mut with(&code, "100000", &out), &["vocab_size", "100000"]);
    fails(&mut with(&code, "many", &out), &["--vocab-size"]);
    fails(&mut with(&code, "300", &code.join("t.json")), &["code.py"]);
    fails(&mut train(&["tokenizer"]), &["--data"]);
    assert!(!out.exists());
    succeeds(&mut with(&code, "260", &out));
}
