//! The few Python calls that a file of tensors needs, done here; every other one is refused.

use std::sync::Arc;

use super::arena::{Arena, PickleItem, PickleNode, StorageRef};
use super::sparse::{SparseLayout, SparseRef};
use super::value::{DataType, TensorRef};

/// More axes than any tensor has.
const AXES: usize = 64;

/// What `callable(*arguments)` would return.
pub(super) fn call(arena: &mut Arena, callable: PickleItem, arguments: PickleItem) -> Result<PickleItem, String> {
    let name = Arc::clone(arena.name(callable)?);
    let arguments = arena.items(arguments)?;
    if arguments.len() > 8 {
        return Err(refusal(&name));
    }
    let arguments = arguments.to_vec();
    let known = name.strip_prefix("torch._utils._rebuild_").unwrap_or(&name);
    match (known, arguments.as_slice()) {
        ("tensor", &[storage, offset, shape, strides]) => tensor(arena, storage, offset, shape, strides, None),
        ("tensor_v2", &[storage, offset, shape, strides, _, _]) => tensor(arena, storage, offset, shape, strides, None),
        ("tensor_v2", &[storage, offset, shape, strides, _, _, bits]) => {
            no_bits(arena, bits)?;
            tensor(arena, storage, offset, shape, strides, None)
        }
        ("tensor_v3", &[storage, offset, shape, strides, _, _, dtype]) => {
            let dtype = named_dtype(arena.name(dtype)?)?;
            tensor(arena, storage, offset, shape, strides, Some(dtype))
        }
        ("parameter", &[tensor, _, _]) | ("parameter_with_state", &[tensor, _, _, _]) => match arena.node(tensor) {
            Some(PickleNode::Tensor(_) | PickleNode::Sparse(_)) => Ok(tensor),
            _ => Err("a parameter that is not a tensor".into()),
        },
        ("sparse_tensor" | "sparse_csr_tensor", &[layout, parts]) => sparse(arena, layout, parts),
        // What a layout is saved as.
        ("torch.serialization._get_layout", &[name]) => {
            let name = Arc::clone(arena.text(name)?);
            arena.add(PickleNode::Name(name))
        }
        ("torch.Size", &[sizes]) => arena.items(sizes).map(|_| sizes),
        ("collections.OrderedDict", &[]) | ("collections.defaultdict", &[] | &[_]) => {
            arena.add(PickleNode::Dict(Vec::new()))
        }
        ("collections.OrderedDict", &[pairs]) => dict(arena, pairs),
        // How protocol 2 spells bytes.
        ("_codecs.encode", &[text, _]) => {
            let text = Arc::clone(arena.text(text)?);
            arena.spend(text.len())?;
            let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
            arena.add(PickleNode::Bytes(bytes.map_err(|_| "bytes that are no bytes")?.into()))
        }
        _ => Err(refusal(&name)),
    }
}

/// Why the function or class `name` is not called.
pub(super) fn refusal(name: &str) -> String {
    format!(
        "asks Python to call `{name}` in a way that no file of tensors needs; nothing of it was executed, and the file is refused"
    )
}

/// The storage that a persistent id names: ('storage', type, key, where it lived, how many
/// numbers).
pub(super) fn storage(arena: &Arena, id: PickleItem) -> Result<StorageRef, String> {
    let Ok(&[kind, class, key, _, length]) = arena.items(id) else {
        return Err("a persistent id that is not a storage's".into());
    };
    if &**arena.text(kind)? != "storage" {
        return Err(format!("a persistent id of kind `{}`", arena.text(kind)?));
    }
    let class = arena.name(class)?;
    let dtype = match class.strip_prefix("torch.cuda.").or(class.strip_prefix("torch.")).unwrap_or(class) {
        "DoubleStorage" => Some(DataType::F64),
        "FloatStorage" => Some(DataType::F32),
        "HalfStorage" => Some(DataType::F16),
        "BFloat16Storage" => Some(DataType::BF16),
        "LongStorage" => Some(DataType::I64),
        "IntStorage" => Some(DataType::I32),
        "ShortStorage" => Some(DataType::I16),
        "CharStorage" => Some(DataType::I8),
        "ByteStorage" => Some(DataType::U8),
        "BoolStorage" => Some(DataType::Bool),
        "UntypedStorage" | "storage.UntypedStorage" => None,
        _ => {
            return Err(format!(
                "numbers in a `{class}`; floats of 16, 32 and 64 bits, integers and booleans are understood"
            ));
        }
    };
    Ok(StorageRef { key: Arc::clone(arena.text(key)?), dtype, length: arena.size(length)? })
}

