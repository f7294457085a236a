//! Pairs of a task run through a model: both prompts of every pair in one batch, and the logit
//! differences of the answers.

use std::cell::Cell;

use argmin::core::{CostFunction, Executor, Gradient};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use serde::{Deserialize, Serialize};

use super::tasks::TokenPair;
use crate::model::{Batch, Hooks, Model, QueryPositions, Weights};
use crate::ops::logit_diff::{TokenPairs, loss};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// Pairs on a device: first all clean prompts, then all counterfactual ones, padded on the right to
/// equal length. In a causal model, what follows a prompt does not change the logits at its end.
pub struct TaskBatch {
    whole: SubBatch,
    /// The same prompts in batches of similar length; none if they are few.
    parts: Vec<SubBatch>,
    /// The lengths of the prompts, the clean ones first; sequences are padded to the longest.
    pub(crate) lengths: Vec<usize>,
    /// The number of pairs.
    pub(crate) pairs: usize,
}

/// A batch with some of the prompts.
struct SubBatch {
    batch: Batch,
    positions: QueryPositions,
    choices: TokenPairs,
    /// The prompts' numbers.
    numbers: Vec<usize>,
}

/// A model and its weights.
pub type Weighted<'a> = (&'a Model, &'a Weights);

/// A prompt, the correct and the incorrect token after it.
type Prompt<'a> = (&'a [u32], u32, u32);

/// What [`TaskBatch::logit_diffs_on_tape`] gives, where it is not finite.
pub(super) const LOGIT_DIFF: &str = "the difference between the answers' logits";

/// Tokens of a batch on the CPU: few enough that their activations stay in its caches.
const PART: usize = 1024;

impl TaskBatch {
    /// Puts pairs on the model's device.
    ///
    /// # Errors
    /// [`Error::Shape`] for no pairs, empty prompts or prompts longer than the model reads, and the
    /// device's limits.
    pub fn new(model: &Model, pairs: &[TokenPair]) -> Result<Self> {
        let clean = pairs.iter().map(|p| (&p.clean[..], p.target, p.alternative));
        let counterfactual = pairs.iter().map(|p| (&p.counterfactual[..], p.alternative, p.target));
        let prompts: Vec<Prompt> = clean.chain(counterfactual).collect();
        let lengths: Vec<usize> = prompts.iter().map(|(prompt, ..)| prompt.len()).collect();
        let whole = SubBatch::new(model, &prompts, (0..prompts.len()).collect())?;
        let mut parts = Vec::new();
        if model.device.is_cpu() && prompts.len() * whole.batch.shape().1 > PART {
            let mut order: Vec<usize> = (0..prompts.len()).collect();
            order.sort_by_key(|&number| lengths[number]);
            let mut rest = &order[..];
            while let Some(&longest) = rest.last() {
                let (before, part) = rest.split_at(rest.len().saturating_sub((PART / lengths[longest]).max(1)));
                parts.push(SubBatch::new(model, &prompts, part.to_vec())?);
                rest = before;
            }
        }
        Ok(Self { whole, parts, lengths, pairs: pairs.len() })
    }

    /// For every prompt the correct answer's logit minus the other's, `(2 · pairs)`, recorded on
    /// `tape`.
    pub(crate) fn logit_diffs_on_tape(&self, model: Weighted, tape: &mut Tape, sites: &mut dyn Hooks) -> Result<Var> {
        self.whole.logit_diffs_on_tape(model, tape, sites)
    }

    /// Returns an error if one of `values` is not finite, which were computed, as `what` says, from
    /// a forward pass of all prompts with these hooks.
    pub(crate) fn check_finite(
        &self,
        (what, values): (&str, &[f32]),
        (model, weights): Weighted,
        sites: &mut dyn Hooks,
    ) -> Result<()> {
        model.check_finite(what, values, weights, &self.whole.batch, sites)
    }

