//! Settings that do not exist or cannot be: refused at once, by name, before anything is written.

use std::fs;
use std::time::{Duration, Instant};

use tempfile::tempdir;

use super::{fails, succeeds, text, tiny, train};

#[test]
fn impossible_settings_are_named() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("run");
    let cases: &[(&str, &str)] = &[
        ("lr=-0.01", "train.lr"),
        ("lr=0", "train.lr"),
        ("lr=nan", "train.lr"),
        ("lr=inf", "train.lr"),
        ("lr=fast", "train.lr"),
        ("target_density=0", "target_density"),
        ("target_density=2", "target_density"),
        ("target_density=nan", "target_density"),
        ("embed_target_density=-1", "embed_target_density"),
        ("anneal_stop_frac=1.5", "anneal_stop_frac"),
        ("block_size=0", "block_size"),
        ("block_size=1", "block_size"),
        ("n_layer=0", "n_layer"),
        ("batch_size=0", "batch_size"),
        ("batch_size=-4", "batch_size"),
        ("accumulate=0", "accumulate"),
        ("log_every=0", "log_every"),
        ("beta2=1", "beta2"),
        ("eps=0", "train.eps"),
        ("weight_decay=-1", "weight_decay"),
        ("val_fraction=1", "val_fraction"),
        ("generated_documents=1", "generated_documents"),
        ("afrac=nan", "afrac"),
        ("afrac=2", "afrac"),
        ("afrac_loctypes=attn_in,mlp_inn", "mlp_inn"),
        ("grad_rms=halve", "grad_rms"),
        ("activation_type=tanh", "activation_type"),
        ("vocab_size=256", "vocab_size"),
        ("lernrate=0.1", "lernrate"),
        ("train.lernrate=0.1", "train.lernrate"),
        ("nosuch.lr=0.1", "nosuch"),
        ("train.lr.peak=0.1", "train.lr.peak"),
        ("train=3", "train"),
        ("lr", "key=value"),
    ];
    for (setting, culprit) in cases {
        fails(&mut tiny(&out, &[setting]), &[culprit]);
    }
    fails(&mut tiny(&out, &["d_head=none", "n_head=3"]), &["n_head"]);
    fails(&mut train(&["--preset", "huge", "--out", text(&out)]), &["huge", "quickstart"]);
    assert!(!out.exists() && !dir.path().join("cache").exists(), "a refused run wrote something");
}

#[test]
fn absurd_sizes_are_refused_before_anything_is_allocated() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("run");
    let cases: &[(&[&str], &str)] = &[
        (&["d_model=4000000", "d_mlp=16000000"], "lower model.d_model"),
        (&["batch_size=100000000"], "lower train.batch_size"),
        (&["d_model=1000000000"], "d_model"),
        (&["d_model=9000000000000000000"], "d_model"),
        (&["d_model=16777216", "n_head=16777216", "d_head=16777216", "d_mlp=16777216", "n_layer=10000"], "lower"),
        (&["n_layer=16777216"], "n_layer"),
        (&["batch_size=4611686018427387904"], "batch_size"),
        (&["accumulate=4611686018427387904"], "accumulate"),
        (&["block_size=16777216", "batch_size=256"], "lower train.batch_size"),
    ];
    for (settings, culprit) in cases {
        let start = Instant::now();
        fails(&mut tiny(&out, settings), &[culprit]);
        assert!(start.elapsed() < Duration::from_secs(10), "{settings:?} took {:?}", start.elapsed());
    }
    assert!(!out.exists(), "a refused run wrote something");
}

#[test]
fn a_settings_file_is_overlaid_or_refused_by_name() {
    let dir = tempdir().unwrap();
    let (out, file) = (dir.path().join("run"), dir.path().join("settings.toml"));
    let cases = [
        ("[train]\nlernrate = 0.1\n", "train.lernrate"),
        ("[trian]\nlr = 0.1\n", "trian"),
        ("[train]\nlr = \"fast\"\n", "train.lr"),
        ("[train]\nsteps = 1.5\n", "train.steps"),
        ("[train]\nlr = -1.0\n", "train.lr"),
        ("[sparsity]\ntarget_density = 0\n", "target_density"),
        ("[train\nlr = 1\n", "settings.toml"),
    ];
    for (settings, culprit) in cases {
        fs::write(&file, settings).unwrap();
        fails(tiny(&out, &[]).args(["--config", text(&file)]), &[culprit]);
    }
    fs::write(&file, b"[train]\nlr = \xff\n").unwrap();
    fails(tiny(&out, &[]).args(["--config", text(&file)]), &["settings.toml"]);
    fails(tiny(&out, &[]).args(["--config", text(&dir.path().join("none.toml"))]), &["none.toml"]);

    fs::write(&file, "[train]\nlr = 0.003\n[model]\nafrac = 0.5\n").unwrap();
    succeeds(tiny(&out, &["d_head=none"]).args(["--config", text(&file)]));
    let settings = fs::read_to_string(out.join("config.toml")).unwrap();
    assert!(settings.contains("lr = 0.003") && settings.contains("afrac = 0.5"), "{settings}");
    assert!(!settings.contains("d_head"), "{settings}");
    // What a run wrote repeats it.
    let again = dir.path().join("again");
    succeeds(&mut train(&["--config", text(&out.join("config.toml")), "--out", text(&again)]));
    super::assert_same_results(&again, &out, 40);
}

#[test]
fn when_the_products_change_is_told_to_who_asks() {
    let dir = tempdir().unwrap();
    let settings = ["sparsity.target_density=0.0625", "sparsity.anneal_stop_frac=0.5"];
    let said = |name: &str, more: &[&str]| succeeds(tiny(&dir.path().join(name), &settings).args(more));
    assert!(!said("quiet", &[]).contains("multiplied by their nonzeros"));
    let verbose = said("verbose", &["--verbose"]);
    // The density passes a quarter before the middle of forty steps, not at once.
    let line = verbose.lines().find(|line| line.contains("multiplied by their nonzeros")).expect(&verbose);
    let step: u64 = line.split("step ").nth(1).and_then(|rest| rest.split(':').next()).unwrap().parse().unwrap();
    assert!((5..20).contains(&step), "{line}");
}
