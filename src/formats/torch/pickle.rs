//! A pickle machine that executes nothing: protocols 2 to 5, as far as torch uses them.
//!
//! The opcodes are those of Python's `pickletools`. Work and memory are proportional to the
//! pickle's length.

use std::collections::HashMap;
use std::sync::Arc;

use super::arena::{Arena, PickleItem, PickleNode};
use super::value::Value;
use super::{calls, tree};

/// The stack holds at most so many objects. Python's own pickler keeps it near a thousand, but for
/// long tuples.
const STACK: usize = 1 << 22;

/// Reads the value that `pickle` describes.
pub(super) fn read(pickle: &[u8]) -> Result<Value, String> {
    let mut machine = PickleMachine {
        input: pickle,
        arena: Arena::new(pickle.len()),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        let at = pickle.len() - machine.input.len();
        let step = machine.step().map_err(|message| format!("data.pkl, byte {at}: {message}"))?;
        if let Some(top) = step {
            return tree::value(&machine.arena, top, pickle.len()).map_err(|message| format!("data.pkl {message}"));
        }
    }
}

struct PickleMachine<'pickle> {
    /// The bytes that are not read yet.
    input: &'pickle [u8],
    arena: Arena,
    stack: Vec<PickleItem>,
    /// How high the stack was at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, PickleItem>,
}

