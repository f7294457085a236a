//! Published circuits: the `viz_data.pt` that the visualiser of Gao et al. 2025 shows.
//!
//! A dictionary of plain containers and tensors: which nodes a circuit keeps, the signed effect of
//! every edge, losses without a node or a sublayer, and texts with activations. Losses are stored
//! as sums over both members of a pair; here they are means, as everywhere in this library.
//! Whatever is missing or not understood is omitted and listed in [`Payload::missing`]; damage is
//! an error. [`save_payload`] writes such a file.

mod pairs;
mod parts;
mod read;
mod texts;
mod write;

pub use write::{Measurements, save_payload};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::read::PayloadReader;
use super::torch::{TorchFile, Value};
use crate::circuits::statistics::{self, NodeStatistics};
use crate::circuits::tasks::ContextLength;
use crate::circuits::{
    ActivationRange, Calibration, Circuit, Counts, LossSet, Losses, ModelRef, Node, NodeEntry, Statistics, TaskRef,
    TokenRef,
};
use crate::files::versioned::Versioned as _;
use crate::{Error, Result};

const NO_CIRCUIT: &str = "is no published circuit: it holds neither circuit_data nor importances nor samples";

/// A published circuit with what its file says about it.
pub struct Payload {
    /// The circuit. Its edges have one number each, the signed effect, as weight and as effect; the
    /// model's hash, the answers and the losses that the file does not have are empty or 0.
    pub circuit: Circuit,
    /// The nodes' activations: snippets of text at the quantiles that the file has, and everything
    /// about the task's prompts.
    pub statistics: Statistics,
    /// Clean and counterfactual prompts as tokens, without their padding. Number i of one is the pair
    /// of number i of the other.
    pub prompts: [Vec<Vec<u32>>; 2],
    /// Task loss of the whole model, in nats.
    pub loss: Option<f64>,
    /// Task loss of the circuit alone.
    pub circuit_loss: Option<f64>,
    /// By how much the circuit's task loss is higher without a sublayer, `3.mlp` or `3.attn`.
    pub sublayers: Vec<(String, f64)>,
    /// Steps of pruning and the loss there.
    pub curve: Vec<(f64, f64)>,
    /// How many nodes the whole model has.
    pub total_nodes: Option<u64>,
    /// The folder of the model, if the file is at its published path, whether or not it is there.
    pub model: Option<PathBuf>,
    /// What the file lacks, or what in it was not understood; a sentence each.
    pub missing: Vec<String>,
}

