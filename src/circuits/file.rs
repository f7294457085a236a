//! The circuit file: a task's circuit in one model, with its measurements, as versioned JSON.
//!
//! `schema/circuit.schema.json` is its published schema and `docs/circuits.md` explains it. Floats
//! are written with the fewest digits that read back as the same number, so that a file read and
//! written again is the same, byte for byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::annotations::Annotations;
use super::calibration::Calibration;
use super::check::check;
use super::nodes::{Layout, Node, NodeKind};
use super::tasks::{ContextLength, question_name};
use super::{CircuitFormat, FORMATS, PrunedEdge};
use crate::error::{Error, Result};
use crate::files::versioned::{self, Versioned};
use crate::files::{read_unmarked, write_atomic};
use crate::model::ModelConfig;

/// The newest version of the file that this code writes and reads: that of circuits with pruned
/// edges. Circuits without them that have nodes of the final residual stream are written as version
/// 2, all others as version 1, which earlier programs read. Unknown fields are ignored.
pub const VERSION: u32 = 3;

/// The few parts of a model that do one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Circuit {
    /// [`Circuit::version_for`] its nodes and edges, or later.
    pub version: u32,
    /// The model that it is a part of.
    pub model: ModelRef,
    /// The task.
    pub task: TaskRef,
    /// The settings of the search, seeds included.
    pub settings: serde_json::Value,
    /// The channels it keeps; all others are mean-ablated.
    pub nodes: Vec<NodeEntry>,
    /// Channels that it was not allowed to keep: those of circuits found before it.
    #[serde(rename = "absent", default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<Node>,
    /// The nonzero weights that join two kept nodes, without pruned ones.
    pub edges: Vec<EdgeEntry>,
    /// Weights between kept nodes that it does without: what they carry is constant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pruned_edges: Vec<PrunedEdge>,
    /// The nonzero biases of kept nodes.
    pub biases: Vec<BiasEntry>,
    /// The embedding's largest weights into residual channels that the circuit reads, largest
    /// first.
    pub embeddings: Vec<TokenWeights>,
    /// The unembedding's largest weights from residual channels that the circuit writes, largest
    /// first.
    pub unembeddings: Vec<TokenWeights>,
    /// Its losses and accuracies.
    pub losses: Losses,
    /// The calibration of its logits.
    pub calibration: Calibration,
    /// Its size: [`Counts::of`] the lists above.
    pub counts: Counts,
    /// What people have written about it, if that is in the same file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Annotations>,
}

/// Which model, and the sizes that give the nodes' numbers their meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// Where it was.
    pub path: String,
    /// A hash of its weights, with the name of the hash: `sha256:…`. Empty in a
    /// [published](crate::formats::viz) circuit, whose measurements are only those published.
    pub hash: String,
    /// Layers.
    pub n_layer: usize,
    /// Heads of a layer.
    pub n_head: usize,
    /// Channels of a head.
    pub d_head: usize,
    /// Channels of the residual stream.
    pub d_model: usize,
    /// Neurons of a layer.
    pub d_mlp: usize,
    /// Position channels that sites `act_in` have after those of the residual stream; 0 where
    /// positions are added to the stream.
    pub d_pos_emb: usize,
}

/// The task, with one pair of prompts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRef {
    /// Its name in commands.
    pub name: String,
    /// What the model must choose, in a sentence.
    pub description: String,
    /// The version of the task's pairs.
    pub version: u32,
    /// The hash of what decides the pairs ([`super::tasks::Task::hash`]); empty in files of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// A prompt that [`TaskRef::target`] follows.
    #[serde(rename = "positive")]
    pub clean: String,
    /// A similar prompt that [`TaskRef::alternative`] follows.
    #[serde(rename = "negative")]
    pub counterfactual: String,
    /// What follows the clean prompt.
    pub target: TokenRef,
    /// What follows the counterfactual prompt.
    pub alternative: TokenRef,
    /// Which of the task's answers the model's tokenizer takes, from 0.
    pub variant: usize,
    /// What comes before the questions; files leave out the short one.
    #[serde(default, skip_serializing_if = "ContextLength::is_short")]
    pub context: ContextLength,
}

