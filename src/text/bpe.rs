//! Training of byte-level BPE: the same merges as the trainer of the `tokenizers` crate, in time
//! linear in the longest word, and interruptible.
//!
//! The crate moves the tail of a word at every merge, which takes half a minute for a word of 160
//! KB. Here a merge changes only its neighbors.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use rayon::prelude::*;

use super::words::Words;
use crate::Result;
use crate::observer::{Observer, Stage};

/// Two adjacent tokens.
pub(super) type Pair = (u32, u32);

/// The number of occurrences of each word.
pub(super) type WordCounts = HashMap<Box<str>, u64>;

/// No token starts, or ends, at this position.
const NONE: u32 = u32::MAX;

/// Bytes of text whose words a thread counts at a time.
const PIECE: usize = 1 << 16;

/// Merges of one pair between two checks of the observer.
const MERGES_PER_CHECK: usize = 1 << 14;

/// Adds the words of `texts` to `counts`.
pub(super) fn count_words(words: &Words, texts: &[String], counts: &mut WordCounts, observer: &Observer) -> Result<()> {
    let pieces: Vec<&str> = texts.iter().flat_map(|text| words.pieces(text, PIECE)).collect();
    for batch in pieces.chunks(4 * rayon::current_num_threads()) {
        observer.check()?;
        let found: Vec<_> = batch.par_iter().map(|piece| count_in(words, piece)).collect();
        for (word, count) in found.into_iter().flatten() {
            match counts.get_mut(word) {
                Some(total) => *total += count,
                None => {
                    counts.insert(word.into(), count);
                }
            }
        }
    }
    Ok(())
}

fn count_in<'t>(words: &Words, piece: &'t str) -> HashMap<&'t str, u64> {
    let mut found = HashMap::new();
    words.split(piece).for_each(|word| *found.entry(word).or_default() += 1);
    found
}

/// Merges by falling frequency, ties by lower tokens, until there are `vocab_size` tokens or every
/// word is one token. Tokens below 256 are single bytes, `symbols[byte]`. Returns the merges in
/// order, and the bytes of each token.
pub(super) fn learn_merges(
    counts: &WordCounts,
    symbols: &[u32; 256],
    vocab_size: usize,
    observer: &Observer,
) -> Result<(Vec<Pair>, Vec<Vec<u8>>)> {
    let mut tokens = vec![Vec::new(); 256];
    (0..=255u8).for_each(|byte| tokens[symbols[usize::from(byte)] as usize] = vec![byte]);
    let mut known: HashMap<Vec<u8>, u32> = tokens.iter().cloned().zip(0..).collect();
    let mut text = Text::new(counts, symbols);
    let mut queue = text.pairs(observer)?;
    let mut merges = Vec::new();
    while tokens.len() < vocab_size {
        let Some(mut best) = queue.pop() else { break };
        let count = text.pair_counts[&best.pair].max(0) as u64;
        if best.count != count {
            best.count = count;
            queue.push(best);
            continue;
        }
        if count == 0 {
            break;
        }
        let bytes = [&tokens[best.pair.0 as usize][..], &tokens[best.pair.1 as usize]].concat();
        if bytes.len() > MAX_TOKEN {
            continue;
        }
        let token = *known.entry(bytes.clone()).or_insert(tokens.len() as u32);
        if token as usize == tokens.len() {
            text.lengths.push(bytes.len() as u32);
            tokens.push(bytes);
        }
        merges.push(best.pair);
        queue.extend(text.merge(best, token, observer)?);
        let (done, total) = (tokens.len() as u64, Some(vocab_size as u64));
        observer.advance(&Stage { name: "training the tokenizer", done, total, unit: "tokens" })?;
    }
    Ok((merges, tokens))
}

/// Bytes of a token at most: encoding uses windows that are longer than any token.
const MAX_TOKEN: usize = 1 << 13;

/// A pair that may be merged. The most frequent is the greatest; of equally frequent ones the
/// lowest.
struct MergeCandidate {
    count: u64,
    pair: Pair,
    /// Positions of its first token. Some may have been merged with other tokens since.
    positions: Vec<u32>,
}

