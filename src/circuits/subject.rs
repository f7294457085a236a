//! A model whose nodes are ablated, in any way, while it answers pairs: what an evaluation asks.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::ablation::{Ablation, Recording, Replacement, edge_inputs, parts};
use super::search::CircuitSearch;
use super::tasks::{Split, TokenPair};
use super::{Edge, EdgeAblation, Gates, Layout, LogitDiffs, Nodes, TaskBatch};
use crate::model::{Hooks, NoHooks, Site, Weights};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// A part of the pairs on the device.
struct Part {
    task_batch: TaskBatch,
    /// For each prompt the one whose activations ablated nodes take, and what these were in the
    /// whole model; nothing where nodes are set to constants.
    donors: Option<(Vec<usize>, Recording)>,
}

/// A model with all that ablation needs, and the pairs that it answers.
pub(super) struct Subject<'a> {
    pub(super) search: &'a CircuitSearch<'a>,
    /// The values that ablated nodes are set to, where these are constants.
    nodes: Nodes,
    weights: Weights,
    /// Of the train and the test split, as the next two.
    pub(super) pairs: [&'a [TokenPair]; 2],
    whole: [TaskBatch; 2],
    parts: [Vec<Part>; 2],
    /// Whether ablated nodes are set to constants.
    constant: bool,
}

impl<'a> Subject<'a> {
    pub(super) fn new(
        search: &'a CircuitSearch,
        pairs: [&'a [TokenPair]; 2],
        (ablation, seed): (Ablation, u64),
    ) -> Result<Self> {
        let (model, layout, weights) = (search.model, &search.nodes.layout, search.weights());
        let none = vec![false; layout.len()];
        let batches = [parts(model, pairs[0])?, parts(model, pairs[1])?];
        let with_values = |means: &_| {
            let mut nodes = Nodes::new(layout.clone(), means, &model.device)?;
            (nodes.excluded, nodes.stop) = (search.nodes.excluded.clone(), search.nodes.stop.clone());
            nodes.pruned = search.nodes.pruned.clone();
            Ok::<_, Error>(nodes)
        };
        let nodes = match ablation {
            Ablation::Zero => with_values(&zeros(layout))?,
            Ablation::TaskMean => {
                let (mut sums, mut count) = (vec![0.0; layout.len()], 0);
                for (_, batch) in &batches[0] {
                    let recording = Recording::new((model, &weights), layout, batch, search.nodes.keep_all(&none)?)?;
                    count += recording.add_to(layout, &mut sums);
                }
                let mean = |n: usize| (sums[n] / count.max(1) as f64) as f32;
                let means = layout.blocks().iter().map(|block| (block.site, block.range().map(mean).collect()));
                with_values(&means.collect())?
            }
            Ablation::Mean | Ablation::Resample | Ablation::Interchange => search.nodes.clone(),
        };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut part = |(pairs, task_batch): (&[TokenPair], TaskBatch)| {
            let donors = match ablation {
                Ablation::Resample => Some(other_prompts(pairs.len(), &mut rng)),
                Ablation::Interchange => Some(partners(pairs.len())),
                _ => None,
            };
            let record = |donors| {
                let recording = Recording::new((model, &weights), layout, &task_batch, nodes.keep_all(&none)?)?;
                Ok::<_, Error>((donors, recording))
            };
            Ok::<_, Error>(Part { donors: donors.map(record).transpose()?, task_batch })
        };
        let [train_batches, test_batches] = batches;
        let train_parts = train_batches.into_iter().map(&mut part).collect::<Result<_>>()?;
        let test_parts = test_batches.into_iter().map(&mut part).collect::<Result<_>>()?;
        let whole = [TaskBatch::new(model, pairs[0])?, TaskBatch::new(model, pairs[1])?];
        let constant = !matches!(ablation, Ablation::Resample | Ablation::Interchange);
        Ok(Self { search, nodes, weights, pairs, whole, parts: [train_parts, test_parts], constant })
    }

    /// The hooks that ablate all nodes but those in `keep`, or none.
    fn ablate<'s>(&'s self, part: &'s Part, keep: Option<&[bool]>, ablated: &'s mut Vec<bool>) -> Result<Ablating<'s>> {
        let Some(keep) = keep else { return Ok(Ablating::Nothing) };
        let layout = &self.nodes.layout;
        *ablated = keep.iter().zip(&self.nodes.excluded).map(|(kept, excluded)| !kept || *excluded).collect();
        Ok(match &part.donors {
            None => Ablating::Constants(self.nodes.keep(keep)?),
            Some((donors, recording)) => {
                // A stop is heeded, as with constants.
                let gates = self.nodes.keep_all(keep)?;
                let means = &self.nodes.means;
                Ablating::Donors(gates, Replacement { layout, replaced: ablated, recording, donors, means })
            }
        })
    }

    /// The logit differences of the nodes in `keep` on all pairs of a split, after `run` has run
    /// each part of them.
    fn collect(&self, split: Split, mut run: impl FnMut(&Part) -> Result<LogitDiffs>) -> Result<LogitDiffs> {
        let mut all = LogitDiffs::default();
        for part in &self.parts[usize::from(split == Split::Test)] {
            let LogitDiffs { clean, counterfactual } = run(part)?;
            all.clean.extend(clean);
            all.counterfactual.extend(counterfactual);
        }
        Ok(all)
    }

    fn run(&self, part: &Part, hooks: &mut dyn Hooks) -> Result<LogitDiffs> {
        part.task_batch.logit_diffs_at_once((self.search.model, &self.weights), hooks)
    }

    /// The logit differences of the nodes in `keep`, or of the whole model.
    pub(super) fn answers(&self, split: Split, keep: Option<&[bool]>) -> Result<LogitDiffs> {
        // As the search does it, so that both give the same numbers.
        let (model, whole) = ((self.search.model, &self.weights), &self.whole[usize::from(split == Split::Test)]);
        match keep {
            None => return whole.logit_diffs(model, &mut NoHooks),
            Some(keep) if self.constant => return whole.logit_diffs(model, &mut self.nodes.keep(keep)?),
            Some(_) => {}
        }
        self.collect(split, |part| self.run(part, &mut self.ablate(part, keep, &mut Vec::new())?))
    }

    pub(super) fn both(&self, keep: Option<&[bool]>) -> Result<[LogitDiffs; 2]> {
        Ok([self.answers(Split::Train, keep)?, self.answers(Split::Test, keep)?])
    }

    pub(super) fn without_edge(&self, keep: &[bool], edge: &Edge) -> Result<LogitDiffs> {
        if self.constant
            && let Some(mut hooks) = EdgeAblation::new(self.search.model, self.nodes.keep(keep)?, *edge)
        {
            return self.whole[1].logit_diffs_at_once((self.search.model, &self.weights), &mut hooks);
        }
        self.collect(Split::Test, |part| {
            let mut ablated = Vec::new();
            let hooks = self.ablate(part, Some(keep), &mut ablated)?;
            match EdgeAblation::new(self.search.model, hooks, *edge) {
                Some(mut hooks) => self.run(part, &mut hooks),
                None => self.run(part, &mut self.ablate(part, Some(keep), &mut Vec::new())?),
            }
        })
    }

    /// The share of prompts that get the other prompt's answer where `swapped` nodes have their
    /// activations there, among the nodes in `keep`, or in the whole model.
    pub(super) fn interchange(&self, keep: Option<&[bool]>, swapped: &[bool]) -> Result<f64> {
        let model = (self.search.model, &self.weights);
        let answers = self.collect(Split::Test, |part| {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            let layout = &self.nodes.layout;
            let hooks = self.ablate(part, keep, &mut first)?;
            let recording = &Recording::new(model, layout, &part.task_batch, hooks)?;
            let (donors, means) = (&partners(part.task_batch.pairs), &self.nodes.means);
            let replacement = Replacement { layout, replaced: swapped, recording, donors, means };
            self.run(part, &mut (self.ablate(part, keep, &mut second)?, replacement))
        })?;
        Ok(answers.flipped())
    }

    /// As [`Subject::interchange`], where only what `edge` reads is the other prompt's.
    pub(super) fn interchange_edge(&self, keep: &[bool], edge: &Edge) -> Result<f64> {
        let model = (self.search.model, &self.weights);
        let answers = self.collect(Split::Test, |part| {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            let donors = partners(part.task_batch.pairs);
            let values =
                edge_inputs(model, &part.task_batch, self.ablate(part, Some(keep), &mut first)?, edge, &donors)?;
            let hooks = self.ablate(part, Some(keep), &mut second)?;
            match values.and_then(|values| EdgeAblation::with_values(model.0, hooks, *edge, values)) {
                Some(mut hooks) => self.run(part, &mut hooks),
                None => self.run(part, &mut self.ablate(part, Some(keep), &mut Vec::new())?),
            }
        })?;
        Ok(answers.flipped())
    }
}

