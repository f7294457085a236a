//! `y = scale ⊙ x + shift`, entry by entry: how activations are set, added to, scaled and ablated.
//!
//! Gradient of x: `scale ⊙ dy`. Scale and shift are chosen from outside and have none.

use super::expect_same;
use crate::Result;
use crate::device::cpu::{for_row_blocks, rows_per_block};
use crate::device::{Launch, Shader, Tensor};

/// The kernels.
pub const SHADER: Shader = Shader::new("affine", include_str!("../../shaders/affine.wgsl"));

/// `scale ⊙ x + shift`, all of one shape.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ.
pub fn forward(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    expect_same("affine", x, scale)?;
    expect_same("affine", x, shift)?;
    let mut out = x.device().empty("affine", x.shape())?;
    match x.gpu() {
        Some(gpu) => Launch::new(&SHADER, "forward")
            .bind(x)
            .bind(scale)
            .bind(shift)
            .bind(&out)
            .word(x.len())
            .items(x.len(), 256)
            .work(x.len())
            .run(gpu)?,
        None => {
            let (x, scale, shift) = (x.as_slice()?, scale.as_slice()?, shift.as_slice()?);
            for_row_blocks(
                out.as_mut_slice()?,
                1,
                rows_per_block(1),
                #[inline(always)]
                |start, block| {
                    for (i, o) in block.iter_mut().enumerate() {
                        *o = scale[start + i] * x[start + i] + shift[start + i];
                    }
                },
            );
        }
    }
    Ok(out)
}

/// The gradient of x: `scale ⊙ dout`.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ.
pub fn backward(dout: &Tensor, scale: &Tensor) -> Result<Tensor> {
    expect_same("affine", dout, scale)?;
    let mut dx = dout.device().empty("affine gradient", dout.shape())?;
    match dout.gpu() {
        Some(gpu) => Launch::new(&SHADER, "backward")
            .bind(dout)
            .bind(scale)
            .bind(&dx)
            .word(dout.len())
            .items(dout.len(), 256)
            .work(dout.len())
            .run(gpu)?,
        None => {
            let (dout, scale) = (dout.as_slice()?, scale.as_slice()?);
            for_row_blocks(
                dx.as_mut_slice()?,
                1,
                rows_per_block(1),
                #[inline(always)]
                |start, block| {
                    for (i, d) in block.iter_mut().enumerate() {
                        *d = scale[start + i] * dout[start + i];
                    }
                },
            );
        }
    }
    Ok(dx)
}
