//! Safetensors read and written a tensor at a time, in shards, and under other names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gossamer::Error;
use gossamer::files::*;
use tempfile::tempdir;

use crate::{assert_says, bits, bits_of, config, weights, write};

/// A safetensors file by hand: (name, type, shape, bytes).
fn raw(path: &Path, tensors: &[(&str, &str, &[usize], &[u8])]) {
    let (mut entries, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let begin = data.len();
        data.extend_from_slice(bytes);
        let entry = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()] });
        entries.insert(name.to_string(), entry);
    }
    let header = serde_json::to_string(&entries).unwrap();
    fs::write(path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()).unwrap();
}

/// The bytes of the numbers in a safetensors file.
fn data_of(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    assert_eq!(start % 8, 0);
    bytes[start..].to_vec()
}

fn copy(source: &dyn TensorSource, path: &Path) {
    write_safetensors(path, source.entries(), None, |name| source.read(name).map(Cow::Owned)).unwrap();
}

/// Subnormals, infinities and both zeros included: nothing less than all of them.
#[test]
fn every_16_bit_number_survives_reading_and_writing() {
    let dir = tempdir().unwrap();
    let (before, after) = (dir.path().join("before.safetensors"), dir.path().join("after.safetensors"));
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for (dtype, exponent) in [("F16", 0x7c00u16), ("BF16", 0x7f80)] {
        raw(&before, &[("all", dtype, &[256, 256], &all)]);
        copy(&SafetensorsFile::open(&before).unwrap(), &after);
        let written = data_of(&after);
        assert_eq!(written.len(), all.len());
        for (number, bytes) in (0..=u16::MAX).zip(written.as_chunks::<2>().0) {
            let (got, nan) = (u16::from_le_bytes(*bytes), |x: u16| x & 0x7fff > exponent);
            assert!(got == number || (nan(number) && nan(got)), "{dtype} {number:#06x} became {got:#06x}");
        }
    }
}

#[test]
fn numbers_are_rounded_to_the_nearest_and_overflow_is_an_error() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let write_one = |number: f32, float| {
        let tensor = HostTensor { shape: vec![1], data: vec![number] };
        let entries = BTreeMap::from([("w".to_string(), TensorInfo { shape: vec![1], float })]);
        write_safetensors(&path, &entries, None, |_| Ok(Cow::Borrowed(&tensor)))
    };
    // Halfway between two neighbours the even one is taken: 1 + 1/2048 and 1 + 3/2048 for f16,
    // whose step at 1 is 1/1024.
    let cases = [
        (1.0 + 1.0 / 2048.0, FloatType::F16, 0x3c00u16),
        (1.0 + 3.0 / 2048.0, FloatType::F16, 0x3c02),
        (1.0 + 1.0 / 256.0, FloatType::BF16, 0x3f80),
        (1.0 + 3.0 / 256.0, FloatType::BF16, 0x3f82),
        (-0.0, FloatType::F16, 0x8000),
        (f32::INFINITY, FloatType::F16, 0x7c00),
        (65504.0, FloatType::F16, 0x7bff),
        (-65519.99, FloatType::F16, 0xfbff),
        (f32::from_bits(0x7f7f_7fff), FloatType::BF16, 0x7f7f),
    ];
    for (number, float, expected) in cases {
        write_one(number, float).unwrap();
        assert_eq!(data_of(&path), expected.to_le_bytes(), "{number}");
    }
    fs::remove_file(&path).unwrap();
    assert_says(write_one(65520.0, FloatType::F16), &["x.safetensors", "`w`", "6.552e4", "too large for F16"]);
    assert_says(write_one(f32::from_bits(0xff7f_8000), FloatType::BF16), &["`w`", "-3.39", "too large for BF16"]);
    assert_says(write_one(f32::MAX, FloatType::BF16), &["x.safetensors", "`w`", "too large for BF16"]);
    assert!(!path.exists());
}

