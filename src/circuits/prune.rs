//! Pruning: gates learned by gradient, then the smallest circuit that reaches the target (method:
//! section 4).

use std::ops::Bound;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::task_batch::LOGIT_DIFF;
use super::tasks::Split;
use super::{Calibration, CalibrationKind, LogitDiffs, Nodes, TaskBatch, Weighted};
use crate::model::first_not_finite;
use crate::ops::logit_diff::loss;
use crate::settings::{self, Setting, SettingRow, Takes, above, below, numeric, within};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// The hyper-parameters of pruning. The default is for models of a few million parameters or less,
/// where it finds smaller circuits faster than [`SearchSettings::published`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SearchSettings {
    /// Steps of gradient descent.
    pub steps: u64,
    /// Pairs a step.
    pub pairs: usize,
    /// Pairs that circuits are chosen by.
    pub eval_pairs: usize,
    /// Peak learning rate; after the warm-up it falls linearly to 0.
    pub lr: f64,
    /// Share of the steps in which the learning rate rises linearly to its peak.
    pub warmup_frac: f64,
    /// Penalty on each kept node.
    pub k_coef: f64,
    /// AdamW's decoupled decay.
    pub weight_decay: f64,
    /// AdamW's mean of gradients.
    pub beta1: f64,
    /// AdamW's mean of squared gradients.
    pub beta2: f64,
    /// AdamW's epsilon.
    pub eps: f64,
    /// The gradient's norm is at most this.
    pub clip: f64,
    /// Of the sigmoid that replaces the step in the backward pass.
    pub temperature: f64,
    /// Mean and standard deviation of tau at the start.
    pub start: (f64, f64),
    /// The task loss to reach.
    pub target_loss: f64,
    /// Where the model's own loss is above the target, but it does the task ([`SOLVED`]), that many
    /// times its loss is enough.
    pub target_factor: f64,
    /// What is done to logit differences before losses are taken. Files of earlier versions have no
    /// such setting: theirs was [`CalibrationKind::Affine`].
    pub calibration: CalibrationKind,
    /// A [local search](super::local_search) follows the clean-up of circuits of up to this many
    /// nodes. Called `polish` in files and settings.
    #[serde(rename = "polish")]
    pub local_search_max: usize,
    /// The longest prompt, in tokens; longer ones are cropped from the left.
    pub max_length: usize,
    /// Seed of the pairs and of tau.
    pub seed: u64,
}

impl Default for SearchSettings {
    fn default() -> Self {
        Self {
            steps: 300,
            pairs: 32,
            eval_pairs: 128,
            lr: 1e-2,
            warmup_frac: 0.0,
            k_coef: 1e-3,
            weight_decay: 1e-3,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            clip: 1.0,
            temperature: 1.0,
            start: (0.1, 0.01),
            target_loss: 0.15,
            target_factor: 1.5,
            calibration: CalibrationKind::Scale,
            local_search_max: 16,
            max_length: 256,
            seed: 0,
        }
    }
}

impl SearchSettings {
    /// The published search centre (method: section 4), for models of hundreds of millions of
    /// parameters.
    pub fn published() -> Self {
        Self { steps: 500, pairs: 64, lr: 3e-3, k_coef: 1e-4, ..Self::default() }
    }

    /// Returns an error naming a setting with an impossible value.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn validate(&self) -> Result<()> {
        settings::check("", SEARCH_SETTINGS, self)?;
        match self.start.1 >= 0.0 {
            true => Ok(()),
            false => Err(Error::config("start", format!("the deviation {} is less than 0", self.start.1))),
        }
    }

    /// The loss that circuits must reach in a model with these logit differences; nothing if not
    /// even the model does.
    pub fn reachable(&self, model: &LogitDiffs) -> Option<f64> {
        let loss = model.loss(model.calibrate(self.calibration));
        let solved = model.accuracy(Calibration::default()) >= SOLVED;
        match loss <= self.target_loss {
            true => Some(self.target_loss),
            false if solved && self.target_factor >= 1.0 => Some(self.target_factor * loss),
            false => None,
        }
    }

    /// Sets one setting from `key=value`. Values are those of TOML, or text without quotes.
    ///
    /// # Errors
    /// [`Error::Config`] naming a setting that does not exist, with the one that may be meant, or
    /// whose value is impossible.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let bad = |e: String| Error::config(assignment, e.lines().next().unwrap_or_default().to_string());
        let mut table = toml::Table::try_from(&*self).map_err(|e| bad(e.to_string()))?;
        settings::assign(&mut table, &Self::rows(), assignment)?;
        *self = table.try_into().map_err(|e: toml::de::Error| bad(e.to_string()))?;
        Ok(())
    }

    /// The learning rate of step `i` as a share of its peak.
    fn rate(&self, i: u64) -> f64 {
        let (steps, warmup) = (self.steps as f64, (self.warmup_frac * self.steps as f64).round());
        let i = i as f64;
        if i < warmup { (i + 1.0) / warmup } else { (1.0 - i / steps) / (1.0 - warmup / steps) }
    }

    /// Train and test pairs come from streams other than those that gates are learned with.
    pub(super) fn eval_seed(&self, split: Split) -> u64 {
        self.seed ^ if split == Split::Train { 0x5eed_0001 } else { 0x5eed_0002 }
    }

    /// All settings by name.
    pub fn rows() -> Vec<SettingRow> {
        settings::rows("", SEARCH_SETTINGS)
    }
}

