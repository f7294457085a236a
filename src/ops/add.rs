//! Sums of tensors of equal shape: the residual stream's additions, and gradients that meet.
//!
//! Gradient: both summands receive the sum's gradient unchanged.

use super::expect_same;
use crate::device::cpu::{for_row_blocks, rows_per_block};
use crate::device::{Launch, Shader, Tensor};
use crate::{Error, Result};

/// The kernels.
pub const SHADER: Shader = Shader::new("add", include_str!("../../shaders/add.wgsl"));

/// `a + b`.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ.
pub fn forward(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    expect_same("add", a, b)?;
    let mut out = a.device().empty("add", a.shape())?;
    match a.gpu() {
        Some(gpu) => Launch::new(&SHADER, "forward")
            .bind(a)
            .bind(b)
            .bind(&out)
            .word(a.len())
            .items(a.len(), 256)
            .work(a.len())
            .run(gpu)?,
        None => {
            let (a, b) = (a.as_slice()?, b.as_slice()?);
            for_row_blocks(
                out.as_mut_slice()?,
                1,
                rows_per_block(1),
                #[inline(always)]
                |start, block| {
                    for (i, o) in block.iter_mut().enumerate() {
                        *o = a[start + i] + b[start + i];
                    }
                },
            );
        }
    }
    Ok(out)
}

/// `sum += a`, in place.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ; [`crate::Error::Device`] if `sum` has clones.
pub fn accumulate(sum: &mut Tensor, a: &Tensor) -> Result<()> {
    expect_same("add", sum, a)?;
    if !sum.is_unique() {
        return Err(Error::Device("a sum that others still read cannot be added to".into()));
    }
    match a.gpu() {
        Some(gpu) => Launch::new(&SHADER, "accumulate")
            .bind(a)
            .bind(sum)
            .word(a.len())
            .items(a.len(), 256)
            .work(a.len())
            .run(gpu),
        None => {
            let a = a.as_slice()?;
            for_row_blocks(
                sum.as_mut_slice()?,
                1,
                rows_per_block(1),
                #[inline(always)]
                |start, block| {
                    let a = &a[start..start + block.len()];
                    block.iter_mut().zip(a).for_each(|(s, a)| *s += a);
                },
            );
            Ok(())
        }
    }
}
