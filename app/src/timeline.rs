//! How a run went, and what its checkpoints hold of a circuit: read and measured off the window's thread.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use gossamer::circuits::checkpoint::{CheckpointEvalConfig, TaskScore, scores};
use gossamer::circuits::color::Widths;
use gossamer::circuits::{Circuit, EdgeEntry, Node, TokenWeights};
use gossamer::device::Device;
use gossamer::model::Model;
use gossamer::text::tokenizer::Tokenizer;
use gossamer::train::checkpoint;
use gossamer::train::metrics::{self, MetricsLine};

use crate::jobs::with_own_threads;

/// What a checkpoint holds.
pub struct Moment {
    /// Steps done.
    pub step: u64,
    /// The circuit's nodes there, with the weights that join them and all that is measured of them, or why that is not known.
    pub circuit: Result<Circuit, String>,
    /// How well the tasks are done, or why that is not known.
    pub scores: Result<Vec<TaskScore>, String>,
}

enum News {
    Read(Vec<MetricsLine>, Vec<u64>),
    Moment(Box<Moment>),
    Trouble(String),
}

/// A run's way from its beginning, as far as it is known by now.
pub struct Timeline {
    /// The run's folder.
    pub run: PathBuf,
    /// What it logged.
    pub logged: Vec<MetricsLine>,
    /// The steps of its checkpoints.
    pub steps: Vec<u64>,
    /// What went wrong with all of it.
    pub trouble: Option<String>,
    moments: BTreeMap<u64, Moment>,
    at: usize,
    news: Receiver<News>,
    stop: Arc<AtomicBool>,
}

impl Drop for Timeline {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Timeline {
    /// Begins to read the run in the folder `run` and to look for a circuit's nodes in its checkpoints, the latest first. `wake` is called for
    /// whatever there is to see.
    pub fn start(run: &Path, circuit: Circuit, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let (sender, news) = channel();
        let stop = Arc::<AtomicBool>::default();
        let (stopped, folder) = (stop.clone(), run.to_path_buf());
        let work = move || {
            let tell = |news| {
                let heard = Sender::send(&sender, news).is_ok();
                wake();
                heard
            };
            let done = with_own_threads(|| read(&folder, &circuit, &stopped, &tell).map_err(anyhow::Error::from));
            if let Err(trouble) = done.flatten() {
                tell(News::Trouble(trouble.to_string()));
            }
        };
        let started = thread::Builder::new().name("timeline".into()).spawn(work);
        Self {
            run: run.into(),
            logged: Vec::new(),
            steps: Vec::new(),
            trouble: started.err().map(|e| format!("no thread could be started: {e}")),
            moments: BTreeMap::new(),
            at: usize::MAX,
            news,
            stop,
        }
    }

    /// Takes in what has come.
    pub fn listen(&mut self) {
        loop {
            match self.news.try_recv() {
                Ok(News::Read(logged, steps)) => (self.logged, self.steps) = (logged, steps),
                Ok(News::Moment(moment)) => drop(self.moments.insert(moment.step, *moment)),
                Ok(News::Trouble(trouble)) => self.trouble = Some(trouble),
                Err(TryRecvError::Disconnected) if self.moments.len() < self.steps.len() => {
                    self.trouble.get_or_insert_with(|| "stopped unexpectedly: read it again".into());
                    return;
                }
                Err(_) => return,
            }
        }
    }

    /// Which of the checkpoints is looked at: at first the last.
    pub fn at(&self) -> usize {
        self.at.min(self.steps.len().saturating_sub(1))
    }

    /// Looks at another checkpoint.
    pub fn go(&mut self, at: usize) {
        self.at = at;
    }

    /// The step of the checkpoint that is looked at.
    pub fn step(&self) -> Option<u64> {
        self.steps.get(self.at()).copied()
    }

    /// What it holds, once that is known.
    pub fn moment(&self) -> Option<&Moment> {
        self.moments.get(&self.step()?)
    }

    /// All that is known, in order.
    pub fn moments(&self) -> impl Iterator<Item = &Moment> {
        self.moments.values()
    }

    /// How many checkpoints were looked at.
    pub fn looked_at(&self) -> usize {
        self.moments.len()
    }

    /// Changes whenever [`Timeline::circuit`] does; nothing while that is nothing.
    pub fn frame(&self) -> Option<(usize, u64)> {
        self.moment().filter(|moment| moment.circuit.is_ok()).map(|moment| (self.moments.len(), moment.step))
    }