/// The accuracy from which a model does a task.
pub const SOLVED: f64 = 0.9;

/// Pairs of a task in memory at once.
pub const MAX_PAIRS: u64 = 65_536;

/// What each setting may be.
const SEARCH_SETTINGS: &[Setting<SearchSettings>] = &[
    numeric!(steps, Takes::Count(0, 1_000_000_000), "steps of gradient descent"),
    numeric!(pairs, Takes::Count(1, MAX_PAIRS), "pairs in a step"),
    numeric!(eval_pairs, Takes::Count(1, MAX_PAIRS), "pairs that circuits are chosen by"),
    numeric!(lr, above(0.0, 1e3), "peak learning rate; after the warm-up it falls to 0"),
    numeric!(warmup_frac, within(0.0, 1.0), "share of the steps in which the learning rate rises"),
    numeric!(k_coef, within(0.0, 1e6), "price of a kept node"),
    numeric!(weight_decay, within(0.0, 1e3), "AdamW's decoupled decay"),
    numeric!(beta1, below(0.0, 1.0), "AdamW's mean of gradients"),
    numeric!(beta2, below(0.0, 1.0), "AdamW's mean of squared gradients"),
    numeric!(eps, within(1e-30, 1e3), "AdamW's epsilon"),
    numeric!(clip, within(1e-30, 1e6), "largest norm of the gradient"),
    numeric!(temperature, within(1e-6, 1e6), "of the sigmoid in the backward pass"),
    numeric!(
        start,
        Takes::Pair(Bound::Included(-1e3), Bound::Included(1e3)),
        "mean and standard deviation of tau at the start"
    ),
    numeric!(target_loss, above(0.0, 1e3), "task loss to reach"),
    numeric!(target_factor, within(0.0, 1e3), "or so many times the model's, if that is more and it does the task"),
    Setting::other("calibration", Takes::OneOf(CalibrationKind::NAMES), "of logit differences, before losses"),
    Setting::number("polish", Takes::Count(0, 1 << 24), "circuits of up to this many nodes are searched around", |s| {
        s.local_search_max.into()
    }),
    numeric!(max_length, Takes::Count(1, 1 << 24), "longest prompt; others are cropped from the left"),
    numeric!(seed, Takes::Count(0, i64::MAX as u64), "of the pairs and of tau"),
];

/// A step of pruning.
#[derive(Clone, Copy, Debug)]
pub struct PruningStep {
    /// Steps done.
    pub step: u64,
    /// The step's task loss.
    pub loss: f64,
    /// Nodes kept in that step.
    pub kept: usize,
}

/// The gradient of one step: that of the task loss plus `k_coef` times the number of kept nodes.
pub struct GateGradient {
    /// The task loss.
    pub loss: f64,
    /// The gradient of every tau.
    pub gradient: Vec<f64>,
}

/// Task loss and gradient of gates `tau` on some pairs.
///
/// # Errors
/// [`Error::NonFiniteSite`] if a difference is not finite; those of the forward pass.
pub fn step(
    model: Weighted,
    nodes: &Nodes,
    task_batch: &TaskBatch,
    tau: &[f32],
    settings: &SearchSettings,
) -> Result<GateGradient> {
    let mut tape = Tape::new();
    let mut gates = nodes.learn(&mut tape, tau, settings.temperature as f32)?;
    let z = task_batch.logit_diffs_on_tape(model, &mut tape, &mut gates)?;
    let values = z.value().read()?;
    if first_not_finite(&values).is_some() {
        // Gates that learn belong to their tape.
        let kept: Vec<bool> = tau.iter().map(|&tau| tau >= 0.0).collect();
        task_batch.check_finite((LOGIT_DIFF, &values), model, &mut nodes.keep(&kept)?)?;
    }
    let loss = loss_backward(model, &mut tape, &z, &values)?;
    let task = gates.gradient(&mut tape)?;
    let slope = |tau: f32| {
        let s = 1.0 / (1.0 + (-f64::from(tau) / settings.temperature).exp());
        s * (1.0 - s) / settings.temperature
    };
    let price = |(&g, &tau): (&f32, &f32)| f64::from(g) + settings.k_coef * slope(tau);
    let excluded = nodes.excluded.iter();
    let gradient =
        task.iter().zip(tau).zip(excluded).map(|(node, &excluded)| if excluded { 0.0 } else { price(node) }).collect();
    Ok(GateGradient { loss, gradient })
}

