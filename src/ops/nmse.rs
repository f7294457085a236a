//! The normalised mean squared error of a prediction (method: section 5): the mean over rows of
//! `|x_r − t_r|² / |t_r − mean(t)|²`, with the mean of the target taken over all rows.
//!
//! x, t: (.., C). A row whose target lies at the mean has no scale to measure its error by, and
//! counts nothing: one whose squared distance is not above `LEAST` times the mean of `|t_r|²`.
//!
//! Gradient: `dx_r = 2 (x_r − t_r) w_r dloss` with `w_r = 1 / (rows · |t_r − mean(t)|²)`. The scale
//! `w_r` is a constant, so that a target that learns, too, has the gradient `−dx_r`: that of the
//! two exchanged.

use super::elementwise::Rows;
use super::{expect_same, expect_shape, linear};
use crate::device::cpu::{for_row_blocks, inlined, rows_per_block};
use crate::device::{Backend, Launch, Shader, Tensor, params};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

params! {
    struct WeighParams { rows: u32, width: u32, least: f32 }
}

pub(super) const SHADER: Shader = Shader::new("nmse", include_str!("../../shaders/nmse.wgsl"));

/// The squared distance from the mean, relative to the targets' mean square, up to which a target
/// counts as being there. What rounding makes of no distance at all is far less.
pub(crate) const LEAST: f32 = 1e-10;

/// What [`forward`] gives, and [`backward`] needs again.
#[derive(Debug)]
pub struct Forward {
    /// The error: (1).
    pub loss: Tensor,
    /// What every row's squared error is multiplied by: (rows).
    pub weights: Tensor,
}

/// The error of `x` against `target`, both (.., C).
///
/// # Errors
/// [`Error::Shape`] if the shapes differ or there are no rows.
pub fn forward(x: &Tensor, target: &Tensor) -> Result<Forward> {
    let (rows, width) = check(x, target)?;
    let device = x.device();
    let sums = linear::backward_bias(target)?;
    let mut loss = device.empty("nmse", &[1])?;
    let mut weights = device.empty("nmse weights", &[rows])?;
    match x.backend() {
        Backend::Gpu(queue) => {
            let errors: Tensor = device.empty("squared errors", &[rows])?;
            let distances: Tensor = device.empty("squared distances", &[rows])?;
            Launch::new(&SHADER, "measure", Rows::of(x))
                .bind(&[x, target, &sums, &errors, &distances])
                .workgroups(rows)
                .cost(x.len().saturating_mul(8))
                .run(queue)?;
            Launch::new(&SHADER, "weigh", WeighParams { rows: rows as u32, width: width as u32, least: LEAST })
                .bind(&[&errors, &distances, &sums, &weights, &loss])
                .workgroups(1)
                .cost(rows.saturating_mul(8))
                .run(queue)?;
        }
        Backend::Cpu => {
            let (x, target, sums) = (x.as_slice()?, target.as_slice()?, sums.as_slice()?);
            let total = native_forward(x, target, sums, weights.as_mut_slice()?);
            loss.as_mut_slice()?[0] = total as f32;
        }
        Backend::Meta => {}
    }
    Ok(Forward { loss, weights })
}

/// Writes the rows' weights and returns the error.
fn native_forward(x: &[f32], target: &[f32], sums: &[f32], weights: &mut [f32]) -> f64 {
    let (rows, width) = (weights.len(), sums.len());
    let mean: Vec<f32> = sums.iter().map(|sum| sum / rows as f32).collect();
    let mut measured = vec![0.0f32; 2 * rows];
    inlined!(for_row_blocks(&mut measured, 2, rows_per_block(width)), |start, block| {
        for (r, pair) in block.chunks_exact_mut(2).enumerate() {
            let row = (start + r) * width..(start + r + 1) * width;
            pair[0] = squared_distance(&x[row.clone()], &target[row.clone()]);
            pair[1] = squared_distance(&target[row], &mean);
        }
    });
    let distance = measured.chunks_exact(2).map(|pair| f64::from(pair[1])).sum::<f64>() / rows as f64;
    let square = distance + mean.iter().map(|&m| f64::from(m) * f64::from(m)).sum::<f64>();
    let least = f64::from(LEAST) * square;
    let mut total = 0.0;
    for (weight, pair) in weights.iter_mut().zip(measured.chunks_exact(2)) {
        let (error, distance) = (f64::from(pair[0]), f64::from(pair[1]));
        let exact = if distance > least { 1.0 / (rows as f64 * distance) } else { 0.0 };
        *weight = exact as f32;
        total += exact * error;
    }
    total
}

/// The gradient of x, given that of the error, dloss: (1).
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit those given to [`forward`].
pub fn backward(dloss: &Tensor, x: &Tensor, target: &Tensor, weights: &Tensor) -> Result<Tensor> {
    let (rows, width) = check(x, target)?;
    expect_shape("nmse", "dloss", dloss, &[1])?;
    expect_shape("nmse", "weights", weights, &[rows])?;
    let mut dx = x.device().empty("nmse gradient", x.shape())?;
    match x.backend() {
        Backend::Gpu(queue) => Launch::new(&SHADER, "backward", Rows::of(x))
            .bind(&[x, target, weights, dloss, &dx])
            .threads(x.len(), 256)
            .cost(x.len().saturating_mul(4))
            .run(queue)?,
        Backend::Cpu => {
            let (x, target, weights, dloss) =
                (x.as_slice()?, target.as_slice()?, weights.as_slice()?, dloss.as_slice()?[0]);
            inlined!(for_row_blocks(dx.as_mut_slice()?, width, rows_per_block(width)), |start, block| {
                for (r, dx) in block.chunks_exact_mut(width).enumerate() {
                    let row = (start + r) * width..(start + r + 1) * width;
                    let scale = 2.0 * weights[start + r] * dloss;
                    for ((d, x), t) in dx.iter_mut().zip(&x[row.clone()]).zip(&target[row]) {
                        *d = (x - t) * scale;
                    }
                }
            });
        }
        Backend::Meta => {}
    }
    Ok(dx)
}

/// `|a − b|²`, added up in strands.
#[inline(always)]
fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = super::math::LANES;
    let mut lanes = [0.0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] += (a[i] - b[i]) * (a[i] - b[i]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b)).sum();
    lanes.iter().sum::<f32>() + rest
}

fn check(x: &Tensor, target: &Tensor) -> Result<(usize, usize)> {
    expect_same("nmse", x, target)?;
    match x.rows_cols() {
        (rows, width) if rows > 0 && width > 0 => Ok((rows, width)),
        _ => Err(Error::shape("nmse", format!("no rows in {:?}", x.shape()))),
    }
}

impl Tape {
    /// Normalised mean squared error of `x` against `target`, both `(.., C)`: `(1)`. The scale that
    /// normalises it is a constant. Saves both and one number a row.
    pub fn nmse(&mut self, x: &Var, target: &Var) -> Result<Var> {
        let Forward { loss, weights } = forward(x.value(), target.value())?;
        let (xv, tv) = (x.value().clone(), target.value().clone());
        self.record_one(&[x, target], loss, move |dloss, needs| {
            Ok(vec![
                needs[0].then(|| backward(&dloss, &xv, &tv, &weights)).transpose()?,
                needs[1].then(|| backward(&dloss, &tv, &xv, &weights)).transpose()?,
            ])
        })
    }
}
