//! A tensor's numbers out of its storage, whatever its strides.

use half::{bf16, f16};

use super::value::{DataType, TensorRef};
use crate::files::HostTensor;

/// A tensor that has more numbers than its storage (an expanded one) may have at most so many: 2²⁶,
/// 256 MiB as f32. Without a limit, a file of a kilobyte could fill any memory.
pub(super) const EXPANDED: usize = 1 << 26;

/// The numbers of a float tensor, row-major.
pub(super) fn floats(tensor: &TensorRef, storage: &[u8]) -> Result<HostTensor, String> {
    let data = match tensor.dtype {
        DataType::F32 => gather(tensor, storage, f32::from_le_bytes)?,
        DataType::F16 => gather(tensor, storage, |bytes| f16::from_le_bytes(bytes).to_f32())?,
        DataType::BF16 => gather(tensor, storage, |bytes| bf16::from_le_bytes(bytes).to_f32())?,
        DataType::F64 => {
            let mut too_large = None;
            let data = gather(tensor, storage, |bytes| {
                let wide = f64::from_le_bytes(bytes);
                let narrow = wide as f32;
                if wide.is_finite() && !narrow.is_finite() {
                    too_large = Some(wide);
                }
                narrow
            })?;
            if let Some(wide) = too_large {
                return Err(format!("holds {wide:e}, too large for f32"));
            }
            data
        }
        other => return Err(format!("holds {other:?}, where floats were expected")),
    };
    Ok(HostTensor { shape: tensor.shape.clone(), data })
}

/// The numbers of an integer or boolean tensor, row-major.
pub(super) fn integers(tensor: &TensorRef, storage: &[u8]) -> Result<Vec<i64>, String> {
    match tensor.dtype {
        DataType::I64 => gather(tensor, storage, i64::from_le_bytes),
        DataType::I32 => gather(tensor, storage, |bytes| i32::from_le_bytes(bytes).into()),
        DataType::I16 => gather(tensor, storage, |bytes| i16::from_le_bytes(bytes).into()),
        DataType::I8 => gather(tensor, storage, |bytes| i8::from_le_bytes(bytes).into()),
        DataType::U32 => gather(tensor, storage, |bytes| u32::from_le_bytes(bytes).into()),
        DataType::U16 => gather(tensor, storage, |bytes| u16::from_le_bytes(bytes).into()),
        DataType::U8 => gather(tensor, storage, |[byte]| byte.into()),
        DataType::Bool => gather(tensor, storage, |[byte]| i64::from(byte != 0)),
        other => Err(format!("holds {other:?}, where whole numbers were expected")),
    }
}

/// How many numbers the tensor has, having checked that each is inside a storage of `bytes`
/// bytes.
pub(super) fn count(tensor: &TensorRef, bytes: usize) -> Result<usize, String> {
    let TensorRef { dtype, shape, strides, offset, .. } = tensor;
    let held = bytes / dtype.bytes();
    if shape.len() != strides.len() {
        return Err(format!("shape {shape:?} and strides {strides:?} do not fit together"));
    }
    if shape.contains(&0) {
        return Ok(0);
    }
    let count = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    let count = count
        .filter(|&count| count <= held.max(EXPANDED))
        .ok_or_else(|| format!("shape {shape:?} is of more numbers than can be read from a storage of {held}"))?;
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(*offset, |at, (&size, &stride)| stride.checked_mul(size - 1).and_then(|way| at.checked_add(way)));
    match last.filter(|&last| last < held) {
        Some(_) => Ok(count),
        None => Err(format!(
            "shape {shape:?} with strides {strides:?} from {offset} on reaches beyond the {held} numbers of its storage"
        )),
    }
}

fn gather<const N: usize, T>(
    tensor: &TensorRef,
    storage: &[u8],
    mut decode: impl FnMut([u8; N]) -> T,
) -> Result<Vec<T>, String> {
    let count = count(tensor, storage.len())?;
    let mut numbers = Vec::new();
    numbers.try_reserve_exact(count).map_err(|_| format!("{count} numbers, for which there is too little memory"))?;
    if count == 0 {
        return Ok(numbers);
    }
    let (cells, _) = storage.as_chunks::<N>();
    let mut axes: Vec<AxisWalk> = Vec::new();
    for (&size, &stride) in tensor.shape.iter().zip(&tensor.strides).filter(|&(&size, _)| size > 1) {
        match axes.last_mut() {
            // Axes that are contiguous in the storage are walked as one: a contiguous tensor has a
            // single axis.
            Some(outer) if stride.checked_mul(size) == Some(outer.stride) => {
                *outer = AxisWalk { size: outer.size * size, stride, index: 0 };
            }
            _ => axes.push(AxisWalk { size, stride, index: 0 }),
        }
    }
    let inner = axes.pop().unwrap_or(AxisWalk { size: 1, stride: 1, index: 0 });
    let mut start = tensor.offset;
    loop {
        if inner.stride == 1 {
            numbers.extend(cells[start..start + inner.size].iter().map(|&bytes| decode(bytes)));
        } else {
            numbers.extend((0..inner.size).map(|i| decode(cells[start + i * inner.stride])));
        }
        let Some(turning) = axes.iter().rposition(|axis| axis.index + 1 < axis.size) else {
            return Ok(numbers);
        };
        for axis in &mut axes[turning + 1..] {
            start -= axis.index * axis.stride;
            axis.index = 0;
        }
        axes[turning].index += 1;
        start += axes[turning].stride;
    }
}

/// An axis, and the current position of the walk along it.
struct AxisWalk {
    size: usize,
    stride: usize,
    index: usize,
}
