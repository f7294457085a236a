//! Files that were made with one model are refused by another one.

use gossamer::files::load_metadata;

use crate::{fails, gossamer, succeeds, text, tiny};

#[test]
fn means_of_another_model_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for (name, seed) in [("one", "run.seed=1"), ("other", "run.seed=2")] {
        succeeds(&mut tiny(&path(name), &["train.steps=2", seed]));
    }
    let (one, other, means) = (path("one"), path("other"), path("means.safetensors"));
    let record = ["record", text(&one), "--device", "cpu", "--mean", "--max-tokens", "64", "--out", text(&means)];
    succeeds(&mut gossamer(&record));
    let hash = load_metadata(&means).expect("metadata")["model"].clone();
    let run = |model| {
        let ablated = ["--prompt", "x = 1", "--set", "0.mlp.post_act=mean", "--means", text(&means)];
        let mut command = gossamer(&["run", model, "--device", "cpu"]);
        command.args(ablated);
        command
    };
    succeeds(&mut run(text(&one)));
    fails(&mut run(text(&other)), &["means.safetensors", "another model", &hash]);
}
