//! A circuit as the JSON that viewers of attribution graphs open: circuit-tracer's, and
//! Neuronpedia's.
//!
//! Such a graph is of one prompt. A node of the circuit stands at the position where its activation
//! is farthest from its mean. Links are the circuit's weights, with the effect of each, the
//! connections through the residual stream, of weight 1, and the weights between tokens and residual
//! channels that the circuit lists.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::circuits::{Circuit, Layout, Node, NodeEntry, ResidualUser, TokenWeights, residual_paths};
use crate::model::ModelConfig;

/// A prompt that ran through the whole model.
pub struct GraphPrompt {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<GraphToken>,
    /// The activations of the circuit's nodes at each token.
    pub activations: BTreeMap<Node, Vec<f32>>,
    /// The tokens to predict, the correct one first, with their probabilities.
    pub predicted: Vec<(GraphToken, f64)>,
}

/// A token by id and text.
pub struct GraphToken {
    /// Its number in the vocabulary.
    pub id: u32,
    /// What it represents.
    pub text: String,
}

/// The graph of a circuit in a model of `config`, as a JSON document.
pub fn attribution_graph(circuit: &Circuit, config: &ModelConfig, prompt: &GraphPrompt) -> String {
    let circuit = circuit.clone().normalised();
    let placed = Placed::new(&circuit, config, prompt);
    let mut nodes = placed.embeddings();
    nodes.extend(placed.nodes());
    nodes.extend(placed.logits());
    let mut links = placed.edges();
    links.extend(placed.residual_links());
    let slug: String = circuit
        .task
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let tokens: Vec<&str> = prompt.tokens.iter().map(|token| token.text.as_str()).collect();
    let graph = json!({
        "metadata": {
            "slug": slug,
            "scan": circuit.model.path,
            "transcoder_list": [],
            "prompt_tokens": tokens,
            "prompt": prompt.text,
            "node_threshold": 1.0,
            "schema_version": 1,
            "info": {
                "description": circuit.task.description,
                "generator": { "name": "gossamer", "version": env!("CARGO_PKG_VERSION") },
            },
        },
        "qParams": { "pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": "" },
        "nodes": nodes,
        "links": links,
    });
    let mut text = serde_json::to_string_pretty(&graph).unwrap_or_default();
    text.push('\n');
    text
}

/// A circuit's nodes with their positions in a prompt and their ids in the graph.
struct Placed<'a> {
    circuit: &'a Circuit,
    prompt: &'a GraphPrompt,
    /// By node, its id and its position.
    at: HashMap<Node, (String, usize)>,
    layout: Layout,
}

impl<'a> Placed<'a> {
    fn new(circuit: &'a Circuit, config: &ModelConfig, prompt: &'a GraphPrompt) -> Self {
        let mut placed = Self { circuit, prompt, at: HashMap::new(), layout: circuit.layout(config) };
        for entry in &circuit.nodes {
            let node = entry.node();
            let position = placed.position(entry);
            let (layer, number) = placed.number(node);
            placed.at.insert(node, (format!("{layer}_{number}_{position}"), position));
        }
        placed
    }

    /// Where the activation is farthest from the mean; of equals the last.
    fn position(&self, entry: &NodeEntry) -> usize {
        let last = self.prompt.tokens.len().saturating_sub(1);
        let values = self.prompt.activations.get(&entry.node()).map_or(&[][..], Vec::as_slice);
        let distance = |value: f32| (f64::from(value) - entry.mean).abs();
        let farthest = values.iter().enumerate().max_by(|a, b| distance(*a.1).total_cmp(&distance(*b.1)));
        farthest.map_or(last, |(position, _)| position.min(last))
    }

    /// A node's layer, and its number among the nodes of that layer. The final residual stream counts
    /// as one more layer.
    fn number(&self, node: Node) -> (usize, usize) {
        let first = self.layout.blocks().iter().find(|block| block.layer == node.layer).map_or(0, |block| block.start);
        let number = self.layout.number(node).map_or(node.index, |number| number - first);
        (node.layer.unwrap_or(self.circuit.model.n_layer), number)
    }

    fn embeddings(&self) -> Vec<Value> {
        let node = |(position, token): (usize, &GraphToken)| {
            let id = embedding_id(token, position);
            json!({
                "node_id": id, "feature": position, "layer": "E", "ctx_idx": position, "feature_type": "embedding",
                "token_prob": 0.0, "is_target_logit": false, "run_idx": 0, "reverse_ctx_idx": 0, "jsNodeId": id,
                "clerp": format!("Emb: \"{}\"", token.text), "influence": null, "activation": null,
            })
        };
        self.prompt.tokens.iter().enumerate().map(node).collect()
    }

