//! Byte-level BPE tokenizers: trained here, or read from any `tokenizer.json`.

use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use super::bpe::{WordCounts, count_words, learn_merges};
use super::encode::{BYTE_CHARS, CutPoints, Encoder, Sink};
use super::notation;
use super::words::Words;
use crate::files::{hex, read_text, write_atomic};
use crate::observer::{Observer, Stage};
use crate::{Error, Result};

/// The pattern that splits text into words before BPE in the published models: a word with one
/// leading character, up to three digits, punctuation with the line ends after it, line ends with
/// the white space before them, other white space.
pub(crate) const PATTERN: &str =
    concat!(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*", r"|\s*[\r\n]+|\s+(?!\S)|\s+");

/// [`PATTERN`] without its white space at the end.
pub(super) const HEAD: &str = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+";

/// The special token that ends every document of a corpus.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// The smallest vocabulary: one symbol per byte, and [`END_OF_TEXT`].
pub const MIN_VOCAB: usize = 257;

/// Training reads this many bytes of text at most.
const TRAIN_BYTES: usize = 1 << 30;

/// Bytes of documents that training holds at a time.
const TRAIN_BATCH: usize = 1 << 22;

/// A larger id in a file counts as damage.
const MAX_ID: u64 = 1 << 24;

/// A byte-level BPE tokenizer. `decode(encode(text)) == text` for every text, unless a loaded file
/// has a normalizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    json: String,
    vocab_size: usize,
    cuts: CutPoints,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if it cannot be read, and [`Error::File`] if it is no consistent BPE
    /// tokenizer.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(&read_text(path)?).map_err(|message| Error::file(path, message))
    }

    /// Writes `tokenizer.json`, whole or not at all.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        write_atomic(path, |out| out.write_all(self.json.as_bytes()).map_err(|e| Error::io(path, e)))
    }

    /// The contents of `tokenizer.json`. The same tokenizer always gives the same text.
    pub fn to_json(&self) -> Result<String> {
        Ok(self.json.clone())
    }

    /// A tokenizer from the contents of a `tokenizer.json`.
    pub fn from_json(json: &str) -> Result<Self> {
        Self::parse(json).map_err(|message| Error::Tokenizer(format!("tokenizer: {message}")))
    }

    fn parse(json: &str) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_str(json).map_err(|error| format!("not JSON: {error}"))?;
        check(&value)?;
        // Not from the text itself: of a duplicate key, one value may have been checked and the
        // other be used.
        let checked = value.to_string();
        let inner: tokenizers::Tokenizer = checked.parse().map_err(|error| format!("not a tokenizer: {error}"))?;
        Self::wrap(inner)
    }

    fn wrap(mut inner: tokenizers::Tokenizer) -> Result<Self, String> {
        // Otherwise text that spells a special token would become it.
        inner.set_encode_special_tokens(true);
        // Some published files have truncation or padding, which would change corpora and prompts.
        let failed = |error: tokenizers::Error| error.to_string();
        inner.with_truncation(None).map_err(failed)?.with_padding(None);
        let json = inner.to_string(true).map_err(failed)?;
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        let cuts = CutPoints::of(&inner);
        Ok(Self { inner, json, vocab_size, cuts })
    }

    /// Trains a byte-level BPE with the published `PATTERN` on `documents`: 256 byte symbols,
    /// then merges by falling frequency (ties by lower ids), then [`END_OF_TEXT`] as the last id.
    /// The same documents, in any order and on any number of threads, give the same bytes of
    /// [`Self::to_json`]. Reads at most one gibibyte; ten megabytes are enough for a vocabulary of
    /// 2048. Takes time in proportion to the text, even with long words.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if `vocab_size` is below [`MIN_VOCAB`], [`Error::Tokenizer`] if
    /// the text is too small for it, and [`Error::Stopped`].
    pub fn train(
        documents: impl Iterator<Item = String> + Send,
        vocab_size: usize,
        observer: &Observer,
    ) -> Result<Self> {
        if vocab_size < MIN_VOCAB || vocab_size as u64 > MAX_ID {
            let message = format!("is {vocab_size}, must be between {MIN_VOCAB} and {MAX_ID}");
            return Err(Error::config("vocab_size", message));
        }
        let counts = words_of(documents, observer)?;
        let mut alphabet: Vec<(char, u8)> = BYTE_CHARS.iter().copied().zip(0..=255).collect();
        alphabet.sort_unstable();
        let mut symbols = [0; 256];
        (0..).zip(&alphabet).for_each(|(id, &(_, byte))| symbols[usize::from(byte)] = id);
        let (merges, tokens) = learn_merges(&counts, &symbols, vocab_size - 1, observer)?;
        let reached = tokens.len() + 1;
        if reached != vocab_size {
            return Err(Error::Tokenizer(format!(
                "the text gives a vocabulary of only {reached} tokens, not {vocab_size}: lower vocab_size to {reached} or \
                 less, or train on more text"
            )));
        }
        let tokens: Vec<String> = tokens.iter().map(|bytes| printable(bytes)).collect();
        let merges = merges.iter().map(|pair| (tokens[pair.0 as usize].clone(), tokens[pair.1 as usize].clone()));
        let (merges, vocab) = (merges.collect(), Vocab::from_iter(tokens.iter().cloned().zip(0..)));
        Self::assemble(vocab, merges)
            .map_err(|error| Error::Tokenizer(format!("training the tokenizer: {error}")))
            .and_then(|inner| Self::wrap(inner).map_err(Error::Tokenizer))
    }

    fn assemble(vocab: Vocab, merges: Vec<(String, String)>) -> tokenizers::Result<tokenizers::Tokenizer> {
        let mut inner = tokenizers::Tokenizer::new(BPE::builder().vocab_and_merges(vocab, merges).build()?);
        inner.with_pre_tokenizer(Some(pre_tokenizer()?));
        inner.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::new(false, false, false))));
        inner.add_special_tokens([AddedToken::from(END_OF_TEXT, true)])?;
        Ok(inner)
    }

    /// The tokens of `text`. A special token spelled out in `text` is ordinary text; see
    /// [`Self::encode_special`].
    ///
    /// # Errors
    /// Returns [`Error::Tokenizer`] for more than 16 MiB of text in which this tokenizer cannot be
    /// cut. That never happens with `PATTERN` or the patterns of GPT-2, GPT-4 and similar ones,
    /// and with others only if no blank follows a letter for so long.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut all = Vec::new();
        self.encode_parts(text, &mut |ids, _| {
            all.extend(ids);
            Ok(())
        })?;
        Ok(all)
    }

    /// As [`Self::encode`], but special tokens spelled out in `text`, such as [`END_OF_TEXT`],
    /// become those tokens.
    pub fn encode_special(&self, text: &str) -> Result<Vec<u32>> {
        let mut inner = self.inner.clone();
        inner.set_encode_special_tokens(false);
        let encoding =
            inner.encode_fast(text, false).map_err(|error| Error::Tokenizer(format!("encoding: {error}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// As [`Self::encode`], part by part, so that memory does not grow with the text; an error of
    /// `sink` ends it.
    pub(super) fn encode_parts(&self, text: &str, sink: Sink) -> Result<()> {
        Encoder { tokenizer: &self.inner, cuts: &self.cuts }.encode(text, sink)
    }

    /// [`Self::encode`] of several texts, on every core.
    pub fn encode_batch<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vec<u32>>> {
        texts.par_iter().map(|text| self.encode(text.as_ref())).collect()
    }

    /// The text of `ids`. Bytes that are not UTF-8 (a part of a character) become U+FFFD.
    ///
    /// # Errors
    /// Returns [`Error::Tokenizer`] for an id that the tokenizer does not have.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(unknown) = ids.iter().find(|&&id| self.inner.id_to_token(id).is_none()) {
            let size = self.vocab_size;
            return Err(Error::Tokenizer(format!("token {unknown} is not in the tokenizer's vocabulary of {size}")));
        }
        self.inner.decode(ids, false).map_err(|error| Error::Tokenizer(format!("decoding: {error}")))
    }

    /// The bytes of token `id`; for a special token those of its name.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let token = self.inner.id_to_token(id)?;
        let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
        Some(bytes.unwrap_or_else(|| token.into_bytes()))
    }

    /// The text of token `id` for files: bytes that are not UTF-8 as `<0xE2>`, an id that the
    /// tokenizer does not have as `<512>`. [`Self::show`] is for people.
    pub fn token_text(&self, id: u32) -> String {
        self.token_bytes(id).map_or_else(|| notation::unknown(id), |bytes| notation::lossless(&bytes))
    }

    /// Token `id` between backticks, with invisible characters escaped (see [`notation`]).
    pub fn show(&self, id: u32) -> String {
        notation::token(&self.token_text(id))
    }

    /// As [`Self::show`], without backticks; `None` for an id that the tokenizer does not have.
    /// [`Self::decode`] returns text that can be encoded again.
    pub fn token_str(&self, id: u32) -> Option<String> {
        self.token_bytes(id).map(|bytes| notation::visible(&notation::lossless(&bytes)))
    }

    /// The id of `text` if it is exactly one token.
    pub fn single_token(&self, text: &str) -> Option<u32> {
        if let &[id] = self.encode(text).ok()?.as_slice() { Some(id) } else { None }
    }

    /// One more than the largest id: the number of embedding rows that a model needs.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of [`END_OF_TEXT`].
    pub fn end_of_text(&self) -> Option<u32> {
        self.inner.token_to_id(END_OF_TEXT)
    }

    /// SHA-256 of [`Self::to_json`], in hexadecimal: equal for equal tokenizers.
    pub fn hash(&self) -> String {
        hex(&Sha256::digest(self.json.as_bytes()))
    }
}

