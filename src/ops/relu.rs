//! The rectifier: `y = max(x, 0)`, entry by entry.
//!
//! Gradient: `dx = dout` where `x > 0`, else 0. The backward rule may be given the output `y` in place of `x`: one is
//! positive exactly where the other is.

use super::expect_same;
use crate::Result;
use crate::device::cpu::{for_row_blocks, rows_per_block};
use crate::device::{Launch, Shader, Tensor};

/// The kernels.
pub const SHADER: Shader = Shader::new("relu", include_str!("../../shaders/relu.wgsl"));

/// `max(x, 0)`, in the shape of `x`. NaN stays NaN.
///
/// # Errors
/// Those of [`crate::device::Device::empty`] and of the device.
pub fn forward(x: &Tensor) -> Result<Tensor> {
    let mut y = x.device().empty("relu", x.shape())?;
    match x.gpu() {
        Some(gpu) => {
            Launch::new(&SHADER, "forward").bind(x).bind(&y).word(x.len()).items(x.len(), 256).work(x.len()).run(gpu)?
        }
        None => {
            let x = x.as_slice()?;
            for_row_blocks(
                y.as_mut_slice()?,
                1,
                rows_per_block(1),
                #[inline(always)]
                |start, block| {
                    let x = &x[start..start + block.len()];
                    // Asked this way round, a NaN is not hidden.
                    block.iter_mut().zip(x).for_each(|(y, &x)| *y = if x <= 0.0 { 0.0 } else { x });
                },
            );
        }
    }
    Ok(y)
}

/// The gradient of `x`, given that of the output. `x` may equally be the output.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ.
pub fn backward(dout: &Tensor, x: &Tensor) -> Result<Tensor> {
    expect_same("relu", dout, x)?;
    let mut dx = x.device().empty("relu gradient", x.shape())?;
    match x.gpu() {
        Some(gpu) => Launch::new(&SHADER, "backward")
            .bind(dout)
            .bind(x)
            .bind(&dx)
            .word(x.len())
            .items(x.len(), 256)
            .work(x.len())
            .run(gpu)?,
        None => {
            let (dout, x) = (dout.as_slice()?, x.as_slice()?);
            for_row_blocks(
                dx.as_mut_slice()?,
                1,
                rows_per_block(1),
                #[inline(always)]
                |start, block| {
                    let (dout, x) = (&dout[start..start + block.len()], &x[start..start + block.len()]);
                    for ((dx, &dout), &x) in block.iter_mut().zip(dout).zip(x) {
                        *dx = if x > 0.0 { dout } else { 0.0 };
                    }
                },
            );
        }
    }
    Ok(dx)
}
