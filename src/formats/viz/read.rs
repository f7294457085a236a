//! Plain numbers out of a payload's values, however they were saved.

use std::collections::HashMap;

use crate::Result;
use crate::circuits::{Node, NodeKind};
use crate::formats::torch::{DataType, TensorRef, TorchFile, Value};
use crate::model::Site;

/// Tensors of a payload have at most so many numbers: 2²⁴. A small file can describe far larger
/// ones.
const MOST: usize = 1 << 24;

/// More layers than any model has; each costs a little memory.
const LAYERS: usize = 1000;

/// Reads a payload's parts, and keeps a list of those that it could not.
pub(super) struct PayloadReader<'a> {
    file: &'a TorchFile,
    /// The kept nodes in the order in which the payload's lists go through them.
    pub(super) order: HashMap<(usize, NodeKind), Vec<i64>>,
    pub(super) missing: Vec<String>,
}

impl<'a> PayloadReader<'a> {
    pub(super) fn new(file: &'a TorchFile) -> Self {
        Self { file, order: HashMap::new(), missing: Vec::new() }
    }

    pub(super) fn path(&self) -> &std::path::Path {
        self.file.path()
    }

    /// Notes what is missing, once.
    pub(super) fn miss(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.missing.contains(&what) {
            self.missing.push(what);
        }
    }

    /// The numbers of a tensor, and its shape; nothing if there are too many.
    pub(super) fn floats(&self, tensor: &TensorRef) -> Result<Option<Vec<f32>>> {
        if tensor.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).is_none_or(|n| n > MOST) {
            return Ok(None);
        }
        match tensor.dtype {
            DataType::F64 | DataType::F32 | DataType::F16 | DataType::BF16 => Ok(Some(self.file.floats(tensor)?.data)),
            _ => Ok(Some(self.file.integers(tensor)?.into_iter().map(|n| n as f32).collect())),
        }
    }

    /// The numbers of a list or tensor.
    pub(super) fn numbers(&self, value: &Value) -> Result<Option<Vec<f32>>> {
        if let Some(tensor) = value.tensor() {
            return self.floats(tensor);
        }
        let Some(items) = value.items() else { return Ok(None) };
        let numbers = items.iter().map(|item| Ok(self.number(item)?.map(|n| n as f32)));
        numbers.collect::<Result<Option<Vec<_>>>>()
    }

    /// The whole numbers of a list or tensor.
    pub(super) fn integers(&self, value: &Value) -> Result<Option<Vec<i64>>> {
        if let Some(tensor) = value.tensor() {
            let few = tensor.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).is_some_and(|n| n <= MOST);
            let whole = !matches!(tensor.dtype, DataType::F64 | DataType::F32 | DataType::F16 | DataType::BF16);
            return if few && whole { self.file.integers(tensor).map(Some) } else { Ok(None) };
        }
        let Some(items) = value.items() else { return Ok(None) };
        items.iter().map(|item| self.int(item)).collect::<Result<Option<Vec<_>>>>()
    }

    /// A whole number, or a tensor of one.
    pub(super) fn int(&self, value: &Value) -> Result<Option<i64>> {
        match value.tensor() {
            Some(_) => Ok(self.integers(value)?.filter(|numbers| numbers.len() == 1).map(|numbers| numbers[0])),
            None => Ok(value.int()),
        }
    }

    /// A finite number, or a tensor of one.
    pub(super) fn number(&self, value: &Value) -> Result<Option<f64>> {
        let number = match value.tensor() {
            Some(tensor) => self.floats(tensor)?.filter(|numbers| numbers.len() == 1).map(|numbers| numbers[0].into()),
            None => value.number(),
        };
        Ok(number.filter(|number| number.is_finite()))
    }

    /// A list of tokens.
    pub(super) fn tokens(&self, value: &Value) -> Result<Option<Vec<u32>>> {
        let numbers = self.integers(value)?;
        Ok(numbers.and_then(|numbers| numbers.into_iter().map(|n| u32::try_from(n).ok()).collect()))
    }
}

/// The nodes of a site: `3.mlp.post_act`.
pub(super) fn location(text: &str) -> Option<(usize, NodeKind)> {
    let Site::Layer(layer, site) = text.parse().ok()? else { return None };
    let kind = NodeKind::ALL.into_iter().find(|kind| kind.site() == site)?;
    (layer < LAYERS).then_some((layer, kind))
}

/// A node by its site and its channel.
pub(super) fn node((layer, kind): (usize, NodeKind), index: i64) -> Option<Node> {
    /// More channels than any site has.
    const CHANNELS: i64 = 1 << 30;
    (0..CHANNELS).contains(&index).then_some(Node { layer, kind, index: index as usize })
}
