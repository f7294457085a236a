//! Torch files that are damaged, absurd or hostile: always an error that names the file and says
//! why, never a panic, a hang or an allocation that the file's size does not explain.

use std::fs;
use std::time::{Duration, Instant};

use gossamer::Error;
use gossamer::files::TensorSource;
use gossamer::formats::torch::{DataType, TensorRef, TorchFile, TorchStateDict, Value};

use super::feed;
use super::feed::stored_zip::{Entry, zip};
use super::torch::data;

const NAME: &str = "made up";

fn open(bytes: Vec<u8>) -> Result<TorchFile, String> {
    let begin = Instant::now();
    let opened = TorchFile::from_bytes(NAME, bytes);
    assert!(begin.elapsed() < Duration::from_secs(5), "took {:?}", begin.elapsed());
    opened.map_err(|error| match error {
        Error::File { path, message } if path.as_os_str() == NAME => message,
        other => panic!("an error that does not name the file: {other}"),
    })
}

/// An archive of this pickle and two storages: `0` of 64 bytes, `1` of 7.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let (zero, one) = ([0x3f; 64], [1; 7]);
    zip(&[Entry::new("x/data.pkl", pickle), Entry::new("x/data/0", &zero), Entry::new("x/data/1", &one)])
}

#[track_caller]
fn refuses(pickle: &[u8], why: &str) {
    let message = open(archive(pickle)).err().unwrap_or_else(|| panic!("accepted, instead of: {why}"));
    assert!(message.contains(why), "{message}\n  instead of: {why}");
}

#[test]
fn every_prefix_is_refused() {
    let whole = fs::read(data("module.pt")).unwrap();
    assert!(open(whole.clone()).is_ok());
    for length in 0..whole.len() {
        assert!(open(whole[..length].to_vec()).is_err(), "the first {length} bytes");
    }
}

#[test]
fn every_bit_can_flip() {
    for name in ["module.pt", "views.pt"] {
        let whole = fs::read(data(name)).unwrap();
        for bit in 0..8 * whole.len() {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            feed::torch(&damaged);
        }
    }
}

#[test]
fn every_byte_of_the_pickle_can_change() {
    let mut pickles = vec![tensor("(K\x02K\x03t", "(K\x03K\x01t", "K\x01")];
    pickles.push(b"\x80\x02}q\0(X\x01\0\0\0aq\x01]q\x02(K\x01h\x02\x8a\x02\0\x01e\x85uh\0b.".to_vec());
    for pickle in pickles {
        for at in 0..pickle.len() {
            for byte in 0..=255 {
                let mut damaged = pickle.clone();
                damaged[at] = byte;
                feed::torch(&archive(&damaged));
            }
        }
    }
}

#[test]
fn other_formats_are_named() {
    let message = |name: &str| TorchFile::open(data(name)).err().unwrap().to_string();
    assert!(message("old.pt").contains("load it in torch and save it again"), "{}", message("old.pt"));
    assert!(message("script.pt").contains("TorchScript"), "{}", message("script.pt"));
    assert!(message("make.py").contains("not a zip archive"), "{}", message("make.py"));
    assert!(matches!(TorchFile::open(data("none.pt")), Err(Error::Io { .. })));
    assert!(matches!(TorchFile::open(data("")), Err(Error::Io { .. } | Error::File { .. })));
    assert!(open(Vec::new()).is_err_and(|m| m.contains("not a zip archive")));
}

#[test]
fn archives_that_torch_does_not_write() {
    let pickle = Entry::new("x/data.pkl", b"\x80\x02N.");
    let with = |others: Vec<Entry>| {
        let mut entries = vec![Entry::new("x/data.pkl", pickle.data)];
        entries.extend(others);
        open(zip(&entries))
    };
    assert!(with(vec![]).is_ok());
    assert!(with(vec![Entry::new("x/byteorder", b"little")]).is_ok());
    for (others, why) in [
        (vec![Entry::new("x/byteorder", b"big")], "big-endian"),
        (vec![Entry::new("x/byteorder", b"\xffmiddle")], "byte order"),
        (vec![Entry { method: 8, ..Entry::new("x/data/0", b"abc") }], "`data/0` is compressed"),
        (vec![Entry { size: 1 << 20, ..Entry::new("x/data/0", b"abc") }], "`data/0` reaches beyond the file"),
        (vec![Entry { size: u32::MAX, ..Entry::new("x/data/0", b"abc") }], ""),
        (vec![Entry::new("x/data.pkl", b"N.")], "several entries of one name"),
        (vec![Entry::new("x/data/0", b"a"), Entry::new("x/data/0", b"b")], "several entries of one name"),
        (vec![Entry::new("y/data.pkl", b"N.")], "2 data.pkl"),
        (vec![Entry::new("x/constants.pkl", b"N.")], "TorchScript"),
    ] {
        let message = with(others).err().unwrap_or_else(|| panic!("accepted, instead of: {why}"));
        assert!(message.contains(why), "{message}\n  instead of: {why}");
    }
    assert!(open(zip(&[])).is_err_and(|m| m.contains("0 data.pkl")));
    assert!(open(zip(&[Entry::new("x/a/data.pkl", b"N.")])).is_err_and(|m| m.contains("0 data.pkl")));
}