impl MergeCandidate {
    fn key(&self) -> (u64, Reverse<Pair>) {
        (self.count, Reverse(self.pair))
    }
}

impl Ord for MergeCandidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for MergeCandidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for MergeCandidate {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for MergeCandidate {}

/// The different words as tokens, with a gap before and after each.
struct Text {
    /// By position: the token that starts there.
    starts: Vec<u32>,
    /// By position: the token whose last byte is there.
    ends: Vec<u32>,
    /// By token: the number of its bytes.
    lengths: Vec<u32>,
    /// The positions of words, ascending, and their counts.
    words: Vec<(u32, u64)>,
    pair_counts: HashMap<Pair, i64>,
}

impl Text {
    fn new(counts: &WordCounts, symbols: &[u32; 256]) -> Self {
        let size = counts.keys().map(|word| word.len() + 1).sum::<usize>() + 1;
        let (mut starts, mut words) = (Vec::with_capacity(size), Vec::with_capacity(counts.len()));
        starts.push(NONE);
        for (word, &count) in counts {
            words.push((starts.len() as u32, count));
            starts.extend(word.bytes().map(|byte| symbols[usize::from(byte)]));
            starts.push(NONE);
        }
        let ends = starts.clone();
        Self { starts, ends, lengths: vec![1; 256], words, pair_counts: HashMap::new() }
    }

    /// All pairs of single bytes.
    fn pairs(&mut self, observer: &Observer) -> Result<BinaryHeap<MergeCandidate>> {
        let mut positions: HashMap<Pair, Vec<u32>> = HashMap::new();
        for &(start, count) in &self.words {
            let word = self.starts[start as usize..].iter().take_while(|&&token| token != NONE);
            for (at, pair) in (start..).zip(word.clone().zip(word.skip(1))) {
                if (at as usize).is_multiple_of(MERGES_PER_CHECK) {
                    observer.check()?;
                }
                let pair = (*pair.0, *pair.1);
                *self.pair_counts.entry(pair).or_default() += count as i64;
                positions.entry(pair).or_default().push(at);
            }
        }
        Ok(self.candidates(positions).into())
    }

    fn candidates(&self, positions: HashMap<Pair, Vec<u32>>) -> Vec<MergeCandidate> {
        let candidate =
            |(pair, positions)| MergeCandidate { count: self.pair_counts[&pair].max(0) as u64, pair, positions };
        positions.into_iter().map(candidate).filter(|candidate| candidate.count > 0).collect()
    }

    /// Merges a pair into `token` wherever it occurs, from left to right, and returns the new
    /// pairs.
    fn merge(&mut self, pair: MergeCandidate, token: u32, observer: &Observer) -> Result<Vec<MergeCandidate>> {
        let MergeCandidate { pair: (left, right), mut positions, .. } = pair;
        positions.sort_unstable();
        let (left_length, right_length) = (self.lengths[left as usize], self.lengths[right as usize]);
        let mut new: HashMap<Pair, Vec<u32>> = HashMap::new();
        for (index, at) in positions.into_iter().enumerate() {
            if index.is_multiple_of(MERGES_PER_CHECK) {
                observer.check()?;
            }
            let (middle, end) = (at + left_length, at + left_length + right_length);
            if self.starts[at as usize] != left || self.starts[middle as usize] != right {
                continue;
            }
            let word = self.words.partition_point(|&(start, _)| start <= at) - 1;
            let count = self.words[word].1 as i64;
            let before = self.ends[at as usize - 1];
            if before != NONE {
                *self.pair_counts.entry((before, left)).or_default() -= count;
                *self.pair_counts.entry((before, token)).or_default() += count;
                new.entry((before, token)).or_default().push(at - self.lengths[before as usize]);
            }
            let after = self.starts[end as usize];
            if after != NONE {
                *self.pair_counts.entry((right, after)).or_default() -= count;
                *self.pair_counts.entry((token, after)).or_default() += count;
                new.entry((token, after)).or_default().push(at);
            }
            self.starts[at as usize] = token;
            self.starts[middle as usize] = NONE;
            self.ends[middle as usize - 1] = NONE;
            self.ends[end as usize - 1] = token;
        }
        Ok(self.candidates(new))
    }
}
