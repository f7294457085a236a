//! `gossamer push`, to a small Hub on this machine.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gossamer::device::Device;
use gossamer::formats::ModelFiles;
use gossamer::model::WeightFormat;

use super::fake_hub::{FakeHub, Fault, TOKEN};
use super::{fails, gossamer, succeeds, text, tiny};

/// `gossamer push` of a run to `me/tiny`, with its temporary files in `folder`.
fn push(server: &FakeHub, run: &Path, folder: &Path, more: &[&str]) -> Command {
    let mut command = gossamer(&["push", text(run), "me/tiny"]);
    command.args(more).env("HF_ENDPOINT", &server.endpoint).env("HF_TOKEN", TOKEN).env("TMPDIR", folder);
    command.env_remove("HF_HUB_OFFLINE").env("HF_HUB_DOWNLOAD_TIMEOUT", "20");
    command
}

#[test]
fn a_run_is_pushed_with_a_card_of_what_is_known() {
    let (server, folder) = (FakeHub::start(), tempfile::tempdir().expect("a folder"));
    let (run, temporary) = (folder.path().join("run"), folder.path().join("tmp"));
    succeeds(&mut tiny(&run, &["eval_every=20"]));
    let model =
        ModelFiles::open(&run).and_then(|files| files.load(WeightFormat::Dense, &Device::cpu())).expect("a model");
    let hash = model.hash().expect("a hash");
    // Two circuits, one of them of other weights.
    let example =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/circuit-example.json")).expect("a file");
    let mut circuit: serde_json::Value = serde_json::from_str(&example).expect("JSON");
    let circuits = run.join("circuits");
    fs::create_dir(&circuits).expect("created");
    fs::write(circuits.join("other.json"), &example).expect("written");
    circuit["model"]["hash"] = hash.into();
    fs::write(circuits.join("own.2.json"), circuit.to_string()).expect("written");
    fs::write(circuits.join("own.2.statistics.json"), "{}").expect("written");

    let dry = succeeds(&mut push(&server, &run, &temporary, &["--dry-run", "--license", "mit"]));
    assert!(dry.contains("model.safetensors") && dry.contains("nothing is sent"), "{dry}");
    let card = [
        "license: \"mit\"",
        "- weight-sparse",
        "- circuits",
        "| layers | 1 |",
        "| matrices of attention and MLPs |",
        "60 documents of generated Python (version 3)",
        "Step 40 of 40, 2,560 tokens (64 a step).",
        "target_density = 0.0625",
        "| validation | 40 |",
        "| `single_double_quote` |",
        "1 circuits of other weights are left out.",
        "gossamer generate me/tiny",
    ];
    card.iter().for_each(|part| assert!(dry.contains(part), "{part} is not in {dry}"));
    assert!(!dry.contains(text(folder.path())), "nobody else's concern: {dry}");
    assert_eq!(server.with(|state| state.requests.len()), 0);

    let said = succeeds(&mut push(&server, &run, &temporary, &["--message", "the first", "--private"]));
    assert!(said.contains("commit 00000") && said.contains("sent"), "{said}");
    assert_eq!(server.commits("me/tiny"), ["the first"]);
    assert!(server.with(|state| state.repositories["me/tiny"].private));
    let json = succeeds(&mut push(&server, &run, &temporary, &["--json"]));
    let json: serde_json::Value = serde_json::from_str(json.trim()).expect("JSON");
    assert_eq!((&json["commit"], &json["files"][0]["sent"]), (&serde_json::Value::Null, &false.into()));
    assert_eq!(fs::read_dir(&temporary).expect("a folder").count(), 0, "temporary files are left");

    fails(push(&server, &run, &temporary, &[]).env("HF_TOKEN", "hf_reader"), &["me/tiny", "lacks write access"]);
    fails(&mut push(&server, &run, &temporary, &["--revision", "../main"]), &["../main"]);
    fails(&mut gossamer(&["push", text(&run), "tiny"]), &["`tiny` is not a repository's name, owner/name"]);
    fails(&mut gossamer(&["push", text(&run), "me/tiny@main"]), &["owner/name"]);
}

/// Killed while it sends, it has changed nothing; the next one does all.
#[test]
fn a_push_that_is_killed_leaves_the_repository_as_it_was() {
    let (server, folder) = (FakeHub::start(), tempfile::tempdir().expect("a folder"));
    let (run, temporary) = (folder.path().join("run"), folder.path().join("tmp"));
    succeeds(&mut tiny(&run, &["train.steps=5"]));
    for at in ["PUT", "/commit/"] {
        server.with(|state| state.faults = vec![(at, Fault::Silence)]);
        let mut child = push(&server, &run, &temporary, &[]).spawn().expect("started");
        let (start, reached) = (Instant::now(), || server.with(|s| s.requests.iter().any(|line| line.contains(at))));
        while !reached() {
            assert!(start.elapsed() < Duration::from_secs(60), "it never came to {at}");
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert_eq!(server.files("me/tiny", "main").into_keys().collect::<Vec<_>>(), [".gitattributes"]);
        assert_eq!(server.commits("me/tiny").len(), 0);
    }
    server.with(|state| state.faults.clear());
    succeeds(&mut push(&server, &run, &temporary, &[]));
    assert!(server.files("me/tiny", "main").contains_key("model.safetensors"));
    assert_eq!(server.commits("me/tiny").len(), 1);
}