fn named_dtype(name: &str) -> Result<DataType, String> {
    Ok(match name {
        "torch.float64" => DataType::F64,
        "torch.float32" => DataType::F32,
        "torch.float16" => DataType::F16,
        "torch.bfloat16" => DataType::BF16,
        "torch.int64" => DataType::I64,
        "torch.int32" => DataType::I32,
        "torch.int16" => DataType::I16,
        "torch.int8" => DataType::I8,
        "torch.uint32" => DataType::U32,
        "torch.uint16" => DataType::U16,
        "torch.uint8" => DataType::U8,
        "torch.bool" => DataType::Bool,
        _ => {
            return Err(format!(
                "a tensor of type `{name}`; floats of 16, 32 and 64 bits and integers up to 32 or signed 64 are understood"
            ));
        }
    })
}

fn tensor(
    arena: &mut Arena,
    storage: PickleItem,
    offset: PickleItem,
    shape: PickleItem,
    strides: PickleItem,
    dtype: Option<DataType>,
) -> Result<PickleItem, String> {
    let Some(PickleNode::StorageRef(storage)) = arena.node(storage) else {
        return Err("a tensor without a storage".into());
    };
    let dtype = dtype.or(storage.dtype).ok_or("a tensor that does not say what its bytes are")?;
    let (shape, strides) = (sizes(arena, shape)?, sizes(arena, strides)?);
    if shape.len() != strides.len() {
        return Err(format!("a tensor of {} axes and {} strides", shape.len(), strides.len()));
    }
    let storage = Arc::clone(&storage.key);
    let tensor = TensorRef { dtype, offset: arena.size(offset)?, shape, strides, storage };
    arena.spend(size_of::<TensorRef>() + 2 * size_of_val(tensor.shape.as_slice()))?;
    arena.add(PickleNode::Tensor(tensor.into()))
}

/// A tensor from its layout and (indices, values, shape) or, for compressed rows or columns,
/// (starts, positions, values, shape).
fn sparse(arena: &mut Arena, layout: PickleItem, parts: PickleItem) -> Result<PickleItem, String> {
    let name = arena.name(layout)?;
    let layout = match &**name {
        "torch.sparse_coo" => SparseLayout::Coo,
        "torch.sparse_csr" => SparseLayout::Csr,
        "torch.sparse_csc" => SparseLayout::Csc,
        other => {
            return Err(format!(
                "a tensor of layout {other}; strided, sparse_coo, sparse_csr and sparse_csc are understood"
            ));
        }
    };
    let (indices, values, shape) = match (layout, arena.items(parts)?) {
        (SparseLayout::Coo, &[indices, values, shape] | &[indices, values, shape, _]) => (vec![indices], values, shape),
        (SparseLayout::Csr | SparseLayout::Csc, &[starts, positions, values, shape]) => {
            (vec![starts, positions], values, shape)
        }
        _ => return Err("a sparse tensor of too few or too many parts".into()),
    };
    let part = |item| match arena.node(item) {
        Some(PickleNode::Tensor(tensor)) => Ok(TensorRef::clone(tensor)),
        _ => Err("a sparse tensor whose parts are no tensors".to_string()),
    };
    let indices = indices.into_iter().map(part).collect::<Result<Vec<_>, _>>()?;
    let values = part(values)?;
    let shape = sizes(arena, shape)?;
    let tensor = SparseRef { layout, shape, indices, values };
    // As many as three descriptions of tensors, with up to so many axes each.
    arena.spend(size_of::<SparseRef>() + 3 * size_of::<TensorRef>() + 7 * AXES * size_of::<usize>())?;
    arena.add(PickleNode::Sparse(tensor.into()))
}

/// The items of a shape or of strides.
fn sizes(arena: &Arena, item: PickleItem) -> Result<Vec<usize>, String> {
    let items = arena.items(item)?;
    if items.len() > AXES {
        return Err(format!("a tensor of {} axes", items.len()));
    }
    items.iter().map(|&size| arena.size(size)).collect()
}

/// A tensor may be saved as the negative or conjugate of what its storage holds.
fn no_bits(arena: &Arena, bits: PickleItem) -> Result<(), String> {
    match arena.node(bits) {
        None => Ok(()),
        Some(PickleNode::Dict(bits)) if bits.is_empty() => Ok(()),
        _ => Err("a tensor that is a negative or conjugate view; save it after `.resolve_neg()`".into()),
    }
}

fn dict(arena: &mut Arena, pairs: PickleItem) -> Result<PickleItem, String> {
    let count = arena.items(pairs)?.len();
    arena.spend(count.saturating_mul(size_of::<(PickleItem, PickleItem)>()))?;
    let pair = |&item: &PickleItem| match arena.items(item)? {
        &[key, value] => Ok((key, value)),
        _ => Err("a dictionary from what are not pairs".to_string()),
    };
    let pairs = arena.items(pairs)?.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
    arena.add(PickleNode::Dict(pairs))
}
