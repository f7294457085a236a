//! Plain numbers out of a payload's values, however they were saved.

use std::collections::{BTreeMap, HashMap};

use crate::Result;
use crate::circuits::labels::{clipped, visible};
use crate::circuits::{Node, has_matrix};
use crate::formats::torch::{DataType, TensorRef, TorchFile, Value};
use crate::model::Site;

/// Tensors of a payload have at most so many numbers: 2²⁴. A small file can describe far larger
/// ones.
const MOST: usize = 1 << 24;

/// More layers than any model has; each costs a little memory.
const LAYERS: usize = 1000;

/// Entries that were not understood and are named, of each part.
const NAMES: usize = 3;
/// Characters of such a name.
const NAME: usize = 60;

/// Reads a payload's parts, and keeps a list of those that it could not.
pub(super) struct PayloadReader<'a> {
    file: &'a TorchFile,
    /// The kept nodes in the order in which the payload's lists go through them.
    pub(super) order: HashMap<Site, Vec<i64>>,
    missing: Vec<String>,
    /// What was not understood: by part of the payload, how many entries, and the first ones' names.
    skipped: BTreeMap<&'static str, (usize, Vec<String>)>,
}

impl<'a> PayloadReader<'a> {
    pub(super) fn new(file: &'a TorchFile) -> Self {
        Self { file, order: HashMap::new(), missing: Vec::new(), skipped: BTreeMap::new() }
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

    /// Counts an entry of a part of the payload that was not understood and is omitted.
    pub(super) fn skip(&mut self, part: &'static str, name: impl Into<String>) {
        let (count, names) = self.skipped.entry(part).or_default();
        *count += 1;
        if names.len() < NAMES {
            names.push(visible(&clipped(&name.into(), NAME)));
        }
    }

    /// Everything that is missing or was not understood; a sentence each.
    pub(super) fn missing(self) -> Vec<String> {
        let sentence = |(part, (count, names)): (&str, (usize, Vec<String>))| {
            let (be, more) = (if count == 1 { "was" } else { "were" }, if count > names.len() { ", …" } else { "" });
            format!("{count} of {part} {be} not understood and omitted: {}{more}.", names.join(", "))
        };
        self.missing.into_iter().chain(self.skipped.into_iter().map(sentence)).collect()
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

    /// The same; those of a list with all their digits.
    pub(super) fn doubles(&self, value: &Value) -> Result<Option<Vec<f64>>> {
        if let Some(tensor) = value.tensor() {
            return Ok(self.floats(tensor)?.map(|numbers| numbers.into_iter().map(f64::from).collect()));
        }
        let Some(items) = value.items() else { return Ok(None) };
        items.iter().map(|item| self.number(item)).collect()
    }

    /// The whole numbers of a list or tensor.
    pub(super) fn integers(&self, value: &Value) -> Result<Option<Vec<i64>>> {
        if let Some(tensor) = value.tensor() {
            let few = tensor.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).is_some_and(|n| n <= MOST);
            return match tensor.dtype {
                _ if !few => Ok(None),
                // Some programs save tokens as floats.
                DataType::F64 | DataType::F32 | DataType::F16 | DataType::BF16 => {
                    Ok(self.file.floats(tensor)?.data.into_iter().map(whole).collect())
                }
                _ => self.file.integers(tensor).map(Some),
            };
        }
        let Some(items) = value.items() else { return Ok(None) };
        items.iter().map(|item| self.int(item)).collect::<Result<Option<Vec<_>>>>()
    }

    /// A whole number, or a tensor of one.
    pub(super) fn int(&self, value: &Value) -> Result<Option<i64>> {
        match value.tensor() {
            Some(_) => Ok(self.integers(value)?.filter(|numbers| numbers.len() == 1).map(|numbers| numbers[0])),
            None => Ok(value.int().or_else(|| value.number().and_then(|number| whole(number as f32)))),
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

/// A float that is a whole number.
fn whole(number: f32) -> Option<i64> {
    // From here on, floats do not tell whole numbers apart.
    const LARGEST: f32 = (1 << 24) as f32;
    (number.fract() == 0.0 && number.abs() <= LARGEST).then_some(number as i64)
}

/// A site that circuits have nodes at: `3.mlp.post_act`, `final_resid`.
pub(super) fn location(text: &str) -> Option<Site> {
    let site = text.parse().ok()?;
    let node = Node::at(site, 0)?;
    node.layer.is_none_or(|layer| layer < LAYERS).then_some(site)
}

/// A node by its site and its channel.
pub(super) fn node(site: Site, index: i64) -> Option<Node> {
    /// More channels than any site has.
    const CHANNELS: i64 = 1 << 30;
    (0..CHANNELS).contains(&index).then(|| Node::at(site, index as usize)).flatten()
}

/// Whether weights join two sites.
pub(super) fn joined(from: Site, to: Site) -> bool {
    let ends = Node::at(from, 0).zip(Node::at(to, 0));
    ends.is_some_and(|(from, to)| from.layer == to.layer && has_matrix(from.kind, to.kind))
}

/// A key or a location, for messages.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Str(text) => text.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::List(items) | Value::Tuple(items) if items.len() <= 4 => {
            items.iter().map(shown).collect::<Vec<_>>().join(" → ")
        }
        other => other.kind(),
    }
}