impl TaskRef {
    /// The name of what it asks ([`question_name`]).
    pub fn question(&self) -> String {
        question_name(&self.name, self.variant, self.context)
    }
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRef {
    /// Its number in the vocabulary.
    pub id: u32,
    /// What it represents.
    pub text: String,
}

/// A kept channel, with its role in the circuit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// The site, `0.attn.q` or `final_resid`.
    pub site: String,
    /// The layer, from 0; nothing for the final residual stream.
    pub layer: Option<usize>,
    /// The kind of site.
    pub kind: NodeKind,
    /// The channel of the site, from 0.
    pub index: usize,
    /// The head it belongs to; for queries, keys and values only.
    pub head: Option<usize>,
    /// The channel within that head.
    pub channel: Option<usize>,
    /// Its mean over pretraining data, which replaces it when it is ablated.
    pub mean: f64,
    /// Its parameter when pruning ended.
    pub tau: f64,
    /// How much the task loss rises when this node alone is taken out of the circuit.
    pub ablation_delta: f64,
    /// Its activations in clean prompts, within the circuit.
    #[serde(rename = "positive")]
    pub clean: ActivationRange,
    /// Its activations in counterfactual prompts, within the circuit.
    #[serde(rename = "negative")]
    pub counterfactual: ActivationRange,
    /// How it differs between the prompts of a pair. Nothing in files of earlier versions and in
    /// published ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<PairDifference>,
}

/// How a node's activations differ between the clean and the counterfactual prompts of pairs, within
/// the circuit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PairDifference {
    /// Clean minus counterfactual at the prompts' last tokens, whose logits decide; the mean over
    /// pairs.
    pub last: f64,
    /// Clean minus counterfactual at the position where a pair differs most, prompts aligned at
    /// their ends; the mean over pairs.
    pub largest: f64,
}

/// The range of activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActivationRange {
    /// The smallest.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// The largest.
    pub max: f64,
}

/// A weight that joins two kept nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EdgeEntry {
    /// The node that is read.
    pub from: Node,
    /// The node that is written.
    pub to: Node,
    /// The weight.
    pub weight: f64,
    /// How much the task loss rises when this edge alone is cut.
    pub effect: f64,
}

/// A kept node's bias.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BiasEntry {
    /// The node.
    pub node: Node,
    /// The bias, not 0.
    pub value: f64,
}

/// The weights between tokens and one residual channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenWeights {
    /// The residual channel.
    pub channel: usize,
    /// The tokens with the largest weights, largest first.
    pub tokens: Vec<TokenWeight>,
}

/// A token with a weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenWeight {
    /// The token's number.
    pub id: u32,
    /// What it represents.
    pub text: String,
    /// The weight.
    pub weight: f64,
}

/// Losses and accuracies on the pairs it was found with and on others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// On the pairs it was found with.
    pub train: LossSet,
    /// On pairs from other templates.
    pub test: LossSet,
}

/// Task losses (nats, of the choice between the two answers) and accuracies (0 to 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LossSet {
    /// The loss of the whole model.
    pub model: f64,
    /// The loss of the circuit: every other node is mean-ablated.
    pub circuit: f64,
    /// The same before calibration.
    pub circuit_uncalibrated: f64,
    /// The loss of the model without the circuit: the circuit's nodes and those of
    /// [`Circuit::excluded`] at their means, with [`LossSet::ablated_calibration`]. Chance is log
    /// 2.
    pub ablated: f64,
    /// The same before calibration. Nothing in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ablated_uncalibrated: Option<f64>,
    /// The calibration of the complement's logits for [`LossSet::ablated`] and
    /// [`LossSet::accuracy_ablated`], fitted on the train pairs, so that a constant preference for
    /// one answer does not count as a need for the circuit. Files of earlier versions have none, or
    /// one that was fitted on the same pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ablated_calibration: Option<Calibration>,
    /// The accuracy of the whole model.
    pub accuracy_model: f64,
    /// That of the circuit.
    pub accuracy_circuit: f64,
    /// The same before calibration. Nothing in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_circuit_uncalibrated: Option<f64>,
    /// That of the complement.
    pub accuracy_ablated: f64,
    /// The same before calibration. Nothing in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_ablated_uncalibrated: Option<f64>,
}

