//! From a task to its circuit: pairs, learned gates, the smallest circuit, clean-up, and its losses
//! on held-out pairs.

use serde::{Deserialize, Serialize};

use super::attribution::{attribution, integrated_gradients};
use super::edge_pruning::prune_edges;
use super::local_search::local_search;
use super::prune::{self, CircuitScorer, PruningStep, SearchSettings};
use super::tasks::{self, PairBatch, Split, Task, TokenPair};
use super::tune::{Trial, tune};
use super::{Calibration, LogitDiffs, LossSet, Nodes, PrunedEdge, TaskBatch, Weighted};
use crate::model::{Model, NoHooks, Weights};
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// How nodes are ranked before the smallest circuit is searched for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Ranking {
    /// By gates learned with gradient descent.
    #[default]
    Learned,
    /// By attribution: the size of gradient × (activation − mean), summed over positions and pairs.
    /// The baseline.
    Attribution,
    /// By the size of integrated gradients, from means to activations.
    IntegratedGradients,
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
    /// Whether edges are pruned as well, as long as the loss stays within its limit.
    pub prune_edges: bool,
    /// Random settings to try besides the given ones; 0 for none, or for as many as `minutes`
    /// allow.
    pub trials: u64,
    /// After how many minutes no further settings are tried; 0 for no such limit.
    pub minutes: f64,
}

impl Default for SearchPlan {
    fn default() -> Self {
        Self {
            settings: SearchSettings::default(),
            ranking: Ranking::Learned,
            clean_up: true,
            prune_edges: false,
            trials: 0,
            minutes: 0.0,
        }
    }
}

impl SearchPlan {
    /// Whether other settings than the given ones are tried.
    pub(crate) fn tunes(&self) -> bool {
        self.trials > 0 || self.minutes > 0.0
    }

    /// Returns an error if it contradicts itself, or a setting is impossible.
    pub(crate) fn validate(&self) -> Result<()> {
        if !(0.0..=1e6).contains(&self.minutes) {
            let message = format!("{} is not between 0 and a million minutes", self.minutes);
            return Err(Error::config("minutes", message));
        }
        if self.tunes() && self.ranking != Ranking::Learned {
            let message = "random settings (--tune, --tune-minutes) are those of learned gates, which other rankings \
                           do not have: leave them or --ranking out";
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
    /// Edges between them that carry constants.
    pub pruned_edges: Vec<PrunedEdge>,
    /// How many nodes bisection kept, before the clean-up.
    pub bisected_len: usize,
    /// The loss that the nodes had to reach on the pairs that they were chosen by.
    pub limit: f64,
    /// Whether nodes chosen in that way reach the target on templates that did not choose them.
    pub holds: bool,
    /// The calibration found on the train pairs.
    pub calibration: Calibration,
    /// On the train pairs, which the circuit was chosen by.
    pub train: LossSet,
    /// On pairs of the test split.
    pub test: LossSet,
    /// The circuits that it was chosen from, if several settings were tried.
    pub trials: Vec<Trial>,
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

/// What circuits must reach on the pairs that choose them, as shares of the target, in turn. Where
/// the first does not hold, shares in between are tried, too.
pub const STRICTER: [f64; 5] = [1.0, 0.7, 0.5, 0.35, 0.25];

/// How often the interval between a share whose circuit does not hold and one whose circuit does is
/// halved.
const REFINEMENTS: usize = 2;

/// The shares of the target that circuits should reach, the largest first, and whether the circuit
/// of the last one holds. `holds_at` says whether that of a share does; nothing if not even all
/// nodes reach it.
fn shares_to_try(holds_at: &dyn Fn(f64) -> Result<Option<bool>>) -> Result<(Vec<f64>, bool)> {
    let mut shares = Vec::new();
    for share in STRICTER {
        let Some(holds) = holds_at(share)? else { break };
        shares.push(share);
        if !holds {
            continue;
        }
        for _ in 0..REFINEMENTS {
            let &[.., above, last] = &shares[..] else { break };
            let (between, at) = ((above * last).sqrt(), shares.len() - 1);
            match holds_at(between)? {
                Some(true) => shares[at] = between,
                _ => shares.insert(at, between),
            }
        }
        return Ok((shares, true));
    }
    if shares.is_empty() {
        shares.push(STRICTER[0]);
    }
    Ok((shares, false))
}

/// Train pairs of two thirds of the templates, and of the others; all in the first group if there
/// are fewer than three templates.
fn by_template(batch: &PairBatch) -> [Vec<TokenPair>; 2] {
    let mut groups = [Vec::new(), Vec::new()];
    for (pair, tokens) in batch.pairs.iter().zip(&batch.tokens) {
        groups[usize::from(pair.template % 3 == 2)].push(tokens.clone());
    }
    groups
}

/// The nodes that a search chose.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Which nodes are kept, by number.
    pub keep: Vec<bool>,
    /// How many nodes bisection kept, before the clean-up.
    pub bisected_len: usize,
    /// The loss that they had to reach.
    pub limit: f64,
    /// Whether nodes chosen in that way by the first group reach the target on the second.
    pub holds: bool,
}

/// Called after every step of pruning, from any thread.
pub(crate) type OnStep<'a> = dyn Fn(PruningStep) + Sync + 'a;

impl CircuitSearch<'_> {
    /// Searches for the circuit of a task.
    pub(crate) fn run(&self, task: &Task, plan: &SearchPlan, on_step: &OnStep) -> Result<SearchResult> {
        let task = &task.clone().for_tokenizer(self.tokenizer)?;
        let result = if plan.tunes() {
            tune(self, task, plan, on_step)?
        } else {
            let scores = self.rank(task, &plan.settings, plan.ranking, on_step)?;
            self.choose(task, &plan.settings, scores, plan.clean_up)?
        };
        if plan.prune_edges { self.prune_edges(task, result) } else { Ok(result) }
    }

    /// The circuit without edges, and then nodes, that its loss on train pairs does not need.
    ///
    /// # Errors
    /// Those of the pairs and of the forward pass.
    pub fn prune_edges(&self, task: &Task, mut result: SearchResult) -> Result<SearchResult> {
        let (_, train) = self.eval_pairs(task, Split::Train, &result.settings)?;
        let weights = self.weights();
        let scorer = self.scorer(&weights, &train, &result.settings);
        result.pruned_edges = prune_edges(&scorer, &mut result.keep, result.limit)?;
        self.evaluate(task, &train, result)
    }

    /// The same search, whose circuits do without `edges`.
    pub(super) fn pruning(&self, edges: &[PrunedEdge]) -> Result<CircuitSearch<'_>> {
        let mut nodes = self.nodes.clone();
        nodes.prune_edges(self.model, edges)?;
        Ok(CircuitSearch { model: self.model, nodes, tokenizer: self.tokenizer })
    }