    fn nodes(&self) -> Vec<Value> {
        let influence = influences(self.circuit);
        let node = |entry: &NodeEntry| {
            let node = entry.node();
            let (id, position) = self.at.get(&node)?;
            let (layer, number) = self.number(node);
            let activation = self.prompt.activations.get(&node).and_then(|values| values.get(*position));
            Some(json!({
                "node_id": id, "feature": paired(layer as u64, number as u64), "layer": layer.to_string(),
                "ctx_idx": position, "feature_type": "cross layer transcoder", "token_prob": 0.0,
                "is_target_logit": false, "run_idx": 0, "reverse_ctx_idx": 0, "jsNodeId": format!("{layer}_{number}-0"),
                "clerp": node.to_string(), "influence": influence.get(&node), "activation": activation,
            }))
        };
        self.circuit.nodes.iter().filter_map(node).collect()
    }

    fn logits(&self) -> Vec<Value> {
        let layer = self.circuit.model.n_layer + 1;
        let position = self.prompt.tokens.len().saturating_sub(1);
        let node = |(rank, (token, probability)): (usize, &(GraphToken, f64))| {
            let GraphToken { id, text } = token;
            json!({
                "node_id": self.logit_id(token), "feature": id, "layer": layer.to_string(), "ctx_idx": position,
                "feature_type": "logit", "token_prob": probability, "is_target_logit": rank == 0, "run_idx": 0,
                "reverse_ctx_idx": 0, "jsNodeId": format!("L_{id}-{position}"),
                // Viewers read the probability out of this text.
                "clerp": format!("Output \"{text}\" (p={probability:.3})"), "influence": null, "activation": null,
            })
        };
        self.prompt.predicted.iter().enumerate().map(node).collect()
    }

    fn logit_id(&self, token: &GraphToken) -> String {
        format!("{}_{}_{}", self.circuit.model.n_layer + 1, token.id, self.prompt.tokens.len().saturating_sub(1))
    }

    fn edges(&self) -> Vec<Value> {
        let link = |edge: &crate::circuits::EdgeEntry| {
            let ((from, _), (to, _)) = (self.at.get(&edge.from)?, self.at.get(&edge.to)?);
            Some(json!({ "source": from, "target": to, "weight": edge.weight, "effect": edge.effect }))
        };
        self.circuit.edges.iter().filter_map(link).collect()
    }

    fn residual_links(&self) -> Vec<Value> {
        let mut links = Vec::new();
        let mut link = |from: &str, to: &str, weight: f64| {
            links.push(json!({ "source": from, "target": to, "weight": weight }));
        };
        for path in residual_paths(self.circuit) {
            match (path.from, path.to) {
                (ResidualUser::Node(from), ResidualUser::Node(to)) => {
                    if let (Some((from, _)), Some((to, _))) = (self.at.get(&from), self.at.get(&to)) {
                        link(from, to, 1.0);
                    }
                }
                (ResidualUser::Embedding, ResidualUser::Node(to)) => {
                    let Some((to, position)) = self.at.get(&to) else { continue };
                    let Some(token) = self.prompt.tokens.get(*position) else { continue };
                    if let Some(weight) = weight(&self.circuit.embeddings, path.channel, token.id) {
                        link(&embedding_id(token, *position), to, weight);
                    }
                }
                (ResidualUser::Node(from), ResidualUser::Unembedding) => {
                    let Some((from, _)) = self.at.get(&from) else { continue };
                    for (token, _) in &self.prompt.predicted {
                        if let Some(weight) = weight(&self.circuit.unembeddings, path.channel, token.id) {
                            link(from, &self.logit_id(token), weight);
                        }
                    }
                }
                _ => {}
            }
        }
        links
    }
}

fn embedding_id(token: &GraphToken, position: usize) -> String {
    format!("E_{}_{position}", token.id)
}

/// A token's weight into or out of a residual channel, if it is listed.
fn weight(lists: &[TokenWeights], channel: usize, id: u32) -> Option<f64> {
    let list = lists.iter().find(|list| list.channel == channel)?;
    list.tokens.iter().find(|token| token.id == id).map(|token| token.weight)
}

/// Of the nodes' ablation effects, largest first, the share of a node and of all before it: viewers
/// hide nodes above a threshold.
fn influences(circuit: &Circuit) -> HashMap<Node, f64> {
    let mut order: Vec<&NodeEntry> = circuit.nodes.iter().collect();
    order.sort_by(|a, b| b.ablation_delta.abs().total_cmp(&a.ablation_delta.abs()));
    let total: f64 = order.iter().map(|entry| entry.ablation_delta.abs()).sum();
    let mut sum = 0.0;
    let share = |entry: &NodeEntry| {
        sum += entry.ablation_delta.abs();
        (entry.node(), if total > 0.0 { (sum / total).min(1.0) } else { 1.0 })
    };
    order.into_iter().map(share).collect()
}

/// Cantor's pairing of a layer and a number in it, which is how viewers number features.
fn paired(layer: u64, number: u64) -> u64 {
    (layer + number) * (layer + number + 1) / 2 + number
}
