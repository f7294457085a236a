//! What each fuzz target does with its bytes: everything the library can do with such a file. Every
//! outcome but an `Ok` or an error that names the file is a finding. Shared by the tests and by the
//! fuzzers in `fuzz/`.
#![allow(dead_code)]

#[path = "stored_zip.rs"]
pub mod stored_zip;

use std::path::Path;

use gossamer::bench::{BenchReport, compare};
use gossamer::bridges::{BridgeFile, Recipe};
use gossamer::circuits::tasks::{Split, Task};
use gossamer::circuits::{Binary, Circuit, MEANS, Statistics, dot, json, residual_paths, show, stored_means, svg};
use gossamer::device::Device;
use gossamer::files::{
    HostTensor, ShardedSafetensors, TensorSource, parse_ids, parse_names, parse_tensors, save_tensors,
};
use gossamer::formats::config::read_config;
use gossamer::formats::torch::{DataType, TensorRef, TorchFile, TorchStateDict, Value};
use gossamer::formats::{ModelFiles, Payload};
use gossamer::model::parse_config;
use gossamer::sweep::Sweep;
use gossamer::text::cache::Tokens;
use gossamer::text::source::Source;
use gossamer::text::tokenizer::Tokenizer;
use gossamer::train::config::RunConfig;
use gossamer::train::{checkpoint, metrics};
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

