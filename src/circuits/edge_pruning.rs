//! Edges that a circuit does without: what they carry is constant, and the loss stays in its limit
//! (method: section 4).

use std::collections::{HashMap, HashSet};

use super::graph::ConstantEdge;
use super::prune::{CircuitScorer, greedily, greedy_prune};
use super::{Edge, Gates, PrunedEdge};
use crate::Result;
use crate::model::{Hooks, LinearLayer, Site};
use crate::tape::{Tape, Var};

/// Prunes edges of the circuit `keep`, those with the least effect on the loss first, and nodes that
/// are then not needed, as long as the loss stays within `limit`. No single one of the remaining
/// edges can be pruned.
///
/// A pruned edge carries the mean, over the scorer's pairs, of what it carries in the circuit with
/// all edges. Only nodes of `scorer` without pruned edges give these means.
///
/// # Errors
/// Those of the forward pass.
pub fn prune_edges(scorer: &CircuitScorer, keep: &mut [bool], limit: f64) -> Result<Vec<PrunedEdge>> {
    let edges = scorer.nodes.graph(scorer.model.0, keep)?.edges;
    let means = edge_means(scorer, keep, &edges)?;
    let constants = ConstantEdge::of(scorer.model.0, &scorer.nodes.layout, &means)?;
    let with = |kept: &[bool]| {
        let pruned = constants.iter().zip(kept).filter(|(_, kept)| !**kept).map(|(edge, _)| edge.clone()).collect();
        let mut nodes = scorer.nodes.clone();
        nodes.pruned = pruned;
        nodes
    };
    let mut kept = vec![true; constants.len()];
    greedily(&mut kept, &mut |kept| CircuitScorer { nodes: &with(kept), ..*scorer }.within(keep, limit))?;
    greedy_prune(&CircuitScorer { nodes: &with(&kept), ..*scorer }, keep, limit)?;
    let pruned = means.into_iter().zip(&constants).zip(kept).filter(|((_, edge), kept)| !kept && edge.joins(keep));
    Ok(pruned.map(|((edge, _), _)| edge).collect())
}

/// Every edge, with the mean of what it reads within the circuit.
fn edge_means(scorer: &CircuitScorer, keep: &[bool], edges: &[Edge]) -> Result<Vec<PrunedEdge>> {
    let layout = &scorer.nodes.layout;
    let all: Vec<PrunedEdge> = edges
        .iter()
        .map(|edge| PrunedEdge { from: edge.from, to: edge.to, weight: edge.weight.into(), value: 0.0 })
        .collect();
    let constants = ConstantEdge::of(scorer.model.0, layout, &all)?;
    let read = constants.iter().map(|edge| (edge.at, edge.column)).collect();
    let mut means = ColumnMeans { gates: scorer.nodes.keep(keep)?, read, means: HashMap::new(), lengths: Vec::new() };
    scorer.task_batch.logit_diffs_at_once(scorer.model, &mut means)?;
    let mean = |edge: &ConstantEdge| means.means.get(&(edge.at, edge.column)).copied().unwrap_or_default();
    Ok(all.into_iter().zip(&constants).map(|(edge, constant)| PrunedEdge { value: mean(constant), ..edge }).collect())
}

/// Records the means of what linear layers read, by layer and channel, over the prompts' tokens.
struct ColumnMeans<'a> {
    gates: Gates<'a>,
    read: HashSet<((usize, LinearLayer), usize)>,
    means: HashMap<((usize, LinearLayer), usize), f64>,
    lengths: Vec<usize>,
}

impl Hooks for ColumnMeans<'_> {
    fn on_start(&mut self, lengths: &[usize]) {
        self.lengths = lengths.to_vec();
    }

    fn on_activation(&mut self, tape: &mut Tape, site: Site, value: Var) -> Result<Var> {
        self.gates.on_activation(tape, site, value)
    }

    fn on_linear(&mut self, tape: &mut Tape, at: (usize, LinearLayer), input: &Var, output: Var) -> Result<Var> {
        let columns: Vec<_> = self.read.iter().filter(|(layer, _)| *layer == at).copied().collect();
        if !columns.is_empty() {
            let (rows, width) = input.value().rows_cols();
            let (x, padded) = (input.value().read()?, rows / self.lengths.len().max(1));
            let tokens = self.lengths.iter().sum::<usize>().max(1) as f64;
            for key in columns {
                let at = |row: usize| f64::from(x[row * width + key.1]);
                let prompts = self.lengths.iter().enumerate();
                let sum: f64 = prompts.flat_map(|(b, &length)| (b * padded..b * padded + length).map(at)).sum();
                self.means.insert(key, sum / tokens);
            }
        }
        self.gates.on_linear(tape, at, input, output)
    }
}
