//! Standard output and standard error without a reader, or on a full disk.

#[cfg(target_os = "linux")]
use std::fs::File;
use std::process::{Command, Stdio};

use tempfile::tempdir;

use super::{finish, gossamer, tiny};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/circuit-example.json");

/// Exit code and standard error of a command whose standard output is a pipe without a reader.
fn unread(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    finish(child.wait_with_output().unwrap())
}

/// What a full disk looks like.
#[cfg(target_os = "linux")]
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn training_goes_on_when_its_terminal_is_gone() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    let mut child = tiny(&run, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(run.join("checkpoints/step-40/state.json").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn training_goes_on_when_its_log_has_no_room() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    let status = tiny(&run, &[]).env("RUST_LOG", "debug").stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(run.join("checkpoints/step-40/state.json").exists());
}

#[test]
fn who_stops_reading_a_result_has_seen_enough() {
    for arguments in [&["tasks", "list"][..], &["circuit", "show", EXAMPLE], &["devices"], &["--help"]] {
        assert_eq!(unread(&mut gossamer(arguments)), (Some(0), String::new()), "{arguments:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let export = ["circuit", "export", EXAMPLE, "--format", "svg"];
    for arguments in [&["tasks", "list"][..], &export, &["--help"], &["--version"]] {
        let child = gossamer(arguments).stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
        let (code, said) = finish(child.wait_with_output().unwrap());
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        assert!(said.contains("error: ") && said.contains("standard output: No space left"), "{said}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_error_that_cannot_be_told_has_its_exit_code_all_the_same() {
    for arguments in [&["check", "--device", "nosuch"][..], &["sweep", "nosuch.toml"], &["tasks", "show", "nosuch"]] {
        let status = gossamer(arguments).stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(1), "{arguments:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_sweep_goes_on_when_its_terminal_is_gone() {
    let dir = tempdir().unwrap();
    let (file, folder) = (dir.path().join("sweep.toml"), dir.path().join("jobs"));
    std::fs::write(
        &file,
        format!("command = ['sh', '-c', 'echo {{n}}']\nfolder = {folder:?}\n[product]\nn = [1, 2]\n"),
    )
    .unwrap();
    let mut child =
        gossamer(&["sweep", file.to_str().unwrap()]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(folder.join("jobs/n=2.json").exists());
}
