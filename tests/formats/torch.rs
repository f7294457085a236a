//! Files that torch itself wrote (`tests/data/torch/make.py`, and the golden models), against what
//! was put into them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gossamer::files::{FloatType, HostTensor, TensorSource, load_tensors};
use gossamer::formats::torch::{DataType, SparseLayout, SparseRef, TensorRef, TorchFile, TorchStateDict, Value};
use half::{bf16, f16};
use proptest::prelude::*;

use super::feed::stored_zip::{Entry, zip};

pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch").join(name)
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

#[track_caller]
fn assert_read(dict: &TorchStateDict, name: &str, shape: &[usize], numbers: &[f32]) {
    let tensor = dict.read(name).unwrap();
    assert_eq!((tensor.shape.as_slice(), bits(&tensor.data)), (shape, bits(numbers)), "{name}");
    assert_eq!(dict.entries()[name].shape, shape, "{name}");
}

#[test]
fn a_module_with_tied_weights_and_a_buffer() {
    let dict = TorchStateDict::open(data("module.pt")).unwrap();
    let names: Vec<_> = dict.entries().keys().map(String::as_str).collect();
    assert_eq!(names, ["lm_head.weight", "norm.bias", "norm.weight", "wte.weight"]);
    assert_read(&dict, "wte.weight", &[3, 2], &[0.0, 0.25, 0.5, 0.75, 1.0, 1.25]);
    assert_read(&dict, "lm_head.weight", &[3, 2], &[0.0, 0.25, 0.5, 0.75, 1.0, 1.25]);
    assert_read(&dict, "norm.weight", &[2], &[1.0, 1.0]);
    assert_read(&dict, "norm.bias", &[2], &[0.0, 0.0]);
    let error = dict.read("ids").unwrap_err().to_string();
    assert!(error.contains("module.pt") && error.contains("`ids`"), "{error}");

    let file = TorchFile::open(data("module.pt")).unwrap();
    let tensor = |name| file.value().get(name).unwrap().tensor().unwrap();
    assert_eq!(tensor("wte.weight"), tensor("lm_head.weight"));
    assert_eq!(file.integers(tensor("ids")).unwrap(), [0, 1, 2, 3]);
    assert_eq!(file.path(), data("module.pt"));
}

#[test]
fn every_kind_of_float_bit_for_bit() {
    let dict = TorchStateDict::open(data("floats.pt")).unwrap();
    let exact = [0.0, -0.0, 1.0, -2.5, 0.25, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 60000.0, 2f32.powi(-20)];
    let halved = exact.map(|number| f16::from_f32(number).to_f32());
    let mut brained = exact.map(|number| bf16::from_f32(number).to_f32());
    // torch's own choice among the NaNs.
    brained[7] = f32::from_bits(0xffff_0000);
    assert!(halved[9] != 0.0 && brained[8] == 59904.0);
    for (name, float, want) in [
        ("float64", FloatType::F64, exact),
        ("float32", FloatType::F32, exact),
        ("float16", FloatType::F16, halved),
        ("bfloat16", FloatType::BF16, brained),
    ] {
        assert_eq!(dict.entries()[name].float, float);
        assert_read(&dict, name, &[10], &want);
    }
}

#[test]
fn every_kind_of_integer() {
    let file = TorchFile::open(data("integers.pt")).unwrap();
    let whole = [0i64, 1, 100, 127, -1, -128];
    let wrapped = |modulus: i64| whole.map(|number| number.rem_euclid(modulus));
    for (name, want) in [
        ("int64", whole),
        ("int32", whole),
        ("int16", whole),
        ("int8", whole),
        ("uint32", wrapped(1 << 32)),
        ("uint16", wrapped(1 << 16)),
        ("uint8", wrapped(1 << 8)),
        ("bool", whole.map(|number| i64::from(number != 0))),
    ] {
        let tensor = file.value().get(name).unwrap().tensor().unwrap();
        assert_eq!(file.integers(tensor).unwrap(), want, "{name}");
        assert!(file.floats(tensor).unwrap_err().to_string().contains("integers.pt"));
    }
    let large = file.value().get("large").unwrap().tensor().unwrap();
    assert_eq!(file.integers(large).unwrap(), [i64::MIN, i64::MAX]);
    assert!(TorchStateDict::new(file).is_err_and(|e| e.to_string().contains("not a state dict")));
}

