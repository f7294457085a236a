//! Does this device compute the right numbers? Golden cases, computed in float64 by an independent
//! implementation, are compared with what the device computes; some are built into the library,
//! others are folders of the same format. Each operation alone is compared with plain loops
//! ([`operations`]).

mod bridge;
mod choices;
mod forward;
mod golden;
mod ops;
mod prune;
mod train;

use crate::Result;
use crate::device::Device;
pub use golden::{Case, CaseKind, built_in};
pub use ops::operations;

/// How one quantity of a case compares with its golden numbers.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// What was compared, such as `logits` or `gradients`.
    pub quantity: String,
    /// The worst error found, in the measure of the tolerance. Infinite where numbers are not
    /// finite, missing, or of another shape.
    pub error: f64,
    /// What is allowed.
    pub tolerance: f64,
    /// Where the worst error is, or why the numbers cannot be compared.
    pub at: String,
}

impl Comparison {
    /// Whether the error is within its tolerance.
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Losses: relative error.
const LOSS: f64 = 1e-5;
/// Activations and logits: largest difference over 1 + max|x|.
const ACTIVATION: f64 = 2e-5;
/// Gradients: norm of the difference over the norm.
const GRADIENT: f64 = 1e-4;
/// Weights after training: largest difference over max|w|.
const WEIGHT: f64 = 1e-4;

/// Runs one case on a device.
///
/// # Errors
/// If the case cannot be read or the device fails; wrong numbers are comparisons, not errors.
pub fn run(case: &Case, device: &Device) -> Result<Vec<Comparison>> {
    match case.kind {
        CaseKind::Forward => forward::run(case, device),
        CaseKind::Train => train::run(case, device),
        CaseKind::Prune => prune::run(case, device),
        CaseKind::Bridge => bridge::run(case, device),
    }
}

/// Collects the worst error of one quantity over many tensors.
struct Worst {
    quantity: &'static str,
    tolerance: f64,
    error: f64,
    at: String,
    compared: usize,
    note: String,
}

impl Worst {
    fn new(quantity: &'static str, tolerance: f64) -> Self {
        Self { quantity, tolerance, error: 0.0, at: String::new(), compared: 0, note: String::new() }
    }

    fn see(&mut self, name: &str, error: std::result::Result<f64, String>) {
        self.compared += 1;
        let (error, at) = match error {
            Ok(error) => (error, name.to_string()),
            Err(reason) => (f64::INFINITY, format!("{name}: {reason}")),
        };
        if error > self.error || self.at.is_empty() {
            (self.error, self.at) = (error, at);
        }
    }

    /// A remark on how the numbers were compared.
    fn note(&mut self, note: String) {
        self.note = note;
    }

    fn comparison(mut self) -> Comparison {
        if self.compared == 0 {
            (self.error, self.at) = (f64::INFINITY, "nothing to compare".into());
        }
        let at = format!("{} {}", self.at, self.note).trim().to_string();
        Comparison { quantity: self.quantity.into(), error: self.error, tolerance: self.tolerance, at }
    }
}

/// Largest difference and largest expected magnitude.
fn largest(got: &[f32], want: &[f32]) -> std::result::Result<(f64, f64), String> {
    comparable(got, want)?;
    let difference = got.iter().zip(want).fold(0.0f64, |m, (&g, &w)| m.max((f64::from(g) - f64::from(w)).abs()));
    Ok((difference, want.iter().fold(0.0f64, |m, &w| m.max(f64::from(w).abs()))))
}

/// Largest difference over 1 + the largest expected magnitude.
fn relative_largest(got: &[f32], want: &[f32]) -> std::result::Result<f64, String> {
    largest(got, want).map(|(difference, scale)| difference / (1.0 + scale))
}

/// Norm of the difference over the norm of what is expected. Where only zeros are expected, the
/// norm of the difference.
fn relative_norm(got: &[f32], want: &[f32]) -> std::result::Result<f64, String> {
    comparable(got, want)?;
    let square = |x: f64| x * x;
    let difference: f64 = got.iter().zip(want).map(|(&g, &w)| square(f64::from(g) - f64::from(w))).sum();
    let norm: f64 = want.iter().map(|&w| square(w.into())).sum();
    Ok(if norm == 0.0 { difference.sqrt() } else { (difference / norm).sqrt() })
}

fn comparable(got: &[f32], want: &[f32]) -> std::result::Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{} numbers, expected {}", got.len(), want.len()));
    }
    if got.is_empty() {
        return Err("nothing to compare".into());
    }
    match got.iter().zip(want).position(|(g, w)| !g.is_finite() || !w.is_finite()) {
        Some(i) => Err(format!("number {i} is not finite ({}, expected {})", got[i], want[i])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparators_see_planted_errors() {
        let want = [3.0f32, 0.0, -4.0];
        assert_eq!(largest(&want, &want).unwrap(), (0.0, 4.0));
        assert_eq!(relative_norm(&want, &want).unwrap(), 0.0);
        assert!((relative_norm(&[3.0, 0.0, -4.005], &want).unwrap() - 0.001).abs() < 1e-6);
        assert!(largest(&[3.0, 0.0], &want).is_err());
        assert!(largest(&[], &[]).is_err());
        assert!(relative_norm(&[3.0, f32::NAN, -4.0], &want).is_err());
        assert!(relative_norm(&want, &[3.0, f32::INFINITY, -4.0]).is_err());
        let mut worst = Worst::new("x", 1e-3);
        assert!(!Worst::new("nothing", 1.0).comparison().passed());
        worst.see("a", Ok(1e-4));
        worst.see("b", Ok(1e-2));
        let comparison = worst.comparison();
        assert!(!comparison.passed() && comparison.at == "b");
        let mut worst = Worst::new("x", 1e-3);
        worst.see("a", Err("gone".into()));
        assert!(!worst.comparison().passed());
    }
}
