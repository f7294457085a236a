//! Other people's models: their folders give their logits, and what cannot be computed is named.
//! `tests/data/foreign/make.py` made the folders of `gpt2` and `gpt_neo` with transformers; those of
//! sparse_pretrain are from its own model class.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gossamer::device::Device;
use gossamer::files::{FloatType, HostTensor, load_ids, load_tensors};
use gossamer::formats::config::read_config;
use gossamer::formats::{ConvertFormat, ConvertOptions, ModelFiles, convert};
use gossamer::model::{Activation, Batch, ModelConfig, NoHooks, SiteKind, WeightFormat, Weights};
use gossamer::tape::Tape;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::{assert_says, write};

fn foreign(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/foreign").join(name)
}

/// The largest difference between the logits of a folder's model and those expected in it, relative
/// to 1 + the largest one.
fn difference(folder: &Path, expected: &Path) -> f64 {
    let tokens = load_ids(expected, "tokens").unwrap();
    let want = &load_tensors(expected).unwrap()["logits"];
    let device = Device::cpu();
    let model = ModelFiles::open(folder).unwrap().load(WeightFormat::Sparse, &device).unwrap();
    let batch = Batch::new(&device, &model.config, &tokens.data, tokens.shape[0]).unwrap();
    let weights = Weights::constant(&model, &[]);
    let logits = model.forward(&mut Tape::new(), &weights, &batch, &mut NoHooks).unwrap();
    assert_eq!(logits.value().shape(), want.shape);
    let got = logits.value().read().unwrap();
    assert!(!got.is_empty() && got.iter().chain(&want.data).all(|x| x.is_finite()));
    let largest = want.data.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let off = got.iter().zip(&want.data).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    f64::from(off) / f64::from(1.0 + largest)
}

#[test]
fn logits_are_those_of_the_programs_that_made_the_folders() {
    for name in ["gpt2", "gpt2_sharded", "gpt_neo", "sparse_pretrain", "sparse_pretrain_positions"] {
        let off = difference(&foreign(name), &foreign(name).join("expected.safetensors"));
        assert!(off < 2e-5, "{name}: {off:e}");
    }
}

#[test]
fn configurations_become_ours() {
    let config = |name: &str| read_config(&foreign(name).join("config.json")).unwrap();
    let gpt2 = config("gpt2");
    let want = ModelConfig {
        vocab_size: 23,
        block_size: 9,
        d_model: 10,
        n_layer: 2,
        n_head: 2,
        d_mlp: Some(7),
        activation_type: Activation::GeluTanh,
        ln_eps: 1e-3,
        ..ModelConfig::default()
    };
    assert_eq!(gpt2, want);
    let sharded = config("gpt2_sharded");
    assert!(!sharded.tied_unembed && !sharded.scale_attn_weights && sharded.scale_attn_by_inverse_layer_idx);
    let neo = config("gpt_neo");
    assert_eq!((neo.attention_options(0).window, neo.attention_options(1).window), (None, Some(3)));
    assert_eq!((neo.attention_options(1).scale, neo.mlp_width(), neo.block_size), (Some(1.0), 32, 12));
    let sparse = config("sparse_pretrain");
    assert_eq!((sparse.n_head, sparse.d_head, sparse.sink, sparse.rms_norm), (3, Some(4), true, true));
    // 0.05 of 12 entries are none.
    assert_eq!(
        (sparse.topk(SiteKind::AttnIn), sparse.residual_topk(0), sparse.residual_topk(1)),
        (Some(1), Some(1), Some(1))
    );
    assert_eq!(sparse.residual_topk(4), None);
    assert_eq!(sparse.tokenizer_name.as_deref(), Some("SimpleStories/SimpleStories-1.25M"));
}

