//! Splitting of text into words as the pre-tokenizers of byte-level BPE do it, in linear time.
//!
//! The `tokenizers` crate splits a whole text at once and keeps about 200 bytes for each byte of
//! it, which takes gigabytes for a long document on one line. The patterns here have a property
//! that allows splitting in pieces: from the start of a word on, the words depend on nothing
//! before.

use regex::Regex;
use tokenizers::SplitDelimiterBehavior;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

/// The end of all known patterns: white space, whose last character belongs to a following word.
const TAIL: &str = r"|\s+(?!\S)|\s+";

/// The pattern of the `ByteLevel` pre-tokenizer, which is that of GPT-2.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+";

/// Known patterns without their [`TAIL`]. All match every character, depend on nothing before a
/// match, and after it only at the end of a run of letters, digits, white space or other
/// characters; none continues a run of ASCII letters and digits with another ASCII character.
const HEADS: [&str; 3] = [
    super::tokenizer::HEAD,
    // GPT-4 and Llama 3
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
    // Qwen 2
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
];

/// The known pattern that a `Split` isolates, without its tail.
fn head_of(split: &Split) -> Option<&'static str> {
    let SplitPattern::Regex(pattern) = &split.pattern else { return None };
    let head = pattern.strip_suffix(TAIL).filter(|_| !split.invert)?;
    let isolated = split.behavior == SplitDelimiterBehavior::Isolated;
    HEADS.into_iter().find(|&known| isolated && known == head)
}

/// Splits text into words by one of the known patterns.
#[derive(Debug, Clone)]
pub(super) struct Words {
    /// The pattern without its tail, anchored.
    head: Regex,
    /// The same, or white space.
    word: Regex,
}

impl Words {
    /// The same words as `pre_tokenizer`, byte by byte; `None` for an unknown one.
    pub(crate) fn of(pre_tokenizer: Option<&PreTokenizerWrapper>) -> Option<Self> {
        let head = match pre_tokenizer? {
            PreTokenizerWrapper::ByteLevel(bytes) if bytes.use_regex && !bytes.add_prefix_space => GPT2,
            PreTokenizerWrapper::Sequence(parts) => match parts.as_ref() {
                [PreTokenizerWrapper::Split(split), PreTokenizerWrapper::ByteLevel(bytes)]
                    if !bytes.use_regex && !bytes.add_prefix_space =>
                {
                    head_of(split)?
                }
                _ => return None,
            },
            _ => return None,
        };
        Self::by(head)
    }

    /// Whether `pre_tokenizer` splits by a known pattern.
    pub(crate) fn splits(pre_tokenizer: &PreTokenizerWrapper) -> bool {
        matches!(pre_tokenizer, PreTokenizerWrapper::Split(split) if head_of(split).is_some())
    }

    /// The words of the published pattern.
    pub(crate) fn published() -> Option<Self> {
        Self::by(HEADS[0])
    }

    fn by(head: &str) -> Option<Self> {
        let compiled = |pattern: String| Regex::new(&pattern).ok();
        Some(Self { head: compiled(format!(r"\A(?:{head})"))?, word: compiled(format!(r"\A(?:{head}|\s+)"))? })
    }

    /// The end of the first word of `text`, and whether it is certain. White space of the tail is
    /// not: that depends on what follows.
    fn first(&self, text: &str) -> (usize, bool) {
        let end = self.word.find(text).map_or(text.len(), |found| found.end());
        let Some(last) = text[..end].chars().next_back().filter(|c| c.is_whitespace()) else { return (end, true) };
        if self.head.is_match(text) {
            return (end, true);
        }
        // `\s+(?!\S)`: the last character belongs to a word that follows, unless it is the only
        // one.
        let shorter = end - last.len_utf8();
        (if end == text.len() || shorter == 0 { end } else { shorter }, false)
    }

