//! Keys and values of the tokens read so far, so that the next token costs one position instead of
//! all.

use super::Model;
use crate::device::Tensor;
use crate::ops::attention::{self, AttentionOptions};
use crate::ops::attention_decode;
use crate::{Error, Result};

/// The keys and values of every layer for sequences that are read bit by bit with
/// [`Model::extend`].
pub struct KvCache {
    /// Keys and values of each layer, `(B, block_size, H·D)`.
    layers: Vec<[Tensor; 2]>,
    length: usize,
}

impl KvCache {
    /// Room for `batch` sequences of up to `block_size` tokens.
    ///
    /// # Errors
    /// The device's limits, naming the tensor.
    pub fn new(model: &Model, batch: usize) -> Result<Self> {
        let shape = [batch, model.config.block_size, model.config.attention_width()];
        let buffer = |name: &str| model.device.empty(name, &shape);
        let layers = (0..model.config.n_layer).map(|_| Ok([buffer("key cache")?, buffer("value cache")?]));
        Ok(Self { layers: layers.collect::<Result<_>>()?, length: 0 })
    }

    /// Tokens read so far.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing was read yet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Forgets what was read.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    pub(super) fn advance(&mut self, tokens: usize) {
        self.length += tokens;
    }

    /// Keeps the new keys and values of a layer and attends to all of them; `q`, `k`, `v`: `(B, T,
    /// H·D)`.
    pub(super) fn attend(
        &mut self,
        layer: usize,
        [q, k, v]: [&Tensor; 3],
        sink: Option<&Tensor>,
        options: AttentionOptions,
    ) -> Result<Tensor> {
        let length = self.length;
        let [keys, values] = self.layers.get_mut(layer).ok_or_else(|| Error::shape("cache", "another model's"))?;
        attention_decode::append(k, keys, length)?;
        attention_decode::append(v, values, length)?;
        match length {
            0 => Ok(attention::forward(q, k, v, sink, options)?.y),
            _ => attention_decode::forward(q, keys, values, length + 1, sink, options),
        }
    }
}
