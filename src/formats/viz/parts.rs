//! The parts of a payload that are lists of numbers: kept nodes, the model's shapes, losses.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::read::{PayloadReader, location, node};
use crate::Result;
use crate::circuits::{ModelRef, Node, NodeKind};
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
                self.miss("Some of circuit_data was not understood and is omitted.");
                continue;
            };
            nodes.extend(channels.iter().filter_map(|&index| node(site, index)));
            self.order.insert(site, channels);
        }
        nodes.sort_unstable();
        nodes.dedup();
        Ok(nodes)
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
            fields.retain(|name, _| known.get(name).is_some() || name == "n_mlp");
            parse_config(self.path(), &serde_json::to_vec(&fields).unwrap_or_default()).ok()
        });
        let Some(config) = config else {
            self.miss("There is no usable beeg_model_config: layers and widths are only as large as the nodes need, and heads are not known.");
            return Ok(smallest(nodes));
        };
        let model = ModelRef::new("", "", &config);
        let all = nodes.len();
        nodes.retain(|node| node.layer < model.n_layer && node.index < model.width(node.kind));
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
                self.miss("Some of ch_interv_losses was not understood and is omitted.");
                continue;
            };
            // In pairs with the nodes: as a dictionary, or in circuit_data's order.
            let pairs: Vec<(i64, f64)> = match losses.pairs() {
                Some(pairs) => {
                    let mut read = Vec::new();
                    for (channel, loss) in pairs {
                        read.extend(self.int(channel)?.zip(self.number(loss)?));
                    }
                    read
                }
                None => {
                    let kept = self.order.get(&site).cloned().unwrap_or_default();
                    let losses = self.numbers(losses)?.unwrap_or_default();
                    if kept.len() != losses.len() {
                        self.miss("Some of ch_interv_losses has no node to go with and is omitted.");
                        continue;
                    }
                    kept.into_iter().zip(losses.into_iter().map(f64::from)).collect()
                }
            };
            for (index, loss) in pairs {
                if let Some(node) = node(site, index).filter(|_| loss.is_finite()) {
                    deltas.insert(node, loss / 2.0 - circuit);
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
            if let (Some(name), Some(loss)) = (name.text(), self.number(loss)?) {
                sublayers.push((name.to_string(), loss - circuit));
            }
        }
        Ok(sublayers)
    }

    /// `all_loss`: (step, loss).
    pub(super) fn curve(&mut self, data: Option<&Value>) -> Result<Vec<(f64, f64)>> {
        let mut curve = Vec::new();
        for item in data.and_then(Value::items).unwrap_or_default() {
            if let Some([step, loss]) = item.items() {
                curve.extend(self.number(step)?.zip(self.number(loss)?));
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
    let width = |kinds: &[NodeKind]| {
        nodes.iter().filter(|node| kinds.contains(&node.kind)).map(|node| node.index + 1).max().unwrap_or(1)
    };
    ModelRef {
        path: String::new(),
        hash: String::new(),
        n_layer: nodes.iter().map(|node| node.layer + 1).max().unwrap_or(1),
        n_head: 1,
        d_head: width(&[NodeKind::AttnQ, NodeKind::AttnK, NodeKind::AttnV]),
        d_model: width(&[NodeKind::AttnIn, NodeKind::AttnOut, NodeKind::MlpIn, NodeKind::MlpOut]),
        d_mlp: width(&[NodeKind::MlpNeuron]),
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
