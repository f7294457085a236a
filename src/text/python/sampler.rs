//! Random choices that do not depend on the release of `rand`.
//!
//! Only the raw 32-bit output of ChaCha8 is used, which the cipher defines. The mapping to choices
//! is defined here.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

pub(crate) struct Sampler {
    rng: ChaCha8Rng,
}

impl Sampler {
    /// The choices of document `index` of a version under `seed`: independent streams of one cipher.
    pub(crate) fn new(version: u32, seed: u64, index: u64) -> Self {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..12].copy_from_slice(&version.to_le_bytes());
        Self::keyed(key, index)
    }

    /// The choices of stream `index` under a key.
    pub(crate) fn keyed(key: [u8; 32], index: u64) -> Self {
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(index);
        Self { rng }
    }

    /// Uniform in `0..n` (0 for `n` = 0), by the high half of a 32 x 32-bit product, with a bias
    /// below n / 2^32.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.rng.next_u32()) * n as u64) >> 32) as usize
    }

    /// Uniform in `low..=high`.
    pub(crate) fn range(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True `percent` times in a hundred.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `items`, which must not be empty.
    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// The index of one of `weights`, with a probability in proportion to its weight.
    pub(crate) fn weighted(&mut self, weights: &[u32]) -> usize {
        let total: u32 = weights.iter().sum();
        let mut remaining = self.below(total as usize) as u32;
        for (index, &weight) in weights.iter().enumerate() {
            if remaining < weight {
                return index;
            }
            remaining -= weight;
        }
        weights.len().saturating_sub(1)
    }

    /// An integer as in typical programs: mostly small, sometimes round, seldom large.
    pub(crate) fn number(&mut self) -> usize {
        match self.weighted(&[50, 25, 15, 8, 2]) {
            0 => self.below(10),
            1 => self.range(10, 99),
            2 => self.pick(&[10, 20, 25, 50, 100, 200, 500, 1000]),
            3 => self.range(100, 999),
            _ => self.range(1000, 9999),
        }
    }
}
