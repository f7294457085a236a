//! How far long work is, where there is no terminal.

use std::path::Path;
use std::process::Command;

use tempfile::tempdir;

use super::{finish, gossamer, succeeds, text, tiny, train};

/// Standard error of a command that must succeed, with a line of progress every so many seconds.
fn messages(command: &mut Command, seconds: &str) -> String {
    let output = command.env("GOSSAMER_PROGRESS", seconds).output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(finish(output).0, Some(0), "{messages}");
    messages
}

fn evaluation(run: &Path) -> Command {
    gossamer(&["eval", text(run), "--device", "cpu", "--data", text(&run.join("config.toml").with_extension("txt"))])
}

#[test]
fn long_work_says_how_far_it_is() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    let messages_of = |command: &mut Command| messages(command, "0.005");
    let said = messages_of(&mut tiny(&run, &["train.steps=60"]));
    assert!(said.lines().any(|line| line.starts_with("training: ") && line.contains("of 60")), "{said}");

    std::fs::write(run.join("config.txt"), "def f(x):\n    return x + 1\n".repeat(3000)).unwrap();
    let said = messages_of(&mut evaluation(&run));
    assert!(said.lines().any(|line| line.starts_with("evaluating: ") && line.contains(" sequences (0 s)")), "{said}");

    let task = ["--task", "single_double_quote", "--device", "cpu"];
    let said = messages_of(gossamer(&["tasks", "eval", text(&run), "--pairs", "512"]).args(task));
    assert!(said.contains("evaluating tasks: 0 of 1  single_double_quote"), "{said}");

    let search = ["circuit", text(&run), "--mean-tokens", "512", "--target-loss", "0.7", "--set", "steps=60"];
    let said = messages_of(train(&search).args(task));
    assert!(said.contains("single_double_quote: ") && said.contains("of 60  learning gates, loss 0."), "{said}");
}

#[test]
fn quick_work_says_nothing() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("run");
    succeeds(&mut tiny(&run, &["train.steps=2"]));
    std::fs::write(run.join("config.txt"), "x = 1\n".repeat(100)).unwrap();
    assert_eq!(messages(&mut evaluation(&run), "100"), "");
    assert_eq!(messages(&mut evaluation(&run), "0"), "");
}