#[test]
fn views_are_read_as_they_were_saved() {
    let dict = TorchStateDict::open(data("views.pt")).unwrap();
    let span = |range: std::ops::Range<u8>| range.map(f32::from).collect::<Vec<_>>();
    let grid = |rows: u8, columns: u8, at: fn(u8, u8) -> u8| {
        let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        cells.map(|(row, column)| f32::from(at(row, column))).collect::<Vec<_>>()
    };
    assert_read(&dict, "whole", &[2, 3, 4], &span(0..24));
    assert_read(&dict, "transposed", &[6, 4], &grid(6, 4, |row, column| column * 6 + row));
    assert_read(&dict, "permuted", &[4, 2, 3], &grid(4, 6, |row, column| column * 4 + row));
    assert_read(&dict, "sliced", &[2, 2, 2], &[4.0, 6.0, 8.0, 10.0, 16.0, 18.0, 20.0, 22.0]);
    assert_read(&dict, "column", &[4], &[5.0, 11.0, 17.0, 23.0]);
    assert_read(&dict, "expanded", &[3, 4], &grid(3, 4, |row, _| 3 + row));
    assert_read(&dict, "repeated", &[2, 2], &[7.0; 4]);
    assert_read(&dict, "windows", &[4, 3], &grid(4, 3, |row, column| 1 + 2 * row + column));
    assert_read(&dict, "ones", &[1, 1, 1], &[23.0]);
    assert_read(&dict, "scalar", &[], &[23.0]);
    assert_read(&dict, "empty", &[0, 7], &[]);
    assert_read(&dict, "half", &[2, 4], &grid(2, 4, |row, column| column * 6 + row + 1));
}

#[test]
fn plain_values_of_every_kind_in_both_protocols() {
    let [file, other] = ["nested2.pt", "nested4.pt"].map(|name| TorchFile::open(data(name)).unwrap());
    for file in [&file, &other] {
        let top = file.value();
        assert_eq!(top.get("none"), Some(&Value::None));
        assert_eq!(top.get("truths").unwrap().items().unwrap(), [Value::Bool(true), Value::Bool(false)]);
        let Value::Tuple(numbers) = top.get("numbers").unwrap() else { panic!() };
        let whole = [0, 255, 65535, -1, (1 << 31) - 1, 1 << 40, i64::MIN].map(Value::Int);
        assert_eq!(numbers[..7], whole);
        assert_eq!(numbers[7..], [Value::Float(1.5), Value::Float(f64::NEG_INFINITY)]);
        assert_eq!((numbers[1].number(), numbers[7].number(), numbers[7].int()), (Some(255.0), Some(1.5), None));
        assert_eq!(top.get("text").unwrap().text(), Some("é\n"));
        assert_eq!(top.get("bytes"), Some(&Value::Bytes([0, 255].into())));
        assert_eq!(top.get("size"), Some(&Value::Tuple([Value::Int(2), Value::Int(3)].into())));
        assert_eq!(top.get("type"), Some(&Value::Name("torch.bfloat16".into())));
        let long: Vec<_> = (0..2500).map(Value::Int).collect();
        assert_eq!(top.get("long").unwrap().items().unwrap(), long);
        let Some([Value::List(once), Value::List(again)]) = top.get("shared").unwrap().items() else { panic!() };
        assert_eq!(once[..], [Value::Int(1), Value::Int(2)]);
        assert!(std::sync::Arc::ptr_eq(once, again));

        let under = |found: &dyn Fn(&Value) -> bool| {
            let mut pairs = top.pairs().unwrap().iter();
            &pairs.find(|(key, _)| found(key)).unwrap().1
        };
        let (quantile, lists) = &under(&|key| key.int() == Some(7)).pairs().unwrap()[0];
        assert_eq!(quantile.number(), Some(0.001));
        let [bottom, top_items] = lists.items().unwrap() else { panic!() };
        assert_eq!(bottom.items(), Some(&[][..]));
        let [tokens, activations, position] = top_items.items().unwrap()[0].items().unwrap() else { panic!() };
        assert_eq!(file.integers(tokens.tensor().unwrap()).unwrap(), [0, 1, 2]);
        assert_eq!(file.floats(activations.tensor().unwrap()).unwrap().data, [0.0, 0.5, 1.0]);
        assert_eq!(position.int(), Some(1));

        let ordered = under(&|key| key.items().is_some_and(|items| items[0].int() == Some(1)));
        let names: Vec<_> = ordered.pairs().unwrap().iter().map(|(key, _)| key.text().unwrap()).collect();
        assert_eq!((names, ordered.get("a").unwrap().int()), (vec!["b", "a"], Some(2)));
        let five = top.pairs().unwrap().iter().find_map(|(key, _)| key.tensor()).unwrap();
        assert_eq!((five.shape.len(), file.integers(five).unwrap()), (0, vec![5]));
    }
}

