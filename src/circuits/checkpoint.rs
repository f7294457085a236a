//! A circuit and the tasks in another checkpoint of a model, to watch them form.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::means::measured_means;
use super::search::{CircuitSearch, SearchResult};
use super::tasks::{self, Split};
use super::{Circuit, Nodes, SplitScore, score};
use crate::model::Model;
use crate::observer::Observer;
use crate::text::source::Source;
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// How much data to evaluate on.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointEvalConfig {
    /// Pairs that every loss is measured on.
    pub pairs: usize,
    /// Tokens of generated Python that mean activations are taken over.
    pub mean_tokens: usize,
}

/// Few of both, so that a small model takes seconds.
impl Default for CheckpointEvalConfig {
    fn default() -> Self {
        Self { pairs: 32, mean_tokens: 8192 }
    }
}

impl Circuit {
    /// The circuit of the same nodes in another checkpoint: its edges are the weights between them
    /// there, and its losses, calibration and activations are measured there. Ends with
    /// [`Error::Stopped`] once `stop` is set.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the model does not have the nodes, or the task is not built in; those
    /// of the forward pass.
    pub fn at_checkpoint(
        &self,
        model: &Model,
        tokenizer: &Tokenizer,
        config: CheckpointEvalConfig,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let task = self.resolve_task(None, tokenizer)?;
        let mut settings = self.search_settings()?;
        settings.eval_pairs = config.pairs;
        let layout = self.layout(&model.config);
        let keep = self.keep(&layout)?;
        let mut scores = vec![0.0; layout.len()];
        for entry in &self.nodes {
            if let Some(number) = layout.number(entry.node()) {
                scores[number] = entry.tau as f32;
            }
        }
        let means =
            measured_means(model, tokenizer, &Source::default(), config.mean_tokens, &Observer::stopped_by(&stop))?;
        let mut nodes = Nodes::new(layout, &means, &model.device)?;
        nodes.stop = stop;
        let search = CircuitSearch { model, nodes, tokenizer };
        let (_, train) = search.eval_pairs(&task, Split::Train, &settings)?;
        let pruned_edges = self.pruned_edges.clone();
        let result = SearchResult { settings, keep, scores, pruned_edges, ..SearchResult::default() };
        let result = search.evaluate(&task, &train, result)?;
        let circuit = search.describe(&task, &result, &self.model.path, &model.hash()?)?;
        Ok(Self { excluded: self.excluded.clone(), ..circuit })
    }
}

/// The scores of a model in a task, on held-out pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskScore {
    /// The task's name.
    pub task: String,
    /// Mean loss of the choice between the two answers, in nats; chance is log 2.
    pub loss: f64,
    /// The accuracy, 0 to 1.
    pub accuracy: f64,
}

/// The scores of a model in the built-in tasks whose answers its tokenizer can write, on `pairs`
/// held-out pairs each.
///
/// # Errors
/// Those of the forward pass.
pub fn scores(model: &Model, tokenizer: &Tokenizer, pairs: usize, stop: &AtomicBool) -> Result<Vec<TaskScore>> {
    let mut scores = Vec::new();
    for task in tasks::all()? {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        match score(model, tokenizer, &task, Split::Test, 0, pairs) {
            Ok(SplitScore { loss, accuracy, .. }) => scores.push(TaskScore { task: task.name, loss, accuracy }),
            Err(Error::UnsuitableTask { .. } | Error::Data(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(scores)
}
