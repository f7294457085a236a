//! Files written whole or not at all, and safetensors read with every promise checked.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use gossamer::Error;
use gossamer::files::*;
use proptest::prelude::*;
use tempfile::{TempDir, tempdir};

fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn put<'a>(path: &'a Path, text: &'a str) -> impl FnOnce(&mut dyn Write) -> gossamer::Result<()> + 'a {
    move |out| out.write_all(text.as_bytes()).map_err(|e| Error::io(path, e))
}

#[test]
fn a_file_is_created_and_replaced() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a.txt");
    for text in ["first, and longer", "second"] {
        write_atomic(&path, put(&path, text)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    assert_eq!(listing(dir.path()), ["a.txt"]);
}

#[test]
fn a_failed_write_leaves_the_old_file_and_no_litter() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a.txt");
    fs::write(&path, "old").unwrap();
    let failed = write_atomic(&path, |out| {
        out.write_all(&vec![7; 1 << 20]).unwrap();
        Err(Error::io(&path, std::io::ErrorKind::StorageFull.into()))
    });
    assert!(matches!(failed, Err(Error::Io { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    assert_eq!(listing(dir.path()), ["a.txt"]);
}

#[test]
fn where_nothing_can_be_written_the_error_names_the_path() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    // A folder that is a file, a folder that does not exist, and a target that is a folder: no
    // permission helps against these.
    fs::create_dir(dir.path().join("folder")).unwrap();
    for path in [file.join("a"), dir.path().join("none/a"), dir.path().join("folder")] {
        let Err(Error::Io { path: named, .. }) = write_atomic(&path, put(&path, "text")) else { panic!() };
        assert_eq!(named, path);
    }
    for path in [file.join("step-1"), dir.path().join("none/step-1")] {
        let Err(Error::Io { path: named, .. }) = replace_dir_atomic(&path, |_| Ok(())) else { panic!() };
        assert_eq!(named, path);
    }
    assert!(matches!(write_atomic("..", |_| Ok(())), Err(Error::Io { .. })));
    assert!(matches!(create_folder(file.join("a/b")), Err(Error::Io { .. })));
    assert!(matches!(clean_temporaries(&file), Err(Error::Io { .. })));
    assert_eq!(listing(dir.path()), ["file", "folder"]);
}

#[test]
fn folders_are_created_all_the_way_and_left_alone_when_there() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a/b/c");
    create_folder(&path).unwrap();
    fs::write(path.join("kept"), "").unwrap();
    create_folder(&path).unwrap();
    assert_eq!(listing(&path), ["kept"]);
}

fn fill_folder(folder: &Path, text: &str) -> gossamer::Result<()> {
    create_folder(folder.join("inner"))?;
    write_atomic(folder.join("a"), put(folder, text))?;
    write_atomic(folder.join("inner/b"), put(folder, text))
}

#[test]
fn a_folder_is_created_and_replaced_as_a_whole() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("step-8");
    for text in ["first", "second"] {
        replace_dir_atomic(&path, |folder| {
            assert_eq!(folder.parent(), Some(dir.path()));
            assert!(listing(folder).is_empty());
            fill_folder(folder, text)
        })
        .unwrap();
        assert_eq!(listing(&path), ["a", "inner"]);
        assert_eq!(fs::read_to_string(path.join("inner/b")).unwrap(), text);
    }
    assert_eq!(listing(dir.path()), ["step-8"]);
}

#[test]
fn a_failed_folder_leaves_the_old_one_and_no_litter() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("step-8");
    replace_dir_atomic(&path, |folder| fill_folder(folder, "old")).unwrap();
    let failed = replace_dir_atomic(&path, |folder| {
        fill_folder(folder, "new")?;
        Err(Error::Data("no".into()))
    });
    assert!(matches!(failed, Err(Error::Data(_))));
    assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "old");
    assert_eq!(listing(dir.path()), ["step-8"]);
}

