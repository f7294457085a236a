//! The files that a tokenizer may be in.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::files::{read_text, read_unmarked};
use crate::{Error, Result};

/// The file of a whole tokenizer.
pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// What says which token ends a text, next to a tokenizer.
pub(crate) const SETTINGS: &str = "tokenizer_config.json";

/// The vocabulary and the merges of byte-level BPE, as GPT-2 and RoBERTa have them.
pub(crate) const PAIRS: [[&str; 2]; 2] = [["vocab.json", "merges.txt"], ["encoder.json", "vocab.bpe"]];

/// Files of tokenizers that are not read, and what to do about them.
const OTHERS: [&str; 3] = ["tokenizer.model", "spiece.model", "vocab.txt"];

/// How to make them into what is read.
const CONVERSION: &str = "AutoTokenizer.from_pretrained(…).save_pretrained(…) of transformers writes a tokenizer.json";

/// The name of the end-of-text token where nothing else says it, the most specific first.
pub(super) const END_NAMES: [&str; 7] =
    ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[EOS]", "<|im_end|>", "[SEP]"];

/// The contents of a tokenizer's files.
pub(super) struct TokenizerFiles {
    /// The file that errors name.
    pub(super) path: PathBuf,
    /// The contents of a `tokenizer.json`.
    pub(super) json: String,
    /// The token that ends a text, if a file says it.
    pub(super) end: Option<String>,
}

/// The tokenizer in a folder; of several the first of `tokenizer.json`, [`PAIRS`].
pub(crate) fn find(folder: &Path) -> Option<PathBuf> {
    let whole = Some(folder.join(TOKENIZER)).filter(|path| path.is_file());
    let pair = || PAIRS.iter().find(|pair| pair.iter().all(|name| folder.join(name).is_file()));
    whole.or_else(|| pair().map(|[vocabulary, _]| folder.join(vocabulary)))
}

/// Reads the tokenizer that `path` names: a folder, a `tokenizer.json` of any name, or one of
/// [`PAIRS`], whose other file is next to it.
pub(super) fn read(path: &Path) -> Result<TokenizerFiles> {
    if path.is_dir() {
        return match find(path) {
            Some(found) => read(&found),
            None => Err(Error::file(path, nothing_found(path))),
        };
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    if path.file_name().is_some_and(|name| OTHERS.iter().any(|other| name == *other)) && path.is_file() {
        return Err(Error::file(path, format!("cannot be read; {CONVERSION}")));
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let json = match PAIRS.iter().find(|pair| pair.contains(&name)) {
        Some([vocabulary, merges]) => byte_level(&folder.join(vocabulary), &folder.join(merges))?,
        None => read_text(path)?,
    };
    Ok(TokenizerFiles { path: path.into(), json, end: end_of_text(folder) })
}

/// The `tokenizer.json` that `path` names, byte for byte, or the one that its files make up.
pub(crate) fn tokenizer_json(path: &Path) -> Result<Vec<u8>> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match path.is_dir() || PAIRS.iter().any(|pair| pair.contains(&name)) {
        true => Ok(read(path)?.json.into_bytes()),
        false => read_unmarked(path),
    }
}

fn nothing_found(folder: &Path) -> String {
    let pairs = PAIRS.map(|pair| pair.join(" with "));
    let expected = format!("{TOKENIZER}, {}", pairs.join(", "));
    match OTHERS.iter().find(|name| folder.join(name).is_file()) {
        Some(other) => format!("has no tokenizer that can be read ({expected}): {other} is not; {CONVERSION}"),
        None => format!("has no tokenizer ({expected})"),
    }
}

/// The contents of a `tokenizer.json` for a vocabulary with its merges.
fn byte_level(vocabulary: &Path, merges: &Path) -> Result<String> {
    let vocab: Value =
        serde_json::from_str(&read_text(vocabulary)?).map_err(|error| Error::file(vocabulary, error.to_string()))?;
    let end = END_NAMES.iter().find_map(|name| Some((*name, vocab.get(name)?.as_u64()?)));
    let special: Vec<Value> = end.map(|(name, id)| added(name, id)).into_iter().collect();
    let text = read_text(merges)?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with("#version")).collect();
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
        "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": lines,
    });
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special, "normalizer": null,
        "pre_tokenizer": bytes, "post_processor": null, "decoder": bytes, "model": model,
    });
    Ok(whole.to_string())
}

fn added(name: &str, id: u64) -> Value {
    json!({
        "id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true,
    })
}

/// The token that ends a text, as the settings next to a tokenizer say: a name, or an object with
/// one.
fn end_of_text(folder: &Path) -> Option<String> {
    let settings: Value = serde_json::from_str(&read_text(folder.join(SETTINGS)).ok()?).ok()?;
    let end = &settings["eos_token"];
    end.as_str().or(end["content"].as_str()).map(str::to_string)
}

/// Writes into `folder` which token ends a text.
pub(super) fn write_end(folder: &Path, end: &str) -> Result<()> {
    let path = folder.join(SETTINGS);
    let text = json!({ "eos_token": end, "tokenizer_class": "PreTrainedTokenizerFast" }).to_string();
    crate::files::write_atomic(&path, |out| out.write_all(text.as_bytes()).map_err(|source| Error::io(&path, source)))
}