#[test]
fn a_state_dict_inside_a_checkpoint() {
    for name in ["model.pt", "state_dict.pt", "model_state_dict.pt"] {
        let dict = TorchStateDict::open(data(name)).unwrap();
        assert_eq!(dict.entries().keys().collect::<Vec<_>>(), ["bias", "weight"], "{name}");
        assert_read(&dict, "weight", &[2, 2], &[0.0, 1.0, 2.0, 3.0]);
        assert_read(&dict, "bias", &[2], &[0.5, 0.5]);
    }
}

#[test]
fn sparse_tensors_are_read_with_their_zeros() {
    let dict = TorchStateDict::open(data("sparse.pt")).unwrap();
    let want = [0.0, 1.5, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.25, 0.0];
    for name in ["dense", "coo", "csr", "csc", "narrow", "parameter", "half"] {
        assert_read(&dict, name, &[3, 4], &want);
    }
    // Numbers at one place add up; a nonzero may be a row.
    assert_read(&dict, "twice", &[3, 4], &[0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0]);
    assert_read(&dict, "hybrid", &[3, 2], &[3.0, 4.0, 0.0, 0.0, 1.0, 2.0]);
    assert_read(&dict, "empty", &[3, 4], &[0.0; 12]);
    assert_eq!(dict.entries()["half"].float, FloatType::F16);
    assert_eq!(dict.others(), BTreeMap::from([("whole".into(), "a sparse tensor of I64".into())]));
}

/// A sparse tensor of two nonzeros, 1 and 2, whose lists of indices are these.
fn sparse(layout: SparseLayout, shape: &[usize], lists: &[&[i64]], axes: usize) -> gossamer::Result<HostTensor> {
    let mut files = vec![("x/data.pkl".to_string(), b"\x80\x02N.".to_vec())];
    files.push(("x/data/v".into(), [1f32, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect()));
    let mut indices = Vec::new();
    for (number, list) in lists.iter().enumerate() {
        files.push((format!("x/data/{number}"), list.iter().flat_map(|i| i.to_le_bytes()).collect()));
        let shape = if layout == SparseLayout::Coo { vec![axes, list.len() / axes.max(1)] } else { vec![list.len()] };
        let strides = if shape.len() == 2 { vec![shape[1], 1] } else { vec![1] };
        let storage = number.to_string().as_str().into();
        indices.push(TensorRef { dtype: DataType::I64, shape, strides, storage, offset: 0 });
    }
    let entries: Vec<_> = files.iter().map(|(name, bytes)| Entry::new(name, bytes)).collect();
    let file = TorchFile::from_bytes("made up", zip(&entries)).unwrap();
    let values = TensorRef { dtype: DataType::F32, shape: vec![2], strides: vec![1], storage: "v".into(), offset: 0 };
    file.sparse_floats(&SparseRef { layout, shape: shape.to_vec(), indices, values })
}

/// SparseLayout, shape, lists of indices, and how many axes they have.
type Sparse<'a> = (SparseLayout, &'a [usize], &'a [&'a [i64]], usize);

