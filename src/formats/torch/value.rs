//! What a torch file can hold.

use std::sync::Arc;

use super::sparse::SparseRef;

/// A saved Python value. Parts that were one object when saved are shared, so that a copy costs
/// nothing; the nesting is at most 100 deep, no value holds itself, and writing all of it out takes
/// at most a fixed multiple of the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A whole number; a file with larger ones is refused.
    Int(i64),
    /// A float.
    Float(f64),
    /// A string.
    Str(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A list.
    List(Arc<[Value]>),
    /// A tuple, or a `torch.Size`.
    Tuple(Arc<[Value]>),
    /// A dictionary of any kind, in its order; where a key is set twice, the last one counts.
    Dict(Arc<[(Value, Value)]>),
    /// A class, function or constant that is named and not called, such as `torch.float32`.
    Name(Arc<str>),
    /// A tensor or parameter.
    Tensor(Arc<TensorRef>),
    /// A tensor or parameter that was saved as its nonzeros.
    Sparse(Arc<SparseRef>),
}

impl Value {
    /// The value of the string `key`, if this is a dictionary that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.pairs()?.iter().rev().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    /// The keys and values of a dictionary.
    pub fn pairs(&self) -> Option<&[(Self, Self)]> {
        if let Self::Dict(pairs) = self { Some(pairs) } else { None }
    }

    /// The items of a list or tuple.
    pub fn items(&self) -> Option<&[Self]> {
        if let Self::List(items) | Self::Tuple(items) = self { Some(items) } else { None }
    }

    /// A string.
    pub fn text(&self) -> Option<&str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    /// A whole number.
    pub fn int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    /// A number, whole or not.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            Self::Int(number) => Some(*number as f64),
            _ => None,
        }
    }

    /// A tensor.
    pub fn tensor(&self) -> Option<&TensorRef> {
        if let Self::Tensor(tensor) = self { Some(tensor) } else { None }
    }

    /// What it is, for people.
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Tensor(tensor) => format!("a tensor of {:?}", tensor.dtype),
            Self::Sparse(tensor) => format!("a sparse tensor of {:?}", tensor.values.dtype),
            Self::None => "None".into(),
            Self::Bool(_) | Self::Int(_) | Self::Float(_) => "a number".into(),
            Self::Str(_) | Self::Bytes(_) | Self::Name(_) => "text".into(),
            Self::List(_) | Self::Tuple(_) => "a list".into(),
            Self::Dict(_) => "a dictionary".into(),
        }
    }
}

/// A tensor as the file describes it: a view of a storage. Nothing here is checked against the
/// storage until the tensor is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorRef {
    /// The kind of number.
    pub dtype: DataType,
    /// The size along each axis; empty for a single number.
    pub shape: Vec<usize>,
    /// For each axis, the distance of neighbours in the storage; 0 where one number
    /// stands for all.
    pub strides: Vec<usize>,
    /// The storage's key in the archive.
    pub storage: Arc<str>,
    /// Where in the storage the tensor begins, counted in numbers.
    pub offset: usize,
}

/// How a storage holds its numbers, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are torch's own, shortened")]
pub enum DataType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U32,
    U16,
    U8,
    Bool,
}

impl DataType {
    /// How many bytes a number takes.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}