    /// The logit differences, without gradients. The hooks may be called for a few prompts at a
    /// time.
    ///
    /// # Errors
    /// [`Error::NonFiniteSite`] if a difference is not finite; those of the forward pass and of the
    /// hooks.
    pub fn logit_diffs(&self, model: Weighted, sites: &mut dyn Hooks) -> Result<LogitDiffs> {
        Ok(self.logit_diffs_while(model, sites, |_| true)?.unwrap_or_default())
    }

    /// As [`TaskBatch::logit_diffs`], but returns nothing as soon as `continues` returns false for
    /// the differences so far.
    ///
    /// # Errors
    /// Those of the forward pass and of the hooks.
    pub fn logit_diffs_while(
        &self,
        model: Weighted,
        sites: &mut dyn Hooks,
        mut continues: impl FnMut(&LogitDiffs) -> bool,
    ) -> Result<Option<LogitDiffs>> {
        let parts = if self.parts.is_empty() { std::slice::from_ref(&self.whole) } else { &self.parts[..] };
        // In the order of the prompts, so that sums do not depend on the order of the batches.
        let mut diffs: Vec<Option<f64>> = vec![None; self.lengths.len()];
        let collect = |diffs: &[Option<f64>]| {
            let (clean, counterfactual) = diffs.split_at(self.pairs);
            let [clean, counterfactual] = [clean, counterfactual].map(|side| side.iter().flatten().copied().collect());
            LogitDiffs { clean, counterfactual }
        };
        for (done, part) in parts.iter().enumerate() {
            if done > 0 && !continues(&collect(&diffs)) {
                return Ok(None);
            }
            let z = part.logit_diffs_on_tape(model, &mut Tape::new(), sites)?.value().read()?;
            model.0.check_finite(LOGIT_DIFF, &z, model.1, &part.batch, sites)?;
            part.numbers.iter().zip(z).for_each(|(&number, z)| diffs[number] = Some(f64::from(z)));
        }
        Ok(Some(collect(&diffs)))
    }

    /// As [`TaskBatch::logit_diffs`], with all prompts in one batch.
    ///
    /// # Errors
    /// Those of the forward pass and of the hooks.
    pub fn logit_diffs_at_once(&self, model: Weighted, sites: &mut dyn Hooks) -> Result<LogitDiffs> {
        let z = self.logit_diffs_on_tape(model, &mut Tape::new(), sites)?.value().read()?;
        self.check_finite((LOGIT_DIFF, &z), model, sites)?;
        let wide = |z: &[f32]| z.iter().map(|&z| f64::from(z)).collect();
        Ok(LogitDiffs { clean: wide(&z[..self.pairs]), counterfactual: wide(&z[self.pairs..]) })
    }
}

impl SubBatch {
    fn new(model: &Model, all: &[Prompt], numbers: Vec<usize>) -> Result<Self> {
        let prompts = || numbers.iter().map(|&number| all[number]);
        let longest = prompts().map(|(prompt, ..)| prompt.len()).max().unwrap_or(0);
        let (mut tokens, mut choices, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for (prompt, right, wrong) in prompts() {
            ends.push(prompt.len().checked_sub(1).ok_or_else(|| Error::shape("task_batch", "an empty prompt"))?);
            tokens.extend_from_slice(prompt);
            tokens.resize(tokens.len() + longest - prompt.len(), 0);
            choices.push((0, right, wrong));
        }
        let batch = Batch::new(&model.device, &model.config, &tokens, numbers.len())?;
        let positions = QueryPositions::new(&model.device, &batch, &ends)?;
        let choices = TokenPairs::new(&model.device, [numbers.len(), 1, model.config.vocab_size], &choices)?;
        Ok(Self { batch, positions, choices, numbers })
    }

    fn logit_diffs_on_tape(&self, (model, weights): Weighted, tape: &mut Tape, sites: &mut dyn Hooks) -> Result<Var> {
        let logits = model.forward_at(tape, weights, &self.batch, &self.positions, sites)?;
        tape.logit_diff(&logits, &self.choices)
    }
}

/// The correct answer's logit minus the other's, for every prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogitDiffs {
    /// Of the clean prompts.
    pub clean: Vec<f64>,
    /// Of the counterfactual prompts.
    pub counterfactual: Vec<f64>,
}

