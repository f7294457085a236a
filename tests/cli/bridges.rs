//! `train bridges`, from a dense model to checkpoints that can be resumed.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{TINY, fails, gossamer, metrics, resume, succeeds, text, tiny, train};

/// A dense model, ten steps old.
fn dense(out: &Path) {
    let settings = ["train.steps=10", "afrac=none", "target_density=1", "embed_target_density=1", "rms_norm=false"];
    succeeds(&mut tiny(out, &settings));
}

/// A run of twelve steps with bridges to `dense`, whose shapes it shares where it must.
fn bridges(dense: &Path, out: &Path, settings: &[&str]) -> Command {
    let mut command = train(&["bridges", "--dense", text(dense), "--out", text(out)]);
    let own = ["train.steps=12", "d_model=24", "n_head=3", "checkpoint_every=4", "keep_checkpoints=0"];
    let shared = ["n_layer", "vocab_size", "block_size"];
    let tiny = TINY.iter().filter(|setting| shared.iter().all(|shared| !setting.contains(shared)));
    for setting in tiny.chain(&own).chain(settings) {
        command.args(["--set", setting]);
    }
    command
}

#[test]
fn a_run_logs_every_term_and_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, run) = (folder.path().join("dense"), folder.path().join("run"));
    dense(&model);
    let said = succeeds(&mut bridges(&model, &run, &[]));
    assert!(said.contains("validation"), "{said}");
    let lines = metrics(&run);
    assert_eq!(lines.len(), 12);
    for line in &lines {
        let terms = ["nmse_enc", "nmse_dec", "kl_d2s", "kl_s2d"].map(|term| {
            let site = |site: usize| line[format!("{term}/{site}")].as_f64().expect("a number");
            (0..3).map(site).sum::<f64>()
        });
        assert!(line.get("kl_s2d/3").is_none(), "one layer has three sites");
        let total = terms.iter().sum::<f64>() + line["loss"].as_f64().expect("a loss");
        let objective = line["objective"].as_f64().expect("a number");
        assert!((total - objective).abs() < 1e-4 * objective, "{line}");
    }
    let checkpoint = |step: u64| run.join(format!("checkpoints/step-{step}"));
    let files = ["model.safetensors", "bridges.safetensors", "bridges.json", "bridges_optimizer.safetensors"];
    let read = || files.map(|file| fs::read(checkpoint(12).join(file)).expect("a file"));
    let whole = read();
    let about: serde_json::Value = serde_json::from_slice(&whole[2]).expect("JSON");
    assert_eq!((about["version"].as_u64(), about["sparse"]["path"].as_str()), (Some(1), Some(".")));
    assert!(about["dense"]["hash"].as_str().expect("a hash").starts_with("sha256:"));

    let measured = succeeds(&mut gossamer(&["bridge", "eval", text(&run), "--max-tokens", "160", "--device", "cpu"]));
    assert!(measured.contains("over 160 tokens") && measured.contains("0.resid_mid"), "{measured}");
    let last = checkpoint(12);
    let json = ["bridge", "eval", text(&last), "--max-tokens", "160", "--device", "cpu", "--json"];
    let json = succeeds(&mut gossamer(&json));
    let json: serde_json::Value = serde_json::from_str(json.trim()).expect("JSON");
    assert_eq!((json["tokens"].as_u64(), json["sites"].as_array().expect("sites").len()), (Some(160), 3));
    assert!(json["sites"][2]["s2d"]["mean_kl"].as_f64().expect("a number") >= 0.0);
    fails(&mut gossamer(&["bridge", "eval", text(&model)]), &["bridges.json"]);
    fails(&mut gossamer(&["bridge", "eval", text(&run), "--dense", text(&run)]), &["another dense model", "sha256:"]);

    steers(&run, folder.path());

    for step in [8, 12] {
        fs::remove_dir_all(checkpoint(step)).expect("removed");
    }
    let said = succeeds(&mut resume(&run));
    assert!(said.contains("resumed     at step 4"), "{said}");
    assert!(read() == whole, "resumed, it ends with other bytes");
    assert_eq!(metrics(&run), lines);

    // The model at the same place is another one now.
    fs::remove_dir_all(checkpoint(12)).expect("removed");
    fs::remove_dir_all(&model).expect("removed");
    succeeds(&mut tiny(&model, &["train.steps=10", "seed=1"]));
    fails(&mut resume(&run), &["bridges.json", "another dense model", text(&model)]);
}

