//! The binaries from end to end, as users meet them: on tiny models, with everything that can go
//! wrong.

#[cfg(feature = "hub")]
#[path = "../common/fake_hub.rs"]
mod fake_hub;

mod bench;
mod bridges;
mod checkpoints;
mod circuit;
mod collisions;
mod config;
mod continuing;
mod damage;
mod data;
mod devices;
mod disk;
mod evaluating;
mod example;
mod hashes;
mod interruption;
mod measure;
mod models;
mod next_steps;
mod not_finite;
mod nothing;
mod output;
mod outputs;
mod pictures;
mod plot;
mod progress;
#[cfg(feature = "hub")]
mod push;
mod reading;
mod report;
mod settings;
#[cfg(unix)]
mod signals;
mod stream;
mod sweep;
mod tasks;
mod tokenizer;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Settings of a model that trains forty steps in well under a second.
const TINY: [&str; 16] = [
    "train.steps=40",
    "run.device=cpu",
    "model.n_layer=1",
    "d_model=16",
    "n_head=2",
    "d_head=8",
    "block_size=16",
    "vocab_size=300",
    "d_mlp=32",
    "data.generated_documents=60",
    "data.val_fraction=0.1",
    "batch_size=4",
    "checkpoint_every=5",
    "log_every=1",
    "samples=0",
    "tasks=false",
];

/// `train` with these arguments, and nothing to read on its standard input.
fn train(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
    command.args(arguments).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

/// `gossamer` with these arguments.
fn gossamer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gossamer"));
    command.args(arguments).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

/// A new tiny run of forty steps in `out` on the CPU, with further settings.
fn tiny(out: &Path, settings: &[&str]) -> Command {
    let mut command = train(&["--out", text(out)]);
    for setting in TINY.iter().chain(settings) {
        command.args(["--set", setting]);
    }
    command
}

fn resume(run: &Path) -> Command {
    train(&["--resume", text(run)])
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder's path is UTF-8")
}

/// Standard output and standard error of a command that must succeed.
#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let (code, said) = finish(command.output().expect("the binary runs"));
    assert_eq!(code, Some(0), "{command:?}\n{said}");
    said
}

/// What a command says that must fail in an orderly way; all of `culprits` must be in it.
#[track_caller]
fn fails(command: &mut Command, culprits: &[&str]) -> String {
    let (code, said) = finish(command.output().expect("the binary runs"));
    assert!(matches!(code, Some(1 | 2)), "exit {code:?} of {command:?}\n{said}");
    assert!(said.contains("error:"), "{command:?}\n{said}");
    for culprit in culprits {
        assert!(said.contains(culprit), "no {culprit:?} from {command:?}\n{said}");
    }
    said
}

/// Exit code, and everything said.
#[track_caller]
fn finish(output: Output) -> (Option<i32>, String) {
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code(), said)
}

/// Every file below `folder` with its contents.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).expect("a readable file"));
        }
    }
    files
}

/// What a run of `steps` steps must leave behind, byte for byte: its last checkpoint and its
/// tokenizer.
#[track_caller]
fn results(run: &Path, steps: u64) -> Vec<(&'static str, Vec<u8>)> {
    let checkpoint = run.join(format!("checkpoints/step-{steps}"));
    let read = |path: PathBuf| fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut files: Vec<_> = ["model.safetensors", "optimizer.safetensors", "state.json", "config.json"]
        .map(|name| (name, read(checkpoint.join(name))))
        .into();
    files.push(("tokenizer.json", read(run.join("tokenizer.json"))));
    files
}

#[track_caller]
fn assert_same_results(run: &Path, want: &Path, steps: u64) {
    for ((name, got), (_, want)) in results(run, steps).into_iter().zip(results(want, steps)) {
        assert!(got == want, "{}: {name} differs from that of the uninterrupted run", run.display());
    }
    assert_eq!(metrics(run), metrics(want), "{}", run.display());
    assert_eq!(metrics(run).len() as u64, steps);
}

/// The logged lines, but for the speed, which no two runs share.
#[track_caller]
fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let log = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let parse = |line: &str| {
        let mut value: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        value.as_object_mut().and_then(|o| o.remove("tokens_per_second")).expect("a speed");
        value
    };
    log.lines().map(parse).collect()
}
