//! Predictions cut down to the most probable entries: the logits of the `n` largest stay, as far as their probability is not zero in
//! float32; the others become impossible, so that the softmax of the result is that of the logits over these entries alone.
//!
//! x: (.., V); the result has the same shape. Equally probable entries: the lowest index stays. No gradient: what is cut down is a target.

use super::math::exp;
use super::{abs_topk, kl};
use crate::device::cpu::{for_row_blocks, rows_per_block};
use crate::device::{Launch, Shader, Tensor};
use crate::{Error, Result};

/// The kernels.
pub const SHADER: Shader = Shader::new("topk_logits", include_str!("../../shaders/topk_logits.wgsl"));

/// How far below a row's log-sum-exp impossible entries lie: `e^-200` is zero in float32, while no difference of logits overflows.
const DEPTH: f32 = 200.0;

/// Keeps the `n` most probable entries of each row.
///
/// # Errors
/// [`Error::Shape`] if `n` or V is 0; otherwise as [`crate::device::Device::empty`].
pub fn forward(x: &Tensor, n: usize) -> Result<Tensor> {
    let (rows, vocab) = x.rows_cols();
    if n == 0 || vocab == 0 {
        return Err(Error::shape("topk_logits", format!("{n} entries of logits {:?}", x.shape())));
    }
    let device = x.device();
    let lse = kl::log_sum_exp(x)?;
    let mut probability = device.empty("probabilities", x.shape())?;
    let mut y = device.empty("most probable", x.shape())?;
    match x.gpu() {
        Some(gpu) => Launch::new(&SHADER, "probabilities")
            .bind(x)
            .bind(&lse)
            .bind(&probability)
            .word(rows)
            .word(vocab)
            .items(x.len(), 256)
            .work(x.len().saturating_mul(8))
            .run(gpu)?,
        None => {
            let (x, lse) = (x.as_slice()?, lse.as_slice()?);
            for_row_blocks(
                probability.as_mut_slice()?,
                vocab,
                rows_per_block(vocab),
                #[inline(always)]
                |start, block| {
                    for (r, p) in block.chunks_exact_mut(vocab).enumerate() {
                        let (x, lse) = (&x[(start + r) * vocab..][..vocab], lse[start + r]);
                        p.iter_mut().zip(x).for_each(|(p, x)| *p = exp(x - lse));
                    }
                },
            );
        }
    }
    let kept = abs_topk::forward(&probability, n)?.y;
    match x.gpu() {
        Some(gpu) => Launch::new(&SHADER, "cut")
            .bind(x)
            .bind(&lse)
            .bind(&kept)
            .bind(&y)
            .word(rows)
            .word(vocab)
            .float(DEPTH)
            .items(x.len(), 256)
            .work(x.len())
            .run(gpu)?,
        None => {
            let (x, lse, kept) = (x.as_slice()?, lse.as_slice()?, kept.as_slice()?);
            for_row_blocks(
                y.as_mut_slice()?,
                vocab,
                rows_per_block(vocab),
                #[inline(always)]
                |start, block| {
                    for (r, y) in block.chunks_exact_mut(vocab).enumerate() {
                        let row = (start + r) * vocab..(start + r + 1) * vocab;
                        let below = lse[start + r] - DEPTH;
                        for ((y, &x), &kept) in y.iter_mut().zip(&x[row.clone()]).zip(&kept[row]) {
                            *y = if kept > 0.0 { x } else { below };
                        }
                    }
                },
            );
        }
    }
    Ok(y)
}
