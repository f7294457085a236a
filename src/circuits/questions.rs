//! Pairs of a task put to a model: both prompts of every pair in one batch, and how sure it is of the right answers.

use argmin::core::{CostFunction, Executor, Gradient};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use serde::{Deserialize, Serialize};

use super::tasks::Tokens;
use crate::model::{Batch, Model, Sites, Weights};
use crate::ops::contrast::{Choices, loss};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// Pairs on a device: first all positive prompts, then all negative ones, padded on the right to equal length. What comes
/// after a prompt does not change what a causal model says at its end.
pub struct Questions {
    batch: Batch,
    choices: Choices,
    lengths: Vec<usize>,
    pairs: usize,
}

impl Questions {
    /// Puts pairs on the model's device.
    ///
    /// # Errors
    /// [`Error::Shape`] for no pairs, empty prompts or prompts longer than the model reads, and the device's limits.
    pub fn new(model: &Model, pairs: &[Tokens]) -> Result<Self> {
        let positive = pairs.iter().map(|p| (&p.positive, p.target, p.alternative));
        let negative = pairs.iter().map(|p| (&p.negative, p.alternative, p.target));
        let prompts: Vec<_> = positive.chain(negative).collect();
        let longest = prompts.iter().map(|(prompt, ..)| prompt.len()).max().unwrap_or(0);
        let (mut tokens, mut choices, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for (prompt, right, wrong) in &prompts {
            let last = prompt.len().checked_sub(1).ok_or_else(|| Error::shape("questions", "an empty prompt"))?;
            tokens.extend_from_slice(prompt);
            tokens.resize(tokens.len() + longest - prompt.len(), 0);
            choices.push((last, *right, *wrong));
            lengths.push(prompt.len());
        }
        let batch = Batch::new(&model.device, &model.config, &tokens, prompts.len())?;
        let shape = [prompts.len(), longest, model.config.vocab_size];
        Ok(Self { batch, choices: Choices::new(&model.device, shape, &choices)?, lengths, pairs: pairs.len() })
    }

    /// How many pairs there are.
    pub fn pairs(&self) -> usize {
        self.pairs
    }

    /// The lengths of the prompts, the positive ones first; sequences are padded to the longest.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// For every prompt the right answer's logit minus the wrong one's, `(2 · pairs)`.
    ///
    /// # Errors
    /// Those of the forward pass and of `sites`.
    pub fn ask(&self, model: &Model, weights: &Weights, tape: &mut Tape, sites: &mut dyn Sites) -> Result<Var> {
        let logits = model.forward(tape, weights, &self.batch, sites)?;
        tape.contrast(&logits, &self.choices)
    }

    /// The model's answers, without a way back.
    ///
    /// # Errors
    /// Those of the forward pass and of `sites`.
    pub fn answers(&self, model: &Model, weights: &Weights, sites: &mut dyn Sites) -> Result<Answers> {
        let z = self.ask(model, weights, &mut Tape::new(), sites)?.value().read()?;
        let wide = |z: &[f32]| z.iter().map(|&z| f64::from(z)).collect();
        Ok(Answers { positive: wide(&z[..self.pairs]), negative: wide(&z[self.pairs..]) })
    }
}

/// How sure a model is of the right answers: the right one's logit minus the wrong one's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// Of the positive prompts.
    pub positive: Vec<f64>,
    /// Of the negative prompts.
    pub negative: Vec<f64>,
}

/// A scale and a shift of the two answers' logits (method: section 4). The shift favours the target.
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

impl Answers {
    fn calibrated(&self, c: Calibration) -> impl Iterator<Item = f64> + '_ {
        let positive = self.positive.iter().map(move |z| c.scale * z + c.shift);
        positive.chain(self.negative.iter().map(move |z| c.scale * z - c.shift))
    }

    /// The task loss: minus log softmax over the two answers, averaged over both members of all pairs.
    pub fn loss(&self, calibration: Calibration) -> f64 {
        let count = (self.positive.len() + self.negative.len()).max(1);
        self.calibrated(calibration).map(|z| loss(z).0).sum::<f64>() / count as f64
    }

    /// The share of prompts whose right answer is the more probable one.
    pub fn accuracy(&self, calibration: Calibration) -> f64 {
        let count = (self.positive.len() + self.negative.len()).max(1);
        self.calibrated(calibration).filter(|z| *z > 0.0).count() as f64 / count as f64
    }

    /// The calibration with the least loss that 16 steps of L-BFGS find; the neutral one where they find none better.
    pub fn calibrate(&self) -> Calibration {
        let start = Calibration::default();
        let line = MoreThuenteLineSearch::new();
        let solver = LBFGS::new(line, 7);
        let run = Executor::new(self, solver).configure(|state| state.param(vec![1.0, 0.0]).max_iters(16)).run();
        let best = run.ok().and_then(|run| run.state.best_param);
        let found = best.as_deref().map(|p| Calibration { scale: p[0], shift: p[1] });
        let better = |c: &Calibration| c.scale.is_finite() && c.shift.is_finite() && self.loss(*c) < self.loss(start);
        found.filter(better).unwrap_or(start)
    }
}

impl CostFunction for &Answers {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, p: &Vec<f64>) -> Result<f64, argmin::core::Error> {
        Ok(self.loss(Calibration { scale: p[0], shift: p[1] }))
    }
}

impl Gradient for &Answers {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, p: &Vec<f64>) -> Result<Vec<f64>, argmin::core::Error> {
        let (scale, shift) = (p[0], p[1]);
        let count = (self.positive.len() + self.negative.len()).max(1) as f64;
        let mut gradient = vec![0.0; 2];
        for (answers, sign) in [(&self.positive, 1.0), (&self.negative, -1.0)] {
            for z in answers {
                let slope = loss(scale * z + sign * shift).1;
                gradient[0] -= slope * z / count;
                gradient[1] -= slope * sign / count;
            }
        }
        Ok(gradient)
    }
}
