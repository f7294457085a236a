//! From a task to its circuit: pairs, learned gates, the smallest circuit, clean-up, and the verdict on held-out pairs.

use serde::{Deserialize, Serialize};

use super::polish::polish;
use super::prune::{self, Judge, Progress, Settings};
use super::tasks::{self, Split, Task};
use super::{Answers, Calibration, LossSet, Nodes, Questions};
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
pub struct Found {
    /// The nodes' scores: learned taus, or attributions.
    pub scores: Vec<f32>,
    /// Which nodes are kept, by number.
    pub keep: Vec<bool>,
    /// How many nodes bisection kept, before the clean-up.
    pub before_clean_up: usize,
    /// The calibration found on the pairs that the circuit was chosen by.
    pub calibration: Calibration,
    /// On the pairs that the circuit was chosen by.
    pub train: LossSet,
    /// On pairs of the test split.
    pub test: LossSet,
}

/// A model, its nodes and its tokenizer, ready to be searched for circuits. Threads can share one.
pub struct Finder<'a> {
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
pub type Watch<'a> = dyn Fn(Progress) + Sync + 'a;

/// Seeds beside the run's own, so that no two streams of pairs are the same.
pub(super) const CHOOSING: u64 = 0x5eed_0001;
pub(super) const JUDGING: u64 = 0x5eed_0002;