/// The task loss of the logit differences `z`, which are `values`, after its backward pass.
pub(super) fn loss_backward(model: Weighted, tape: &mut Tape, z: &Var, values: &[f32]) -> Result<f64> {
    let count = values.len() as f64;
    let losses: Vec<(f64, f64)> = values.iter().map(|&z| loss(z.into())).collect();
    let dz: Vec<f32> = losses.iter().map(|(_, slope)| (-slope / count) as f32).collect();
    tape.backward(z, model.0.device.upload("gradient", &[dz.len()], &dz)?)?;
    Ok(losses.iter().map(|(loss, _)| loss).sum::<f64>() / count)
}

/// Learns a tau for every node: the larger, the more the task needs it. `task_batch` gives the
/// pairs of a step.
///
/// # Errors
/// Those of the forward pass and of `task_batch`; [`Error::NonFiniteSite`] if a difference or the
/// gradient is not finite.
pub fn learn(
    model: Weighted,
    nodes: &Nodes,
    settings: &SearchSettings,
    task_batch: &mut dyn FnMut(u64) -> Result<TaskBatch>,
    watch: &mut dyn FnMut(PruningStep),
) -> Result<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    let (mean, deviation) = settings.start;
    let mut tau: Vec<f32> = (0..nodes.layout.len()).map(|_| (mean + deviation * normal(&mut rng)) as f32).collect();
    let (mut m, mut v) = (vec![0.0; tau.len()], vec![0.0; tau.len()]);
    for i in 0..settings.steps {
        let GateGradient { loss, gradient } = step(model, nodes, &task_batch(i)?, &tau, settings)?;
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        if !norm.is_finite() {
            return Err(model.0.not_finite(format!("the gradient of the gates at step {i}"), norm as f32, None));
        }
        let kept = tau.iter().zip(&nodes.excluded).filter(|(tau, excluded)| **tau >= 0.0 && !**excluded).count();
        watch(PruningStep { step: i + 1, loss, kept });
        let scale = (settings.clip / norm.max(settings.clip)).min(1.0);
        let lr = settings.lr * settings.rate(i);
        let exponent = (i + 1) as f64;
        let (c1, c2) = (1.0 - settings.beta1.powf(exponent), 1.0 - settings.beta2.powf(exponent));
        for (((tau, g), m), v) in tau.iter_mut().zip(&gradient).zip(&mut m).zip(&mut v) {
            let g = g * scale;
            *m = settings.beta1 * *m + (1.0 - settings.beta1) * g;
            *v = settings.beta2 * *v + (1.0 - settings.beta2) * g * g;
            let update = (*m / c1) / ((*v / c2).sqrt() + settings.eps) + settings.weight_decay * f64::from(*tau);
            *tau = (f64::from(*tau) - lr * update).clamp(-1.0, 1.0) as f32;
        }
    }
    Ok(tau)
}

/// A standard normal number by Box and Muller's method.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    // 1 − u is in (0, 1], so that the logarithm is finite.
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Evaluates circuits on the same pairs.
pub struct CircuitScorer<'a> {
    /// The model and its weights.
    pub model: Weighted<'a>,
    /// Its nodes, with the mean activations that ablate those not kept.
    pub nodes: &'a Nodes,
    /// The pairs that the loss is a mean over.
    pub task_batch: &'a TaskBatch,
    /// What is fitted to the logit differences before the loss is taken.
    pub calibration: CalibrationKind,
}