impl LogitDiffs {
    /// The share of prompts that get the other answer, 0 to 1.
    fn flipped(&self) -> f64 {
        let count = self.clean.iter().chain(&self.counterfactual).filter(|z| **z < 0.0).count();
        count as f64 / self.len().max(1) as f64
    }
}

/// The other prompt of each one's pair, in a batch of `pairs`: all clean prompts come first.
fn partners(pairs: usize) -> Vec<usize> {
    (pairs..2 * pairs).chain(0..pairs).collect()
}

/// For each prompt one of another pair; where there is only one pair, the other prompt.
fn other_prompts(pairs: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    if pairs < 2 {
        return partners(pairs);
    }
    let other = |prompt: usize| loop {
        let donor = rng.random_range(0..2 * pairs);
        if donor % pairs != prompt % pairs {
            break donor;
        }
    };
    (0..2 * pairs).map(other).collect()
}

/// Hooks of an ablation.
enum Ablating<'a> {
    Nothing,
    Constants(Gates<'a>),
    Donors(Gates<'a>, Replacement<'a>),
}

impl Hooks for Ablating<'_> {
    fn on_activation(&mut self, tape: &mut Tape, site: Site, value: Var) -> Result<Var> {
        match self {
            Self::Nothing => Ok(value),
            Self::Constants(gates) => gates.on_activation(tape, site, value),
            Self::Donors(gates, replacement) => {
                let value = gates.on_activation(tape, site, value)?;
                replacement.on_activation(tape, site, value)
            }
        }
    }
}

/// Zeros for all nodes, by site.
pub(super) fn zeros(layout: &Layout) -> BTreeMap<Site, Vec<f32>> {
    layout.blocks().iter().map(|block| (block.site, vec![0.0; block.width])).collect()
}
