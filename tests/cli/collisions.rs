//! Processes that want the same folder, and what killed ones leave.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::tempdir;

use super::{TINY, assert_same_results, fails, finish, gossamer, resume, succeeds, text, tiny, train};

/// A run without `--out`, started in `folder`.
fn nameless(folder: &Path) -> Command {
    let mut command = train(&[]);
    command.args(TINY.iter().flat_map(|setting| ["--set", setting]));
    command.current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts `command` and waits until `ready`.
fn started(command: &mut Command, ready: impl Fn() -> bool) -> Child {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not get there");
        if child.try_wait().expect("a child").is_some() {
            let said = finish(child.wait_with_output().expect("its output"));
            panic!("it ended early: {said:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn runs_started_at_once_without_names_get_a_folder_each() {
    let (dir, whole) = (tempdir().expect("a folder"), tempdir().expect("a folder"));
    succeeds(&mut tiny(&whole.path().join("run"), &[]));
    let children: Vec<_> = (0..3).map(|_| nameless(dir.path()).spawn().expect("the binary runs")).collect();
    for child in children {
        let (code, said) = finish(child.wait_with_output().expect("its output"));
        assert_eq!(code, Some(0), "{said}");
    }
    assert_eq!(names(&dir.path().join("runs")), ["cache", "quickstart", "quickstart-2", "quickstart-3"]);
    for name in ["quickstart", "quickstart-2", "quickstart-3"] {
        assert_same_results(&dir.path().join("runs").join(name), &whole.path().join("run"), 40);
    }
    // One corpus, and neither locks nor half-written files of it.
    let kept = names(&dir.path().join("runs/cache"));
    assert!(kept.len() == 2 && kept.iter().all(|name| name.ends_with(".tokens")), "{kept:?}");
}

#[test]
fn a_nameless_run_that_fails_at_once_leaves_no_folder() {
    let dir = tempdir().expect("a folder");
    fails(nameless(dir.path()).args(["--data", text(dir.path())]), &["no documents"]);
    assert_eq!(names(&dir.path().join("runs")), Vec::<String>::new());
}

#[test]
fn a_run_under_way_is_left_alone() {
    let dir = tempdir().expect("a folder");
    let run = dir.path().join("two");
    let log = run.join("metrics.jsonl");
    let lines = || fs::read_to_string(&log).map_or(0, |text| text.lines().count());
    let mut child = started(&mut tiny(&run, &["train.steps=1000000"]), || lines() > 20);
    let who = format!("process {} is writing in this run", child.id());
    fails(&mut resume(&run), &[&who, text(&run), "--out"]);
    fails(&mut tiny(&run, &[]), &[&who, text(&run)]);
    assert!(child.try_wait().expect("a child").is_none(), "the first one ended");
    child.kill().expect("killed");
    child.wait().expect("ended");
    let before = lines();
    // A killed process holds nothing.
    let mut again = started(&mut resume(&run), || lines() > before + 20);
    again.kill().expect("killed");
    again.wait().expect("ended");
    let steps: Vec<u64> = fs::read_to_string(&log)
        .expect("metrics")
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()?["step"].as_u64())
        .collect();
    assert!(steps.windows(2).all(|pair| pair[1] == pair[0] + 1) && steps[0] == 1, "lines were lost");
}

#[test]
fn two_searches_for_one_circuit_are_not_mixed() {
    let dir = tempdir().expect("a folder");
    let run = dir.path().join("run");
    succeeds(&mut tiny(&run, &["train.steps=1"]));
    let circuits = run.join("circuits");
    fs::create_dir(&circuits).expect("created");
    let held = fs::File::create(circuits.join(".single_double_quote.lock")).expect("created");
    held.lock().expect("locked");
    fs::write(circuits.join(".single_double_quote.lock"), "4242 elsewhere\n").expect("signed");
    let search = ["circuit", text(&run), "--device", "cpu", "--mean-tokens", "64", "--task", "single_double_quote"];
    let culprits = ["single_double_quote.json", "process 4242 on elsewhere is searching for this circuit"];
    fails(&mut train(&search), &culprits);
}

#[test]
fn an_empty_folder_can_be_begun_in() {
    let dir = tempdir().expect("a folder");
    succeeds(&mut tiny(dir.path(), &["train.steps=2"]));
    assert!(dir.path().join("checkpoints/step-2/state.json").exists());
    assert!(!dir.path().join(".lock").exists());
}

#[test]
fn what_killed_processes_left_in_the_cache_goes_and_what_lives_stays() {
    let dir = tempdir().expect("a folder");
    let cache = dir.path().join("cache");
    fs::create_dir(&cache).expect("created");
    let dead = [
        ".0f3a.train.tokens.4242-1.tmp",
        ".tmp-gossamer-4242-0",
        ".tmp-0f3a.train.tokens-4242",
        ".tmp-gossamer-0f3a.lock",
    ];
    dead.iter().for_each(|name| fs::write(cache.join(name), "torn").expect("written"));
    let living = fs::File::create(cache.join(".tmp-gossamer-4242-7")).expect("created");
    living.lock().expect("locked");
    succeeds(&mut tiny(&dir.path().join("run"), &["train.steps=1"]));
    let kept = names(&cache);
    assert!(dead.iter().all(|name| !kept.iter().any(|kept| kept == name)), "{kept:?}");
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert_eq!(kept[0], ".tmp-gossamer-4242-7");
}

#[test]
fn a_killed_conversion_is_cleared_away_by_the_next_writer() {
    let dir = tempdir().expect("a folder");
    let run = dir.path().join("run");
    succeeds(&mut tiny(&run, &["train.steps=1", "d_model=512", "d_mlp=8192", "checkpoint_every=0"]));
    let out = dir.path().join("converted");
    let begun = || names(dir.path()).iter().any(|name| name.starts_with(".tmp-"));
    let mut child = started(&mut gossamer(&["convert", text(&run), text(&out)]), || begun() || out.exists());
    child.kill().expect("killed");
    child.wait().expect("ended");
    let circuit = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/circuit-example.json");
    let drawn = dir.path().join("circuit.svg");
    succeeds(&mut gossamer(&["circuit", "export", circuit, "--format", "svg", "--out", text(&drawn)]));
    assert!(!begun(), "{:?}", names(dir.path()));
}
