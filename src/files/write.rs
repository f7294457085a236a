//! Safetensors files written one tensor at a time, so that only one is in memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use super::{FloatType, HostIds, HostTensor, TensorInfo, write_atomic};
use crate::error::{Error, Result};

/// The key of the metadata in the header; no tensor can have this name.
const METADATA: &str = "__metadata__";

/// Numbers encoded at once.
const CHUNK: usize = 1 << 16;

/// Writes `tensors` to the safetensors file at `path` as f32, atomically. The same tensors and
/// metadata give the same bytes: both are sorted by name. Numbers keep their bits.
///
/// # Errors
/// Returns [`Error::File`] for a tensor whose shape does not match its numbers or whose name is
/// `__metadata__`, and [`Error::Io`] where the system refuses (see [`write_atomic`]).
pub fn save_tensors(
    path: impl AsRef<Path>,
    tensors: &BTreeMap<String, HostTensor>,
    metadata: Option<HashMap<String, String>>,
) -> Result<()> {
    let info = |t: &HostTensor| TensorInfo { shape: t.shape.clone(), float: FloatType::F32 };
    let entries = tensors.iter().map(|(name, tensor)| (name.clone(), info(tensor))).collect();
    let metadata = metadata.map(|metadata| metadata.into_iter().collect());
    write_safetensors(path, &entries, metadata.as_ref(), |name| Ok(Cow::Borrowed(&tensors[name])))
}

/// Writes float and integer tensors (as F32 and I64) to the safetensors file at `path`, atomically.
///
/// # Errors
/// Returns [`Error::File`] for a tensor whose shape does not match its numbers, and [`Error::Io`]
/// where the system refuses.
pub fn save_arrays(
    path: impl AsRef<Path>,
    floats: &BTreeMap<String, HostTensor>,
    ids: &BTreeMap<String, HostIds>,
    metadata: Option<HashMap<String, String>>,
) -> Result<()> {
    let path = path.as_ref();
    let error = |e: safetensors::SafeTensorError| Error::file(path, e.to_string());
    let wide = |ids: &HostIds| ids.data.iter().flat_map(|&id| i64::from(id).to_le_bytes()).collect::<Vec<u8>>();
    let ids: Vec<_> = ids.iter().map(|(name, ids)| (name, &ids.shape, wide(ids))).collect();
    let bytes = |t: &HostTensor| t.data.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let floats: Vec<_> = floats.iter().map(|(name, t)| (name, &t.shape, bytes(t))).collect();
    let all =
        [(Dtype::I64, &ids), (Dtype::F32, &floats)].into_iter().flat_map(|(d, list)| list.iter().map(move |t| (d, t)));
    let views: Vec<_> = all
        .map(|(dtype, (name, shape, bytes))| Ok((*name, TensorView::new(dtype, shape.to_vec(), bytes)?)))
        .collect::<std::result::Result<_, _>>()
        .map_err(error)?;
    let file = safetensors::serialize(views, metadata).map_err(error)?;
    write_atomic(path, |out| out.write_all(&file).map_err(|e| Error::io(path, e)))
}

