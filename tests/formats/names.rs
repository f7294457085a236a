//! Models under the names that other programs give their tensors, and what is said of tensors that
//! will not do.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gossamer::device::Device;
use gossamer::files::{FloatType, HostIds, HostTensor, TensorInfo, save_arrays, write_safetensors};
use gossamer::formats::config::read_config;
use gossamer::formats::{ConvertOptions, ModelFiles, convert};
use gossamer::model::{Model, ModelConfig, WeightFormat};
use serde_json::json;
use tempfile::tempdir;

use crate::{assert_says, bits, bits_of, config, weights, write_config, write_model};

/// Writes `tensors` under the names that `rename` gives them.
fn write_as(path: &Path, tensors: &BTreeMap<String, HostTensor>, rename: impl Fn(&str) -> String) {
    let renamed: BTreeMap<String, &HostTensor> = tensors.iter().map(|(name, t)| (rename(name), t)).collect();
    let info = |t: &&HostTensor| TensorInfo { shape: t.shape.clone(), float: FloatType::F32 };
    let entries = renamed.iter().map(|(name, t)| (name.clone(), info(t))).collect();
    write_safetensors(path, &entries, None, |name| Ok(Cow::Borrowed(renamed[name]))).unwrap();
}

#[test]
fn prefixes_that_all_names_share_are_passed_over() {
    let dir = tempdir().unwrap();
    let tensors = write_model(dir.path());
    let file = dir.path().join("model.safetensors");
    for prefix in ["_orig_mod.", "module.", "model.", "module._orig_mod.", "_orig_mod.module.model."] {
        write_as(&file, &tensors, |name| format!("{prefix}{name}"));
        let files = ModelFiles::open(dir.path()).unwrap();
        assert_eq!(bits(files.weights.as_ref()), bits_of(&tensors), "{prefix}");
        write_as(&file, &tensors, |name| format!("{prefix}{}", name.strip_prefix("transformer.").unwrap_or(name)));
        assert_eq!(bits(ModelFiles::open(dir.path()).unwrap().weights.as_ref()), bits_of(&tensors), "{prefix}");
    }
    write_as(&file, &tensors, |name| format!("module.{name}x"));
    assert_says(ModelFiles::open(dir.path()), &["model.safetensors", "lack"]);
}

#[test]
fn a_tensor_of_whole_numbers_is_of_the_wrong_type() {
    let dir = tempdir().unwrap();
    let tensors = write_model(dir.path());
    for name in ["transformer.wte.weight", "final_logits_bias", "transformer.h.1.mlp.c_fc.weight"] {
        let mut floats = tensors.clone();
        let HostTensor { shape, data } = floats.remove(name).unwrap();
        let ids = BTreeMap::from([(name.to_string(), HostIds { shape, data: vec![0; data.len()] })]);
        save_arrays(dir.path().join("model.safetensors"), &floats, &ids, None).unwrap();
        assert_says(ModelFiles::open(dir.path()), &["model.safetensors", name, "of the wrong type", "I64"]);
    }
}

#[test]
fn another_type_of_model_is_refused_by_that_type() {
    let dir = tempdir().unwrap();
    write_model(dir.path());
    let path = dir.path().join("config.json");
    for more in [json!({ "model_type": "gptj", "n_embd": 768 }), json!({ "model_type": "opt", "d_model": 99 })] {
        write_config(&path, &config(), more.clone());
        assert_says(ModelFiles::open(dir.path()), &["config.json", more["model_type"].as_str().unwrap()]);
    }
    fs::write(&path, json!({ "model_type": "gptj", "n_layer": 12, "n_embd": 768, "n_head": 12 }).to_string()).unwrap();
    assert_says(ModelFiles::open(dir.path()), &["`gptj`", "`circuitgpt`, `gpt2`, `gpt_neo` models"]);
    fs::write(&path, format!("\u{feff}{}", serde_json::to_string(&config()).unwrap())).unwrap();
    assert_eq!(read_config(&path).unwrap(), config(), "a byte order mark");
}

#[test]
fn tied_matrices_that_differ_are_refused_and_equal_ones_open() {
    let dir = tempdir().unwrap();
    write_model(dir.path());
    let tied = ModelConfig { tied_unembed: true, ..config() };
    write_config(&dir.path().join("config.json"), &tied, json!({}));
    let file = dir.path().join("model.safetensors");
    let both = ["lm_head.weight", "transformer.wte.weight", "tied_unembed", "model.safetensors"];
    let device = Device::cpu();
    let load = || ModelFiles::open(dir.path()).and_then(|files| files.load(WeightFormat::Sparse, &device)).map(drop);
    assert_says(load(), &both);
    assert_says(Model::load(dir.path(), &device).map(drop), &both);
    let out = dir.path().join("out");
    assert_says(convert(&ModelFiles::open(dir.path()).unwrap(), &out, ConvertOptions::default()), &both);
    assert!(!out.exists());

    let mut tensors = weights(&config());
    let mut shared = tensors["transformer.wte.weight"].clone();
    (shared.data[0], shared.data[1]) = (f32::NAN, 0.0);
    tensors.insert("transformer.wte.weight".into(), shared.clone());
    shared.data[1] = -0.0;
    tensors.insert("lm_head.weight".into(), shared);
    write_as(&file, &tensors, str::to_string);
    load().unwrap();
    // Some programs write only one of two that are one.
    for left_out in ["lm_head.weight", "transformer.wte.weight"] {
        let mut one = tensors.clone();
        one.remove(left_out);
        write_as(&file, &one, str::to_string);
        load().unwrap();
    }
}