/// The states a kill can leave: while building, between the two renames, and before the old folder
/// is gone.
#[test]
fn after_a_kill_at_any_instant_old_or_new_is_whole() {
    let killed = |names: &[(&str, &str)]| -> TempDir {
        let dir = tempdir().unwrap();
        for (name, text) in names {
            fs::create_dir(dir.path().join(name)).unwrap();
            fill_folder(&dir.path().join(name), text).unwrap();
        }
        fs::write(dir.path().join(".tmp-tokenizer.json-77-3"), "torn").unwrap();
        // What other programs have there stays.
        for other in ["notes", ".tmp-notes", ".tmp-notes-77", ".old-notes"] {
            fs::write(dir.path().join(other), "kept").unwrap();
        }
        dir
    };
    let states: [(&[(&str, &str)], &str); 5] = [
        (&[("step-8", "old"), (".tmp-step-8-77", "half")], "old"),
        (&[(".old-step-8", "old"), (".tmp-step-8-77", "new")], "old"),
        (&[(".old-gossamer-step-8", "old"), (".tmp-gossamer-77-9", "new")], "old"),
        (&[(".old-step-8", "old"), ("step-8", "new")], "new"),
        (&[("step-8", "new")], "new"),
    ];
    for (names, whole) in states {
        let dir = killed(names);
        clean_temporaries(dir.path()).unwrap();
        assert_eq!(listing(dir.path()), [".old-notes", ".tmp-notes", ".tmp-notes-77", "notes", "step-8"], "{names:?}");
        assert_eq!(fs::read_to_string(dir.path().join("step-8/inner/b")).unwrap(), whole);

        // Without cleaning, the next replacement copes as well.
        let dir = killed(names);
        let path = dir.path().join("step-8");
        assert!(replace_dir_atomic(&path, |_| Err(Error::Data("no".into()))).is_err());
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), whole);
        replace_dir_atomic(&path, |folder| fill_folder(folder, "newest")).unwrap();
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "newest");
        assert!(!dir.path().join(".old-step-8").exists());
    }
    clean_temporaries(tempdir().unwrap().path().join("none")).unwrap();
}

#[test]
fn what_dead_writers_left_beside_a_target_goes_and_nothing_else() {
    let write_file: fn(&Path) = |path| write_atomic(path, |_| Ok(())).unwrap();
    let write_folder: fn(&Path) = |path| replace_dir_atomic(path, |_| Ok(())).unwrap();
    for write in [write_file, write_folder] {
        let dir = tempdir().unwrap();
        // Of this version, anyone's; of earlier ones, those of the same target.
        for dead in [".tmp-gossamer-77-3", ".tmp-target-77", ".tmp-target-77-3", ".target.77-3.tmp"] {
            fs::write(dir.path().join(dead), "torn").unwrap();
        }
        fs::create_dir(dir.path().join(".tmp-gossamer-78-0")).unwrap();
        fs::write(dir.path().join(".tmp-gossamer-78-0/model.safetensors"), "torn").unwrap();
        let foreign = [".tmp-other-77", ".tmp-target-", ".tmp-target-x", ".target.77.tmp", "tmp-gossamer-77-3"];
        foreign.iter().for_each(|name| fs::write(dir.path().join(name), "kept").unwrap());
        let living = fs::File::create(dir.path().join(".tmp-gossamer-79-0")).unwrap();
        living.lock().unwrap();
        write(&dir.path().join("target"));
        let mut kept = [&foreign[..], &[".tmp-gossamer-79-0", "target"]].concat();
        kept.sort();
        assert_eq!(listing(dir.path()), kept);
    }
}

#[test]
fn writers_beside_each_other_do_not_take_each_other_for_dead() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            scope.spawn(move || {
                for round in 0..10 {
                    let text = format!("{writer} {round}");
                    write_atomic(path, put(path, &text)).unwrap();
                    let folder = path.with_file_name("folder");
                    replace_dir_atomic(&folder, |folder| fill_folder(folder, &text)).unwrap();
                }
            });
        }
    });
    assert_eq!(listing(dir.path()), ["a", "folder"]);
    let [a, b] = ["folder/a", "folder/inner/b"].map(|name| fs::read_to_string(dir.path().join(name)).unwrap());
    assert_eq!(a, b, "one writer's file in another's folder");
}

#[test]
fn a_name_as_long_as_names_can_be_is_written() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("n".repeat(255));
    write_atomic(&path, put(&path, "text")).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "text");
}

