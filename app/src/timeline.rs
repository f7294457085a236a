//! A run's metrics, and a circuit's nodes in its checkpoints: read and evaluated by a background
//! job.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gossamer::circuits::checkpoint::{CheckpointEvalConfig, TaskScore, scores};
use gossamer::circuits::color::Widths;
use gossamer::circuits::{Circuit, EdgeEntry, Node, TokenWeights};
use gossamer::device::Device;
use gossamer::model::Model;
use gossamer::text::tokenizer::Tokenizer;
use gossamer::train::checkpoint;
use gossamer::train::metrics::{self, MetricsLine};

use crate::jobs::{Job, Reporter, with_own_threads};

/// What is known of one checkpoint; a result that is missing has its reason.
pub struct CheckpointData {
    pub step: u64,
    /// The circuit's nodes with the weights that join them there.
    pub circuit: Result<Circuit, String>,
    pub scores: Result<Vec<TaskScore>, String>,
}

enum TimelineUpdate {
    Run { logged: Vec<MetricsLine>, steps: Vec<u64> },
    Checkpoint(Box<CheckpointData>),
    Done(Result<(), String>),
}

/// Which circuit a timeline shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision {
    evaluated: usize,
    step: u64,
}

/// A run from its first step on, as far as it has been read.
pub struct Timeline {
    /// The run's folder.
    pub run: PathBuf,
    pub logged: Vec<MetricsLine>,
    /// The steps of its checkpoints.
    pub steps: Vec<u64>,
    /// Why the run could not be read.
    pub error: Option<String>,
    checkpoints: BTreeMap<u64, CheckpointData>,
    selected: usize,
    job: Job<TimelineUpdate>,
}

impl Timeline {
    /// Starts to read the run in the folder `run` and to evaluate a circuit's nodes in its
    /// checkpoints, the latest first. `wake` is called after every update.
    pub fn start(run: &Path, circuit: Circuit, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let folder = run.to_path_buf();
        let job = Job::run(wake, move |reporter| {
            let done = with_own_threads(|| read(&folder, &circuit, reporter).map_err(anyhow::Error::from));
            TimelineUpdate::Done(done.flatten().map_err(|e| e.to_string()))
        });
        Self {
            run: run.into(),
            logged: Vec::new(),
            steps: Vec::new(),
            error: None,
            checkpoints: BTreeMap::new(),
            selected: usize::MAX,
            job,
        }
    }

    /// Receives updates.
    pub fn poll(&mut self) {
        while let Some(update) = self.job.poll() {
            match update {
                TimelineUpdate::Run { logged, steps } => (self.logged, self.steps) = (logged, steps),
                TimelineUpdate::Checkpoint(data) => drop(self.checkpoints.insert(data.step, *data)),
                TimelineUpdate::Done(result) => self.error = result.err(),
            }
        }
        if self.job.failed() {
            self.error.get_or_insert_with(|| "stopped unexpectedly: read it again".into());
        }
    }

    /// The number of the selected checkpoint, at first the last.
    pub fn selected(&self) -> usize {
        self.selected.min(self.steps.len().saturating_sub(1))
    }

    pub fn select(&mut self, number: usize) {
        self.selected = number;
    }

    /// The step of the selected checkpoint.
    pub fn step(&self) -> Option<u64> {
        self.steps.get(self.selected()).copied()
    }

    /// The selected checkpoint, once it was evaluated.
    pub fn checkpoint(&self) -> Option<&CheckpointData> {
        self.checkpoints.get(&self.step()?)
    }

    /// The evaluated checkpoints, in order.
    pub fn checkpoints(&self) -> impl ExactSizeIterator<Item = &CheckpointData> {
        self.checkpoints.values()
    }

    /// Changes whenever [`Timeline::circuit`] does; `None` while that is `None`.
    pub fn revision(&self) -> Option<Revision> {
        let data = self.checkpoint().filter(|data| data.circuit.is_ok())?;
        Some(Revision { evaluated: self.checkpoints.len(), step: data.step })
    }