#[test]
fn hostile_indices_are_refused() {
    let (coo, csr, csc) = (SparseLayout::Coo, SparseLayout::Csr, SparseLayout::Csc);
    assert_eq!(sparse(coo, &[2, 2], &[&[0, 1, 1, 0]], 2).unwrap().data, [0.0, 1.0, 2.0, 0.0]);
    assert_eq!(sparse(csr, &[2, 3], &[&[0, 0, 2], &[0, 2]], 1).unwrap().data, [0.0, 0.0, 0.0, 1.0, 0.0, 2.0]);
    assert_eq!(sparse(csc, &[2, 3], &[&[0, 1, 1, 2], &[1, 0]], 1).unwrap().data, [0.0, 0.0, 2.0, 1.0, 0.0, 0.0]);
    let huge = 1 << 40;
    let cases: [Sparse; 17] = [
        (coo, &[2, 2], &[&[0, 1, 1, 2]], 2),
        (coo, &[2, 2], &[&[0, -1, 1, 0]], 2),
        (coo, &[2, 2], &[&[0, i64::MIN, 1, i64::MAX]], 2),
        (coo, &[2, 2], &[&[0, 1, 1]], 2),
        (coo, &[2], &[&[0, 1, 1, 0]], 2),
        (coo, &[2, 2], &[&[0, 1]], 1),
        (coo, &[huge, huge], &[&[0, 1, 1, 0]], 2),
        (coo, &[huge, 2], &[&[0, 1, 1, 0]], 2),
        (coo, &[0, huge, huge], &[&[0, 0, 0, 0, 0, 0]], 3),
        (csr, &[2, 3], &[&[0, 0, 2], &[0, 3]], 1),
        (csr, &[2, 3], &[&[0, 2, 1], &[0, 2]], 1),
        (csr, &[2, 3], &[&[0, 0, 1], &[0, 2]], 1),
        (csr, &[2, 3], &[&[1, 1, 2], &[0, 2]], 1),
        (csr, &[2, 3], &[&[0, -1, 2], &[0, 2]], 1),
        (csr, &[2, 3], &[&[0, 0, i64::MAX], &[0, 2]], 1),
        (csr, &[2, 3, 1], &[&[0, 0, 2], &[0, 2]], 1),
        (csc, &[2, 3], &[&[0, 0, 2], &[0, 1]], 1),
    ];
    for (layout, shape, lists, axes) in cases {
        let said = sparse(layout, shape, lists, axes).unwrap_err().to_string();
        assert!(said.contains("made up"), "{said}");
    }
}

#[test]
fn the_golden_models_equal_their_safetensors() {
    for case in ["dense_gpt2", "paper", "relu_cat_pos", "sink_sparse"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/forward").join(case);
        let dict = TorchStateDict::open(folder.join("final_model.pt")).unwrap();
        let read: BTreeMap<String, HostTensor> =
            dict.entries().keys().map(|name| (name.clone(), dict.read(name).unwrap())).collect();
        let want = load_tensors(folder.join("model.safetensors")).unwrap();
        assert!(want.len() > 10);
        assert_eq!(read.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "{case}");
        for (name, tensor) in &want {
            assert_eq!(read[name].shape, tensor.shape, "{case} {name}");
            assert_eq!(bits(&read[name].data), bits(&tensor.data), "{case} {name}");
        }
    }
}

proptest! {
    /// Any shape, strides and offset: the numbers that the definition of strides gives, or an error
    /// if one lies outside.
    #[test]
    fn any_view_follows_its_definition(
        axes in prop::collection::vec((0usize..4, 0usize..9), 0..5),
        offset in 0usize..40,
    ) {
        let storage: Vec<u8> = (0..40u16).flat_map(u16::to_le_bytes).collect();
        let bytes = zip(&[Entry::new("x/data.pkl", b"\x80\x02N."), Entry::new("x/data/0", &storage)]);
        let file = TorchFile::from_bytes("made up", bytes).unwrap();
        let (shape, strides): (Vec<_>, Vec<_>) = axes.iter().copied().unzip();
        let mut want = vec![offset];
        for &(size, stride) in &axes {
            want = want.iter().flat_map(|&at| (0..size).map(move |i| at + i * stride)).collect();
        }
        let tensor = TensorRef { dtype: DataType::U16, shape, strides, storage: "0".into(), offset };
        let read = file.integers(&tensor);
        if want.iter().all(|&at| at < 40) {
            prop_assert_eq!(read.unwrap(), want.iter().map(|&at| at as i64).collect::<Vec<_>>());
        } else {
            prop_assert!(read.is_err_and(|e| e.to_string().contains("reaches beyond")));
        }
    }
}