#[test]
fn wide_types_come_first_and_every_tensor_is_asked_for_once() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let types = [("a", FloatType::F16), ("b", FloatType::F64), ("c", FloatType::BF16), ("d", FloatType::F32)];
    let entries = types.map(|(name, float)| (name.to_string(), TensorInfo { shape: vec![1], float }));
    let mut asked = String::new();
    let written = write_safetensors(&path, &BTreeMap::from(entries.clone()), None, |name| {
        asked += name;
        Ok(Cow::Owned(HostTensor { shape: vec![1], data: vec![1.0] }))
    });
    written.unwrap();
    assert_eq!(asked, "bdac");
    assert_eq!(data_of(&path), [0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0x80, 0x3f, 0, 0x3c, 0x80, 0x3f]);
    let file = SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.entries(), &BTreeMap::from(entries.clone()));
    assert!(bits(&file).values().all(|(_, bits)| bits == &[1f32.to_bits()]));

    // A reader that fails, or gives another shape, leaves what was there.
    let before = fs::read(&path).unwrap();
    let entries = BTreeMap::from(entries);
    let short = |_: &str| Ok(Cow::Owned(HostTensor { shape: vec![2], data: vec![0.0; 2] }));
    assert_says(write_safetensors(&path, &entries, None, short), &["x.safetensors", "`b`", "[2]"]);
    assert_says(write_safetensors(&path, &entries, None, |_| Err(Error::Data("no".into()))), &["no"]);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn every_truncation_is_an_error_that_names_the_file() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("cut.safetensors");
    let tensors = BTreeMap::from([
        ("a".to_string(), HostTensor { shape: vec![2, 2], data: vec![1.0, 2.0, 3.0, 4.0] }),
        ("b".to_string(), HostTensor { shape: vec![], data: vec![5.0] }),
    ]);
    save_tensors(&path, &tensors, None).unwrap();
    assert_eq!(bits(&SafetensorsFile::open(&path).unwrap()), bits_of(&tensors));
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let Err(Error::File { path: named, .. }) = SafetensorsFile::open(&path) else { panic!("{length}") };
        assert_eq!(named, path);
    }
    fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
    assert_says(SafetensorsFile::open(&path), &["cut.safetensors", "not a whole safetensors file"]);
}

#[test]
fn flipped_bytes_never_panic_nor_give_numbers_that_do_not_fit() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("flipped.safetensors");
    let few = weights(&config()).into_iter().take(4).collect();
    write(&path, &few, FloatType::F16, "");
    let whole = fs::read(&path).unwrap();
    let header = data_of(&path).len();
    for at in 0..whole.len() - header {
        let mut bytes = whole.clone();
        bytes[at] ^= [0x01, 0x10, 0x80][at % 3];
        fs::write(&path, &bytes).unwrap();
        let Ok(file) = SafetensorsFile::open(&path) else { continue };
        for name in file.entries().keys() {
            let tensor = file.read(name).unwrap();
            assert_eq!(tensor.shape.iter().product::<usize>(), tensor.data.len());
        }
    }
}

#[test]
fn integers_are_passed_over_and_strange_floats_refused() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    raw(&path, &[("ids", "I64", &[1], &[7, 0, 0, 0, 0, 0, 0, 0]), ("w", "F16", &[1], &[0, 0x3c])]);
    let file = SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.entries().keys().collect::<Vec<_>>(), ["w"]);
    assert!(file.has("ids") && file.has("w") && !file.has("v"));
    assert_says(file.read("ids"), &["x.safetensors", "`ids`"]);
    raw(&path, &[("w", "F8_E4M3", &[1], &[0])]);
    assert_says(SafetensorsFile::open(&path), &["x.safetensors", "`w`", "F8_E4M3"]);
    assert!(matches!(SafetensorsFile::open(dir.path()), Err(Error::Io { .. })));
    assert!(matches!(SafetensorsFile::open(dir.path().join("none")), Err(Error::Io { .. })));
}

