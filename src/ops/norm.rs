//! What normalising the rows of a tensor shares: shapes, reductions, and the walk over rows on both
//! devices.
//!
//! `N` is the number of statistics of a row that the backward pass needs.

use rayon::prelude::*;

use super::elementwise::Rows;
use super::expect_shape;
use crate::device::cpu::{for_row_blocks, inlined, rows_per_block, vectorised};
use crate::device::{Backend, Launch, Shader, Tensor, params};
use crate::{Error, Result};

params! {
    struct ForwardParams { rows: u32, width: u32, eps: f32 }
    struct WeightParams { rows: u32, width: u32, block: u32 }
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

/// How many lanes of a workgroup share a row of `width` entries; 256 divided by it are the rows of
/// a workgroup.
fn lanes(width: usize) -> u32 {
    match width {
        0..=64 => 16,
        65..=1024 => 64,
        _ => 256,
    }
}

/// The normalised rows of `x`, and their statistics, `(rows)` each. `row` writes one row, from that
/// of `x`, weight and bias, and returns its statistics.
#[inline(always)]
pub(super) fn forward<const N: usize>(
    (shader, kernel): (&'static Shader, &'static str),
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    eps: f32,
    row: impl Fn(&mut [f32], &[f32], &[f32], Option<&[f32]>) -> [f32; N] + Sync,
) -> Result<(Tensor, [Tensor; N])> {
    let (rows, width) = dimensions(shader.name, x, weight)?;
    if let Some(bias) = bias {
        expect_shape(shader.name, "bias", bias, &[width])?;
    }
    let device = x.device();
    let mut y = device.empty(shader.name, x.shape())?;
    let statistics = (0..N).map(|_| device.empty("norm statistics", &[rows])).collect::<Result<Vec<Tensor>>>()?;
    let Ok(mut statistics) = <[Tensor; N]>::try_from(statistics) else {
        return Err(Error::Device("statistics of a norm are missing".into()));
    };
    match x.backend() {
        Backend::Gpu(queue) => {
            let params = ForwardParams { rows: rows as u32, width: width as u32, eps };
            let launch = Launch::new(shader, kernel, params).constant("LANES", lanes(width)).bind(&[x, weight, &y]);
            let launch = launch.bind_all(&statistics).bind_all(bias);
            launch.threads(rows, 256 / lanes(width) as usize).cost(8 * x.len()).run(queue)?;
        }
        Backend::Cpu => {
            let block = rows_per_block(width);
            let mut packed = vec![[0.0; N]; rows];
            let blocks = y.as_mut_slice()?.par_chunks_mut(block * width).zip(packed.par_chunks_mut(block));
            let blocks = blocks.zip(x.as_slice()?.par_chunks(block * width));
            let (weight, bias) = (weight.as_slice()?, bias.map(Tensor::as_slice).transpose()?);
            blocks.for_each(|((y, packed), x)| vectorised!(forward_block(y, packed, x, weight, bias, &row)));
            for (n, statistic) in statistics.iter_mut().enumerate() {
                statistic.as_mut_slice()?.iter_mut().zip(&packed).for_each(|(to, from)| *to = from[n]);
            }
        }
        Backend::Meta => {}
    }
    Ok((y, statistics))
}

#[inline(always)]
fn forward_block<const N: usize>(
    y: &mut [f32],
    statistics: &mut [[f32; N]],
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    row: &impl Fn(&mut [f32], &[f32], &[f32], Option<&[f32]>) -> [f32; N],
) {
    let width = weight.len();
    for ((y, x), statistics) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(statistics) {
        *statistics = row(y, x, weight, bias);
    }
}

/// The gradient of `x: (.., C)`. `row` writes that of one row, from those of `dout` and `x`, the
/// weight, and the row's statistics.
#[inline(always)]
pub(super) fn backward_input<const N: usize>(
    shader: &'static Shader,
    dout: &Tensor,
    x: &Tensor,
    weight: &Tensor,
    statistics: [&Tensor; N],
    row: impl Fn(&mut [f32], &[f32], &[f32], &[f32], [f32; N]) + Sync,
) -> Result<Tensor> {
    let (rows, width) = dimensions(shader.name, x, weight)?;
    expect_fitting(shader, dout, x, statistics)?;
    let mut dx = x.device().empty("norm input gradient", x.shape())?;
    match x.backend() {
        Backend::Gpu(queue) => {
            let launch = Launch::new(shader, "backward_input", Rows::of(x)).constant("LANES", lanes(width));
            let launch = launch.bind(&[dout, x, weight]).bind_all(statistics).bind(&[&dx]);
            launch.threads(rows, 256 / lanes(width) as usize).cost(12 * x.len()).run(queue)?;
        }
        Backend::Cpu => {
            let (dout, x, weight) = (dout.as_slice()?, x.as_slice()?, weight.as_slice()?);
            let statistics = slices(statistics)?;
            inlined!(for_row_blocks(dx.as_mut_slice()?, width, rows_per_block(width)), |start, dx| vectorised!(
                backward_block(dx, start, dout, x, weight, &statistics, &row)
            ));
        }
        Backend::Meta => {}
    }
    Ok(dx)
}

#[inline(always)]
fn backward_block<const N: usize>(
    dx: &mut [f32],
    start: usize,
    dout: &[f32],
    x: &[f32],
    weight: &[f32],
    statistics: &[&[f32]; N],
    row: &impl Fn(&mut [f32], &[f32], &[f32], &[f32], [f32; N]),
) {
    let width = weight.len();
    let rows = dx.chunks_exact_mut(width).zip(dout[start * width..].chunks_exact(width));
    for (i, ((dx, dout), x)) in rows.zip(x[start * width..].chunks_exact(width)).enumerate() {
        row(dx, dout, x, weight, statistics.map(|statistic| statistic[start + i]));
    }
}

/// The gradient `(C)` of the weight: the sum over rows of `term` of an entry of `dout`, one of `x`,
/// and the row's statistics.
#[inline(always)]
pub(super) fn backward_weight<const N: usize>(
    shader: &'static Shader,
    dout: &Tensor,
    x: &Tensor,
    statistics: [&Tensor; N],
    term: impl Fn(f32, f32, [f32; N]) -> f32 + Sync,
) -> Result<Tensor> {
    let (rows, width) = x.rows_cols();
    expect_fitting(shader, dout, x, statistics)?;
    // At most 128 partial sums, and never of few rows.
    let block = rows.div_ceil(128).max(64);
    let blocks = rows.div_ceil(block);
    let mut partials = x.device().empty("norm weight gradient partials", &[blocks, width])?;
    match x.backend() {
        Backend::Gpu(queue) => {
            let params = WeightParams { rows: rows as u32, width: width as u32, block: block as u32 };
            let launch = Launch::new(shader, "backward_weight", params).bind(&[dout, x]);
            let launch = launch.bind_all(statistics).bind(&[&partials]);
            launch.workgroups(blocks * width.div_ceil(64)).cost(4 * x.len()).run(queue)?;
        }
        Backend::Cpu => {
            let (dout, x, statistics) = (dout.as_slice()?, x.as_slice()?, slices(statistics)?);
            inlined!(for_row_blocks(partials.as_mut_slice()?, width, 1), |i, partial| {
                let rows = i * block..rows.min((i + 1) * block);
                vectorised!(weight_block(partial, rows, dout, x, &statistics, &term));
            });
        }
        Backend::Meta => {}
    }
    sum_partials(&partials)
}

#[inline(always)]
fn weight_block<const N: usize>(
    partial: &mut [f32],
    rows: std::ops::Range<usize>,
    dout: &[f32],
    x: &[f32],
    statistics: &[&[f32]; N],
    term: &impl Fn(f32, f32, [f32; N]) -> f32,
) {
    let width = partial.len();
    partial.fill(0.0);
    for row in rows {
        let (range, statistics) = (row * width..(row + 1) * width, statistics.map(|statistic| statistic[row]));
        for ((p, d), x) in partial.iter_mut().zip(&dout[range.clone()]).zip(&x[range]) {
            *p += term(*d, *x, statistics);
        }
    }
}

/// The column sums `(C)` of `partials: (blocks, C)`, added in order. No blocks: zeros.
fn sum_partials(partials: &Tensor) -> Result<Tensor> {
    let width = partials.rows_cols().1;
    let mut sum = partials.device().empty("norm weight gradient", &[width])?;
    match partials.backend() {
        Backend::Gpu(queue) => Launch::new(&super::rms_norm::SHADER, "sum_partials", Rows::of(partials))
            .bind(&[partials, &sum])
            .threads(width, 256)
            .cost(partials.len())
            .run(queue)?,
        Backend::Cpu => {
            let partials = partials.as_slice()?;
            inlined!(for_row_blocks(sum.as_mut_slice()?, 1, 1024), |start, sum| {
                sum.fill(0.0);
                for partial in partials.chunks_exact(width) {
                    sum.iter_mut().zip(&partial[start..]).for_each(|(s, p)| *s += p);
                }
            });
        }
        Backend::Meta => {}
    }
    Ok(sum)
}

fn expect_fitting<const N: usize>(
    shader: &'static Shader,
    dout: &Tensor,
    x: &Tensor,
    statistics: [&Tensor; N],
) -> Result<()> {
    expect_shape(shader.name, "dout", dout, x.shape())?;
    let names = ["mean", "rstd"].into_iter().skip(2 - N);
    names.zip(statistics).try_for_each(|(name, s)| expect_shape(shader.name, name, s, &[x.rows_cols().0]))
}

fn slices<const N: usize>(tensors: [&Tensor; N]) -> Result<[&[f32]; N]> {
    let mut slices = [&[][..]; N];
    for (slice, tensor) in slices.iter_mut().zip(tensors) {
        *slice = tensor.as_slice()?;
    }
    Ok(slices)
}

/// `1 / sqrt(squares / width + eps)`. Where the squares overflow it is infinite, too: a scale of 0
/// would make zeros of large numbers.
#[inline(always)]
pub(super) fn scale_of(squares: f32, width: usize, eps: f32) -> f32 {
    match 1.0 / (squares / width as f32 + eps).sqrt() {
        0.0 => squares,
        scale => scale,
    }
}

/// `K` sums of `f` over three slices of equal length, each in 32 interleaved partial sums that are
/// then folded in half.
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
