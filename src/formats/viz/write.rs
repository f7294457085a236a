//! A circuit written as its published visualiser reads it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;

use super::read::joined;
use crate::circuits::statistics::{End, NodeStatistics};
use crate::circuits::{Circuit, EdgeEntry, ModelRef, Node, NodeKind};
use crate::files::versioned::Versioned as _;
use crate::formats::torch::{DataType, Numbers, TensorRef, Value, write_torch};
use crate::model::{ModelConfig, Site};
use crate::{Error, Result};

/// What is known of a circuit besides its file. The visualiser's panels of what is missing here stay
/// empty.
#[derive(Default)]
pub struct Measurements<'a> {
    /// The model's configuration; without it the payload has only the sizes that the circuit knows.
    pub config: Option<&'a ModelConfig>,
    /// Statistics of the nodes' activations: their snippets of the corpus are shown.
    pub statistics: &'a [NodeStatistics],
    /// Clean and counterfactual prompts; number i of one is the pair of number i of the other.
    pub prompts: [Vec<Vec<u32>>; 2],
    /// The nodes' activations in the clean prompts, then in the counterfactual ones.
    pub activations: BTreeMap<Node, Vec<Vec<f32>>>,
    /// By how much the circuit's task loss is higher without a sublayer, `3.mlp` or `3.attn`.
    pub sublayers: BTreeMap<String, f64>,
}

/// The key of the circuit file that a payload of this crate holds besides the published parts.
pub(super) const CIRCUIT: &str = "gossamer_circuit";

/// Writes a circuit as a `viz_data.pt`, atomically. Losses are those on the train pairs. The same
/// contents give the same bytes.
///
/// # Errors
/// [`Error::File`] for a circuit that cannot be, or prompts without pairs; [`Error::Io`] where the
/// system refuses.
pub fn save_payload(path: impl AsRef<Path>, circuit: &Circuit, known: &Measurements) -> Result<()> {
    let path = path.as_ref();
    let circuit = circuit.clone().normalised();
    circuit.check().map_err(|message| Error::file(path, message))?;
    if known.prompts[0].len() != known.prompts[1].len() {
        return Err(Error::file(path, "clean and counterfactual prompts are not pairs"));
    }
    let mut writer = PayloadWriter { numbers: Vec::new() };
    let value = writer.payload(&circuit, known);
    write_torch(path, &value, |storage| {
        let numbers = storage.parse().ok().and_then(|at: usize| writer.numbers.get(at));
        match numbers {
            Some(Stored::Floats(numbers)) => Ok(Numbers::Floats(Cow::Borrowed(numbers))),
            Some(Stored::Integers(numbers)) => Ok(Numbers::Integers(Cow::Borrowed(numbers))),
            None => Err(Error::file(path, format!("there is no storage {storage}"))),
        }
    })
}

enum Stored {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

/// Gathers the numbers of the tensors of a payload.
struct PayloadWriter {
    numbers: Vec<Stored>,
}

impl PayloadWriter {
    fn payload(&mut self, circuit: &Circuit, known: &Measurements) -> Value {
        let sites = Sites::new(circuit);
        let data =
            sites.each(|channels| self.integers(&[channels.len()], channels.iter().map(|&n| n as i64).collect()));
        let importances = self.importances(circuit, known, &sites);
        // The only point of the curve of losses that is known.
        let step = circuit.settings.get("steps").and_then(Json::as_u64).unwrap_or(1).saturating_sub(1);
        let curve = Value::Tuple([int(step as i64), Value::Float(circuit.losses.train.circuit)].into());
        dict([
            ("circuit_data", data),
            ("samples", self.samples(known.statistics, &sites)),
            ("num_total_nodes", int(total_nodes(&circuit.model, &sites))),
            ("prune_config", from_json(&circuit.settings)),
            ("all_loss", Value::List([curve].into())),
            ("importances", importances),
            (CIRCUIT, text(&circuit.to_json())),
        ])
    }

