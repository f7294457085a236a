//! Models written as folders that Hugging Face's tools, the published code and this crate all read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::config::MODEL_TYPE;
use super::folder::ModelFiles;
use super::names::{BEEG_CONFIG, CONFIG, TOKENIZER, WEIGHTS};
use crate::files::{
    FloatType, TensorInfo, create_folder, follow, read_unmarked, replace_dir_atomic, restore, write_atomic,
    write_safetensors,
};
use crate::model::{ModelConfig, is_buffer};
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// How a model is to be written.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConvertOptions {
    /// How numbers are stored: F32, F16 or BF16. None: as they were, and F64 as F32.
    pub float: Option<FloatType>,
    /// Replace a model folder that is in the way.
    pub force: bool,
}

/// Writes `files` as the folder `out`, whole or not at all: `config.json` as Hugging Face has it,
/// `beeg_config.json` as published, `model.safetensors` under the published names, and
/// `tokenizer.json` if there is one, byte for byte. No more than one tensor is in memory at a time.
/// The same model gives the same bytes.
///
/// # Errors
/// [`Error::Config`] for F64; [`Error::File`] if `out` holds something and `force` is not set, or
/// something that is no model, or is where `files` are; if the tokenizer is damaged or has more
/// tokens than the model; if the published code cannot express the model; if a number is too large for the float type asked for; [`Error::Io`]
/// naming what the system refuses. In all cases `out` is as it was.
pub fn convert(files: &ModelFiles, out: &Path, options: ConvertOptions) -> Result<()> {
    if options.float == Some(FloatType::F64) {
        return Err(Error::config("float", "F64 is not written; F32, F16 and BF16 are"));
    }
    // Of a link, the folder that it leads to is made or replaced.
    let out = follow(&std::path::absolute(out).map_err(|e| Error::io(out, e))?)?;
    // A replacement that was cut short may have left the folder aside.
    restore(&out)?;
    check_free(&out, files, options.force)?;
    let config = published_config(files)?;
    let tokenizer = files.tokenizer.as_deref().map(|path| load_tokenizer(path, files.config.vocab_size)).transpose()?;
    files.check_tied()?;
    let entries = stored(files.weights.entries(), options.float);
    if let Some(above) = out.parent() {
        create_folder(above)?;
    }
    replace_dir_atomic(&out, |folder| {
        let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        let read = |name: &str| files.weights.read(name).map(Cow::Owned);
        write_safetensors(folder.join(WEIGHTS), &entries, Some(&metadata), read)?;
        let fields = fields(files, &config)?;
        let end_of_text = tokenizer.as_ref().and_then(|(tokenizer, _)| tokenizer.end_of_text());
        write_json(&folder.join(CONFIG), &hugging_face(fields.clone(), &entries, end_of_text))?;
        write_json(&folder.join(BEEG_CONFIG), &published(fields))?;
        if let Some((_, bytes)) = &tokenizer { write_bytes(&folder.join(TOKENIZER), bytes) } else { Ok(()) }
    })
}

/// Returns an error if writing `out` would replace anything but, with `force`, a model.
fn check_free(out: &Path, files: &ModelFiles, force: bool) -> Result<()> {
    let Ok(metadata) = out.symlink_metadata() else { return Ok(()) };
    if !metadata.is_dir() {
        return Err(Error::file(out, "is in the way: it is no folder"));
    }
    let mut names = Vec::new();
    let mut nested = false;
    for entry in std::fs::read_dir(out).map_err(|e| Error::io(out, e))? {
        let entry = entry.map_err(|e| Error::io(out, e))?;
        nested |= entry.file_type().map_err(|e| Error::io(entry.path(), e))?.is_dir();
        names.push(entry.file_name());
    }
    let has = |name: &str| names.iter().any(|found| found == name);
    let sources = [Some(&files.config_path), Some(&files.weights_path), files.tokenizer.as_ref()];
    let homes = sources.into_iter().flatten().filter_map(|path| path.parent());
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let wrong = if names.is_empty() {
        return Ok(());
    } else if homes.map(|home| if home == Path::new("") { Path::new(".") } else { home }).any(|h| real(h) == real(out))
    {
        "is the folder that is being converted: choose another"
    } else if !force {
        "is not empty: choose another folder, or force its replacement"
    } else if nested || !(has(CONFIG) || has(BEEG_CONFIG)) {
        "is not the folder of a model and will not be replaced: choose another"
    } else {
        return Ok(());
    };
    Err(Error::file(out, wrong))
}

