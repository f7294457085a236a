//! Encoding of texts of any size and shape: the ids of the `tokenizers` crate, in bounded memory
//! and linear time.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use rayon::prelude::*;
use tokenizers::Model;
use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

use super::words::Words;
use crate::{Error, Result};

/// Texts are encoded in pieces of about this many bytes, on every core.
const PIECE: usize = 1 << 15;

/// Longer words are encoded in windows of this many bytes. No token is longer.
const WINDOW: usize = 1 << 15;

/// Ids passed on at once, where they do not come from whole pieces.
const PART: usize = 1 << 14;

/// Longer texts that cannot be cut are rejected: the crate keeps about 200 bytes for each byte.
const MAX_UNCUT: usize = 1 << 24;

/// Where a text can be cut so that the parts have the tokens of the whole.
#[derive(Debug, Clone)]
pub(super) enum CutPoints {
    /// Between all words, which are encoded one by one.
    Words(Box<Words>),
    /// Before a single blank that follows an ASCII letter or digit.
    Blanks,
    /// Nowhere, as far as known.
    Nowhere,
}

impl CutPoints {
    pub(crate) fn of(tokenizer: &tokenizers::Tokenizer) -> Self {
        // Added tokens that are not special are found in a text before it is split into words.
        let added = tokenizer.get_added_vocabulary().get_added_tokens_decoder().values();
        let added: Vec<_> = added.filter(|token| !token.special).collect();
        let words = Words::of(tokenizer.get_pre_tokenizer()).filter(|_| is_plain(tokenizer));
        match words {
            Some(words) if added.is_empty() && tokenizer.get_normalizer().is_none() => Self::Words(Box::new(words)),
            _ if added
                .iter()
                .any(|token| token.lstrip || token.rstrip || token.content.contains(char::is_whitespace)) =>
            {
                Self::Nowhere
            }
            _ if tokenizer.get_normalizer().is_none_or(is_local) && cuts_at_blanks(tokenizer) => Self::Blanks,
            _ => Self::Nowhere,
        }
    }
}

/// Whether the model only merges the bytes of a word, anywhere in a longer one.
fn is_plain(tokenizer: &tokenizers::Tokenizer) -> bool {
    let ModelWrapper::BPE(model) = tokenizer.get_model() else { return false };
    let longest = model.get_vocab().keys().map(|token| token.chars().count()).max().unwrap_or(0);
    BYTE_CHARS.iter().all(|c| model.token_to_id(c.encode_utf8(&mut [0; 4])).is_some())
        && model.end_of_word_suffix.as_ref().is_none_or(String::is_empty)
        && longest < WINDOW
}

/// Whether its effect on text on one side of a blank does not depend on the other side.
fn is_local(normalizer: &NormalizerWrapper) -> bool {
    use NormalizerWrapper::{BertNormalizer, Lowercase, NFC, NFD, NFKC, NFKD, Nmt, Sequence, StripAccents};
    match normalizer {
        NFC(_) | NFD(_) | NFKC(_) | NFKD(_) | Nmt(_) | Lowercase(_) | StripAccents(_) | BertNormalizer(_) => true,
        Sequence(parts) => parts.as_ref().iter().all(is_local),
        _ => false,
    }
}

/// Whether words always end before a blank, independently of what follows.
fn cuts_at_blanks(tokenizer: &tokenizers::Tokenizer) -> bool {
    use PreTokenizerWrapper::{
        BertPreTokenizer, ByteLevel, Digits, Metaspace, Punctuation, Sequence, Whitespace, WhitespaceSplit,
    };
    let Some(all) = tokenizer.get_pre_tokenizer() else { return false };
    let parts = match all {
        Metaspace(meta) => return meta.get_split(),
        Sequence(parts) => parts.as_ref(),
        one => std::slice::from_ref(one),
    };
    let cuts = |part: &PreTokenizerWrapper| match part {
        ByteLevel(bytes) => bytes.use_regex,
        Whitespace(_) | WhitespaceSplit(_) | BertPreTokenizer(_) => true,
        _ => Words::splits(part),
    };
    // After `ByteLevel` has replaced the blanks, no part cuts at them.
    let Some(first) = parts.iter().position(cuts) else { return false };
    let harmless = |part: &PreTokenizerWrapper| matches!(part, Digits(_) | Punctuation(_));
    parts[..first].iter().all(harmless)
        && parts[first..].iter().all(|part| harmless(part) || cuts(part) || matches!(part, ByteLevel(_)))
}

