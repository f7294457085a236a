//! Token sequences on a device.

use std::rc::Rc;

use super::ModelConfig;
use crate::device::{Device, Tensor};
use crate::ops::cross_entropy::IGNORE;
use crate::ops::embedding::Index;
use crate::{Error, Result};

/// A batch of token sequences on a device, ready to be read and predicted.
pub struct Batch {
    pub(super) tokens: Rc<Index>,
    pub(super) positions: Rc<Index>,
    pub(super) targets: Tensor<u32>,
    batch: usize,
    length: usize,
}

impl Batch {
    /// `tokens`: `batch` sequences of equal length, one after the other. Every token but the first of its sequence is a
    /// target.
    ///
    /// # Errors
    /// [`Error::Shape`] if the tokens do not divide into the sequences, are too long for the model, or not in its
    /// vocabulary.
    pub fn new(device: &Device, config: &ModelConfig, tokens: &[u32], batch: usize) -> Result<Self> {
        Self::after(device, config, tokens, batch, 0)
    }

    /// As [`Batch::new`], where every sequence goes on after `before` tokens that are not given.
    pub(super) fn after(
        device: &Device,
        config: &ModelConfig,
        tokens: &[u32],
        batch: usize,
        before: usize,
    ) -> Result<Self> {
        if batch == 0 || tokens.is_empty() || !tokens.len().is_multiple_of(batch) {
            return Err(Error::shape("batch", format!("{} tokens in {batch} sequences", tokens.len())));
        }
        let length = tokens.len() / batch;
        if before + length > config.block_size {
            let message = format!("{} tokens, but block_size is {}", before + length, config.block_size);
            return Err(Error::shape("batch", message));
        }
        let mut targets = vec![IGNORE; tokens.len()];
        for (row, target) in tokens.chunks(length).zip(targets.chunks_mut(length)) {
            target[..length - 1].copy_from_slice(&row[1..]);
        }
        let positions: Vec<_> = (0..tokens.len()).map(|i| (before + i % length) as u32).collect();
        Ok(Self {
            tokens: Rc::new(Index::new(device, tokens, config.vocab_size)?),
            positions: Rc::new(Index::new(device, &positions, config.block_size)?),
            targets: device.upload("targets", &[tokens.len()], &targets)?,
            batch,
            length,
        })
    }

    /// Number of tokens that are predicted.
    pub fn predictions(&self) -> usize {
        self.batch * (self.length - 1)
    }

    /// Number of sequences and their length.
    pub fn shape(&self) -> (usize, usize) {
        (self.batch, self.length)
    }
}

/// One position of every sequence of a batch, where alone the model's predictions are wanted.
pub struct QueryPositions {
    pub(super) rows: Rc<Index>,
    pub(super) tokens: Rc<Index>,
}

impl QueryPositions {
    /// The position `at[b]` of sequence b.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one a sequence, or one is outside of it.
    pub fn new(device: &Device, batch: &Batch, at: &[usize]) -> Result<Self> {
        if at.len() != batch.batch || at.iter().any(|&at| at >= batch.length) {
            let message = format!("{} places in {} sequences of {}", at.len(), batch.batch, batch.length);
            return Err(Error::shape("places", message));
        }
        let rows: Vec<u32> = at.iter().enumerate().map(|(b, at)| (b * batch.length + at) as u32).collect();
        let all = batch.tokens.ids().read()?;
        let tokens: Vec<u32> = rows.iter().map(|&row| all[row as usize]).collect();
        Ok(Self {
            rows: Rc::new(Index::new(device, &rows, all.len())?),
            tokens: Rc::new(Index::new(device, &tokens, batch.tokens.vocab())?),
        })
    }
}
