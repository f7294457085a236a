//! One list of settings, one way to write them, ranges for all numbers, and nothing that would be
//! without effect.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use gossamer::train::config::{RunConfig, leaves};
use gossamer::train::presets::names;
use gossamer::train::settings::rows;
use tempfile::tempdir;

use super::{TINY, fails, gossamer, succeeds, text, tiny, train};

#[test]
fn every_setting_has_a_row_and_every_preset_keeps_to_it() {
    let mut config = RunConfig::preset("circuits").unwrap();
    config.bridge.get_or_insert_default().dense = "x".into();
    (config.model.d_mlp, config.model.d_pos_emb) = (Some(4), Some(4));
    let bridge = config.bridge.get_or_insert_default();
    (bridge.kl_top, bridge.warmup_frac) = (Some(4), Some(0.1));
    let known = rows();
    for (key, _) in leaves(toml::Table::try_from(&config).unwrap()) {
        assert!(known.iter().any(|row| row.key == key), "{key} is in no table");
    }
    for preset in names().unwrap() {
        let config = RunConfig::preset(preset).unwrap();
        config.validate().unwrap();
        let file: toml::Table = preset_file(preset).parse().unwrap();
        let named: Vec<String> = leaves(file).into_iter().map(|(key, _)| key).collect();
        for (key, _) in leaves(toml::Table::try_from(&config).unwrap()) {
            let unused = known.iter().any(|row| row.key == key && row.about.ends_with("not trained with"));
            assert!(named.contains(&key) || unused, "presets/{preset}.toml leaves {key} to a default");
        }
        assert_eq!(config.model.afrac_loctypes.0.split(',').count(), 8, "{preset}");
        assert_eq!(config.notes(), Vec::<String>::new(), "{preset}");
    }
}