#[test]
fn what_goes_wrong_in_a_folder_being_built_is_told_by_its_final_place() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("step-8");
    let failed = replace_dir_atomic(&path, |folder| {
        Err(Error::io(folder.join("model.safetensors"), std::io::ErrorKind::StorageFull.into()))
    });
    let Err(Error::Io { path: named, .. }) = failed else { panic!("{failed:?}") };
    assert_eq!(named, path.join("model.safetensors"));
}

#[test]
fn a_lock_has_one_holder_and_goes_with_it() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("lock");
    let lock = Lock::acquire(&path).unwrap().unwrap();
    let holder = Lock::acquire(&path).unwrap().unwrap_err();
    assert_eq!(holder.to_string(), format!("process {}", std::process::id()));
    let mut looks = 0;
    let stopped = Lock::wait(&path, || {
        looks += 1;
        if looks == 2 { Err(Error::Stopped) } else { Ok(()) }
    });
    assert!(matches!(stopped, Err(Error::Stopped)));
    drop(lock);
    assert!(listing(dir.path()).is_empty());
    // The lock of a killed process is free.
    fs::write(&path, "77 otherhost").unwrap();
    let lock = Lock::acquire(&path).unwrap().unwrap();
    fs::write(&path, "77 otherhost").unwrap();
    assert_eq!(Lock::acquire(&path).unwrap().unwrap_err().to_string(), "process 77 on otherhost");
    drop(lock);
    assert!(matches!(Lock::acquire(dir.path().join("none/lock")), Err(Error::Io { .. })));
}

fn sample() -> BTreeMap<String, HostTensor> {
    let odd = [0.0, -0.0, 1.0, f32::MIN_POSITIVE / 2.0, f32::from_bits(1), f32::MAX, f32::INFINITY, -f32::NAN];
    BTreeMap::from([
        ("b.weight".into(), HostTensor { shape: vec![2, 4], data: odd.to_vec() }),
        ("a".into(), HostTensor { shape: vec![], data: vec![3.5] }),
        ("empty".into(), HostTensor { shape: vec![0, 3], data: vec![] }),
    ])
}

fn bits(tensors: &BTreeMap<String, HostTensor>) -> Vec<(&String, &[usize], Vec<u32>)> {
    tensors.iter().map(|(n, t)| (n, &t.shape[..], t.data.iter().map(|x| x.to_bits()).collect())).collect()
}

#[test]
fn tensors_come_back_bit_for_bit() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let mut tensors = sample();
    // Longer than one chunk of the writer.
    let many = (0..70_001u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761))).collect();
    tensors.insert("many".into(), HostTensor { shape: vec![70_001], data: many });
    save_tensors(&path, &tensors, None).unwrap();
    assert_eq!(bits(&load_tensors(&path).unwrap()), bits(&tensors));
    assert!(load_metadata(&path).unwrap().is_empty());
}

#[test]
fn the_same_tensors_give_the_same_bytes() {
    let dir = tempdir().unwrap();
    let metadata: HashMap<String, String> = (0..9).map(|i| (format!("key{i}"), format!("{}", i * i))).collect();
    let save = |name: &str| {
        let path = dir.path().join(name);
        // A fresh map each time: its order differs from one to the next.
        save_tensors(&path, &sample(), Some(metadata.clone().into_iter().collect())).unwrap();
        fs::read(path).unwrap()
    };
    let bytes = save("one");
    assert_eq!(bytes, save("two"));
    assert_eq!(load_metadata(dir.path().join("one")).unwrap(), metadata.into_iter().collect());
    let header_length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    assert_eq!(header_length % 8, 0);
    // `a` comes first: 3.5f32 is 0x40600000.
    assert_eq!(bytes[8 + header_length..][..4], [0x00, 0x00, 0x60, 0x40]);
}

#[test]
fn tensors_that_do_not_fit_their_shape_are_refused() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    for (name, shape) in [("x", vec![3]), ("x", vec![usize::MAX, 2]), ("__metadata__", vec![2])] {
        let tensors = BTreeMap::from([(name.to_string(), HostTensor { shape, data: vec![1.0, 2.0] })]);
        assert!(matches!(save_tensors(&path, &tensors, None), Err(Error::File { .. })));
    }
    assert!(listing(dir.path()).is_empty());
}

