//! The comparators themselves: each must catch a planted error.

use crate::common::{central_differences, error};

#[test]
fn agreement_passes_and_planted_errors_are_seen() {
    let want = [1.0, -2.0, 3.0];
    assert!(error(&[1.0, -2.0, 3.0], &want).unwrap() == 0.0);
    assert!(error(&[1.0, -2.0, 3.004], &want).unwrap() > 9e-4);
    assert!(error(&[1.0, -2.0], &want).is_err(), "a missing entry");
    assert!(error(&[], &[]).is_err(), "an empty comparison");
    assert!(error(&[1.0, f32::NAN, 3.0], &want).is_err(), "a NaN");
    assert!(error(&[1.0, f32::INFINITY, 3.0], &want).is_err(), "an infinity");
    assert!(error(&[1.0, -2.0, 3.0], &[1.0, -2.0, f64::NAN]).is_err(), "a NaN in the oracle");
}

#[test]
fn central_differences_find_a_known_gradient() {
    let gradient = central_differences(&[2.0, -3.0], 1e-5, |x| x[0] * x[0] * x[1]);
    assert!((gradient[0] + 12.0).abs() < 1e-6 && (gradient[1] - 4.0).abs() < 1e-6, "{gradient:?}");
}
