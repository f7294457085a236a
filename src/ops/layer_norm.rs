//! LayerNorm over the last dimension: `y = x̂ · w (+ b)` with `x̂ = (x − mean) · rstd` and
//! `rstd = 1 / sqrt(variance + eps)`, the variance being the biased one (Ba, Kiros and Hinton 2016).
//!
//! Gradient, with `g = dy · w` and means over the row: `dx = rstd · (g − mean(g) − x̂ · mean(g · x̂))`, and `dw` = the
//! sum over rows of `dy · x̂`. The bias's gradient is the sum over rows of `dy`: [`super::linear`] has it.

use rayon::prelude::*;

use super::expect_shape;
use super::rms_norm::{dimensions, lanes, rows_per_partial, scale_of, sum_partials, sums};
use crate::Result;
use crate::device::cpu::{for_row_blocks, rows_per_block, vectorised};
use crate::device::{Launch, Shader, Tensor};

/// The kernels.
pub const SHADER: Shader = Shader::new("layer_norm", include_str!("../../shaders/layer_norm.wgsl"));

/// What [`forward`] returns.
#[derive(Debug)]
pub struct Forward {
    /// The normalised input, shaped as the input.
    pub y: Tensor,
    /// Each row's mean, `(rows)`.
    pub mean: Tensor,
    /// Each row's scale, `(rows)`.
    pub rstd: Tensor,
}

/// `(x − mean) · rstd · weight (+ bias)`, for `x: (.., C)`, `weight` and `bias`: `(C)`. A row whose squares overflow is not finite.
///
/// # Errors
/// [`crate::Error::Shape`] if the widths differ or are 0.
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, eps: f32) -> Result<Forward> {
    let (rows, width) = dimensions("layer_norm", x, weight)?;
    if let Some(bias) = bias {
        expect_shape("layer_norm", "bias", bias, &[width])?;
    }
    let mut y = x.device().empty("layer_norm", x.shape())?;
    let mut mean = x.device().empty("layer_norm mean", &[rows])?;
    let mut rstd = x.device().empty("layer_norm rstd", &[rows])?;
    match x.gpu() {
        Some(gpu) => {
            let lanes = lanes(width);
            let launch = Launch::new(&SHADER, if bias.is_some() { "forward_bias" } else { "forward" })
                .constant("LANES", lanes)
                .bind(x)
                .bind(weight)
                .bind(&y)
                .bind(&mean)
                .bind(&rstd)
                .word(rows)
                .word(width)
                .float(eps)
                .items(rows, 256 / lanes as usize)
                .work(8 * x.len());
            match bias {
                Some(bias) => launch.bind(bias),
                None => launch,
            }
            .run(gpu)?;
        }
        None => {
            let (x, weight, block) = (x.as_slice()?, weight.as_slice()?, rows_per_block(width));
            let bias = bias.map(Tensor::as_slice).transpose()?;
            y.as_mut_slice()?
                .par_chunks_mut(block * width)
                .zip(mean.as_mut_slice()?.par_chunks_mut(block))
                .zip(rstd.as_mut_slice()?.par_chunks_mut(block))
                .zip(x.par_chunks(block * width))
                .for_each(|(((y, mean), rstd), x)| vectorised!(forward_block(y, mean, rstd, x, weight, bias, eps)));
        }
    }
    Ok(Forward { y, mean, rstd })
}

#[inline(always)]
fn forward_block(
    y: &mut [f32],
    mean: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
) {
    let width = weight.len();
    for (((y, x), mean), rstd) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(mean).zip(rstd) {
        let [sum] = sums(x, x, x, |x, _, _| [x]);
        let m = sum / width as f32;
        let [squares] = sums(x, x, x, |x, _, _| [(x - m) * (x - m)]);
        let r = scale_of(squares, width, eps);
        (*mean, *rstd) = (m, r);
        match bias {
            Some(bias) => {
                for (((y, x), w), b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                    *y = (x - m) * r * w + b;
                }
            }
            None => {
                for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                    *y = (x - m) * r * w;
                }
            }
        }
    }
}