    /// The circuit in the checkpoint that is looked at. It has the edges and token channels of all checkpoints, so that nothing moves in its drawing
    /// when time does: an edge that is not there has weight 0.
    pub fn circuit(&self) -> Option<Circuit> {
        type Of = fn(&Circuit) -> &[TokenWeights];
        let mut circuit = self.moment()?.circuit.as_ref().ok()?.clone();
        let known: BTreeSet<(Node, Node)> = circuit.edges.iter().map(|edge| (edge.from, edge.to)).collect();
        let ends: BTreeSet<(Node, Node)> =
            self.circuits().flat_map(|c| c.edges.iter().map(|e| (e.from, e.to))).collect();
        let nothing = |&(from, to): &(Node, Node)| EdgeEntry { from, to, weight: 0.0, effect: 0.0 };
        circuit.edges.extend(ends.difference(&known).map(nothing));
        let lists: [(&mut Vec<TokenWeights>, Of); 2] =
            [(&mut circuit.embeddings, |c| &c.embeddings), (&mut circuit.unembeddings, |c| &c.unembeddings)];
        for (list, of) in lists {
            let known: BTreeSet<usize> = list.iter().map(|entry| entry.channel).collect();
            let channels: BTreeSet<usize> = self.circuits().flat_map(|c| of(c).iter().map(|e| e.channel)).collect();
            list.extend(channels.difference(&known).map(|&channel| TokenWeights { channel, tokens: Vec::new() }));
        }
        Some(circuit)
    }

    /// Widths that are the same for all checkpoints.
    pub fn widths(&self) -> Widths {
        Widths::over(self.circuits().flat_map(|circuit| circuit.edges.iter()))
    }

    /// The weights at a node, an edge a list of steps and weights.
    pub fn weights(&self, node: Node) -> BTreeMap<(Node, Node), Vec<(f64, f64)>> {
        let mut weights: BTreeMap<(Node, Node), Vec<(f64, f64)>> = BTreeMap::new();
        for circuit in self.circuits() {
            let ends = circuit.edges.iter().map(|edge| (edge.from, edge.to));
            weights.extend(ends.filter(|ends| ends.0 == node || ends.1 == node).map(|ends| (ends, Vec::new())));
        }
        for moment in self.moments.values() {
            let Ok(circuit) = &moment.circuit else { continue };
            for (&(from, to), line) in &mut weights {
                let edge = circuit.edges.iter().find(|edge| (edge.from, edge.to) == (from, to));
                line.push((moment.step as f64, edge.map_or(0.0, |edge| edge.weight)));
            }
        }
        weights
    }

    fn circuits(&self) -> impl Iterator<Item = &Circuit> + Clone {
        self.moments.values().filter_map(|moment| moment.circuit.as_ref().ok())
    }
}

/// The run whose checkpoints belong to a file or model: the nearest folder above `path`, or `model` itself.
pub fn run_of(path: Option<&Path>, model: &Path) -> Option<PathBuf> {
    let above = path.into_iter().flat_map(Path::ancestors).take(4).chain([model]);
    above.filter(|folder| folder.join("checkpoints").is_dir()).map(Path::to_path_buf).next()
}

/// Tells what there is, as long as someone listens.
fn read(run: &Path, circuit: &Circuit, stop: &Arc<AtomicBool>, tell: &dyn Fn(News) -> bool) -> gossamer::Result<()> {
    let (logged, checkpoints) = (metrics::read(run)?, checkpoint::list(run)?);
    tell(News::Read(logged, checkpoints.iter().map(|(step, _)| *step).collect()));
    let tokenizer = Tokenizer::load(run.join("tokenizer.json"))?;
    let device = Device::open("auto")?;
    for (step, path) in checkpoints.into_iter().rev() {
        let look = CheckpointEvalConfig::default();
        let moment = match Model::load(&path, &device).map_err(|e| e.to_string()) {
            // The others may be whole.
            Err(why) => Moment { step, circuit: Err(why.clone()), scores: Err(why) },
            Ok(model) => Moment {
                step,
                scores: scores(&model, &tokenizer, look.pairs, stop).map_err(|e| e.to_string()),
                circuit: match circuit.nodes.is_empty() {
                    true => Err("no circuit is open".into()),
                    false => circuit.at_checkpoint(&model, &tokenizer, look, stop.clone()).map_err(|e| e.to_string()),
                },
            },
        };
        if stop.load(Ordering::Relaxed) || !tell(News::Moment(Box::new(moment))) {
            break;
        }
    }
    Ok(())
}
