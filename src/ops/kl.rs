//! How far predictions are from those of another model: `KL(p ‖ q) = Σ_v p_v (log p_v − log q_v)`,
//! in nats, with p the softmax of the target logits and q that of the logits.
//!
//! target: (.., V), taken as (M, V); logits: (.., V), taken as n blocks of M rows each, which are
//! all compared with the same target. `loss[b]` is the mean over the rows of block b: (n).
//!
//! With [`Support::OfTarget`], q is the softmax over those entries alone that the target can give:
//! of a target by [`super::topk_logits`], both are predictions of its most probable entries.
//!
//! Gradient: `dlogits = (q − p) dloss[b] / M`, and 0 at entries that q leaves out. The target is a
//! constant. Both softmaxes are recomputed from the rows' log-sum-exps, so that nothing of the size
//! of the logits is kept.

use super::elementwise::Rows;
use super::expect_shape;
use super::math::{exp, log_sum};
use crate::device::cpu::{for_row_blocks, inlined, rows_per_block};
use crate::device::{Backend, Launch, Shader, Tensor, params};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

params! {
    struct BlockParams { rows: u32, width: u32, block: u32 }
    struct SupportParams { rows: u32, width: u32, block: u32, floor: f32 }
    struct MeanParams { blocks: u32, block: u32 }
}

pub(super) const SHADER: Shader = Shader::new("kl", include_str!("../../shaders/kl.wgsl"));

/// Which entries the logits' softmax is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Support {
    /// All.
    #[default]
    All,
    /// Those whose logarithm of the target's probability is at least -150. What
    /// [`super::topk_logits`] moves out of reach is below -180, and every other entry of its result
    /// above -110.
    OfTarget,
}

impl Support {
    /// The least logarithm of the target's probability that an entry has.
    fn floor(self) -> f32 {
        match self {
            Self::All => f32::MIN,
            Self::OfTarget => -150.0,
        }
    }
}

/// What [`forward`] gives, and [`backward`] needs again.
#[derive(Debug)]
pub struct Forward {
    /// The mean divergence of each block: (n).
    pub loss: Tensor,
    /// The log-sum-exp of every row of the logits, over the support: (n·M).
    pub lse: Tensor,
    /// The log-sum-exp of every row of the target: (M).
    pub target_lse: Tensor,
    support: Support,
}

/// The mean divergence of every block.
///
/// # Errors
/// [`Error::Shape`] if V or M is 0, the vocabularies differ, or the logits' rows are no multiple of
/// the target's.
pub fn forward(logits: &Tensor, target: &Tensor, support: Support) -> Result<Forward> {
    let Shape { rows, vocab, block } = Shape::of(logits, target)?;
    let device = logits.device();
    let target_lse = log_sum_exp(target)?;
    let lse = match support {
        Support::All => log_sum_exp(logits)?,
        Support::OfTarget => support_log_sum_exp(logits, target, &target_lse, support.floor())?,
    };
    let mut losses = device.empty("divergences", &[rows])?;
    let mut loss = device.empty("mean divergences", &[rows / block])?;
    match logits.backend() {
        Backend::Gpu(queue) => {
            Launch::new(
                &SHADER,
                "divergence",
                BlockParams { rows: rows as u32, width: vocab as u32, block: block as u32 },
            )
            .bind(&[logits, target, &lse, &target_lse, &losses])
            .workgroups(rows)
            .cost(logits.len().saturating_mul(8))
            .run(queue)?;
            Launch::new(&SHADER, "mean", MeanParams { blocks: (rows / block) as u32, block: block as u32 })
                .bind(&[&losses, &loss])
                .workgroups(rows / block)
                .cost(rows)
                .run(queue)?;
        }
        Backend::Cpu => {
            let (x, target) = (logits.as_slice()?, target.as_slice()?);
            let (lse, target_lse) = (lse.as_slice()?, target_lse.as_slice()?);
            inlined!(for_row_blocks(losses.as_mut_slice()?, 1, rows_per_block(vocab)), |start, block_losses| {
                for (r, loss) in block_losses.iter_mut().enumerate() {
                    let (row, target_row) = (start + r, (start + r) % block);
                    let (x, target) = (&x[row * vocab..][..vocab], &target[target_row * vocab..][..vocab]);
                    *loss = divergence(x, target, lse[row], target_lse[target_row]);
                }
            });
            for (mean, losses) in loss.as_mut_slice()?.iter_mut().zip(losses.as_slice()?.chunks_exact(block)) {
                *mean = (losses.iter().map(|&l| f64::from(l)).sum::<f64>() / block as f64) as f32;
            }
        }
        Backend::Meta => {}
    }
    Ok(Forward { loss, lse, target_lse, support })
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
    let floor = forward.support.floor();
    let mut dlogits = logits.device().empty("logits gradient", logits.shape())?;
    match logits.backend() {
        Backend::Gpu(queue) => Launch::new(
            &SHADER,
            "backward",
            SupportParams { rows: rows as u32, width: vocab as u32, block: block as u32, floor },
        )
        .bind(&[logits, target, &forward.lse, &forward.target_lse, dloss, &dlogits])
        .threads(logits.len(), 256)
        .cost(logits.len().saturating_mul(16))
        .run(queue)?,
        Backend::Cpu => {
            let (x, target, dloss) = (logits.as_slice()?, target.as_slice()?, dloss.as_slice()?);
            let (lse, target_lse) = (forward.lse.as_slice()?, forward.target_lse.as_slice()?);
            inlined!(for_row_blocks(dlogits.as_mut_slice()?, vocab, rows_per_block(vocab)), |start, rows| {
                for (r, dx) in rows.chunks_exact_mut(vocab).enumerate() {
                    let (row, target_row) = (start + r, (start + r) % block);
                    let (x, target) = (&x[row * vocab..][..vocab], &target[target_row * vocab..][..vocab]);
                    let (lse, target_lse) = (lse[row], target_lse[target_row]);
                    let scale = dloss[row / block] / block as f32;
                    for ((d, &x), &t) in dx.iter_mut().zip(x).zip(target) {
                        let log_p = t - target_lse;
                        let q = if log_p < floor { 0.0 } else { exp(x - lse) };
                        *d = (q - exp(log_p)) * scale;
                    }
                }
            });
        }
        Backend::Meta => {}
    }
    Ok(dlogits)
}

