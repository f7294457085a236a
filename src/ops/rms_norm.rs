//! RMSNorm over the last dimension: `y = x · rstd · w` with `rstd = 1 / sqrt(mean(x²) + eps)` (Zhang and Sennrich 2019).
//!
//! Gradient, with `g = dy · w` and means over the row: `dx = rstd · (g − x̂ · mean(g · x̂))` where `x̂ = x · rstd`, and
//! `dw` = the sum over rows of `dy · x̂`.

use rayon::prelude::*;

use super::expect_shape;
use crate::device::cpu::{for_row_blocks, rows_per_block, vectorised};
use crate::device::{Launch, Shader, Tensor};
use crate::{Error, Result};

/// The kernels.
pub const SHADER: Shader = Shader::new("rms_norm", include_str!("../../shaders/rms_norm.wgsl"));

/// What [`forward`] returns.
#[derive(Debug)]
pub struct Forward {
    /// The normalised input, shaped as the input.
    pub y: Tensor,
    /// One scale a row, `(rows)`: what the backward rules need of the forward pass.
    pub rstd: Tensor,
}

/// `x · rstd · weight`, for `x: (.., C)` and `weight: (C)`. Rows of zeros stay zeros; a row whose squares overflow is not finite.
///
/// # Errors
/// [`Error::Shape`] if the widths differ or are 0.
pub fn forward(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Forward> {
    let (rows, width) = dimensions("rms_norm", x, weight)?;
    let mut y = x.device().empty("rms_norm", x.shape())?;
    let mut rstd = x.device().empty("rms_norm rstd", &[rows])?;
    match x.gpu() {
        Some(gpu) => {
            let lanes = lanes(width);
            Launch::new(&SHADER, "forward")
                .constant("LANES", lanes)
                .bind(x)
                .bind(weight)
                .bind(&y)
                .bind(&rstd)
                .word(rows)
                .word(width)
                .float(eps)
                .items(rows, 256 / lanes as usize)
                .work(4 * x.len())
                .run(gpu)?;
        }
        None => {
            let (x, weight, block) = (x.as_slice()?, weight.as_slice()?, rows_per_block(width));
            y.as_mut_slice()?
                .par_chunks_mut(block * width)
                .zip(rstd.as_mut_slice()?.par_chunks_mut(block))
                .zip(x.par_chunks(block * width))
                .for_each(|((y, rstd), x)| vectorised!(forward_block(y, rstd, x, weight, eps)));
        }
    }
    Ok(Forward { y, rstd })
}

#[inline(always)]
fn forward_block(y: &mut [f32], rstd: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let width = weight.len();
    for ((y, x), rstd) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(rstd) {
        let [squares] = sums(x, x, x, |x, _, _| [x * x]);
        *rstd = scale_of(squares, width, eps);
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            *y = x * *rstd * w;
        }
    }
}

/// `1 / sqrt(squares / width + eps)`. Where the squares overflow it is infinite, too: a scale of 0 would make zeros of large numbers.
#[inline(always)]
pub(super) fn scale_of(squares: f32, width: usize, eps: f32) -> f32 {
    match 1.0 / (squares / width as f32 + eps).sqrt() {
        0.0 => squares,
        scale => scale,
    }
}

/// The gradient of `x`, for `dout` and `x`: `(.., C)`, `weight: (C)` and the forward pass's `rstd: (rows)`.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit together.
pub fn backward_input(dout: &Tensor, x: &Tensor, weight: &Tensor, rstd: &Tensor) -> Result<Tensor> {
    let (rows, width) = dimensions("rms_norm", x, weight)?;
    expect_shape("rms_norm", "dout", dout, x.shape())?;
    expect_shape("rms_norm", "rstd", rstd, &[rows])?;
    let mut dx = x.device().empty("rms_norm dx", x.shape())?;
    match x.gpu() {
        Some(gpu) => {
            let lanes = lanes(width);
            Launch::new(&SHADER, "backward_input")
                .constant("LANES", lanes)
                .bind(dout)
                .bind(x)
                .bind(weight)
                .bind(rstd)
                .bind(&dx)
                .word(rows)
                .word(width)
                .items(rows, 256 / lanes as usize)
                .work(8 * x.len())
                .run(gpu)?;
        }
        None => {
            let (dout, x, weight, rstd) = (dout.as_slice()?, x.as_slice()?, weight.as_slice()?, rstd.as_slice()?);
            for_row_blocks(
                dx.as_mut_slice()?,
                width,
                rows_per_block(width),
                #[inline(always)]
                |start, dx| {
                    let range = start * width..start * width + dx.len();
                    vectorised!(backward_block(dx, &dout[range.clone()], &x[range], weight, &rstd[start..]));
                },
            );
        }
    }
    Ok(dx)
}

#[inline(always)]
fn backward_block(dx: &mut [f32], dout: &[f32], x: &[f32], weight: &[f32], rstd: &[f32]) {
    let width = weight.len();
    let rows = dx.chunks_exact_mut(width).zip(dout.chunks_exact(width)).zip(x.chunks_exact(width));
    for (((dx, dout), x), r) in rows.zip(rstd) {
        let [product] = sums(dout, x, weight, |d, x, w| [d * w * x]);
        let along = product * r * r / width as f32;
        for (((dx, d), x), w) in dx.iter_mut().zip(dout).zip(x).zip(weight) {
            *dx = r * (d * w - x * along);
        }
    }
}