    fn importances(&mut self, circuit: &Circuit, known: &Measurements, sites: &Sites) -> Value {
        let losses = &circuit.losses.train;
        let alone = losses.circuit;
        let deltas: BTreeMap<Node, f64> =
            circuit.nodes.iter().map(|entry| (entry.node(), entry.ablation_delta)).collect();
        let by_node = sites.each_node(|node| {
            // Losses of nodes are kept as sums over both members of a pair.
            Value::Float(2.0 * (deltas.get(&node).copied().unwrap_or_default() + alone))
        });
        let sublayers =
            (0..circuit.model.n_layer).flat_map(|layer| ["attn", "mlp"].map(|part| format!("{layer}.{part}")));
        let sublayers = sublayers.map(|name| {
            // Those of sublayers are not.
            let loss = known.sublayers.get(&name).map_or(f64::NAN, |delta| alone + delta);
            (text(&name), Value::Float(loss))
        });
        let config = known.config.map_or_else(|| sizes(&circuit.model), |config| fields(config, &circuit.model));
        dict([
            ("beeg_model_config", config),
            ("loss", Value::Float(2.0 * losses.model)),
            ("interv_loss", Value::Float(2.0 * alone)),
            ("layer_interv_losses", Value::Dict(sublayers.collect())),
            ("ch_interv_losses", by_node),
            ("pair_data", self.pairs(circuit, sites, |edge| edge.effect as f32)),
            ("pair_data_connections", self.pairs(circuit, sites, |_| 1.0)),
            ("task_samples", self.task_samples(known, sites)),
        ])
    }

    /// A matrix of `number` of each edge for each two sites that weights join, empty ones included.
    fn pairs(&mut self, circuit: &Circuit, sites: &Sites, number: fn(&EdgeEntry) -> f32) -> Value {
        let mut list = Vec::new();
        for (&from, sources) in &sites.channels {
            for (&to, targets) in sites.channels.iter().filter(|(to, _)| joined(from, **to)) {
                let mut matrix = vec![0.0; sources.len() * targets.len()];
                for edge in circuit.edges.iter().filter(|edge| edge.from.site() == from && edge.to.site() == to) {
                    let at =
                        sources.binary_search(&edge.from.index).ok().zip(targets.binary_search(&edge.to.index).ok());
                    if let Some((row, column)) = at {
                        matrix[row * targets.len() + column] = number(edge);
                    }
                }
                let ids = |channels: &[usize]| Value::List(channels.iter().map(|&n| int(n as i64)).collect());
                let matrix = self.floats(&[sources.len(), targets.len()], matrix);
                let locations = Value::Tuple([text(&from.to_string()), text(&to.to_string())].into());
                list.push(Value::List([matrix, ids(sources), ids(targets), locations].into()));
            }
        }
        Value::List(list.into())
    }

    /// Prompts, padded with token 0, and the nodes' activations in them.
    fn task_samples(&mut self, known: &Measurements, sites: &Sites) -> Value {
        let prompts: Vec<&Vec<u32>> = known.prompts.iter().flatten().collect();
        let width = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(1);
        let shape = [prompts.len(), width];
        let tokens = prompts.iter().flat_map(|prompt| padded(prompt.iter().map(|&id| i64::from(id)), width)).collect();
        let tokens = self.integers(&shape, tokens);
        let mut locations = Vec::new();
        for (site, channels) in &sites.channels {
            let mut nodes = Vec::new();
            for &channel in channels {
                let rows = Node::at(*site, channel).and_then(|node| known.activations.get(&node));
                if let Some(rows) = rows.filter(|rows| rows.len() == prompts.len()) {
                    let values = rows.iter().flat_map(|row| padded(row.iter().copied(), width)).collect();
                    nodes.push((int(channel as i64), self.floats(&shape, values)));
                }
            }
            locations.push((text(&site.to_string()), Value::Dict(nodes.into())));
        }
        Value::Tuple([tokens, Value::Dict(locations.into())].into())
    }

    /// Snippets of the corpus at the quantiles of each node.
    fn samples(&mut self, statistics: &[NodeStatistics], sites: &Sites) -> Value {
        let mut locations = Vec::new();
        for (site, channels) in &sites.channels {
            let mut nodes = Vec::new();
            for &channel in channels {
                let node = Node::at(*site, channel);
                let Some(known) = statistics.iter().find(|known| Some(known.node) == node) else { continue };
                let mut quantiles = Vec::new();
                for quantile in &known.corpus.quantiles {
                    let ends = [self.snippets(&quantile.bottom), self.snippets(&quantile.top)];
                    quantiles.push((Value::Float(quantile.quantile), Value::List(ends.into())));
                }
                nodes.push((int(channel as i64), Value::Dict(quantiles.into())));
            }
            locations.push((text(&site.to_string()), Value::Dict(nodes.into())));
        }
        Value::Dict(locations.into())
    }

