//! Other people's files: found, opened, read right, fetched and converted, and damaged or hostile
//! ones refused.

#[cfg(feature = "hub")]
#[path = "../common/fake_hub.rs"]
mod fake_hub;

mod convert;
mod damage;
mod families;
mod feed;
mod folder;
mod fuzz;
mod graph;
mod hub;
mod names;
mod pickled;
#[cfg(feature = "hub")]
mod push;
mod sources;
mod torch;
mod viz;

use feed::stored_zip;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use gossamer::files::{FloatType, HostTensor, InMemory, TensorInfo, TensorSource, write_safetensors};
use gossamer::model::{ModelConfig, Parameters};

/// A small model of every kind of parameter that RMSNorm leaves.
fn config() -> ModelConfig {
    ModelConfig {
        block_size: 4,
        vocab_size: 6,
        n_layer: 2,
        n_head: 2,
        d_head: Some(2),
        d_model: 4,
        d_mlp: Some(3),
        rms_norm: true,
        tied_unembed: false,
        enable_bigram_table: true,
        sink: true,
        ..ModelConfig::default()
    }
}

/// Weights of that model that every float type holds exactly.
fn weights(config: &ModelConfig) -> BTreeMap<String, HostTensor> {
    let mut next = 0i16;
    let mut number = || {
        next = (next + 37) % 251;
        f32::from(next - 125) / 64.0
    };
    let shapes = Parameters::shapes(config).into_iter();
    shapes
        .map(|(name, _, shape)| {
            let data = (0..shape.iter().product()).map(|_| number()).collect();
            (name, HostTensor { shape, data })
        })
        .collect()
}

/// Writes `tensors`, each name behind `prefix`, as `float`.
fn write(path: &Path, tensors: &BTreeMap<String, HostTensor>, float: FloatType, prefix: &str) {
    let info = |t: &HostTensor| TensorInfo { shape: t.shape.clone(), float };
    let entries = tensors.iter().map(|(name, t)| (format!("{prefix}{name}"), info(t))).collect();
    write_safetensors(path, &entries, None, |name| Ok(Cow::Borrowed(&tensors[&name[prefix.len()..]]))).unwrap();
}

/// Writes a configuration: that of `config` with `more` fields.
fn write_config(path: &Path, config: &ModelConfig, more: serde_json::Value) {
    let mut fields = serde_json::to_value(config).unwrap();
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    std::fs::write(path, fields.to_string()).unwrap();
}

/// A whole published folder with safetensors.
fn write_model(folder: &Path) -> BTreeMap<String, HostTensor> {
    std::fs::create_dir_all(folder).unwrap();
    let tensors = weights(&config());
    write_config(&folder.join("config.json"), &config(), serde_json::json!({ "model_type": "circuitgpt" }));
    write(&folder.join("model.safetensors"), &tensors, FloatType::F32, "");
    tensors
}

/// Everything that a source holds, with the bits of the numbers.
fn bits(source: &dyn TensorSource) -> BTreeMap<String, (Vec<usize>, Vec<u32>)> {
    let read = |name: &String| {
        let tensor = source.read(name).unwrap();
        (name.clone(), (tensor.shape, tensor.data.iter().map(|x| x.to_bits()).collect()))
    };
    source.entries().keys().map(read).collect()
}

/// The same of tensors in memory.
fn bits_of(tensors: &BTreeMap<String, HostTensor>) -> BTreeMap<String, (Vec<usize>, Vec<u32>)> {
    bits(&InMemory::from(tensors.clone()))
}

/// Panics unless `error` names all of `parts`.
#[track_caller]
fn assert_says<T>(result: gossamer::Result<T>, parts: &[&str]) {
    let Err(error) = result else { panic!("no error, expected one with {parts:?}") };
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
}
