//! Logit differences of a task's answers, the losses they give, and the calibration that goes
//! before (method: section 4).

use std::cell::Cell;
use std::fmt;

use argmin::core::{CostFunction, Executor, Gradient};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::ops::logit_diff::loss;

/// The correct answer's logit minus the other's, for every prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogitDiffs {
    /// Of the clean prompts.
    pub clean: Vec<f64>,
    /// Of the counterfactual prompts.
    pub counterfactual: Vec<f64>,
}

/// What may be done to logit differences before a loss is taken of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum CalibrationKind {
    /// Nothing.
    None,
    /// They are multiplied by a positive number: the model's confidence changes, none of its
    /// answers.
    #[default]
    Scale,
    /// They are multiplied, and a number is added in favour of the target. That is a free decision
    /// threshold: it can make a circuit look informed that prefers one answer for all prompts.
    Affine,
}

impl CalibrationKind {
    /// All names, as settings and files have them.
    pub const NAMES: &'static [&'static str] = &["none", "scale", "affine"];
}

impl fmt::Display for CalibrationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES[*self as usize])
    }
}

/// A scale and a shift of the two answers' logits (method: section 4). The shift favours the
/// target.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Multiplies the difference of the logits; above 0.
    pub scale: f64,
    /// Is added to the target's logit.
    pub shift: f64,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { scale: 1.0, shift: 0.0 }
    }
}

impl Calibration {
    /// The smallest scale that is fitted: all answers are as good as equally probable.
    pub const MIN_SCALE: f64 = 1e-6;
    /// The largest scale that is fitted. Without a bound, any difference however small would do,
    /// if only its sign is correct in all train pairs.
    pub const MAX_SCALE: f64 = 16.0;
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
    /// pairs, in nats.
    pub fn loss(&self, calibration: Calibration) -> f64 {
        let count = self.len().max(1);
        self.calibrated(calibration).map(|z| loss(z).0).sum::<f64>() / count as f64
    }

    /// The share of prompts whose correct answer is the more probable one, 0 to 1.
    pub fn accuracy(&self, calibration: Calibration) -> f64 {
        let count = self.len().max(1);
        self.calibrated(calibration).filter(|z| *z > 0.0).count() as f64 / count as f64
    }

    /// The mean over all prompts.
    pub fn mean(&self) -> f64 {
        self.calibrated(Calibration::default()).sum::<f64>() / self.len().max(1) as f64
    }

    /// The calibration of that kind with the least loss; the neutral one for differences that are
    /// not finite. Scales are between [`Calibration::MIN_SCALE`] and [`Calibration::MAX_SCALE`].
    pub fn calibrate(&self, kind: CalibrationKind) -> Calibration {
        let neutral = Calibration::default();
        if kind == CalibrationKind::None || !self.calibrated(neutral).all(f64::is_finite) {
            return neutral;
        }
        match kind {
            CalibrationKind::Affine => self.affine(),
            _ => self.scale(0.0),
        }
    }

    /// The best scale for a shift. The loss is convex in the scale, so that its slope has one zero.
    fn scale(&self, shift: f64) -> Calibration {
        let slope = |scale: f64| self.slope(Calibration { scale, shift })[0];
        // At chance, every scale is as good as any other.
        let scale = match slope(1.0) {
            0.0 => 1.0,
            _ => bisect([Calibration::MIN_SCALE.ln(), Calibration::MAX_SCALE.ln()], |ln| slope(ln.exp())).exp(),
        };
        Calibration { scale, shift }
    }

    /// The best that 16 steps of L-BFGS find; the best one with a scale at the bound, if they leave
    /// the bounds; the neutral one where they find none better.
    fn affine(&self) -> Calibration {
        let start = Calibration::default();
        let line = MoreThuenteLineSearch::new();
        let solver = LBFGS::new(line, 7);
        let problem = CalibrationProblem { diffs: self, left: Cell::new(EVALUATIONS) };
        let run = Executor::new(problem, solver).configure(|state| state.param(vec![1.0, 0.0]).max_iters(16)).run();
        let best = run.ok().and_then(|run| run.state.best_param);
        let within = |p: &[f64]| match p[0].clamp(Calibration::MIN_SCALE, Calibration::MAX_SCALE) {
            scale if scale == p[0] => Calibration { scale, shift: p[1] },
            scale => {
                // Beyond the largest logit difference, a shift decides alone.
                let most = 1.0 + scale * self.calibrated(start).fold(0.0, |most: f64, z| most.max(z.abs()));
                let shift = bisect([-most, most], |shift| self.slope(Calibration { scale, shift })[1]);
                Calibration { scale, shift }
            }
        };
        let better = |c: &Calibration| c.scale.is_finite() && c.shift.is_finite() && self.loss(*c) < self.loss(start);
        best.as_deref().map(within).filter(better).unwrap_or(start)
    }

    /// The loss's derivatives by scale and shift.
    fn slope(&self, Calibration { scale, shift }: Calibration) -> [f64; 2] {
        let count = self.len().max(1) as f64;
        let mut slope = [0.0; 2];
        for (diffs, sign) in [(&self.clean, 1.0), (&self.counterfactual, -1.0)] {
            for z in diffs {
                let by_logit = loss(scale * z + sign * shift).1;
                slope[0] -= by_logit * z / count;
                slope[1] -= by_logit * sign / count;
            }
        }
        slope
    }
}

/// Where a rising function crosses 0 between two bounds; one of these, if it does not.
fn bisect([mut low, mut high]: [f64; 2], f: impl Fn(f64) -> f64) -> f64 {
    if f(low) >= 0.0 {
        return low;
    }
    if f(high) <= 0.0 {
        return high;
    }
    // To a relative precision of 2⁻⁴⁰ of the interval.
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if f(middle) > 0.0 { high = middle } else { low = middle }
    }
    0.5 * (low + high)
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
        let gradient = self.diffs.slope(Calibration { scale: p[0], shift: p[1] }).to_vec();
        self.check(&gradient)?;
        Ok(gradient)
    }
}