/// The tokenizer and the bytes of its file.
fn load_tokenizer(path: &Path, vocab_size: usize) -> Result<(Tokenizer, Vec<u8>)> {
    let tokenizer = Tokenizer::load(path)?;
    if tokenizer.vocab_size() > vocab_size {
        let tokens = tokenizer.vocab_size();
        return Err(Error::file(path, format!("has {tokens} tokens, the model only {vocab_size}")));
    }
    Ok((tokenizer, read_unmarked(path)?))
}

/// What is written, and in which types.
fn stored(entries: &BTreeMap<String, TensorInfo>, float: Option<FloatType>) -> BTreeMap<String, TensorInfo> {
    let keep = |float| if float == FloatType::F64 { FloatType::F32 } else { float };
    let info = |info: &TensorInfo| TensorInfo { shape: info.shape.clone(), float: float.unwrap_or(keep(info.float)) };
    entries.iter().filter(|(name, _)| !is_buffer(name)).map(|(name, entry)| (name.clone(), info(entry))).collect()
}

/// The configuration in the published fields, or an error that names what they cannot express.
fn published_config(files: &ModelFiles) -> Result<ModelConfig> {
    files.config.as_published().map_err(|error| Error::file(&files.config_path, error.to_string()))
}

/// All fields of the configuration.
fn fields(files: &ModelFiles, config: &ModelConfig) -> Result<Map<String, Value>> {
    let fields = serde_json::to_value(config).and_then(serde_json::from_value);
    fields.map_err(|e| Error::file(&files.config_path, e.to_string()))
}

/// `fields` as `beeg_config.json` has them: `sink` is younger than most published models, so that
/// it is there only if true.
fn published(mut fields: Map<String, Value>) -> Map<String, Value> {
    if fields.get("sink") == Some(&Value::Bool(false)) {
        fields.remove("sink");
    }
    fields
}

/// `fields` as Hugging Face's `config.json` has them.
fn hugging_face(
    mut fields: Map<String, Value>,
    entries: &BTreeMap<String, TensorInfo>,
    end_of_text: Option<u32>,
) -> Map<String, Value> {
    let tied = fields.get("tied_unembed").cloned().unwrap_or_default();
    let mut add = |name: &str, value| fields.insert(name.into(), value);
    add("model_type", json!(MODEL_TYPE));
    add("architectures", json!(["CircuitGPTForCausalLM"]));
    add("torch_dtype", json!(dominant(entries)));
    add("tie_word_embeddings", tied);
    if let Some(id) = end_of_text {
        add("bos_token_id", json!(id));
        add("eos_token_id", json!(id));
    }
    fields
}

/// PyTorch's name of the type that most numbers are stored in.
fn dominant(entries: &BTreeMap<String, TensorInfo>) -> &'static str {
    let types = [(FloatType::F32, "float32"), (FloatType::F16, "float16"), (FloatType::BF16, "bfloat16")];
    let held = |float: FloatType| -> usize {
        entries.values().filter(|info| info.float == float).map(|info| info.shape.iter().product::<usize>()).sum()
    };
    let most = types.iter().rev().max_by_key(|(float, _)| held(*float));
    most.map_or("float32", |(_, name)| name)
}

fn write_json(path: &Path, fields: &Map<String, Value>) -> Result<()> {
    let text = serde_json::to_string_pretty(fields).map_err(|e| Error::file(path, e.to_string()))?;
    write_bytes(path, format!("{text}\n").as_bytes())
}

fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    let path: PathBuf = path.into();
    write_atomic(&path, |out| out.write_all(bytes).map_err(|e| Error::io(&path, e)))
}
