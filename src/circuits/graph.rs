//! The edges of a circuit: nonzero weights that join two of its nodes (method: section 4).

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{Layout, Node, NodeKind, Nodes};
use crate::Result;
use crate::files::HostTensor;
use crate::model::{Hooks, LinearLayer, Model, Site, SiteKind};
use crate::tape::{Tape, Var};

/// A weight between two nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edge {
    /// The node that is read.
    pub from: Node,
    /// The node that is written.
    pub to: Node,
    /// The weight.
    pub weight: f32,
}

/// An edge between two nodes of a circuit that the circuit does without: it carries a constant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrunedEdge {
    /// The node that is read.
    pub from: Node,
    /// The node that is written.
    pub to: Node,
    /// The weight.
    pub weight: f64,
    /// What `from` is for this edge, at every position: the mean over the train pairs.
    pub value: f64,
}

/// A pruned edge, as a forward pass needs it.
#[derive(Clone, Debug)]
pub(super) struct ConstantEdge {
    /// The numbers of the two nodes.
    pub(super) ends: [usize; 2],
    /// The linear layer that the weight is in.
    pub(super) at: (usize, LinearLayer),
    pub(super) row: usize,
    pub(super) column: usize,
    pub(super) weight: f32,
    pub(super) value: f32,
}

impl ConstantEdge {
    /// Whether both of its nodes are in `keep`.
    pub(super) fn joins(&self, keep: &[bool]) -> bool {
        self.ends.iter().all(|&n| keep[n])
    }

    /// `edges` with the weights of `model`, without those that it does not have.
    pub(super) fn of(model: &Model, layout: &Layout, edges: &[PrunedEdge]) -> Result<Vec<Self>> {
        if edges.is_empty() {
            return Ok(Vec::new());
        }
        let mut ends = vec![false; layout.len()];
        let nodes = edges.iter().flat_map(|edge| [edge.from, edge.to]);
        nodes.filter_map(|node| layout.number(node)).for_each(|n| ends[n] = true);
        let graph = graph(model, layout, &ends)?;
        let weights: HashMap<_, _> = graph.edges.iter().map(|edge| ((edge.from, edge.to), edge.weight)).collect();
        let resolve = |edge: &PrunedEdge| {
            let Producer { layer, linear, row, .. } = producer(edge.to, model.config.attention_width())?;
            Some(Self {
                ends: [layout.number(edge.from)?, layout.number(edge.to)?],
                at: (layer, linear),
                row,
                column: edge.from.index,
                weight: *weights.get(&(edge.from, edge.to))?,
                value: edge.value as f32,
            })
        };
        Ok(edges.iter().filter_map(resolve).collect())
    }
}

/// The edges among nodes, and the nonzero biases of nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// In the order of the nodes written, then of those read.
    pub edges: Vec<Edge>,
    /// In the nodes' order.
    pub biases: Vec<(Node, f32)>,
}

/// The linear layer that computes a node.
pub(super) struct Producer {
    pub(super) layer: usize,
    pub(super) linear: LinearLayer,
    /// The kind of nodes that it reads.
    reads: NodeKind,
    /// The node's row of its weights.
    pub(super) row: usize,
}

/// The linear layer that computes a node; nothing for nodes that only read the residual stream.
pub(super) fn producer(node: Node, attention_width: usize) -> Option<Producer> {
    let (linear, reads, row) = match node.kind {
        NodeKind::AttnQ => (LinearLayer::AttnIn, NodeKind::AttnIn, node.index),
        NodeKind::AttnK => (LinearLayer::AttnIn, NodeKind::AttnIn, attention_width + node.index),
        NodeKind::AttnV => (LinearLayer::AttnIn, NodeKind::AttnIn, 2 * attention_width + node.index),
        NodeKind::AttnOut => (LinearLayer::AttnOut, NodeKind::AttnV, node.index),
        NodeKind::MlpNeuron => (LinearLayer::MlpIn, NodeKind::MlpIn, node.index),
        NodeKind::MlpOut => (LinearLayer::MlpOut, NodeKind::MlpNeuron, node.index),
        NodeKind::AttnIn | NodeKind::MlpIn | NodeKind::FinalResid => return None,
    };
    Some(Producer { layer: node.layer?, linear, reads, row })
}

