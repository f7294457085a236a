//! How well a model does a task.

use serde::Serialize;

use super::tasks::{self, Split, Task};
use super::{Calibration, TaskBatch};
use crate::Result;
use crate::model::{Model, NoHooks, Weights};
use crate::text::tokenizer::Tokenizer;

/// Loss and accuracy of a model on pairs of one split of a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitScore {
    /// The task loss in nats; chance is log 2.
    pub loss: f64,
    /// The accuracy, 0 to 1.
    pub accuracy: f64,
    /// How many pairs were used.
    pub pairs: usize,
    /// How many of their prompts were cropped.
    pub cropped_prompts: u64,
    /// What there is to say about the pairs ([`tasks::PairBatch::notes`]).
    #[serde(skip)]
    pub notes: Option<String>,
    /// The answers of the first pair.
    #[serde(skip)]
    pub answers: [u32; 2],
}

/// Evaluates a model on `pairs` pairs of a task.
///
/// # Errors
/// Those of [`tasks::batch`] and of the forward pass.
pub fn score(
    model: &Model,
    tokenizer: &Tokenizer,
    task: &Task,
    split: Split,
    seed: u64,
    pairs: usize,
) -> Result<SplitScore> {
    let batch = tasks::batch(task, split, seed, 0, pairs, tokenizer, model.config.block_size)?;
    let weights = Weights::constant(model, &[]);
    let diffs = TaskBatch::new(model, &batch.tokens)?.logit_diffs((model, &weights), &mut NoHooks)?;
    let plain = Calibration::default();
    Ok(SplitScore {
        loss: diffs.loss(plain),
        accuracy: diffs.accuracy(plain),
        pairs: batch.tokens.len(),
        cropped_prompts: batch.cropped,
        notes: batch.notes(),
        answers: batch.tokens.first().map_or([0, 0], |pair| [pair.target, pair.alternative]),
    })
}
