//! Cross-entropy of next-token predictions: the mean, over the rows that have a target, of
//! `-log softmax(logits)[target]`, in nats.
//!
//! logits: (.., V), taken as (rows, V); targets: rows of them, in any shape. With `lse` the
//! logarithm of a row's sum of `e^logit`, the row's loss is `lse - logits[target]`.
//!
//! Gradient: `dlogits = (softmax(logits) - onehot(target)) dloss/count`, rows without a target
//! zero. The softmax is recomputed from `lse`, so that nothing of the size of the logits is kept.

use rayon::prelude::*;

use super::elementwise::Rows;
use super::math::{exp, log_sum};
use crate::device::cpu::{for_row_blocks, inlined, rows_per_block, vectorised};
use crate::device::{Backend, Launch, Queue, Shader, Tensor, params};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

params! {
    struct SumParams { n: u32, chunk: u32, workgroups: u32, divisor: f32 }
    struct BackwardParams { rows: u32, width: u32, count: f32 }
}

pub(super) const SHADER: Shader = Shader::new("cross_entropy", include_str!("../../shaders/cross_entropy.wgsl"));

/// The target of a row that has none: it adds nothing to the loss and receives no gradient.
pub const IGNORE: u32 = u32::MAX;

/// Losses that one workgroup adds up.
const CHUNK: usize = 4096;

/// What [`forward`] gives, and [`backward`] needs again.
#[derive(Debug)]
pub struct Forward {
    /// The mean loss: (1).
    pub loss: Tensor,
    /// Every row's loss, 0 where it has no target: (rows).
    pub losses: Tensor,
    /// Every row's log-sum-exp: (rows).
    pub lse: Tensor,
    /// By how many rows the sum of losses was divided.
    pub count: usize,
}

/// The mean loss. `count` is the number of targets other than [`IGNORE`]; the caller knows it, so
/// that no device has to be asked. (A batch cut into pieces may pass the count of the whole batch:
/// the pieces' losses and gradients then add up.)
///
/// # Errors
/// [`Error::Shape`] if there are not as many targets as rows, if V or `count` is 0, and, on the
/// CPU, for a target that is neither below V nor [`IGNORE`]. A GPU takes such a target for
/// [`IGNORE`].
pub fn forward(logits: &Tensor, targets: &Tensor<u32>, count: usize) -> Result<Forward> {
    let (rows, vocab) = check(logits, targets, count)?;
    let device = logits.device();
    let mut loss = device.empty("loss", &[1])?;
    let mut losses = device.empty("losses", &[rows])?;
    let mut lse = device.empty("log-sum-exp of the logits", &[rows])?;
    match logits.backend() {
        Backend::Gpu(queue) => {
            Launch::new(&SHADER, "forward", Rows::of(logits))
                .bind(&[logits, targets, &losses, &lse])
                .workgroups(rows)
                .cost(logits.len().saturating_mul(8))
                .run(queue)?;
            let partials = device.empty("partial losses", &[rows.div_ceil(CHUNK)])?;
            sum(queue, &losses, &partials, 1)?;
            sum(queue, &partials, &loss, count)?;
        }
        Backend::Cpu => {
            let (x, targets) = (logits.as_slice()?, targets.as_slice()?);
            known_targets(targets, vocab)?;
            rows_forward(x, targets, losses.as_mut_slice()?, lse.as_mut_slice()?, vocab);
            let total: f64 = losses.as_slice()?.iter().map(|&l| f64::from(l)).sum();
            loss.as_mut_slice()?[0] = (total / count as f64) as f32;
        }
        Backend::Meta => {}
    }
    Ok(Forward { loss, losses, lse, count })
}

/// Chunked sums of `terms` divided by `divisor`, one for each entry of `sums`. A single sum takes
/// all terms.
fn sum(queue: Queue, terms: &Tensor, sums: &Tensor, divisor: usize) -> Result<()> {
    let chunk = if sums.len() == 1 { terms.len() } else { CHUNK };
    Launch::new(
        &SHADER,
        "sum",
        SumParams {
            n: terms.len() as u32,
            chunk: chunk as u32,
            workgroups: sums.len() as u32,
            divisor: divisor as f32,
        },
    )
    .bind(&[terms, sums])
    .workgroups(sums.len())
    .cost(terms.len())
    .run(queue)
}

