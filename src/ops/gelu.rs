//! The exact Gaussian error linear unit: `y = x P(x)`, where `P(x) = (1 + erf(x/sqrt 2))/2`, entry by entry.
//!
//! Gradient: `dx = dout (P(x) + x e^(-x^2/2)/sqrt(2 pi))`.

use super::{expect_same, math};
use crate::Result;
use crate::device::cpu::{for_row_blocks, rows_per_block};
use crate::device::{Launch, Shader, Tensor};

/// The kernels.
pub const SHADER: Shader = Shader::new("gelu", include_str!("../../shaders/gelu.wgsl"));

/// `1/sqrt(2 pi)`.
const BELL_HEIGHT: f32 = 0.398_942_3;

/// `x P(x)`, in the shape of `x`. `P` is within 1e-7 of its true value for every finite `x`.
///
/// # Errors
/// Those of [`crate::device::Device::empty`] and of the device.
pub fn forward(x: &Tensor) -> Result<Tensor> {
    let mut y = x.device().empty("gelu", x.shape())?;
    match x.gpu() {
        Some(gpu) => Launch::new(&SHADER, "forward")
            .bind(x)
            .bind(&y)
            .word(x.len())
            .items(x.len(), 256)
            .work(x.len().saturating_mul(32))
            .run(gpu)?,
        None => {
            let x = x.as_slice()?;
            for_row_blocks(
                y.as_mut_slice()?,
                1,
                rows_per_block(1),
                #[inline(always)]
                |start, block| {
                    let x = &x[start..start + block.len()];
                    for (y, &x) in block.iter_mut().zip(x) {
                        *y = x * math::normal_cdf(x).0;
                    }
                },
            );
        }
    }
    Ok(y)
}

/// The gradient of `x`, given that of the output.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ.
pub fn backward(dout: &Tensor, x: &Tensor) -> Result<Tensor> {
    expect_same("gelu", dout, x)?;
    let mut dx = x.device().empty("gelu gradient", x.shape())?;
    match x.gpu() {
        Some(gpu) => Launch::new(&SHADER, "backward")
            .bind(dout)
            .bind(x)
            .bind(&dx)
            .word(x.len())
            .items(x.len(), 256)
            .work(x.len().saturating_mul(32))
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
                        let (cdf, bell) = math::normal_cdf(x);
                        *dx = dout * (x * BELL_HEIGHT).mul_add(bell, cdf);
                    }
                },
            );
        }
    }
    Ok(dx)
}
