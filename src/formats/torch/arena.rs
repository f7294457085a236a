//! The objects a pickle makes while it is read.
//!
//! They refer to each other by number, so that however deep or circular they are, nothing here
//! recurses and nothing leaks.

use std::sync::Arc;

use super::sparse::SparseRef;
use super::value::{DataType, TensorRef};

/// No pickle may take more memory than this, however long it is: 2 GiB.
const MOST: usize = 1 << 31;

/// A reference to an object, or a small object itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum PickleItem {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    PickleNode(u32),
}

/// An object.
#[derive(Debug)]
pub(super) enum PickleNode {
    Str(Arc<str>),
    Bytes(Arc<[u8]>),
    List(Vec<PickleItem>),
    Tuple(Vec<PickleItem>),
    Dict(Vec<(PickleItem, PickleItem)>),
    Name(Arc<str>),
    StorageRef(StorageRef),
    Tensor(Arc<TensorRef>),
    Sparse(Arc<SparseRef>),
}

/// A storage: numbers of one kind, or bytes.
#[derive(Clone, Debug)]
pub(super) struct StorageRef {
    pub(super) key: Arc<str>,
    /// Nothing for plain bytes, of which each tensor says what they are.
    pub(super) dtype: Option<DataType>,
    /// How many numbers, or bytes.
    pub(super) length: usize,
}

pub(super) struct Arena {
    nodes: Vec<PickleNode>,
    remaining: usize,
}

impl Arena {
    /// An arena for a pickle of `length` bytes: what it makes may take 64 times as many, and a
    /// mebibyte.
    pub(super) fn new(length: usize) -> Self {
        Self { nodes: Vec::new(), remaining: length.saturating_mul(64).saturating_add(1 << 20).min(MOST) }
    }

    /// Sets `bytes` of memory aside. Honest pickles stay far below the limit; without it, a few
    /// bytes could multiply what is shared.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), String> {
        self.remaining = self.remaining.checked_sub(bytes).ok_or("makes far more than its size explains")?;
        Ok(())
    }

    /// A new object. What it holds beyond `size_of::<PickleNode>()` must have been spent by the caller,
    /// unless the pickle itself contains it.
    pub(super) fn add(&mut self, node: PickleNode) -> Result<PickleItem, String> {
        self.spend(size_of::<PickleNode>())?;
        let index = u32::try_from(self.nodes.len()).map_err(|_| "makes too many objects")?;
        self.nodes.push(node);
        Ok(PickleItem::PickleNode(index))
    }

    pub(super) fn node(&self, item: PickleItem) -> Option<&PickleNode> {
        if let PickleItem::PickleNode(index) = item { self.nodes.get(index as usize) } else { None }
    }

    /// The items of a list, to be added to.
    pub(super) fn list_mut(&mut self, item: PickleItem) -> Result<&mut Vec<PickleItem>, String> {
        match self.node_mut(item) {
            Some(PickleNode::List(items)) => Ok(items),
            _ => Err("appends to what is not a list".into()),
        }
    }

    /// The pairs of a dictionary, to be added to.
    pub(super) fn dict_mut(&mut self, item: PickleItem) -> Result<&mut Vec<(PickleItem, PickleItem)>, String> {
        match self.node_mut(item) {
            Some(PickleNode::Dict(pairs)) => Ok(pairs),
            _ => Err("sets keys of what is not a dictionary".into()),
        }
    }

    fn node_mut(&mut self, item: PickleItem) -> Option<&mut PickleNode> {
        if let PickleItem::PickleNode(index) = item { self.nodes.get_mut(index as usize) } else { None }
    }

    pub(super) fn text(&self, item: PickleItem) -> Result<&Arc<str>, String> {
        match self.node(item) {
            Some(PickleNode::Str(text)) => Ok(text),
            _ => Err("has something else where a string belongs".into()),
        }
    }

    pub(super) fn name(&self, item: PickleItem) -> Result<&Arc<str>, String> {
        match self.node(item) {
            Some(PickleNode::Name(name)) => Ok(name),
            _ => Err("has something else where the name of a class or function belongs".into()),
        }
    }

    /// The items of a list or tuple.
    pub(super) fn items(&self, item: PickleItem) -> Result<&[PickleItem], String> {
        match self.node(item) {
            Some(PickleNode::List(items) | PickleNode::Tuple(items)) => Ok(items),
            _ => Err("has something else where a list or tuple belongs".into()),
        }
    }

    /// A whole number that is not negative.
    pub(super) fn size(&self, item: PickleItem) -> Result<usize, String> {
        match item {
            PickleItem::Int(number) => {
                usize::try_from(number).map_err(|_| format!("has {number} where a size belongs"))
            }
            _ => Err("has something else where a size belongs".into()),
        }
    }
}
