//! The last steps towards the smallest circuit: moves that single removals do not find.

use super::prune::{CircuitScorer, greedy_prune, kept_count};
use super::{Edge, NodeKind, graph};
use crate::Result;

/// Makes a circuit smaller, counting nodes and edges, or lowers its loss at the same size: nodes of
/// `pool` replace one or two kept nodes, and [`greedy_prune`] follows. Ends when no such move
/// remains.
///
/// # Errors
/// Those of the forward pass.
pub fn local_search(scorer: &CircuitScorer, keep: &mut [bool], pool: &[usize], limit: f64) -> Result<()> {
    let mut all = keep.to_vec();
    pool.iter().for_each(|&n| all[n] = true);
    let shape = Shape::new(scorer, &all)?;
    let dangling = shape.dangling(keep);
    let size = |keep: &[bool]| (shape.dangling(keep) <= dangling).then(|| shape.size(keep));
    loop {
        let moved = replace_one(scorer, keep, pool, limit, &size)?;
        greedy_prune(scorer, keep, limit)?;
        let before = shape.size(keep);
        match replace_two_by_one(scorer, keep, pool, limit, &|keep| size(keep).is_some_and(|after| after < before))? {
            true => greedy_prune(scorer, keep, limit)?,
            false if moved => {}
            false => return Ok(()),
        }
    }
}

/// Sizes of circuits, without a forward pass.
struct Shape {
    /// The edges' ends.
    edges: Vec<(usize, usize)>,
    kinds: Vec<Option<NodeKind>>,
}

impl Shape {
    /// For circuits that are parts of `all`.
    fn new(scorer: &CircuitScorer, all: &[bool]) -> Result<Self> {
        let layout = &scorer.nodes.layout;
        let ends = |edge: &Edge| Some((layout.number(edge.from)?, layout.number(edge.to)?));
        let edges = graph(scorer.model.0, layout, all)?.edges.iter().filter_map(ends).collect();
        Ok(Self { edges, kinds: (0..layout.len()).map(|n| layout.node(n).map(|node| node.kind)).collect() })
    }

    /// Nodes and edges together, then nodes.
    fn size(&self, keep: &[bool]) -> (usize, usize) {
        let nodes = kept_count(keep);
        (nodes + self.edges.iter().filter(|&&(from, to)| keep[from] && keep[to]).count(), nodes)
    }

    /// How many nodes read no kept node, or have no kept node that reads them.
    fn dangling(&self, keep: &[bool]) -> usize {
        let (mut read, mut reads) = (vec![false; keep.len()], vec![false; keep.len()]);
        for &(from, to) in self.edges.iter().filter(|&&(from, to)| keep[from] && keep[to]) {
            (read[from], reads[to]) = (true, true);
        }
        let dangling = |n: usize| match self.kinds[n] {
            Some(NodeKind::AttnIn | NodeKind::MlpIn) => !read[n],
            Some(NodeKind::FinalResid) => false,
            Some(NodeKind::AttnV | NodeKind::MlpNeuron) => !(read[n] && reads[n]),
            _ => !reads[n],
        };
        (0..keep.len()).filter(|&n| keep[n] && dangling(n)).count()
    }
}

/// By how much a replacement must lower the loss of a circuit that it makes no smaller: less is not
/// worth another round.
const GAIN: f64 = 0.98;

/// The share of the limit from which on a loss is as good as none: below, it moves with the last
/// bits, and rounds of the search would not end.
const NEGLIGIBLE: f64 = 1e-3;

/// Replaces kept nodes by nodes of `pool`, one at a time, wherever that makes the circuit smaller,
/// or lowers the loss of one no larger. Circuits without a `size` are not tried. Returns whether a
/// node was replaced.
///
/// # Errors
/// Those of the forward pass.
pub fn replace_one<S: Ord>(
    scorer: &CircuitScorer,
    keep: &mut [bool],
    pool: &[usize],
    limit: f64,
    size: &dyn Fn(&[bool]) -> Option<S>,
) -> Result<bool> {
    let Some(mut least) = size(keep) else { return Ok(false) };
    let (mut loss, _) = scorer.loss(keep)?;
    let mut replaced = false;
    for kept in (0..keep.len()).filter(|&n| keep[n]).collect::<Vec<_>>() {
        // What stands in its place by now.
        let mut current = kept;
        for &new in pool {
            if keep[new] {
                continue;
            }
            (keep[current], keep[new]) = (false, true);
            let lower = loss > NEGLIGIBLE * limit;
            let size_after = size(keep).filter(|after| *after < least || (lower && *after == least));
            let bound = if size_after.as_ref() == Some(&least) { limit.min(GAIN * loss) } else { limit };
            let new_loss = if size_after.is_some() { scorer.within(keep, bound)? } else { None };
            if let (Some(size_after), Some(new_loss)) = (size_after, new_loss) {
                current = new;
                least = size_after;
                loss = new_loss;
                replaced = true;
            } else {
                (keep[current], keep[new]) = (true, false);
            }
        }
    }
    Ok(replaced)
}

/// Replaces two kept nodes, neither of which can be removed alone, by one of `pool`, if `allowed`
/// accepts the result. Returns whether it did.
///
/// # Errors
/// Those of the forward pass.
pub fn replace_two_by_one(
    scorer: &CircuitScorer,
    keep: &mut [bool],
    pool: &[usize],
    limit: f64,
    allowed: &dyn Fn(&[bool]) -> bool,
) -> Result<bool> {
    let kept: Vec<usize> = (0..keep.len()).filter(|&n| keep[n]).collect();
    for (i, &first) in kept.iter().enumerate() {
        keep[first] = false;
        for &new in pool.iter().filter(|new| !kept.contains(new)) {
            keep[new] = true;
            let mut seconds = Vec::new();
            for &second in &kept[i + 1..] {
                keep[second] = false;
                if allowed(keep) {
                    seconds.push(second);
                }
                keep[second] = true;
            }
            // Few can replace the first alone; only for these the second is tried.
            if !seconds.is_empty() && scorer.within(keep, limit)?.is_some() {
                for second in seconds {
                    keep[second] = false;
                    if scorer.within(keep, limit)?.is_some() {
                        return Ok(true);
                    }
                    keep[second] = true;
                }
            }
            keep[new] = false;
        }
        keep[first] = true;
    }
    Ok(false)
}
