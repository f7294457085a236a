//! `gossamer tasks` and `train circuit` on a tiny run. It can do no task: what is tested is
//! everything around that.

use std::fs;

use gossamer::circuits::Circuit;
use gossamer::circuits::tasks::ContextLength;
use tempfile::tempdir;

use crate::{fails, gossamer, succeeds, text, tiny, train};

#[test]
fn tasks_are_listed_shown_saved_and_evaluated() {
    let folder = tempdir().unwrap();
    let run = folder.path().join("run");
    succeeds(&mut tiny(&run, &[]));
    let list = succeeds(&mut gossamer(&["tasks", "list"]));
    assert!(list.lines().count() >= 20 && list.contains("var_swap "), "{list}");
    let shown = succeeds(&mut gossamer(&["tasks", "show", "single_double_quote", "--count", "2"]));
    assert_eq!(shown.matches("--- clean").count(), 2, "{shown}");
    let file = folder.path().join("mine.jsonl");
    succeeds(&mut gossamer(&["tasks", "show", "var_if", "--count", "12", "--save", text(&file)]));
    let eval = |task: &str| {
        let said =
            gossamer(&["tasks", "eval", text(&run), "--device", "cpu", "--pairs", "8", "--json", "--task", task])
                .output()
                .unwrap();
        serde_json::from_slice::<serde_json::Value>(&said.stdout).unwrap()[0].clone()
    };
    for task in ["single_double_quote", "var_if"] {
        let loss = eval(task)["test"]["loss"].as_f64().unwrap();
        assert!((0.1..5.0).contains(&loss), "{loss}");
    }
    // A file of pairs is a task like any other.
    let loss = eval(text(&file))["train"]["loss"].as_f64().unwrap();
    assert!((0.1..5.0).contains(&loss), "{loss}");
    fails(&mut gossamer(&["tasks", "show", "single_double_quotes"]), &["single_double_quote"]);
}

#[test]
fn the_same_circuit_file_twice_byte_for_byte() {
    let folder = tempdir().unwrap();
    let run = folder.path().join("run");
    succeeds(&mut tiny(&run, &[]));
    let circuit = |out: &str, more: &[&str]| {
        let fixed = ["circuit", text(&run), "--device", "cpu", "--mean-tokens", "512", "--set", "steps=3"];
        let sizes = ["--set", "pairs=4", "--set", "eval_pairs=8", "--task", "single_double_quote", "--out"];
        let mut command = train(&fixed);
        command.args(sizes).arg(folder.path().join(out)).args(more);
        command
    };
    // Chance is log 2, which no nodes at all reach.
    succeeds(&mut circuit("a", &["--target-loss", "0.7"]));
    succeeds(&mut circuit("b", &["--target-loss", "0.7"]));
    let read = |out: &str| fs::read(folder.path().join(out).join("single_double_quote.json")).unwrap();
    assert_eq!(read("a"), read("b"));
    // Again into the same folder: the means are those of the first time.
    succeeds(&mut circuit("a", &["--target-loss", "0.7"]));
    assert_eq!(read("a"), read("b"));
    succeeds(&mut circuit("all", &["--target-loss", "0.7", "--no-clean-up", "--ranking", "attribution"]));
    let found = Circuit::load(folder.path().join("all/single_double_quote.json")).unwrap();
    assert_eq!(found.task.name, "single_double_quote");

    // Several tasks side by side, on one thread and on two.
    let more = ["--target-loss", "0.7", "--task", "var_if", "bracket_brace", "--disjoint", "3"];
    for threads in ["1", "2"] {
        succeeds(circuit(threads, &more).env("RAYON_NUM_THREADS", threads));
    }
    for task in ["single_double_quote", "var_if", "bracket_brace"] {
        let read = |threads: &str| fs::read(folder.path().join(threads).join(format!("{task}.json"))).unwrap();
        assert_eq!(read("1"), read("2"), "{task}");
    }
    // Beside a circuit without nodes there is no other one, and what an earlier search left is
    // gone.
    let second = folder.path().join("2/var_if.2.json");
    assert!(!second.exists());
    fs::copy(folder.path().join("2/var_if.json"), &second).unwrap();
    succeeds(&mut circuit("2", &more));
    assert!(!second.exists());
    fails(&mut circuit("b", &["--task", "single_double_quote"]), &["single_double_quote", "one file"]);
    assert_eq!(found.settings["steps"], 3);
    assert!(found.losses.train.circuit <= 0.7 && found.model.hash.starts_with("sha256:"));
    succeeds(&mut gossamer(&["circuit", "show", text(&folder.path().join("a/single_double_quote.json"))]));

    fails(&mut circuit("c", &["--target-loss", "0.0001"]), &["single_double_quote", "0.0001", "no circuit"]);
    fails(&mut circuit("c", &["--set", "stepz=1"]), &["stepz", "steps"]);
    fails(&mut circuit("c", &["--set", "lr=-1"]), &["lr"]);
    assert!(!folder.path().join("c/single_double_quote.json").exists());
}

#[test]
fn a_circuit_of_a_long_context_is_another_question() {
    let folder = tempdir().unwrap();
    let (run, circuits) = (folder.path().join("run"), folder.path().join("circuits"));
    succeeds(&mut tiny(&run, &[]));
    let fixed = ["circuit", text(&run), "--device", "cpu", "--mean-tokens", "512", "--target-loss", "0.7"];
    let set = ["--task", "single_double_quote", "--set", "steps=3 pairs=4 eval_pairs=8", "--out", text(&circuits)];
    let said = succeeds(train(&fixed).args(set).args(["--context", "long"]));
    let file = circuits.join("single_double_quote+long.json");
    let found = Circuit::load(&file).unwrap();
    assert_eq!((found.task.name.as_str(), found.task.context), ("single_double_quote", ContextLength::Long));
    let name = found.task.question();
    assert!(
        name.starts_with("single_double_quote") && name.ends_with("+long") && said.contains(&name),
        "{name}: {said}"
    );
    let eval = ["circuit", "eval", text(&file), "--device", "cpu", "--no-parts", "--controls", "0", "--json"];
    assert!(succeeds(&mut gossamer(&eval)).contains(&format!("\"task\": \"{name}\"")));
    // The same circuit asked after short contexts.
    let short = succeeds(gossamer(&eval).args(["--context", "short"]));
    assert!(short.contains(&format!("\"task\": \"{}\"", name.trim_end_matches("+long"))), "{short}");

    let show = |more: &[&str]| succeeds(gossamer(&["tasks", "show", "var_if", "--count", "9"]).args(more));
    assert!(show(&["--context", "long"]).len() > show(&[]).len() + 500);
    let pairs = folder.path().join("pairs.jsonl");
    succeeds(&mut gossamer(&["tasks", "show", "var_if", "--count", "9", "--save", text(&pairs)]));
    fails(&mut gossamer(&["tasks", "show", text(&pairs), "--context", "long"]), &["list of pairs"]);
}