/// The words of the first gibibyte of `documents`.
fn words_of(documents: impl Iterator<Item = String>, observer: &Observer) -> Result<WordCounts> {
    let words = Words::published().ok_or_else(|| Error::Tokenizer("the pattern of words does not compile".into()))?;
    let (mut counts, mut batch) = (WordCounts::new(), Vec::new());
    let (mut size, mut done) = (0, 0);
    for document in documents {
        size += document.len();
        batch.push(document);
        if size >= TRAIN_BATCH {
            count_words(&words, &batch, &mut counts, observer)?;
            batch.clear();
            done += std::mem::take(&mut size);
            let stage = Stage { name: "counting words", done: done as u64, total: None, unit: "bytes" };
            observer.advance(&stage)?;
        }
        if done + size >= TRAIN_BYTES {
            break;
        }
    }
    count_words(&words, &batch, &mut counts, observer)?;
    Ok(counts)
}

fn pre_tokenizer() -> tokenizers::Result<PreTokenizerWrapper> {
    let split = Split::new(SplitPattern::Regex(PATTERN.into()), SplitDelimiterBehavior::Isolated, false)?;
    let bytes = ByteLevel::new(false, true, false);
    Ok(PreTokenizerWrapper::Sequence(Sequence::new(vec![
        PreTokenizerWrapper::Split(split),
        PreTokenizerWrapper::ByteLevel(bytes),
    ])))
}

