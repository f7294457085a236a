//! Byte-level BPE tokenizers: trained here, or read from anyone's `tokenizer.json`.

use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior};

use crate::files::{hex, read_input, write_atomic};
use crate::{Error, Result};

/// How the published models cut text into pieces before BPE: a word with one leading character, up to three digits,
/// punctuation with the line ends after it, line ends with the white space before them, other white space.
pub const PATTERN: &str =
    concat!(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*", r"|\s*[\r\n]+|\s+(?!\S)|\s+");

/// The special token that ends every document of a corpus.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// The smallest vocabulary: one symbol per byte, and [`END_OF_TEXT`].
pub const MIN_VOCAB: usize = 257;

/// Training reads this many bytes of text and ignores the rest: the trainer counts pairs in 32 signed bits.
const TRAIN_BYTES: usize = 1 << 30;

/// Longer texts are encoded in pieces of about this many bytes, which bounds memory and uses every core.
const PIECE: usize = 1 << 15;

/// Larger ids than this in a file are taken for damage.
const MAX_ID: u64 = 1 << 24;

/// A byte-level BPE tokenizer. `decode(encode(text)) == text` for every text (unless a loaded file brings a normalizer).
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    json: String,
    vocab_size: usize,
    /// Whether [`cut`] is exact, which it is for [`PATTERN`].
    divisible: bool,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::File`] when it is not a whole and consistent BPE tokenizer.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = read_input(path)?;
        let json = String::from_utf8(bytes).map_err(|_| Error::file(path, "not UTF-8"))?;
        Self::parse(&json).map_err(|message| Error::file(path, message))
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
        Self::parse(json).map_err(|message| Error::Text(format!("tokenizer: {message}")))
    }

    fn parse(json: &str) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_str(json).map_err(|error| format!("not JSON: {error}"))?;
        check(&value)?;
        // Not from the text itself: a key set twice there may have been checked in one reading and used in another.
        let checked = value.to_string();
        let inner: tokenizers::Tokenizer = checked.parse().map_err(|error| format!("not a tokenizer: {error}"))?;
        Self::wrap(inner)
    }

    fn wrap(mut inner: tokenizers::Tokenizer) -> Result<Self, String> {
        // Without this, text that spells a special token would forge one.
        inner.set_encode_special_tokens(true);
        // Some published files carry what was last used; neither belongs to a corpus or a prompt.
        let failed = |error: tokenizers::Error| error.to_string();
        inner.with_truncation(None).map_err(failed)?.with_padding(None);
        let json = inner.to_string(true).map_err(failed)?;
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        // How offsets are trimmed makes no difference to ids.
        let published = [pre_tokenizer(true).map_err(failed)?, pre_tokenizer(false).map_err(failed)?];
        let divisible = inner.get_normalizer().is_none()
            && inner.get_pre_tokenizer().is_some_and(|found| published.contains(found));
        Ok(Self { inner, json, vocab_size, divisible })
    }

    /// Trains a byte-level BPE with the published [`PATTERN`] on `docs`: 256 byte symbols, then merges by falling frequency
    /// (ties by lower ids), then [`END_OF_TEXT`] as the last id. The same documents give the same bytes of [`Self::to_json`],
    /// in whatever order and on however many threads. Reads at most the first gibibyte; ten megabytes are plenty for 2048.
    ///
    /// # Errors
    /// [`Error::Config`] when `vocab_size` is below [`MIN_VOCAB`], [`Error::Text`] when the text is too small for it.
    pub fn train(docs: impl Iterator<Item = String> + Send, vocab_size: usize) -> Result<Self> {
        if vocab_size < MIN_VOCAB || vocab_size as u64 > MAX_ID {
            let message = format!("is {vocab_size}, must be between {MIN_VOCAB} and {MAX_ID}");
            return Err(Error::config("vocab_size", message));
        }
        let failed = |error: tokenizers::Error| Error::Text(format!("training the tokenizer: {error}"));
        let mut inner = tokenizers::Tokenizer::new(BPE::default());
        inner.with_pre_tokenizer(Some(pre_tokenizer(true).map_err(failed)?));
        inner.with_decoder(Some(DecoderWrapper::ByteLevel(ByteLevel::new(false, false, false))));
        let trainer = BpeTrainerBuilder::new()
            .show_progress(false)
            .vocab_size(vocab_size - 1)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let mut left = TRAIN_BYTES;
        // Pieces, not documents: one long text would otherwise be pre-tokenized in one go.
        let pieces = docs
            .take_while(|doc| {
                let wanted = left > 0;
                left = left.saturating_sub(doc.len());
                wanted
            })
            .flat_map(|doc| cut(&doc, PIECE).into_iter().map(str::to_owned).collect::<Vec<_>>());
        inner.train(&mut TrainerWrapper::BpeTrainer(trainer), pieces).map_err(failed)?;
        inner.add_special_tokens([AddedToken::from(END_OF_TEXT, true)]).map_err(failed)?;
        let reached = inner.get_vocab_size(true);
        if reached != vocab_size {
            return Err(Error::Text(format!(
                "the text gives a vocabulary of only {reached} tokens, not {vocab_size}: lower vocab_size to {reached} or \
                 less, or train on more text"
            )));
        }
        Self::wrap(inner).map_err(Error::Text)
    }

    /// The tokens of `text`. A special token spelled out in `text` is ordinary text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if !self.divisible || text.len() <= 2 * PIECE {
            return self.encode_piece(text);
        }
        let pieces: Vec<Vec<u32>> =
            cut(text, PIECE).into_par_iter().map(|piece| self.encode_piece(piece)).collect::<Result<_>>()?;
        Ok(pieces.concat())
    }

    fn encode_piece(&self, text: &str) -> Result<Vec<u32>> {
        let encoding =
            self.inner.encode_fast(text, false).map_err(|error| Error::Text(format!("encoding: {error}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// [`Self::encode`] of many texts, on every core.
    pub fn encode_batch<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vec<u32>>> {
        texts.par_iter().map(|text| self.encode(text.as_ref())).collect()
    }

    /// The text of `ids`. Bytes that are no UTF-8 (a character cut in half) become U+FFFD.
    ///
    /// # Errors
    /// [`Error::Text`] for an id that the tokenizer does not have.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(unknown) = ids.iter().find(|&&id| self.inner.id_to_token(id).is_none()) {
            let size = self.vocab_size;
            return Err(Error::Text(format!("token {unknown} is not in the tokenizer's vocabulary of {size}")));
        }
        self.inner.decode(ids, false).map_err(|error| Error::Text(format!("decoding: {error}")))
    }

    /// The bytes that token `id` stands for; a special token's are its name's.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let token = self.inner.id_to_token(id)?;
        let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
        Some(bytes.unwrap_or_else(|| token.into_bytes()))
    }

    /// Token `id` as something to show: its text with line ends, tabs and the like escaped (`\n`), and bytes that are no
    /// UTF-8 as `<0xE2>`. To get text back that can be encoded again, use [`Self::decode`].
    pub fn token_str(&self, id: u32) -> Option<String> {
        let bytes = self.token_bytes(id)?;
        let mut shown = String::new();
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
            }
            for byte in chunk.invalid() {
                shown.push_str(&format!("<0x{byte:02X}>"));
            }
        }
        Some(shown)
    }

    /// The id of `text` if it is exactly one token.
    pub fn single_token(&self, text: &str) -> Option<u32> {
        match self.encode(text).ok()?.as_slice() {
            &[id] => Some(id),
            _ => None,
        }
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

fn pre_tokenizer(trim_offsets: bool) -> tokenizers::Result<PreTokenizerWrapper> {
    let split = Split::new(SplitPattern::Regex(PATTERN.into()), SplitDelimiterBehavior::Isolated, false)?;
    let bytes = ByteLevel::new(false, trim_offsets, false);
    Ok(PreTokenizerWrapper::Sequence(Sequence::new(vec![
        PreTokenizerWrapper::Split(split),
        PreTokenizerWrapper::ByteLevel(bytes),
    ])))
}

/// Cuts `text` into pieces of `size` bytes or a little more, only where [`PATTERN`] cuts whatever comes before or
/// after: behind a line feed that neither white space nor `/` follows. (Both alternatives that can match a line feed match
/// greedily up to the last one of its run, and what follows starts a new match.)
fn cut(text: &str, size: usize) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut pieces = Vec::new();
    let (mut start, mut search) = (0, size);
    while let Some(found) = bytes.get(search..).and_then(|rest| rest.iter().position(|&byte| byte == b'\n')) {
        let end = search + found + 1;
        search = end;
        if text[end..].chars().next().is_some_and(|c| c != '/' && !c.is_whitespace()) {
            pieces.push(&text[start..end]);
            (start, search) = (end, end + size);
        }
    }
    pieces.push(&text[start..]);
    pieces
}

/// GPT-2's printable stand-in for a byte, backwards: printable Latin-1 stands for itself, the 68 other bytes in order
/// for the characters from U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    match u32::from(c) {
        code @ 0..256 => u8::try_from(code).ok().filter(|&byte| printable(byte)),
        code => (0..=255).filter(|&byte| !printable(byte)).nth(code as usize - 256),
    }
}

/// A tokenizer's parts around the model, what each calls its list where it is a sequence, and the kinds that byte-level BPE is built of.
/// Some of the others panic in the parsing crate when their settings are damaged, and a kind that it does not know it guesses from those.
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

/// Refuses what the parsing crate would take silently, or stumble over.
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
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use tokenizers::tokenizer::pattern::Pattern;
    use tokenizers::utils::SysRegex;

    use super::*;

    fn split(text: &str) -> Vec<&str> {
        static COMPILED: LazyLock<SysRegex> = LazyLock::new(|| SysRegex::new(PATTERN).unwrap());
        let matches = (&*COMPILED).find_matches(text).unwrap();
        matches.into_iter().map(|((start, end), _)| &text[start..end]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn cutting_changes_no_match(text in "[\\n\\r \t/.a1'\u{85}\u{2028}\u{e9}]{1,40}") {
            let pieces = cut(&text, 1);
            prop_assert_eq!(pieces.concat(), text.as_str());
            let apart: Vec<&str> = pieces.into_iter().flat_map(split).collect();
            prop_assert_eq!(apart, split(&text));
        }
    }

    #[test]
    fn cutting_cuts() {
        assert_eq!(cut("a\nb\n c\n/\nd\n", 1), ["a\n", "b\n c\n/\n", "d\n"]);
        assert_eq!(cut("", 1), [""]);
    }
}