    fn snippets(&mut self, end: &End) -> Value {
        let mut list = Vec::new();
        for snippet in &end.snippets {
            let length = [snippet.tokens.len()];
            let tokens = self.integers(&length, snippet.tokens.iter().map(|&id| id.into()).collect());
            let activations = self.floats(&length, snippet.activations.clone());
            list.push(Value::Tuple([tokens, activations, int(snippet.position as i64)].into()));
        }
        Value::List(list.into())
    }

    fn floats(&mut self, shape: &[usize], numbers: Vec<f32>) -> Value {
        self.tensor(DataType::F32, shape, Stored::Floats(numbers))
    }

    fn integers(&mut self, shape: &[usize], numbers: Vec<i64>) -> Value {
        self.tensor(DataType::I64, shape, Stored::Integers(numbers))
    }

    fn tensor(&mut self, dtype: DataType, shape: &[usize], numbers: Stored) -> Value {
        let storage = self.numbers.len().to_string();
        self.numbers.push(numbers);
        Value::Tensor(Arc::new(TensorRef::contiguous(dtype, shape, storage)))
    }
}

/// The channels that a circuit keeps at every site that it may keep some of, in order.
struct Sites {
    channels: BTreeMap<Site, Vec<usize>>,
}

impl Sites {
    fn new(circuit: &Circuit) -> Self {
        let layers = 0..circuit.model.n_layer;
        let in_layers =
            layers.flat_map(|layer| NodeKind::IN_LAYER.map(|kind| Node { layer: Some(layer), kind, index: 0 }));
        let mut channels: BTreeMap<Site, Vec<usize>> = in_layers.map(|node| (node.site(), Vec::new())).collect();
        for entry in &circuit.nodes {
            channels.entry(entry.node().site()).or_default().push(entry.index);
        }
        channels.values_mut().for_each(|list| list.sort_unstable());
        Self { channels }
    }

    /// A value for each site.
    fn each(&self, mut value: impl FnMut(&[usize]) -> Value) -> Value {
        Value::Dict(self.channels.iter().map(|(site, list)| (text(&site.to_string()), value(list))).collect())
    }

    /// A list of the values of each site's nodes.
    fn each_node(&self, value: impl Fn(Node) -> Value) -> Value {
        let list = |(site, channels): (&Site, &Vec<usize>)| {
            let nodes = channels.iter().filter_map(|&index| Node::at(*site, index));
            (text(&site.to_string()), Value::List(nodes.map(&value).collect()))
        };
        Value::Dict(self.channels.iter().map(list).collect())
    }
}

/// How many nodes the whole model has.
fn total_nodes(model: &ModelRef, sites: &Sites) -> i64 {
    let kinds = sites.channels.keys().filter_map(|&site| Node::at(site, 0)).map(|node| node.kind);
    kinds.fold(0i64, |total, kind| total.saturating_add(i64::try_from(model.width(kind)).unwrap_or(i64::MAX)))
}

/// All fields of a configuration. Widths that are derived are spelled out.
fn fields(config: &ModelConfig, model: &ModelRef) -> Value {
    let mut fields = serde_json::to_value(config).unwrap_or_default();
    fields["d_head"] = model.d_head.into();
    fields["d_mlp"] = model.d_mlp.into();
    from_json(&fields)
}

/// The fields that a circuit knows.
fn sizes(model: &ModelRef) -> Value {
    let positions = if model.d_pos_emb > 0 { int(model.d_pos_emb as i64) } else { Value::None };
    let size = |size: usize| int(size as i64);
    dict([
        ("n_layer", size(model.n_layer)),
        ("n_head", size(model.n_head)),
        ("d_head", size(model.d_head)),
        ("d_model", size(model.d_model)),
        ("d_mlp", size(model.d_mlp)),
        ("d_pos_emb", positions),
    ])
}

/// `row` with zeros after it.
fn padded<T: Default>(row: impl Iterator<Item = T>, width: usize) -> impl Iterator<Item = T> {
    row.chain(std::iter::repeat_with(T::default)).take(width)
}

fn dict<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Dict(pairs.into_iter().map(|(key, value)| (text(key), value)).collect())
}

fn text(text: &str) -> Value {
    Value::Str(text.into())
}

fn int(number: i64) -> Value {
    Value::Int(number)
}

fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::None,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(string) => text(string),
        Json::Array(items) => Value::List(items.iter().map(from_json).collect()),
        Json::Object(pairs) => Value::Dict(pairs.iter().map(|(key, value)| (text(key), from_json(value))).collect()),
    }
}
