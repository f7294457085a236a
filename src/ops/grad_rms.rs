//! The root-mean-square of all gradients together, and the factor that scales them by it (section 2
//! of the method: the authors' code always divides by the root-mean-square, the paper clips it to
//! 1).
//!
//! [`square_sum`] runs once a tensor and leaves its number in a slot; [`factor`] joins the slots.
//! Nothing is read back: the optimizer takes the factor from the device. No gradient: it is about
//! gradients.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::elementwise::Entries;
use crate::device::cpu::{rows_per_block, vectorised};
use crate::device::{Backend, Launch, Shader, Tensor, params};
use crate::{Error, Result};

params! {
    struct JoinParams { n: u32, slot: u32 }
    struct FactorParams { n: u32, rule: u32, inverse_count: f32, eps: f32 }
}

pub(super) const SHADER: Shader = Shader::new("grad_rms", include_str!("../../shaders/grad_rms.wgsl"));

/// Entries that one workgroup sums: 16 an invocation, then a tree over the invocations.
const BLOCK: usize = 4096;

/// Added to the root-mean-square under [`Rule::Normalize`].
const EPS: f32 = 1e-5;

/// How the root-mean-square `rms` of all gradients becomes the factor that multiplies each before
/// Adam (method: section 2, step 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// `1 / (rms + 1e-5)`.
    Normalize,
    /// `1 / max(1, rms)`: only large gradients shrink.
    Clip,
    /// 1.
    None,
}

/// `sums[slot] = Σ x²`, in a fixed order. An entry that is not finite makes a sum that is not
/// finite.
///
/// # Errors
/// [`Error::Shape`] if `sums: (n)` is no vector or has no such slot; [`Error::Device`] if it has
/// clones.
pub fn square_sum(x: &Tensor, sums: &mut Tensor, slot: usize) -> Result<()> {
    if sums.shape().len() != 1 || slot >= sums.len() {
        return Err(Error::shape("grad_rms", format!("sums {:?} has no slot {slot}", sums.shape())));
    }
    match x.backend() {
        Backend::Gpu(queue) => {
            let blocks = x.len().div_ceil(BLOCK);
            let partial = x.device().empty::<f32>("grad_rms partial sums", &[blocks])?;
            Launch::new(&SHADER, "square_sum_blocks", Entries::of(x))
                .bind(&[x, &partial])
                .workgroups(blocks)
                .cost(2 * x.len())
                .run(queue)?;
            Launch::new(&SHADER, "square_sum_join", JoinParams { n: blocks as u32, slot: slot as u32 })
                .bind(&[&partial, sums])
                .workgroups(1)
                .cost(blocks)
                .run(queue)
        }
        Backend::Cpu => {
            let blocks: Vec<f64> =
                x.as_slice()?.par_chunks(rows_per_block(1)).map(|b| vectorised!(squares(b))).collect();
            sums.as_mut_slice()?[slot] = blocks.iter().sum::<f64>() as f32;
            Ok(())
        }
        Backend::Meta => Ok(()),
    }
}

/// `[factor, rms]` for gradients of `numel` entries in all, whose sums of squares are `sums: (n)`.
///
/// # Errors
/// [`Error::Shape`] if `sums` is no vector or `numel` is 0.
pub fn factor(sums: &Tensor, numel: u64, rule: Rule) -> Result<Tensor> {
    if sums.shape().len() != 1 || numel == 0 {
        return Err(Error::shape("grad_rms", format!("no mean over {numel} entries of sums {:?}", sums.shape())));
    }
    let mut out = sums.device().empty("grad_rms", &[2])?;
    match sums.backend() {
        Backend::Gpu(queue) => Launch::new(
            &SHADER,
            "factor",
            FactorParams {
                n: sums.len() as u32,
                rule: rule as u32,
                inverse_count: (1.0 / numel as f64) as f32,
                eps: EPS,
            },
        )
        .bind(&[sums, &out])
        .workgroups(1)
        .cost(sums.len())
        .run(queue)?,
        Backend::Cpu => {
            let total: f64 = sums.as_slice()?.iter().copied().map(f64::from).sum();
            let rms = (total / numel as f64).sqrt() as f32;
            let factor = match rule {
                Rule::Normalize => 1.0 / (rms + EPS),
                Rule::Clip if rms > 1.0 => 1.0 / rms,
                Rule::Clip | Rule::None => 1.0,
            };
            out.as_mut_slice()?.copy_from_slice(&[factor, rms]);
        }
        Backend::Meta => {}
    }
    Ok(out)
}

#[inline(always)]
fn squares(block: &[f32]) -> f64 {
    let mut sums = [0.0f64; 16];
    let (whole, rest) = block.as_chunks::<16>();
    for x in whole {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum += f64::from(x) * f64::from(x);
    }
    sums.iter().sum()
}
