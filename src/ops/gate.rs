//! Gates over channels: `y = x` where a channel's `tau ≥ 0`, and its mean elsewhere (method: section 4).
//!
//! `y[r, c] = h[c] x[r, c] + (1 − h[c]) mean[c]` with `h = H(tau)`, the Heaviside step; x: (.., C), tau, mean: (C).
//!
//! Gradients: `dx = h dy`; for tau, straight through the step as if it were a sigmoid of temperature T:
//! `dtau[c] = s(1 − s) / T · Σ_r dy[r, c] (x[r, c] − mean[c])` with `s = sigmoid(tau[c] / T)`.

use super::{expect_same, expect_shape};
use crate::Result;
use crate::device::cpu::{for_row_blocks, rows_per_block, vectorised};
use crate::device::{Launch, Shader, Tensor};

/// The kernels.
pub const SHADER: Shader = Shader::new("gate", include_str!("../../shaders/gate.wgsl"));

/// Rows that one partial sum of tau's gradient takes.
const ROWS: usize = 64;

/// The gated values: x: (.., C), tau, mean: (C).
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes do not fit.
pub fn forward(x: &Tensor, tau: &Tensor, mean: &Tensor) -> Result<Tensor> {
    let width = check(x, tau, mean)?;
    let mut out = x.device().empty("gate", x.shape())?;
    match x.gpu() {
        Some(gpu) => launch("forward", x, tau, mean, &out).items(x.len(), 256).run(gpu)?,
        None => {
            let (x, tau, mean) = (x.as_slice()?, tau.as_slice()?, mean.as_slice()?);
            for_row_blocks(
                out.as_mut_slice()?,
                width,
                rows_per_block(width),
                #[inline(always)]
                |first, rows| {
                    for (row, x) in rows.chunks_exact_mut(width).zip(x[first * width..].chunks_exact(width)) {
                        for c in 0..width {
                            row[c] = if tau[c] >= 0.0 { x[c] } else { mean[c] };
                        }
                    }
                },
            );
        }
    }
    Ok(out)
}

/// The gradient of x: (.., C).
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes do not fit.
pub fn backward_input(dout: &Tensor, tau: &Tensor) -> Result<Tensor> {
    let width = check(dout, tau, tau)?;
    let mut dx = dout.device().empty("gate gradient", dout.shape())?;
    match dout.gpu() {
        Some(gpu) => launch("backward_input", dout, tau, tau, &dx).items(dout.len(), 256).run(gpu)?,
        None => {
            let (dout, tau) = (dout.as_slice()?, tau.as_slice()?);
            for_row_blocks(
                dx.as_mut_slice()?,
                width,
                rows_per_block(width),
                #[inline(always)]
                |first, rows| {
                    for (row, dout) in rows.chunks_exact_mut(width).zip(dout[first * width..].chunks_exact(width)) {
                        for c in 0..width {
                            row[c] = if tau[c] >= 0.0 { dout[c] } else { 0.0 };
                        }
                    }
                },
            );
        }
    }
    Ok(dx)
}

/// The gradient of tau: (C), with the step taken for a sigmoid of `temperature`.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes do not fit.
pub fn backward_tau(dout: &Tensor, x: &Tensor, tau: &Tensor, mean: &Tensor, temperature: f32) -> Result<Tensor> {
    let width = check(x, tau, mean)?;
    expect_same("gate", dout, x)?;
    let rows = x.rows_cols().0;
    let device = x.device();
    let mut dtau = device.empty("tau gradient", &[width])?;
    match x.gpu() {
        Some(gpu) => {
            let chunks = rows.div_ceil(ROWS).max(1);
            let partial: Tensor = device.empty("partial tau gradient", &[chunks, width])?;
            Launch::new(&SHADER, "partial_sums")
                .bind(x)
                .bind(mean)
                .bind(dout)
                .bind(&partial)
                .word(rows)
                .word(width)
                .word(chunks)
                .items(chunks * width, 64)
                .work(x.len() * 2)
                .run(gpu)?;
            Launch::new(&SHADER, "backward_tau")
                .bind(&partial)
                .bind(tau)
                .bind(&dtau)
                .word(chunks)
                .word(width)
                .float(temperature)
                .items(width, 64)
                .work(partial.len())
                .run(gpu)?;
        }
        None => {
            let (dout, x, tau, mean) = (dout.as_slice()?, x.as_slice()?, tau.as_slice()?, mean.as_slice()?);
            let out = dtau.as_mut_slice()?;
            out.fill(0.0);
            vectorised!(sum_rows(dout, x, mean, out));
            for (sum, tau) in out.iter_mut().zip(tau) {
                *sum *= slope(*tau, temperature);
            }
        }
    }
    Ok(dtau)
}

/// `sums[c] = Σ_r dout[r, c] (x[r, c] − mean[c])`, by blocks of rows as on a GPU, which loses fewer digits than one long sum.
#[inline(always)]
fn sum_rows(dout: &[f32], x: &[f32], mean: &[f32], sums: &mut [f32]) {
    let width = sums.len();
    let mut block = vec![0.0; width];
    for (dout, x) in dout.chunks(ROWS * width).zip(x.chunks(ROWS * width)) {
        block.fill(0.0);
        for (dout, x) in dout.chunks_exact(width).zip(x.chunks_exact(width)) {
            for c in 0..width {
                block[c] += dout[c] * (x[c] - mean[c]);
            }
        }
        sums.iter_mut().zip(&block).for_each(|(sum, b)| *sum += b);
    }
}

/// The slope of `sigmoid(tau / temperature)`.
fn slope(tau: f32, temperature: f32) -> f32 {
    // The slope is even, and this side of it cannot overflow.
    let e = (-(tau / temperature).abs()).exp();
    e / ((1.0 + e) * (1.0 + e) * temperature)
}

fn check(x: &Tensor, tau: &Tensor, mean: &Tensor) -> Result<usize> {
    let width = x.rows_cols().1;
    expect_shape("gate", "tau", tau, &[width])?;
    expect_shape("gate", "mean", mean, &[width])?;
    Ok(width)
}

fn launch(entry: &'static str, x: &Tensor, tau: &Tensor, mean: &Tensor, out: &Tensor) -> Launch {
    let launch = Launch::new(&SHADER, entry).bind(x).bind(tau);
    let launch = if entry == "forward" { launch.bind(mean) } else { launch };
    launch.bind(out).word(x.len()).word(tau.len()).work(x.len())
}
