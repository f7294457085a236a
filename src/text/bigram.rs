//! A smoothed bigram language model: a baseline that a transformer must beat.

use std::collections::HashMap;

use super::cache::Tokens;
use crate::{Error, Result};

/// Up to this vocabulary the counts are a dense table (64 MiB); beyond it a map.
const DENSE: usize = 4096;

/// An interpolated Kneser-Ney bigram model (Kneser and Ney 1995; interpolation as in Chen and Goodman 1999).
///
/// With `c(a,b)` the count of token `b` right after `a`, `c(a)` the sum of that over `b`, `t(a)` the number of different
/// tokens seen after `a`, `s(b)` the number of different tokens seen before `b`, `T` the number of different pairs and `V` the
/// vocabulary:
///
/// ```text
/// p(b | a) = max(c(a,b) - D, 0) / c(a) + D t(a) / c(a) q(b)      (q(b) if c(a) = 0)
/// q(b)     = (s(b) + 1) / (T + V)
/// D        = n1 / (n1 + 2 n2), kept within 0.05 .. 0.95
/// ```
///
/// where `n1` and `n2` pairs occur exactly once and twice. `D` is 0.5 when there are neither.
#[derive(Debug, Clone)]
pub struct Bigram {
    vocab_size: usize,
    discount: f64,
    counts: Counts,
    /// (V): c(a)
    totals: Vec<u64>,
    /// (V): t(a)
    followers: Vec<u32>,
    /// (V): q(b)
    backoff: Vec<f64>,
}

#[derive(Debug, Clone)]
enum Counts {
    /// (V,V), row = context
    Dense(Vec<u32>),
    Sparse(HashMap<(u32, u32), u32>),
}

impl Bigram {
    /// Counts the pairs of `tokens`, end-of-text tokens included.
    ///
    /// # Errors
    /// Returns [`Error::Data`] if a token is `vocab_size` or more.
    pub fn fit(tokens: &Tokens, vocab_size: usize) -> Result<Self> {
        check(tokens, vocab_size)?;
        let mut counts = if vocab_size <= DENSE {
            Counts::Dense(vec![0; vocab_size * vocab_size])
        } else {
            Counts::Sparse(HashMap::new())
        };
        let mut previous = None;
        for token in tokens.iter() {
            if let Some(context) = previous.replace(token) {
                let count = match &mut counts {
                    Counts::Dense(table) => &mut table[context as usize * vocab_size + token as usize],
                    Counts::Sparse(map) => map.entry((context, token)).or_default(),
                };
                *count = count.saturating_add(1);
            }
        }
        let mut model = Self {
            vocab_size,
            discount: 0.0,
            counts,
            totals: vec![0; vocab_size],
            followers: vec![0; vocab_size],
            backoff: Vec::new(),
        };
        model.summarise();
        Ok(model)
    }

    fn summarise(&mut self) {
        let mut predecessors = vec![0u32; self.vocab_size];
        let (mut once, mut twice) = (0u64, 0u64);
        let (totals, followers) = (&mut self.totals, &mut self.followers);
        let mut visit = |context: usize, token: usize, count: u32| {
            totals[context] += u64::from(count);
            followers[context] += 1;
            predecessors[token] += 1;
            once += u64::from(count == 1);
            twice += u64::from(count == 2);
        };
        match &self.counts {
            Counts::Dense(table) => {
                for (index, &count) in table.iter().enumerate().filter(|&(_, &count)| count > 0) {
                    visit(index / self.vocab_size, index % self.vocab_size, count);
                }
            }
            Counts::Sparse(map) => {
                for (&(context, token), &count) in map {
                    visit(context as usize, token as usize, count);
                }
            }
        }
        let estimate = once as f64 / (once + 2 * twice) as f64;
        self.discount = if once + twice == 0 { 0.5 } else { estimate.clamp(0.05, 0.95) };
        let pairs: u64 = predecessors.iter().map(|&n| u64::from(n)).sum();
        let mass = (pairs + self.vocab_size as u64) as f64;
        self.backoff = predecessors.iter().map(|&n| (f64::from(n) + 1.0) / mass).collect();
    }

    /// The discount `D` above.
    pub fn discount(&self) -> f64 {
        self.discount
    }

    /// p(token | context): more than 0 for every pair inside the vocabulary, 0 outside.
    pub fn probability(&self, context: u32, token: u32) -> f64 {
        let (a, b) = (context as usize, token as usize);
        if a >= self.vocab_size || b >= self.vocab_size {
            return 0.0;
        }
        if self.totals[a] == 0 {
            return self.backoff[b];
        }
        let count = match &self.counts {
            Counts::Dense(table) => table[a * self.vocab_size + b],
            Counts::Sparse(map) => map.get(&(context, token)).copied().unwrap_or(0),
        };
        let kept = (f64::from(count) - self.discount).max(0.0);
        (kept + self.discount * f64::from(self.followers[a]) * self.backoff[b]) / self.totals[a] as f64
    }

    /// The mean of -ln p in nats per predicted token, over consecutive windows of `sequence`
    /// tokens, in which all tokens but the first are predicted, as by a transformer with that
    /// context. The last window may be shorter.
    ///
    /// # Errors
    /// Returns [`Error::Data`] if there is nothing to predict, or for a token outside the
    /// vocabulary.
    pub fn loss(&self, tokens: &Tokens, sequence: usize) -> Result<f64> {
        check(tokens, self.vocab_size)?;
        if sequence < 2 || tokens.len() < 2 {
            let message = format!("a bigram predicts nothing in {} tokens, {sequence} at a time", tokens.len());
            return Err(Error::Data(message));
        }
        let (mut sum, mut predictions, mut previous) = (0.0, 0u64, 0);
        for (index, token) in tokens.iter().enumerate() {
            if index % sequence != 0 {
                sum -= self.probability(previous, token).ln();
                predictions += 1;
            }
            previous = token;
        }
        Ok(sum / predictions as f64)
    }
}

fn check(tokens: &Tokens, vocab_size: usize) -> Result<()> {
    if !tokens.is_empty() && tokens.max_id() as usize >= vocab_size {
        let message = format!("token {} does not fit a vocabulary of {vocab_size}", tokens.max_id());
        return Err(Error::Data(message));
    }
    Ok(())
}