/// Every row's logarithm of the sum of `e^x`: (rows).
pub(super) fn log_sum_exp(x: &Tensor) -> Result<Tensor> {
    let (rows, vocab) = x.rows_cols();
    let mut lse = x.device().empty("log-sum-exp of the logits", &[rows])?;
    match x.backend() {
        Backend::Gpu(queue) => Launch::new(&SHADER, "log_sum_exp", Rows::of(x))
            .bind(&[x, &lse])
            .workgroups(rows)
            .cost(x.len().saturating_mul(8))
            .run(queue)?,
        Backend::Cpu => {
            let x = x.as_slice()?;
            inlined!(for_row_blocks(lse.as_mut_slice()?, 1, rows_per_block(vocab)), |start, block| {
                for (lse, row) in block.iter_mut().zip(x[start * vocab..].chunks_exact(vocab)) {
                    let (top, log_sum) = log_sum(row);
                    *lse = top + log_sum;
                }
            });
        }
        Backend::Meta => {}
    }
    Ok(lse)
}

/// Every row's logarithm of the sum of `e^x` over the entries to which the target gives a
/// probability of at least `e^floor`: (rows).
fn support_log_sum_exp(x: &Tensor, target: &Tensor, target_lse: &Tensor, floor: f32) -> Result<Tensor> {
    let Shape { rows, vocab, block } = Shape::of(x, target)?;
    let mut lse = x.device().empty("log-sum-exp over the support", &[rows])?;
    match x.backend() {
        Backend::Gpu(queue) => Launch::new(
            &SHADER,
            "support_log_sum_exp",
            SupportParams { rows: rows as u32, width: vocab as u32, block: block as u32, floor },
        )
        .bind(&[x, target, target_lse, &lse])
        .workgroups(rows)
        .cost(x.len().saturating_mul(8))
        .run(queue)?,
        Backend::Cpu => {
            let (x, target, target_lse) = (x.as_slice()?, target.as_slice()?, target_lse.as_slice()?);
            inlined!(for_row_blocks(lse.as_mut_slice()?, 1, rows_per_block(vocab)), |start, lses| {
                let mut support = Vec::with_capacity(vocab);
                for (r, lse) in lses.iter_mut().enumerate() {
                    let (row, target_row) = (start + r, (start + r) % block);
                    let (x, target) = (&x[row * vocab..][..vocab], &target[target_row * vocab..][..vocab]);
                    support.clear();
                    let entries = x.iter().zip(target).filter(|(_, t)| *t - target_lse[target_row] >= floor);
                    support.extend(entries.map(|(x, _)| *x));
                    let (top, log_sum) = log_sum(&support);
                    *lse = top + log_sum;
                }
            });
        }
        Backend::Meta => {}
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

impl Tape {
    /// Mean divergence from the constant `target: (.., V)` of each block of `logits` with as many
    /// rows: `(n)`. Saves both and one number for each of their rows.
    pub fn kl(&mut self, logits: &Var, target: &Tensor, support: Support) -> Result<Var> {
        let forward = forward(logits.value(), target, support)?;
        let (loss, x, target) = (forward.loss.clone(), logits.value().clone(), target.clone());
        self.record_one(&[logits], loss, move |dloss, _| Ok(vec![Some(backward(&dloss, &x, &target, &forward)?)]))
    }
}
