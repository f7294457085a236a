//! SIGINT, SIGTERM and SIGHUP, at every stage: what there is to save is saved, and the exit code
//! tells.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::tempdir;

use super::{TINY, fails, finish, gossamer, succeeds, text, tiny, train};

/// How long a process may run after a signal.
const SOON: Duration = Duration::from_secs(2);
/// Settings of a run that does not end without a signal.
const ENDLESS: [&str; 3] = ["train.steps=10000000", "warmup_frac=0.0000001", "checkpoint_every=0"];

fn send(signal: &str, process: &str) {
    assert!(Command::new("kill").args([signal, "--", process]).status().unwrap().success());
}

fn logged(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |log| log.lines().count())
}

fn until(what: &str, ready: impl Fn() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(100), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Starts a command and waits for a line on its standard error that begins with `line`.
fn at_line(command: &mut Command, line: &str) -> Child {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|said| said.starts_with(line)), "it never says {line}");
    // The other end keeps reading.
    std::thread::spawn(move || lines.for_each(drop));
    child
}

/// Sends a signal, and returns the exit code of a process that must end soon.
fn ended(mut child: Child, signal: &str) -> Option<i32> {
    send(signal, &child.id().to_string());
    let start = Instant::now();
    let code = child.wait().unwrap().code();
    assert!(start.elapsed() < SOON, "took {:?}", start.elapsed());
    code
}

#[test]
fn a_training_saves_and_its_exit_code_names_the_signal() {
    let dir = tempdir().unwrap();
    for (signal, code) in [("-HUP", 129), ("-INT", 130), ("-TERM", 143)] {
        let run = dir.path().join(signal);
        let child = tiny(&run, &ENDLESS).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("seven steps", || logged(&run) >= 7);
        send(signal, &child.id().to_string());
        let (got, said) = finish(child.wait_with_output().unwrap());
        assert_eq!(got, Some(code), "{said}");
        let steps = logged(&run);
        assert!(run.join(format!("checkpoints/step-{steps}/state.json")).exists(), "{said}");
        assert!(said.contains(&format!("stopped at step {steps}; continue with: train --resume ")), "{said}");
    }
}

#[test]
fn a_hangup_that_is_ignored_as_under_nohup_stays_so() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    let training = tiny(&run, &["train.steps=150"]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(training.get_program()).args(training.get_args());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("seven steps", || logged(&run) >= 7);
    send("-HUP", &child.id().to_string());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(logged(&run), 150);
}

#[test]
fn a_second_signal_ends_it_at_once_with_its_own_code() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    let mut child = at_line(&mut tiny(&run, &ENDLESS), "data ");
    until("a step", || logged(&run) >= 1);
    // Both are there when it continues.
    let id = child.id().to_string();
    ["-STOP", "-INT", "-TERM", "-CONT"].into_iter().for_each(|signal| send(signal, &id));
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(!run.join("checkpoints").exists(), "it was given the time to save");
}

#[test]
fn data_being_made_is_given_up() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    let child = at_line(&mut tiny(&run, &["generated_documents=100000000"]), "memory ");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ended(child, "-TERM"), Some(143));
}

#[test]
fn a_step_that_takes_longer_than_anyone_waits_is_given_up() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    let child = at_line(&mut tiny(&run, &["accumulate=60000"]), "data ");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ended(child, "-TERM"), Some(143));
    // Nothing was there to save, and the run begins when it is resumed.
    assert!(!run.join("checkpoints").exists());
}

#[test]
fn a_search_for_circuits_is_given_up() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    succeeds(&mut tiny(&run, &["train.steps=2"]));
    let mut search = train(&["circuit", text(&run), "--device", "cpu", "--mean-tokens", "512", "--target-loss", "0.7"]);
    search.args(["--set", "steps=100000000", "--task", "single_double_quote"]).env("GOSSAMER_PROGRESS", "0.01");
    let child = at_line(&mut search, "single_double_quote: ");
    assert_eq!(ended(child, "-TERM"), Some(143));
    assert!(!run.join("circuits/finished/single_double_quote.json").exists());
}

/// The file of a sweep of one endless run, and the run's folder.
fn endless_sweep(folder: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let mut command = vec!["train".to_string(), "--out".into(), "{out}".into(), "--seed".into(), "{seed}".into()];
    TINY.iter().chain(&ENDLESS).for_each(|setting| command.extend(["--set".into(), setting.to_string()]));
    let (file, out) = (folder.join("sweep.toml"), folder.join("sweep"));
    fs::write(&file, format!("command = {command:?}\nfolder = {out:?}\n[product]\nseed = [0, 1]\n")).unwrap();
    (file, out.join("seed=0"))
}

#[test]
fn a_sweep_passes_the_signal_on_and_the_job_is_not_done() {
    let dir = tempdir().unwrap();
    let (file, run) = endless_sweep(dir.path());
    // To the sweep alone, and, as a terminal does, to all processes of the group.
    for (signal, code, group) in [("-TERM", 143, ""), ("-INT", 130, "-")] {
        let before = logged(&run);
        let mut sweep = gossamer(&["sweep", text(&file)]);
        let child = sweep.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("more steps", || logged(&run) >= before + 7);
        send(signal, &format!("{group}{}", child.id()));
        let (got, said) = finish(child.wait_with_output().unwrap());
        assert_eq!(got, Some(code), "{said}");
        assert!(said.contains("stopped   seed=0") && !said.contains("seed=1"), "{said}");
        // It had the time to save.
        let steps = logged(&run);
        assert!(run.join(format!("checkpoints/step-{steps}/state.json")).exists(), "{said}");
    }
    fails(&mut gossamer(&["sweep", "collect", text(&file)]), &["2 of 2 jobs are not done yet"]);
}