/// The size of a circuit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Kept nodes.
    pub nodes: usize,
    /// Weights that join them.
    pub edges: usize,
    /// The same, plus one for each bias.
    pub edges_with_biases: usize,
    /// Layer by layer, all of the model's. Nodes of the final residual stream are in none.
    pub layers: Vec<LayerCounts>,
}

/// The size of a circuit in one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerCounts {
    /// The layer.
    pub layer: usize,
    /// Kept nodes of each kind.
    pub nodes: BTreeMap<NodeKind, usize>,
    /// Weights within the layer.
    pub edges: usize,
}

impl Circuit {
    /// The circuit with what is written in the annotations file next to `path`, its file, if there is
    /// one.
    ///
    /// # Errors
    /// Those of [`Annotations::of_file`].
    pub fn with_annotations_of(self, path: &Path) -> Result<Self> {
        let annotations = Annotations::of_file(path)?.or(self.annotations);
        Ok(Self { annotations, ..self })
    }

    /// Reads the file at `path`, by the format of its extension if that can be read, else as JSON,
    /// and checks it: nodes that the model has, edges between nodes of the circuit, finite numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where it cannot be read, [`Error::File`] naming what is wrong in it: not JSON,
    /// another version, a missing field, a node, an edge or a number that cannot be.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let of_extension = |format: &&CircuitFormat| path.extension().is_some_and(|name| name == format.name);
        let read = FORMATS.iter().find(of_extension).and_then(|format| format.read).unwrap_or(Self::from_json);
        read(&read_unmarked(path)?).map_err(|message| Error::file(path, message))
    }

    /// Reads a file's contents, as [`Circuit::load`] does.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn from_json(bytes: &[u8]) -> Result<Self, String> {
        versioned::parse(bytes)
    }

    /// Writes the file whole or not at all. The same circuit gives the same bytes.
    ///
    /// # Errors
    ///
    /// [`Error::File`] for what [`Circuit::load`] rejects, [`Error::Io`] if it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        self.check().map_err(|message| Error::file(path, message))?;
        let text = self.to_json();
        write_atomic(path, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io(path, e)))
    }

    /// The version that a file of a circuit with these nodes and pruned edges has.
    pub fn version_for(nodes: &[NodeEntry], pruned_edges: &[PrunedEdge]) -> u32 {
        match nodes.iter().any(|entry| entry.kind == NodeKind::FinalResid) {
            _ if !pruned_edges.is_empty() => 3,
            true => 2,
            false => 1,
        }
    }

    /// The nodes of a model that it is chosen from: with those of the final residual stream if it
    /// has some.
    pub fn layout(&self, config: &ModelConfig) -> Layout {
        let all = self.nodes.iter().map(NodeEntry::node).chain(self.excluded.iter().copied());
        match all.into_iter().any(|node| node.kind == NodeKind::FinalResid) {
            true => Layout::with_final_resid(config),
            false => Layout::new(config),
        }
    }

    /// The file's contents.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The circuit with its lists in order: nodes, edges and biases as the forward pass meets them,
    /// channels by number, tokens by size of their weights.
    pub fn normalised(mut self) -> Self {
        self.nodes.sort_by_key(NodeEntry::node);
        self.edges.sort_by_key(|edge| (edge.from, edge.to));
        self.pruned_edges.sort_by_key(|edge| (edge.from, edge.to));
        self.biases.sort_by_key(|bias| bias.node);
        self.excluded.sort_unstable();
        for list in [&mut self.embeddings, &mut self.unembeddings] {
            list.sort_by_key(|entry| entry.channel);
            for entry in list {
                entry.tokens.sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()).then(a.id.cmp(&b.id)));
            }
        }
        self
    }
}