impl PickleMachine<'_> {
    /// Executes one opcode. Returns the result at the last one.
    fn step(&mut self) -> Result<Option<PickleItem>, String> {
        match self.byte()? {
            b'.' => return self.pop().map(Some),
            0x80 => self.protocol(),
            // A frame's length only helps those who read piece by piece.
            0x95 => self.read_bytes(8).map(drop),
            b'(' => self.mark(),
            b'0' => self.pop().map(drop),
            b'1' => self.pop_mark().map(drop),
            b'2' => self.top().and_then(|top| self.push(top)),
            b'N' => self.push(PickleItem::None),
            0x88 => self.push(PickleItem::Bool(true)),
            0x89 => self.push(PickleItem::Bool(false)),
            b'J' => self.array().and_then(|bytes| self.push(PickleItem::Int(i32::from_le_bytes(bytes).into()))),
            b'K' => self.length(1).and_then(|number| self.push(PickleItem::Int(number as i64))),
            b'M' => self.length(2).and_then(|number| self.push(PickleItem::Int(number as i64))),
            b'G' => self.array().and_then(|bytes| self.push(PickleItem::Float(f64::from_be_bytes(bytes)))),
            0x8a => self.long(1),
            0x8b => self.long(4),
            b'U' | 0x8c => self.string(1),
            b'T' | b'X' => self.string(4),
            0x8d => self.string(8),
            b'C' => self.bytes(1),
            b'B' => self.bytes(4),
            0x8e => self.bytes(8),
            b']' => self.make(PickleNode::List(Vec::new())),
            b'}' => self.make(PickleNode::Dict(Vec::new())),
            b')' => self.make(PickleNode::Tuple(Vec::new())),
            0x85 => self.tuple(1),
            0x86 => self.tuple(2),
            0x87 => self.tuple(3),
            b't' => self.pop_mark().and_then(|items| self.make(PickleNode::Tuple(items))),
            b'l' => self.pop_mark().and_then(|items| self.make(PickleNode::List(items))),
            b'd' => self.pop_mark().and_then(|items| self.make(PickleNode::Dict(pairs(&items)?))),
            b'a' => self.pop().and_then(|item| self.append(&[item])),
            b'e' => self.pop_mark().and_then(|items| self.append(&items)),
            b's' => self.pop_two().and_then(|[key, value]| self.set(&[key, value])),
            b'u' => self.pop_mark().and_then(|items| self.set(&items)),
            b'q' => self.length(1).and_then(|index| self.memoize(index)),
            b'r' => self.length(4).and_then(|index| self.memoize(index)),
            0x94 => self.memoize(self.memo.len()),
            b'h' => self.length(1).and_then(|index| self.recall(index)),
            b'j' => self.length(4).and_then(|index| self.recall(index)),
            b'c' => self.global_name().and_then(|name| self.make(PickleNode::Name(name))),
            b'i' => self.global_name().and_then(|name| Err(calls::refusal(&name))),
            0x93 => self.stack_global(),
            b'Q' => self.storage(),
            b'R' | 0x81 => self.call(),
            b'b' => self.build(),
            other => Err(format!("opcode 0x{other:02x}, which is not one that torch uses")),
        }?;
        Ok(None)
    }

    fn protocol(&mut self) -> Result<(), String> {
        match self.byte()? {
            2..=5 => Ok(()),
            other => Err(format!("pickle protocol {other}; 2 to 5 are understood")),
        }
    }

    fn mark(&mut self) -> Result<(), String> {
        self.arena.spend(size_of::<usize>())?;
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn global_name(&mut self) -> Result<Arc<str>, String> {
        let (module, name) = (self.line()?, self.line()?);
        Ok(format!("{module}.{name}").into())
    }

    fn stack_global(&mut self) -> Result<(), String> {
        let [module, name] = self.pop_two()?;
        let name: Arc<str> = format!("{}.{}", self.arena.text(module)?, self.arena.text(name)?).into();
        self.arena.spend(name.len())?;
        self.make(PickleNode::Name(name))
    }

    fn storage(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let storage = calls::storage(&self.arena, id)?;
        self.make(PickleNode::StorageRef(storage))
    }

    fn call(&mut self) -> Result<(), String> {
        let [callable, arguments] = self.pop_two()?;
        let result = calls::call(&mut self.arena, callable, arguments)?;
        self.push(result)
    }

    /// The attributes of a dictionary say nothing of its contents, and no other object that is made
    /// here has any.
    fn build(&mut self) -> Result<(), String> {
        let _attributes = self.pop()?;
        let target = self.top()?;
        self.arena.dict_mut(target).map_err(|_| "sets attributes of what is not a dictionary")?;
        Ok(())
    }

    fn read_bytes(&mut self, count: usize) -> Result<&[u8], String> {
        let (head, tail) = self.input.split_at_checked(count).ok_or("the pickle ends in the middle")?;
        self.input = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, tail) = self.input.split_first_chunk().ok_or("the pickle ends in the middle")?;
        self.input = tail;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array().map(|[byte]| byte)
    }

    /// A number without a sign that takes `width` bytes, at most 8.
    fn length(&mut self, width: usize) -> Result<usize, String> {
        let number = self.read_bytes(width)?.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
        usize::try_from(number).map_err(|_| "a length that no memory holds".into())
    }

    fn counted(&mut self, width: usize) -> Result<&[u8], String> {
        let length = self.length(width)?;
        self.read_bytes(length)
    }

    fn line(&mut self) -> Result<String, String> {
        let end = self.input.iter().position(|&byte| byte == b'\n').ok_or("the pickle ends in the middle")?;
        let line = String::from_utf8_lossy(self.read_bytes(end)?).into_owned();
        self.byte()?;
        Ok(line)
    }

    fn string(&mut self, width: usize) -> Result<(), String> {
        let text: Arc<str> =
            std::str::from_utf8(self.counted(width)?).map_err(|_| "a string that is not UTF-8")?.into();
        self.make(PickleNode::Str(text))
    }

    fn bytes(&mut self, width: usize) -> Result<(), String> {
        let bytes: Arc<[u8]> = self.counted(width)?.into();
        self.make(PickleNode::Bytes(bytes))
    }

    fn long(&mut self, width: usize) -> Result<(), String> {
        let digits = self.counted(width)?;
        if digits.len() > 8 {
            return Err(format!("a whole number of {} bytes; 8 is the most", digits.len()));
        }
        let negative = digits.last().is_some_and(|&top| top >= 0x80);
        let mut bytes = [if negative { 0xff } else { 0 }; 8];
        bytes[..digits.len()].copy_from_slice(digits);
        self.push(PickleItem::Int(i64::from_le_bytes(bytes)))
    }

    fn push(&mut self, item: PickleItem) -> Result<(), String> {
        if self.stack.len() >= STACK {
            return Err(format!("puts more than {STACK} objects on the stack"));
        }
        self.stack.push(item);
        Ok(())
    }

    fn make(&mut self, node: PickleNode) -> Result<(), String> {
        let item = self.arena.add(node)?;
        self.push(item)
    }

    fn tuple(&mut self, count: usize) -> Result<(), String> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.arena.spend(count * size_of::<PickleItem>())?;
        self.make(PickleNode::Tuple(items))
    }

    fn top(&self) -> Result<PickleItem, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.get(floor..).and_then(<[PickleItem]>::last).copied().ok_or_else(|| "nothing is on the stack".into())
    }

    fn pop(&mut self) -> Result<PickleItem, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// The two topmost objects, the upper one last.
    fn pop_two(&mut self) -> Result<[PickleItem; 2], String> {
        let (upper, lower) = (self.pop()?, self.pop()?);
        Ok([lower, upper])
    }

    /// Everything above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<PickleItem>, String> {
        let mark = self.marks.pop().ok_or("no mark is on the stack")?;
        let items = self.stack.split_off(mark);
        self.arena.spend(items.len() * size_of::<PickleItem>())?;
        Ok(items)
    }

    fn append(&mut self, items: &[PickleItem]) -> Result<(), String> {
        let list = self.top()?;
        self.arena.spend(size_of_val(items))?;
        self.arena.list_mut(list)?.extend(items);
        Ok(())
    }

    fn set(&mut self, items: &[PickleItem]) -> Result<(), String> {
        let dict = self.top()?;
        self.arena.spend(size_of_val(items))?;
        self.arena.dict_mut(dict)?.extend(pairs(items)?);
        Ok(())
    }

    fn memoize(&mut self, index: usize) -> Result<(), String> {
        let index = u32::try_from(index).map_err(|_| "remembers too many objects")?;
        let top = self.top()?;
        self.arena.spend(2 * size_of::<(u32, PickleItem)>())?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: usize) -> Result<(), String> {
        let known = u32::try_from(index).ok().and_then(|index| self.memo.get(&index).copied());
        self.push(known.ok_or_else(|| format!("recalls object {index}, which it never made"))?)
    }
}

/// Alternating keys and values as pairs.
fn pairs(items: &[PickleItem]) -> Result<Vec<(PickleItem, PickleItem)>, String> {
    match items.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err("has a key without a value".into()),
    }
}
