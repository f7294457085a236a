//! What each fuzz target does with its bytes: everything the library can do with such a file. Every outcome but an `Ok` or an error that
//! names the file is a finding. Shared by the tests and by the fuzzers in `fuzz/`.
#![allow(dead_code)]

#[path = "stored_zip.rs"]
pub mod stored_zip;

use std::path::Path;

use gossamer::files::{
    HostTensor, ShardedSafetensors, TensorSource, parse_ids, parse_names, parse_tensors, save_tensors,
};
use gossamer::formats::Payload;
use gossamer::formats::config::read_config;
use gossamer::formats::torch::{DataType, TensorRef, TorchFile, TorchStateDict, Value};
use gossamer::model::parse_config;
use gossamer::text::tokenizer::Tokenizer;
use gossamer::{Error, Result};

const NAME: &str = "fuzzed file";

/// A value that was read, or else nothing; the error must name the file.
#[track_caller]
fn or_named<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::File { path, message }) => {
            assert_eq!(path, Path::new(NAME));
            assert!(!message.is_empty());
            None
        }
        Err(other) => panic!("an error that names no file: {other}"),
    }
}

/// A whole archive.
pub fn torch(data: &[u8]) {
    if let Some(file) = or_named(TorchFile::from_bytes(NAME, data.to_vec())) {
        let mut patience = Patience(1 << 20);
        walk(&file, file.value(), &mut patience);
        let Some(dict) = or_named(TorchStateDict::new(file)) else { return };
        for (name, info) in dict.entries().clone() {
            if patience.lasts(&info.shape)
                && let Some(tensor) = or_named(dict.read(&name))
            {
                assert_eq!(tensor.data.len(), count(&tensor.shape));
                assert_eq!(tensor.shape, info.shape);
            }
        }
    }
}

/// The pickle of an archive whose storages are whole.
pub fn pickle(data: &[u8]) {
    use stored_zip::{Entry, zip};
    torch(&zip(&[
        Entry::new("fuzz/data.pkl", data),
        Entry::new("fuzz/byteorder", b"little"),
        Entry::new("fuzz/data/0", &[0x3f; 64]),
        Entry::new("fuzz/data/1", &[1; 7]),
        Entry::new("fuzz/data/2", &[]),
    ]));
}

/// A published circuit.
pub fn viz(data: &[u8]) {
    let Some(file) = or_named(TorchFile::from_bytes(NAME, data.to_vec())) else { return };
    let Some(payload) = or_named(Payload::new(&file)) else { return };
    // Whatever was made of it can be drawn and written.
    let text = payload.circuit.to_json();
    assert_eq!(gossamer::circuits::Circuit::from_json(text.as_bytes()).as_ref(), Ok(&payload.circuit));
    assert!(gossamer::circuits::svg(&payload.circuit).ends_with("</svg>\n"));
}

pub fn safetensors(data: &[u8]) {
    let path = Path::new(NAME);
    or_named(parse_tensors(path, data));
    for name in or_named(parse_names(path, data)).into_iter().flatten().take(16) {
        or_named(parse_ids(path, data, &name));
    }
}

pub fn config(data: &[u8]) {
    or_named(parse_config(Path::new(NAME), data));
}

/// The index of a folder with two shards.
pub fn index(data: &[u8]) {
    in_folder("model.safetensors.index.json", data, |path| {
        for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
            let tensor = HostTensor { shape: vec![2], data: vec![1.0, 2.0] };
            let number = &shard[6..11];
            let tensors = [(number.to_string(), tensor.clone()), (format!("more of {number}"), tensor)].into();
            save_tensors(path.with_file_name(shard), &tensors, None).unwrap();
        }
        let Ok(sharded) = ShardedSafetensors::open(path) else { return };
        for name in sharded.entries().keys() {
            assert_eq!(sharded.read(name).unwrap().data, [1.0, 2.0]);
        }
    });
}

/// A `config.json` whose fields may be nested.
pub fn nested_config(data: &[u8]) {
    in_folder("config.json", data, |path| {
        if let Err(error) = read_config(path) {
            assert!(error.to_string().contains("config.json"), "{error}");
        }
    });
}

/// Calls `f` with the path of a file of that name and contents, in a folder of this process's own.
fn in_folder(name: &str, data: &[u8], f: impl FnOnce(&Path)) {
    let thread = format!("{:?}", std::thread::current().id()).replace(['(', ')'], "");
    let folder = std::env::temp_dir().join(format!("gossamer-fuzz-{}-{thread}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), data).unwrap();
    f(&folder.join(name));
    std::fs::remove_dir_all(&folder).unwrap();
}

pub fn tokenizer(data: &[u8]) {
    let Ok(json) = std::str::from_utf8(data) else { return };
    let Ok(tokenizer) = Tokenizer::from_json(json) else { return };
    let Ok(ids) = tokenizer.encode("def f(x):\n    return \"é\" + 'a b' * 12345\n\n") else { return };
    for &id in &ids {
        assert!((id as usize) < tokenizer.vocab_size());
        let _ = (tokenizer.token_bytes(id), tokenizer.token_str(id));
    }
    let _ = tokenizer.decode(&ids);
    let _ = tokenizer.decode(&[0, 255, u32::MAX]);
}

/// How many numbers a tensor of this shape has, or the most that there can be.
fn count(shape: &[usize]) -> usize {
    if shape.contains(&0) { 0 } else { shape.iter().fold(1, |product, &size| product.saturating_mul(size)) }
}

/// How many numbers are still worth reading: a small file may hold many views of one storage, each of which is honest work.
struct Patience(usize);

impl Patience {
    /// Impossible shapes cost nothing, and must be refused.
    fn lasts(&mut self, shape: &[usize]) -> bool {
        let count = count(shape);
        if count > 1 << 27 {
            return true;
        }
        let left = self.0.checked_sub(count + 1);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

fn walk(file: &TorchFile, value: &Value, patience: &mut Patience) {
    if let Some(tensor) = value.tensor() {
        read(file, tensor, patience);
    }
    for item in value.items().unwrap_or_default() {
        walk(file, item, patience);
    }
    for (key, value) in value.pairs().unwrap_or_default() {
        walk(file, key, patience);
        walk(file, value, patience);
    }
}

fn read(file: &TorchFile, tensor: &TensorRef, patience: &mut Patience) {
    if !patience.lasts(&tensor.shape) {
        return;
    }
    let (floats, integers) = (or_named(file.floats(tensor)), or_named(file.integers(tensor)));
    let is_float = matches!(tensor.dtype, DataType::F64 | DataType::F32 | DataType::F16 | DataType::BF16);
    assert!(if is_float { integers.is_none() } else { floats.is_none() });
    for read in [floats.map(|t| t.data.len()), integers.map(|i| i.len())].into_iter().flatten() {
        assert_eq!(read, count(&tensor.shape));
    }
}
