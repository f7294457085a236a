//! `pair_data`: a matrix of signed effects for each two sites that weights join.

use std::collections::BTreeMap;

use super::read::{PayloadReader, location, node};
use crate::Result;
use crate::circuits::{BiasEntry, EdgeEntry, Node, has_matrix};
use crate::formats::torch::Value;

/// The effects that are not zero.
#[derive(Default)]
pub(super) struct Pairs {
    edges: BTreeMap<(Node, Node), f64>,
    biases: BTreeMap<Node, f64>,
}

impl Pairs {
    /// The nodes that edges join.
    pub(super) fn nodes(&self) -> Vec<Node> {
        let mut nodes: Vec<Node> = self.edges.keys().flat_map(|&(from, to)| [from, to]).collect();
        nodes.extend(self.biases.keys());
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}

/// A row of a matrix: a channel's, or that of the biases.
#[derive(Clone, Copy)]
enum MatrixRow {
    Channel(i64),
    Bias,
}

impl PayloadReader<'_> {
    /// `[W, source ids, target ids, (source location, target location)]` for each two sites.
    pub(super) fn pairs(&mut self, data: Option<&Value>) -> Result<Pairs> {
        let mut pairs = Pairs::default();
        let Some(list) = data.and_then(Value::items) else {
            self.miss("There is no pair_data: edges are not known.");
            return Ok(pairs);
        };
        for item in list {
            // Some files nest the list one level deeper.
            let nested =
                item.items().is_some_and(|parts| parts.iter().all(|part| part.items().is_some_and(|p| p.len() == 4)));
            for part in if nested { item.items().unwrap_or_default() } else { std::slice::from_ref(item) } {
                if !self.pair(part, &mut pairs)? {
                    self.miss("Some of pair_data was not understood; those edges are omitted.");
                }
            }
        }
        Ok(pairs)
    }

    /// Whether it was understood.
    fn pair(&mut self, item: &Value, pairs: &mut Pairs) -> Result<bool> {
        let Some([matrix, sources, targets, locations]) = item.items() else { return Ok(false) };
        let Some([from, to]) = locations.items() else { return Ok(false) };
        let Some((from, to)) = from.text().and_then(location).zip(to.text().and_then(location)) else {
            return Ok(false);
        };
        let empty = matrix.items().is_some_and(<[Value]>::is_empty)
            || matrix.tensor().is_some_and(|tensor| tensor.shape.contains(&0));
        if empty {
            return Ok(true);
        }
        let Some(tensor) = matrix.tensor().filter(|_| from.0 == to.0 && has_matrix(from.1, to.1)) else {
            return Ok(false);
        };
        let (Some(sources), Some(targets)) = (self.sources(sources)?, self.integers(targets)?) else {
            return Ok(false);
        };
        if tensor.shape != [sources.len(), targets.len()] {
            return Ok(false);
        }
        let Some(effects) = self.floats(tensor)? else { return Ok(false) };
        let mut understood = true;
        for (source, row) in sources.into_iter().zip(effects.chunks(targets.len())) {
            for (&target, &effect) in targets.iter().zip(row).filter(|(_, effect)| **effect != 0.0) {
                let Some(target) = node(to, target).filter(|_| effect.is_finite()) else {
                    understood = false;
                    continue;
                };
                match source {
                    MatrixRow::Bias => drop(pairs.biases.insert(target, effect.into())),
                    MatrixRow::Channel(channel) => match node(from, channel) {
                        Some(source) => drop(pairs.edges.insert((source, target), effect.into())),
                        None => understood = false,
                    },
                }
            }
        }
        Ok(understood)
    }

    fn sources(&self, ids: &Value) -> Result<Option<Vec<MatrixRow>>> {
        if let Some([channels @ .., last]) = ids.items()
            && last.text() == Some("bias")
        {
            let channels = channels.iter().map(|id| Ok(self.int(id)?.map(MatrixRow::Channel)));
            let sources = channels.chain([Ok(Some(MatrixRow::Bias))]);
            return sources.collect::<Result<Option<Vec<_>>>>();
        }
        Ok(self.integers(ids)?.map(|ids| ids.into_iter().map(MatrixRow::Channel).collect()))
    }

    /// The edges and biases of `nodes`.
    pub(super) fn within(&mut self, pairs: Pairs, nodes: &[Node]) -> (Vec<EdgeEntry>, Vec<BiasEntry>) {
        let has = |node: &Node| nodes.binary_search(node).is_ok();
        let all = pairs.edges.len() + pairs.biases.len();
        let edges: Vec<_> = pairs
            .edges
            .into_iter()
            .filter(|((from, to), _)| has(from) && has(to))
            .map(|((from, to), effect)| EdgeEntry { from, to, weight: effect, effect })
            .collect();
        let biases: Vec<_> = pairs
            .biases
            .into_iter()
            .filter(|(node, _)| has(node))
            .map(|(node, value)| BiasEntry { node, value })
            .collect();
        let lost = all - edges.len() - biases.len();
        if lost > 0 {
            self.miss(format!("{lost} edges at nodes that the circuit does not keep are omitted."));
        }
        (edges, biases)
    }
}