/// Writes a safetensors file by hand: (name, type, shape, bytes), in this order.
fn raw(dir: &TempDir, tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> PathBuf {
    let (mut header, mut data) = (String::from("{"), Vec::new());
    for (i, (name, dtype, shape, bytes)) in tensors.iter().enumerate() {
        let (comma, begin) = (if i > 0 { "," } else { "" }, data.len());
        data.extend(bytes);
        let end = data.len();
        header += &format!(r#"{comma}"{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#);
    }
    header += "}";
    let path = dir.path().join("raw.safetensors");
    fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()).unwrap();
    path
}

fn bytes_of<const N: usize>(values: impl IntoIterator<Item = [u8; N]>) -> Vec<u8> {
    values.into_iter().flatten().collect()
}

#[test]
fn every_float_type_gives_its_known_values() {
    let dir = tempdir().unwrap();
    // IEEE half: 1, -2, the largest (65504), the smallest subnormal (2^-24), one third, -0,
    // infinity.
    let halves = [0x3c00u16, 0xc000, 0x7bff, 0x0001, 0x3555, 0x8000, 0x7c00];
    // bfloat16 is the upper half of an f32: 1, -2, pi cut to 8 bits, the smallest subnormal
    // (2^-133), -0.
    let brains = [0x3f80u16, 0xc000, 0x4049, 0x0001, 0x8000];
    let doubles = [0.1, -1e-50, 3.0f64];
    let path = raw(
        &dir,
        &[
            ("byte", "U8", &[1], vec![1]), // so that nothing after it is aligned
            ("half", "F16", &[7], bytes_of(halves.map(u16::to_le_bytes))),
            ("brain", "BF16", &[5], bytes_of(brains.map(u16::to_le_bytes))),
            ("double", "F64", &[3], bytes_of(doubles.map(f64::to_le_bytes))),
            ("single", "F32", &[1], bytes_of([0.1f32.to_le_bytes()])),
        ],
    );
    let tensors = load_tensors(&path).unwrap();
    assert_eq!(tensors.keys().collect::<Vec<_>>(), ["brain", "double", "half", "single"]);
    let tiny = 2f32.powi(-24);
    let expected = [1.0, -2.0, 65504.0, tiny, 0.333_251_95, -0.0, f32::INFINITY].map(f32::to_bits);
    assert_eq!(tensors["half"].data.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), expected);
    let expected = [1.0, -2.0, 3.140_625, f32::from_bits(1 << 16), -0.0].map(f32::to_bits);
    assert_eq!(tensors["brain"].data.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), expected);
    assert_eq!(tensors["double"].data, [0.1f32, -0.0, 3.0]);
    assert_eq!(tensors["single"].data, [0.1f32]);
}

#[test]
fn what_f32_cannot_hold_is_refused_with_its_name() {
    let dir = tempdir().unwrap();
    let path = raw(&dir, &[("w", "F64", &[2], bytes_of([1.0, 1e39f64].map(f64::to_le_bytes)))]);
    let message = load_tensors(&path).unwrap_err().to_string();
    assert!(message.contains("raw.safetensors") && message.contains("`w`") && message.contains("1e39"), "{message}");
    let path = raw(&dir, &[("w", "F8_E4M3", &[2], vec![0, 1])]);
    let message = load_tensors(&path).unwrap_err().to_string();
    assert!(message.contains("`w`") && message.contains("F8_E4M3"), "{message}");
}