/// What `gossamer steer` says through a run's bridges.
fn steers(run: &Path, folder: &Path) {
    let steer = |more: &[&str]| {
        let mut command = gossamer(&["steer", text(run), "--max-tokens", "160", "--device", "cpu"]);
        command.args(more);
        command
    };
    let (csv, png) = (folder.join("steer.csv"), folder.join("steer.png"));
    let node = ["--node", "0.mlp.act_in[3]"];
    let prompt = ["--prompt", "x = 1", "--counterfactual", "x = 2"];
    let files = ["--csv", text(&csv), "--png", text(&png)];
    let said = succeeds(steer(&prompt).args(node).args(files).args(["--strength", "0:1:0.25", "--top", "2"]));
    assert!(said.contains("0.25") && said.contains("mean of 8 draws"), "{said}");
    let lines = fs::read_to_string(&csv).expect("a file").lines().count();
    assert!((1 + 9 * 5 * 2..=1 + 9 * 5 * 4).contains(&lines), "{lines} lines");
    assert!(fs::read(&png).expect("a file").starts_with(b"\x89PNG"));

    // At strength 0 all runs are the same, at any other an edit that was asked for shows.
    let json =
        succeeds(steer(&["--prompt", "x = 1", "--json", "--random", "2"]).args(["--set", "0.attn.act_in[2]=40"]));
    let json: serde_json::Value = serde_json::from_str(json.trim()).expect("JSON");
    let first = &json["next"][0];
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    assert_eq!(json["strengths"].as_array().expect("strengths").len(), 11);
    assert_eq!(number(&first["steered"][0]), number(&first["random"][1][0]));
    assert!(number(&first["steered"][0]) != number(&first["steered"][10]));

    // A recipe is the same as its arguments.
    let about: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(run.join("checkpoints/step-12/bridges.json")).expect("a file"))
            .expect("JSON");
    let hash = about["sparse"]["hash"].as_str().expect("a hash");
    let file = folder.join("recipe.json");
    let recipe = |hash: &str| {
        format!(
            r#"{{"version": 1, "sparse": {{"path": "somewhere", "hash": "{hash}"}}, "prompt": "x = 1", "counterfactual": "x = 2",
                 "nodes": ["0.mlp.act_in[3]"], "strength": 0.5, "random": 3, "seed": 4, "ratio": "sparse_over_dense"}}"#
        )
    };
    fs::write(&file, recipe(hash)).expect("written");
    let by_file = succeeds(&mut steer(&["--json", "--recipe", text(&file)]));
    let same = ["--strength", "0,0.5", "--random", "3", "--seed", "4", "--ratio", "sparse-over-dense", "--json"];
    assert_eq!(by_file, succeeds(steer(&prompt).args(node).args(same)));
    fs::write(&file, recipe("sha256:0")).expect("written");
    fails(&mut steer(&["--recipe", text(&file)]), &["recipe.json", "another sparse model", hash]);
    // So it is with circuits.
    let circuit = folder.join("circuit.json");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/circuit-example.json"), &circuit).expect("copied");
    fails(&mut steer(&["--circuit", text(&circuit)]), &["circuit.json", "another model", hash]);

    fails(steer(&prompt).args(["--strength", "1:0:0.1"]).args(node), &["1:0:0.1"]);
    fails(steer(&prompt).args(["--node", "0.attn.q[3]"]), &["0.attn.q[3]"]);
    fails(steer(&prompt).args(["--node", "7.mlp.act_in[3]"]), &["7.mlp.act_in[3]"]);
    fails(&mut steer(&prompt), &["--node"]);
    fails(steer(&["--prompt", "x = 1"]).args(node), &["--counterfactual"]);
    fails(&mut steer(&[]), &["--task"]);
    fails(&mut steer(&["--task", "single_double_quote"]), &["--circuit"]);
    // A task's file is opened as everywhere.
    let task = folder.join("mine.toml");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tasks/var_if.toml"), &task).expect("copied");
    fails(&mut steer(&["--task", text(&task)]), &["--circuit"]);
    fs::write(&task, "version = 1").expect("written");
    fails(&mut steer(&["--task", text(&task)]), &["mine.toml", "line 1"]);
}

#[test]
fn a_sparse_model_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    dense(&path("dense"));
    let tokenizer = path("dense/tokenizer.json");
    succeeds(tiny(&path("sparse"), &["d_model=24", "n_head=3"]).args(["--tokenizer", text(&tokenizer)]));
    let mut command = train(&["bridges", "--dense", text(&path("dense")), "--sparse", text(&path("sparse"))]);
    command.args(["--out", text(&path("run")), "--steps", "3"]);
    for setting in
        ["device=cpu", "samples=0", "log_every=1", "batch_size=4", "generated_documents=60", "val_fraction=0.1"]
    {
        command.args(["--set", setting]);
    }
    succeeds(&mut command);
    let first = &metrics(&path("run"))[0];
    assert_eq!(first["density"].as_f64(), Some(1.0 / 16.0), "at its density from the start");
    let said = succeeds(&mut gossamer(&["inspect", text(&path("run"))]));
    assert!(said.contains("24"), "{said}");
}

