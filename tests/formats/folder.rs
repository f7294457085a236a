//! Where models are found, and what is said where they are not.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use gossamer::Error;
use gossamer::device::Device;
use gossamer::files::{FloatType, HostTensor, InMemory, TensorSource};
use gossamer::formats::config::read_config;
use gossamer::formats::{FindOptions, Hub, ModelFiles};
use gossamer::model::{Kind, Model, ModelConfig, Parameters, WeightFormat, check_shapes};
use gossamer::observer::Observer;
use gossamer::text::tokenizer::Tokenizer;
use serde_json::json;
use tempfile::tempdir;

use crate::{assert_says, bits, bits_of, config, weights, write, write_config, write_model};

fn offline() -> FindOptions {
    let cache = PathBuf::from("no such cache");
    FindOptions { offline: true, hub: Hub { cache, ..Hub::from_vars(|_| None) }, ..FindOptions::default() }
}

#[test]
fn the_published_models_of_the_golden_cases_open() {
    for case in ["paper", "sink_sparse", "dense_gpt2", "relu_cat_pos"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/forward").join(case);
        let files = ModelFiles::find(&folder, &offline()).unwrap();
        assert_eq!(files.config_path, folder.join("beeg_config.json"));
        assert_eq!(files.weights_path, folder.join("model.safetensors"));
        assert_eq!((files.config.n_layer > 0, files.tokenizer), (true, None));
        let direct = ModelFiles::open(folder.join("model.safetensors")).unwrap();
        assert_eq!(direct.config, files.config);
        assert_eq!(bits(direct.weights.as_ref()), bits(files.weights.as_ref()));
    }
}

/// Runs `work` and gives what it logs.
fn logged(work: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, work);
    String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
}

#[test]
fn hugging_face_configurations_may_nest_and_carry_boilerplate() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("config.json");
    let fields = serde_json::to_value(config()).unwrap();
    let around = json!({
        "model_type": "circuitgpt", "architectures": ["CircuitGPTForCausalLM"], "torch_dtype": "float32", "dtype": "float32",
        "auto_map": {"AutoConfig": "configuration.Config"}, "transformers_version": "4.57.1", "_name_or_path": "x",
        "bos_token_id": 5, "eos_token_id": 5, "pad_token_id": null, "use_cache": true, "tie_word_embeddings": false,
        "id2label": {"0": "LABEL_0"}, "max_position_embeddings": 4
    });
    let with = |more: serde_json::Value| {
        let mut all = around.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fs::write(&path, all.to_string()).unwrap();
    };
    for shape in [fields.clone(), json!({ "config": fields }), json!({ "circuit_config": fields })] {
        with(shape);
        let log = logged(|| assert_eq!(read_config(&path).unwrap(), config()));
        assert_eq!(log, "");
    }
    // Beside the object, fields count where it is silent; what no one knows is said.
    let mut silent = fields.clone();
    silent.as_object_mut().unwrap().remove("rms_norm");
    with(json!({ "config": silent, "rms_norm": true, "n_layer": 77, "colour": "blue" }));
    let log = logged(|| assert_eq!(read_config(&path).unwrap(), config()));
    assert!(log.contains("WARN") && log.contains("config.json") && log.contains("colour"), "{log}");

    with(json!({ "a": fields, "b": fields }));
    assert_says(read_config(&path), &["config.json", "several configurations: a, b"]);
    with(json!({ "model_type": "llama" }));
    assert_says(read_config(&path), &["config.json", "`llama`"]);
    with(json!({}));
    assert_says(read_config(&path), &["config.json", "n_layer"]);
    for text in ["", "[]", "{\"n_layer\": 2", "\u{0}"] {
        fs::write(&path, text).unwrap();
        assert_says(read_config(&path), &["config.json", "not a JSON object"]);
    }
    fs::write(&path, b"{\"\xff\": 1}").unwrap();
    assert_says(read_config(&path), &["config.json"]);
    write_config(&path, &config(), json!({ "n_head": "two" }));
    assert_says(read_config(&path), &["config.json", "n_head"]);
}