fn rows_forward(x: &[f32], targets: &[u32], losses: &mut [f32], lse: &mut [f32], vocab: usize) {
    let block = rows_per_block(vocab);
    let blocks = losses.par_chunks_mut(block).zip(lse.par_chunks_mut(block));
    blocks.zip(targets.par_chunks(block)).zip(x.par_chunks(block * vocab)).for_each(|(((losses, lse), targets), x)| {
        vectorised!({
            for (r, row) in x.chunks_exact(vocab).enumerate() {
                let (top, log_sum) = log_sum(row);
                lse[r] = top + log_sum;
                // In this order small losses keep their digits when the logits are large.
                losses[r] = if targets[r] == IGNORE { 0.0 } else { (top - row[targets[r] as usize]) + log_sum };
            }
        });
    });
}

/// The gradient of the logits, in their shape, given that of the mean loss, dloss: (1).
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit those given to [`forward`], and for targets as there.
pub fn backward(dloss: &Tensor, logits: &Tensor, targets: &Tensor<u32>, forward: &Forward) -> Result<Tensor> {
    let (rows, vocab) = check(logits, targets, forward.count)?;
    super::expect_shape("cross_entropy", "dloss", dloss, &[1])?;
    super::expect_shape("cross_entropy", "lse", &forward.lse, &[rows])?;
    let mut dlogits = logits.device().empty("logits gradient", logits.shape())?;
    match logits.backend() {
        Backend::Gpu(queue) => Launch::new(
            &SHADER,
            "backward",
            BackwardParams { rows: rows as u32, width: vocab as u32, count: forward.count as f32 },
        )
        .bind(&[dloss, logits, targets, &forward.lse, &dlogits])
        .threads(logits.len(), 256)
        .cost(logits.len().saturating_mul(8))
        .run(queue)?,
        Backend::Cpu => {
            let scale = dloss.as_slice()?[0] / forward.count as f32;
            let (x, targets, lse) = (logits.as_slice()?, targets.as_slice()?, forward.lse.as_slice()?);
            known_targets(targets, vocab)?;
            inlined!(for_row_blocks(dlogits.as_mut_slice()?, vocab, rows_per_block(vocab)), |start, block| {
                for (r, dx) in block.chunks_exact_mut(vocab).enumerate() {
                    let row = start + r;
                    if targets[row] == IGNORE {
                        dx.fill(0.0);
                        continue;
                    }
                    let x = &x[row * vocab..][..vocab];
                    for (d, &v) in dx.iter_mut().zip(x) {
                        *d = exp(v - lse[row]) * scale;
                    }
                    dx[targets[row] as usize] -= scale;
                }
            });
        }
        Backend::Meta => {}
    }
    Ok(dlogits)
}

/// Returns an error for a target that would be read out of bounds.
fn known_targets(targets: &[u32], vocab: usize) -> Result<()> {
    match targets.iter().position(|&t| t != IGNORE && t as usize >= vocab) {
        None => Ok(()),
        Some(row) => {
            let message = format!("target {} of row {row} is not below the vocabulary's {vocab}", targets[row]);
            Err(Error::shape("cross_entropy", message))
        }
    }
}

/// The rows and the vocabulary, if everything fits.
fn check(logits: &Tensor, targets: &Tensor<u32>, count: usize) -> Result<(usize, usize)> {
    let (rows, vocab) = logits.rows_cols();
    if vocab == 0 || targets.len() != rows {
        let message = format!("logits {:?} with targets {:?}", logits.shape(), targets.shape());
        return Err(Error::shape("cross_entropy", message));
    }
    if count == 0 {
        return Err(Error::shape("cross_entropy", "no row has a target: the mean loss is undefined"));
    }
    Ok((rows, vocab))
}

impl Tape {
    /// Mean cross-entropy over the `count` rows that have a target; `logits: (.., V)`. Returns it,
    /// in shape `(1)`, and the losses of the rows, which have no gradient. Saves the logits and one
    /// number a row.
    pub fn cross_entropy(&mut self, logits: &Var, targets: &Tensor<u32>, count: usize) -> Result<(Var, Tensor)> {
        let forward = forward(logits.value(), targets, count)?;
        let (loss, losses) = (forward.loss.clone(), forward.losses.clone());
        let (x, targets) = (logits.value().clone(), targets.clone());
        let loss = self
            .record_one(&[logits], loss, move |dloss, _| Ok(vec![Some(backward(&dloss, &x, &targets, &forward)?)]))?;
        Ok((loss, losses))
    }
}
