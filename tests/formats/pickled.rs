//! Torch archives written byte by byte, and a whole published circuit made of them.
#![allow(dead_code)]

use super::stored_zip::{Entry, zip};

/// A Python value to be pickled.
#[derive(Clone)]
pub enum Py {
    None,
    Int(i32),
    Float(f64),
    Str(&'static str),
    List(Vec<Py>),
    Tuple(Vec<Py>),
    Dict(Vec<(Py, Py)>),
    /// A float32 tensor: shape, numbers.
    Floats(Vec<usize>, Vec<f32>),
    /// An int64 tensor: shape, numbers.
    Longs(Vec<usize>, Vec<i64>),
}

/// A dictionary with strings for keys.
pub fn dict(pairs: Vec<(&'static str, Py)>) -> Py {
    Py::Dict(pairs.into_iter().map(|(key, value)| (Py::Str(key), value)).collect())
}

/// A tensor of whole numbers in one row.
pub fn longs(numbers: &[i64]) -> Py {
    Py::Longs(vec![numbers.len()], numbers.to_vec())
}

/// A tensor of floats in one row.
pub fn floats(numbers: &[f32]) -> Py {
    Py::Floats(vec![numbers.len()], numbers.to_vec())
}

impl Py {
    /// The value under a key of a dictionary.
    pub fn at(&mut self, name: &str) -> &mut Py {
        let Py::Dict(pairs) = self else { panic!("no dictionary") };
        let found = pairs.iter_mut().find(|(key, _)| matches!(key, Py::Str(text) if *text == name));
        &mut found.unwrap_or_else(|| panic!("no {name}")).1
    }

    /// Puts a key at the end of a dictionary.
    pub fn push(&mut self, name: &'static str, value: Py) {
        let Py::Dict(pairs) = self else { panic!("no dictionary") };
        pairs.push((Py::Str(name), value));
    }

    /// Takes a key out of a dictionary.
    pub fn remove(&mut self, name: &str) {
        let Py::Dict(pairs) = self else { panic!("no dictionary") };
        pairs.retain(|(key, _)| !matches!(key, Py::Str(text) if *text == name));
    }
}

/// The archive that `torch.save` would write of `value`.
pub fn archive(value: &Py) -> Vec<u8> {
    let (mut pickle, mut storages) = (b"\x80\x02".to_vec(), Vec::new());
    write(value, &mut pickle, &mut storages);
    pickle.push(b'.');
    let names: Vec<String> = (0..storages.len()).map(|i| format!("viz_data/data/{i}")).collect();
    let mut entries = vec![Entry::new("viz_data/data.pkl", &pickle), Entry::new("viz_data/byteorder", b"little")];
    entries.extend(names.iter().zip(&storages).map(|(name, bytes)| Entry::new(name, bytes)));
    zip(&entries)
}

fn write(value: &Py, out: &mut Vec<u8>, storages: &mut Vec<Vec<u8>>) {
    let int = |number: usize| [b"J".as_slice(), &(number as u32).to_le_bytes()].concat();
    let text = |text: &str| [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    match value {
        Py::None => out.push(b'N'),
        Py::Int(number) => out.extend([b"J".as_slice(), &number.to_le_bytes()].concat()),
        Py::Float(number) => out.extend([b"G".as_slice(), &number.to_be_bytes()].concat()),
        Py::Str(string) => out.extend(text(string)),
        Py::List(items) => {
            out.extend(b"](");
            items.iter().for_each(|item| write(item, out, storages));
            out.push(b'e');
        }
        Py::Tuple(items) => {
            out.push(b'(');
            items.iter().for_each(|item| write(item, out, storages));
            out.push(b't');
        }
        Py::Dict(pairs) => {
            out.extend(b"}(");
            for (key, value) in pairs {
                write(key, out, storages);
                write(value, out, storages);
            }
            out.push(b'u');
        }
        Py::Floats(shape, _) | Py::Longs(shape, _) => {
            let (kind, bytes): (_, Vec<u8>) = match value {
                Py::Floats(_, numbers) => ("FloatStorage", numbers.iter().flat_map(|n| n.to_le_bytes()).collect()),
                Py::Longs(_, numbers) => ("LongStorage", numbers.iter().flat_map(|n| n.to_le_bytes()).collect()),
                _ => unreachable!(),
            };
            let count = shape.iter().product();
            out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            out.extend([text("storage"), format!("ctorch\n{kind}\n").into_bytes()].concat());
            out.extend([text(&storages.len().to_string()), text("cpu"), int(count), b"tQ".to_vec(), int(0)].concat());
            let strides = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product());
            for sizes in [shape.clone(), strides.collect()] {
                out.push(b'(');
                sizes.into_iter().for_each(|size| out.extend(int(size)));
                out.push(b't');
            }
            out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
            storages.push(bytes);
        }
    }
}

/// A published circuit of seven nodes in a model of two layers: 8 channels, 2 heads of 4, 16
/// neurons.
pub fn payload() -> Py {
    dict(vec![
        (
            "circuit_data",
            dict(vec![
                ("0.mlp.act_in", longs(&[3])),
                // Not in order: losses go by position.
                ("0.mlp.post_act", longs(&[9, 2])),
                ("0.mlp.resid_delta", longs(&[1])),
                ("1.attn.act_in", longs(&[1])),
                ("1.attn.v", longs(&[6])),
                ("1.attn.resid_delta", longs(&[0])),
            ]),
        ),
        ("samples", samples()),
        ("num_total_nodes", Py::Int(144)),
        ("prune_config", dict(vec![("k_coef", Py::Float(0.001)), ("steps", Py::Int(500))])),
        (
            "all_loss",
            Py::List(vec![Py::Tuple(vec![Py::Int(0), Py::Float(1.5)]), Py::Tuple(vec![Py::Int(10), Py::Float(0.5)])]),
        ),
        ("importances", importances()),
    ])
}

fn importances() -> Py {
    let config = dict(vec![
        ("n_layer", Py::Int(2)),
        ("d_model", Py::Int(8)),
        ("n_head", Py::Int(2)),
        ("d_head", Py::Int(4)),
        ("d_mlp", Py::Int(16)),
        ("vocab_size", Py::Int(32)),
        ("block_size", Py::Int(16)),
        ("something_of_later_versions", Py::Str("passed over")),
    ]);
    dict(vec![
        ("beeg_model_config", config),
        ("loss", Py::Float(0.02)),
        ("interv_loss", Py::Float(0.3)),
        ("layer_interv_losses", dict(vec![("0.mlp", Py::Float(0.65)), ("1.attn", Py::Float(0.4))])),
        (
            "ch_interv_losses",
            dict(vec![
                ("0.mlp.act_in", floats(&[0.5])),
                ("0.mlp.post_act", floats(&[0.7, 0.25])),
                ("0.mlp.resid_delta", floats(&[0.9])),
                ("1.attn.act_in", floats(&[1.1])),
                ("1.attn.v", floats(&[0.35])),
                ("1.attn.resid_delta", floats(&[0.31])),
            ]),
        ),
        ("pair_data", pair_data()),
        ("task_samples", task_samples()),
    ])
}

fn pair_data() -> Py {
    let place = |a, b| Py::Tuple(vec![Py::Str(a), Py::Str(b)]);
    let pair = |shape: [usize; 2], effects: &[f32], sources: Py, targets: &[i64], places: Py| {
        Py::List(vec![Py::Floats(shape.to_vec(), effects.to_vec()), sources, longs(targets), places])
    };
    Py::List(vec![
        pair([1, 2], &[0.5, -0.25], longs(&[3]), &[9, 2], place("0.mlp.act_in", "0.mlp.post_act")),
        pair(
            [3, 1],
            &[0.125, 0.0, -1.0],
            Py::List(vec![Py::Int(9), Py::Int(2), Py::Str("bias")]),
            &[1],
            place("0.mlp.post_act", "0.mlp.resid_delta"),
        ),
        // One level deeper, as old files have it.
        Py::List(vec![
            pair([1, 1], &[2.0], longs(&[1]), &[6], place("1.attn.act_in", "1.attn.v")),
            pair([1, 1], &[0.75], longs(&[6]), &[0], place("1.attn.v", "1.attn.resid_delta")),
        ]),
        pair([0, 0], &[], longs(&[]), &[], place("1.attn.act_in", "1.attn.q")),
    ])
}

fn task_samples() -> Py {
    // Four prompts, two pairs.
    let tokens = Py::Longs(vec![4, 5], vec![5, 6, 7, 0, 0, 5, 6, 0, 0, 0, 5, 9, 7, 0, 0, 5, 9, 0, 0, 0]);
    let rows = |first: f32| {
        let value = |i: usize| if i < 10 { first + i as f32 } else { -first - i as f32 };
        Py::Floats(vec![4, 5], (0..20).map(value).collect())
    };
    Py::Tuple(vec![
        tokens,
        dict(vec![
            ("0.mlp.act_in", Py::Dict(vec![(Py::Int(3), rows(1.0))])),
            ("1.attn.v", Py::Dict(vec![(Py::Longs(vec![], vec![6]), rows(0.5))])),
        ]),
    ])
}

fn samples() -> Py {
    let sample = |tokens: &[i64], activations: &[f32], position| {
        Py::Tuple(vec![longs(tokens), floats(activations), Py::Int(position)])
    };
    let long: Vec<i64> = (0..80).collect();
    let ramp: Vec<f32> = (0..80).map(|i| i as f32 / 16.0).collect();
    let ends = |quantile: f64, bottom: Vec<Py>, top: Vec<Py>| {
        (Py::Float(quantile), Py::List(vec![Py::List(bottom), Py::List(top)]))
    };
    dict(vec![(
        "0.mlp.post_act",
        Py::Dict(vec![(
            Py::Longs(vec![], vec![9]),
            Py::Dict(vec![
                ends(0.1, vec![], vec![sample(&[4, 5], &[0.5, 0.25], 1)]),
                ends(0.001, vec![sample(&[1, 2, 3], &[0.0, -2.0, 1.0], 1)], vec![sample(&long, &ramp, 60)]),
            ]),
        )]),
    )])
}
