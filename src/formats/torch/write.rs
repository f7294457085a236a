//! Writes values with tensors as `torch.save` does: a stored zip archive that
//! `torch.load(weights_only=True)` reads, mapped or not.
//!
//! Storages begin at multiples of 64 bytes. Only one storage is in memory at a time. The same value
//! and numbers give the same bytes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::value::{DataType, TensorRef, Value};
use crate::files::{FloatType, encode, write_atomic};
use crate::{Error, Result};

/// Numbers encoded at once.
const CHUNK: usize = 1 << 16;
/// Storages begin at multiples of so many bytes, as in torch's own files.
const ALIGNMENT: u64 = 64;
/// Sizes and offsets from this one on take 64 bits, in fields of their own.
const ZIP32_LIMIT: u64 = 0xffff_ffff;

/// The numbers of a storage, in order.
pub enum Numbers<'a> {
    /// For storages of a float type; they are rounded to it.
    Floats(Cow<'a, [f32]>),
    /// For storages of an integer type.
    Integers(Cow<'a, [i64]>),
}

impl TensorRef {
    /// A tensor that is the whole of a storage, row by row.
    pub fn contiguous(dtype: DataType, shape: &[usize], storage: impl Into<Arc<str>>) -> Self {
        Self { dtype, shape: shape.to_vec(), strides: row_major(shape), storage: storage.into(), offset: 0 }
    }
}

impl From<FloatType> for DataType {
    fn from(float: FloatType) -> Self {
        match float {
            FloatType::F64 => Self::F64,
            FloatType::F32 => Self::F32,
            FloatType::F16 => Self::F16,
            FloatType::BF16 => Self::BF16,
        }
    }
}

/// Writes `value` to the file at `path`, atomically. Each tensor in it is the whole of its storage
/// ([`TensorRef::contiguous`]); tensors of one storage share it in PyTorch, too. `read` gives the
/// numbers of a storage by its name and is called once for each.
///
/// # Errors
/// [`Error::File`] for a value that has no form in such a file (bytes, names, sparse tensors,
/// tensors that are views), for numbers that do not fit their storage, and those of `read`;
/// [`Error::Io`] where the system refuses (see [`write_atomic`]).
pub fn write_torch<'numbers>(
    path: impl AsRef<Path>,
    value: &Value,
    mut read: impl FnMut(&str) -> Result<Numbers<'numbers>>,
) -> Result<()> {
    let path = path.as_ref();
    let invalid = |message: String| Error::file(path, message);
    let mut pickler = Pickler { out: vec![0x80, 2], keys: HashMap::new(), storages: Vec::new() };
    pickler.value(value).map_err(invalid)?;
    pickler.out.push(b'.');
    let prefix = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let prefix = prefix.filter(|stem| !stem.is_empty() && stem != "-").unwrap_or_else(|| "archive".into());
    write_atomic(path, |out| {
        let mut zip = ZipWriter { out, at: 0, directory: Vec::new(), count: 0, prefix, limit: ZIP32_LIMIT };
        let io = |e| Error::io(path, e);
        zip.entry("data.pkl", &pickler.out).map_err(io)?;
        zip.entry("byteorder", b"little").map_err(io)?;
        for (key, tensor) in pickler.storages.iter().enumerate() {
            let numbers = read(&tensor.storage)?;
            let error = |message: String| invalid(format!("storage `{}` {message}", tensor.storage));
            let (size, crc) = measure(&numbers, tensor).map_err(error)?;
            zip.start(&format!("data/{key}"), size, crc).map_err(io)?;
            each_chunk(&numbers, tensor.dtype, |bytes| zip.write(bytes)).map_err(error)?.map_err(io)?;
        }
        zip.entry("version", b"3\n").map_err(io)?;
        zip.finish().map_err(io)
    })
}