#[test]
fn models_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, run) = (folder.path().join("dense"), folder.path().join("run"));
    dense(&model);
    fails(&mut bridges(&model, &run, &["n_layer=2"]), &["1 layers", "2"]);
    let run = folder.path().join("long");
    fails(&mut bridges(&model, &run, &["block_size=32"]), &["block_size", "16 tokens"]);
    fails(&mut bridges(&model, &folder.path().join("a"), &["bridge.lr=0"]), &["bridge.lr"]);
    fails(&mut bridges(&model, &folder.path().join("b"), &["kl_s2d=-1"]), &["bridge.coefficients.kl_s2d"]);
    fails(&mut bridges(&folder.path().join("none"), &run, &[]), &["none"]);
    fails(&mut train(&["bridges"]), &["--dense"]);
    fails(&mut train(&["bridges", "--resume", text(&model)]), &["no bridges"]);
}

#[test]
fn thresholds_and_all_that_changes_along_a_run_go_on_bit_for_bit() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, run) = (folder.path().join("dense"), folder.path().join("run"));
    dense(&model);
    let settings = [
        "bridge.encoder=threshold",
        "bridge.sharpness=[2, 30]",
        "bridge.sharpness_stop_frac=0.75",
        "bridge.warmup_frac=0.5",
        "bridge.coefficients.kl_sparse=0.5",
        "bridge.ramps.kl_sparse=0.9",
        "bridge.ramps.nmse_enc=0.4",
        "bridge.kl_top=7",
        "bridge.kl_top_renormalize=true",
    ];
    succeeds(&mut bridges(&model, &run, &settings));
    let lines = metrics(&run);
    assert!(lines.iter().all(|line| line["kl_sparse"].as_f64().is_some_and(|kl| kl > 0.0)), "{:?}", lines[0]);
    let checkpoint = |step: u64| run.join(format!("checkpoints/step-{step}"));
    let files = ["model.safetensors", "bridges.safetensors", "bridges.json", "bridges_optimizer.safetensors"];
    let read = || files.map(|file| fs::read(checkpoint(12).join(file)).expect("a file"));
    let whole = read();
    let about: serde_json::Value = serde_json::from_slice(&whole[2]).expect("JSON");
    assert_eq!((about["version"].as_u64(), about["encoder"].as_str()), (Some(1), Some("threshold")));
    for step in [8, 12] {
        fs::remove_dir_all(checkpoint(step)).expect("removed");
    }
    succeeds(&mut resume(&run));
    assert!(read() == whole, "resumed, it ends with other bytes");
    assert_eq!(metrics(&run), lines);

    let json = ["bridge", "eval", text(&run), "--max-tokens", "160", "--device", "cpu", "--json"];
    let json: serde_json::Value = serde_json::from_str(succeeds(&mut gossamer(&json)).trim()).expect("JSON");
    assert!(json["kl_sparse"].as_f64().is_some_and(|kl| kl > 0.0) && json["kl_sparse"] == json["sparse_kl"], "{json}");
    let steer = ["steer", text(&run), "--prompt", "x = 1", "--counterfactual", "x = 2", "--node", "0.mlp.act_in[3]"];
    succeeds(gossamer(&steer).args(["--max-tokens", "160", "--device", "cpu"]));

    // Described as another kind, they are not taken for one.
    let path = checkpoint(12).join("bridges.json");
    let other = String::from_utf8(whole[2].clone()).expect("text").replace("threshold", "abstopk");
    fs::write(&path, other).expect("written");
    fails(&mut gossamer(&["bridge", "eval", text(&run)]), &["bridges.safetensors", "enc.0.log_eps is no part"]);
    fs::write(&path, String::from_utf8(whole[2].clone()).expect("text").replace("threshold", "relu")).expect("written");
    fails(&mut gossamer(&["bridge", "eval", text(&run)]), &["bridges.json", "relu"]);

    for (setting, culprit) in [
        ("bridge.encoder=relu", "one of abstopk, threshold"),
        ("bridge.sharpness=[0, 1]", "bridge.sharpness"),
        ("bridge.sharpness_start_frac=0.8", "bridge.sharpness_stop_frac"),
        ("bridge.ramps.kl_d2s=1.5", "bridge.ramps.kl_d2s"),
        ("bridge.ramps.kl=0.5", "bridge.ramps.kl"),
        ("bridge.warmup_frac=-1", "bridge.warmup_frac"),
    ] {
        fails(&mut bridges(&model, &folder.path().join("none"), &[setting]), &[culprit]);
    }
}

