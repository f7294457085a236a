//! From a task to its circuit: pairs, learned gates, the smallest circuit, clean-up, and the verdict on held-out pairs.

use serde::{Deserialize, Serialize};

use super::local_search::local_search;
use super::prune::{self, CircuitScorer, PruningStep, SearchSettings};
use super::tasks::{self, Split, Task};
use super::{Calibration, LogitDiffs, LossSet, Nodes, TaskBatch};
use crate::model::{Model, NoHooks, Weights};
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// How the nodes are ranked before the smallest circuit is sought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ranking {
    /// By gates learned with gradient descent.
    #[default]
    Learned,
    /// By attribution: the size of gradient × (activation − mean), summed over positions and pairs. The baseline.
    Attribution,
}

/// A circuit as a set of nodes.
#[derive(Clone, Debug, Default)]
pub struct SearchResult {
    /// The nodes' scores: learned taus, or attributions.
    pub scores: Vec<f32>,
    /// Which nodes are kept, by number.
    pub keep: Vec<bool>,
    /// How many nodes bisection kept, before the clean-up.
    pub bisected_len: usize,
    /// The calibration found on the pairs that the circuit was chosen by.
    pub calibration: Calibration,
    /// On the pairs that the circuit was chosen by.
    pub train: LossSet,
    /// On pairs of the test split.
    pub test: LossSet,
}

/// A model, its nodes and its tokenizer, ready to be searched for circuits. Threads can share one.
pub struct CircuitSearch<'a> {
    /// The model.
    pub model: &'a Model,
    /// Its nodes.
    pub nodes: Nodes,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
}

/// Of how many nodes, those with the largest scores, the polish may take some that bisection did not keep.
const POOL: usize = 128;

/// Told of every step of pruning, from whichever thread.
pub type OnStep<'a> = dyn Fn(PruningStep) + Sync + 'a;

/// Seeds beside the run's own, so that no two streams of pairs are the same.
pub(super) const TRAIN_STREAM: u64 = 0x5eed_0001;
pub(super) const TEST_STREAM: u64 = 0x5eed_0002;