    /// A score for every node: the larger, the more the task needs it.
    ///
    /// # Errors
    /// Returns [`Error::UnreachableTarget`] if not even all nodes reach the target loss; those of
    /// the pairs and of the forward pass.
    pub fn rank(&self, task: &Task, settings: &SearchSettings, ranking: Ranking, on_step: &OnStep) -> Result<Vec<f32>> {
        settings.validate()?;
        let (_, train) = self.eval_pairs(task, Split::Train, settings)?;
        self.target(&train, settings)?;
        let mut scores = match ranking {
            Ranking::Learned => self.learn(task, settings, on_step)?,
            Ranking::Attribution => self.by_size(&train, attribution)?,
            Ranking::IntegratedGradients => self.by_size(&train, integrated_gradients)?,
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
    /// How strictly it is chosen, two thirds of the train templates and the rest decide
    /// ([`CircuitSearch::choose_nodes`]).
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
        let (pairs, train) = self.eval_pairs(task, Split::Train, settings)?;
        let target = self.target(&train, settings)?;
        let choice = self.choose_nodes(&by_template(&pairs), target, settings, &scores, clean_up)?;
        let Some(Choice { keep, bisected_len, limit, holds }) = choice else {
            let (loss, _) = self.scorer(&self.weights(), &train, settings).loss(&vec![true; scores.len()])?;
            return Err(Error::UnreachableTarget { loss, target });
        };
        let settings = settings.clone();
        self.evaluate(
            task,
            &train,
            SearchResult { settings, scores, keep, bisected_len, limit, holds, ..SearchResult::default() },
        )
    }

    /// The smallest circuit of the nodes with the largest scores that reaches `target`, in nats, on
    /// all pairs; nothing if not even all nodes do.
    ///
    /// `pairs` are of two groups of templates. What the first chooses should reach the target on the
    /// second, too; if it does not, it must reach a share of the target ([`STRICTER`]). With the
    /// first share that does, or the last one, both together choose.
    ///
    /// # Errors
    /// Those of the forward pass.
    pub fn choose_nodes(
        &self,
        pairs: &[Vec<TokenPair>; 2],
        target: f64,
        settings: &SearchSettings,
        scores: &[f32],
        clean_up: bool,
    ) -> Result<Option<Choice>> {
        let (weights, order) = (self.weights(), prune::rank_nodes(scores));
        let smallest = |scorer: &CircuitScorer, limit: f64, local: bool| {
            let Some(k) = prune::bisect(scorer, &order, limit)? else { return Ok(None) };
            let mut keep = prune::keep_first(&order, k);
            if clean_up {
                prune::greedy_prune(scorer, &mut keep, limit)?;
                if local && prune::kept_count(&keep) <= settings.local_search_max {
                    local_search(scorer, &mut keep, &order[..order.len().min(k.max(POOL))], limit)?;
                }
            }
            Ok::<_, Error>(Some((keep, k)))
        };
        let (mut shares, mut holds) = (vec![STRICTER[0]], true);
        if pairs.iter().all(|group| !group.is_empty()) {
            let [first, second] = [TaskBatch::new(self.model, &pairs[0])?, TaskBatch::new(self.model, &pairs[1])?];
            let (first, second) = (self.scorer(&weights, &first, settings), self.scorer(&weights, &second, settings));
            (shares, holds) = shares_to_try(&|share| {
                let Some((keep, _)) = smallest(&first, share * target, false)? else { return Ok(None) };
                let (_, calibration) = first.loss(&keep)?;
                Ok(Some(second.logit_diffs(&keep)?.loss(calibration) <= target))
            })?;
        }
        let all = TaskBatch::new(self.model, &pairs.concat())?;
        let scorer = self.scorer(&weights, &all, settings);
        // What some pairs reach, all may not.
        for share in shares.iter().rev() {
            let limit = share * target;
            if let Some((keep, bisected_len)) = smallest(&scorer, limit, true)? {
                return Ok(Some(Choice { keep, bisected_len, limit, holds }));
            }
        }
        Ok(None)
    }

    /// The loss that circuits must reach on train pairs.
    fn target(&self, train: &TaskBatch, settings: &SearchSettings) -> Result<f64> {
        let weights = self.weights();
        let model = self.scorer(&weights, train, settings).logit_diffs(&vec![true; self.nodes.layout.len()])?;
        settings.reachable(&model).ok_or_else(|| Error::UnreachableTarget {
            loss: model.loss(model.calibrate(settings.calibration)),
            target: settings.target_loss,
        })
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
        local_search(&scorer, &mut result.keep, pool, result.limit)?;
        self.evaluate(task, &train, result)
    }

    /// Calibration and losses of a circuit whose nodes are chosen. Both the circuit's and its
    /// complement's calibration are fitted on the train pairs.
    pub(super) fn evaluate(&self, task: &Task, train: &TaskBatch, result: SearchResult) -> Result<SearchResult> {
        let (_, test) = self.eval_pairs(task, Split::Test, &result.settings)?;
        let search = self.pruning(&result.pruned_edges)?;
        let (train, test) = (search.answers(train, &result.keep)?, search.answers(&test, &result.keep)?);
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

    fn by_size(
        &self,
        task_batch: &TaskBatch,
        of: fn(Weighted, &Nodes, &TaskBatch) -> Result<Vec<f64>>,
    ) -> Result<Vec<f32>> {
        let signed = of((self.model, &self.weights()), &self.nodes, task_batch)?;
        Ok(signed.into_iter().map(|score| score.abs() as f32).collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is tried where circuits of shares of at most `largest` hold, and all nodes reach
    /// `least`.
    fn shares(largest: f64, least: f64) -> (Vec<f64>, bool) {
        shares_to_try(&|share| Ok((share >= least).then_some(share <= largest))).unwrap()
    }

    #[test]
    fn a_target_that_holds_is_enough() {
        assert_eq!(shares(1.0, 0.0), (vec![1.0], true));
    }

    #[test]
    fn the_last_share_is_near_the_largest_that_holds() {
        let (tried, holds) = shares(0.62, 0.0);
        // √(0.7 · 0.5) holds, √(0.7 · 0.592) does not.
        let wanted = [1.0, 0.7, 0.643_53, 0.591_61];
        assert!(holds && tried.len() == wanted.len(), "{tried:?}");
        assert!(tried.iter().zip(wanted).all(|(got, wanted)| (got - wanted).abs() < 1e-5), "{tried:?}");
    }

    #[test]
    fn shares_end_where_nothing_holds_or_nothing_reaches_them() {
        assert_eq!(shares(0.0, 0.0), (STRICTER.to_vec(), false));
        assert_eq!(shares(0.0, 0.6), (vec![1.0, 0.7], false));
        assert_eq!(shares(0.0, 2.0), (vec![1.0], false));
    }
}
