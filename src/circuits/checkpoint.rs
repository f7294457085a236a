//! What a circuit and the tasks are like in another checkpoint of a model, so that one can watch them form.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::means::measured;
use super::search::{CircuitSearch, SearchResult};
use super::tasks::{self, Split};
use super::{Calibration, Circuit, Layout, Nodes, TaskBatch};
use crate::model::{Model, NoHooks, Weights};
use crate::observer::Observer;
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// How closely one looks.
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
    /// The circuit of the same nodes in another checkpoint: its edges are the weights that join them there, and all that is measured is measured
    /// anew, with a calibration of its own, in nats and shares as in the file. Ends with [`Error::Stopped`] once `stop` is set.
    ///
    /// # Errors
    /// [`Error::Text`] if the model does not have the nodes, or the task is not built in; those of the forward pass.
    pub fn at_checkpoint(
        &self,
        model: &Model,
        tokenizer: &Tokenizer,
        look: CheckpointEvalConfig,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let task = self.resolve_task(None, tokenizer)?;
        let mut settings = self.search_settings()?;
        settings.eval_pairs = look.pairs;
        let layout = Layout::new(&model.config);
        let keep = self.keep(&layout)?;
        let mut scores = vec![0.0; layout.len()];
        for entry in &self.nodes {
            if let Some(number) = layout.number(entry.node()) {
                scores[number] = entry.tau as f32;
            }
        }
        let means = measured(model, tokenizer, &[], look.mean_tokens, &Observer::stopped_by(&stop))?;
        let mut nodes = Nodes::new(layout, &means, &model.device)?;
        nodes.stop = stop;
        let search = CircuitSearch { model, nodes, tokenizer };
        let (_, choosing) = search.train_pairs(&task, &settings)?;
        let result =
            search.evaluate(&task, &settings, &choosing, SearchResult { keep, scores, ..SearchResult::default() })?;
        let circuit = search.describe(&task, &result, &settings, &self.model.path, &model.hash()?)?;
        Ok(Self { excluded: self.excluded.clone(), ..circuit })
    }
}

/// How well a model does a task on held-out pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The task's name.
    pub task: String,
    /// Mean loss of the choice between the two answers, in nats; chance is log 2.
    pub loss: f64,
    /// The share of right choices, 0 to 1.
    pub accuracy: f64,
}

/// How well a model does the built-in tasks whose answers its tokenizer can write, on `pairs` held-out pairs each.
///
/// # Errors
/// Those of the forward pass.
pub fn scores(model: &Model, tokenizer: &Tokenizer, pairs: usize, stop: &AtomicBool) -> Result<Vec<Score>> {
    let weights = Weights::constant(model, &[]);
    let mut scores = Vec::new();
    for task in tasks::all() {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let Ok(batch) = tasks::batch(&task, Split::Test, 0, 0, pairs, tokenizer, model.config.block_size) else {
            continue;
        };
        let diffs = TaskBatch::new(model, &batch.tokens)?.logit_diffs(model, &weights, &mut NoHooks)?;
        let plain = Calibration::default();
        scores.push(Score { task: task.name, loss: diffs.loss(plain), accuracy: diffs.accuracy(plain) });
    }
    Ok(scores)
}
