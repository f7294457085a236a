//! The parts of a payload that are lists of numbers: kept nodes, the model's shapes, losses.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

use super::read::{PayloadReader, location, node, shown};
use crate::Result;
use crate::circuits::{Circuit, ModelRef, Node, NodeEntry, NodeKind};
use crate::formats::torch::Value;
use crate::model::{ModelConfig, parse_config};

impl PayloadReader<'_> {
    /// `circuit_data`: location → kept nodes.
    pub(super) fn kept(&mut self, data: Option<&Value>) -> Result<Vec<Node>> {
        let Some(locations) = data.and_then(Value::pairs) else {
            self.miss("There is no circuit_data: the nodes are those that edges join.");
            return Ok(Vec::new());
        };
        let mut nodes = Vec::new();
        for (name, channels) in locations {
            let (Some(site), Some(channels)) = (name.text().and_then(location), self.integers(channels)?) else {
                self.skip("circuit_data", shown(name));
                continue;
            };
            for &index in &channels {
                match node(site, index) {
                    Some(node) => nodes.push(node),
                    None => self.skip("circuit_data", format!("{site}[{index}]")),
                }
            }
            self.order.insert(site, channels);
        }
        nodes.sort_unstable();
        nodes.dedup();
        Ok(nodes)
    }

    /// The circuit file that this crate adds to a payload, if it says the same as the published
    /// parts, which make up `published`: it has what they have no place for.
    pub(super) fn own_circuit(&mut self, file: Option<&Value>, published: Circuit) -> Circuit {
        let Some(text) = file.and_then(Value::text) else { return published };
        let nodes = |circuit: &Circuit| circuit.nodes.iter().map(NodeEntry::node).collect::<BTreeSet<_>>();
        let edges = |circuit: &Circuit| circuit.edges.iter().map(|edge| (edge.from, edge.to)).collect::<BTreeSet<_>>();
        match Circuit::from_json(text.as_bytes()) {
            Ok(own) if nodes(&own) == nodes(&published) && edges(&own) == edges(&published) => own,
            _ => {
                self.miss("The circuit file in it has other nodes or edges than the rest and is ignored.");
                published
            }
        }
    }

    /// `beeg_model_config`, or the smallest model that has the nodes. Nodes that the model does not
    /// have are dropped.
    pub(super) fn model(&mut self, config: Option<&Value>, nodes: &mut Vec<Node>) -> Result<ModelRef> {
        let fields =
            config.map(to_json).and_then(|json| if let Json::Object(fields) = json { Some(fields) } else { None });
        let fields =
            fields.filter(|fields| ["n_layer", "d_model", "n_head"].iter().all(|name| fields.contains_key(*name)));
        let config = fields.and_then(|mut fields| {
            let known = serde_json::to_value(ModelConfig::default()).unwrap_or_default();
            fields.retain(|name, value| (known.get(name).is_some() || name == "n_mlp") && !value.is_null());
            parse_config(self.path(), &serde_json::to_vec(&fields).unwrap_or_default()).ok()
        });
        let Some(config) = config else {
            self.miss("There is no usable beeg_model_config: layers and widths are only as large as the nodes need, and heads are not known.");
            return Ok(smallest(nodes));
        };
        let model = ModelRef::new("", "", &config);
        let all = nodes.len();
        nodes.retain(|node| model.has_layer(node) && node.index < model.width(node.kind));
        if nodes.len() < all {
            self.miss(format!("{} nodes that a model of that shape does not have are omitted.", all - nodes.len()));
        }
        Ok(model)
    }

    /// A loss that is stored as the sum over both members of a pair.
    pub(super) fn halved(&mut self, name: &str, value: Option<&Value>) -> Result<Option<f64>> {
        let sum = value.map(|value| self.number(value)).transpose()?.flatten();
        if sum.is_none() {
            self.miss(format!("There is no {name}."));
        }
        Ok(sum.map(|sum| sum / 2.0))
    }

    /// `ch_interv_losses`: how much the loss rises without each node.
    pub(super) fn deltas(&mut self, data: Option<&Value>, circuit: Option<f64>) -> Result<BTreeMap<Node, f64>> {
        let mut deltas = BTreeMap::new();
        let (Some(locations), Some(circuit)) = (data.and_then(Value::pairs), circuit) else {
            self.miss("What the loss is without single nodes is not known.");
            return Ok(deltas);
        };
        for (name, losses) in locations {
            let Some(site) = name.text().and_then(location) else {
                self.skip("ch_interv_losses", shown(name));
                continue;
            };
            // In pairs with the nodes: as a dictionary, or in circuit_data's order.
            let pairs: Vec<(i64, f64)> = match losses.pairs() {
                Some(pairs) => {
                    let mut read = Vec::new();
                    for (channel, loss) in pairs {
                        match self.int(channel)?.zip(self.number(loss)?) {
                            Some(pair) => read.push(pair),
                            None => self.skip("ch_interv_losses", format!("{site}[{}]", shown(channel))),
                        }
                    }
                    read
                }
                None => {
                    let kept = self.order.get(&site).cloned().unwrap_or_default();
                    let losses = self.doubles(losses)?.unwrap_or_default();
                    if kept.len() != losses.len() {
                        let name = format!("{site} ({} losses of {} nodes)", losses.len(), kept.len());
                        self.skip("ch_interv_losses", name);
                        continue;
                    }
                    kept.into_iter().zip(losses).collect()
                }
            };
            for (index, loss) in pairs {
                match node(site, index).filter(|_| loss.is_finite()) {
                    Some(node) => drop(deltas.insert(node, loss / 2.0 - circuit)),
                    None => self.skip("ch_interv_losses", format!("{site}[{index}]")),
                }
            }
        }
        Ok(deltas)
    }

    /// `layer_interv_losses`: how much the loss rises without each sublayer. These are not sums
    /// over both members.
    pub(super) fn sublayers(&mut self, data: Option<&Value>, circuit: Option<f64>) -> Result<Vec<(String, f64)>> {
        let (Some(pairs), Some(circuit)) = (data.and_then(Value::pairs), circuit) else {
            self.miss("What the loss is without a sublayer is not known.");
            return Ok(Vec::new());
        };
        let mut sublayers = Vec::new();
        for (name, loss) in pairs {
            match (name.text(), self.number(loss)?) {
                (Some(name), Some(loss)) => sublayers.push((name.to_string(), loss - circuit)),
                // What is not finite was not measured.
                (Some(_), None) if loss.number().is_some() => {}
                _ => self.skip("layer_interv_losses", shown(name)),
            }
        }
        Ok(sublayers)
    }

    /// `all_loss`: (step, loss).
    pub(super) fn curve(&mut self, data: Option<&Value>) -> Result<Vec<(f64, f64)>> {
        let mut curve = Vec::new();
        for item in data.and_then(Value::items).unwrap_or_default() {
            let point = match item.items() {
                Some([step, loss]) => self.number(step)?.zip(self.number(loss)?),
                _ => None,
            };
            match point {
                Some(point) => curve.push(point),
                None => self.skip("all_loss", shown(item)),
            }
        }
        Ok(curve)
    }

    /// A count.
    pub(super) fn count(&mut self, value: Option<&Value>) -> Result<Option<u64>> {
        let count = value.map(|value| self.int(value)).transpose()?.flatten();
        Ok(count.and_then(|count| u64::try_from(count).ok()))
    }
}

