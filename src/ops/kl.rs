//! How far predictions are from those of another model: `KL(p ‖ q) = Σ_v p_v (log p_v − log q_v)`, in nats, with p the softmax
//! of the target logits and q that of the logits.
//!
//! target: (.., V), taken as (M, V); logits: (.., V), taken as n blocks of M rows each, which are all compared with the same
//! target. `loss[b]` is the mean over the rows of block b: (n).
//!
//! Gradient: `dlogits = (q − p) dloss[b] / M`. The target is a constant. Both softmaxes are recomputed from the rows'
//! log-sum-exps, so that nothing of the size of the logits is kept.

use super::expect_shape;
use super::math::{exp, log_sum};
use crate::device::cpu::{for_row_blocks, rows_per_block};
use crate::device::{Launch, Shader, Tensor};
use crate::{Error, Result};

/// The kernels.
pub const SHADER: Shader = Shader::new("kl", include_str!("../../shaders/kl.wgsl"));

/// What [`forward`] gives, and [`backward`] needs again.
#[derive(Debug)]
pub struct Forward {
    /// The mean divergence of each block: (n).
    pub loss: Tensor,
    /// The log-sum-exp of every row of the logits: (n·M).
    pub lse: Tensor,
    /// The log-sum-exp of every row of the target: (M).
    pub target_lse: Tensor,
}

/// The mean divergence of every block.
///
/// # Errors
/// [`Error::Shape`] if V or M is 0, the vocabularies differ, or the logits' rows are no multiple of the target's.
pub fn forward(logits: &Tensor, target: &Tensor) -> Result<Forward> {
    let Shape { rows, vocab, block } = Shape::of(logits, target)?;
    let device = logits.device();
    let (lse, target_lse) = (log_sum_exp(logits)?, log_sum_exp(target)?);
    let mut losses = device.empty("divergences", &[rows])?;
    let mut loss = device.empty("mean divergences", &[rows / block])?;
    match logits.gpu() {
        Some(gpu) => {
            Launch::new(&SHADER, "divergence")
                .bind(logits)
                .bind(target)
                .bind(&lse)
                .bind(&target_lse)
                .bind(&losses)
                .word(rows)
                .word(vocab)
                .word(block)
                .groups(rows)
                .work(logits.len().saturating_mul(8))
                .run(gpu)?;
            Launch::new(&SHADER, "mean")
                .bind(&losses)
                .bind(&loss)
                .word(rows / block)
                .word(block)
                .groups(rows / block)
                .work(rows)
                .run(gpu)?;
        }
        None => {
            let (x, target) = (logits.as_slice()?, target.as_slice()?);
            let (lse, target_lse) = (lse.as_slice()?, target_lse.as_slice()?);
            for_row_blocks(
                losses.as_mut_slice()?,
                1,
                rows_per_block(vocab),
                #[inline(always)]
                |start, block_losses| {
                    for (r, loss) in block_losses.iter_mut().enumerate() {
                        let (row, wanted) = (start + r, (start + r) % block);
                        let (x, target) = (&x[row * vocab..][..vocab], &target[wanted * vocab..][..vocab]);
                        *loss = divergence(x, target, lse[row], target_lse[wanted]);
                    }
                },
            );
            for (mean, losses) in loss.as_mut_slice()?.iter_mut().zip(losses.as_slice()?.chunks_exact(block)) {
                *mean = (losses.iter().map(|&l| f64::from(l)).sum::<f64>() / block as f64) as f32;
            }
        }
    }
    Ok(Forward { loss, lse, target_lse })
}

