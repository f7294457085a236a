//! Activation statistics of a circuit's nodes, and their file next to the circuit's.
//!
//! They describe the whole model: nothing is ablated. For every node there are four sets of
//! activations: those over a corpus, over the clean and over the counterfactual prompts that the
//! circuit was chosen by, and the difference between the two prompts of each pair, position by
//! position. The file has the moments and a histogram of each set, and snippets of text at the top
//! and at the bottom of each of [`QUANTILES`].
//!
//! *At the top q* means: with the n values in order, the value with `floor(q · (n − 1))` values
//! above it is the quantile; the snippets are the positions whose values are nearest to it, going
//! outward from it to both sides, at most one of each sequence. *At the bottom q* is the same from
//! below. Of values that are equally near, such as the many zeros that AbsTopK leaves, a hash of
//! position and seed decides, so that they come from all over the corpus.

use serde::{Deserialize, Serialize};

use super::collect::node_statistics;
use super::{Circuit, Node};
use crate::Result;
use crate::files::versioned::{Versioned, finite, load_and_save};
use crate::model::Model;
use crate::observer::Observer;

/// The version of the file that this code writes, and the only one it reads.
pub const VERSION: u32 = 1;
/// The quantiles that snippets are taken at, of either end.
pub const QUANTILES: [f64; 4] = [0.001, 0.01, 0.1, 0.5];
/// Bins of a histogram.
pub const BINS: usize = 64;
/// Snippets at a quantile, at most.
pub const SNIPPETS: usize = 8;
/// Tokens of a snippet, at most: the position is in its middle, but at a sequence's ends.
pub const WINDOW: usize = 50;

/// The activation statistics of a circuit's nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// [`VERSION`].
    pub version: u32,
    /// The hash of the model, as in the circuit file.
    pub model: String,
    /// The circuit's task.
    pub task: String,
    /// Decides between equals, and which positions count where there are too many.
    pub seed: u64,
    /// The circuit's nodes, in its order.
    pub nodes: Vec<NodeStatistics>,
}

/// The statistics of one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatistics {
    /// The node.
    pub node: Node,
    /// Where the first bin of its three histograms begins: its smallest activation in all three
    /// sets.
    pub low: f32,
    /// Where the last bin ends: its largest activation.
    pub high: f32,
    /// Over the corpus.
    pub corpus: Activations,
    /// Over all positions of the clean prompts.
    #[serde(rename = "positive")]
    pub clean: Activations,
    /// Over all positions of the counterfactual prompts.
    #[serde(rename = "negative")]
    pub counterfactual: Activations,
    /// The activations in each clean prompt minus those in its counterfactual one, for the first
    /// `PAIRS` pairs. Prompts of different lengths are aligned at their
    /// ends. The snippets have the clean prompt's tokens. Nothing if there are no pairs, and in
    /// files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Activations>,
}

/// One node's activations over some sequences. Of no sequences, everything is 0 or empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Activations {
    /// How many there are.
    pub count: u64,
    /// How many of them are exactly zero.
    pub zeros: u64,
    /// The smallest.
    pub min: f32,
    /// The largest.
    pub max: f32,
    /// The mean, zeros included.
    pub mean: f64,
    /// The standard deviation (that of a population), zeros included.
    pub std: f64,
    /// The nonzero ones counted in [`BINS`] equal bins from [`NodeStatistics::low`] to
    /// [`NodeStatistics::high`], those of [`NodeStatistics::difference`] from `min` to `max`; a
    /// value on the border of two is in the upper one, the largest in the last.
    pub histogram: Vec<u64>,
    /// Snippets at each of [`QUANTILES`].
    pub quantiles: Vec<Quantile>,
}

/// The two ends at a quantile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quantile {
    /// One of [`QUANTILES`].
    pub quantile: f64,
    /// From below.
    pub bottom: End,
    /// From above.
    pub top: End,
}

/// One end at a quantile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// The quantile's value.
    pub value: f32,
    /// Where the activation is closest to it, closest first.
    pub snippets: Vec<Snippet>,
}