/// The smallest model that has the nodes.
fn smallest(nodes: &[Node]) -> ModelRef {
    let width = |of: fn(NodeKind) -> bool| {
        nodes.iter().filter(|node| of(node.kind)).map(|node| node.index + 1).max().unwrap_or(1)
    };
    ModelRef {
        path: String::new(),
        hash: String::new(),
        n_layer: nodes.iter().filter_map(|node| node.layer).map(|layer| layer + 1).max().unwrap_or(1),
        n_head: 1,
        d_head: width(NodeKind::has_heads),
        d_model: width(|kind| kind.reads_residual() || kind.writes_residual()),
        d_mlp: width(|kind| kind == NodeKind::MlpNeuron),
        d_pos_emb: 0,
    }
}

/// Plain values as JSON; what JSON has no way to write becomes null.
pub(super) fn to_json(value: &Value) -> Json {
    match value {
        Value::Bool(truth) => (*truth).into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Str(text) => text.to_string().into(),
        Value::List(items) | Value::Tuple(items) => items.iter().map(to_json).collect(),
        Value::Dict(pairs) => {
            let fields = pairs.iter().filter_map(|(key, value)| Some((key.text()?.to_string(), to_json(value))));
            Json::Object(fields.collect::<Map<_, _>>())
        }
        Value::None | Value::Bytes(_) | Value::Name(_) | Value::Tensor(_) | Value::Sparse(_) => Json::Null,
    }
}
