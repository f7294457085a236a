//! From the pickle's objects to a value that is safe to walk: not circular, not deep, and not far
//! larger than its file.

use std::collections::HashMap;
use std::sync::Arc;

use super::arena::{Arena, PickleItem, PickleNode};
use super::value::{DataType, TensorRef, Value};

/// How deep values may be nested, so that walking and dropping them by recursion is safe.
const DEPTH: usize = 100;

/// The value of `top`. Shared parts are shared in it too; a walk that visits them each time they
/// occur takes at most 64 times the pickle's `length`, and a mebibyte.
pub(super) fn value(arena: &Arena, top: PickleItem, length: usize) -> Result<Value, String> {
    let most = length.saturating_mul(64).saturating_add(1 << 20);
    let mut builder = Builder { arena, most, done: HashMap::new() };
    Ok(builder.value(top, 0)?.value)
}

struct Builder<'arena> {
    arena: &'arena Arena,
    most: usize,
    done: HashMap<u32, Built>,
}

#[derive(Clone)]
struct Built {
    value: Value,
    /// How many levels are below.
    height: usize,
    /// The bytes of all strings and the number of all other things in it, as if nothing were
    /// shared.
    size: usize,
}

impl Builder<'_> {
    fn value(&mut self, item: PickleItem, depth: usize) -> Result<Built, String> {
        let leaf = |value, size| Ok(Built { value, height: 0, size });
        let index = match item {
            PickleItem::None => return leaf(Value::None, 1),
            PickleItem::Bool(truth) => return leaf(Value::Bool(truth), 1),
            PickleItem::Int(number) => return leaf(Value::Int(number), 1),
            PickleItem::Float(number) => return leaf(Value::Float(number), 1),
            PickleItem::PickleNode(index) => index,
        };
        if let Some(built) = self.done.get(&index) {
            return if depth + built.height > DEPTH { Err(too_deep()) } else { Ok(built.clone()) };
        }
        if depth >= DEPTH {
            return Err(too_deep());
        }
        let arena = self.arena;
        let mut whole = Whole { height: 0, size: 1 };
        let value = match arena.node(item).ok_or("refers to an object it never made")? {
            PickleNode::Str(text) => return leaf(Value::Str(Arc::clone(text)), 1 + text.len()),
            PickleNode::Bytes(bytes) => return leaf(Value::Bytes(Arc::clone(bytes)), 1 + bytes.len()),
            PickleNode::Name(name) => return leaf(Value::Name(Arc::clone(name)), 1 + name.len()),
            PickleNode::Sparse(tensor) => {
                let size = 1 + tensor.indices.iter().map(|list| list.storage.len()).sum::<usize>();
                return leaf(Value::Sparse(Arc::clone(tensor)), size + tensor.values.storage.len());
            }
            PickleNode::Tensor(tensor) => return leaf(Value::Tensor(Arc::clone(tensor)), 1 + tensor.storage.len()),
            PickleNode::StorageRef(storage) => {
                let tensor = TensorRef {
                    dtype: storage.dtype.unwrap_or(DataType::U8),
                    shape: vec![storage.length],
                    strides: vec![1],
                    storage: Arc::clone(&storage.key),
                    offset: 0,
                };
                return leaf(Value::Tensor(tensor.into()), 1 + storage.key.len());
            }
            PickleNode::List(items) => Value::List(self.items(items, depth, &mut whole)?),
            PickleNode::Tuple(items) => Value::Tuple(self.items(items, depth, &mut whole)?),
            PickleNode::Dict(pairs) => {
                let mut built = Vec::with_capacity(pairs.len());
                for &(key, value) in pairs {
                    built.push((self.part(key, depth, &mut whole)?, self.part(value, depth, &mut whole)?));
                }
                Value::Dict(built.into())
            }
        };
        let built = Built { value, height: whole.height, size: whole.size };
        self.done.insert(index, built.clone());
        Ok(built)
    }

    fn items(&mut self, items: &[PickleItem], depth: usize, whole: &mut Whole) -> Result<Arc<[Value]>, String> {
        items.iter().map(|&item| self.part(item, depth, whole)).collect()
    }

    fn part(&mut self, item: PickleItem, depth: usize, whole: &mut Whole) -> Result<Value, String> {
        let built = self.value(item, depth + 1)?;
        whole.height = whole.height.max(built.height + 1);
        whole.size = whole.size.saturating_add(built.size);
        if whole.size > self.most {
            return Err("repeats its parts until they are far more than its size explains".into());
        }
        Ok(built.value)
    }
}

/// What a container's parts add up to.
struct Whole {
    height: usize,
    size: usize,
}

fn too_deep() -> String {
    format!("nests values more than {DEPTH} deep, or one inside itself")
}
