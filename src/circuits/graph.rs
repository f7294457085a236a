//! The edges of a circuit: nonzero weights that join two of its nodes (method: section 4).

use std::collections::HashMap;

use super::{Gates, Layout, Node, NodeKind};
use crate::Result;
use crate::files::HostTensor;
use crate::model::{Hooks, LinearLayer, Model, Site};
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

/// The edges among nodes, and the nonzero biases of nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// In the order of the nodes written, then of those read.
    pub edges: Vec<Edge>,
    /// In the nodes' order.
    pub biases: Vec<(Node, f32)>,
}

/// The linear layer that computes a node.
struct Producer {
    layer: usize,
    linear: LinearLayer,
    /// The kind of nodes that it reads.
    reads: NodeKind,
    /// The node's row of its weights.
    row: usize,
}

/// The linear layer that computes a node; nothing for nodes that only read the residual stream.
fn producer(node: Node, attention_width: usize) -> Option<Producer> {
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

/// A forward pass through gates in which one edge carries nothing but the mean of what it would
/// carry.
pub struct EdgeAblation<'a> {
    gates: Gates<'a>,
    at: (usize, LinearLayer),
    row: usize,
    column: usize,
    weight: f32,
}

impl<'a> EdgeAblation<'a> {
    /// Ablates `edge` of `model` in addition to the gates.
    pub fn new(model: &Model, gates: Gates<'a>, edge: Edge) -> Option<Self> {
        let Producer { layer, linear, row, .. } = producer(edge.to, model.config.attention_width())?;
        Some(Self { gates, at: (layer, linear), row, column: edge.from.index, weight: edge.weight })
    }
}

impl Hooks for EdgeAblation<'_> {
    fn on_activation(&mut self, tape: &mut Tape, site: Site, value: Var) -> Result<Var> {
        self.gates.on_activation(tape, site, value)
    }

    /// For values, what an edge carries is what attention made of them.
    fn on_linear(&mut self, _: &mut Tape, at: (usize, LinearLayer), input: &Var, output: Var) -> Result<Var> {
        if at != self.at {
            return Ok(output);
        }
        let (x, mut y) = (input.value().read()?, output.value().read()?);
        let (rows, width) = input.value().rows_cols();
        let outputs = output.value().rows_cols().1;
        let carried = || x.iter().skip(self.column).step_by(width);
        let mean = carried().map(|&v| f64::from(v)).sum::<f64>() / rows.max(1) as f64;
        for (y, x) in y.iter_mut().skip(self.row).step_by(outputs).zip(carried()) {
            *y += self.weight * (mean as f32 - x);
        }
        let device = output.value().device();
        Ok(Var::constant(device.upload("cut edge", output.value().shape(), &y)?))
    }
}
