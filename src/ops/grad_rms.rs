//! The root-mean-square of all gradients together, and the factor that scales them by it (section 2 of the method: the
//! authors' code always divides by the root-mean-square, the paper clips it to 1).
//!
//! [`square_sum`] runs once a tensor and leaves its number in a slot; [`factor`] joins the slots. Nothing is read back:
//! the optimizer takes the factor from the device. No gradient: it is about gradients.

use rayon::prelude::*;

use crate::device::cpu::{rows_per_block, simd};
use crate::device::{Launch, Shader, Tensor};
use crate::{Error, Result};

/// The kernels.
pub const SHADER: Shader = Shader::new("grad_rms", include_str!("../../shaders/grad_rms.wgsl"));

/// Entries that one workgroup sums: 16 an invocation, then a tree over the invocations.
const BLOCK: usize = 4096;

/// Added to the root-mean-square under [`Rule::Normalize`].
const EPS: f32 = 1e-5;

/// How the root-mean-square `rms` of all gradients becomes the factor that multiplies each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `1 / (rms + 1e-5)`.
    Normalize,
    /// `1 / max(1, rms)`: only large gradients shrink.
    Clip,
    /// 1.
    None,
}

/// `sums[slot] = Σ x²`, in a fixed order. An entry that is not finite makes a sum that is not finite.
///
/// # Errors
/// [`Error::Shape`] if `sums: (n)` is no vector or has no such slot; [`Error::Device`] if it has clones.
pub fn square_sum(x: &Tensor, sums: &mut Tensor, slot: usize) -> Result<()> {
    if sums.shape().len() != 1 || slot >= sums.len() {
        return Err(Error::shape("grad_rms", format!("sums {:?} has no slot {slot}", sums.shape())));
    }
    match x.gpu() {
        Some(gpu) => {
            let blocks = x.len().div_ceil(BLOCK);
            let partial = x.device().empty::<f32>("grad_rms partial sums", &[blocks])?;
            Launch::new(&SHADER, "square_sum_blocks")
                .bind(x)
                .bind(&partial)
                .word(x.len())
                .groups(blocks)
                .work(2 * x.len())
                .run(gpu)?;
            Launch::new(&SHADER, "square_sum_join")
                .bind(&partial)
                .bind(sums)
                .word(blocks)
                .word(slot)
                .groups(1)
                .work(blocks)
                .run(gpu)
        }
        None => {
            let blocks: Vec<f64> = x
                .as_slice()?
                .par_chunks(rows_per_block(1))
                .map(|b| {
                    simd(
                        #[inline(always)]
                        || squares(b),
                    )
                })
                .collect();
            sums.as_mut_slice()?[slot] = blocks.iter().sum::<f64>() as f32;
            Ok(())
        }
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
    match sums.gpu() {
        Some(gpu) => Launch::new(&SHADER, "factor")
            .bind(sums)
            .bind(&out)
            .word(sums.len())
            .word(rule as usize)
            .float((1.0 / numel as f64) as f32)
            .float(EPS)
            .groups(1)
            .work(sums.len())
            .run(gpu)?,
        None => {
            let total: f64 = sums.as_slice()?.iter().copied().map(f64::from).sum();
            let rms = (total / numel as f64).sqrt() as f32;
            let factor = match rule {
                Rule::Normalize => 1.0 / (rms + EPS),
                Rule::Clip if rms > 1.0 => 1.0 / rms,
                Rule::Clip | Rule::None => 1.0,
            };
            out.as_mut_slice()?.copy_from_slice(&[factor, rms]);
        }
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
