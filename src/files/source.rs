//! Tensors that are read one at a time, so that a large model is never in memory twice.

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
    /// The size of one number in bytes.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The type with this name in safetensors files, in upper or lower case.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::F32, Self::F16, Self::BF16, Self::F64];
        all.into_iter().find(|float| float.safetensors_name().eq_ignore_ascii_case(name))
    }

    /// The name in safetensors files.
    pub(crate) fn safetensors_name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F64 => "F64",
        }
    }
}

/// The header of a tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The size along each axis.
    pub shape: Vec<usize>,
    /// How the numbers are stored.
    pub float: FloatType,
}

/// Named float tensors that are read on demand.
pub trait TensorSource {
    /// All tensors by name.
    fn entries(&self) -> &BTreeMap<String, TensorInfo>;

    /// Everything else in the file by name, each with a description of its type.
    fn others(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// The numbers of a tensor.
    ///
    /// # Errors
    /// Returns [`Error::File`] naming file and tensor if it does not exist or its numbers cannot be
    /// read.
    fn read(&self, name: &str) -> Result<HostTensor>;
}

/// Tensors in main memory.
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