impl CircuitScorer<'_> {
    /// The logit differences of the nodes in `keep` alone.
    ///
    /// # Errors
    /// Those of the forward pass.
    pub fn logit_diffs(&self, keep: &[bool]) -> Result<LogitDiffs> {
        self.task_batch.logit_diffs(self.model, &mut self.nodes.keep(keep)?)
    }

    /// The least loss that calibration gives the nodes in `keep`, and the calibration.
    ///
    /// # Errors
    /// Those of the forward pass.
    pub fn loss(&self, keep: &[bool]) -> Result<(f64, Calibration)> {
        let diffs = self.logit_diffs(keep)?;
        let calibration = diffs.calibrate(self.calibration);
        Ok((diffs.loss(calibration), calibration))
    }

    /// The least loss that calibration gives the nodes in `keep`, if it is at most `limit`. The
    /// first few prompts are enough to reject most worse sets.
    ///
    /// # Errors
    /// Those of the forward pass.
    pub fn within(&self, keep: &[bool], limit: f64) -> Result<Option<f64>> {
        let all = self.task_batch.lengths.len() as f64;
        // No prompt's loss is negative, and no calibration of all prompts is better for some of
        // them than their own, so the loss of some, calibrated, is a lower bound for all. The
        // twentieth is for the optimiser, which stops short of the optimum.
        let loss = |diffs: &LogitDiffs| diffs.loss(diffs.calibrate(self.calibration));
        let continues = |some: &LogitDiffs| loss(some) * some.len() as f64 <= 1.05 * limit * all;
        let diffs = self.task_batch.logit_diffs_while(self.model, &mut self.nodes.keep(keep)?, continues)?;
        Ok(diffs.as_ref().map(loss).filter(|loss| *loss <= limit))
    }
}

/// The numbers of the nodes in the order of their `scores`, largest first; of equals the lowest
/// number.
pub fn rank_nodes(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order
}

/// How many nodes `keep` has.
pub fn kept_count(keep: &[bool]) -> usize {
    keep.iter().filter(|kept| **kept).count()
}

/// The first `k` nodes of `order`.
pub fn keep_first(order: &[usize], k: usize) -> Vec<bool> {
    let mut keep = vec![false; order.len()];
    order.iter().take(k).for_each(|&n| keep[n] = true);
    keep
}

/// The smallest k, as bisection finds it, with which the first k nodes of `order` reach `target`;
/// nothing if not even all do.
///
/// # Errors
/// Those of the forward pass.
pub fn bisect(scorer: &CircuitScorer, order: &[usize], target: f64) -> Result<Option<usize>> {
    let reaches = |k: usize| Ok::<_, Error>(scorer.within(&keep_first(order, k), target)?.is_some());
    let (mut low, mut high) = (0, order.len());
    if !reaches(high)? {
        return Ok(None);
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if reaches(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(Some(high))
}

/// Removes nodes, those with the least effect on the loss first, as long as it stays within
/// `limit`. No single one of the remaining nodes can be removed.
///
/// # Errors
/// Those of the forward pass.
pub fn greedy_prune(scorer: &CircuitScorer, keep: &mut [bool], limit: f64) -> Result<()> {
    greedily(keep, &mut |keep| scorer.within(keep, limit))
}

/// Removes items of `keep`, those whose removal gives the least loss first, as long as `within` has
/// a loss. No single one of the remaining items can be removed.
///
/// # Errors
/// Those of `within`.
pub(super) fn greedily(keep: &mut [bool], within: &mut dyn FnMut(&[bool]) -> Result<Option<f64>>) -> Result<()> {
    let kept = |keep: &[bool]| -> Vec<usize> { (0..keep.len()).filter(|&n| keep[n]).collect() };
    let mut pool = kept(keep);
    loop {
        let mut candidates = Vec::new();
        for &n in &pool {
            keep[n] = false;
            let loss = within(keep)?;
            keep[n] = true;
            candidates.extend(loss.map(|loss| (loss, n)));
        }
        candidates.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        // The best ones are tried again, since each removal changes the effect of the next: many at
        // once as long as that works, fewer where it does not.
        let (mut at, mut size) = (0, candidates.len());
        while at < candidates.len() {
            let tried = &candidates[at..candidates.len().min(at + size)];
            tried.iter().for_each(|&(_, n)| keep[n] = false);
            if within(keep)?.is_some() {
                at += tried.len();
                size = 2 * tried.len();
            } else {
                tried.iter().for_each(|&(_, n)| keep[n] = true);
                at += usize::from(tried.len() == 1);
                size = (tried.len() / 2).max(1);
            }
        }
        // Nodes that could be removed before others were are measured again, and in the end all
        // remaining ones.
        let all = pool == kept(keep);
        pool = match candidates.iter().all(|&(_, n)| keep[n]) {
            true if all => return Ok(()),
            true => kept(keep),
            false => candidates.iter().map(|&(_, n)| n).filter(|&n| keep[n]).collect(),
        };
        pool.sort_unstable();
        if pool.is_empty() {
            pool = kept(keep);
        }
    }
}