    /// The words of `text`, in order; together they are `text`.
    pub fn split<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut remaining = text;
        std::iter::from_fn(move || {
            let (word, after) = remaining.split_at(self.first(remaining).0);
            remaining = after;
            (!word.is_empty()).then_some(word)
        })
    }

    /// Splits `text` between words into pieces of `size` bytes or a little more, unless a single
    /// word is longer.
    pub(crate) fn pieces<'t>(&self, text: &'t str, size: usize) -> impl Iterator<Item = &'t str> {
        let mut remaining = text;
        std::iter::from_fn(move || {
            let (piece, after) = remaining.split_at(self.piece(remaining, size));
            remaining = after;
            (!piece.is_empty()).then_some(piece)
        })
    }

    fn piece(&self, text: &str, size: usize) -> usize {
        let bytes = text.as_bytes();
        if bytes.len() <= size {
            return bytes.len();
        }
        let near = &bytes[size - 1..bytes.len().min(3 * size)];
        let plain =
            |pair: &[u8]| pair[0].is_ascii_alphanumeric() && pair[1].is_ascii() && !pair[1].is_ascii_alphanumeric();
        if let Some(found) = near.windows(2).position(plain) {
            return size + found;
        }
        let mut end = 0;
        while end < bytes.len() {
            let (length, whole) = self.first(&text[end..]);
            end += length;
            if whole && end >= size {
                break;
            }
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::tokenizer::pattern::Pattern;
    use tokenizers::utils::SysRegex;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    /// All patterns, ours and as the crate has them.
    static ALL: LazyLock<Vec<(Words, SysRegex)>> = LazyLock::new(|| {
        let both = |head| (Words::by(head).unwrap(), SysRegex::new(&format!("{head}{TAIL}")).unwrap());
        HEADS.into_iter().chain([GPT2]).map(both).collect()
    });

    const TEXT: &str = "[\\n\\r \t/.,'aZs1\u{85}\u{2028}\u{a0}\u{e9}\u{301}\u{4e2d}\u{ff11}_=]{0,40}";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn words_are_those_of_the_crate(text in TEXT) {
            for (words, theirs) in &*ALL {
                let theirs = theirs.find_matches(&text).unwrap().into_iter().map(|((start, end), _)| &text[start..end]);
                let theirs: Vec<&str> = theirs.filter(|word| !word.is_empty()).collect();
                prop_assert_eq!(words.split(&text).collect::<Vec<_>>(), theirs, "{:?}", words.head);
            }
        }

        #[test]
        fn pieces_split_no_word(text in TEXT, size in 1usize..12) {
            for (words, _) in &*ALL {
                let pieces: Vec<&str> = words.pieces(&text, size).collect();
                prop_assert_eq!(pieces.concat(), text.as_str());
                let apart: Vec<&str> = pieces.into_iter().flat_map(|piece| words.split(piece)).collect();
                prop_assert_eq!(apart, words.split(&text).collect::<Vec<_>>(), "{:?}", words.head);
            }
        }
    }

    #[test]
    fn the_byte_level_pre_tokenizer_cuts_as_gpt2() {
        let text = "It's 12   o'clock\n\n  x";
        let mut theirs = PreTokenizedString::from(text);
        ByteLevel::new(false, true, true).pre_tokenize(&mut theirs).unwrap();
        let theirs = theirs.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let theirs: Vec<&str> = theirs.into_iter().map(|(_, (start, end), _)| &text[start..end]).collect();
        assert_eq!(Words::by(GPT2).unwrap().split(text).collect::<Vec<_>>(), theirs);
    }

    #[test]
    fn only_known_pre_tokenizers_are_used() {
        let bytes = |prefix, regex| PreTokenizerWrapper::ByteLevel(ByteLevel::new(prefix, true, regex));
        let split = |pattern: &str, behavior| {
            let pattern = SplitPattern::Regex(pattern.into());
            let split = PreTokenizerWrapper::Split(Split::new(pattern, behavior, false).unwrap());
            let parts = vec![split, bytes(false, false)];
            PreTokenizerWrapper::Sequence(tokenizers::pre_tokenizers::sequence::Sequence::new(parts))
        };
        let known = format!("{}{TAIL}", HEADS[1]);
        let isolated = SplitDelimiterBehavior::Isolated;
        for (pre_tokenizer, taken) in [
            (bytes(false, true), true),
            (bytes(true, true), false),
            (bytes(false, false), false),
            (split(&known, isolated), true),
            (split(&known, SplitDelimiterBehavior::Removed), false),
            (split(r"\S+|\s+", isolated), false),
        ] {
            assert_eq!(Words::of(Some(&pre_tokenizer)).is_some(), taken, "{pre_tokenizer:?}");
        }
        assert!(Words::of(None).is_none());
    }
}
