//! A model's tensors by their names.

use std::collections::BTreeMap;
use std::path::Path;

use super::numbers;
use super::{DataType, TensorRef, TorchFile, Value};
use crate::files::{FloatType, HostTensor, TensorInfo, TensorSource};
use crate::{Error, Result};

/// Where training programs keep the state dict when they save more than it.
const WRAPPER_KEYS: [&str; 3] = ["model", "state_dict", "model_state_dict"];

/// The float tensors of a saved state dict, sparse ones included. Everything else in it (integers,
/// booleans, plain values) is passed over.
pub struct TorchStateDict {
    file: TorchFile,
    entries: BTreeMap<String, TensorInfo>,
    /// The values that are float tensors, by name.
    tensors: BTreeMap<String, Value>,
    others: BTreeMap<String, String>,
}

impl TorchStateDict {
    /// Opens the archive at `path` (see [`TorchFile::open`]) and finds the state dict in it.
    ///
    /// # Errors
    /// Those of [`TorchFile::open`] and [`Self::new`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(TorchFile::open(path)?)
    }

    /// The state dict of `file`: the dictionary with tensors under `model`, `state_dict` or
    /// `model_state_dict` if there is one, or else the whole value. Names are those of the
    /// file.
    ///
    /// # Errors
    /// [`Error::File`] if that is no dictionary with float tensors by name, or a tensor reaches
    /// beyond its storage.
    pub fn new(file: TorchFile) -> Result<Self> {
        let top = file.value();
        let is_tensor = |value: &Value| matches!(value, Value::Tensor(_) | Value::Sparse(_));
        let holds_tensors = |pairs: &&[(Value, Value)]| pairs.iter().any(|(_, value)| is_tensor(value));
        let inner = WRAPPER_KEYS.iter().filter_map(|&key| top.get(key)?.pairs()).find(holds_tensors);
        let (mut entries, mut tensors, mut others) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (key, value) in inner.or(top.pairs()).unwrap_or_default() {
            let Value::Str(name) = key else { continue };
            let nothing = Vec::new();
            let (parts, dtype, shape): (Vec<&TensorRef>, _, _) = match value {
                Value::Tensor(tensor) => (vec![tensor], tensor.dtype, &tensor.shape),
                Value::Sparse(t) => (t.indices.iter().chain([&t.values]).collect(), t.values.dtype, &t.shape),
                _ => (Vec::new(), DataType::Bool, &nothing),
            };
            let float = match dtype {
                DataType::F32 => FloatType::F32,
                DataType::F16 => FloatType::F16,
                DataType::BF16 => FloatType::BF16,
                DataType::F64 => FloatType::F64,
                _ => {
                    others.insert(name.to_string(), value.kind());
                    continue;
                }
            };
            for part in parts {
                file.storage(part)
                    .and_then(|storage| numbers::count(part, storage.len()))
                    .map_err(|message| tensor_error(&file, name, &message))?;
            }
            // Of one name, the last one counts.
            others.remove(&**name);
            entries.insert(name.to_string(), TensorInfo { shape: shape.clone(), float });
            tensors.insert(name.to_string(), value.clone());
        }
        if entries.is_empty() {
            let keys = WRAPPER_KEYS.join("`, `");
            let message = format!("no float tensors by name, neither at the top nor under `{keys}`: not a state dict");
            return Err(Error::file(file.path(), message));
        }
        Ok(Self { file, entries, tensors, others })
    }
}

impl TensorSource for TorchStateDict {
    fn entries(&self) -> &BTreeMap<String, TensorInfo> {
        &self.entries
    }

    fn others(&self) -> BTreeMap<String, String> {
        self.others.clone()
    }

    fn read(&self, name: &str) -> Result<HostTensor> {
        let read = match self.tensors.get(name) {
            Some(Value::Tensor(tensor)) => {
                self.file.storage(tensor).and_then(|storage| numbers::floats(tensor, storage))
            }
            Some(Value::Sparse(tensor)) => tensor.dense(|part| self.file.storage(part)),
            _ => Err("is not in the file".into()),
        };
        read.map_err(|message| tensor_error(&self.file, name, &message))
    }
}

fn tensor_error(file: &TorchFile, name: &str, message: &str) -> Error {
    Error::file(file.path(), format!("tensor `{name}`: {message}"))
}