impl CircuitSearch<'_> {
    /// `count` pairs of a task from `index` on, and the index to go on from.
    ///
    /// # Errors
    /// Those of [`tasks::batch`] and [`TaskBatch::new`].
    pub fn pairs(
        &self,
        task: &Task,
        split: Split,
        (seed, index): (u64, u64),
        count: usize,
        max_length: usize,
    ) -> Result<(tasks::PairBatch, TaskBatch)> {
        let longest = max_length.min(self.model.config.block_size);
        let batch = tasks::batch(task, split, seed, index, count, self.tokenizer, longest)?;
        let task_batch = TaskBatch::new(self.model, &batch.tokens)?;
        Ok((batch, task_batch))
    }

    /// Finds the circuit of a task. `clean` removes nodes that the loss does not miss.
    ///
    /// # Errors
    /// Those of [`CircuitSearch::rank`] and [`CircuitSearch::choose`].
    pub fn run(
        &self,
        task: &Task,
        settings: &SearchSettings,
        ranking: Ranking,
        clean_up: bool,
        watch: &OnStep,
    ) -> Result<SearchResult> {
        let task = &task.clone().for_tokenizer(self.tokenizer)?;
        let scores = self.rank(task, settings, ranking, watch)?;
        self.choose(task, settings, scores, clean_up)
    }

    /// A score for every node: the larger, the more the task needs it.
    ///
    /// # Errors
    /// [`Error::UnreachableTarget`] if not even all nodes reach the target loss; those of the pairs and of the forward pass.
    pub fn rank(&self, task: &Task, settings: &SearchSettings, ranking: Ranking, watch: &OnStep) -> Result<Vec<f32>> {
        settings.validate()?;
        let (_, choosing) = self.train_pairs(task, settings)?;
        let weights = self.weights();
        let scorer = CircuitScorer { model: (self.model, &weights), nodes: &self.nodes, task_batch: &choosing };
        let (whole, _) = scorer.loss(&vec![true; self.nodes.layout.len()])?;
        if whole.is_nan() || whole > settings.target_loss {
            return Err(Error::UnreachableTarget { loss: whole, target: settings.target_loss });
        }
        let mut scores = match ranking {
            Ranking::Learned => self.learn(task, settings, watch)?,
            Ranking::Attribution => self.attribute(&choosing, settings)?,
        };
        for (score, excluded) in scores.iter_mut().zip(&self.nodes.excluded) {
            if *excluded {
                *score = f32::NEG_INFINITY;
            }
        }
        Ok(scores)
    }

    /// The smallest circuit of the nodes with the largest scores that reaches the target loss, without the nodes that it does
    /// not miss if `clean` is set, and the verdict on held-out pairs.
    ///
    /// # Errors
    /// [`Error::UnreachableTarget`] if not even all nodes reach the target loss; those of the pairs and of the forward pass.
    pub fn choose(
        &self,
        task: &Task,
        settings: &SearchSettings,
        scores: Vec<f32>,
        clean_up: bool,
    ) -> Result<SearchResult> {
        let (_, choosing) = self.train_pairs(task, settings)?;
        let weights = self.weights();
        let scorer = CircuitScorer { model: (self.model, &weights), nodes: &self.nodes, task_batch: &choosing };
        let order = prune::order(&scores);
        let Some(k) = prune::bisect(&scorer, &order, settings.target_loss)? else {
            let (loss, _) = scorer.loss(&vec![true; order.len()])?;
            return Err(Error::UnreachableTarget { loss, target: settings.target_loss });
        };
        let mut keep = prune::first(&order, k);
        if clean_up {
            prune::greedy_prune(&scorer, &mut keep, settings.target_loss)?;
            if prune::count(&keep) <= settings.local_search_max {
                local_search(&scorer, &mut keep, &order[..order.len().min(k.max(POOL))], settings.target_loss)?;
            }
        }
        self.evaluate(
            task,
            settings,
            &choosing,
            SearchResult { scores, keep, bisected_len: k, ..SearchResult::default() },
        )
    }

    /// A circuit that is small enough for it [refined](super::local_search) with nodes of `pool`.
    ///
    /// # Errors
    /// Those of the pairs and of the forward pass.
    pub fn local_search(
        &self,
        task: &Task,
        settings: &SearchSettings,
        mut result: SearchResult,
        pool: &[usize],
    ) -> Result<SearchResult> {
        if prune::count(&result.keep) > settings.local_search_max {
            return Ok(result);
        }
        let task = &task.clone().for_tokenizer(self.tokenizer)?;
        let (_, choosing) = self.train_pairs(task, settings)?;
        let weights = self.weights();
        let scorer = CircuitScorer { model: (self.model, &weights), nodes: &self.nodes, task_batch: &choosing };
        local_search(&scorer, &mut result.keep, pool, settings.target_loss)?;
        self.evaluate(task, settings, &choosing, result)
    }

    /// Calibration and losses of a circuit whose nodes are chosen.
    pub(super) fn evaluate(
        &self,
        task: &Task,
        settings: &SearchSettings,
        choosing: &TaskBatch,
        result: SearchResult,
    ) -> Result<SearchResult> {
        let weights = self.weights();
        let scorer = CircuitScorer { model: (self.model, &weights), nodes: &self.nodes, task_batch: choosing };
        let (_, calibration) = scorer.loss(&result.keep)?;
        let train = self.losses(choosing, &result.keep, calibration)?;
        let (judged, longest) = (settings.eval_pairs, settings.max_length);
        let (_, held_out) = self.pairs(task, Split::Test, (settings.seed ^ TEST_STREAM, 0), judged, longest)?;
        let test = self.losses(&held_out, &result.keep, calibration)?;
        Ok(SearchResult { calibration, train, test, ..result })
    }

    /// The model's weights, for one thread.
    pub(super) fn weights(&self) -> Weights {
        Weights::constant(self.model, &[])
    }

    fn learn(&self, task: &Task, settings: &SearchSettings, watch: &OnStep) -> Result<Vec<f32>> {
        let mut index = 0;
        let mut task_batch = |_| {
            let at = (settings.seed, index);
            let (batch, task_batch) = self.pairs(task, Split::Train, at, settings.pairs, settings.max_length)?;
            index = batch.next_index;
            Ok(task_batch)
        };
        prune::learn((self.model, &self.weights()), &self.nodes, settings, &mut task_batch, &mut |progress| {
            watch(progress)
        })
    }

    fn attribute(&self, task_batch: &TaskBatch, settings: &SearchSettings) -> Result<Vec<f32>> {
        let free = SearchSettings { k_coef: 0.0, ..settings.clone() };
        // With all gates open and equal, the gradient of tau is gradient × (activation − mean) but for a constant.
        let open = vec![1.0; self.nodes.layout.len()];
        let step = prune::step((self.model, &self.weights()), &self.nodes, task_batch, &open, &free)?;
        Ok(step.gradient.iter().map(|g| g.abs() as f32).collect())
    }

    /// What the circuit, its complement and the whole model make of some pairs.
    ///
    /// # Errors
    /// Those of the forward pass.
    pub fn losses(&self, task_batch: &TaskBatch, keep: &[bool], calibration: Calibration) -> Result<LossSet> {
        let weights = self.weights();
        let scorer = CircuitScorer { model: (self.model, &weights), nodes: &self.nodes, task_batch };
        let rest: Vec<bool> = keep.iter().map(|kept| !kept).collect();
        let whole = task_batch.logit_diffs(self.model, &weights, &mut NoHooks)?;
        let [circuit, ablated]: [LogitDiffs; 2] = [scorer.logit_diffs(keep)?, scorer.logit_diffs(&rest)?];
        // The rest is calibrated too: a constant preference for one answer is no sign that the circuit is needed.
        let (plain, rest) = (Calibration::default(), ablated.calibrate());
        Ok(LossSet {
            model: whole.loss(plain),
            circuit: circuit.loss(calibration),
            circuit_uncalibrated: circuit.loss(plain),
            ablated: ablated.loss(rest),
            ablated_calibration: Some(rest),
            accuracy_model: whole.accuracy(plain),
            accuracy_circuit: circuit.accuracy(calibration),
            accuracy_ablated: ablated.accuracy(rest),
        })
    }
}