/// A piece of a sequence with a node's activations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snippet {
    /// The number of the sequence.
    pub sequence: usize,
    /// Where in the sequence the snippet begins.
    pub start: usize,
    /// Where in the snippet the activation is that it was chosen for.
    pub position: usize,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// The node's activation at each.
    pub activations: Vec<f32>,
}

impl Activations {
    /// The share that is not zero, 0 to 1.
    pub fn active(&self) -> f64 {
        1.0 - self.zeros as f64 / self.count.max(1) as f64
    }
}

impl Statistics {
    /// Runs the whole model over the three sets of sequences (corpus, clean prompts, counterfactual
    /// prompts), twice, and twice more over the prompts for their differences, eight sequences at a
    /// time. Memory is bounded: of each node, its values in
    /// `collect::PAIRS` counterfactual prompts, and up to
    /// [`collect::RESERVOIR`](super::collect::RESERVOIR) values of a set; quantiles of larger sets
    /// come from that many, drawn by `seed`.
    ///
    /// # Errors
    /// [`crate::Error::OtherModel`] if the circuit is not a part of `model`,
    /// [`crate::Error::NonFiniteSite`] where an activation is not finite, [`crate::Error::Shape`]
    /// for sequences that the model does not take, the device's, and [`crate::Error::Stopped`].
    pub fn measure(
        model: &Model,
        circuit: &Circuit,
        sets: [&[Vec<u32>]; 3],
        seed: u64,
        observer: &Observer,
    ) -> Result<Self> {
        circuit.check_part_of(model)?;
        let nodes: Vec<Node> = circuit.nodes.iter().map(super::NodeEntry::node).collect();
        let nodes = node_statistics(model, &nodes, sets, seed, observer)?;
        Ok(Self { version: VERSION, model: model.hash()?, task: circuit.task.name.clone(), seed, nodes })
    }
}

load_and_save!(Statistics);

impl Versioned for Statistics {
    const WHAT: &'static str = "statistics file";
    const VERSION: u32 = VERSION;

    fn check(&self) -> Result<(), String> {
        for entry in &self.nodes {
            let sets = [("corpus", &entry.corpus), ("positive", &entry.clean), ("negative", &entry.counterfactual)];
            for (name, set) in sets.into_iter().chain(entry.difference.iter().map(|set| ("difference", set))) {
                check_set(set).map_err(|what| format!("{}: {name}: {what}", entry.node))?;
            }
            finite(&format!("{}: low", entry.node), entry.low.into())?;
            finite(&format!("{}: high", entry.node), entry.high.into())?;
        }
        Ok(())
    }
}

fn check_set(set: &Activations) -> Result<(), String> {
    for (name, value) in [("min", set.min.into()), ("max", set.max.into()), ("mean", set.mean), ("std", set.std)] {
        finite(name, value)?;
    }
    if set.histogram.len() != BINS {
        return Err(format!("{} bins instead of {BINS}", set.histogram.len()));
    }
    let counted = set.histogram.iter().try_fold(set.zeros, |sum, &bin| sum.checked_add(bin));
    if counted != Some(set.count) {
        return Err(format!("zeros and bins do not add up to {}", set.count));
    }
    if !set.quantiles.iter().map(|q| q.quantile).eq(QUANTILES) {
        return Err(format!("the quantiles are not {QUANTILES:?}"));
    }
    for end in set.quantiles.iter().flat_map(|q| [&q.bottom, &q.top]) {
        finite("a quantile", end.value.into())?;
        for snippet in &end.snippets {
            let length = snippet.tokens.len();
            if snippet.position >= length || snippet.activations.len() != length {
                let (position, values) = (snippet.position, snippet.activations.len());
                return Err(format!("a snippet of {length} tokens, {values} activations, position {position}"));
            }
            snippet.activations.iter().try_for_each(|&v| finite("an activation", v.into()))?;
        }
    }
    Ok(())
}
