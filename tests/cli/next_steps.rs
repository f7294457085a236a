//! What `train` says at its end.

use std::fs;
use std::process::Command;

use tempfile::tempdir;

use crate::{succeeds, text, tiny};

#[test]
fn a_run_ends_with_what_the_model_does_and_what_to_try() {
    let folder = tempdir().unwrap();
    let run = folder.path().join("run");
    let said = succeeds(&mut tiny(&run, &["tasks=true"]));
    // Forty steps teach nothing, so there is no circuit to look for.
    assert!(said.contains("\ntasks       0 of 20 done, at least 9 of 10 times: none\n"), "{said}");
    assert!(!said.contains("--- the circuit") && !run.join("circuits").exists(), "{said}");
    // The commands are those of the program next to this one.
    let gossamer = env!("CARGO_BIN_EXE_gossamer");
    let command = said.lines().find(|line| line.contains(" run ") && line.contains("--prompt")).unwrap().trim();
    let name = command.split(" run ").next().unwrap();
    assert!(gossamer.ends_with(name.trim_matches('\'')), "{command}");
    let output = succeeds(Command::new("sh").current_dir(env!("CARGO_MANIFEST_DIR")).args(["-c", command]));
    assert!(output.contains("token"), "{output}");
}

#[test]
fn train_under_the_name_gossamer_is_that_program() {
    let folder = tempdir().unwrap();
    let program = folder.path().join(format!("gossamer{}", std::env::consts::EXE_SUFFIX));
    fs::copy(env!("CARGO_BIN_EXE_train"), &program).unwrap();
    let out = folder.path().join("example");
    succeeds(Command::new(&program).args(["example", "--out", text(&out)]));
    assert!(out.join("model.safetensors").exists());
}