impl Finder<'_> {
    /// `count` pairs of a task from `index` on, and the index to go on from.
    ///
    /// # Errors
    /// Those of [`tasks::batch`] and [`Questions::new`].
    pub fn pairs(
        &self,
        task: &Task,
        split: Split,
        (seed, index): (u64, u64),
        count: usize,
        max_length: usize,
    ) -> Result<(tasks::Batch, Questions)> {
        let longest = max_length.min(self.model.config.block_size);
        let batch = tasks::batch(task, split, seed, index, count, self.tokenizer, longest)?;
        let questions = Questions::new(self.model, &batch.tokens)?;
        Ok((batch, questions))
    }

    /// Finds the circuit of a task. `clean` removes nodes that the loss does not miss.
    ///
    /// # Errors
    /// Those of [`Finder::rank`] and [`Finder::choose`].
    pub fn find(
        &self,
        task: &Task,
        settings: &Settings,
        ranking: Ranking,
        clean: bool,
        watch: &Watch,
    ) -> Result<Found> {
        let task = &task.clone().fitted(self.tokenizer)?;
        let scores = self.rank(task, settings, ranking, watch)?;
        self.choose(task, settings, scores, clean)
    }

    /// A score for every node: the larger, the more the task needs it.
    ///
    /// # Errors
    /// [`Error::OutOfReach`] if not even all nodes reach the target loss; those of the pairs and of the forward pass.
    pub fn rank(&self, task: &Task, settings: &Settings, ranking: Ranking, watch: &Watch) -> Result<Vec<f32>> {
        settings.validate()?;
        let (_, choosing) = self.choosing(task, settings)?;
        let weights = self.weights();
        let judge = Judge { model: (self.model, &weights), nodes: &self.nodes, questions: &choosing };
        let (whole, _) = judge.loss(&vec![true; self.nodes.layout.len()])?;
        if whole.is_nan() || whole > settings.target_loss {
            return Err(Error::OutOfReach { loss: whole, target: settings.target_loss });
        }
        let mut scores = match ranking {
            Ranking::Learned => self.learn(task, settings, watch)?,
            Ranking::Attribution => self.attribute(&choosing, settings)?,
        };
        for (score, absent) in scores.iter_mut().zip(&self.nodes.absent) {
            if *absent {
                *score = f32::NEG_INFINITY;
            }
        }
        Ok(scores)
    }

    /// The smallest circuit of the nodes with the largest scores that reaches the target loss, without the nodes that it does
    /// not miss if `clean` is set, and the verdict on held-out pairs.
    ///
    /// # Errors
    /// [`Error::OutOfReach`] if not even all nodes reach the target loss; those of the pairs and of the forward pass.
    pub fn choose(&self, task: &Task, settings: &Settings, scores: Vec<f32>, clean: bool) -> Result<Found> {
        let (_, choosing) = self.choosing(task, settings)?;
        let weights = self.weights();
        let judge = Judge { model: (self.model, &weights), nodes: &self.nodes, questions: &choosing };
        let order = prune::order(&scores);
        let Some(k) = prune::bisect(&judge, &order, settings.target_loss)? else {
            let (loss, _) = judge.loss(&vec![true; order.len()])?;
            return Err(Error::OutOfReach { loss, target: settings.target_loss });
        };
        let mut keep = prune::first(&order, k);
        if clean {
            prune::clean(&judge, &mut keep, settings.target_loss)?;
            if prune::count(&keep) <= settings.polish {
                polish(&judge, &mut keep, &order[..order.len().min(k.max(POOL))], settings.target_loss)?;
            }
        }
        self.verdict(task, settings, &choosing, Found { scores, keep, before_clean_up: k, ..Found::default() })
    }

    /// A circuit that is small enough for it [polished](super::polish) with nodes of `pool`.
    ///
    /// # Errors
    /// Those of the pairs and of the forward pass.
    pub fn polish(&self, task: &Task, settings: &Settings, mut found: Found, pool: &[usize]) -> Result<Found> {
        if prune::count(&found.keep) > settings.polish {
            return Ok(found);
        }
        let task = &task.clone().fitted(self.tokenizer)?;
        let (_, choosing) = self.choosing(task, settings)?;
        let weights = self.weights();
        let judge = Judge { model: (self.model, &weights), nodes: &self.nodes, questions: &choosing };
        polish(&judge, &mut found.keep, pool, settings.target_loss)?;
        self.verdict(task, settings, &choosing, found)
    }

    /// Calibration and losses of a circuit whose nodes are chosen.
    pub(super) fn verdict(
        &self,
        task: &Task,
        settings: &Settings,
        choosing: &Questions,
        found: Found,
    ) -> Result<Found> {
        let weights = self.weights();
        let judge = Judge { model: (self.model, &weights), nodes: &self.nodes, questions: choosing };
        let (_, calibration) = judge.loss(&found.keep)?;
        let train = self.judge(choosing, &found.keep, calibration)?;
        let (judged, longest) = (settings.eval_pairs, settings.max_length);
        let (_, held_out) = self.pairs(task, Split::Test, (settings.seed ^ JUDGING, 0), judged, longest)?;
        let test = self.judge(&held_out, &found.keep, calibration)?;
        Ok(Found { calibration, train, test, ..found })
    }

    /// The model's weights, for one thread.
    pub(super) fn weights(&self) -> Weights {
        Weights::constant(self.model, &[])
    }

    fn learn(&self, task: &Task, settings: &Settings, watch: &Watch) -> Result<Vec<f32>> {
        let mut index = 0;
        let mut questions = |_| {
            let at = (settings.seed, index);
            let (batch, questions) = self.pairs(task, Split::Train, at, settings.pairs, settings.max_length)?;
            index = batch.next_index;
            Ok(questions)
        };
        prune::learn((self.model, &self.weights()), &self.nodes, settings, &mut questions, &mut |progress| {
            watch(progress)
        })
    }

    fn attribute(&self, questions: &Questions, settings: &Settings) -> Result<Vec<f32>> {
        let free = Settings { k_coef: 0.0, ..settings.clone() };
        // With all gates open and equal, the gradient of tau is gradient × (activation − mean) but for a constant.
        let open = vec![1.0; self.nodes.layout.len()];
        let step = prune::step((self.model, &self.weights()), &self.nodes, questions, &open, &free)?;
        Ok(step.gradient.iter().map(|g| g.abs() as f32).collect())
    }

    /// What the circuit, its complement and the whole model make of some pairs.
    ///
    /// # Errors
    /// Those of the forward pass.
    pub fn judge(&self, questions: &Questions, keep: &[bool], calibration: Calibration) -> Result<LossSet> {
        let weights = self.weights();
        let judge = Judge { model: (self.model, &weights), nodes: &self.nodes, questions };
        let rest: Vec<bool> = keep.iter().map(|kept| !kept).collect();
        let whole = questions.answers(self.model, &weights, &mut NoHooks)?;
        let [circuit, ablated]: [Answers; 2] = [judge.answers(keep)?, judge.answers(&rest)?];
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
