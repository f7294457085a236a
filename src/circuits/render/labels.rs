//! Numbers and tokens as text.

use super::layout::{EdgeBundle, GroupFrame};
use crate::circuits::file::Circuit;

/// A number with its sign: three decimals where that says enough, powers of ten where not.
pub fn signed(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if !(5e-4..1e5).contains(&size) => format!("{value:+.1e}"),
        size if size >= 100.0 => format!("{value:+.1}"),
        _ => format!("{value:+.3}"),
    }
}

pub use crate::text::notation::{token, visible};

/// At most `length` characters, the last an ellipsis where some are missing.
pub fn clipped(text: &str, length: usize) -> String {
    match text.chars().nth(length) {
        None => text.into(),
        Some(_) => text.chars().take(length.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// `1 node`, `2 nodes`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// What the box of a collapsed group says: its name and how much is in it.
pub fn group_text(name: &str, frame: &GroupFrame) -> String {
    const NAME: usize = 14;
    let (nodes, channels) = (count(frame.nodes, "node"), count(frame.channels, "channel"));
    let inside = match (frame.nodes, frame.channels) {
        (_, 0) => nodes,
        (0, _) => channels,
        (nodes, channels) => count(nodes + channels, "item"),
    };
    format!("{} · {inside}", clipped(&visible(name), NAME))
}

/// The numbers of the weights that a line of a collapsed group sums.
pub fn bundle_text(bundle: &EdgeBundle) -> String {
    let (weight, effect) = (signed(bundle.sum.weight), signed(bundle.sum.effect));
    let edges = count(bundle.edges.len(), "edge");
    // Published circuits have one number.
    match bundle.sum.weight == bundle.sum.effect {
        true => format!("{edges}, effect {effect} in all"),
        false => format!("{edges}, weight {weight}, effect {effect} in all"),
    }
}

/// How much of a circuit is shown, where it is only a part.
pub(crate) fn part_shown(circuit: &Circuit) -> Option<String> {
    let (nodes, edges) = (circuit.nodes.len(), circuit.edges.len());
    let part = (nodes, edges) != (circuit.counts.nodes, circuit.counts.edges);
    part.then(|| format!("shown: {}, {}", count(nodes, "node"), count(edges, "edge")))
}

/// How many edges between its nodes the circuit does without, if any.
pub(super) fn without_edges(circuit: &Circuit) -> String {
    match circuit.pruned_edges.len() {
        0 => String::new(),
        n => format!(", without {}", count(n, "pruned edge")),
    }
}