fn preset_file(name: &str) -> String {
    fs::read_to_string(format!("{}/presets/{name}.toml", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

#[test]
fn presets_are_listed_from_the_smallest_model_to_the_largest() {
    assert_eq!(names().unwrap(), ["quickstart", "circuits", "small", "paper"]);
    assert!(succeeds(&mut train(&["--help"])).contains("start from: quickstart, circuits, small or paper"));
}

#[test]
fn a_run_names_its_version_of_generated_python() {
    let dir = tempdir().unwrap();
    let (out, again) = (dir.path().join("run"), dir.path().join("again"));
    fails(&mut tiny(&out, &["generated_version=5"]), &["data.generated_version", "5", "from 3 to 4"]);
    succeeds(&mut tiny(&out, &["d_head=none"]));
    let file = out.join("config.toml");
    let config = fs::read_to_string(&file).unwrap();
    let unnamed = config.replace("generated_version = 3\n", "");
    assert_ne!(config, unnamed);
    // As the runs wrote it that trained on version 3 before it had a name: still a whole one, in
    // which d_head is absent.
    fs::write(&file, unnamed).unwrap();
    succeeds(&mut train(&["--config", text(&file), "--out", text(&again)]));
    assert_eq!(fs::read_to_string(again.join("config.toml")).unwrap(), config);
}

#[test]
fn numbers_that_no_run_can_have_are_refused() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("run");
    let cases: &[(&str, &str)] = &[
        ("dropout=nan", "model.dropout"),
        ("lr=1e300", "train.lr"),
        ("eps=1e-300", "train.eps"),
        ("weight_decay=inf", "train.weight_decay"),
        ("val_fraction=nan", "data.val_fraction"),
        ("anneal_start_frac=nan", "sparsity.anneal_start_frac"),
        ("bridge.lr=nan", "bridge.lr"),
        ("bridge.coefficients.kl_d2s=-1", "bridge.coefficients.kl_d2s"),
        ("steps=1000000000000", "train.steps"),
        ("samples=1000000000", "run.samples"),
        ("min_alive=99999999999", "sparsity.min_alive"),
        ("generated_documents=1000000000000000", "data.generated_documents"),
        ("seed=-1", "run.seed"),
        ("tied_unembed=1", "model.tied_unembed"),
        ("grad_rms=normalise", "one of normalize, clip, none"),
    ];
    for (setting, culprit) in cases {
        fails(&mut tiny(&out, &[setting]), &[culprit]);
    }
    fails(tiny(&out, &[]).args(["--seed", "18446744073709551615"]), &["run.seed"]);
    fails(tiny(&out, &[]).args(["--tokens", "0"]), &["--tokens"]);
    let file = dir.path().join("settings.toml");
    for (section, culprit) in [("[model]\ndropout = nan", "model.dropout"), ("[train]\nlr = inf", "train.lr")] {
        fs::write(&file, section).unwrap();
        fails(tiny(&out, &[]).args(["--config", text(&file)]), &[culprit]);
    }
    assert!(!out.exists());
}

#[test]
fn counts_that_no_memory_holds_are_refused_at_once() {
    let start = Instant::now();
    let huge = "1000000000000";
    let cases: &[&[&str]] = &[
        &["steer", "m", "--random", "1000000000"],
        &["steer", "m", "--pairs", huge],
        &["steer", "m", "--strength", "0,1e300"],
        &["steer", "m", "--strength=nan"],
        &["generate", "m", "--num-samples", huge],
        &["generate", "m", "--max-new-tokens", "18446744073709551615"],
        &["generate", "m", "--temperature", "nan"],
        &["generate", "m", "--temperature", "inf"],
        &["generate", "m", "--top-p", "nan"],
        &["generate", "m", "--top-p", "1.01"],
        &["generate", "m", "--top-k", "0"],
        &["run", "m", "--prompt", "x", "--top", huge],
        &["eval", "m", "--data", "x", "--batch-size", "0"],
        &["eval", "m", "--data", "x", "--max-tokens", huge],
        &["record", "m", "--mean", "--out", "x", "--max-tokens", huge],
        &["inspect", "m", "--largest", huge],
        &["tasks", "show", "var_if", "--count", huge],
        &["tasks", "eval", "m", "--pairs", huge],
        &["circuit", "stats", "f", "--model", "m", "--max-tokens", huge],
        &["circuit", "binarise", "f", "--model", "m", "--mean-tokens", huge],
        &["bridge", "eval", "m", "--batch-size", huge],
    ];
    for arguments in cases {
        let last = arguments.last().unwrap();
        let said = fails(&mut gossamer(arguments), &["invalid value"]);
        assert!(said.contains(last.trim_start_matches("--strength=")), "{said}");
    }
    let trainer: &[&[&str]] = &[
        &["tokenizer", "--data", "x", "--vocab-size", huge],
        &["tokenizer", "--data", "x", "--vocab-size", "256"],
        &["circuit", "m", "--task", "all", "--tune", huge],
        &["circuit", "m", "--task", "all", "--mean-tokens", huge],
        &["circuit", "m", "--task", "all", "--disjoint", "0"],
    ];
    for arguments in trainer {
        fails(&mut train(arguments), &["invalid value", arguments.last().unwrap()]);
    }
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn settings_of_the_search_have_the_same_grammar() {
    let circuit = |setting| train(&["circuit", "m", "--task", "all", "--set", setting]);
    for (setting, culprits) in [
        ("k_coef=abc", ["`k_coef`", "`abc` is not a number from 0"]),
        ("k_coef=nan", ["`k_coef`", "nan"]),
        ("lr=1e999", ["`lr`", "1e999"]),
        ("eps=0", ["`eps`", "0"]),
        ("pairs=100000000", ["`pairs`", "65,536"]),
        ("start=[0.1, nan]", ["`start`", "two numbers"]),
        ("start=[0.1, -1.0]", ["`start`", "-1"]),
        ("learning_rate=1", ["learning_rate", "did you mean `lr`?"]),
        ("bs=4", ["bs", "did you mean `pairs`?"]),
        ("steps=4 temprature=1", ["temprature", "did you mean `temperature`?"]),
        ("lr", ["lr", "key=value"]),
    ] {
        fails(&mut circuit(setting), &culprits);
    }
    // All is well with these: the model is what is not there.
    fails(&mut circuit("steps=4 lr = 1 start=[0.2, 0.05] k_coef=0"), &["no such file"]);
    fails(
        &mut train(&["circuit", "m", "--task", "all", "--tune", "2", "--ranking", "attribution"]),
        &["--tune", "--ranking"],
    );
    for minutes in ["nan", "inf", "1e7"] {
        fails(&mut train(&["circuit", "m", "--task", "all", "--tune-minutes", minutes]), &["minutes"]);
    }
}

#[test]
fn what_other_programs_call_it_leads_to_ours() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("run");
    for (theirs, ours) in [
        ("learning_rate", "train.lr"),
        ("n_embd", "model.d_model"),
        ("n_heads", "model.n_head"),
        ("num_heads", "model.n_head"),
        ("n_ctx", "model.block_size"),
        ("context_length", "model.block_size"),
        ("seq_len", "model.block_size"),
        ("n_layers", "model.n_layer"),
        ("bs", "train.batch_size"),
        ("epochs", "train.steps"),
        ("train.steeps", "train.steps"),
    ] {
        fails(&mut tiny(&out, &[&format!("{theirs}=1")]), &[theirs, &format!("`{ours}`"), "train --settings"]);
    }
    fails(&mut train(&["--learning-rate", "0.1"]), &["--set train.lr=VALUE"]);
    let said = succeeds(&mut train(&["--settings", "--set", "lr=0.5 steps=7"]));
    let line = |key: &str| said.lines().find(|line| line.split_whitespace().next() == Some(key)).unwrap().to_string();
    assert!(line("train.lr").contains("0.5") && line("train.lr").contains("above 0, up to 1e30"), "{said}");
    assert!(line("train.steps").contains(" 7 ") && line("model.d_mlp").contains("none"), "{said}");
    assert!(line("k_coef").contains("0.001") && line("bridge.kl_top").contains(", or none"), "{said}");
}

#[test]
fn the_documented_settings_and_presets_are_those_there_are() {
    const LIST: &str = "```text\n";
    const PRESETS: &str = "\n## The presets\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
    let page = fs::read_to_string(path).unwrap();
    let (head, rest) = page.split_once(LIST).unwrap();
    let (_, rest) = rest.split_once("```\n").unwrap();
    let (rest, presets) = rest.split_once(PRESETS).unwrap();
    let about = presets.split("\n### ").next().unwrap();
    let said = succeeds(&mut train(&["--settings"]));
    let list: String = said.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let shown = |name| format!("\n### {name}\n\n```toml\n{}```\n", preset_file(name));
    let shown: String = names().unwrap().into_iter().map(shown).collect();
    let written = format!("{head}{LIST}{list}```\n{rest}{PRESETS}{about}{shown}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return fs::write(path, written).unwrap();
    }
    assert!(page == written, "docs/settings.md differs: run this test with UPDATE_DOCS=1");
}

#[test]
fn what_training_would_not_honour_is_refused() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("run");
    for setting in [
        "dropout=0.5",
        "grad_checkpointing=true",
        "sinusoidal_cat_pos_emb=true",
        "dropout_cat_pos_emb=true",
        "flash=false",
        "debug_nans=true",
        "enable_sparse_kernels=true",
        "tokenizer_name=gpt2",
    ] {
        let name = setting.split('=').next().unwrap();
        fails(&mut tiny(&out, &[setting]), &[&format!("model.{name}"), "would change nothing"]);
    }
    assert!(!out.exists());
    // A model that carries such fields still runs.
    succeeds(&mut tiny(&out, &[]));
    let path = out.join("checkpoints/step-40/config.json");
    let config = fs::read_to_string(&path).unwrap();
    let carried = config.replace("\"dropout\": 0.0", "\"dropout\": 0.1").replace("\"flash\": true", "\"flash\": false");
    assert_ne!(config, carried);
    fs::write(&path, carried).unwrap();
    succeeds(&mut gossamer(&["generate", text(&out), "--device", "cpu", "--max-new-tokens", "2"]));
}

#[test]
fn what_cannot_hold_is_said_once_at_the_start() {
    let dir = tempdir().unwrap();
    // c_attn is 48 × 16: a share of 0.05 leaves 38 weights, where 48 rows of 4 need 192.
    let said = succeeds(&mut tiny(&dir.path().join("run"), &["target_density=0.05", "steps=2"]));
    let notes: Vec<_> = said.lines().filter(|line| line.starts_with("note ")).collect();
    let [note] = notes[..] else { panic!("{said}") };
    for part in ["min_alive = 4", "transformer.h.0.attn.c_attn.weight", "48 rows need 192", "leaves 38", "in 3 more"] {
        assert!(note.contains(part), "{note}");
    }
    let said = succeeds(&mut tiny(
        &dir.path().join("more"),
        &["steps=2", "afrac=0.05", "sparse_biases=true", "bias=false", "min_alive=0", "d_pos_emb=4"],
    ));
    for part in ["keeps none of the 16 entries at attn_q", "sparse_biases has no effect", "d_pos_emb only adds zeros"] {
        assert!(said.contains(part), "{said}");
    }
    fails(&mut gossamer(&["generate", "m", "--temperature", "0", "--top-k", "4"]), &["temperature of 0", "--top-k"]);
}

/// A tokenizer of its own.
fn tokenizer(folder: &Path) -> std::path::PathBuf {
    let (data, file) = (folder.join("text.py"), folder.join("tokenizer.json"));
    fs::write(&data, "def add(first, second):\n    return first + second\n".repeat(200)).unwrap();
    let sizes = ["--vocab-size", "280", "--out", text(&file)];
    succeeds(train(&["tokenizer", "--data", text(&data)]).args(sizes));
    file
}

#[test]
fn the_vocabulary_follows_the_tokenizer() {
    let dir = tempdir().unwrap();
    let file = tokenizer(dir.path());
    let entries = gossamer::text::tokenizer::Tokenizer::load(&file).unwrap().vocab_size();
    let run = |name: &str, more: &[&str]| {
        let mut command = train(&["--out", text(&dir.path().join(name)), "--tokenizer", text(&file)]);
        for setting in TINY.iter().filter(|setting| !setting.starts_with("vocab_size")) {
            command.args(["--set", setting]);
        }
        command.args(["--steps", "2"]).args(more);
        command
    };
    succeeds(&mut run("follows", &[]));
    let config = fs::read_to_string(dir.path().join("follows/config.toml")).unwrap();
    assert!(config.contains(&format!("vocab_size = {entries}\n")), "{config}");
    succeeds(&mut run("agrees", &["--set", &format!("vocab_size={entries}")]));
    let said = fails(&mut run("differs", &["--set", "vocab_size=300"]), &["model.vocab_size", "is 300"]);
    assert!(said.contains(&format!("the tokenizer has {entries} entries")), "{said}");
    let settings = dir.path().join("settings.toml");
    fs::write(&settings, "[model]\nvocab_size = 301\n").unwrap();
    fails(&mut run("differs", &["--config", text(&settings)]), &["model.vocab_size", "is 301"]);
    assert!(!dir.path().join("differs").exists());
    let (data, model) = (dir.path().join("text.py"), dir.path().join("follows"));
    succeeds(&mut gossamer(&["eval", text(&model), "--data", text(&data), "--device", "cpu"]));
}

#[test]
fn where_results_go_is_looked_at_before_the_work() {
    let dir = tempdir().unwrap();
    let (folder, missing) = (text(dir.path()).to_string(), text(&dir.path().join("no/file")).to_string());
    let start = Instant::now();
    for out in [&folder, &missing] {
        let cases: [&[&str]; 9] = [
            &["bench", "--quick", "--device", "cpu", "--out", out],
            &["bench", "compare", "none.json", "--png", out],
            &["record", "m", "--prompt", "x", "--out", out],
            &["eval", "m", "--data", "x", "--losses", out],
            &["steer", "m", "--prompt", "x", "--csv", out],
            &["steer", "m", "--prompt", "x", "--png", out],
            &["bridge", "eval", "m", "--png", out],
            &["tasks", "show", "var_if", "--count", "1000000", "--save", out],
            &["circuit", "export", "none.json", "--format", "svg", "--out", out],
        ];
        for arguments in cases {
            fails(&mut gossamer(arguments), &[out]);
        }
        fails(&mut train(&["tokenizer", "--data", "none", "--out", out]), &[out]);
    }
    let file = dir.path().join("file");
    fs::write(&file, "kept").unwrap();
    fails(&mut tiny(&file, &[]), &["is in the way"]);
    fails(&mut train(&["circuit", "m", "--task", "all", "--out", text(&file)]), &["is in the way"]);
    assert_eq!((fs::read(&file).unwrap(), fs::read_dir(dir.path()).unwrap().count()), (b"kept".to_vec(), 1));
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[cfg(unix)]
#[test]
fn a_pipe_is_refused_or_waited_for_aloud() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let dir = tempdir().unwrap();
    let pipe = |name: &str| {
        let path = dir.path().join(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    };
    let (weights, tasks, circuit) = (pipe("model.safetensors"), pipe("pairs.jsonl"), pipe("circuit.json"));
    fs::write(dir.path().join("config.json"), "{\"n_layer\": 1, \"d_model\": 4, \"n_head\": 1}").unwrap();
    fails(&mut gossamer(&["inspect", text(&weights)]), &["model.safetensors", "is a pipe"]);
    fails(&mut gossamer(&["tasks", "show", text(&tasks)]), &["pairs.jsonl", "is a pipe"]);
    let mut waiting = gossamer(&["circuit", "show", text(&circuit)]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(waiting.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("circuit.json is a pipe: waiting"), "{said}");
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}

#[test]
fn a_limit_names_what_lowers_it_and_a_device_that_is_not_there_those_that_are() {
    let said = fails(&mut gossamer(&["check", "--device", "gpu:99"]), &["no adapter matches `99`; there are gpu:0 "]);
    let list = gossamer(&["devices", "--json"]).output().unwrap().stdout;
    let list: Vec<serde_json::Value> = serde_json::from_slice(&list).unwrap();
    for adapter in &list {
        let (index, name, backend) = (&adapter["index"], &adapter["name"], &adapter["backend"]);
        let shown = format!("gpu:{index} {} ({}, ", name.as_str().unwrap(), backend.as_str().unwrap());
        assert!(said.contains(&shown), "{shown}: {said}");
    }
    let dir = tempdir().unwrap();
    let out = dir.path().join("run");
    let at = |settings: &[&str]| {
        let said = fails(tiny(&out, settings).args(["--device", "gpu"]), &["binds at most"]);
        said.split("; lower ").nth(1).unwrap().lines().next().unwrap().to_string()
    };
    let bigram = at(&["vocab_size=65536"]);
    assert_eq!(bigram, "model.vocab_size, or set model.enable_bigram_table to false");
    let wide = at(&["d_model=4194304", "d_mlp=4096", "enable_bigram_table=false"]);
    assert!(wide.contains("model.d_model") && !wide.contains("batch_size"), "{wide}");
    let many = at(&["batch_size=4194304", "enable_bigram_table=false", "d_mlp=512"]);
    assert!(many.contains("batch_size") && many.contains("model.d_mlp") && !many.contains("vocab"), "{many}");
}

#[test]
fn inspect_takes_a_device() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/forward/paper");
    assert!(succeeds(&mut gossamer(&["inspect", model, "--device", "cpu"])).contains(" on CPU, "));
    fails(&mut gossamer(&["inspect", model, "--device", "gpu:99"]), &["`99`"]);
}
