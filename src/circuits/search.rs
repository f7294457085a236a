//! From a task to its circuit: pairs, learned gates, the smallest circuit, clean-up, and its losses
//! on held-out pairs.

use serde::{Deserialize, Serialize};

use super::local_search::local_search;
use super::prune::{self, CircuitScorer, PruningStep, SearchSettings};
use super::tasks::{self, PairBatch, Split, Task};
use super::tune::tune;
use super::{Calibration, LogitDiffs, LossSet, Nodes, TaskBatch};
use crate::model::{Model, NoHooks, Weights};
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// How nodes are ranked before the smallest circuit is searched for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Ranking {
    /// By gates learned with gradient descent.
    #[default]
    Learned,
    /// By attribution: the size of gradient × (activation − mean), summed over positions and pairs.
    /// The baseline.
    Attribution,
}

/// How the circuit of a task is searched for.
#[derive(Clone, Debug)]
pub struct SearchPlan {
    /// The hyper-parameters.
    pub settings: SearchSettings,
    /// How nodes are ranked.
    pub ranking: Ranking,
    /// Whether nodes are removed without which the loss stays at the target.
    pub clean_up: bool,
    /// Random settings to try around the given ones (`tune`).
    pub trials: u64,
}

impl Default for SearchPlan {
    fn default() -> Self {
        Self { settings: SearchSettings::default(), ranking: Ranking::Learned, clean_up: true, trials: 0 }
    }
}

impl SearchPlan {
    /// Returns an error if it contradicts itself, or a setting is impossible.
    pub(crate) fn validate(&self) -> Result<()> {
        if self.trials > 0 && self.ranking == Ranking::Attribution {
            let message = "random settings (--tune) are those of learned gates, which --ranking attribution does not \
                           have: leave one of them out";
            return Err(Error::Request(message.into()));
        }
        self.settings.validate()
    }
}

/// A circuit as a set of nodes.
#[derive(Clone, Debug, Default)]
pub struct SearchResult {
    /// The settings it was found with.
    pub settings: SearchSettings,
    /// The nodes' scores: learned taus, or attributions.
    pub scores: Vec<f32>,
    /// Which nodes are kept, by number.
    pub keep: Vec<bool>,
    /// How many nodes bisection kept, before the clean-up.
    pub bisected_len: usize,
    /// The calibration found on the train pairs.
    pub calibration: Calibration,
    /// On the train pairs, which the circuit was chosen by.
    pub train: LossSet,
    /// On pairs of the test split.
    pub test: LossSet,
}

/// A model, its nodes and its tokenizer, ready to be searched for circuits. Threads can share one.
pub struct CircuitSearch<'a> {
    /// The model that circuits are part of.
    pub model: &'a Model,
    /// Its nodes, with the mean activations that ablate them.
    pub nodes: Nodes,
    /// Makes the tasks' pairs into the tokens that the model was trained on.
    pub tokenizer: &'a Tokenizer,
}

/// The local search may add nodes from this many with the largest scores.
const POOL: usize = 128;

/// Called after every step of pruning, from any thread.
pub(crate) type OnStep<'a> = dyn Fn(PruningStep) + Sync + 'a;