    /// The circuit in the selected checkpoint. It has the edges and token channels of all
    /// checkpoints, so that every checkpoint has the same layout: an edge that a checkpoint lacks
    /// has weight 0.
    pub fn circuit(&self) -> Option<Circuit> {
        type Of = fn(&Circuit) -> &[TokenWeights];
        let mut circuit = self.checkpoint()?.circuit.as_ref().ok()?.clone();
        let known: BTreeSet<(Node, Node)> = circuit.edges.iter().map(|edge| (edge.from, edge.to)).collect();
        let ends: BTreeSet<(Node, Node)> =
            self.circuits().flat_map(|c| c.edges.iter().map(|e| (e.from, e.to))).collect();
        let absent = |&(from, to): &(Node, Node)| EdgeEntry { from, to, weight: 0.0, effect: 0.0 };
        circuit.edges.extend(ends.difference(&known).map(absent));
        let lists: [(&mut Vec<TokenWeights>, Of); 2] =
            [(&mut circuit.embeddings, |c| &c.embeddings), (&mut circuit.unembeddings, |c| &c.unembeddings)];
        for (list, of) in lists {
            let known: BTreeSet<usize> = list.iter().map(|entry| entry.channel).collect();
            let channels: BTreeSet<usize> = self.circuits().flat_map(|c| of(c).iter().map(|e| e.channel)).collect();
            list.extend(channels.difference(&known).map(|&channel| TokenWeights { channel, tokens: Vec::new() }));
        }
        Some(circuit)
    }

    /// Line widths on one scale for all checkpoints.
    pub fn widths(&self) -> Widths {
        Widths::over(self.circuits().flat_map(|circuit| circuit.edges.iter()))
    }

    /// The steps and weights of every edge at a node.
    pub fn weights(&self, node: Node) -> BTreeMap<(Node, Node), Vec<(f64, f64)>> {
        let mut weights: BTreeMap<(Node, Node), Vec<(f64, f64)>> = BTreeMap::new();
        for circuit in self.circuits() {
            let ends = circuit.edges.iter().map(|edge| (edge.from, edge.to));
            weights.extend(ends.filter(|ends| ends.0 == node || ends.1 == node).map(|ends| (ends, Vec::new())));
        }
        for data in self.checkpoints.values() {
            let Ok(circuit) = &data.circuit else { continue };
            for (&(from, to), line) in &mut weights {
                let edge = circuit.edges.iter().find(|edge| (edge.from, edge.to) == (from, to));
                line.push((data.step as f64, edge.map_or(0.0, |edge| edge.weight)));
            }
        }
        weights
    }

    fn circuits(&self) -> impl Iterator<Item = &Circuit> + Clone {
        self.checkpoints.values().filter_map(|data| data.circuit.as_ref().ok())
    }
}

/// The run whose checkpoints belong to a file or model: the nearest folder above `path`, or `model`
/// itself.
pub fn run_of(path: Option<&Path>, model: &Path) -> Option<PathBuf> {
    let above = path.into_iter().flat_map(Path::ancestors).take(4).chain([model]);
    above.filter(|folder| folder.join("checkpoints").is_dir()).map(Path::to_path_buf).next()
}

/// Reads the run and evaluates its checkpoints until the job is dropped.
fn read(run: &Path, circuit: &Circuit, reporter: &Reporter<TimelineUpdate>) -> gossamer::Result<()> {
    let (logged, checkpoints) = (metrics::read(run)?, checkpoint::list(run)?);
    reporter.update(TimelineUpdate::Run { logged, steps: checkpoints.iter().map(|(step, _)| *step).collect() });
    let tokenizer = Tokenizer::load(run.join("tokenizer.json"))?;
    let device = Device::open("auto")?;
    for (step, path) in checkpoints.into_iter().rev() {
        let data = evaluate(step, &path, circuit, &tokenizer, &device, &reporter.stop);
        if reporter.stop.load(Ordering::Relaxed) || !reporter.update(TimelineUpdate::Checkpoint(Box::new(data))) {
            break;
        }
    }
    Ok(())
}

fn evaluate(
    step: u64,
    path: &Path,
    circuit: &Circuit,
    tokenizer: &Tokenizer,
    device: &Device,
    stop: &Arc<AtomicBool>,
) -> CheckpointData {
    let look = CheckpointEvalConfig::default();
    let model = match Model::load(path, device).map_err(|e| e.to_string()) {
        // Other checkpoints may be readable.
        Err(error) => return CheckpointData { step, circuit: Err(error.clone()), scores: Err(error) },
        Ok(model) => model,
    };
    let scores = scores(&model, tokenizer, look.pairs, stop).map_err(|e| e.to_string());
    let circuit = if circuit.nodes.is_empty() {
        Err("no circuit is open".into())
    } else {
        circuit.at_checkpoint(&model, tokenizer, look, stop.clone()).map_err(|e| e.to_string())
    };
    CheckpointData { step, circuit, scores }
}
