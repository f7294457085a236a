//! Gates over channels: `y = x` where a channel's `tau ≥ 0`, and its mean elsewhere (method:
//! section 4).
//!
//! `y[r, c] = h[c] x[r, c] + (1 − h[c]) mean[c]` with `h = H(tau)`, the Heaviside step; x: (.., C),
//! tau, mean: (C).
//!
//! Gradients: `dx = h dy`; for tau, straight through the step as if it were a sigmoid of
//! temperature T: `dtau[c] = s(1 − s) / T · Σ_r dy[r, c] (x[r, c] − mean[c])` with `s =
//! sigmoid(tau[c] / T)`.

use super::elementwise::Rows;
use super::{expect_same, expect_shape};
use crate::Result;
use crate::device::cpu::{for_row_blocks, inlined, rows_per_block, vectorised};
use crate::device::{Backend, Launch, Shader, Tensor, params};
use crate::tape::{Tape, Var};

params! {
    struct SumParams { rows: u32, width: u32, chunks: u32 }
    struct TauParams { chunks: u32, width: u32, temperature: f32 }
}

pub(super) const SHADER: Shader = Shader::new("gate", include_str!("../../shaders/gate.wgsl"));

/// Rows that one partial sum of tau's gradient takes.
const ROWS: usize = 64;

/// The gated values: x: (.., C), tau, mean: (C).
pub fn forward(x: &Tensor, tau: &Tensor, mean: &Tensor) -> Result<Tensor> {
    select("forward", x, tau, Some(mean))
}

/// The gradient of x: (.., C).
pub fn backward_input(dout: &Tensor, tau: &Tensor) -> Result<Tensor> {
    select("backward_input", dout, tau, None)
}

/// `x` where `tau ≥ 0`, otherwise the mean, or 0 without one.
fn select(kernel: &'static str, x: &Tensor, tau: &Tensor, mean: Option<&Tensor>) -> Result<Tensor> {
    let width = check(x, tau, mean.unwrap_or(tau))?;
    let mut out = x.device().empty("gate", x.shape())?;
    match x.backend() {
        Backend::Gpu(queue) => {
            let launch = Launch::new(&SHADER, kernel, Rows::of(x)).bind(&[x, tau]).bind_all(mean).bind(&[&out]);
            launch.threads(x.len(), 256).cost(x.len()).run(queue)?;
        }
        Backend::Cpu => {
            let (x, tau, zeros) = (x.as_slice()?, tau.as_slice()?, vec![0.0; width]);
            let mean = mean.map_or(Ok(&zeros[..]), Tensor::as_slice)?;
            inlined!(for_row_blocks(out.as_mut_slice()?, width, rows_per_block(width)), |first, rows| {
                for (row, x) in rows.chunks_exact_mut(width).zip(x[first * width..].chunks_exact(width)) {
                    for c in 0..width {
                        row[c] = if tau[c] >= 0.0 { x[c] } else { mean[c] };
                    }
                }
            });
        }
        Backend::Meta => {}
    }
    Ok(out)
}

/// The gradient of tau: (C), with the step taken for a sigmoid of `temperature`.
pub fn backward_tau(dout: &Tensor, x: &Tensor, tau: &Tensor, mean: &Tensor, temperature: f32) -> Result<Tensor> {
    let width = check(x, tau, mean)?;
    expect_same("gate", dout, x)?;
    let rows = x.rows_cols().0;
    let device = x.device();
    let mut dtau = device.empty("tau gradient", &[width])?;
    match x.backend() {
        Backend::Gpu(queue) => {
            let chunks = rows.div_ceil(ROWS).max(1);
            let sums: Tensor = device.empty("partial tau gradient", &[chunks, width])?;
            let (rows, width) = (rows as u32, width as u32);
            Launch::new(&SHADER, "partial_sums", SumParams { rows, width, chunks: chunks as u32 })
                .bind(&[x, mean, dout, &sums])
                .threads(sums.len(), 64)
                .cost(x.len() * 2)
                .run(queue)?;
            Launch::new(&SHADER, "backward_tau", TauParams { chunks: chunks as u32, width, temperature })
                .bind(&[&sums, tau, &dtau])
                .threads(tau.len(), 64)
                .cost(sums.len())
                .run(queue)?;
        }
        Backend::Cpu => {
            let (dout, x, tau, mean) = (dout.as_slice()?, x.as_slice()?, tau.as_slice()?, mean.as_slice()?);
            let out = dtau.as_mut_slice()?;
            out.fill(0.0);
            vectorised!(sum_rows(dout, x, mean, out));
            for (sum, tau) in out.iter_mut().zip(tau) {
                *sum *= slope(*tau, temperature);
            }
        }
        Backend::Meta => {}
    }
    Ok(dtau)
}

/// `sums[c] = Σ_r dout[r, c] (x[r, c] − mean[c])`, by blocks of rows as on a GPU, which loses fewer
/// digits than one long sum.
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
pub(crate) fn slope(tau: f32, temperature: f32) -> f32 {
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

impl Tape {
    /// Gates over channels: x where `tau ≥ 0`, `mean` elsewhere; tau learns through a sigmoid of
    /// `temperature`.
    pub fn gate(&mut self, x: &Var, tau: &Var, mean: &Tensor, temperature: f32) -> Result<Var> {
        let out = forward(x.value(), tau.value(), mean)?;
        let (xv, tv, mean) = (x.value().clone(), tau.value().clone(), mean.clone());
        self.record_one(&[x, tau], out, move |dout, needs| {
            Ok(vec![
                needs[0].then(|| backward_input(&dout, &tv)).transpose()?,
                needs[1].then(|| backward_tau(&dout, &xv, &tv, &mean, temperature)).transpose()?,
            ])
        })
    }
}