/// The graph of the nodes in `keep`.
///
/// # Errors
/// Those of the device.
pub fn graph(model: &Model, layout: &Layout, keep: &[bool]) -> Result<Graph> {
    let kept: Vec<Node> = (0..layout.len()).filter(|&n| keep[n]).filter_map(|n| layout.node(n)).collect();
    let mut read: HashMap<String, Option<HostTensor>> = HashMap::new();
    let mut result = Graph::default();
    for &to in &kept {
        let Some(Producer { layer, linear, reads, row }) = producer(to, model.config.attention_width()) else {
            continue;
        };
        let mut tensor = |part: &str| -> Result<Option<HostTensor>> {
            let name = format!("transformer.h.{layer}.{}.{part}", linear.name());
            if !read.contains_key(&name) {
                let host = model.parameters.get(&name).map(|p| p.read()).transpose()?;
                read.insert(name.clone(), host);
            }
            Ok(read[&name].clone())
        };
        let sources = kept.iter().filter(|from| from.layer == to.layer && from.kind == reads);
        if let Some(weights) = tensor("weight")? {
            let columns = weights.shape.last().copied().unwrap_or(0);
            for &from in sources {
                let weight = weights.data[row * columns + from.index];
                if weight != 0.0 {
                    result.edges.push(Edge { from, to, weight });
                }
            }
        }
        if let Some(bias) = tensor("bias")?.map(|bias| bias.data[row]).filter(|bias| *bias != 0.0) {
            result.biases.push((to, bias));
        }
    }
    Ok(result)
}

impl Nodes {
    /// The graph of the nodes in `keep`, without pruned edges.
    ///
    /// # Errors
    /// Those of the device.
    pub fn graph(&self, model: &Model, keep: &[bool]) -> Result<Graph> {
        let mut graph = graph(model, &self.layout, keep)?;
        let pruned: HashSet<[usize; 2]> = self.pruned.iter().map(|edge| edge.ends).collect();
        let number = |node| self.layout.number(node).unwrap_or_default();
        graph.edges.retain(|edge| !pruned.contains(&[number(edge.from), number(edge.to)]));
        Ok(graph)
    }
}

/// A forward pass through hooks, such as gates, in which one edge carries the mean of what it would
/// carry over the prompts of the batch, or else given numbers.
pub struct EdgeAblation<H> {
    hooks: H,
    at: (usize, LinearLayer),
    row: usize,
    column: usize,
    weight: f32,
    /// What `from` is for this edge, `(B · T)`.
    carried: Option<Vec<f32>>,
    lengths: Vec<usize>,
}

impl<H: Hooks> EdgeAblation<H> {
    /// Ablates `edge` of `model` in addition to the hooks. Nothing for an edge that no weight makes.
    pub fn new(model: &Model, hooks: H, edge: Edge) -> Option<Self> {
        let Producer { layer, linear, row, .. } = producer(edge.to, model.config.attention_width())?;
        let (column, weight) = (edge.from.index, edge.weight);
        Some(Self { hooks, at: (layer, linear), row, column, weight, carried: None, lengths: Vec::new() })
    }

    /// As [`EdgeAblation::new`]; the edge reads `values: (B · T)` instead of the mean.
    pub(super) fn with_values(model: &Model, hooks: H, edge: Edge, values: Vec<f32>) -> Option<Self> {
        Some(Self { carried: Some(values), ..Self::new(model, hooks, edge)? })
    }
}

impl<H: Hooks> Hooks for EdgeAblation<H> {
    fn on_start(&mut self, lengths: &[usize]) {
        self.hooks.on_start(lengths);
        self.lengths = lengths.to_vec();
    }

    fn on_activation(&mut self, tape: &mut Tape, site: Site, value: Var) -> Result<Var> {
        self.hooks.on_activation(tape, site, value)
    }

    fn on_topk(&mut self, tape: &mut Tape, layer: usize, kind: SiteKind, x: &Var, k: usize) -> Result<Var> {
        self.hooks.on_topk(tape, layer, kind, x, k)
    }

    /// For values, what an edge carries is what attention made of them.
    fn on_linear(&mut self, tape: &mut Tape, at: (usize, LinearLayer), input: &Var, output: Var) -> Result<Var> {
        let output = self.hooks.on_linear(tape, at, input, output)?;
        if at != self.at {
            return Ok(output);
        }
        let (x, mut y) = (input.value().read()?, output.value().read()?);
        let (rows, width) = input.value().rows_cols();
        let outputs = output.value().rows_cols().1;
        let own: Vec<f32> = x.iter().skip(self.column).step_by(width).copied().collect();
        let mean = || {
            let padded = rows / self.lengths.len().max(1);
            let prompts = own.chunks(padded.max(1)).zip(&self.lengths);
            let sum: f64 = prompts.flat_map(|(own, &length)| &own[..length]).map(|&x| f64::from(x)).sum();
            vec![(sum / self.lengths.iter().sum::<usize>().max(1) as f64) as f32; rows]
        };
        let carried = self.carried.clone().unwrap_or_else(mean);
        for ((y, own), carried) in y.iter_mut().skip(self.row).step_by(outputs).zip(own).zip(carried) {
            *y += self.weight * (carried - own);
        }
        let device = output.value().device();
        Ok(Var::constant(device.upload("ablated edge", output.value().shape(), &y)?))
    }
}