/// The size and the checksum of a storage's bytes.
fn measure(numbers: &Numbers, tensor: &TensorRef) -> Result<(u64, u32), String> {
    let held = match numbers {
        Numbers::Floats(numbers) => numbers.len(),
        Numbers::Integers(numbers) => numbers.len(),
    };
    if tensor.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)) != Some(held) {
        return Err(format!("holds {held} numbers for the shape {:?}", tensor.shape));
    }
    let mut hasher = crc32fast::Hasher::new();
    each_chunk(numbers, tensor.dtype, |bytes| {
        hasher.update(bytes);
        Ok(())
    })?
    .map_err(|e| e.to_string())?;
    Ok((held as u64 * tensor.dtype.bytes() as u64, hasher.finalize()))
}

/// Calls `visit` with the bytes of the numbers, piece by piece. The outer error is that a number
/// does not fit.
fn each_chunk(
    numbers: &Numbers,
    dtype: DataType,
    mut visit: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<io::Result<()>, String> {
    let mut bytes = Vec::new();
    match numbers {
        Numbers::Floats(numbers) => {
            let float = float_type(dtype).ok_or_else(|| format!("holds floats, but is of {dtype:?}"))?;
            for chunk in numbers.chunks(CHUNK) {
                encode(chunk, float, &mut bytes)?;
                if let Err(error) = visit(&bytes) {
                    return Ok(Err(error));
                }
            }
        }
        Numbers::Integers(numbers) => {
            for chunk in numbers.chunks(CHUNK) {
                bytes.clear();
                for &number in chunk {
                    integer(number, dtype, &mut bytes)?;
                }
                if let Err(error) = visit(&bytes) {
                    return Ok(Err(error));
                }
            }
        }
    }
    Ok(Ok(()))
}

fn float_type(dtype: DataType) -> Option<FloatType> {
    let all = [FloatType::F64, FloatType::F32, FloatType::F16, FloatType::BF16];
    all.into_iter().find(|&float| DataType::from(float) == dtype)
}

fn integer(number: i64, dtype: DataType, out: &mut Vec<u8>) -> Result<(), String> {
    let misfit = |_| format!("holds {number}, which {dtype:?} does not");
    match dtype {
        DataType::I64 => out.extend(number.to_le_bytes()),
        DataType::I32 => out.extend(i32::try_from(number).map_err(misfit)?.to_le_bytes()),
        DataType::I16 => out.extend(i16::try_from(number).map_err(misfit)?.to_le_bytes()),
        _ => return Err(format!("holds integers, which are not written as {dtype:?}")),
    }
    Ok(())
}

fn row_major(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product::<usize>().max(1)).collect()
}

/// Writes a pickle of protocol 2, with the calls that `torch.load(weights_only=True)` knows.
struct Pickler {
    out: Vec<u8>,
    /// A storage's number by its name.
    keys: HashMap<Arc<str>, usize>,
    /// By number, a tensor of each storage.
    storages: Vec<TensorRef>,
}

impl Pickler {
    fn value(&mut self, value: &Value) -> Result<(), String> {
        match value {
            Value::None => self.out.push(b'N'),
            Value::Bool(truth) => self.out.push(if *truth { 0x88 } else { 0x89 }),
            Value::Int(number) => self.int(*number),
            Value::Float(number) => {
                self.out.push(b'G');
                self.out.extend(number.to_be_bytes());
            }
            Value::Str(text) => self.text(text)?,
            Value::List(items) => {
                self.out.extend(b"](");
                items.iter().try_for_each(|item| self.value(item))?;
                self.out.push(b'e');
            }
            Value::Tuple(items) => {
                self.out.push(b'(');
                items.iter().try_for_each(|item| self.value(item))?;
                self.out.push(b't');
            }
            Value::Dict(pairs) => {
                self.out.extend(b"}(");
                for (key, value) in pairs.iter() {
                    self.value(key)?;
                    self.value(value)?;
                }
                self.out.push(b'u');
            }
            Value::Tensor(tensor) => self.tensor(tensor)?,
            Value::Bytes(_) | Value::Name(_) | Value::Sparse(_) => {
                return Err(format!("{} is not written to such a file", value.kind()));
            }
        }
        Ok(())
    }