fn printable(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| BYTE_CHARS[usize::from(byte)]).collect()
}

/// The byte of a printable character of [`BYTE_CHARS`].
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0..256 => u8::try_from(code).ok().filter(|&byte| BYTE_CHARS[usize::from(byte)] == c),
        256..324 => BYTE_CHARS.iter().zip(0..=255).find(|&(&stand_in, _)| stand_in == c).map(|(_, byte)| byte),
        _ => None,
    }
}

/// The parts of a tokenizer around the model, the name of the list in a sequence of each, and the
/// kinds that byte-level BPE uses. Some other kinds make the parsing crate panic if their settings
/// are damaged.
const PARTS: [(&str, &str, &[&str]); 3] = [
    (
        "normalizer",
        "normalizers",
        &["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "Prepend", "ByteLevel"],
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
        ],
    ),
    ("decoder", "decoders", &["ByteLevel", "Fuse", "ByteFallback", "Metaspace"]),
];

fn check_part(part: &serde_json::Value, name: &str, list: &str, kinds: &[&str]) -> Result<(), String> {
    match part["type"].as_str() {
        _ if part.is_null() => Ok(()),
        Some("Sequence") => {
            part[list].as_array().into_iter().flatten().try_for_each(|inner| check_part(inner, name, list, kinds))
        }
        Some(kind) if kinds.contains(&kind) => Ok(()),
        Some(other) => Err(format!("has a {name} of type {other:?}, which byte-level BPE does not use")),
        None => Err(format!("has a {name} without a `type`")),
    }
}