/// A copy of a folder whose configuration has other fields.
fn changed(name: &str, changes: Value) -> TempDir {
    let folder = tempdir().unwrap();
    for entry in fs::read_dir(foreign(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = folder.path().join("config.json");
    let mut fields: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    merge(&mut fields, changes);
    fs::write(&path, fields.to_string()).unwrap();
    folder
}

/// Null takes a field away; objects are changed field by field.
fn merge(fields: &mut Value, changes: Value) {
    let fields = fields.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap().clone() {
        match value {
            Value::Null => drop(fields.remove(&name)),
            Value::Object(_) if fields.get(&name).is_some_and(Value::is_object) => merge(&mut fields[&name], value),
            value => drop(fields.insert(name, value)),
        }
    }
}

#[test]
fn what_cannot_be_computed_is_refused_by_field_and_value() {
    for (name, changes, says) in [
        ("gpt2", json!({ "activation_function": "silu" }), &["activation_function", "silu", "gelu_new"][..]),
        ("gpt2", json!({ "add_cross_attention": true }), &["add_cross_attention", "true"]),
        ("gpt2", json!({ "n_head": 3 }), &["`n_head` is 3", "`n_embd`, 10"]),
        ("gpt2", json!({ "n_head": 0 }), &["`n_head` is 0"]),
        ("gpt2", json!({ "n_embd": "wide" }), &["`n_embd` is \"wide\""]),
        ("gpt2", json!({ "n_layer": 1e9 }), &["n_layer"]),
        ("gpt2", json!({ "n_layer": 1_000_000_000 }), &["n_layer", "1000000000"]),
        ("gpt2", json!({ "scale_attn_weights": 3 }), &["`scale_attn_weights` is 3"]),
        ("gpt2", json!({ "layer_norm_epsilon": 0 }), &["ln_eps", "0"]),
        ("gpt2", json!({ "pruned_heads": { "0": [1] } }), &["pruned_heads"]),
        ("gpt2", json!({ "quantization_config": { "bits": 4 } }), &["quantization_config"]),
        ("gpt_neo", json!({ "attention_layers": ["global", "sparse"] }), &["attention_layers", "sparse"]),
        ("gpt_neo", json!({ "attention_types": [[["local"], 2]] }), &["attention_layers", "attention_types", "differ"]),
        ("gpt_neo", json!({ "attention_layers": null, "attention_types": [[["local"], 1e3]] }), &["attention_types"]),
        (
            "gpt_neo",
            json!({ "attention_layers": null, "attention_types": [[["local"], u64::MAX]] }),
            &["attention_types", "more than the 2 layers"],
        ),
        ("gpt_neo", json!({ "attention_layers": null, "attention_types": [["local", 2]] }), &["attention_types"]),
        ("gpt_neo", json!({ "num_layers": 3 }), &["attention_layers", "2 entries for 3 layers"]),
        ("gpt_neo", json!({ "window_size": 0 }), &["window_size", "0"]),
        ("gpt_neo", json!({ "num_heads": 3 }), &["`num_heads` is 3", "`hidden_size`, 8"]),
        ("sparse_pretrain", json!({ "model_config": { "d_head": 5 } }), &["`d_head` is 5", "`d_model`, 12"]),
        ("sparse_pretrain", json!({ "model_config": { "d_head": 0 } }), &["`d_head` is 0"]),
        ("sparse_pretrain", json!({ "model_config": { "activation": "silu" } }), &["activation", "silu"]),
        ("sparse_pretrain", json!({ "model_config": { "vocab_size": null } }), &["vocab_size"]),
        ("sparse_pretrain", json!({ "sparsity_config": 3 }), &["sparsity_config"]),
        (
            "sparse_pretrain",
            json!({ "model_config": { "use_flash_attention": false } }),
            &["use_flash_attention", "use_attention_sinks"],
        ),
    ] {
        let folder = changed(name, changes);
        let parts: Vec<&str> = says.iter().copied().chain(["config.json"]).collect();
        assert_says(ModelFiles::open(folder.path()), &parts);
    }
}

#[test]
fn fields_that_are_missing_have_the_defaults_of_the_program() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("config.json");
    let read = |fields: Value| {
        fs::write(&path, fields.to_string()).unwrap();
        read_config(&path).unwrap()
    };
    let gpt2 = read(json!({ "model_type": "gpt2", "n_ctx": 1024, "task_specific_params": { "x": 1 } }));
    assert_eq!((gpt2.vocab_size, gpt2.block_size, gpt2.d_model), (50257, 1024, 768));
    assert_eq!((gpt2.n_layer, gpt2.n_head, gpt2.mlp_width()), (12, 12, 3072));
    let neo = read(json!({ "model_type": "gpt_neo" }));
    assert_eq!(
        (neo.n_layer, neo.n_head, neo.d_model, neo.block_size, neo.window_size),
        (24, 16, 2048, 2048, Some(256))
    );
    assert_eq!((neo.attention_options(22).window, neo.attention_options(23).window), (None, Some(256)));
    let general = json!({ "model_type": "gpt2", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "max_position_embeddings": 5, "vocab_size": 7 });
    let general = read(general);
    assert_eq!((general.d_model, general.n_layer, general.n_head, general.block_size), (8, 1, 2, 5));
}

/// The tensors of the folder `gpt2` by the names in its file.
fn gpt2_tensors() -> BTreeMap<String, HostTensor> {
    load_tensors(foreign("gpt2").join("model.safetensors")).unwrap()
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let folder = changed("gpt2", json!({}));
    let path = folder.path().join("model.safetensors");
    let with = |change: &dyn Fn(&mut BTreeMap<String, HostTensor>)| {
        let mut tensors = gpt2_tensors();
        change(&mut tensors);
        write(&path, &tensors, FloatType::F32, "");
        ModelFiles::open(folder.path())
    };
    with(&|_| ()).unwrap();
    // With the masks there are enough tensors for more layers than those that they are of.
    assert_says(with(&|t| drop(t.remove("h.1.mlp.c_fc.weight"))), &["model.safetensors", "h.1.mlp.c_fc.weight"]);
    assert_says(with(&|t| drop(t.remove("wpe.weight"))), &["transformer.wpe.weight"]);
    let flat = |t: &mut BTreeMap<String, HostTensor>| t.get_mut("h.0.attn.c_attn.weight").unwrap().shape = vec![300];
    assert_says(with(&flat), &["h.0.attn.c_attn.weight", "[300]", "a matrix is needed"]);
    let turned = |t: &mut BTreeMap<String, HostTensor>| t.get_mut("h.0.attn.c_attn.weight").unwrap().shape.reverse();
    assert_says(with(&turned), &["h.0.attn.c_attn.weight", "[10, 30]", "[30, 10]"]);
    let more = |t: &mut BTreeMap<String, HostTensor>| {
        t.insert("h.0.crossattention.q_attn.weight".into(), HostTensor { shape: vec![1], data: vec![1.0] });
    };
    assert_says(with(&more), &["the weights hold", "h.0.crossattention.q_attn.weight"]);

    let neo = changed("gpt_neo", json!({}));
    fs::remove_file(neo.path().join("pytorch_model.bin")).unwrap();
    let names = ["q_proj", "k_proj", "v_proj"];
    let part = |part: &str| format!("transformer.h.0.attn.attention.{part}.weight");
    let square = |side: usize| HostTensor { shape: vec![8, side], data: vec![0.0; 8 * side] };
    let tensors = |widths: [usize; 3]| names.iter().zip(widths).map(|(name, width)| (part(name), square(width)));
    let weights = neo.path().join("model.safetensors");
    write(&weights, &tensors([8, 8, 8]).skip(1).collect(), FloatType::F32, "");
    assert_says(ModelFiles::open(neo.path()), &["lacks the tensor", &part("q_proj")]);
    write(&weights, &tensors([8, 7, 8]).collect(), FloatType::F32, "");
    assert_says(ModelFiles::open(neo.path()), &[&part("q_proj"), "8 columns", &part("k_proj"), "7"]);
}

/// Whatever a program puts around the names, the parameters are the same.
#[test]
fn wrapped_and_prefixed_names_are_the_same_model() {
    let folder = changed("gpt2", json!({}));
    let path = folder.path().join("model.safetensors");
    let want = ModelFiles::open(folder.path()).unwrap();
    for prefix in ["transformer.", "model.", "_orig_mod.transformer."] {
        write(&path, &gpt2_tensors(), FloatType::F32, prefix);
        let got = ModelFiles::open(folder.path()).unwrap();
        assert_eq!(crate::bits(got.weights.as_ref()), crate::bits(want.weights.as_ref()), "{prefix}");
    }
    // A matrix is held (in, out), and a mask is no weight.
    let matrix = want.weights.read("transformer.h.0.attn.c_attn.weight").unwrap();
    let held = &gpt2_tensors()["h.0.attn.c_attn.weight"];
    assert_eq!((matrix.shape.as_slice(), held.shape.as_slice()), (&[30, 10][..], &[10, 30][..]));
    assert_eq!((matrix.data[10 * 7 + 3], matrix.data[1]), (held.data[30 * 3 + 7], held.data[30]));
    assert!(want.weights.entries().keys().all(|name| !name.contains("masked_bias")));
}

/// Other values of the fields of a folder whose logits are known must change the logits.
#[test]
fn every_field_of_the_configuration_counts() {
    for (name, changes) in [
        ("gpt2", json!({ "activation_function": "gelu" })),
        ("gpt2", json!({ "layer_norm_epsilon": 1e-5 })),
        ("gpt2", json!({ "scale_attn_weights": false })),
        ("gpt2", json!({ "scale_attn_by_inverse_layer_idx": true })),
        ("gpt2", json!({ "n_head": 5 })),
        ("gpt_neo", json!({ "window_size": 4 })),
        ("gpt_neo", json!({ "attention_layers": ["local", "global"], "attention_types": null })),
        ("gpt_neo", json!({ "num_heads": 4 })),
        ("sparse_pretrain", json!({ "sparsity_config": { "activation_topk_fraction": 0.2 } })),
        (
            "sparse_pretrain_positions",
            json!({ "sparsity_config": { "activation_sparsity_locations": "attn_in,mlp_neuron,resid_mid" } }),
        ),
        (
            "sparse_pretrain_positions",
            json!({ "sparsity_config": { "activation_sparsity_locations": "attn_in,mlp_neuron,resid_pre" } }),
        ),
        ("sparse_pretrain_positions", json!({ "model_config": { "activation": "gelu" } })),
    ] {
        let folder = changed(name, changes.clone());
        let off = difference(folder.path(), &foreign(name).join("expected.safetensors"));
        assert!(off > 2e-5, "{name} {changes}: {off:e}");
    }
}

#[test]
fn what_sparse_pretrain_made_can_be_written_for_it_again() {
    let out = tempdir().unwrap();
    for name in ["sparse_pretrain", "sparse_pretrain_positions"] {
        let (files, folder) = (ModelFiles::open(foreign(name)).unwrap(), out.path().join(name));
        let options = ConvertOptions { to: ConvertFormat::SparsePretrain, ..ConvertOptions::default() };
        convert(&files, &folder, options).unwrap();
        assert_eq!(ModelFiles::open(&folder).unwrap().config, files.config, "{name}");
        let off = difference(&folder, &foreign(name).join("expected.safetensors"));
        assert!(off < 2e-5, "{name}: {off:e}");
    }
}

#[test]
fn what_the_published_code_cannot_express_is_not_converted() {
    let out = tempdir().unwrap();
    for (name, says) in [("gpt2", "activation_type = gelu_tanh"), ("gpt_neo", "attention_layers = global,local")] {
        let files = ModelFiles::open(foreign(name)).unwrap();
        assert_says(convert(&files, &out.path().join(name), ConvertOptions::default()), &["published", says]);
        assert!(!out.path().join(name).exists());
    }
    // The exact GELU and the usual epsilon are the published code's.
    let folder = changed("gpt2", json!({ "activation_function": "gelu", "layer_norm_epsilon": 1e-5 }));
    let (files, to) = (ModelFiles::open(folder.path()).unwrap(), out.path().join("plain"));
    convert(&files, &to, ConvertOptions::default()).unwrap();
    let converted = ModelFiles::open(&to).unwrap();
    assert_eq!(converted.config, files.config);
    assert_eq!(crate::bits(converted.weights.as_ref()), crate::bits(files.weights.as_ref()));
}