#[test]
fn a_run_of_an_earlier_version_continues() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, run, again) = (folder.path().join("dense"), folder.path().join("run"), folder.path().join("again"));
    dense(&model);
    succeeds(&mut bridges(&model, &run, &["train.steps=8"]));
    let read = |run: &Path| fs::read(run.join("checkpoints/step-8/bridges.safetensors")).expect("a file");
    let whole = read(&run);
    // As it was written before there were thresholds, ramps and the other settings that go with them.
    let path = run.join("config.toml");
    let mut config: toml::Table = fs::read_to_string(&path).expect("a file").parse().expect("TOML");
    let bridge = config["bridge"].as_table_mut().expect("a section");
    for key in ["encoder", "sharpness", "sharpness_start_frac", "sharpness_stop_frac", "kl_top_renormalize", "ramps"] {
        bridge.remove(key).expect("a setting");
    }
    bridge["coefficients"].as_table_mut().expect("a section").remove("kl_sparse").expect("a term");
    fs::write(&path, config.to_string()).expect("written");
    let state = run.join("checkpoints/step-4/state.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&state).expect("a file")).expect("JSON");
    json["settings"].as_object_mut().expect("settings").retain(|key, _| !key.starts_with("bridge."));
    json["checksums"].as_object_mut().expect("checksums").remove("bridges.json");
    fs::write(&state, json.to_string()).expect("written");
    let about = run.join("checkpoints/step-4/bridges.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&about).expect("a file")).expect("JSON");
    json.as_object_mut().expect("an object").remove("encoder").expect("the kind");
    fs::write(&about, json.to_string()).expect("written");
    fs::remove_dir_all(run.join("checkpoints/step-8")).expect("removed");
    succeeds(&mut resume(&run));
    assert!(read(&run) == whole, "resumed, it ends with other bytes");

    // Another run with the settings of that one.
    let mut command = train(&["bridges", "--dense", text(&model), "--config", text(&path), "--out", text(&again)]);
    succeeds(&mut command);
    assert!(read(&again) == whole, "repeated, it ends with other bytes");
}

/// The worked example, from nothing to pictures.
#[cfg(unix)]
#[test]
fn steer_quotes_runs_from_one_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/steer_quotes.sh");
    let run = || {
        let mut command = Command::new(script);
        command.env("TRAIN", env!("CARGO_BIN_EXE_train")).env("GOSSAMER", env!("CARGO_BIN_EXE_gossamer"));
        command.args([text(folder.path()), "--quick"]);
        succeeds(&mut command)
    };
    let said = run();
    for task in ["single_double_quote", "while_return_true"] {
        assert!(said.contains(&format!("== {task}")), "{said}");
        let csv = fs::read_to_string(folder.path().join(format!("{task}.csv"))).expect("a file");
        assert_eq!(csv.lines().count(), 1 + 9 * 11, "{csv}");
        assert!(fs::read(folder.path().join(format!("{task}.png"))).expect("a file").starts_with(b"\x89PNG"));
    }
    let numbers = |said: &str| -> Vec<String> {
        let strength = |line: &&str| line.split_whitespace().next().is_some_and(|first| first.parse::<f64>().is_ok());
        said.lines().filter(strength).map(String::from).collect()
    };
    assert!(numbers(&said).len() >= 22, "{said}");
    assert_eq!(numbers(&run()), numbers(&said), "taken up again, it says otherwise");
}

#[test]
fn a_run_that_began_before_a_term_was_added_continues() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, run) = (folder.path().join("dense"), folder.path().join("run"));
    dense(&model);
    succeeds(&mut bridges(&model, &run, &["train.steps=8"]));
    let read = || fs::read(run.join("checkpoints/step-8/bridges.safetensors")).expect("a file");
    let whole = read();
    let (settings, state) = (run.join("config.toml"), run.join("checkpoints/step-4/state.json"));
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&state).expect("a file")).expect("JSON");
    let coefficients = json["settings"]["bridge.coefficients"].as_object_mut().expect("coefficients");
    assert_eq!(coefficients.remove("kl_s2d"), Some(1.0.into()));
    fs::write(&state, json.to_string()).expect("written");
    let config = fs::read_to_string(&settings).expect("a file");
    let without = config.replace("kl_s2d = 1.0\n", "");
    assert_ne!(config, without);
    fs::remove_dir_all(run.join("checkpoints/step-8")).expect("removed");

    fs::write(&settings, without.replace("kl_d2s = 1.0", "kl_d2s = 2.0")).expect("written");
    fails(&mut resume(&run), &["bridge.coefficients", "put it back"]);
    fs::write(&settings, without).expect("written");
    succeeds(&mut resume(&run));
    assert!(read() == whole, "the term's default is 1, as it was set");
}