#[test]
fn nothing_is_ever_executed() {
    for (pickle, name) in [
        (&b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R."[..], "`os.system`"),
        (b"\x80\x02cposix\nsystem\nX\x02\0\0\0ls\x85R.", "`posix.system`"),
        (b"\x80\x02cbuiltins\neval\nX\x01\0\0\x001\x85R.", "`builtins.eval`"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.", "`os.system`"),
        (b"\x80\x02csubprocess\nPopen\n)\x81.", "`subprocess.Popen`"),
        (b"(X\x02\0\0\0lsios\nsystem\n.", "`os.system`"),
        (b"\x80\x02ctorch._utils\n_rebuild_everything\n)R.", "`torch._utils._rebuild_everything`"),
        (b"\x80\x02ccollections\nOrderedDict\n(NNNNNNNNNtR.", "`collections.OrderedDict`"),
        (b"\x80\x02ctorch.hub\nload\n(tR.", "`torch.hub.load`"),
        (b"\x80\x02ctorch\nload\n)R.", "`torch.load`"),
        // As a reducer inside a value that is otherwise plain, and as an argument of a call that is
        // known.
        (b"\x80\x02}X\x01\0\0\0acos\nsystem\nX\x02\0\0\0ls\x85Rs.", "`os.system`"),
        (b"\x80\x02ccollections\nOrderedDict\ncbuiltins\nexec\nX\x01\0\0\0x\x85R\x85R.", "`builtins.exec`"),
    ] {
        refuses(pickle, name);
        refuses(pickle, "nothing of it was executed");
    }
    for (pickle, why) in [
        (&b"(cos\nsystem\nX\x02\0\0\0lso."[..], "opcode 0x6f"),
        (b"X\x01\0\0\0xX\x02\0\0\0ls\x85R.", "name of a class or function"),
        (b"cos\nsystem\n}b.", "sets attributes"),
        (b"cos\nsystem\nX\x01\0\0\0aK\x01s.", "sets keys"),
        (b"cos\nsystem\nQ.", "persistent id"),
        (b"\x82\x01.", "opcode 0x82"),
        (b"Pos.system\n.", "opcode 0x50"),
    ] {
        refuses(pickle, why);
    }
    // A name alone is only a name.
    assert_eq!(open(archive(b"cos\nsystem\n.")).unwrap().value(), &Value::Name("os.system".into()));
}

#[test]
fn broken_pickles() {
    for (pickle, why) in [
        (&b""[..], "ends in the middle"),
        (b"N", "ends in the middle"),
        (b".", "nothing is on the stack"),
        (b"0.", "nothing is on the stack"),
        (b"t.", "no mark"),
        (b"N(.", "nothing is on the stack"),
        (b"N(0.", "nothing is on the stack"),
        (b"K\x01K\x02a.", "not a list"),
        (b"]K\x01K\x02s.", "not a dictionary"),
        (b"}(K\x01u.", "key without a value"),
        (b"(K\x01d.", "key without a value"),
        (b"h\x07.", "recalls object 7"),
        (b"j\xff\xff\xff\xff.", "recalls object 4294967295"),
        (b"\x80\x09N.", "protocol 9"),
        (b"X\xff\xff\xff\xffabc.", "ends in the middle"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.", "ends in the middle"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "ends in the middle"),
        (b"X\x02\0\0\0\xff\xfe.", "not UTF-8"),
        (b"\x8a\x09\x01\x01\x01\x01\x01\x01\x01\x01\x01.", "9 bytes"),
        (b"cos", "ends in the middle"),
        (b"c_codecs\nencode\nX\x02\0\0\0\xc4\x80X\x06\0\0\0latin1\x86R.", "no bytes"),
    ] {
        refuses(pickle, why);
    }
    assert_eq!(open(archive(b"\x8a\0.")).unwrap().value(), &Value::Int(0));
    assert_eq!(open(archive(b"\x8a\x01\xff.")).unwrap().value(), &Value::Int(-1));
}

/// A pickle of {"t": a float32 tensor of storage 0}; the parts are opcodes.
fn tensor(shape: &str, strides: &str, offset: &str) -> Vec<u8> {
    let storage = "(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x10tQ";
    let call = format!("ctorch._utils\n_rebuild_tensor_v2\n({storage}{offset}{shape}{strides}");
    [b"\x80\x02}X\x01\0\0\0t", call.as_bytes(), b"\x89}tRs."].concat()
}

#[test]
fn settings_under_a_models_name_are_not_its_state_dict() {
    let dict = tensor("(K\x02K\x08t", "(K\x08K\x01t", "K\0");
    let dict = &dict[2..dict.len() - 1];
    let pickle = [&b"}X\x05\0\0\0model}X\x01\0\0\0aK\x01ssX\x0a\0\0\0state_dict"[..], dict, b"s."].concat();
    let dict = TorchStateDict::new(open(archive(&pickle)).unwrap()).unwrap();
    assert_eq!(dict.entries().keys().collect::<Vec<_>>(), ["t"]);
}

#[test]
fn absurd_tensors() {
    let good = open(archive(&tensor("(K\x02K\x08t", "(K\x08K\x01t", "K\0"))).unwrap();
    assert_eq!(TorchStateDict::new(good).unwrap().read("t").unwrap().data.len(), 16);
    for (shape, strides, offset, why) in [
        ("(K\x02K\x08t", "(K\x08K\x01t", "K\x01", "reaches beyond the 16 numbers"),
        ("(K\x02K\x08t", "(K\x09K\x01t", "K\0", "reaches beyond"),
        ("(K\x11t", "(K\x01t", "K\0", "reaches beyond"),
        (")", ")", "K\x10", "reaches beyond"),
        ("(J\0\0\0\x7ft", "(K\0t", "K\0", "more numbers than can be read"),
        ("(J\0\0\0\x7fJ\0\0\0\x7fJ\0\0\0\x7ft", "(K\0K\0K\0t", "K\0", "more numbers than can be read"),
        ("(K\x02t", "(J\0\0\0\x7ft", "K\0", "reaches beyond"),
        ("(K\x02t", "(K\x01K\x01t", "K\0", "1 axes and 2 strides"),
        ("(Nt", "(K\x01t", "K\0", "where a size belongs"),
        ("K\x02", "K\x01", "K\0", "where a list or tuple belongs"),
    ] {
        let opened = open(archive(&tensor(shape, strides, offset)));
        let message = opened.and_then(|file| TorchStateDict::new(file).map_err(|e| e.to_string())).err();
        let message = message.unwrap_or_else(|| panic!("accepted, instead of: {why}"));
        assert!(message.contains(why), "{message}\n  instead of: {why}");
    }
    // Bytes that no string can hold: negative numbers, and the largest.
    for (part, why) in
        [(&b"(\x8a\x01\xfft"[..], "-1 where a size belongs"), (b"(\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7ft", "")]
    {
        for parts in [[part, &b"(K\x01t"[..]], [&b"(K\x02t"[..], part]] {
            let pickle = tensor("@", "", "K\0");
            let at = pickle.iter().position(|&byte| byte == b'@').unwrap();
            let pickle = [&pickle[..at], &parts.concat(), &pickle[at + 1..]].concat();
            let opened = open(archive(&pickle)).and_then(|f| TorchStateDict::new(f).map_err(|e| e.to_string()));
            let message = opened.err().unwrap();
            assert!(message.contains(why), "{message}\n  instead of: {why}");
        }
    }
}

#[test]
fn references_of_anyones_making_are_checked_too() {
    let file = open(archive(b"N.")).unwrap();
    let odd = TensorRef { dtype: DataType::F32, shape: vec![1], strides: vec![1], storage: "1".into(), offset: 0 };
    assert_eq!(file.floats(&odd).unwrap().data.len(), 1);
    let most = usize::MAX;
    for broken in [
        TensorRef { offset: 1, ..odd.clone() },
        TensorRef { dtype: DataType::F64, ..odd.clone() },
        TensorRef { offset: most, ..odd.clone() },
        TensorRef { shape: vec![most], ..odd.clone() },
        TensorRef { shape: vec![most, most], strides: vec![most, most], ..odd.clone() },
        TensorRef { shape: vec![2], strides: vec![most], offset: 1, ..odd.clone() },
        TensorRef { shape: vec![], ..odd.clone() },
        TensorRef { storage: "2".into(), ..odd.clone() },
        TensorRef { storage: "../data.pkl".into(), ..odd.clone() },
        TensorRef { shape: vec![1 << 27], strides: vec![0], ..odd.clone() },
    ] {
        let message = file.floats(&broken).unwrap_err().to_string();
        assert!(message.starts_with(NAME) && message.contains("storage"), "{message}");
    }
    let empty = TensorRef { shape: vec![0, most, most], strides: vec![most; 3], offset: most, ..odd };
    assert!(file.floats(&empty).unwrap().data.is_empty());
}

#[test]
fn a_number_too_large_for_f32_is_an_error() {
    let pickle = tensor("(K\x01t", "(K\x01t", "K\0");
    let pickle = String::from_utf8_lossy(&pickle[2..]).replace("FloatStorage", "DoubleStorage");
    // The lossy text has replaced one byte that is no UTF-8 (0x89, False) by three.
    let pickle = pickle.replace('\u{fffd}', "N");
    let huge = 1e300f64.to_le_bytes();
    let file = zip(&[Entry::new("x/data.pkl", pickle.as_bytes()), Entry::new("x/data/0", &huge)]);
    let message = TorchStateDict::new(open(file).unwrap()).unwrap().read("t").unwrap_err().to_string();
    assert!(message.contains("`t`") && message.contains("1e300"), "{message}");
}

#[test]
fn a_missing_storage_is_named() {
    let file = open(zip(&[Entry::new("x/data.pkl", &tensor("(K\x01t", "(K\x01t", "K\0"))])).unwrap();
    let message = file.floats(file.value().get("t").unwrap().tensor().unwrap()).unwrap_err().to_string();
    assert!(message.contains("storage `0`"), "{message}");
    let message = TorchStateDict::new(file).err().unwrap().to_string();
    assert!(message.contains("tensor `t`") && message.contains("storage `0`"), "{message}");
}

#[test]
fn values_that_hold_themselves() {
    let why = "one inside itself";
    refuses(b"]q\0h\0a.", why);
    refuses(b"]q\0(h\0h\0h\0h\0e.", why);
    refuses(b"}q\0X\x01\0\0\0ah\0s.", why);
    refuses(b"}q\0h\0K\x01s.", why);
    refuses(b"]q\0h\0\x85q\x01ah\x01.", why);
}

#[test]
fn a_million_levels() {
    let million = 1_000_000;
    let why = "more than 100 deep";
    assert!(open(archive(&[&b"(".repeat(million)[..], b"N."].concat())).is_ok());
    refuses(&[&b"]".repeat(million)[..], &b"a".repeat(million - 1), b"."].concat(), why);
    refuses(&[&b"(".repeat(million)[..], &b"l".repeat(million), b"."].concat(), why);
    refuses(&[&b")"[..], &b"\x85".repeat(million), b"."].concat(), why);
    let hundred = [&b"]".repeat(100)[..], &b"a".repeat(99), b"."].concat();
    assert!(open(archive(&hundred)).is_ok());
    // The same height, reached by way of an object that was already built.
    let shared = [&b"]q\0"[..], &b"\x85".repeat(60), b"q\x01", &b"\x85".repeat(60), b"h\x01\x86."].concat();
    refuses(&shared, why);
}

#[test]
fn few_bytes_do_not_become_many() {
    // Each list holds the one before it twice: 2^60 leaves if written out.
    let mut doubling = b"]q\0".to_vec();
    for level in 0..60u8 {
        doubling.extend([b']', b'q', level + 1, b'(', b'h', level, b'h', level, b'e']);
    }
    doubling.push(b'.');
    refuses(&doubling, "repeats its parts");

    // A long string in every place of a long list.
    let text = [&b"X\0\0\x01\0"[..], &[b'a'; 1 << 16], b"q\0"].concat();
    let many = [&text[..], b"](", &b"h\0".repeat(100_000), b"e."].concat();
    refuses(&many, "repeats its parts");

    // The same long list made into a dictionary, and the same long name made, again and again.
    let list = [&b"]("[..], &b"NN\x86".repeat(30_000), b"eq\0"].concat();
    let calls = b"ccollections\nOrderedDict\nh\0\x85R0".repeat(30_000);
    refuses(&[&list[..], &calls, b"."].concat(), "more than its size explains");
    refuses(&[&text[..], &b"h\0h\0\x930".repeat(100_000), b"."].concat(), "more than its size explains");
    let encode = b"c_codecs\nencode\nh\0h\0\x86R0".repeat(20_000);
    refuses(&[&text[..], &encode, b"."].concat(), "more than its size explains");

    // More on the stack than any file needs.
    refuses(&[&b"("[..], &b"N".repeat((1 << 22) + 1), b"t."].concat(), "on the stack");
}
