//! `pair_data`: a matrix of signed effects for each two sites that weights join, and
//! `pair_data_connections`: which weights there are, those without effect included.

use std::collections::BTreeMap;

use super::read::{PayloadReader, joined, location, node, shown};
use crate::Result;
use crate::circuits::{BiasEntry, EdgeEntry, Node};
use crate::formats::torch::Value;
use crate::model::Site;

/// The effects of edges and of biases.
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

/// The numbers between two sites that are not zero, with the channel that each is written to.
struct Entries {
    from: Site,
    to: Site,
    numbers: Vec<(MatrixRow, i64, f32)>,
}

impl PayloadReader<'_> {
    /// The edges of `pair_data`, and those of `pair_data_connections` that it gives no effect.
    pub(super) fn pairs(&mut self, effects: Option<&Value>, connections: Option<&Value>) -> Result<Pairs> {
        let mut pairs = Pairs::default();
        let Some(effects) = effects.and_then(Value::items) else {
            self.miss("There is no pair_data: edges are not known.");
            return Ok(pairs);
        };
        for Entries { from, to, numbers } in self.matrices("pair_data", effects)? {
            for (row, column, effect) in numbers {
                let name = || match row {
                    MatrixRow::Channel(channel) => format!("{from}[{channel}] → {to}[{column}]"),
                    MatrixRow::Bias => format!("bias → {to}[{column}]"),
                };
                let ends = (row.node(from), node(to, column).filter(|_| effect.is_finite()));
                match (row, ends) {
                    (MatrixRow::Bias, (_, Some(target))) => drop(pairs.biases.insert(target, effect.into())),
                    (_, (Some(source), Some(target))) => drop(pairs.edges.insert((source, target), effect.into())),
                    _ => self.skip("pair_data", name()),
                }
            }
        }
        let connections = connections.and_then(Value::items).unwrap_or_default();
        for Entries { from, to, numbers } in self.matrices("pair_data_connections", connections)? {
            let known = numbers.iter().filter_map(|&(row, column, _)| row.node(from).zip(node(to, column)));
            for ends in known {
                pairs.edges.entry(ends).or_insert(0.0);
            }
        }
        Ok(pairs)
    }

    /// `[matrix, source ids, target ids, (source location, target location)]` for each two sites.
    fn matrices(&mut self, part: &'static str, list: &[Value]) -> Result<Vec<Entries>> {
        let mut all = Vec::new();
        for item in list {
            // Some files nest the list one level deeper.
            let nested =
                item.items().is_some_and(|parts| parts.iter().all(|part| part.items().is_some_and(|p| p.len() == 4)));
            for item in if nested { item.items().unwrap_or_default() } else { std::slice::from_ref(item) } {
                match self.entries(item)? {
                    Some(entries) => all.push(entries),
                    None => self.skip(part, item.items().and_then(<[Value]>::last).map_or("?".into(), shown)),
                }
            }
        }
        Ok(all)
    }

    /// What is in a matrix; nothing if it was not understood.
    fn entries(&mut self, item: &Value) -> Result<Option<Entries>> {
        let Some([matrix, sources, targets, locations]) = item.items() else { return Ok(None) };
        let Some([from, to]) = locations.items() else { return Ok(None) };
        let Some((from, to)) = from.text().and_then(location).zip(to.text().and_then(location)) else {
            return Ok(None);
        };
        let mut entries = Entries { from, to, numbers: Vec::new() };
        let empty = matrix.items().is_some_and(<[Value]>::is_empty)
            || matrix.tensor().is_some_and(|tensor| tensor.shape.contains(&0));
        if empty {
            return Ok(Some(entries));
        }
        let Some(tensor) = matrix.tensor().filter(|_| joined(from, to)) else { return Ok(None) };
        let (Some(mut sources), Some(targets)) = (self.sources(sources)?, self.integers(targets)?) else {
            return Ok(None);
        };
        // The ids may end in that of the biases where the matrix has no row for it.
        if tensor.shape.first().is_some_and(|&rows| rows + 1 == sources.len())
            && matches!(sources.last(), Some(MatrixRow::Bias))
        {
            sources.pop();
        }
        if tensor.shape != [sources.len(), targets.len()] {
            return Ok(None);
        }
        let Some(numbers) = self.floats(tensor)? else { return Ok(None) };
        for (&source, row) in sources.iter().zip(numbers.chunks(targets.len())) {
            let row = targets.iter().zip(row).filter(|(_, number)| **number != 0.0);
            entries.numbers.extend(row.map(|(&target, &number)| (source, target, number)));
        }
        Ok(Some(entries))
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

impl MatrixRow {
    /// The node that is read, if it is one.
    fn node(self, from: Site) -> Option<Node> {
        if let Self::Channel(channel) = self { node(from, channel) } else { None }
    }
}
