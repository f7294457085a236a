//! Models written as folders that Hugging Face's tools, the published code, the training program
//! sparse_pretrain and this crate read.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::config::MODEL_TYPE;
use super::folder::ModelFiles;
use super::names::{
    BEEG_CONFIG, CONFIG, GENERATION_CONFIG, PYTORCH, SPECIAL_TOKENS, TOKENIZER, TOKENIZER_CONFIG, TORCH, WEIGHTS,
};
use super::sparse_pretrain;
use super::torch::{Numbers, TensorRef, Value as TorchValue, write_torch};
use crate::files::{
    FloatType, TensorInfo, create_folder, follow, replace_dir_atomic, restore, write_atomic, write_safetensors,
};
use crate::model::{EMBEDDING, ModelConfig, UNEMBEDDING, is_buffer};
use crate::text::tokenizer::{Tokenizer, tokenizer_json};
use crate::{Error, Result};

/// The repository on the Hub whose modelling code runs these models, and its classes.
const HUB_CODE: &str = "openai/circuit-sparsity";
const AUTO_MAP: [(&str, &str); 2] =
    [("AutoConfig", "config.CircuitGPTConfig"), ("AutoModelForCausalLM", "modeling_circuitgpt.CircuitGPTForCausalLM")];
/// What that code puts before the published names.
const INSIDE: &str = "circuit_model.";

/// The programs that a folder is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConvertFormat {
    /// Those of [`Self::HuggingFace`] and of [`Self::Torch`].
    #[default]
    All,
    /// Hugging Face's transformers, with the published repository's modelling code: `config.json`,
    /// `model.safetensors`, `generation_config.json`, and the tokenizer as `AutoTokenizer` takes it.
    HuggingFace,
    /// The published inference code: `beeg_config.json` and `final_model.pt`.
    Torch,
    /// The training program sparse_pretrain: its nested `config.json` and `pytorch_model.bin`.
    SparsePretrain,
}

impl ConvertFormat {
    /// All of them with their names in commands.
    pub const NAMED: [(&'static str, Self); 4] = [
        ("all", Self::All),
        ("hf", Self::HuggingFace),
        ("torch", Self::Torch),
        ("sparse_pretrain", Self::SparsePretrain),
    ];

    /// The format of that name.
    ///
    /// # Errors
    /// [`Error::Unknown`] with all names if there is none.
    pub fn named(name: &str) -> Result<Self> {
        let known = || Self::NAMED.map(|(name, _)| name).join(", ");
        let found = Self::NAMED.iter().find(|(known, _)| *known == name).map(|&(_, format)| format);
        found.ok_or_else(|| Error::Unknown { kind: "model format", name: name.into(), known: known() })
    }

    fn for_hugging_face(self) -> bool {
        matches!(self, Self::All | Self::HuggingFace)
    }

    fn for_published_code(self) -> bool {
        matches!(self, Self::All | Self::Torch)
    }
}

/// How a model is to be written.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConvertOptions {
    /// Who is to read it.
    pub to: ConvertFormat,
    /// How numbers are stored: F32, F16 or BF16. None: as they were, and F64 as F32.
    pub float: Option<FloatType>,
    /// Replace a model folder that is in the way.
    pub force: bool,
}

/// Writes `files` as the folder `out`, whole or not at all: the files that
/// [`ConvertOptions::to`] asks for, and `tokenizer.json` if there is one, byte for byte. No more
/// than one tensor is in memory at a time. The same model gives the same bytes.
///
/// # Errors
/// [`Error::Config`] for F64, and for a model that the programs asked for cannot express;
/// [`Error::File`] if `out` holds something and `force` is not set, or something that is no model,
/// or is where `files` are; if the tokenizer is damaged or has more tokens than the model; if a
/// number is too large for the float type asked for; [`Error::Io`] naming what the system refuses.
/// In all cases `out` is as it was.
pub fn convert(files: &ModelFiles, out: &Path, options: ConvertOptions) -> Result<()> {
    if options.float == Some(FloatType::F64) {
        return Err(Error::config("float", "F64 is not written; F32, F16 and BF16 are"));
    }
    // Of a link, the folder that it leads to is made or replaced.
    let out = follow(&std::path::absolute(out).map_err(|e| Error::io(out, e))?)?;
    // A replacement that was cut short may have left the folder aside.
    restore(&out)?;
    check_free(&out, files, options.force)?;
    let tokenizer = files.tokenizer.as_deref().map(|path| load_tokenizer(path, files.config.vocab_size)).transpose()?;
    files.check_tied()?;
    let entries = stored(files.weights.entries(), options.float);
    let (config, nested) = match options.to {
        ConvertFormat::SparsePretrain => {
            (files.config.clone(), Some(sparse_pretrain::Converted::new(files, &entries)?))
        }
        _ => (published_config(&files.config)?, None),
    };
    if let Some(above) = out.parent() {
        create_folder(above)?;
    }
    replace_dir_atomic(&out, |folder| {
        let fields = fields(files, &config)?;
        let end_of_text = tokenizer.as_ref().and_then(|(tokenizer, _)| tokenizer.end_of_text());
        if options.to.for_hugging_face() {
            write_hugging_face_weights(&folder.join(WEIGHTS), files, &entries)?;
            write_json(&folder.join(CONFIG), &hugging_face(fields.clone(), &entries, end_of_text))?;
            write_json(&folder.join(GENERATION_CONFIG), &ends(end_of_text))?;
        }
        if options.to.for_published_code() {
            write_state_dict(&folder.join(TORCH), files, &with_tied(files, &entries))?;
            write_json(&folder.join(BEEG_CONFIG), &published(fields))?;
        }
        if let Some(nested) = &nested {
            write_state_dict(&folder.join(PYTORCH), files, &nested.tensors)?;
            write_json(&folder.join(CONFIG), &nested.config)?;
        }
        let Some((tokenizer, bytes)) = &tokenizer else { return Ok(()) };
        write_bytes(&folder.join(TOKENIZER), bytes)?;
        if options.to.for_hugging_face() {
            let end = end_of_text.map(|id| tokenizer.token_text(id));
            write_json(&folder.join(TOKENIZER_CONFIG), &tokenizer_config(end.as_deref(), files.config.block_size))?;
            write_json(&folder.join(SPECIAL_TOKENS), &special_tokens(end.as_deref()))?;
        }
        Ok(())
    })
}