/// Cuts the tests' model in two shards; gives the index's path and its map.
fn shards(dir: &Path) -> (PathBuf, BTreeMap<String, String>) {
    let tensors = weights(&config());
    let mut map = BTreeMap::new();
    for (i, file) in ["model-1.safetensors", "model-2.safetensors"].into_iter().enumerate() {
        let half: BTreeMap<_, _> = tensors.clone().into_iter().skip(i).step_by(2).collect();
        write(&dir.join(file), &half, FloatType::F32, "");
        map.extend(half.into_keys().map(|name| (name, file.to_string())));
    }
    let index = dir.join("model.safetensors.index.json");
    write_index(&index, &map);
    (index, map)
}

fn write_index(index: &Path, map: &BTreeMap<String, String>) {
    fs::write(index, serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map }).to_string()).unwrap();
}

#[test]
fn shards_are_one_source() {
    let dir = tempdir().unwrap();
    let (index, _) = shards(dir.path());
    let sharded = ShardedSafetensors::open(&index).unwrap();
    assert_eq!(bits(&sharded), bits_of(&weights(&config())));
    assert_says(sharded.read("nothing"), &["index.json", "`nothing`"]);
    assert_eq!(ShardedSafetensors::files(&index).unwrap(), ["model-1.safetensors", "model-2.safetensors"]);
}

#[test]
fn a_bad_index_is_an_error_that_says_why() {
    let dir = tempdir().unwrap();
    let (index, map) = shards(dir.path());
    let open_with = |name: &str, file: &str| {
        let mut map = map.clone();
        map.insert(name.into(), file.into());
        write_index(&index, &map);
        ShardedSafetensors::open(&index)
    };
    let inside = index.parent().unwrap().join("model-1.safetensors");
    for outside in ["../x.safetensors", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "C:x", inside.to_str().unwrap()] {
        assert_says(open_with("x", outside), &["index.json", "`x`", "not a plain file name"]);
    }
    assert_says(open_with("x", "model-3.safetensors"), &["index.json", "model-3.safetensors", "missing"]);
    assert_says(open_with("x", "model-1.safetensors"), &["index.json", "`x`", "model-1.safetensors"]);
    // An index that names itself as a shard.
    assert_says(open_with("x", "model.safetensors.index.json"), &["index.json", "not a whole safetensors file"]);
    // The same tensor in both shards.
    let both: BTreeMap<_, _> = weights(&config()).into_iter().collect();
    write(&dir.path().join("model-2.safetensors"), &both, FloatType::F32, "");
    write_index(&index, &map);
    assert_says(ShardedSafetensors::open(&index), &["index.json", "two shards", "model-1", "model-2"]);

    for (text, reason) in [
        (r#"{"weight_map":{"w":"a","w":"b"}}"#, "`w` twice"),
        (r#"{"weight_map":["w"]}"#, "an object from tensor names"),
        (r#"{"weight_map":{"w":1}}"#, "invalid type"),
        (r#"{"metadata":{}}"#, "weight_map"),
        ("[1, 2", "not an index"),
        ("", "not an index"),
    ] {
        fs::write(&index, text).unwrap();
        assert_says(ShardedSafetensors::open(&index), &["index.json", reason]);
    }
}

#[test]
fn tensors_get_the_names_that_are_asked_for() {
    let tensor = |x: f32| HostTensor { shape: vec![], data: vec![x] };
    let source = |names: &[(&str, f32)]| -> Box<dyn TensorSource> {
        Box::new(InMemory::from(names.iter().map(|(n, x)| (n.to_string(), tensor(*x))).collect::<BTreeMap<_, _>>()))
    };
    let path = Path::new("some/file");
    let strip = |name: &str| name.strip_prefix("p.").unwrap_or(name).to_string();
    let mixed = Renamed::wrap(source(&[("p.a", 1.0), ("p.p.b", 2.0), ("c", 3.0)]), strip, path).unwrap();
    assert_eq!(mixed.entries().keys().collect::<Vec<_>>(), ["a", "c", "p.b"]);
    assert_eq!(["a", "p.b", "c"].map(|name| mixed.read(name).unwrap().data[0]), [1.0, 2.0, 3.0]);
    assert_says(Renamed::wrap(source(&[("p.a", 1.0), ("a", 2.0)]), strip, path).map(|_| ()), &["some/file", "`p.a`"]);
}
