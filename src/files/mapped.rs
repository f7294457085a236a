//! A safetensors file whose tensors are read one at a time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::tensors::{floats, map, unreadable};
use super::{FloatType, HostTensor, TensorInfo, TensorSource};
use crate::error::{Error, Result};

/// A safetensors file, mapped into memory. Its float tensors are the entries; integers and booleans
/// are skipped.
///
/// If another process changes the file meanwhile, numbers may be torn; if it shortens the file,
/// this process may end. Replacing the file by renaming, as this crate does, is harmless.
pub struct SafetensorsFile {
    path: PathBuf,
    file: Mmap,
    entries: BTreeMap<String, TensorInfo>,
    ranges: BTreeMap<String, (Dtype, Range<usize>)>,
    /// Integers and booleans, with their types.
    others: BTreeMap<String, Dtype>,
}

impl SafetensorsFile {
    /// Opens the file and checks its header; reads no numbers.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be opened, and [`Error::File`] if it is truncated,
    /// is no safetensors file, or has a float type other than F32, F16, BF16 and F64.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let file = map(&path)?;
        let (length, header) = SafeTensors::read_metadata(&file).map_err(|e| unreadable(&path, e))?;
        // The first 8 bytes are the length of the header.
        let start = 8 + length;
        let (mut entries, mut ranges, mut others) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (name, info) in header.tensors() {
            match float(info.dtype).map_err(|message| Error::file(&path, format!("tensor `{name}` {message}")))? {
                Some(float) => {
                    let (begin, end) = info.data_offsets;
                    ranges.insert(name.clone(), (info.dtype, start + begin..start + end));
                    entries.insert(name, TensorInfo { shape: info.shape.clone(), float });
                }
                None => _ = others.insert(name, info.dtype),
            }
        }
        Ok(Self { path, file, entries, ranges, others })
    }

    /// Whether the file has a tensor of this name, of any type.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name) || self.others.contains_key(name)
    }

    /// The names of all tensors, of any type.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.entries.keys().chain(self.others.keys())
    }
}

impl TensorSource for SafetensorsFile {
    fn entries(&self) -> &BTreeMap<String, TensorInfo> {
        &self.entries
    }

    fn others(&self) -> BTreeMap<String, String> {
        self.others.iter().map(|(name, dtype)| (name.clone(), format!("whole numbers, {dtype}"))).collect()
    }

    fn read(&self, name: &str) -> Result<HostTensor> {
        let error = |message: String| Error::file(&self.path, format!("tensor `{name}` {message}"));
        let (Some(info), Some((dtype, range))) = (self.entries.get(name), self.ranges.get(name)) else {
            return Err(error("is not in the file".into()));
        };
        let bytes = self.file.get(range.clone()).ok_or_else(|| error("lies outside the file".into()))?;
        let view = TensorView::new(*dtype, info.shape.clone(), bytes).map_err(|e| error(e.to_string()))?;
        let data = floats(&view).map_err(error)?.ok_or_else(|| error("holds no floats".into()))?;
        Ok(HostTensor { shape: info.shape.clone(), data })
    }
}

/// The float type; `None` for integers and booleans; otherwise an error message.
fn float(dtype: Dtype) -> Result<Option<FloatType>, String> {
    Ok(Some(match dtype {
        Dtype::F32 => FloatType::F32,
        Dtype::F16 => FloatType::F16,
        Dtype::BF16 => FloatType::BF16,
        Dtype::F64 => FloatType::F64,
        Dtype::BOOL | Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => return Ok(None),
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => return Ok(None),
        other => return Err(format!("is of type {other}; F32, F16, BF16 and F64 are understood")),
    }))
}