/// The configuration in the published fields, or an error that names what the published code cannot
/// run.
fn published_config(config: &ModelConfig) -> Result<ModelConfig> {
    if !config.d_model.is_multiple_of(config.n_head) {
        let message = format!(
            "{} does not divide d_model {}, which the published code and Hugging Face's do not run",
            config.n_head, config.d_model
        );
        return Err(Error::config("n_head", message));
    }
    config.as_published()
}

/// What of a state dict is written: by its name there, the tensor's own name and how it is stored.
pub(super) type StateDict = BTreeMap<String, (String, TensorInfo)>;

/// All tensors under their own names and, where the unembedding is the embedding and not in the
/// files, under that name, too: the published loader expects both.
fn with_tied(files: &ModelFiles, entries: &BTreeMap<String, TensorInfo>) -> StateDict {
    let mut dict: StateDict = entries.iter().map(|(name, info)| (name.clone(), (name.clone(), info.clone()))).collect();
    if files.config.tied_unembed
        && !entries.contains_key(UNEMBEDDING)
        && let Some(embedding) = dict.get(EMBEDDING).cloned()
    {
        dict.insert(UNEMBEDDING.into(), embedding);
    }
    dict
}

/// Writes a state dict as `torch.save` does.
fn write_state_dict(path: &Path, files: &ModelFiles, dict: &StateDict) -> Result<()> {
    let tensor = |(name, info): &(String, TensorInfo)| {
        let tensor = TensorRef::contiguous(info.float.into(), &info.shape, name.as_str());
        TorchValue::Tensor(Arc::new(tensor))
    };
    let pairs = dict.iter().map(|(name, stored)| (TorchValue::Str(name.as_str().into()), tensor(stored)));
    write_torch(path, &TorchValue::Dict(pairs.collect()), |name| {
        Ok(Numbers::Floats(Cow::Owned(files.weights.read(name)?.data)))
    })
}

/// Writes the weights under the names that the published modelling code of Hugging Face has for
/// them.
fn write_hugging_face_weights(path: &Path, files: &ModelFiles, entries: &BTreeMap<String, TensorInfo>) -> Result<()> {
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    let inside = entries.iter().map(|(name, info)| (format!("{INSIDE}{name}"), info.clone())).collect();
    let read = |name: &str| files.weights.read(name.strip_prefix(INSIDE).unwrap_or(name)).map(Cow::Owned);
    write_safetensors(path, &inside, Some(&metadata), read)
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
        "is not empty: choose another folder, or replace it (--force)"
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
    Ok((tokenizer, tokenizer_json(path)?))
}

/// What is written, and in which types.
fn stored(entries: &BTreeMap<String, TensorInfo>, float: Option<FloatType>) -> BTreeMap<String, TensorInfo> {
    let keep = |float| if float == FloatType::F64 { FloatType::F32 } else { float };
    let info = |info: &TensorInfo| TensorInfo { shape: info.shape.clone(), float: float.unwrap_or(keep(info.float)) };
    entries.iter().filter(|(name, _)| !is_buffer(name)).map(|(name, entry)| (name.clone(), info(entry))).collect()
}

/// All fields of the configuration. The list of sites has no spaces, which the published code does
/// not trim.
fn fields(files: &ModelFiles, config: &ModelConfig) -> Result<Map<String, Value>> {
    let fields = serde_json::to_value(config).and_then(serde_json::from_value);
    let mut fields: Map<String, Value> = fields.map_err(|e| Error::file(&files.config_path, e.to_string()))?;
    fields.insert("afrac_loctypes".into(), json!(config.afrac_loctypes.names().collect::<Vec<_>>().join(",")));
    Ok(fields)
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
    add(
        "auto_map",
        json!(AUTO_MAP.iter().map(|(auto, class)| (*auto, format!("{HUB_CODE}--{class}"))).collect::<BTreeMap<_, _>>()),
    );
    add("torch_dtype", json!(dominant(entries)));
    add("tie_word_embeddings", tied);
    fields.extend(ends(end_of_text));
    fields
}

/// The tokens that documents begin and end with.
fn ends(end_of_text: Option<u32>) -> Map<String, Value> {
    let both = |id| ["bos_token_id", "eos_token_id"].map(|name| (name.to_string(), json!(id)));
    end_of_text.map(both).into_iter().flatten().collect()
}

/// What `AutoTokenizer` needs to know besides `tokenizer.json`.
fn tokenizer_config(end_of_text: Option<&str>, longest: usize) -> Map<String, Value> {
    let mut fields = special_tokens(end_of_text);
    fields.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
    fields.insert("model_max_length".into(), json!(longest));
    fields.insert("clean_up_tokenization_spaces".into(), json!(false));
    fields
}

fn special_tokens(end_of_text: Option<&str>) -> Map<String, Value> {
    let both = |text| ["bos_token", "eos_token"].map(|name| (name.to_string(), json!(text)));
    end_of_text.map(both).into_iter().flatten().collect()
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
