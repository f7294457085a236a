//! Entries of at least a learned magnitude: with `ε[c] = e^{log_eps[c]}` a threshold a channel,
//! `y[r, c] = z[r, c]` where `|z[r, c]| ≥ ε[c]`, else 0. z: (.., C), log_eps: (C).
//!
//! That is the hard form. The soft one, in which thresholds learn, is `y = z s` with `s =
//! sigmoid(sharpness · (|z| − ε))`, and becomes the hard one as the sharpness grows.
//!
//! Gradients of the hard form: `dz = dy` where the entry is kept, else 0, and none for log_eps. Of
//! the soft form: `dz = dy (s + |z| · sharpness · s (1 − s))` and `dlog_eps[c] = −sharpness · ε[c] ·
//! Σ_r dy z s (1 − s)`. `ε` is at least `e^-87` and at most `e^80`.

use super::elementwise::Rows;
use super::math::exp;
use super::{expect_same, expect_shape};
use crate::device::cpu::{for_row_blocks, inlined, rows_per_block};
use crate::device::{Backend, Launch, Shader, Tensor, params};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

params! {
    struct SoftParams { rows: u32, width: u32, sharpness: f32 }
    struct SumParams { rows: u32, width: u32, chunks: u32, sharpness: f32 }
    struct LogEpsParams { chunks: u32, width: u32 }
}

pub(super) const SHADER: Shader = Shader::new("threshold", include_str!("../../shaders/threshold.wgsl"));

/// Rows that one partial sum of the gradient of log_eps takes.
const ROWS: usize = 64;

/// The entries that reach their channel's threshold: z: (.., C), log_eps: (C). With a sharpness
/// the soft form.
///
/// # Errors
/// [`Error::Shape`] for a sharpness that is not positive and finite.
pub fn forward(z: &Tensor, log_eps: &Tensor, sharpness: Option<f32>) -> Result<Tensor> {
    let kernels = ["hard", "soft"];
    inlined!(each(kernels, [z], log_eps, sharpness), |[z], gate| if gate.open == 0.0 { 0.0 } else { z * gate.open })
}

/// The gradient of z: (.., C).
///
/// # Errors
/// Those of [`forward`].
pub fn backward_input(dout: &Tensor, z: &Tensor, log_eps: &Tensor, sharpness: Option<f32>) -> Result<Tensor> {
    let kernels = ["backward_hard", "backward_soft"];
    inlined!(each(kernels, [dout, z], log_eps, sharpness), |[dout, z], gate| dout * (gate.open + z.abs() * gate.slope))
}

/// The gradient of log_eps in the soft form: (C).
///
/// # Errors
/// Those of [`forward`].
pub fn backward_log_eps(dout: &Tensor, z: &Tensor, log_eps: &Tensor, sharpness: f32) -> Result<Tensor> {
    check(z, log_eps, Some(sharpness))?;
    expect_same("threshold", dout, z)?;
    let (rows, width) = z.rows_cols();
    let (device, chunks) = (z.device(), rows.div_ceil(ROWS).max(1));
    let mut sums: Tensor = device.empty("partial threshold gradient", &[chunks, width])?;
    let mut gradient = device.empty("threshold gradient", &[width])?;
    match z.backend() {
        Backend::Gpu(queue) => {
            let (rows, width, chunks) = (rows as u32, width as u32, chunks as u32);
            Launch::new(&SHADER, "partial_sums", SumParams { rows, width, chunks, sharpness })
                .bind(&[dout, z, log_eps, &sums])
                .threads(sums.len(), 64)
                .cost(z.len().saturating_mul(16))
                .run(queue)?;
            Launch::new(&SHADER, "backward_log_eps", LogEpsParams { chunks, width })
                .bind(&[&sums, log_eps, &gradient])
                .threads(log_eps.len(), 64)
                .cost(sums.len())
                .run(queue)?;
        }
        Backend::Cpu => {
            let (dout, z, eps) = (dout.as_slice()?, z.as_slice()?, thresholds(log_eps)?);
            inlined!(for_row_blocks(sums.as_mut_slice()?, width, 1), |chunk, sums| {
                sums.fill(0.0);
                let rows = chunk * ROWS * width..((chunk + 1) * ROWS * width).min(z.len());
                let (dout, z) = (dout[rows.clone()].chunks_exact(width), z[rows].chunks_exact(width));
                for (dout, z) in dout.zip(z) {
                    for c in 0..width {
                        sums[c] += dout[c] * (z[c] * Gate::soft(z[c], eps[c], sharpness).slope);
                    }
                }
            });
            let gradient = gradient.as_mut_slice()?;
            gradient.fill(0.0);
            for sums in sums.as_slice()?.chunks_exact(width.max(1)) {
                gradient.iter_mut().zip(sums).for_each(|(sum, part)| *sum += part);
            }
            gradient.iter_mut().zip(&eps).for_each(|(sum, eps)| *sum *= -eps);
        }
        Backend::Meta => {}
    }
    Ok(gradient)
}