/// Rejects what the parsing crate would accept silently, or panic on.
fn check(json: &serde_json::Value) -> Result<(), String> {
    PARTS.iter().try_for_each(|&(name, list, kinds)| check_part(&json[name], name, list, kinds))?;
    let model = &json["model"];
    match model["type"].as_str() {
        Some("BPE") => {}
        Some(other) => return Err(format!("a {other} tokenizer; only byte-level BPE is supported")),
        None => return Err("has no `model` with a `type`".into()),
    }
    if model["continuing_subword_prefix"].as_str().is_some_and(|prefix| !prefix.is_empty()) {
        return Err("uses `continuing_subword_prefix`, which byte-level BPE does not".into());
    }
    if model["dropout"].as_f64().is_some_and(|dropout| dropout > 0.0) {
        return Err("uses `dropout`, so that the same text has different tokens every time".into());
    }
    let vocab = model["vocab"].as_object().ok_or("has no `model.vocab`")?;
    let mut ids: Vec<u64> = Vec::with_capacity(vocab.len());
    for (token, id) in vocab {
        let id = id.as_u64().filter(|&id| id < MAX_ID);
        ids.push(id.ok_or_else(|| format!("the id of token {token:?} is not a number below {MAX_ID}"))?);
    }
    ids.sort_unstable();
    if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("two tokens have the id {}", pair[0]));
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::models::TrainerWrapper;
    use tokenizers::models::bpe::BpeTrainerBuilder;

    use super::*;

    /// What the crate's own trainer makes of `documents`.
    fn reference(documents: &[String], vocab_size: usize) -> tokenizers::Tokenizer {
        let mut inner = tokenizers::Tokenizer::new(BPE::default());
        inner.with_pre_tokenizer(Some(pre_tokenizer().unwrap()));
        inner.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::new(false, false, false))));
        let alphabet = ByteLevel::alphabet().into_iter().collect();
        let trainer = BpeTrainerBuilder::new().show_progress(false).vocab_size(vocab_size - 1);
        let mut trainer = TrainerWrapper::BpeTrainer(trainer.initial_alphabet(alphabet).build());
        inner.train(&mut trainer, documents.iter().cloned()).unwrap();
        inner.add_special_tokens([AddedToken::from(END_OF_TEXT, true)]).unwrap();
        inner
    }

    fn trained(documents: &[String], vocab_size: usize) -> Result<Tokenizer> {
        Tokenizer::train(documents.iter().cloned(), vocab_size, &Observer::default())
    }

    #[test]
    fn the_pattern_is_its_head_and_a_tail() {
        assert_eq!(PATTERN, format!(r"{HEAD}|\s+(?!\S)|\s+"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn merges_are_those_of_the_crates_trainer(
            documents in prop::collection::vec("[abc =\\n\u{e9}]{0,40}|(a|b){0,60}|(ab?=){0,30}", 1..8),
            vocab_size in 258usize..330,
        ) {
            let theirs = reference(&documents, vocab_size);
            let reached = theirs.get_vocab_size(true);
            prop_assert_eq!(trained(&documents, vocab_size).is_ok(), reached == vocab_size);
            let json = trained(&documents, reached).unwrap().to_json().unwrap();
            prop_assert_eq!(json, Tokenizer::wrap(theirs).unwrap().to_json().unwrap());
        }
    }

    #[test]
    fn the_generators_python_gives_the_crates_tokenizer() {
        let documents: Vec<String> = crate::text::python::documents(0).take(200).collect();
        let theirs = Tokenizer::wrap(reference(&documents, 900)).unwrap();
        assert_eq!(trained(&documents, 900).unwrap().to_json().unwrap(), theirs.to_json().unwrap());
    }
}