/// The gradient of the logits, in their shape, given those of the blocks' divergences, dloss: (n).
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit those given to [`forward`].
pub fn backward(dloss: &Tensor, logits: &Tensor, target: &Tensor, forward: &Forward) -> Result<Tensor> {
    let Shape { rows, vocab, block } = Shape::of(logits, target)?;
    expect_shape("kl", "dloss", dloss, &[rows / block])?;
    expect_shape("kl", "lse", &forward.lse, &[rows])?;
    expect_shape("kl", "target lse", &forward.target_lse, &[block])?;
    let mut dlogits = logits.device().empty("logits gradient", logits.shape())?;
    match logits.gpu() {
        Some(gpu) => Launch::new(&SHADER, "backward")
            .bind(logits)
            .bind(target)
            .bind(&forward.lse)
            .bind(&forward.target_lse)
            .bind(dloss)
            .bind(&dlogits)
            .word(rows)
            .word(vocab)
            .word(block)
            .items(logits.len(), 256)
            .work(logits.len().saturating_mul(16))
            .run(gpu)?,
        None => {
            let (x, target, dloss) = (logits.as_slice()?, target.as_slice()?, dloss.as_slice()?);
            let (lse, target_lse) = (forward.lse.as_slice()?, forward.target_lse.as_slice()?);
            for_row_blocks(
                dlogits.as_mut_slice()?,
                vocab,
                rows_per_block(vocab),
                #[inline(always)]
                |start, rows| {
                    for (r, dx) in rows.chunks_exact_mut(vocab).enumerate() {
                        let (row, wanted) = (start + r, (start + r) % block);
                        let (x, target) = (&x[row * vocab..][..vocab], &target[wanted * vocab..][..vocab]);
                        let (lse, target_lse) = (lse[row], target_lse[wanted]);
                        let scale = dloss[row / block] / block as f32;
                        for ((d, &x), &t) in dx.iter_mut().zip(x).zip(target) {
                            *d = (exp(x - lse) - exp(t - target_lse)) * scale;
                        }
                    }
                },
            );
        }
    }
    Ok(dlogits)
}

/// Every row's logarithm of the sum of `e^x`: (rows).
pub(super) fn log_sum_exp(x: &Tensor) -> Result<Tensor> {
    let (rows, vocab) = x.rows_cols();
    let mut lse = x.device().empty("log-sum-exp of the logits", &[rows])?;
    match x.gpu() {
        Some(gpu) => Launch::new(&SHADER, "log_sum_exp")
            .bind(x)
            .bind(&lse)
            .word(rows)
            .word(vocab)
            .groups(rows)
            .work(x.len().saturating_mul(8))
            .run(gpu)?,
        None => {
            let x = x.as_slice()?;
            for_row_blocks(
                lse.as_mut_slice()?,
                1,
                rows_per_block(vocab),
                #[inline(always)]
                |start, block| {
                    for (lse, row) in block.iter_mut().zip(x[start * vocab..].chunks_exact(vocab)) {
                        let (top, log_sum) = log_sum(row);
                        *lse = top + log_sum;
                    }
                },
            );
        }
    }
    Ok(lse)
}

/// `Σ p (log p − log q)` of one row, added up in [`LANES`](super::math::LANES) strands.
#[inline(always)]
fn divergence(x: &[f32], target: &[f32], lse: f32, target_lse: f32) -> f32 {
    const LANES: usize = super::math::LANES;
    let mut lanes = [0.0f32; LANES];
    let term = |x: f32, t: f32| {
        let log_p = t - target_lse;
        exp(log_p) * (log_p - (x - lse))
    };
    let ((x, x_rest), (target, target_rest)) = (x.as_chunks::<LANES>(), target.as_chunks::<LANES>());
    for (x, t) in x.iter().zip(target) {
        for i in 0..LANES {
            lanes[i] += term(x[i], t[i]);
        }
    }
    let rest: f32 = x_rest.iter().zip(target_rest).map(|(&x, &t)| term(x, t)).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Rows of the logits, the vocabulary, and rows of the target.
struct Shape {
    rows: usize,
    vocab: usize,
    block: usize,
}

impl Shape {
    fn of(logits: &Tensor, target: &Tensor) -> Result<Self> {
        let ((rows, vocab), (block, columns)) = (logits.rows_cols(), target.rows_cols());
        if vocab == 0 || vocab != columns || block == 0 || rows == 0 || !rows.is_multiple_of(block) {
            let message = format!("logits {:?} against a target {:?}", logits.shape(), target.shape());
            return Err(Error::shape("kl", message));
        }
        Ok(Self { rows, vocab, block })
    }
}
