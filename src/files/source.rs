//! Tensors that are read one at a time, from wherever they lie, so that a large model is never in memory twice.

use std::collections::BTreeMap;

use super::HostTensor;
use crate::{Error, Result};

/// How a file stores a float tensor. All become f32 when read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatType {
    /// 32 bits.
    F32,
    /// IEEE half precision, 16 bits.
    F16,
    /// The upper half of f32, 16 bits.
    BF16,
    /// 64 bits; numbers too large for f32 are an error when read.
    F64,
}

impl FloatType {
    /// Size of one number in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// What safetensors files call it.
    pub fn safetensors_name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F64 => "F64",
        }
    }
}

/// What a file says of a tensor before its numbers are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The size along each axis.
    pub shape: Vec<usize>,
    /// How the numbers are stored.
    pub float: FloatType,
}

/// Named float tensors, each read when it is asked for.
pub trait TensorSource {
    /// All names, in order, and what stands under them.
    fn entries(&self) -> &BTreeMap<String, TensorInfo>;

    /// What else there is by name, each with its type in words: tensors of whole numbers, things that are no tensors.
    fn others(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// The numbers of one of them.
    ///
    /// # Errors
    /// [`Error::File`] naming file and tensor if its numbers cannot be read, or there is no such tensor.
    fn read(&self, name: &str) -> Result<HostTensor>;
}

/// Tensors that are in main memory already.
pub struct InMemory {
    entries: BTreeMap<String, TensorInfo>,
    tensors: BTreeMap<String, HostTensor>,
}

impl From<BTreeMap<String, HostTensor>> for InMemory {
    fn from(tensors: BTreeMap<String, HostTensor>) -> Self {
        let info = |t: &HostTensor| TensorInfo { shape: t.shape.clone(), float: FloatType::F32 };
        Self { entries: tensors.iter().map(|(name, t)| (name.clone(), info(t))).collect(), tensors }
    }
}

impl TensorSource for InMemory {
    fn entries(&self) -> &BTreeMap<String, TensorInfo> {
        &self.entries
    }

    fn read(&self, name: &str) -> Result<HostTensor> {
        let missing = || Error::MissingTensor { holder: "the map of tensors".into(), name: name.into() };
        self.tensors.get(name).cloned().ok_or_else(missing)
    }
}