#[test]
fn sharded_prefixed_and_nested_is_the_same_model() {
    let dir = tempdir().unwrap();
    let tensors = weights(&config());
    let mut map = BTreeMap::new();
    for (i, file) in ["a.safetensors", "b.safetensors"].into_iter().enumerate() {
        let half: BTreeMap<_, _> = tensors.clone().into_iter().skip(i).step_by(2).collect();
        write(&dir.path().join(file), &half, FloatType::BF16, "circuit_model.");
        map.extend(half.into_keys().map(|name| (format!("circuit_model.{name}"), file)));
    }
    let index = dir.path().join("model.safetensors.index.json");
    fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    let nested = json!({ "model_type": "circuitgpt", "config": config() });
    fs::write(dir.path().join("config.json"), nested.to_string()).unwrap();
    fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();

    let files = ModelFiles::open(dir.path()).unwrap();
    assert_eq!(files.config, config());
    assert_eq!(files.weights_path, index);
    assert_eq!(files.tokenizer, Some(dir.path().join("tokenizer.json")));
    assert_eq!(bits(files.weights.as_ref()), bits_of(&tensors));
    assert_eq!(bits(ModelFiles::open(&index).unwrap().weights.as_ref()), bits_of(&tensors));

    // One file is preferred to several, and that to torch's.
    fs::write(dir.path().join("final_model.pt"), "not read").unwrap();
    assert_eq!(ModelFiles::open(dir.path()).unwrap().weights_path, index);
    write(&dir.path().join("model.safetensors"), &tensors, FloatType::F32, "");
    assert_eq!(ModelFiles::open(dir.path()).unwrap().weights_path, dir.path().join("model.safetensors"));
}

#[test]
fn of_two_configurations_the_readable_one_counts() {
    let dir = tempdir().unwrap();
    write_model(dir.path());
    let (ours, beeg) = (dir.path().join("config.json"), dir.path().join("beeg_config.json"));
    fs::write(&beeg, "damaged").unwrap();
    assert_eq!(ModelFiles::open(dir.path()).unwrap().config_path, ours);
    fs::rename(&ours, &beeg).unwrap();
    fs::write(&ours, json!({ "model_type": "circuitgpt" }).to_string()).unwrap();
    let log = logged(|| assert_eq!(ModelFiles::open(dir.path()).unwrap().config_path, beeg));
    assert!(log.contains("WARN") && log.contains("beeg_config.json"), "{log}");
    fs::remove_file(&beeg).unwrap();
    assert_says(ModelFiles::open(dir.path()), &["config.json", "n_layer"]);
}

#[test]
fn runs_and_checkpoints_bring_their_tokenizer() {
    let dir = tempdir().unwrap();
    let run = dir.path().join("runs/x");
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join("config.toml"), "").unwrap();
    assert_says(ModelFiles::open(&run), &["runs/x", "without a checkpoint"]);
    fs::create_dir(run.join("checkpoints")).unwrap();
    fs::create_dir(run.join("checkpoints/.tmp-step-11-1")).unwrap();
    assert_says(ModelFiles::find(&run, &offline()), &["runs/x", "without a checkpoint"]);

    // Number 10 is newer than 9, whatever the alphabet says.
    for (step, seed) in [(9, 1), (10, 2)] {
        let folder = run.join(format!("checkpoints/step-{step}"));
        fs::create_dir(&folder).unwrap();
        Model::new(config(), seed, &Device::cpu()).unwrap().save(&folder).unwrap();
    }
    let newest = ModelFiles::open(&run).unwrap();
    assert_eq!(newest.config_path, run.join("checkpoints/step-10/config.json"));
    assert_eq!(newest.tokenizer, None);
    let model = Model::new(config(), 2, &Device::cpu()).unwrap();
    assert_eq!(bits(newest.weights.as_ref()), bits_of(&model.parameters.to_host().unwrap()));

    fs::write(run.join("tokenizer.json"), "{}").unwrap();
    for path in ["", "checkpoints/step-9", "checkpoints/step-9/", "checkpoints/step-9/model.safetensors"] {
        let found = ModelFiles::open(run.join(path)).unwrap();
        assert_eq!(found.tokenizer, Some(run.join("tokenizer.json")), "{path}");
    }
}