#[test]
fn ids_come_from_every_integer_type_and_must_fit() {
    let dir = tempdir().unwrap();
    let path = raw(
        &dir,
        &[
            ("i64", "I64", &[2, 2], bytes_of([0, 1, 65_535, 4_294_967_295i64].map(i64::to_le_bytes))),
            ("i32", "I32", &[1], bytes_of([2_147_483_647i32.to_le_bytes()])),
            ("u32", "U32", &[1], bytes_of([u32::MAX.to_le_bytes()])),
            ("u16", "U16", &[2], bytes_of([513u16, u16::MAX].map(u16::to_le_bytes))),
            ("negative", "I32", &[1], bytes_of([(-1i32).to_le_bytes()])),
            ("large", "I64", &[1], bytes_of([(1i64 << 32).to_le_bytes()])),
            ("float", "F32", &[1], bytes_of([1f32.to_le_bytes()])),
        ],
    );
    assert_eq!(load_ids(&path, "i64").unwrap(), HostIds { shape: vec![2, 2], data: vec![0, 1, 65_535, u32::MAX] });
    assert_eq!(load_ids(&path, "i32").unwrap(), HostIds { shape: vec![1], data: vec![2_147_483_647] });
    assert_eq!(load_ids(&path, "u32").unwrap(), HostIds { shape: vec![1], data: vec![u32::MAX] });
    assert_eq!(load_ids(&path, "u16").unwrap(), HostIds { shape: vec![2], data: vec![513, 65_535] });
    for (name, reason) in [("negative", "-1"), ("large", "4294967296"), ("float", "F32"), ("none", "not in the file")] {
        let message = load_ids(&path, name).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(reason), "{message}");
    }
}

#[test]
fn every_truncation_is_an_error() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    save_tensors(&path, &sample(), Some(HashMap::from([("k".into(), "v".into())]))).unwrap();
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let Err(Error::File { path: named, .. }) = load_tensors(&path) else { panic!("{length} of {}", whole.len()) };
        assert_eq!(named, path);
        assert!(load_ids(&path, "a").is_err());
    }
    fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
    assert!(matches!(load_tensors(&path), Err(Error::File { .. })));
}

#[test]
fn foreign_files_are_errors() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("foreign");
    let zip: &[u8] = b"PK\x03\x04\x14\x00\x00\x00\x08\x00 and so on, for a while";
    for contents in [zip, b"{\"a\":1}", &[0; 64], &[0xff; 64]] {
        fs::write(&path, contents).unwrap();
        assert!(matches!(load_tensors(&path), Err(Error::File { .. })), "{contents:?}");
        assert!(matches!(load_metadata(&path), Err(Error::File { .. })), "{contents:?}");
    }
    assert!(matches!(load_tensors(dir.path().join("none")), Err(Error::Io { .. })));
    assert!(matches!(load_tensors(dir.path()), Err(Error::Io { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Flipped bytes give an error or other numbers, never a panic, and never numbers that do not
    /// fit their shape.
    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 1..4)) {
        let dir = tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        save_tensors(&path, &sample(), None).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        for (at, flip) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        fs::write(&path, bytes).unwrap();
        for tensor in load_tensors(&path).unwrap_or_default().values() {
            prop_assert_eq!(tensor.shape.iter().product::<usize>(), tensor.data.len());
        }
        let _ = load_ids(&path, "a");
    }
}

#[test]
fn unwritable_targets_are_errors_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), "kept").unwrap();
    for bad in [dir.path().to_path_buf(), at("no/file"), at("file/x"), at("new/"), "".into()] {
        assert!(check_output(&bad).is_err(), "{}", bad.display());
    }
    for good in [at("file"), at("new"), "-".into()] {
        check_output(&good).unwrap();
    }
    for bad in [at("file"), at("file/x"), "".into()] {
        assert!(check_output_folder(&bad).is_err(), "{}", bad.display());
    }
    for good in [dir.path().to_path_buf(), at("a/b/c"), "relative".into()] {
        check_output_folder(&good).unwrap();
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(fs::read(at("file")).unwrap(), b"kept");
}

#[cfg(target_os = "linux")]
#[test]
fn devices_are_accepted() {
    check_output("/dev/null").unwrap();
    check_output("/dev/stdout").unwrap();
    assert!(check_output("/proc/no-such-file").is_err());
}

#[test]
fn marks_are_skipped_and_other_encodings_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        read_text(&path).map_err(|error| error.to_string())
    };
    assert_eq!(read(b"\xef\xbb\xbfa\xef\xbb\xbf").unwrap(), "a\u{feff}");
    assert_eq!(read(b"").unwrap(), "");
    for utf16 in [&b"\xff\xfea\0"[..], b"\xfe\xff\0a"] {
        assert!(read(utf16).unwrap_err().contains("UTF-16"));
    }
    assert!(read(b"ab\xffc").unwrap_err().contains("byte 2"));
    assert_eq!((without_mark(b"\xef\xbb\xbfa"), without_mark(b"a")), (&b"a"[..], &b"a"[..]));
}
