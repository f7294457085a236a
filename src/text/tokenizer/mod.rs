//! Tokenizers: byte-level BPE trained here, or BPE, WordPiece and Unigram read from files.

mod check;
mod files;

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

use check::{MAX_ID, check};
#[cfg(feature = "hub")]
pub(crate) use files::{PAIRS, SETTINGS};
pub(crate) use files::{find as find_in, tokenizer_json};

use super::bpe::{WordCounts, count_words, learn_merges};
use super::encode::{BYTE_CHARS, CutPoints, Encoder, Sink};
use super::notation;
use super::words::Words;
use crate::files::{hex, write_atomic};
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

/// A tokenizer. `decode(encode(text)) == text` for every text if it was trained here, and if it is
/// byte-level BPE without a normalizer. Others lose something: lower case, accents, blanks, unknown
/// characters.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    json: String,
    vocab_size: usize,
    cuts: CutPoints,
    spelling: Spelling,
    /// The end-of-text token, and whether another file than `tokenizer.json` says so.
    end: Option<u32>,
    named_end: bool,
}

/// How tokens are spelled in a vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Spelling {
    /// A character for each byte, [`BYTE_CHARS`].
    Bytes,
    /// `▁` for a blank, `<0x0A>` for a byte.
    Blanks,
    /// A token that continues a word begins with this prefix; others follow a blank.
    Words(String),
    /// As it is.
    Plain,
}

impl Spelling {
    fn of(json: &serde_json::Value) -> Self {
        let parts = || ["normalizer", "pre_tokenizer", "decoder"].iter().map(|name| json[name].to_string());
        let has = |word: &str| parts().any(|part| part.contains(word));
        let model = &json["model"];
        match model["continuing_subword_prefix"].as_str() {
            Some(prefix) if model["type"] == "WordPiece" => Self::Words(prefix.into()),
            _ if has("\"ByteLevel\"") => Self::Bytes,
            _ if has("\"Metaspace\"") || has("\u{2581}") || has("\"ByteFallback\"") => Self::Blanks,
            _ => Self::Plain,
        }
    }

    /// The bytes of a text that `token` stands for.
    fn bytes(&self, token: &str) -> Option<Vec<u8>> {
        match self {
            Self::Bytes => token.chars().map(byte_of).collect(),
            Self::Blanks => {
                let byte = token.strip_prefix("<0x").and_then(|token| token.strip_suffix('>'));
                let byte = byte.filter(|digits| digits.len() == 2).and_then(|d| u8::from_str_radix(d, 16).ok());
                Some(byte.map_or_else(|| token.replace('\u{2581}', " ").into_bytes(), |byte| vec![byte]))
            }
            Self::Words(prefix) => match token.strip_prefix(prefix.as_str()).filter(|_| !prefix.is_empty()) {
                Some(rest) => Some(rest.into()),
                None => Some(format!(" {token}").into_bytes()),
            },
            Self::Plain => None,
        }
    }
}

impl Tokenizer {
    /// Reads a tokenizer: a `tokenizer.json` of any name, a `vocab.json` with its `merges.txt` or an
    /// `encoder.json` with its `vocab.bpe` (either file may be named), or a folder with one of
    /// these. A `tokenizer_config.json` next to it may say which token ends a text.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if it cannot be read, and [`Error::File`] if it is no consistent
    /// tokenizer, or of a kind that is not supported.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let found = files::read(path.as_ref())?;
        let mut tokenizer = Self::parse(&found.json).map_err(|message| Error::file(&found.path, message))?;
        if let Some(id) = found.end.and_then(|end| tokenizer.inner.token_to_id(&end)) {
            tokenizer.named_end = tokenizer.end != Some(id);
            tokenizer.end = Some(id);
        }
        if tokenizer.inner.get_decoder().is_none() {
            let path = found.path.display();
            tracing::warn!("{path} has no decoder: texts are shown as its tokens with blanks between them");
        }
        Ok(tokenizer)
    }

    /// Writes `tokenizer.json`, whole or not at all; next to it a `tokenizer_config.json`, if only
    /// such a file said which token ends a text.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        if let Some(end) = self.end.filter(|_| self.named_end).and_then(|id| self.inner.id_to_token(id)) {
            files::write_end(path.parent().unwrap_or(Path::new("")), &end)?;
        }
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
        let spelling = Spelling::of(&serde_json::from_str(&json).map_err(|error| error.to_string())?);
        // Text about HTML makes `</s>` an ordinary token.
        let special = |name: &str| name == END_OF_TEXT || inner.get_added_vocabulary().is_special_token(name);
        let end = files::END_NAMES.iter().filter(|name| special(name)).find_map(|name| inner.token_to_id(name));
        Ok(Self { inner, json, vocab_size, cuts, spelling, end, named_end: false })
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
        let special = self.inner.get_added_vocabulary().is_special_token(&token);
        let bytes = if special { None } else { self.spelling.bytes(&token) };
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

    /// The id of the token that ends every document: the one that a `tokenizer_config.json` names,
    /// or else the first of [`END_OF_TEXT`], `<|end_of_text|>`, `</s>`, `<eos>`, `[EOS]`,
    /// `<|im_end|>` and `[SEP]` that there is.
    pub fn end_of_text(&self) -> Option<u32> {
        self.end
    }

    /// [`Self::end_of_text`], or an error that says what to do.
    pub(crate) fn expect_end_of_text(&self) -> Result<u32> {
        self.end.ok_or_else(|| {
            let names = files::END_NAMES.join(", ");
            Error::Tokenizer(format!(
                "the tokenizer has no token to end documents with: none of {names}, and no tokenizer_config.json next to it \
                 names one as `eos_token`"
            ))
        })
    }

    /// Whether [`Self::decode`] gives back every text that was encoded.
    pub fn is_lossless(&self) -> bool {
        self.spelling == Spelling::Bytes && self.inner.get_normalizer().is_none()
    }

    /// SHA-256 of [`Self::to_json`], in hexadecimal: equal for equal tokenizers.
    pub fn hash(&self) -> String {
        let mut digest = Sha256::new_with_prefix(self.json.as_bytes());
        if let Some(end) = self.end.filter(|_| self.named_end) {
            digest.update(end.to_le_bytes());
        }
        hex(&digest.finalize())
    }
}

/// Whether there is a tokenizer in the folder.
pub(crate) fn is_in(folder: &Path) -> bool {
    find_in(folder).is_some()
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
