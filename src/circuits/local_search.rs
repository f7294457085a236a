//! The last steps towards the smallest circuit: moves that removals one by one do not find.

use super::prune::{CircuitScorer, count, greedy_prune};
use super::{Edge, NodeKind, graph};
use crate::Result;

/// Makes a circuit smaller, by nodes and edges together, and its loss lower where it stays as small: nodes of `pool` take the place of one or
/// of two that are kept, and what the loss does not miss then goes. Ends where no such move is left.
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
        let moved = replace_move(scorer, keep, pool, limit, &size)?;
        greedy_prune(scorer, keep, limit)?;
        let before = shape.size(keep);
        match swap_move(scorer, keep, pool, limit, &|keep| size(keep).is_some_and(|after| after < before))? {
            true => greedy_prune(scorer, keep, limit)?,
            false if moved => {}
            false => return Ok(()),
        }
    }
}

/// What is known of circuits without asking the model.
struct Shape {
    /// The edges' ends.
    edges: Vec<(usize, usize)>,
    kinds: Vec<Option<NodeKind>>,
}

impl Shape {
    /// Of circuits that are parts of `all`.
    fn new(scorer: &CircuitScorer, all: &[bool]) -> Result<Self> {
        let layout = &scorer.nodes.layout;
        let ends = |edge: &Edge| Some((layout.number(edge.from)?, layout.number(edge.to)?));
        let edges = graph(scorer.model.0, layout, all)?.edges.iter().filter_map(ends).collect();
        Ok(Self { edges, kinds: (0..layout.len()).map(|n| layout.node(n).map(|node| node.kind)).collect() })
    }

    /// Nodes and edges together, then nodes.
    fn size(&self, keep: &[bool]) -> (usize, usize) {
        let nodes = count(keep);
        (nodes + self.edges.iter().filter(|&&(from, to)| keep[from] && keep[to]).count(), nodes)
    }

    /// How many nodes know nothing, since none that they read is kept, or say it to nobody.
    fn dangling(&self, keep: &[bool]) -> usize {
        let (mut read, mut reads) = (vec![false; keep.len()], vec![false; keep.len()]);
        for &(from, to) in self.edges.iter().filter(|&&(from, to)| keep[from] && keep[to]) {
            (read[from], reads[to]) = (true, true);
        }
        let dangling = |n: usize| match self.kinds[n] {
            Some(NodeKind::AttnIn | NodeKind::MlpIn) => !read[n],
            Some(NodeKind::AttnV | NodeKind::MlpNeuron) => !(read[n] && reads[n]),
            _ => !reads[n],
        };
        (0..keep.len()).filter(|&n| keep[n] && dangling(n)).count()
    }
}

/// By how much an swap_move must lower the loss of a circuit that it makes no smaller: less is not worth another round.
const GAIN: f64 = 0.98;

/// Puts nodes of `pool` in the place of kept ones, one by one, wherever that makes the circuit smaller, or its loss lower and the circuit no
/// larger. Circuits for which `size` has none are not tried. Tells whether there were any.
///
/// # Errors
/// Those of the forward pass.
pub fn replace_move<S: Ord>(
    scorer: &CircuitScorer,
    keep: &mut [bool],
    pool: &[usize],
    limit: f64,
    size: &dyn Fn(&[bool]) -> Option<S>,
) -> Result<bool> {
    let (Some(mut least), (mut loss, _)) = (size(keep), scorer.loss(keep)?) else { return Ok(false) };
    let mut moved = false;
    for place in (0..keep.len()).filter(|&n| keep[n]).collect::<Vec<_>>() {
        let mut at = place;
        for &new in pool {
            if keep[new] {
                continue;
            }
            (keep[at], keep[new]) = (false, true);
            let after = size(keep).filter(|after| *after <= least);
            let bound = if after.as_ref() == Some(&least) { limit.min(GAIN * loss) } else { limit };
            let lower = if after.is_some() { scorer.within(keep, bound)? } else { None };
            match (after, lower) {
                (Some(after), Some(lower)) => (at, least, loss, moved) = (new, after, lower, true),
                _ => (keep[at], keep[new]) = (true, false),
            }
        }
    }
    Ok(moved)
}

/// Looks for two nodes that one of `pool` can stand in for, of which there is none after [`greedy_prune`] alone, and exchanges them if `allowed` lets
/// the result pass. Tells whether there were any.
///
/// # Errors
/// Those of the forward pass.
pub fn swap_move(
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
            // Few do for the first alone, and only for these the others are tried.
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