/// A scale and a shift of the two answers' logits (method: section 4). The shift favours the
/// target.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Multiplies the difference of the logits.
    pub scale: f64,
    /// Is added to the target's logit.
    pub shift: f64,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { scale: 1.0, shift: 0.0 }
    }
}

impl LogitDiffs {
    fn calibrated(&self, c: Calibration) -> impl Iterator<Item = f64> + '_ {
        let clean = self.clean.iter().map(move |z| c.scale * z + c.shift);
        clean.chain(self.counterfactual.iter().map(move |z| c.scale * z - c.shift))
    }

    /// The number of prompts.
    pub(super) fn len(&self) -> usize {
        self.clean.len() + self.counterfactual.len()
    }

    /// The task loss: minus log softmax over the two answers, averaged over both members of all
    /// pairs.
    pub fn loss(&self, calibration: Calibration) -> f64 {
        let count = self.len().max(1);
        self.calibrated(calibration).map(|z| loss(z).0).sum::<f64>() / count as f64
    }

    /// The share of prompts whose correct answer is the more probable one.
    pub(crate) fn accuracy(&self, calibration: Calibration) -> f64 {
        let count = self.len().max(1);
        self.calibrated(calibration).filter(|z| *z > 0.0).count() as f64 / count as f64
    }

    /// The calibration with the least loss that 16 steps of L-BFGS find; the neutral one where they
    /// find none better, and for differences that are not finite.
    pub fn calibrate(&self) -> Calibration {
        let start = Calibration::default();
        let line = MoreThuenteLineSearch::new();
        let solver = LBFGS::new(line, 7);
        let problem = CalibrationProblem { diffs: self, left: Cell::new(EVALUATIONS) };
        let run = Executor::new(problem, solver).configure(|state| state.param(vec![1.0, 0.0]).max_iters(16)).run();
        let best = run.ok().and_then(|run| run.state.best_param);
        let found = best.as_deref().map(|p| Calibration { scale: p[0], shift: p[1] });
        let better = |c: &Calibration| c.scale.is_finite() && c.shift.is_finite() && self.loss(*c) < self.loss(start);
        found.filter(better).unwrap_or(start)
    }
}

/// Evaluations of the loss in a calibration, at most. Each of sixteen line searches takes a few if
/// it converges; one that meets numbers that are not finite would never end.
const EVALUATIONS: u32 = 1000;

/// The loss that calibration minimises.
struct CalibrationProblem<'a> {
    diffs: &'a LogitDiffs,
    left: Cell<u32>,
}

impl CalibrationProblem<'_> {
    /// Ends the calibration if a number is not finite or there were too many evaluations.
    fn check(&self, numbers: &[f64]) -> Result<(), argmin::core::Error> {
        self.left.set(self.left.get().saturating_sub(1));
        match self.left.get() > 0 && numbers.iter().all(|number| number.is_finite()) {
            true => Ok(()),
            false => Err(argmin::core::Error::msg("the calibration does not converge")),
        }
    }
}

impl CostFunction for CalibrationProblem<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, p: &Vec<f64>) -> Result<f64, argmin::core::Error> {
        let loss = self.diffs.loss(Calibration { scale: p[0], shift: p[1] });
        self.check(&[loss, p[0], p[1]])?;
        Ok(loss)
    }
}

impl Gradient for CalibrationProblem<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, p: &Vec<f64>) -> Result<Vec<f64>, argmin::core::Error> {
        let (scale, shift) = (p[0], p[1]);
        let count = self.diffs.len().max(1) as f64;
        let mut gradient = vec![0.0; 2];
        for (diffs, sign) in [(&self.diffs.clean, 1.0), (&self.diffs.counterfactual, -1.0)] {
            for z in diffs {
                let slope = loss(scale * z + sign * shift).1;
                gradient[0] -= slope * z / count;
                gradient[1] -= slope * sign / count;
            }
        }
        self.check(&gradient)?;
        Ok(gradient)
    }
}
