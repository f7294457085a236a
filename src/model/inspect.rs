//! What a state dict holds: how many weights are not zero, where, and what they no longer reach.

use serde::{Serialize, Serializer};

use super::finite::{first_not_finite, index_of};
use super::{Kind, ModelConfig, Parameters, check_weights};
use crate::Result;
use crate::files::TensorSource;

/// A model's numbers in summary.
#[derive(Debug, Serialize)]
pub struct WeightReport {
    /// Every parameter, in the order of the forward pass.
    pub tensors: Vec<TensorReport>,
    /// Entries of all parameters.
    pub parameters: u64,
    /// Those that are not zero.
    pub nonzeros: u64,
    /// Entries of the weight matrices (linear layers, embedding, unembedding).
    pub matrix_parameters: u64,
    /// Those that are not zero.
    pub matrix_nonzeros: u64,
    /// What each layer no longer uses.
    pub layers: Vec<LayerReport>,
    /// Channels of the residual stream that no embedding, attention or MLP writes to.
    pub unwritten_channels: Vec<usize>,
    /// Channels of the residual stream that no attention, MLP or unembedding reads.
    pub unread_channels: Vec<usize>,
}

/// One parameter.
#[derive(Debug, Serialize)]
pub struct TensorReport {
    /// The published name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Entries that are not zero.
    pub nonzeros: u64,
    /// Their share.
    pub density: f64,
    /// Root-mean-square of the entries that are finite and not zero.
    pub rms: f64,
    /// Entries that are infinite or not a number.
    pub not_finite: u64,
    /// The first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_not_finite: Option<Element>,
    /// The largest finite ones by magnitude, largest first.
    pub largest: Vec<Element>,
}

/// One entry of a parameter.
#[derive(Clone, Debug, Serialize)]
pub struct Element {
    /// Where it is.
    pub index: Vec<usize>,
    /// What it is. In JSON a text where it is not finite, since JSON has no such numbers.
    #[serde(serialize_with = "number_or_text")]
    pub value: f32,
}

fn number_or_text<S: Serializer>(value: &f32, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    if value.is_finite() { serializer.serialize_f32(*value) } else { serializer.collect_str(value) }
}

/// A layer's dead ends.
#[derive(Debug, Serialize)]
pub struct LayerReport {
    /// Neurons of the MLP whose weights in are all zero: what comes out never changes.
    pub neurons_without_input: Vec<usize>,
    /// Neurons of the MLP whose weights out are all zero.
    pub neurons_without_output: Vec<usize>,
    /// Channels of queries and keys of which one side is always zero (neither weights nor bias): no
    /// score depends on them.
    pub dead_query_key_channels: Vec<usize>,
    /// Channels of values that nothing is written to, or that are written nowhere.
    pub dead_value_channels: Vec<usize>,
}

/// Which rows and columns of a matrix hold anything.
#[derive(Default)]
struct Used {
    rows: Vec<bool>,
    columns: Vec<bool>,
}

