//! The `n` largest logits of each row: they stay, unless their probability is zero in float32, and
//! the others become so small that the softmax of the result is that of the logits over these
//! entries alone.
//!
//! x: (.., V); the result has the same shape. Of equally probable entries the lowest index stays.
//! No gradient: the result is a target.

use super::elementwise::Rows;
use super::math::exp;
use super::{abs_topk, kl};
use crate::device::cpu::{for_row_blocks, inlined, rows_per_block};
use crate::device::{Backend, Launch, Shader, Tensor, params};
use crate::{Error, Result};

params! {
    struct CutParams { rows: u32, width: u32, depth: f32 }
}

pub(super) const SHADER: Shader = Shader::new("topk_logits", include_str!("../../shaders/topk_logits.wgsl"));

/// How far below a row's log-sum-exp the other entries lie: `e^-200` is zero in float32, while no
/// difference of logits overflows.
const DEPTH: f32 = 200.0;

/// Keeps the `n` most probable entries of each row.
///
/// # Errors
/// [`Error::Shape`] if `n` or V is 0; otherwise as `device::Device::empty`.
pub fn forward(x: &Tensor, n: usize) -> Result<Tensor> {
    let vocab = x.rows_cols().1;
    if n == 0 || vocab == 0 {
        return Err(Error::shape("topk_logits", format!("{n} entries of logits {:?}", x.shape())));
    }
    let lse = kl::log_sum_exp(x)?;
    let kept = abs_topk::forward(&probabilities(x, &lse)?, n)?.y;
    cut(x, &lse, &kept)
}

/// The softmax of each row, given its log-sum-exp.
fn probabilities(x: &Tensor, lse: &Tensor) -> Result<Tensor> {
    let vocab = x.rows_cols().1;
    let mut probability = x.device().empty("probabilities", x.shape())?;
    match x.backend() {
        Backend::Gpu(queue) => Launch::new(&SHADER, "probabilities", Rows::of(x))
            .bind(&[x, lse, &probability])
            .threads(x.len(), 256)
            .cost(x.len().saturating_mul(8))
            .run(queue)?,
        Backend::Cpu => {
            let (x, lse) = (x.as_slice()?, lse.as_slice()?);
            inlined!(for_row_blocks(probability.as_mut_slice()?, vocab, rows_per_block(vocab)), |start, block| {
                for (r, p) in block.chunks_exact_mut(vocab).enumerate() {
                    let (x, lse) = (&x[(start + r) * vocab..][..vocab], lse[start + r]);
                    p.iter_mut().zip(x).for_each(|(p, x)| *p = exp(x - lse));
                }
            });
        }
        Backend::Meta => {}
    }
    Ok(probability)
}

/// The logits whose probability is `kept`, the others moved out of reach.
fn cut(x: &Tensor, lse: &Tensor, kept: &Tensor) -> Result<Tensor> {
    let (rows, vocab) = x.rows_cols();
    let mut y = x.device().empty("top logits", x.shape())?;
    match x.backend() {
        Backend::Gpu(queue) => {
            Launch::new(&SHADER, "cut", CutParams { rows: rows as u32, width: vocab as u32, depth: DEPTH })
                .bind(&[x, lse, kept, &y])
                .threads(x.len(), 256)
                .cost(x.len())
                .run(queue)?
        }
        Backend::Cpu => {
            let (x, lse, kept) = (x.as_slice()?, lse.as_slice()?, kept.as_slice()?);
            inlined!(for_row_blocks(y.as_mut_slice()?, vocab, rows_per_block(vocab)), |start, block| {
                for (r, y) in block.chunks_exact_mut(vocab).enumerate() {
                    let row = (start + r) * vocab..(start + r + 1) * vocab;
                    let below = lse[start + r] - DEPTH;
                    for ((y, &x), &kept) in y.iter_mut().zip(&x[row.clone()]).zip(&kept[row]) {
                        *y = if kept > 0.0 { x } else { below };
                    }
                }
            });
        }
        Backend::Meta => {}
    }
    Ok(y)
}