/// The circuit files in a folder, by task and number: `TASK.json`, then `TASK.2.json` and so on, which
/// share no node with those before. Other files next to them have further extensions, or are none. No
/// folder has none.
///
/// # Errors
///
/// [`Error::Io`] if the folder cannot be read.
pub fn circuit_files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let numbered = |stem: &str| match stem.split_once('.') {
            Some((task, number)) => Some((task.to_string(), number.parse::<u32>().ok()?)),
            None => Some((stem.to_string(), 1)),
        };
        if let Some(key) = name.strip_suffix(".json").filter(|stem| !stem.is_empty()).and_then(numbered)
            && path.is_file()
        {
            files.push((key, path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

impl Versioned for Circuit {
    const WHAT: &'static str = "circuit file";
    const VERSION: u32 = VERSION;
    const OLDEST: u32 = 1;

    fn check(&self) -> Result<(), String> {
        check(self)
    }
}

impl ModelRef {
    /// A model of `config`.
    pub fn new(path: impl Into<String>, hash: impl Into<String>, config: &ModelConfig) -> Self {
        Self {
            path: path.into(),
            hash: hash.into(),
            n_layer: config.n_layer,
            n_head: config.n_head,
            d_head: config.head_width(),
            d_model: config.d_model,
            d_mlp: config.mlp_width(),
            d_pos_emb: config.d_pos_emb.unwrap_or(0),
        }
    }

    /// The width of that site.
    pub fn width(&self, kind: NodeKind) -> usize {
        match kind {
            NodeKind::AttnIn | NodeKind::MlpIn => self.d_model.saturating_add(self.d_pos_emb),
            NodeKind::AttnQ | NodeKind::AttnK | NodeKind::AttnV => self.n_head.saturating_mul(self.d_head),
            NodeKind::AttnOut | NodeKind::MlpOut | NodeKind::FinalResid => self.d_model,
            NodeKind::MlpNeuron => self.d_mlp,
        }
    }

    /// Whether the model has the layer that a node says it is in.
    pub(crate) fn has_layer(&self, node: &Node) -> bool {
        match node.layer {
            Some(layer) => layer < self.n_layer && node.kind != NodeKind::FinalResid,
            None => node.kind == NodeKind::FinalResid,
        }
    }

    /// The head that a node belongs to and its channel there; nothing for nodes that belong to
    /// none.
    pub fn head(&self, node: Node) -> Option<(usize, usize)> {
        (node.kind.has_heads() && self.d_head > 0).then(|| (node.index / self.d_head, node.index % self.d_head))
    }

    /// The residual channel that a node reads or writes; nothing for nodes within attention or the
    /// MLP and for position channels.
    pub fn residual_channel(&self, node: Node) -> Option<usize> {
        let touches = node.kind.reads_residual() || node.kind.writes_residual();
        (touches && node.index < self.d_model).then_some(node.index)
    }
}

impl NodeEntry {
    /// An entry for `node` of `model`, all its numbers 0.
    pub fn new(node: Node, model: &ModelRef) -> Self {
        let head = model.head(node);
        Self {
            site: node.site().to_string(),
            layer: node.layer,
            kind: node.kind,
            index: node.index,
            head: head.map(|(head, _)| head),
            channel: head.map(|(_, channel)| channel),
            mean: 0.0,
            tau: 0.0,
            ablation_delta: 0.0,
            clean: ActivationRange::default(),
            counterfactual: ActivationRange::default(),
            difference: None,
        }
    }

    /// Which node it is about.
    pub fn node(&self) -> Node {
        Node { layer: self.layer, kind: self.kind, index: self.index }
    }
}

impl Counts {
    /// The counts of a circuit's lists, in a model of `n_layer` layers.
    pub fn of(n_layer: usize, nodes: &[NodeEntry], edges: &[EdgeEntry], biases: &[BiasEntry]) -> Self {
        let none = || NodeKind::IN_LAYER.into_iter().map(|kind| (kind, 0)).collect();
        let mut layers: Vec<_> = (0..n_layer).map(|layer| LayerCounts { layer, nodes: none(), edges: 0 }).collect();
        for node in nodes {
            let layer = node.layer.and_then(|layer| layers.get_mut(layer));
            if let Some(count) = layer.and_then(|layer| layer.nodes.get_mut(&node.kind)) {
                *count += 1;
            }
        }
        for edge in edges {
            if let Some(layer) = edge.to.layer.and_then(|layer| layers.get_mut(layer)) {
                layer.edges += 1;
            }
        }
        Self { nodes: nodes.len(), edges: edges.len(), edges_with_biases: edges.len() + biases.len(), layers }
    }
}