/// `f` of each entry of the inputs, the last of which is z, and of its gate. The kernels are those
/// of the hard and of the soft form.
#[inline(always)]
fn each<const N: usize>(
    [hard, soft]: [&'static str; 2],
    inputs: [&Tensor; N],
    log_eps: &Tensor,
    sharpness: Option<f32>,
    f: impl Fn([f32; N], Gate) -> f32 + Sync,
) -> Result<Tensor> {
    let z = inputs[N - 1];
    let width = check(z, log_eps, sharpness)?;
    inputs.iter().try_for_each(|input| expect_same("threshold", input, z))?;
    let mut out = z.device().empty("threshold", z.shape())?;
    match z.backend() {
        Backend::Gpu(queue) => {
            let Rows { rows, width } = Rows::of(z);
            let launch = match sharpness {
                None => Launch::new(&SHADER, hard, Rows { rows, width }),
                Some(sharpness) => Launch::new(&SHADER, soft, SoftParams { rows, width, sharpness }),
            };
            let launch = launch.bind_all(inputs).bind(&[log_eps, &out]);
            launch.threads(z.len(), 256).cost(z.len().saturating_mul(16)).run(queue)?;
        }
        Backend::Cpu => {
            let mut slices = [&[][..]; N];
            for (slice, input) in slices.iter_mut().zip(inputs) {
                *slice = input.as_slice()?;
            }
            let eps = thresholds(log_eps)?;
            inlined!(for_row_blocks(out.as_mut_slice()?, width, rows_per_block(width)), |first, rows| {
                for (r, row) in rows.chunks_exact_mut(width).enumerate() {
                    let slices = slices.map(|slice| &slice[(first + r) * width..][..width]);
                    for c in 0..width {
                        let entries = slices.map(|slice| slice[c]);
                        row[c] = f(entries, Gate::at(entries[N - 1], eps[c], sharpness));
                    }
                }
            });
        }
        Backend::Meta => {}
    }
    Ok(out)
}

/// How much of an entry passes, and how that changes with the entry's magnitude.
#[derive(Clone, Copy)]
struct Gate {
    open: f32,
    slope: f32,
}

impl Gate {
    #[inline(always)]
    fn at(z: f32, eps: f32, sharpness: Option<f32>) -> Self {
        match sharpness {
            // Not `>=`, which would make 0 of NaN.
            None => Self { open: if z.abs() < eps { 0.0 } else { 1.0 }, slope: 0.0 },
            Some(sharpness) => Self::soft(z, eps, sharpness),
        }
    }

    #[inline(always)]
    fn soft(z: f32, eps: f32, sharpness: f32) -> Self {
        let u = z.abs() - eps;
        // Of the negative magnitude, so that nothing overflows; exactly 0 far from the threshold.
        let e = exp(-(u.abs() * sharpness));
        let rest = 1.0 / (1.0 + e);
        Self { open: if u < 0.0 { e * rest } else { rest }, slope: sharpness * (e * rest * rest) }
    }
}

/// `e^log_eps`, which neither vanishes nor overflows.
fn thresholds(log_eps: &Tensor) -> Result<Vec<f32>> {
    Ok(log_eps.as_slice()?.iter().map(|log_eps| log_eps.clamp(-87.0, 80.0).exp()).collect())
}

/// Returns an error unless these fit together, otherwise the width.
fn check(z: &Tensor, log_eps: &Tensor, sharpness: Option<f32>) -> Result<usize> {
    let width = z.rows_cols().1;
    expect_shape("threshold", "log_eps", log_eps, &[width])?;
    match sharpness {
        Some(sharpness) if !(sharpness > 0.0 && sharpness.is_finite()) => {
            Err(Error::shape("threshold", format!("a sharpness of {sharpness}")))
        }
        _ => Ok(width),
    }
}

impl Tape {
    /// The entries of z: (.., C) that reach their channel's threshold `e^log_eps`, log_eps: (C). With
    /// a sharpness the soft form, in which thresholds learn. Saves both.
    pub fn threshold(&mut self, z: &Var, log_eps: &Var, sharpness: Option<f32>) -> Result<Var> {
        let out = forward(z.value(), log_eps.value(), sharpness)?;
        let (zv, ev) = (z.value().clone(), log_eps.value().clone());
        self.record_one(&[z, log_eps], out, move |dout, needs| {
            let learns = sharpness.filter(|_| needs[1]);
            Ok(vec![
                needs[0].then(|| backward_input(&dout, &zv, &ev, sharpness)).transpose()?,
                learns.map(|sharpness| backward_log_eps(&dout, &zv, &ev, sharpness)).transpose()?,
            ])
        })
    }
}
