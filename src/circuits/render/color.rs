//! Colors and widths that the drawings share. Blue and vermilion differ for the color-blind, too.

use crate::circuits::file::{Circuit, EdgeEntry, NodeEntry};

/// Of positive weights, and of nodes that are higher in clean prompts.
pub(crate) const POSITIVE: [u8; 3] = [0x00, 0x6d, 0xb6];
/// Of negative weights, and of nodes that are higher in counterfactual prompts.
pub(crate) const NEGATIVE: [u8; 3] = [0xd5, 0x5e, 0x00];
/// Of residual channels.
pub const RESIDUAL: [u8; 3] = [0xa9, 0xb0, 0xb8];

/// Of groups, in turn: Okabe and Ito's, which the color-blind can tell apart, without those that stand
/// for signs.
pub const GROUPS: [[u8; 3]; 5] =
    [[0x00, 0x9e, 0x73], [0xcc, 0x79, 0xa7], [0xe6, 0x9f, 0x00], [0x56, 0xb4, 0xe9], [0xf0, 0xe4, 0x42]];

/// `#rrggbb`.
pub(crate) fn hex(color: [u8; 3]) -> String {
    let [r, g, b] = color;
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// The color of a number's sign.
pub fn sign(value: f64) -> [u8; 3] {
    if value < 0.0 { NEGATIVE } else { POSITIVE }
}

/// A shade between white at 0 and most of a color at 1 and -1: dark text stays legible on it.
pub(crate) fn shade(value: f64) -> [u8; 3] {
    const DEEPEST: f64 = 0.55;
    let amount = value.abs().min(1.0) * DEEPEST;
    sign(value).map(|part| (255.0 + (f64::from(part) - 255.0) * amount).round() as u8)
}

/// The share of its range up to which a node counts as the same in both prompts of a pair.
const ALIKE: f64 = 0.02;

/// How well a node separates the classes of prompts, from -1 to 1: the difference of its activations
/// over their range. The difference at the last token, whose logits decide; that where the pairs
/// differ most, for a node that is the same at the last token; that of the means over all positions
/// in a file that has neither.
pub fn separation(entry: &NodeEntry) -> f64 {
    let span = entry.clean.max.max(entry.counterfactual.max) - entry.clean.min.min(entry.counterfactual.min);
    let difference = match entry.difference {
        Some(difference) if difference.last.abs() > ALIKE * span => difference.last,
        Some(difference) => difference.largest,
        None => entry.clean.mean - entry.counterfactual.mean,
    };
    let separation = difference / span;
    if separation.is_finite() { separation.clamp(-1.0, 1.0) } else { 0.0 }
}

/// How much nodes matter: the change of the task loss when one alone is ablated, next to that of
/// the others.
pub struct Importance {
    /// The largest change in the circuit; 0 where it was not measured.
    pub largest: f64,
}

impl Importance {
    /// For all nodes of a circuit.
    pub fn new(circuit: &Circuit) -> Self {
        let sizes = circuit.nodes.iter().map(|entry| entry.ablation_delta.abs());
        Self { largest: sizes.fold(0.0, f64::max) }
    }

    /// From 0 to 1, its square in proportion, so that small ones are still visible; 0 in a circuit
    /// in which it was not measured.
    pub fn of(&self, entry: &NodeEntry) -> f64 {
        if self.largest > 0.0 { (entry.ablation_delta.abs() / self.largest).sqrt() } else { 0.0 }
    }

    /// How wide the outline of its box is drawn, and how dark: 0 is white, 1 is black.
    pub fn outline(importance: f64) -> (f64, f64) {
        (0.8 + 1.7 * importance, 0.3 + 0.6 * importance)
    }
}

/// A grey: 0 is white, 1 is black.
pub(crate) fn grey(dark: f64) -> [u8; 3] {
    [(255.0 * (1.0 - dark.clamp(0.0, 1.0))).round() as u8; 3]
}

/// How wide edges are drawn.
pub struct Widths {
    /// By effect; by weight in a circuit whose edges' effects were not measured.
    pub by_effect: bool,
    largest: f64,
}

impl Widths {
    /// For all edges of a circuit.
    pub fn new(circuit: &Circuit) -> Self {
        Self::over(circuit.edges.iter())
    }

    /// For edges to compare with each other.
    pub fn over<'a>(edges: impl Iterator<Item = &'a EdgeEntry> + Clone) -> Self {
        let largest = |of: fn(&EdgeEntry) -> f64| edges.clone().map(|e| of(e).abs()).fold(0.0, f64::max);
        match largest(|edge| edge.effect) {
            0.0 => Self { by_effect: false, largest: largest(|edge| edge.weight) },
            largest => Self { by_effect: true, largest },
        }
    }

    /// From 0 to 1. Its square is in proportion, so that small ones are still visible; sums that are
    /// larger than every edge are as wide as the widest.
    pub fn of(&self, edge: &EdgeEntry) -> f64 {
        let size = if self.by_effect { edge.effect } else { edge.weight };
        if self.largest > 0.0 { (size.abs() / self.largest).sqrt().min(1.0) } else { 0.0 }
    }
}
