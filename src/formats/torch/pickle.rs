//! A pickle machine that executes nothing: protocols 2 to 5, as far as torch uses them.
//!
//! The opcodes are those of Python's `pickletools`. Work and memory are proportional to the
//! pickle's length.

use std::collections::HashMap;
use std::sync::Arc;

use super::arena::{Arena, Item, Node};
use super::value::Value;
use super::{calls, tree};

/// The stack holds at most so many objects. Python's own pickler keeps it near a thousand, but for
/// long tuples.
const STACK: usize = 1 << 22;

/// Reads the value that `pickle` describes.
pub(super) fn read(pickle: &[u8]) -> Result<Value, String> {
    let (stack, marks, memo) = (Vec::new(), Vec::new(), HashMap::new());
    let mut machine = Machine { rest: pickle, arena: Arena::new(pickle.len()), stack, marks, memo };
    loop {
        let at = pickle.len() - machine.rest.len();
        let step = machine.step().map_err(|message| format!("data.pkl, byte {at}: {message}"))?;
        if let Some(top) = step {
            return tree::value(&machine.arena, top, pickle.len()).map_err(|message| format!("data.pkl {message}"));
        }
    }
}

struct Machine<'pickle> {
    rest: &'pickle [u8],
    arena: Arena,
    stack: Vec<Item>,
    /// How high the stack was at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Item>,
}