/// The gradient of `x`, for `dout` and `x`: `(.., C)`, `weight: (C)`, and the forward pass's `mean` and `rstd`: `(rows)`.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes do not fit together.
pub fn backward_input(dout: &Tensor, x: &Tensor, weight: &Tensor, mean: &Tensor, rstd: &Tensor) -> Result<Tensor> {
    let (rows, width) = dimensions("layer_norm", x, weight)?;
    expect_shape("layer_norm", "dout", dout, x.shape())?;
    expect_shape("layer_norm", "mean", mean, &[rows])?;
    expect_shape("layer_norm", "rstd", rstd, &[rows])?;
    let mut dx = x.device().empty("layer_norm dx", x.shape())?;
    match x.gpu() {
        Some(gpu) => {
            let lanes = lanes(width);
            Launch::new(&SHADER, "backward_input")
                .constant("LANES", lanes)
                .bind(dout)
                .bind(x)
                .bind(weight)
                .bind(mean)
                .bind(rstd)
                .bind(&dx)
                .word(rows)
                .word(width)
                .items(rows, 256 / lanes as usize)
                .work(12 * x.len())
                .run(gpu)?;
        }
        None => {
            let (dout, x, weight) = (dout.as_slice()?, x.as_slice()?, weight.as_slice()?);
            let (mean, rstd) = (mean.as_slice()?, rstd.as_slice()?);
            for_row_blocks(
                dx.as_mut_slice()?,
                width,
                rows_per_block(width),
                #[inline(always)]
                |start, dx| {
                    let range = start * width..start * width + dx.len();
                    vectorised!(backward_block(
                        dx,
                        &dout[range.clone()],
                        &x[range],
                        weight,
                        &mean[start..],
                        &rstd[start..]
                    ));
                },
            );
        }
    }
    Ok(dx)
}

#[inline(always)]
fn backward_block(dx: &mut [f32], dout: &[f32], x: &[f32], weight: &[f32], mean: &[f32], rstd: &[f32]) {
    let width = weight.len();
    let rows = dx.chunks_exact_mut(width).zip(dout.chunks_exact(width)).zip(x.chunks_exact(width));
    for ((((dx, dout), x), m), r) in rows.zip(mean).zip(rstd) {
        let [sum, product] = sums(dout, x, weight, |d, x, w| [d * w, d * w * (x - m) * r]);
        let (sum, product) = (sum / width as f32, product / width as f32);
        for (((dx, d), x), w) in dx.iter_mut().zip(dout).zip(x).zip(weight) {
            *dx = r * (d * w - sum - (x - m) * r * product);
        }
    }
}

/// The gradient `(C)` of the weight, for `dout` and `x`: `(.., C)` and the forward pass's `mean` and `rstd`: `(rows)`.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes do not fit together.
pub fn backward_weight(dout: &Tensor, x: &Tensor, mean: &Tensor, rstd: &Tensor) -> Result<Tensor> {
    let (rows, width) = x.rows_cols();
    expect_shape("layer_norm", "dout", dout, x.shape())?;
    expect_shape("layer_norm", "mean", mean, &[rows])?;
    expect_shape("layer_norm", "rstd", rstd, &[rows])?;
    let block = rows_per_partial(rows);
    let mut partials = x.device().empty("layer_norm dweight partials", &[rows.div_ceil(block), width])?;
    match x.gpu() {
        Some(gpu) => Launch::new(&SHADER, "backward_weight")
            .bind(dout)
            .bind(x)
            .bind(mean)
            .bind(rstd)
            .bind(&partials)
            .word(rows)
            .word(width)
            .word(block)
            .groups(rows.div_ceil(block) * width.div_ceil(64))
            .work(4 * x.len())
            .run(gpu)?,
        None => {
            let (dout, x, mean, rstd) = (dout.as_slice()?, x.as_slice()?, mean.as_slice()?, rstd.as_slice()?);
            for_row_blocks(
                partials.as_mut_slice()?,
                width,
                1,
                #[inline(always)]
                |i, partial| {
                    let rows = i * block..rows.min((i + 1) * block);
                    vectorised!(weight_block(partial, rows.start, dout, x, &mean[rows.clone()], &rstd[rows]));
                },
            );
        }
    }
    sum_partials(&partials)
}

#[inline(always)]
fn weight_block(partial: &mut [f32], first_row: usize, dout: &[f32], x: &[f32], mean: &[f32], rstd: &[f32]) {
    let width = partial.len();
    partial.fill(0.0);
    for (i, (m, r)) in mean.iter().zip(rstd).enumerate() {
        let range = (first_row + i) * width..(first_row + i + 1) * width;
        for ((p, d), x) in partial.iter_mut().zip(&dout[range.clone()]).zip(&x[range]) {
            *p += d * (x - m) * r;
        }
    }
}