#[test]
fn what_is_missing_is_said_with_the_folder() {
    let dir = tempdir().unwrap();
    let folder = dir.path().join("model");
    fs::create_dir(&folder).unwrap();
    assert_says(ModelFiles::open(&folder), &["model:", "model.safetensors", "final_model.pt", "of a run"]);
    fs::write(folder.join("config.json"), "{}").unwrap();
    assert_says(ModelFiles::open(&folder), &["model:", "model.safetensors.index.json", "next to the configuration"]);
    fs::remove_file(folder.join("config.json")).unwrap();
    write(&folder.join("model.safetensors"), &weights(&config()), FloatType::F32, "");
    assert_says(ModelFiles::open(&folder), &["model:", "config.json", "beeg_config.json"]);
    assert_says(ModelFiles::open(folder.join("model.safetensors")), &["model:", "beeg_config.json"]);
    assert!(matches!(ModelFiles::open(dir.path().join("none")), Err(Error::Io { .. })));
    assert_says(ModelFiles::find("/no/such/place", &offline()), &["/no/such/place", "no such file", "owner/name"]);
    assert_says(ModelFiles::find("none/such", &offline()), &["none/such", "no file or folder", "cache"]);
}

#[test]
fn foreign_files_and_folders_in_the_place_of_files_are_errors() {
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write_model(dir.path());
    fs::write(at("model.onnx"), "").unwrap();
    assert_says(ModelFiles::open(at("model.onnx")), &["model.onnx", "not a file of weights", "pytorch_model.bin"]);
    fs::write(at("model.bin"), "").unwrap();
    assert_says(ModelFiles::open(at("model.bin")), &["model.bin", "not a zip archive"]);
    fs::write(at("model.safetensors"), "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n").unwrap();
    assert_says(ModelFiles::open(dir.path()), &["model.safetensors", "git lfs pull"]);
    fs::write(at("model.safetensors"), "<html>").unwrap();
    assert_says(ModelFiles::open(dir.path()), &["model.safetensors", "not a whole safetensors file"]);
    for name in ["model.safetensors", "config.json"] {
        fs::remove_file(at(name)).unwrap();
        fs::create_dir(at(name)).unwrap();
        let Err(Error::Io { path, source }) = ModelFiles::open(dir.path()) else { panic!("{name}") };
        assert_eq!(path, at(name));
        assert!(cfg!(windows) || source.kind() == std::io::ErrorKind::IsADirectory, "{source}");
        fs::remove_dir(at(name)).unwrap();
        write_model(dir.path());
    }
    ModelFiles::open(dir.path()).unwrap();
}

