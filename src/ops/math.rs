//! Exponentials without calls, so that loops over them become vector code. Call them inside
//! [`crate::device::cpu::simd`], where `mul_add` is one instruction.

use std::f32::consts::LOG2_E;

/// Lanes that reductions keep apart: two of the widest vectors in common use.
pub(super) const LANES: usize = 16;

/// `e^x`, with a relative error below 1.5e-7. For softmax: below -87 it is exactly 0, above 88 it
/// stays at `e^88` instead of overflowing. NaN stays NaN.
///
/// `x = n ln 2 + r` with `|r| <= ln(2)/2`; the polynomial interpolates `(e^r - 1 - r)/r^2` at
/// Chebyshev nodes.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer, which then sits in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first of them with so few bits that its product with n is exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let capped = if x > 88.0 { 88.0 } else { x };
    let shifted = capped.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, capped));
    let mut tail = 0.001_392_617_6_f32;
    for c in [0.008_363_173, 0.041_666_556, 0.166_665_77, 0.5] {
        tail = tail.mul_add(r, c);
    }
    let fraction = tail.mul_add(r * r, r) + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { fraction * power }
}

/// The normal distribution function `(1 + erf(x/sqrt 2))/2` and the bell `e^(-x^2/2)`, for every
/// finite `x`. Their absolute errors are below 1e-7; far out they are exactly 0 and 1.
///
/// The tail beyond `|x|` is `e^(-x^2/2) R(s)` with `s = |x|/(|x| + 2)`: the smooth factor of
/// Abramowitz and Stegun's formula 7.1.26 in a variable that loses no digits near 0. `R`
/// interpolates `R(0) = 1/2` and Chebyshev nodes up to `|x| = 6`; it is within 1.5e-9 of the tail.
#[inline(always)]
pub(super) fn normal_cdf(x: f32) -> (f32, f32) {
    let bell = exp(-0.5 * x * x);
    let s = x.abs() / (x.abs() + 2.0);
    let mut ratio = 0.032_578_f32;
    for c in
        [-0.042_491_75, -0.005_915_976_6, -0.037_886_493, 0.011_561_967, 0.138_185_54, 0.202_118_27, -0.797_884_6, 0.5]
    {
        ratio = ratio.mul_add(s, c);
    }
    let tail = bell * ratio;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell)
}

/// The largest of `x`, or minus infinity if there is none.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &v) in lanes.iter_mut().zip(block) {
            *lane = if v > *lane { v } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &v| m.max(v))
}

/// The largest entry of `row`, and the logarithm of the sum of `e^(x − largest)`.
#[inline(always)]
pub(super) fn log_sum(row: &[f32]) -> (f32, f32) {
    let top = largest(row);
    (top, sum_of(row, |v| exp(v - top)).ln())
}

/// The sum of `term(v)` over the entries `v` of `x`, added up lane by lane.
#[inline(always)]
pub(super) fn sum_of(x: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &v) in lanes.iter_mut().zip(block) {
            *lane += term(v);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|&v| term(v)).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::vectorised;

    #[test]
    fn exponentials_are_accurate_where_floats_are_normal() {
        let worst = (-870_000..=880_000).fold(0.0f64, |worst, i| {
            let x = i as f32 * 1e-4;
            let want = f64::from(x).exp();
            worst.max((f64::from(vectorised!(exp(x))) / want - 1.0).abs())
        });
        assert!(worst < 1.5e-7 && worst > 1e-9, "{worst:e}");
    }

    #[test]
    fn exponentials_keep_their_promises_at_the_ends() {
        for x in [-87.1, -1e3, -1e30, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(exp(x), 0.0, "{x}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!(exp(1e30), exp(88.0));
        assert!(exp(88.0).is_finite() && exp(f32::NAN).is_nan());
    }

    #[test]
    fn the_largest_is_found_in_every_place() {
        for n in [1, 15, 16, 17, 40] {
            for at in 0..n {
                let x: Vec<f32> = (0..n).map(|i| if i == at { -1.0 } else { -2.0 - i as f32 }).collect();
                assert_eq!(largest(&x), -1.0);
                assert_eq!(sum_of(&x, |v| if v == -1.0 { 1.0 } else { 0.0 }), 1.0);
            }
        }
        assert_eq!(largest(&[]), f32::NEG_INFINITY);
    }
}
