//! What of a `tokenizer.json` is used, and what is refused: what the parsing crate would accept
//! silently, or panic on.

use serde_json::Value;

/// A larger id counts as damage.
pub(super) const MAX_ID: u64 = 1 << 24;

/// A larger score of a Unigram token counts as damage: sums of them must be finite.
const MAX_SCORE: f64 = 1e9;

/// Characters of a word that WordPiece looks at, at most: its time grows with their square.
const MAX_WORD: u64 = 10_000;

/// The parts of a tokenizer around the model, the name of the list in a sequence of each, and the
/// kinds that are used. Some other kinds make the parsing crate panic if their settings are damaged.
const PARTS: [(&str, &str, &[&str]); 3] = [
    (
        "normalizer",
        "normalizers",
        &[
            "NFC",
            "NFD",
            "NFKC",
            "NFKD",
            "Lowercase",
            "StripAccents",
            "Nmt",
            "Prepend",
            "ByteLevel",
            "BertNormalizer",
            "Replace",
            "Strip",
        ],
    ),
    (
        "pre_tokenizer",
        "pretokenizers",
        &[
            "ByteLevel",
            "Split",
            "Digits",
            "Punctuation",
            "Whitespace",
            "WhitespaceSplit",
            "UnicodeScripts",
            "Metaspace",
            "BertPreTokenizer",
        ],
    ),
    ("decoder", "decoders", &["ByteLevel", "Fuse", "ByteFallback", "Metaspace", "WordPiece", "Replace", "Strip"]),
];

fn check_part(part: &Value, name: &str, list: &str, kinds: &[&str]) -> Result<(), String> {
    match part["type"].as_str() {
        _ if part.is_null() => Ok(()),
        Some("Sequence") => {
            part[list].as_array().into_iter().flatten().try_for_each(|inner| check_part(inner, name, list, kinds))
        }
        Some(kind) if kinds.contains(&kind) => Ok(()),
        Some(other) => Err(format!("has a {name} of type {other:?}; only {} are supported", kinds.join(", "))),
        None => Err(format!("has a {name} without a `type`")),
    }
}

/// Returns an error if a part of the tokenizer is not supported, or damaged.
pub(super) fn check(json: &Value) -> Result<(), String> {
    PARTS.iter().try_for_each(|&(name, list, kinds)| check_part(&json[name], name, list, kinds))?;
    let model = &json["model"];
    match model["type"].as_str() {
        Some("BPE") => bpe(model),
        Some("WordPiece") => word_piece(model),
        Some("Unigram") => unigram(model),
        Some(other) => Err(format!("a {other} tokenizer; only BPE, WordPiece and Unigram are supported")),
        None => Err("has no `model` with a `type`".into()),
    }
}

/// The tokens of a vocabulary with ids, which all differ.
fn vocabulary(model: &Value) -> Result<&serde_json::Map<String, Value>, String> {
    let vocab = model["vocab"].as_object().ok_or("has no `model.vocab`")?;
    let mut ids: Vec<u64> = Vec::with_capacity(vocab.len());
    for (token, id) in vocab {
        let id = id.as_u64().filter(|&id| id < MAX_ID);
        ids.push(id.ok_or_else(|| format!("the id of token {token:?} is not a number below {MAX_ID}"))?);
    }
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("two tokens have the id {}", pair[0])),
        None => Ok(vocab),
    }
}

fn bpe(model: &Value) -> Result<(), String> {
    if model["continuing_subword_prefix"].as_str().is_some_and(|prefix| !prefix.is_empty()) {
        return Err("uses `continuing_subword_prefix`, which byte-level BPE does not".into());
    }
    if model["dropout"].as_f64().is_some_and(|dropout| dropout > 0.0) {
        return Err("uses `dropout`, so that the same text has different tokens every time".into());
    }
    let vocab = vocabulary(model)?;
    let merges = model["merges"].as_array().ok_or("has no `model.merges`")?;
    for (index, merge) in merges.iter().enumerate() {
        let pair = match (merge.as_str(), merge.as_array().map(Vec::as_slice)) {
            (Some(line), _) => line.split_once(' '),
            (_, Some([left, right])) => left.as_str().zip(right.as_str()),
            _ => None,
        };
        let (left, right) = pair.ok_or_else(|| format!("merge {index} is not a pair of tokens"))?;
        for token in [left, right, &format!("{left}{right}")] {
            if !vocab.contains_key(token) {
                return Err(format!("merge {index} needs the token {token:?}, which the vocabulary lacks"));
            }
        }
    }
    Ok(())
}

fn word_piece(model: &Value) -> Result<(), String> {
    let vocab = vocabulary(model)?;
    let unknown = model["unk_token"].as_str().ok_or("has no `model.unk_token`")?;
    if !vocab.contains_key(unknown) {
        return Err(format!("its vocabulary lacks the token {unknown:?} for unknown words"));
    }
    match model["max_input_chars_per_word"].as_u64() {
        Some(most) if most <= MAX_WORD => Ok(()),
        _ => Err(format!("`model.max_input_chars_per_word` is not a number up to {MAX_WORD}")),
    }
}

fn unigram(model: &Value) -> Result<(), String> {
    let vocab = model["vocab"].as_array().ok_or("has no `model.vocab`")?;
    if vocab.is_empty() || vocab.len() as u64 > MAX_ID {
        return Err(format!("its vocabulary has {} tokens, not 1 to {MAX_ID}", vocab.len()));
    }
    for (id, entry) in vocab.iter().enumerate() {
        let pair = entry.as_array().and_then(|pair| Some((pair.first()?.as_str()?, pair.get(1)?.as_f64()?)));
        let (token, score) = pair.ok_or_else(|| format!("entry {id} of the vocabulary is not a token with a score"))?;
        if token.is_empty() || score.abs() > MAX_SCORE {
            return Err(format!("entry {id} of the vocabulary is the token {token:?} with the score {score}"));
        }
    }
    match (model["unk_id"].as_u64(), model["byte_fallback"].as_bool()) {
        (Some(id), _) if id < vocab.len() as u64 => Ok(()),
        (None, Some(true)) if model["unk_id"].is_null() => {
            Err("has no token for unknown characters (`model.unk_id`), which byte fallback needs as well".into())
        }
        _ => Err("has no token for unknown characters (`model.unk_id`)".into()),
    }
}