impl Machine<'_> {
    /// Takes one opcode; returns the result at the last one.
    fn step(&mut self) -> Result<Option<Item>, String> {
        let opcode = self.byte()?;
        match opcode {
            b'.' => return self.pop().map(Some),
            0x80 => match self.byte()? {
                2..=5 => {}
                other => return Err(format!("pickle protocol {other}; 2 to 5 are understood")),
            },
            // A frame's length only helps those who read piece by piece.
            0x95 => drop(self.take(8)?),
            b'(' => {
                self.arena.spend(size_of::<usize>())?;
                self.marks.push(self.stack.len());
            }
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push(top)?;
            }
            b'N' => self.push(Item::None)?,
            0x88 => self.push(Item::Bool(true))?,
            0x89 => self.push(Item::Bool(false))?,
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Item::Int(number.into()))?;
            }
            b'K' | b'M' => {
                let number = self.length(if opcode == b'K' { 1 } else { 2 })?;
                self.push(Item::Int(number as i64))?;
            }
            b'G' => {
                let number = f64::from_be_bytes(self.array()?);
                self.push(Item::Float(number))?;
            }
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            b'U' | 0x8c => self.string(1)?,
            b'T' | b'X' => self.string(4)?,
            0x8d => self.string(8)?,
            b'C' => self.bytes(1)?,
            b'B' => self.bytes(4)?,
            0x8e => self.bytes(8)?,
            b']' => self.make(Node::List(Vec::new()))?,
            b'}' => self.make(Node::Dict(Vec::new()))?,
            b')' => self.make(Node::Tuple(Vec::new()))?,
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let items = self.pop_mark()?;
                self.make(Node::Tuple(items))?;
            }
            b'l' => {
                let items = self.pop_mark()?;
                self.make(Node::List(items))?;
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.make(Node::Dict(pairs(&items)?))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(&items)?;
            }
            b'q' | b'r' => {
                let index = self.length(if opcode == b'q' { 1 } else { 4 })?;
                self.remember(index)?;
            }
            0x94 => self.remember(self.memo.len())?,
            b'h' | b'j' => {
                let index = self.length(if opcode == b'h' { 1 } else { 4 })?;
                let known = u32::try_from(index).ok().and_then(|index| self.memo.get(&index).copied());
                self.push(known.ok_or_else(|| format!("recalls object {index}, which it never made"))?)?;
            }
            b'c' | b'i' => self.global(opcode)?,
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let name: Arc<str> = format!("{}.{}", self.arena.text(module)?, self.arena.text(name)?).into();
                self.arena.spend(name.len())?;
                self.make(Node::Name(name))?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = calls::storage(&self.arena, id)?;
                self.make(Node::Storage(storage))?;
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let made = calls::call(&mut self.arena, callable, arguments)?;
                self.push(made)?;
            }
            b'b' => {
                // The attributes of a dictionary say nothing of its contents; nothing else that can
                // be made here has any.
                let _attributes = self.pop()?;
                let target = self.top()?;
                self.arena.dict_mut(target).map_err(|_| "sets attributes of what is not a dictionary")?;
            }
            other => return Err(format!("opcode 0x{other:02x}, which is not one that torch uses")),
        }
        Ok(None)
    }

    fn global(&mut self, opcode: u8) -> Result<(), String> {
        let (module, name) = (self.line()?, self.line()?);
        let name: Arc<str> = format!("{module}.{name}").into();
        if opcode == b'i' {
            return Err(calls::refusal(&name));
        }
        self.make(Node::Name(name))
    }

    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("the pickle ends in the middle")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or("the pickle ends in the middle")?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array().map(|[byte]| byte)
    }

    /// A number without a sign that takes `width` bytes, at most 8.
    fn length(&mut self, width: usize) -> Result<usize, String> {
        let number = self.take(width)?.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
        usize::try_from(number).map_err(|_| "a length that no memory holds".into())
    }

    fn counted(&mut self, width: usize) -> Result<&[u8], String> {
        let length = self.length(width)?;
        self.take(length)
    }

    fn line(&mut self) -> Result<String, String> {
        let end = self.rest.iter().position(|&byte| byte == b'\n').ok_or("the pickle ends in the middle")?;
        let line = String::from_utf8_lossy(self.take(end)?).into_owned();
        self.byte()?;
        Ok(line)
    }

    fn string(&mut self, width: usize) -> Result<(), String> {
        let text: Arc<str> =
            std::str::from_utf8(self.counted(width)?).map_err(|_| "a string that is not UTF-8")?.into();
        self.make(Node::Str(text))
    }

    fn bytes(&mut self, width: usize) -> Result<(), String> {
        let bytes: Arc<[u8]> = self.counted(width)?.into();
        self.make(Node::Bytes(bytes))
    }

    fn long(&mut self, width: usize) -> Result<(), String> {
        let digits = self.counted(width)?;
        if digits.len() > 8 {
            return Err(format!("a whole number of {} bytes; 8 is the most", digits.len()));
        }
        let negative = digits.last().is_some_and(|&top| top >= 0x80);
        let mut bytes = [if negative { 0xff } else { 0 }; 8];
        bytes[..digits.len()].copy_from_slice(digits);
        self.push(Item::Int(i64::from_le_bytes(bytes)))
    }

    fn push(&mut self, item: Item) -> Result<(), String> {
        if self.stack.len() >= STACK {
            return Err(format!("puts more than {STACK} objects on the stack"));
        }
        self.stack.push(item);
        Ok(())
    }

    fn make(&mut self, node: Node) -> Result<(), String> {
        let item = self.arena.add(node)?;
        self.push(item)
    }

    fn tuple(&mut self, count: usize) -> Result<(), String> {
        let mut items = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.arena.spend(count * size_of::<Item>())?;
        self.make(Node::Tuple(items))
    }

    fn top(&self) -> Result<Item, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack.get(floor..).and_then(<[Item]>::last).copied().ok_or_else(|| "nothing is on the stack".into())
    }

    fn pop(&mut self) -> Result<Item, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Everything above the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Item>, String> {
        let mark = self.marks.pop().ok_or("no mark is on the stack")?;
        let items = self.stack.split_off(mark);
        self.arena.spend(items.len() * size_of::<Item>())?;
        Ok(items)
    }

    fn append(&mut self, items: &[Item]) -> Result<(), String> {
        let list = self.top()?;
        self.arena.spend(size_of_val(items))?;
        self.arena.list_mut(list)?.extend(items);
        Ok(())
    }

    fn set(&mut self, items: &[Item]) -> Result<(), String> {
        let dict = self.top()?;
        self.arena.spend(size_of_val(items))?;
        self.arena.dict_mut(dict)?.extend(pairs(items)?);
        Ok(())
    }

    fn remember(&mut self, index: usize) -> Result<(), String> {
        let index = u32::try_from(index).map_err(|_| "remembers too many objects")?;
        let top = self.top()?;
        self.arena.spend(2 * size_of::<(u32, Item)>())?;
        self.memo.insert(index, top);
        Ok(())
    }
}

/// Keys and values in turn, as pairs.
fn pairs(items: &[Item]) -> Result<Vec<(Item, Item)>, String> {
    match items.as_chunks::<2>() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err("has a key without a value".into()),
    }
}