impl Payload {
    /// Reads the file at `path`. Its folders, `viz/{model}/{task}/{sweep}/{k}`, say what it is
    /// about.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::File`] as for [`TorchFile::open`]; [`Error::File`] if it holds
    /// something else, or if a tensor is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(&TorchFile::open(path)?)
    }

    /// As [`Payload::open`], of a file that is open.
    ///
    /// # Errors
    /// Those of [`Payload::open`].
    pub fn new(file: &TorchFile) -> Result<Self> {
        let value = file.value();
        if !["circuit_data", "importances", "samples"].iter().any(|key| value.get(key).is_some()) {
            return Err(Error::file(file.path(), NO_CIRCUIT));
        }
        let mut reader = PayloadReader::new(file);
        let importances = value.get("importances").unwrap_or(&Value::None);
        let mut nodes = reader.kept(value.get("circuit_data"))?;
        let pairs = reader.pairs(importances.get("pair_data"), importances.get("pair_data_connections"))?;
        if nodes.is_empty() {
            nodes = pairs.nodes();
        }
        let model = reader.model(importances.get("beeg_model_config"), &mut nodes)?;
        let circuit_loss = reader.halved("interv_loss", importances.get("interv_loss"))?;
        let deltas = reader.deltas(importances.get("ch_interv_losses"), circuit_loss)?;
        let (prompts, activations) = reader.texts(value, importances, &nodes)?;
        let folders = PublishedPath::of(file.path());
        let entries = nodes.iter().map(|&node| NodeEntry::new(node, &model)).collect();
        let entries = described(entries, &deltas, &activations);
        let (edges, biases) = reader.within(pairs, &nodes);
        let loss = reader.halved("loss", importances.get("loss"))?;
        let [known, alone] = [loss, circuit_loss].map(Option::unwrap_or_default);
        let losses = LossSet { model: known, circuit: alone, circuit_uncalibrated: alone, ..LossSet::default() };
        let counts = Counts::of(model.n_layer, &entries, &edges, &biases);
        let circuit = Circuit {
            version: Circuit::version_for(&entries, &[]),
            model: ModelRef { path: folders.model_name, ..model },
            task: folders.task,
            settings: value.get("prune_config").map(parts::to_json).unwrap_or_default(),
            nodes: entries,
            excluded: Vec::new(),
            edges,
            pruned_edges: Vec::new(),
            biases,
            embeddings: Vec::new(),
            unembeddings: Vec::new(),
            losses: Losses { train: losses, test: losses },
            calibration: Calibration::default(),
            counts,
            annotations: None,
        };
        circuit.check().map_err(|message| Error::file(file.path(), message))?;
        let circuit = reader.own_circuit(value.get(write::CIRCUIT), circuit);
        let statistics = Statistics {
            version: statistics::VERSION,
            model: circuit.model.hash.clone(),
            task: circuit.task.name.clone(),
            seed: 0,
            nodes: activations,
        };
        Ok(Self {
            circuit,
            statistics,
            prompts,
            loss,
            circuit_loss,
            sublayers: reader.sublayers(importances.get("layer_interv_losses"), circuit_loss)?,
            curve: reader.curve(value.get("all_loss"))?,
            total_nodes: reader.count(value.get("num_total_nodes"))?,
            model: folders.model,
            missing: reader.missing(),
        })
    }
}

/// The nodes with what is known of them.
fn described(
    mut entries: Vec<NodeEntry>,
    deltas: &BTreeMap<Node, f64>,
    statistics: &[NodeStatistics],
) -> Vec<NodeEntry> {
    for (entry, known) in entries.iter_mut().zip(statistics) {
        entry.ablation_delta = deltas.get(&entry.node()).copied().unwrap_or_default();
        for (range, set) in [(&mut entry.clean, &known.clean), (&mut entry.counterfactual, &known.counterfactual)] {
            *range = ActivationRange { min: set.min.into(), mean: set.mean, max: set.max.into() };
        }
    }
    entries
}

/// What the folders of a published file say.
struct PublishedPath {
    model: Option<PathBuf>,
    model_name: String,
    task: TaskRef,
}

impl PublishedPath {
    fn of(path: &Path) -> Self {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let above: Vec<&Path> = absolute.ancestors().collect();
        let name =
            |at: usize| above.get(at).and_then(|p| p.file_name()).unwrap_or_default().to_string_lossy().into_owned();
        if name(5) == "viz" {
            let (k, sweep, task, model) = (name(1), name(2), name(3), name(4));
            let description = format!("a published circuit of {model}: {sweep}, {k}");
            let folder = above.get(6).map(|root| root.join("models").join(&model));
            return Self { model: folder, model_name: model, task: named_task(task, description) };
        }
        let task = absolute.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let task = named_task(task, "a published circuit".into());
        Self { model: None, model_name: "unknown".into(), task }
    }
}

/// A task of which only the name is known.
fn named_task(name: String, description: String) -> TaskRef {
    let unknown = TokenRef { id: 0, text: String::new() };
    TaskRef {
        name,
        description,
        version: 0,
        hash: String::new(),
        clean: String::new(),
        counterfactual: String::new(),
        target: unknown.clone(),
        alternative: unknown,
        variant: 0,
        context: ContextLength::Short,
    }
}