#[cfg(unix)]
#[test]
fn unreadable_files_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempdir().unwrap();
    write_model(dir.path());
    for name in ["config.json", "model.safetensors"] {
        let path = dir.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        // Permissions do not bind root, who may run the tests.
        match (fs::File::open(&path), ModelFiles::open(dir.path())) {
            (Ok(_), opened) => assert!(opened.is_ok()),
            (Err(_), Err(Error::Io { path: named, .. })) => assert_eq!(named, path),
            (Err(_), other) => panic!("{other:?}"),
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn names_need_not_be_utf_8() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempdir().unwrap();
    let folder = dir.path().join(std::ffi::OsStr::from_bytes(b"mod\xffel"));
    assert_says(ModelFiles::find(&folder, &offline()), &["mod", "no such file"]);
    let tensors = write_model(&folder);
    assert_eq!(bits(ModelFiles::find(&folder, &offline()).unwrap().weights.as_ref()), bits_of(&tensors));
}

fn check(config: &ModelConfig, tensors: &BTreeMap<String, HostTensor>) -> gossamer::Result<()> {
    check_shapes(config, InMemory::from(tensors.clone()).entries())
}

#[test]
fn weights_that_do_not_fit_the_configuration_are_errors_that_name_them() {
    let right = weights(&config());
    check(&config(), &right).unwrap();
    for (name, kind, shape) in Parameters::shapes(&config()) {
        let mut tensors = right.clone();
        tensors.get_mut(&name).unwrap().shape.push(1);
        assert_says(check(&config(), &tensors), &[&name, &format!("{shape:?}")]);
        tensors.remove(&name);
        match kind {
            Kind::LogitsBias => check(&config(), &tensors).unwrap(),
            _ => assert_says(check(&config(), &tensors), &["lack", &name]),
        }
    }
    let odd = HostTensor { shape: vec![1], data: vec![0.0] };
    for name in ["strange", "transformer.h.x.attn.bias", "transformer.h.0.attn.bias.more", "transformer.h..attn.bias"] {
        let mut tensors = right.clone();
        tensors.insert(name.into(), odd.clone());
        assert_says(check(&config(), &tensors), &[name, "does not have"]);
    }
    let mut tensors = right.clone();
    tensors.insert("transformer.h.1.attn.bias".into(), odd);
    check(&config(), &tensors).unwrap();

    // Tied: the unembedding may be there or not, but not in another shape.
    let tied = ModelConfig { tied_unembed: true, ..config() };
    check(&tied, &right).unwrap();
    let mut tensors = right.clone();
    tensors.get_mut("lm_head.weight").unwrap().shape.reverse();
    assert_says(check(&tied, &tensors), &["lm_head.weight", "[4, 6]", "[6, 4]"]);
    tensors.remove("lm_head.weight");
    check(&tied, &tensors).unwrap();

    // Published norms of concatenated positions have no biases.
    let positions = ModelConfig { d_pos_emb: Some(2), rms_norm: false, ..config() };
    let mut tensors = weights(&positions);
    check(&positions, &tensors).unwrap();
    tensors.retain(|name, _| !name.ends_with("ln_p1.bias") && !name.ends_with("ln_p2.bias"));
    assert_eq!(tensors.len(), weights(&positions).len() - 4);
    check(&positions, &tensors).unwrap();
    tensors.remove("transformer.h.1.ln_1.bias");
    assert_says(check(&positions, &tensors), &["transformer.h.1.ln_1.bias"]);
}

/// Sizes that would need terabytes, or hours, if anyone believed them.
#[test]
fn absurd_configurations_are_refused_before_anything_is_allocated() {
    let dir = tempdir().unwrap();
    write_model(dir.path());
    let huge = 1u64 << 24;
    for (field, value) in [
        ("n_layer", huge),
        ("n_layer", u64::MAX),
        ("d_model", huge),
        ("d_mlp", huge),
        ("vocab_size", 65_536),
        ("block_size", huge),
        ("n_head", huge),
        ("d_head", huge),
        ("d_model", 0),
    ] {
        let more = BTreeMap::from([(field, value)]);
        write_config(&dir.path().join("config.json"), &config(), json!(more));
        let start = std::time::Instant::now();
        assert_says(ModelFiles::open(dir.path()), &["config.json"]);
        assert!(start.elapsed().as_secs_f64() < 1.0, "{field} {value}");
    }
}

/// A tokenizer of nearly the smallest size: all bytes and the end of text.
fn tokenizer() -> Tokenizer {
    Tokenizer::train(std::iter::once("x = 1\n".to_string()), 258, &Observer::default()).unwrap()
}

#[test]
fn a_pretrained_model_comes_with_its_tokenizer() {
    let dir = tempdir().unwrap();
    let device = Device::cpu();
    let config = ModelConfig { vocab_size: 300, ..config() };
    let model = Model::new(config, 7, &device).unwrap();
    model.save(dir.path()).unwrap();
    let without = Model::from_pretrained(dir.path(), &device).unwrap();
    assert_eq!(without.model.hash().unwrap(), model.hash().unwrap());
    assert_says(without.encode("x", false), &["tokenizer.json", "--tokenizer"]);
    assert_eq!(without.show(5), "`<5>`");

    let tokenizer = tokenizer();
    tokenizer.save(dir.path().join("tokenizer.json")).unwrap();
    let with = Model::from_pretrained(dir.path(), &device).unwrap();
    let ids = with.encode("x = 1<|endoftext|>", true).unwrap();
    assert_eq!(ids.last().copied(), tokenizer.end_of_text());
    assert_eq!(with.tokenizer().unwrap().decode(&ids).unwrap(), "x = 1<|endoftext|>");
    assert!(with.encode("<|endoftext|>", false).unwrap().len() > 1);
    assert_eq!(with.encode("", false).unwrap(), [tokenizer.end_of_text().unwrap()]);
    assert_eq!(with.show(with.encode("\n", false).unwrap()[0]), r"`\n`");

    let small = tempdir().unwrap();
    Model::new(super::config(), 7, &device).unwrap().save(small.path()).unwrap();
    let options = FindOptions { tokenizer: Some(dir.path().join("tokenizer.json")), ..offline() };
    let files = ModelFiles::find(small.path(), &options).unwrap();
    assert_says(files.pretrained(WeightFormat::Dense, &device), &["entries, but the model only 6"]);
}
