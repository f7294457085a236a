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
    pub(crate) targets: Tensor<u32>,
    /// Of each sequence without its padding.
    pub(crate) lengths: Vec<usize>,
    /// With padding.
    length: usize,
}

impl Batch {
    /// `tokens`: `batch` sequences of equal length, one after the other. Every token but the first
    /// of its sequence is a target.
    ///
    /// # Errors
    /// [`Error::Shape`] if the tokens do not divide into the sequences, are too long for the model,
    /// or not in its vocabulary.
    pub fn new(device: &Device, config: &ModelConfig, tokens: &[u32], batch: usize) -> Result<Self> {
        Self::after(device, config, tokens, batch, 0)
    }

    /// A batch of prompts of any lengths, the shorter ones padded on the right. Since the model is
    /// causal, padding changes nothing at a prompt's positions, and no padding is a target.
    pub(crate) fn of_prompts<P: AsRef<[u32]>>(device: &Device, config: &ModelConfig, prompts: &[P]) -> Result<Self> {
        let lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.as_ref().len()).collect();
        if lengths.contains(&0) {
            return Err(Error::shape("batch", "an empty prompt"));
        }
        let length = lengths.iter().copied().max().unwrap_or(0);
        let mut tokens = Vec::with_capacity(length * prompts.len());
        for (prompt, end) in prompts.iter().zip((1..).map(|row| row * length)) {
            tokens.extend_from_slice(prompt.as_ref());
            tokens.resize(end, 0);
        }
        Self::with_lengths(device, config, &tokens, lengths, 0)
    }

    /// As [`Batch::new`], where every sequence continues after `before` tokens that are not given.
    pub(super) fn after(
        device: &Device,
        config: &ModelConfig,
        tokens: &[u32],
        batch: usize,
        before: usize,
    ) -> Result<Self> {
        let lengths = vec![tokens.len() / batch.max(1); batch];
        Self::with_lengths(device, config, tokens, lengths, before)
    }

    fn with_lengths(
        device: &Device,
        config: &ModelConfig,
        tokens: &[u32],
        lengths: Vec<usize>,
        before: usize,
    ) -> Result<Self> {
        let batch = lengths.len();
        if batch == 0 || tokens.is_empty() || !tokens.len().is_multiple_of(batch) {
            return Err(Error::shape("batch", format!("{} tokens in {batch} sequences", tokens.len())));
        }
        let length = tokens.len() / batch;
        if before + length > config.block_size {
            let message = format!("{} tokens, but block_size is {}", before + length, config.block_size);
            return Err(Error::shape("batch", message));
        }
        let mut targets = vec![IGNORE; tokens.len()];
        for ((row, target), &prompt_length) in tokens.chunks(length).zip(targets.chunks_mut(length)).zip(&lengths) {
            target[..prompt_length - 1].copy_from_slice(&row[1..prompt_length]);
        }
        let positions: Vec<_> = (0..tokens.len()).map(|i| (before + i % length) as u32).collect();
        Ok(Self {
            tokens: Rc::new(Index::new(device, tokens, config.vocab_size)?),
            positions: Rc::new(Index::new(device, &positions, config.block_size)?),
            targets: device.upload("targets", &[tokens.len()], &targets)?,
            lengths,
            length,
        })
    }

    /// Number of tokens that are predicted.
    pub fn predictions(&self) -> usize {
        self.lengths.iter().map(|length| length - 1).sum()
    }

    /// Number of sequences and their length, padding included.
    pub fn shape(&self) -> (usize, usize) {
        (self.lengths.len(), self.length)
    }
}

/// One position of every sequence of a batch, at which alone the model predicts.
pub struct QueryPositions {
    pub(super) rows: Rc<Index>,
    pub(super) tokens: Rc<Index>,
}

impl QueryPositions {
    /// The position `at[b]` of sequence b.
    pub(crate) fn new(device: &Device, batch: &Batch, at: &[usize]) -> Result<Self> {
        let (sequences, length) = batch.shape();
        if at.len() != sequences || at.iter().any(|&at| at >= length) {
            let message = format!("{} positions in {sequences} sequences of {length}", at.len());
            return Err(Error::shape("positions", message));
        }
        let rows: Vec<u32> = at.iter().enumerate().map(|(b, at)| (b * length + at) as u32).collect();
        let all = batch.tokens.ids().read()?;
        let tokens: Vec<u32> = rows.iter().map(|&row| all[row as usize]).collect();
        Ok(Self {
            rows: Rc::new(Index::new(device, &rows, all.len())?),
            tokens: Rc::new(Index::new(device, &tokens, batch.tokens.vocab())?),
        })
    }

    /// The last position of each sequence.
    pub(crate) fn last(device: &Device, batch: &Batch) -> Result<Self> {
        let last: Vec<usize> = batch.lengths.iter().map(|length| length - 1).collect();
        Self::new(device, batch, &last)
    }
}