    fn int(&mut self, number: i64) {
        match i32::try_from(number) {
            Ok(number) => {
                self.out.push(b'J');
                self.out.extend(number.to_le_bytes());
            }
            Err(_) => {
                self.out.extend([0x8a, 8]);
                self.out.extend(number.to_le_bytes());
            }
        }
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        let length = u32::try_from(text.len()).map_err(|_| "a text of 4 GiB")?;
        self.out.push(b'X');
        self.out.extend(length.to_le_bytes());
        self.out.extend(text.as_bytes());
        Ok(())
    }

    fn tensor(&mut self, tensor: &TensorRef) -> Result<(), String> {
        let name = &tensor.storage;
        if tensor.offset != 0 || tensor.strides != row_major(&tensor.shape) {
            return Err(format!("a tensor that is a view of storage `{name}` is not written"));
        }
        let key = *self.keys.entry(Arc::clone(name)).or_insert_with(|| {
            self.storages.push(tensor.clone());
            self.storages.len() - 1
        });
        let same = |held: &TensorRef| held.dtype == tensor.dtype && length(held) == length(tensor);
        if !self.storages.get(key).is_some_and(same) {
            return Err(format!("storage `{name}` is of two types or sizes"));
        }
        let class = storage_class(tensor.dtype)?;
        self.out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage")?;
        self.out.extend(format!("ctorch\n{class}\n").as_bytes());
        self.text(&key.to_string())?;
        self.text("cpu")?;
        self.int(i64::try_from(length(tensor)).map_err(|e| e.to_string())?);
        self.out.extend(b"tQ");
        self.int(0);
        for sizes in [&tensor.shape, &tensor.strides] {
            self.out.push(b'(');
            sizes.iter().for_each(|&size| self.int(size as i64));
            self.out.push(b't');
        }
        self.out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        Ok(())
    }
}

fn length(tensor: &TensorRef) -> usize {
    tensor.shape.iter().product()
}

fn storage_class(dtype: DataType) -> Result<&'static str, String> {
    Ok(match dtype {
        DataType::F64 => "DoubleStorage",
        DataType::F32 => "FloatStorage",
        DataType::F16 => "HalfStorage",
        DataType::BF16 => "BFloat16Storage",
        DataType::I64 => "LongStorage",
        DataType::I32 => "IntStorage",
        DataType::I16 => "ShortStorage",
        other => return Err(format!("a tensor of {other:?} is not written")),
    })
}

/// Writes a zip archive of stored entries from front to back.
struct ZipWriter<'a> {
    out: &'a mut dyn Write,
    at: u64,
    /// The central directory so far.
    directory: Vec<u8>,
    count: u64,
    prefix: String,
    /// [`ZIP32_LIMIT`].
    limit: u64,
}

