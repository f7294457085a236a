//! `y = scale ⊙ x + shift`, entry by entry: how activations are set, added to, scaled and ablated.
//!
//! Gradient of x: `scale ⊙ dy`. Scale and shift are constants and have none.

use super::elementwise::EntrywiseKernel;
use crate::Result;
use crate::device::cpu::inlined;
use crate::device::{Shader, Tensor};
use crate::tape::{Tape, Var};

pub(super) const SHADER: Shader = Shader::new("affine", include_str!("../../shaders/affine.wgsl"));

/// `scale ⊙ x + shift`, all of one shape.
pub fn forward(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let kernel = EntrywiseKernel { shader: &SHADER, kernel: "forward", name: "affine", cost: 1 };
    inlined!(kernel.apply([x, scale, shift]), |[x, scale, shift]| scale * x + shift)
}

/// The gradient of x: `scale ⊙ dout`.
pub fn backward(dout: &Tensor, scale: &Tensor) -> Result<Tensor> {
    let kernel = EntrywiseKernel { shader: &SHADER, kernel: "backward", name: "affine gradient", cost: 1 };
    inlined!(kernel.apply([dout, scale]), |[dout, scale]| scale * dout)
}

impl Tape {
    /// `scale ⊙ x + shift`; the latter two are constants.
    pub fn affine(&mut self, x: &Var, scale: Tensor, shift: &Tensor) -> Result<Var> {
        let out = forward(x.value(), &scale, shift)?;
        self.record_one(&[x], out, move |dout, _| Ok(vec![Some(backward(&dout, &scale)?)]))
    }
}