/// Reads all parameters of a model, one at a time; `largest` entries of each are listed.
///
/// # Errors
/// [`crate::Error::Mismatch`] if the tensors are not those of `config`, and those of reading.
pub fn inspect(config: &ModelConfig, source: &dyn TensorSource, largest: usize) -> Result<WeightReport> {
    check_weights(config, source)?;
    let mut report = WeightReport {
        tensors: Vec::new(),
        parameters: 0,
        nonzeros: 0,
        matrix_parameters: 0,
        matrix_nonzeros: 0,
        layers: Vec::new(),
        unwritten_channels: Vec::new(),
        unread_channels: Vec::new(),
    };
    let mut used = std::collections::HashMap::new();
    for (name, kind, shape) in Parameters::shapes(config) {
        if !source.entries().contains_key(&name) {
            continue;
        }
        let data = source.read(&name)?.data;
        let tensor = summarise(&name, &shape, &data, largest);
        report.parameters += data.len() as u64;
        report.nonzeros += tensor.nonzeros;
        if kind.is_matrix() {
            report.matrix_parameters += data.len() as u64;
            report.matrix_nonzeros += tensor.nonzeros;
        }
        if let (Kind::Hidden(_) | Kind::Embedding | Kind::Bias, Some(&columns)) = (kind, shape.last()) {
            used.insert(name, rows_and_columns(&data, columns));
        }
        report.tensors.push(tensor);
    }
    let none = Used::default();
    let at = |name: &str| used.get(name).unwrap_or(&none);
    let d = config.d_model;
    let (mut read, mut written) = (vec![false; d], vec![false; d]);
    let mark = |set: &mut [bool], more: &[bool]| set.iter_mut().zip(more).for_each(|(s, m)| *s |= m);
    mark(&mut written, &at("transformer.wte.weight").columns);
    if config.d_pos_emb.is_none() {
        let positions = source.read("transformer.wpe.weight")?;
        mark(&mut written, &rows_and_columns(&positions.data, d).columns);
    }
    mark(&mut read, &at(if config.tied_unembed { "transformer.wte.weight" } else { "lm_head.weight" }).columns);
    for i in 0..config.n_layer {
        let part = |name: &str| at(&format!("transformer.h.{i}.{name}"));
        for writer in ["attn.c_proj", "mlp.c_proj"] {
            mark(&mut written, &part(&format!("{writer}.weight")).rows);
            // A bias has one row: what it writes to are its columns.
            mark(&mut written, &part(&format!("{writer}.bias")).columns);
        }
        for reader in ["attn.c_attn.weight", "mlp.c_fc.weight"] {
            mark(&mut read, &part(reader).columns);
        }
        report.layers.push(layer(config, &part));
    }
    report.unwritten_channels = missing(&written);
    report.unread_channels = missing(&read);
    Ok(report)
}

fn layer<'a>(config: &ModelConfig, part: &dyn Fn(&str) -> &'a Used) -> LayerReport {
    let width = config.attention_width();
    let (c_attn, bias) = (part("attn.c_attn.weight"), part("attn.c_attn.bias"));
    let alive = |letter: usize, c: usize| {
        let at = letter * width + c;
        c_attn.rows.get(at) == Some(&true) || bias.columns.get(at) == Some(&true)
    };
    let carried = &part("attn.c_proj.weight").columns;
    LayerReport {
        neurons_without_input: missing(&part("mlp.c_fc.weight").rows),
        neurons_without_output: missing(&part("mlp.c_proj.weight").columns),
        dead_query_key_channels: (0..width).filter(|&c| !(alive(0, c) && alive(1, c))).collect(),
        dead_value_channels: (0..width).filter(|&c| !(alive(2, c) && carried.get(c) == Some(&true))).collect(),
    }
}

fn missing(set: &[bool]) -> Vec<usize> {
    set.iter().enumerate().filter(|(_, used)| !**used).map(|(i, _)| i).collect()
}

fn rows_and_columns(data: &[f32], columns: usize) -> Used {
    let mut used = Used { rows: Vec::new(), columns: vec![false; columns] };
    for row in data.chunks_exact(columns.max(1)) {
        used.rows.push(row.iter().any(|v| *v != 0.0));
        used.columns.iter_mut().zip(row).for_each(|(u, v)| *u |= *v != 0.0);
    }
    used
}

fn summarise(name: &str, shape: &[usize], data: &[f32], largest: usize) -> TensorReport {
    let nonzeros = data.iter().filter(|v| **v != 0.0).count();
    let finite = data.iter().filter(|v| v.is_finite() && **v != 0.0);
    let squares = finite.clone().fold(0.0, |sum, v| sum + f64::from(*v).powi(2));
    let mut order: Vec<usize> = (0..data.len()).filter(|&i| data[i].is_finite() && data[i] != 0.0).collect();
    let by_magnitude = |a: &usize, b: &usize| data[*b].abs().total_cmp(&data[*a].abs()).then(a.cmp(b));
    if largest < order.len() {
        order.select_nth_unstable_by(largest, by_magnitude);
        order.truncate(largest);
    }
    order.sort_by(by_magnitude);
    let entry = |i: usize| Element { index: index_of(i, shape), value: data[i] };
    TensorReport {
        name: name.to_string(),
        shape: shape.to_vec(),
        nonzeros: nonzeros as u64,
        density: nonzeros as f64 / data.len().max(1) as f64,
        rms: (squares / finite.count().max(1) as f64).sqrt(),
        not_finite: data.iter().filter(|v| !v.is_finite()).count() as u64,
        first_not_finite: first_not_finite(data).map(|(i, _)| entry(i)),
        largest: order.into_iter().map(entry).collect(),
    }
}