impl ZipWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// A whole entry.
    fn entry(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.start(name, bytes.len() as u64, crc32fast::hash(bytes))?;
        self.write(bytes)
    }

    /// The head of an entry of `size` bytes, which follow.
    fn start(&mut self, name: &str, size: u64, crc: u32) -> io::Result<()> {
        let name = format!("{}/{name}", self.prefix);
        let (large, far, offset) = (size >= self.limit, self.at >= self.limit, self.at);
        let mut extra = Vec::new();
        if large {
            extra.extend(zip64(&[size, size]));
        }
        // Padding up to the alignment, in a field of the name that torch has for it.
        let begin = offset + 30 + name.len() as u64 + extra.len() as u64 + 4;
        let padding = vec![0; (begin.next_multiple_of(ALIGNMENT) - begin) as usize];
        extra.extend(b"FB");
        extra.extend((padding.len() as u16).to_le_bytes());
        extra.extend(padding);
        let short = (if large { ZIP32_LIMIT } else { size } as u32).to_le_bytes();
        // Version, flags (names are UTF-8), method (stored), time, date (1 January 1980).
        let common = |extra: &[u8]| -> io::Result<Vec<u8>> {
            let length = |n: usize| u16::try_from(n).map_err(|_| io::Error::other("a file name of 64 KiB"));
            let head = [if large || far { 45u16 } else { 20 }, 0x0800, 0, 0, 0x21];
            let mut fields: Vec<u8> = head.iter().flat_map(|v| v.to_le_bytes()).collect();
            fields.extend([crc.to_le_bytes(), short, short].concat());
            fields.extend(length(name.len())?.to_le_bytes());
            fields.extend(length(extra.len())?.to_le_bytes());
            Ok(fields)
        };
        let local = [b"PK\x03\x04".as_slice(), &common(&extra)?, name.as_bytes(), &extra].concat();
        let wide: Vec<u64> =
            [large.then_some(size), large.then_some(size), far.then_some(offset)].into_iter().flatten().collect();
        let central = if wide.is_empty() { Vec::new() } else { zip64(&wide) };
        self.directory.extend(b"PK\x01\x02\x2d\0");
        self.directory.extend(common(&central)?);
        // No comment, first disk, no attributes.
        self.directory.extend([0; 10]);
        self.directory.extend((if far { ZIP32_LIMIT } else { offset } as u32).to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.directory.extend(&central);
        self.count += 1;
        self.write(&local)
    }

    /// The central directory.
    fn finish(mut self) -> io::Result<()> {
        let (start, size, count) = (self.at, self.directory.len() as u64, self.count);
        let directory = std::mem::take(&mut self.directory);
        self.write(&directory)?;
        let end = self.at;
        if start.max(size) >= self.limit || count >= 0xffff {
            let mut record = b"PK\x06\x06".to_vec();
            record.extend(44u64.to_le_bytes());
            record.extend([45u16, 45].iter().flat_map(|v| v.to_le_bytes()));
            record.extend([0; 8]);
            record.extend([count, count, size, start].iter().flat_map(|v| v.to_le_bytes()));
            record.extend(b"PK\x06\x07\0\0\0\0");
            record.extend(end.to_le_bytes());
            record.extend(1u32.to_le_bytes());
            self.write(&record)?;
        }
        let mut record = b"PK\x05\x06\0\0\0\0".to_vec();
        record.extend([count.min(0xffff) as u16; 2].iter().flat_map(|v| v.to_le_bytes()));
        let clipped = |n: u64| if n >= self.limit { ZIP32_LIMIT as u32 } else { n as u32 };
        record.extend([clipped(size), clipped(start)].iter().flat_map(|v| v.to_le_bytes()));
        record.extend([0; 2]);
        self.write(&record)
    }
}

/// The extra field of 64-bit sizes and offsets.
fn zip64(numbers: &[u64]) -> Vec<u8> {
    let mut field = vec![1, 0];
    field.extend((8 * numbers.len() as u16).to_le_bytes());
    field.extend(numbers.iter().flat_map(|n| n.to_le_bytes()));
    field
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};

    use super::ZipWriter;

    /// With a low limit, small files have the records of large ones.
    #[test]
    fn large_archives_are_read_back() {
        for limit in [0xffff_ffff, 40, 0] {
            let mut bytes = Vec::new();
            let mut zip =
                ZipWriter { out: &mut bytes, at: 0, directory: Vec::new(), count: 0, prefix: "x".into(), limit };
            let long = [7u8; 100];
            for (name, contents) in [("a", b"short".as_slice()), ("b", &long), ("c", b"")] {
                zip.entry(name, contents).unwrap();
            }
            zip.finish().unwrap();
            let mut zip = zip::ZipArchive::new(Cursor::new(&bytes)).unwrap();
            assert_eq!(zip.len(), 3, "{limit}");
            for (name, contents) in [("x/a", b"short".as_slice()), ("x/b", &long), ("x/c", b"")] {
                let mut file = zip.by_name(name).unwrap();
                let mut read = Vec::new();
                file.read_to_end(&mut read).unwrap();
                assert_eq!((read.as_slice(), file.data_start().unwrap() % 64), (contents, 0), "{limit} {name}");
            }
        }
    }
}