/// The `config.json` of another program's model, next to weights that fit what it says unchanged.
pub fn foreign(data: &[u8]) {
    let has = |word: &[u8]| data.windows(word.len()).any(|part| part == word);
    let (name, weights) = if has(b"gpt_neo") {
        ("gpt_neo.bin", &include_bytes!("../data/foreign/gpt_neo/pytorch_model.bin")[..])
    } else if has(b"gpt2") {
        ("gpt2.safetensors", &include_bytes!("../data/foreign/gpt2/model.safetensors")[..])
    } else {
        ("sparse_pretrain.bin", &include_bytes!("../data/foreign/sparse_pretrain/pytorch_model.bin")[..])
    };
    in_folder("config.json", data, |path| {
        let file = path.with_file_name(name);
        std::fs::write(&file, weights).unwrap();
        match ModelFiles::open(&file) {
            Ok(files) => {
                for (name, info) in files.weights.entries().iter().filter(|(_, info)| count(&info.shape) < 1 << 20) {
                    let tensor = files.weights.read(name).unwrap();
                    assert_eq!((&tensor.shape, tensor.data.len()), (&info.shape, count(&info.shape)), "{name}");
                }
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("config.json") || text.contains(name), "{text}");
            }
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

/// A circuit. What is read can be drawn, and written so that the same is read again.
pub fn circuit(data: &[u8]) {
    let Ok(circuit) = Circuit::from_json(data) else { return };
    assert_eq!(Circuit::from_json(circuit.to_json().as_bytes()).as_ref(), Ok(&circuit));
    assert!(svg(&circuit).ends_with("</svg>\n"));
    let _ = (dot(&circuit), json(&circuit), show(&circuit), residual_paths(&circuit));
}

/// A task of one's own.
pub fn tasks(data: &[u8]) {
    in_folder("own.jsonl", data, |path| {
        let Some(task) = or_names(path, Task::from_file(path)) else { return };
        for split in [Split::Train, Split::Test] {
            let len = task.len(split).unwrap() as u64;
            for index in [0, 1, len - 1, len, u64::MAX] {
                let pair = task.pair(split, 7, index);
                assert!(!pair.clean.is_empty() && pair.clean != pair.counterfactual);
            }
        }
        task.save(path.with_file_name("copy.jsonl"), 0, 7, 3).unwrap();
    });
}

/// A recipe for steering.
pub fn recipe(data: &[u8]) {
    in_folder("recipe.json", data, |path| {
        let Some(recipe) = or_names(path, Recipe::load(path)) else { return };
        assert!(recipe.command().starts_with("gossamer steer "));
        recipe.save(path).unwrap();
        assert_eq!(format!("{:?}", Recipe::load(path).unwrap()), format!("{recipe:?}"));
    });
}

/// What `gossamer circuit stats` measures.
pub fn statistics(data: &[u8]) {
    in_folder("own.stats.json", data, |path| {
        let Some(statistics) = or_names(path, Statistics::load(path)) else { return };
        for node in &statistics.nodes {
            assert!((0.0..=1.0).contains(&node.corpus.active()));
        }
        statistics.save(path).unwrap();
        Statistics::load(path).unwrap();
    });
}

/// A circuit made binary.
pub fn binary(data: &[u8]) {
    in_folder("own.binary.json", data, |path| {
        let Some(binary) = or_names(path, Binary::load(path)) else { return };
        binary.save(path).unwrap();
        Binary::load(path).unwrap();
    });
}

/// The description of bridges.
pub fn bridge_file(data: &[u8]) {
    in_folder("bridges.json", data, |path| {
        let folder = path.parent().unwrap();
        if let Some(file) = or_names(path, BridgeFile::load(folder)) {
            let _ = file.dense_path(folder);
        }
    });
}

/// The mean activations next to a model.
pub fn means(data: &[u8]) {
    in_folder(MEANS, data, |path| {
        for hash in ["", "abc"] {
            or_names(path, stored_means(path.parent().unwrap(), hash));
        }
    });
}

/// Tokens in a file of the cache, whose magic and checksum are made right: nothing else would be
/// reached.
pub fn token_cache(data: &[u8]) {
    const HEADER: usize = 88;
    let mut bytes = data.to_vec();
    if let Some((header, tokens)) = bytes.split_at_mut_checked(HEADER) {
        header[..8].copy_from_slice(b"gossatok");
        let crc = crc32c::crc32c_append(crc32c::crc32c(tokens), &header[..HEADER - 8]);
        header[HEADER - 8..].copy_from_slice(&u64::from(crc).to_le_bytes());
    }
    in_folder("cache.tokens", &bytes, |path| {
        let Some((tokens, _)) = or_names(path, Tokens::open(path)).flatten() else { return };
        assert_eq!(tokens.iter().count(), tokens.len());
        assert!(tokens.get(0..tokens.len()).is_ok() && tokens.get(1..tokens.len() + 2).is_err());
    });
}

/// Reports of `gossamer bench`.
pub fn report(data: &[u8]) {
    in_folder("report.json", data, |path| {
        let Some(report) = or_names(path, BenchReport::load(path)) else { return };
        let twice = [report.clone(), report];
        let _ = (compare::lines(&twice), compare::names(&twice), compare::bars(&twice));
    });
}

/// A sweep.
pub fn sweep(data: &[u8]) {
    in_folder("sweep.toml", data, |path| {
        let Some(sweep) = or_names(path, Sweep::load(path)) else { return };
        assert!(sweep.jobs.iter().all(|job| !job.command.is_empty()));
    });
}

/// What a run has logged: read by plots and the explorer, and by a run that continues.
pub fn metrics(data: &[u8]) {
    in_folder("metrics.jsonl", data, |path| {
        let folder = path.parent().unwrap();
        or_names(path, metrics::read(folder));
        or_names(path, metrics::Metrics::open(folder, Some(2)));
    });
}

/// A run's `config.toml`, complete or laid over a preset.
pub fn run_config(data: &[u8]) {
    in_folder("config.toml", data, |path| {
        if let Ok(config) = RunConfig::load(path) {
            std::fs::write(path, config.to_toml().unwrap()).unwrap();
            assert_eq!(format!("{:?}", RunConfig::load(path).unwrap()), format!("{config:?}"));
        }
        let mut config = RunConfig::preset("quickstart").unwrap();
        if config.overlay_file(path).is_ok() {
            let _ = config.validate();
        }
    });
}

/// The state of a checkpoint.
pub fn state(data: &[u8]) {
    in_folder("state.json", data, |path| {
        let config = RunConfig::preset("quickstart").unwrap();
        let folder = path.parent().unwrap();
        if let Ok(state) = checkpoint::state(folder) {
            // There is no model next to it.
            assert!(checkpoint::load(folder, &state, &config, &Device::cpu()).is_err());
        }
    });
}

/// Text to train on, as lines of JSON.
pub fn documents(data: &[u8]) {
    in_folder("text.jsonl", data, |path| {
        let source = Source::new([path]);
        let mut total = 0;
        for document in or_names(path, source.documents()).into_iter().flatten() {
            let Some(document) = or_names(path, document) else { break };
            total += document.len();
        }
        assert!(total <= data.len(), "more text than there are bytes");
        or_names(path, source.sample(10, &gossamer::observer::Observer::default()));
    });
}

/// Reads all documents of a file of that name, whose text is in the column `story`.
fn text_file(name: &str, data: &[u8]) {
    in_folder(name, data, |path| {
        let source = Source::new([path]).with_field("story");
        let documents = match source.documents() {
            // Without that column.
            Err(Error::Unknown { .. }) => return,
            documents => documents,
        };
        for document in or_names(path, documents).into_iter().flatten() {
            match document {
                Err(Error::Unknown { .. }) => break,
                document => match or_names(path, document) {
                    Some(_) => {}
                    None => break,
                },
            }
        }
    });
}

/// Text to train on, as rows of a table.
pub fn csv(data: &[u8]) {
    text_file("text.csv", data);
    text_file("text.tsv", data);
}

/// Text to train on, as Parquet.
pub fn parquet(data: &[u8]) {
    text_file("text.parquet", data);
}

/// Compressed text, in each way.
pub fn compressed(data: &[u8]) {
    for name in ["text.jsonl.gz", "text.txt.xz", "text.csv.zst"] {
        text_file(name, data);
    }
}

/// A vocabulary and its merges, after each other with a zero byte between them.
pub fn vocabulary(data: &[u8]) {
    let at = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
    in_folder("vocab.json", &data[..at], |path| {
        std::fs::write(path.with_file_name("merges.txt"), data.get(at + 1..).unwrap_or_default()).unwrap();
        if let Ok(tokenizer) = Tokenizer::load(path) {
            let _ = tokenizer.encode("def f(x): é").map(|ids| tokenizer.decode(&ids));
        }
    });
}

/// A value that was read, or else nothing; the error must name the file or its folder.
#[track_caller]
fn or_names<T>(path: &Path, result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::File { path: named, message }) => {
            assert!(named == path && !message.is_empty(), "{}: {message}", named.display());
            None
        }
        // Text that is not UTF-8.
        Err(Error::Io { path: named, .. }) => {
            assert_eq!(named, path);
            None
        }
        Err(other) => panic!("an error that names no file: {other}"),
    }
}

/// How many numbers a tensor of this shape has, or the most that there can be.
fn count(shape: &[usize]) -> usize {
    if shape.contains(&0) { 0 } else { shape.iter().fold(1, |product, &size| product.saturating_mul(size)) }
}

/// How many numbers are still worth reading: a small file may hold many views of one storage, each
/// of which is honest work.
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