/// The gradient `(C)` of the weight, for `dout` and `x`: `(.., C)` and the forward pass's `rstd: (rows)`.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit together.
pub fn backward_weight(dout: &Tensor, x: &Tensor, rstd: &Tensor) -> Result<Tensor> {
    let (rows, width) = x.rows_cols();
    expect_shape("rms_norm", "dout", dout, x.shape())?;
    expect_shape("rms_norm", "rstd", rstd, &[rows])?;
    let block = rows_per_partial(rows);
    let mut partials = x.device().empty("rms_norm dweight partials", &[rows.div_ceil(block), width])?;
    match x.gpu() {
        Some(gpu) => Launch::new(&SHADER, "backward_weight")
            .bind(dout)
            .bind(x)
            .bind(rstd)
            .bind(&partials)
            .word(rows)
            .word(width)
            .word(block)
            .groups(rows.div_ceil(block) * width.div_ceil(64))
            .work(4 * x.len())
            .run(gpu)?,
        None => {
            let (dout, x, rstd) = (dout.as_slice()?, x.as_slice()?, rstd.as_slice()?);
            for_row_blocks(
                partials.as_mut_slice()?,
                width,
                1,
                #[inline(always)]
                |i, partial| {
                    let rows = i * block..rows.min((i + 1) * block);
                    vectorised!(weight_block(partial, rows.start, dout, x, &rstd[rows]));
                },
            );
        }
    }
    sum_partials(&partials)
}

#[inline(always)]
fn weight_block(partial: &mut [f32], first_row: usize, dout: &[f32], x: &[f32], rstd: &[f32]) {
    let width = partial.len();
    partial.fill(0.0);
    for (i, r) in rstd.iter().enumerate() {
        let range = (first_row + i) * width..(first_row + i + 1) * width;
        for ((p, d), x) in partial.iter_mut().zip(&dout[range.clone()]).zip(&x[range]) {
            *p += d * x * r;
        }
    }
}

/// How many rows one partial sum of a weight gradient takes in: at most 128 partials, and never tiny ones.
pub(super) fn rows_per_partial(rows: usize) -> usize {
    rows.div_ceil(128).max(64)
}

/// The column sums `(C)` of `partials: (blocks, C)`, added in order. No blocks: zeros.
pub(super) fn sum_partials(partials: &Tensor) -> Result<Tensor> {
    let (blocks, width) = partials.rows_cols();
    let mut sum = partials.device().empty("norm dweight", &[width])?;
    match partials.gpu() {
        Some(gpu) => Launch::new(&SHADER, "sum_partials")
            .bind(partials)
            .bind(&sum)
            .word(blocks)
            .word(width)
            .items(width, 256)
            .work(partials.len())
            .run(gpu)?,
        None => {
            let partials = partials.as_slice()?;
            for_row_blocks(
                sum.as_mut_slice()?,
                1,
                1024,
                #[inline(always)]
                |start, sum| {
                    sum.fill(0.0);
                    for partial in partials.chunks_exact(width) {
                        sum.iter_mut().zip(&partial[start..]).for_each(|(s, p)| *s += p);
                    }
                },
            );
        }
    }
    Ok(sum)
}

/// Rows and width of `x`, to be normalised with `weight`.
pub(super) fn dimensions(op: &'static str, x: &Tensor, weight: &Tensor) -> Result<(usize, usize)> {
    let (rows, width) = x.rows_cols();
    expect_shape(op, "weight", weight, &[width])?;
    if width == 0 {
        return Err(Error::shape(op, format!("x is {:?}: there is nothing to average", x.shape())));
    }
    Ok((rows, width))
}

/// How many lanes of a workgroup share a row of `width` entries; 256 divided by it are the rows of a workgroup.
pub(super) fn lanes(width: usize) -> u32 {
    match width {
        0..=64 => 16,
        65..=1024 => 64,
        _ => 256,
    }
}

/// `K` sums of `f` over three slices of equal length, each in 32 interleaved partial sums that are then folded in half.
#[inline(always)]
pub(super) fn sums<const K: usize>(a: &[f32], b: &[f32], c: &[f32], f: impl Fn(f32, f32, f32) -> [f32; K]) -> [f32; K] {
    let mut total = [[0.0; 32]; K];
    let ((a, a_rest), (b, b_rest), (c, c_rest)) = (a.as_chunks::<32>(), b.as_chunks::<32>(), c.as_chunks::<32>());
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for lane in 0..32 {
            let terms = f(a[lane], b[lane], c[lane]);
            for k in 0..K {
                total[k][lane] += terms[k];
            }
        }
    }
    for (lane, ((a, b), c)) in a_rest.iter().zip(b_rest).zip(c_rest).enumerate() {
        let terms = f(*a, *b, *c);
        for k in 0..K {
            total[k][lane] += terms[k];
        }
    }
    total.map(|mut lanes| {
        for half in [16, 8, 4, 2, 1] {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
        }
        lanes[0]
    })
}
