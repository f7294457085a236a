//! Pairs of a task run through a model: both prompts of every pair in one batch, and the logit
//! differences of the answers.

use super::LogitDiffs;
use super::tasks::TokenPair;
use crate::Result;
use crate::model::{Batch, Hooks, Model, QueryPositions, Weights};
use crate::ops::logit_diff::TokenPairs;
use crate::tape::{Tape, Var};

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
    /// [`Error::Shape`](crate::Error::Shape) for no pairs, empty prompts or prompts longer than the model reads, and the
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
    /// [`Error::NonFiniteSite`](crate::Error::NonFiniteSite) if a difference is not finite; those of the forward pass and of the
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
        let prompts: Vec<&[u32]> = numbers.iter().map(|&number| all[number].0).collect();
        let choices: Vec<_> = numbers.iter().map(|&number| (0, all[number].1, all[number].2)).collect();
        let batch = Batch::of_prompts(&model.device, &model.config, &prompts)?;
        let positions = QueryPositions::last(&model.device, &batch)?;
        let choices = TokenPairs::new(&model.device, [numbers.len(), 1, model.config.vocab_size], &choices)?;
        Ok(Self { batch, positions, choices, numbers })
    }

    fn logit_diffs_on_tape(&self, (model, weights): Weighted, tape: &mut Tape, sites: &mut dyn Hooks) -> Result<Var> {
        let logits = model.forward_at(tape, weights, &self.batch, &self.positions, sites)?;
        tape.logit_diff(&logits, &self.choices)
    }
}