impl CircuitSearch<'_> {
    /// Searches for the circuit of a task.
    pub(crate) fn run(&self, task: &Task, plan: &SearchPlan, on_step: &OnStep) -> Result<SearchResult> {
        let task = &task.clone().for_tokenizer(self.tokenizer)?;
        if plan.trials > 0 {
            return tune(self, task, plan, on_step);
        }
        let scores = self.rank(task, &plan.settings, plan.ranking, on_step)?;
        self.choose(task, &plan.settings, scores, plan.clean_up)
    }

    /// A score for every node: the larger, the more the task needs it.
    ///
    /// # Errors
    /// Returns [`Error::UnreachableTarget`] if not even all nodes reach the target loss; those of
    /// the pairs and of the forward pass.
    pub fn rank(&self, task: &Task, settings: &SearchSettings, ranking: Ranking, on_step: &OnStep) -> Result<Vec<f32>> {
        settings.validate()?;
        let (_, train) = self.eval_pairs(task, Split::Train, settings)?;
        let weights = self.weights();
        let (all, _) = self.scorer(&weights, &train, settings).loss(&vec![true; self.nodes.layout.len()])?;
        if all.is_nan() || all > settings.target_loss {
            return Err(Error::UnreachableTarget { loss: all, target: settings.target_loss });
        }
        let mut scores = match ranking {
            Ranking::Learned => self.learn(task, settings, on_step)?,
            Ranking::Attribution => self.attribute(&train, settings)?,
        };
        for (score, excluded) in scores.iter_mut().zip(&self.nodes.excluded) {
            if *excluded {
                *score = f32::NEG_INFINITY;
            }
        }
        Ok(scores)
    }

    /// The smallest circuit of the nodes with the largest scores that reaches the target loss, and
    /// its losses on held-out pairs. `clean_up` removes nodes without which it still does.
    ///
    /// # Errors
    /// Returns [`Error::UnreachableTarget`] if not even all nodes reach the target loss; those of
    /// the pairs and of the forward pass.
    pub fn choose(
        &self,
        task: &Task,
        settings: &SearchSettings,
        scores: Vec<f32>,
        clean_up: bool,
    ) -> Result<SearchResult> {
        let (_, train) = self.eval_pairs(task, Split::Train, settings)?;
        let weights = self.weights();
        let scorer = self.scorer(&weights, &train, settings);
        let order = prune::rank_nodes(&scores);
        let Some(k) = prune::bisect(&scorer, &order, settings.target_loss)? else {
            let (loss, _) = scorer.loss(&vec![true; order.len()])?;
            return Err(Error::UnreachableTarget { loss, target: settings.target_loss });
        };
        let mut keep = prune::keep_first(&order, k);
        if clean_up {
            prune::greedy_prune(&scorer, &mut keep, settings.target_loss)?;
            if prune::kept_count(&keep) <= settings.local_search_max {
                local_search(&scorer, &mut keep, &order[..order.len().min(k.max(POOL))], settings.target_loss)?;
            }
        }
        let settings = settings.clone();
        self.evaluate(task, &train, SearchResult { settings, scores, keep, bisected_len: k, ..SearchResult::default() })
    }

    /// The result after a [local search](super::local_search) with nodes of `pool`, if the circuit
    /// is small enough.
    pub(super) fn local_search(&self, task: &Task, mut result: SearchResult, pool: &[usize]) -> Result<SearchResult> {
        if prune::kept_count(&result.keep) > result.settings.local_search_max {
            return Ok(result);
        }
        let (_, train) = self.eval_pairs(task, Split::Train, &result.settings)?;
        let weights = self.weights();
        let scorer = self.scorer(&weights, &train, &result.settings);
        local_search(&scorer, &mut result.keep, pool, result.settings.target_loss)?;
        self.evaluate(task, &train, result)
    }

    /// Calibration and losses of a circuit whose nodes are chosen. Both the circuit's and its
    /// complement's calibration are fitted on the train pairs.
    pub(super) fn evaluate(&self, task: &Task, train: &TaskBatch, result: SearchResult) -> Result<SearchResult> {
        let (_, test) = self.eval_pairs(task, Split::Test, &result.settings)?;
        let (train, test) = (self.answers(train, &result.keep)?, self.answers(&test, &result.keep)?);
        let kind = result.settings.calibration;
        let (calibration, ablated) = (train.circuit.calibrate(kind), train.complement.calibrate(kind));
        let losses = |answers: &Answers| answers.losses(calibration, ablated);
        Ok(SearchResult { calibration, train: losses(&train), test: losses(&test), ..result })
    }

    /// The pairs that circuits of a task are chosen by, or evaluated on.
    pub(super) fn eval_pairs(
        &self,
        task: &Task,
        split: Split,
        settings: &SearchSettings,
    ) -> Result<(PairBatch, TaskBatch)> {
        self.pairs(task, split, settings.eval_seed(split), 0, settings.eval_pairs, settings.max_length)
    }

    fn pairs(
        &self,
        task: &Task,
        split: Split,
        seed: u64,
        first: u64,
        count: usize,
        max_length: usize,
    ) -> Result<(PairBatch, TaskBatch)> {
        let max_length = max_length.min(self.model.config.block_size);
        let pairs = tasks::batch(task, split, seed, first, count, self.tokenizer, max_length)?;
        let batch = TaskBatch::new(self.model, &pairs.tokens)?;
        Ok((pairs, batch))
    }

    /// The model's weights, for one thread.
    pub(super) fn weights(&self) -> Weights {
        Weights::constant(self.model, &[])
    }

    pub(super) fn scorer<'s>(
        &'s self,
        weights: &'s Weights,
        task_batch: &'s TaskBatch,
        settings: &SearchSettings,
    ) -> CircuitScorer<'s> {
        let calibration = settings.calibration;
        CircuitScorer { model: (self.model, weights), nodes: &self.nodes, task_batch, calibration }
    }

    fn learn(&self, task: &Task, settings: &SearchSettings, on_step: &OnStep) -> Result<Vec<f32>> {
        let mut index = 0;
        let mut batches = |_| {
            let SearchSettings { seed, pairs, max_length, .. } = *settings;
            let (pairs, batch) = self.pairs(task, Split::Train, seed, index, pairs, max_length)?;
            index = pairs.next_index;
            Ok(batch)
        };
        let weights = self.weights();
        prune::learn((self.model, &weights), &self.nodes, settings, &mut batches, &mut |step| on_step(step))
    }

    fn attribute(&self, task_batch: &TaskBatch, settings: &SearchSettings) -> Result<Vec<f32>> {
        let free = SearchSettings { k_coef: 0.0, ..settings.clone() };
        // With all gates open and equal, the gradient of tau is gradient × (activation − mean) but
        // for a constant.
        let open = vec![1.0; self.nodes.layout.len()];
        let step = prune::step((self.model, &self.weights()), &self.nodes, task_batch, &open, &free)?;
        Ok(step.gradient.iter().map(|g| g.abs() as f32).collect())
    }

    /// The logit differences of the whole model, of the circuit and of its complement.
    pub(crate) fn answers(&self, task_batch: &TaskBatch, keep: &[bool]) -> Result<Answers> {
        let weights = self.weights();
        let complement: Vec<bool> = keep.iter().map(|kept| !kept).collect();
        let gated = |keep: &[bool]| task_batch.logit_diffs((self.model, &weights), &mut self.nodes.keep(keep)?);
        Ok(Answers {
            model: task_batch.logit_diffs((self.model, &weights), &mut NoHooks)?,
            circuit: gated(keep)?,
            complement: gated(&complement)?,
        })
    }
}

/// The logit differences of a model, and of two parts of it.
pub(crate) struct Answers {
    pub(crate) model: LogitDiffs,
    /// Of the circuit's nodes alone.
    pub(crate) circuit: LogitDiffs,
    /// Of all others.
    pub(crate) complement: LogitDiffs,
}

impl Answers {
    pub(crate) fn losses(&self, calibration: Calibration, ablated: Calibration) -> LossSet {
        let plain = Calibration::default();
        let Self { model, circuit, complement } = self;
        LossSet {
            model: model.loss(plain),
            circuit: circuit.loss(calibration),
            circuit_uncalibrated: circuit.loss(plain),
            ablated: complement.loss(ablated),
            ablated_uncalibrated: Some(complement.loss(plain)),
            ablated_calibration: Some(ablated),
            accuracy_model: model.accuracy(plain),
            accuracy_circuit: circuit.accuracy(calibration),
            accuracy_circuit_uncalibrated: Some(circuit.accuracy(plain)),
            accuracy_ablated: complement.accuracy(ablated),
            accuracy_ablated_uncalibrated: Some(complement.accuracy(plain)),
        }
    }
}