/// Writes a safetensors file of the `entries`, atomically, with the number types of the entries.
/// `read` is called once for each entry.
///
/// The same entries, numbers and metadata give the same bytes: wide types come first, which keeps
/// every tensor aligned, then tensors are sorted by name. Numbers are rounded to the nearest number
/// of the stored type, ties to even.
///
/// # Errors
/// Returns [`Error::File`] for a tensor whose numbers do not have the entry's shape, whose name is
/// `__metadata__`, or with a finite number too large for the stored type; [`Error::Io`] where the
/// system refuses (see [`write_atomic`]); and the errors of `read`.
pub fn write_safetensors<'tensors>(
    path: impl AsRef<Path>,
    entries: &BTreeMap<String, TensorInfo>,
    metadata: Option<&BTreeMap<String, String>>,
    mut read: impl FnMut(&str) -> Result<Cow<'tensors, HostTensor>>,
) -> Result<()> {
    let path = path.as_ref();
    let mut order: Vec<_> = entries.iter().collect();
    order.sort_by_key(|(_, info)| std::cmp::Reverse(info.float.bytes()));
    let header = header(path, &order, metadata)?;
    write_atomic(path, |out| {
        let mut write = |bytes: &[u8]| out.write_all(bytes).map_err(|e| Error::io(path, e));
        write(&(header.len() as u64).to_le_bytes())?;
        write(header.as_bytes())?;
        let mut bytes = Vec::new();
        for (name, info) in order {
            let error = |message: String| Error::file(path, format!("tensor `{name}` {message}"));
            let tensor = read(name)?;
            let (shape, held) = (&tensor.shape, tensor.data.len());
            if shape != &info.shape || count(shape) != Some(held) {
                return Err(error(format!("has shape {:?} but {held} numbers of shape {shape:?}", info.shape)));
            }
            for chunk in tensor.data.chunks(CHUNK) {
                encode(chunk, info.float, &mut bytes).map_err(error)?;
                write(&bytes)?;
            }
        }
        Ok(())
    })
}

/// The JSON header, padded with spaces so that the numbers start at a multiple of 8 bytes.
fn header(
    path: &Path,
    order: &[(&String, &TensorInfo)],
    metadata: Option<&BTreeMap<String, String>>,
) -> Result<String> {
    let mut entries: BTreeMap<&str, Value> = BTreeMap::new();
    if let Some(metadata) = metadata {
        entries.insert(METADATA, json!(metadata));
    }
    let mut begin = 0usize;
    for (name, info) in order {
        if *name == METADATA {
            return Err(Error::file(path, format!("no tensor can be named `{METADATA}`")));
        }
        let end = count(&info.shape).and_then(|n| n.checked_mul(info.float.bytes())?.checked_add(begin));
        let end = end.ok_or_else(|| Error::file(path, format!("tensor `{name}` {:?} is too large", info.shape)))?;
        let dtype = info.float.safetensors_name();
        entries.insert(name, json!({ "dtype": dtype, "shape": info.shape, "data_offsets": [begin, end] }));
        begin = end;
    }
    let mut header = serde_json::to_string(&entries).map_err(|e| Error::file(path, e.to_string()))?;
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    Ok(header)
}

/// The number of entries of a tensor of `shape`, unless it overflows.
fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
}

/// Fills `out` with the `numbers`, little-endian, as `float`; otherwise returns an error message.
pub(crate) fn encode(numbers: &[f32], float: FloatType, out: &mut Vec<u8>) -> Result<(), String> {
    // Numbers from half a step above the largest one of a type would round to infinity.
    let limit = match float {
        FloatType::F16 => 65_520.0,
        FloatType::BF16 => f32::from_bits(0x7f7f_8000),
        FloatType::F32 | FloatType::F64 => f32::INFINITY,
    };
    if let Some(number) = numbers.iter().find(|number| number.is_finite() && number.abs() >= limit) {
        return Err(format!("holds {number:e}, too large for {}", float.safetensors_name()));
    }
    match float {
        FloatType::F32 => fill(numbers, out, f32::to_le_bytes),
        FloatType::F64 => fill(numbers, out, |number| f64::from(number).to_le_bytes()),
        FloatType::F16 => fill(numbers, out, |number| f16::from_f32(number).to_le_bytes()),
        FloatType::BF16 => fill(numbers, out, |number| bf16::from_f32(number).to_le_bytes()),
    }
    Ok(())
}

fn fill<const N: usize>(numbers: &[f32], out: &mut Vec<u8>, bytes: impl Fn(f32) -> [u8; N]) {
    out.resize(N * numbers.len(), 0);
    for (slot, &number) in out.as_chunks_mut::<N>().0.iter_mut().zip(numbers) {
        *slot = bytes(number);
    }
}
