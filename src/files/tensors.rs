//! Named arrays of numbers in safetensors files.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::open_input;
use crate::error::{Error, Result};

/// Numbers in main memory, row-major.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostTensor<T = f32> {
    /// The size along each axis; empty for a single number.
    pub shape: Vec<usize>,
    /// The numbers, as many as the product of the sizes.
    pub data: Vec<T>,
}

/// Token ids in main memory.
pub type HostIds = HostTensor<u32>;

/// Reads every float tensor (F32, F16, BF16, F64) of the safetensors file at `path`, as f32. Skips
/// integers and booleans, which [`load_ids`] reads.
///
/// The file is mapped: if another process changes it meanwhile, numbers may be torn; if it shortens
/// the file, this process may end.
///
/// # Errors
/// Returns [`Error::Io`] if the file cannot be opened, and [`Error::File`] if it is truncated, is
/// no safetensors file, has another float type, or an F64 too large for f32.
pub fn load_tensors(path: impl AsRef<Path>) -> Result<BTreeMap<String, HostTensor>> {
    let path = path.as_ref();
    parse_tensors(path, &map(path)?)
}

/// As [`load_tensors`], from bytes in memory; `path` is for error messages.
///
/// # Errors
/// Returns the errors of [`load_tensors`].
pub fn parse_tensors(path: &Path, file: &[u8]) -> Result<BTreeMap<String, HostTensor>> {
    let mut tensors = BTreeMap::new();
    for (name, view) in parse(path, file)?.tensors() {
        let error = |message: String| Error::file(path, format!("tensor `{name}` {message}"));
        if let Some(data) = floats(&view).map_err(error)? {
            tensors.insert(name, HostTensor { shape: view.shape().to_vec(), data });
        }
    }
    Ok(tensors)
}

/// Reads the integer tensor `name` (I64, I32, U32 or U16) of the safetensors file at `path`.
/// The file is mapped as for [`load_tensors`].
///
/// # Errors
/// Returns [`Error::Io`] if the file cannot be opened, and [`Error::File`] if it is truncated, is
/// no safetensors file, has no such tensor or one of another type, or a number that is negative or
/// does not fit in u32.
pub fn load_ids(path: impl AsRef<Path>, name: &str) -> Result<HostIds> {
    let path = path.as_ref();
    parse_ids(path, &map(path)?, name)
}

/// As [`load_ids`], from bytes in memory; `path` is for error messages.
///
/// # Errors
/// Returns the errors of [`load_ids`].
pub fn parse_ids(path: &Path, file: &[u8], name: &str) -> Result<HostIds> {
    let error = |message: String| Error::file(path, format!("tensor `{name}` {message}"));
    let view = parse(path, file)?.tensor(name).map_err(|_| error("is not in the file".into()))?;
    Ok(HostIds { data: integers(&view).map_err(error)?, shape: view.shape().to_vec() })
}

/// The names of all tensors in the bytes of a safetensors file; `path` is for error messages.
///
/// # Errors
/// Returns [`Error::File`] if it is truncated or no safetensors file.
pub fn parse_names(path: &Path, file: &[u8]) -> Result<Vec<String>> {
    Ok(parse(path, file)?.names().into_iter().map(String::from).collect())
}

/// Reads the metadata of the safetensors file at `path`, which may be empty.
///
/// # Errors
/// Returns [`Error::Io`] if the file cannot be opened, and [`Error::File`] if it is truncated or no
/// safetensors file.
pub fn load_metadata(path: impl AsRef<Path>) -> Result<BTreeMap<String, String>> {
    let path = path.as_ref();
    let file = map(path)?;
    let (_, header) = SafeTensors::read_metadata(&file).map_err(|e| unreadable(path, e))?;
    Ok(header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect())
}

pub(super) fn map(path: &Path) -> Result<Mmap> {
    let file = open_input(path)?;
    // SAFETY: the mapping is read-only and stays in the modules that read safetensors files; every
    // access is inside its slice. Another process may still change the file: the reading functions
    // and `SafetensorsFile` document that. This crate replaces such files only by renaming, which
    // does not change a mapped one.
    unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))
}

fn parse<'file>(path: &Path, file: &'file [u8]) -> Result<SafeTensors<'file>> {
    SafeTensors::deserialize(file).map_err(|e| unreadable(path, e))
}

pub(super) fn unreadable(path: &Path, reason: safetensors::SafeTensorError) -> Error {
    Error::file(path, format!("not a whole safetensors file: {reason}"))
}

/// The numbers of a float tensor; `None` for integers and booleans; otherwise an error message.
pub(super) fn floats(view: &TensorView) -> Result<Option<Vec<f32>>, String> {
    let data = view.data();
    Ok(Some(match view.dtype() {
        Dtype::F32 => numbers(data, f32::from_le_bytes),
        Dtype::F16 => numbers(data, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => numbers(data, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        Dtype::F64 => {
            let wide = numbers(data, f64::from_le_bytes);
            let narrow = wide.iter().map(|&number| number as f32).collect::<Vec<_>>();
            match wide.iter().zip(&narrow).find(|(wide, narrow)| wide.is_finite() && !narrow.is_finite()) {
                Some((wide, _)) => return Err(format!("holds {wide:e}, too large for f32")),
                None => narrow,
            }
        }
        Dtype::BOOL | Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => return Ok(None),
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => return Ok(None),
        other => return Err(format!("is of type {other}; F32, F16, BF16 and F64 are understood")),
    }))
}

/// The numbers of an integer tensor, or an error message.
fn integers(view: &TensorView) -> Result<Vec<u32>, String> {
    let data = view.data();
    let wide: Vec<i64> = match view.dtype() {
        Dtype::I64 => numbers(data, i64::from_le_bytes),
        Dtype::I32 => numbers(data, |bytes| i32::from_le_bytes(bytes).into()),
        Dtype::U32 => numbers(data, |bytes| u32::from_le_bytes(bytes).into()),
        Dtype::U16 => numbers(data, |bytes| u16::from_le_bytes(bytes).into()),
        other => return Err(format!("is of type {other}; whole numbers I64, I32, U32 or U16 were expected")),
    };
    let narrow = |&id: &i64| u32::try_from(id).map_err(|_| format!("holds {id}, which no u32 can"));
    wide.iter().map(narrow).collect()
}

/// Decodes little-endian numbers of `N` bytes each.
fn numbers<const N: usize, T>(data: &[u8], decode: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (whole, _) = data.as_chunks::<N>();
    whole.iter().map(|&bytes| decode(bytes)).collect()
}