/// GPT-2's printable characters for bytes: printable Latin-1 is itself, the 68 other bytes are the
/// characters from U+0100.
pub(super) static BYTE_CHARS: LazyLock<[char; 256]> = LazyLock::new(|| {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut others = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        byte if printable(byte) => char::from(byte),
        _ => others.next().unwrap_or_default(),
    })
});

/// A tokenizer, and where texts can be cut for it.
pub(super) struct Encoder<'a> {
    pub tokenizer: &'a tokenizers::Tokenizer,
    pub cuts: &'a CutPoints,
}

/// Receives tokens part by part, with the number of bytes that they are; its error ends the
/// encoding.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&[u32], usize) -> Result<()>;

impl Encoder<'_> {
    /// Passes the tokens of `text` to `sink`, in order.
    pub(crate) fn encode(&self, text: &str, sink: Sink) -> Result<()> {
        match self.cuts {
            CutPoints::Words(words) => self.pieces(&mut words.pieces(text, PIECE), sink),
            CutPoints::Blanks => self.pieces(&mut blank_pieces(text), sink),
            CutPoints::Nowhere => sink(&self.piece(text)?, text.len()),
        }
    }

    fn pieces(&self, pieces: &mut dyn Iterator<Item = &str>, sink: Sink) -> Result<()> {
        let mut pieces = pieces.peekable();
        while let Some(first) = pieces.next() {
            if first.len() > 8 * PIECE {
                match self.cuts {
                    CutPoints::Words(words) => self.words(words, first, sink)?,
                    _ => sink(&self.piece(first)?, first.len())?,
                }
                continue;
            }
            let mut batch = vec![first];
            while batch.len() < 4 * rayon::current_num_threads() {
                let Some(next) = pieces.next_if(|next| next.len() <= 8 * PIECE) else { break };
                batch.push(next);
            }
            let encoded: Vec<Vec<u32>> = match batch[..] {
                [one] => vec![self.piece(one)?],
                _ => batch.par_iter().map(|piece| self.piece(piece)).collect::<Result<_>>()?,
            };
            encoded.iter().zip(batch).try_for_each(|(ids, piece)| sink(ids, piece.len()))?;
        }
        Ok(())
    }

    fn piece(&self, text: &str) -> Result<Vec<u32>> {
        if let CutPoints::Words(words) = self.cuts {
            let mut all = Vec::new();
            let mut sink = |ids: &[u32], _| {
                all.extend(ids);
                Ok(())
            };
            self.words(words, text, &mut sink)?;
            return Ok(all);
        }
        if text.len() > MAX_UNCUT {
            return Err(Error::Tokenizer(format!(
                "{} bytes of text in which this tokenizer may not begin a new word: at most {MAX_UNCUT} can be encoded at once; \
                 split the document into smaller ones",
                text.len()
            )));
        }
        let encoding = self.tokenizer.encode_fast(text, false).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Encodes `text` word by word.
    fn words(&self, words: &Words, text: &str, sink: Sink) -> Result<()> {
        let (mut ids, mut bytes, mut mapped) = (Vec::new(), 0, String::new());
        let mut known: HashMap<&str, Range<usize>> = HashMap::new();
        for word in words.split(text) {
            if ids.len() > PART || word.len() > 2 * WINDOW {
                sink(&ids, std::mem::take(&mut bytes))?;
                ids.clear();
                known.clear();
            }
            if word.len() > 2 * WINDOW {
                self.long_word(word.as_bytes(), sink)?;
                continue;
            }
            bytes += word.len();
            if let Some(range) = known.get(word) {
                ids.extend_from_within(range.clone());
                continue;
            }
            let start = ids.len();
            mapped.clear();
            mapped.extend(word.bytes().map(|byte| BYTE_CHARS[usize::from(byte)]));
            ids.extend(self.tokenizer.get_model().tokenize(&mapped).map_err(failed)?.iter().map(|token| token.id));
            known.insert(word, start..ids.len());
        }
        sink(&ids, bytes)
    }

    /// Encodes a word window by window. Merges inside one part of a text do not depend on other
    /// parts until one crosses the boundary, and the first one that does would also happen with the
    /// two neighboring tokens alone. So a window may begin with any token of the previous one: if
    /// its first token is the same, both together are right.
    fn long_word(&self, word: &[u8], sink: Sink) -> Result<()> {
        let (mut start, mut size) = (0, WINDOW);
        let mut tokens = self.window(word, start, size)?;
        loop {
            let covered = bytes_of(&tokens);
            if start + covered == word.len() {
                return sink(&ids_of(&tokens), covered);
            }
            match self.next_window(word, start, &tokens)? {
                Some((kept, next)) => {
                    let bytes = bytes_of(&tokens[..kept]);
                    sink(&ids_of(&tokens[..kept]), bytes)?;
                    start += bytes;
                    (tokens, size) = (next, WINDOW);
                }
                None => {
                    size *= 2;
                    tokens = self.window(word, start, size)?;
                }
            }
        }
    }

    /// How many tokens of a window to keep, and the next window, which begins with the token after
    /// them.
    fn next_window(&self, word: &[u8], start: usize, tokens: &[(u32, usize)]) -> Result<Option<(usize, Window)>> {
        let backwards = std::iter::successors(Some(2), |&back| Some(8 * back));
        for back in backwards.take_while(|&back| back < tokens.len()) {
            let kept = tokens.len() - back;
            let at = start + bytes_of(&tokens[..kept]);
            let next = self.window(word, at, WINDOW)?;
            if next.first() == tokens.get(kept) {
                return Ok(Some((kept, next)));
            }
        }
        Ok(None)
    }

    /// The tokens of `size` bytes from `start`, or of all remaining bytes if those are less than
    /// twice as many, and the bytes of each. Never fewer bytes than the longest token, since some
    /// tokenizers look up a word as a token before they merge.
    fn window(&self, word: &[u8], start: usize, size: usize) -> Result<Window> {
        let rest = &word[start..];
        let bytes = if rest.len() <= 2 * size { rest } else { &rest[..size] };
        let mapped: String = bytes.iter().map(|&byte| BYTE_CHARS[usize::from(byte)]).collect();
        let tokens = self.tokenizer.get_model().tokenize(&mapped).map_err(failed)?;
        Ok(tokens.iter().map(|token| (token.id, token.value.chars().count())).collect())
    }
}

/// Tokens, and the bytes of each.
type Window = Vec<(u32, usize)>;

fn ids_of(tokens: &[(u32, usize)]) -> Vec<u32> {
    tokens.iter().map(|&(id, _)| id).collect()
}

fn bytes_of(tokens: &[(u32, usize)]) -> usize {
    tokens.iter().map(|&(_, length)| length).sum()
}

fn failed(error: tokenizers::Error) -> Error {
    Error::Tokenizer(format!("encoding: {error}"))
}

/// CutPoints `text` into pieces of [`PIECE`] bytes or more, as [`CutPoints::Blanks`] allows.
fn blank_pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let near = rest.as_bytes().get(PIECE..).unwrap_or_default();
        let cut = near.windows(2).position(|pair| pair[0].is_ascii_alphanumeric() && pair[1] == b' ');
        let (piece, after) = rest.split_at(cut.map_or(rest.len(), |cut| PIECE + cut + 1));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}
