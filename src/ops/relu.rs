//! The rectifier: `y = max(x, 0)`, entry by entry.
//!
//! Gradient: `dx = dout` where `x > 0`, else 0. The backward pass may use the output `y` instead of
//! `x`: one is positive exactly where the other is. So the input need not be saved.

use super::elementwise::EntrywiseKernel;
use crate::Result;
use crate::device::cpu::inlined;
use crate::device::{Shader, Tensor};
use crate::tape::{Tape, Var};

pub(super) const SHADER: Shader = Shader::new("relu", include_str!("../../shaders/relu.wgsl"));

/// `max(x, 0)`, in the shape of `x`. NaN stays NaN.
pub fn forward(x: &Tensor) -> Result<Tensor> {
    let kernel = EntrywiseKernel { shader: &SHADER, kernel: "forward", name: "relu", cost: 1 };
    // `x > 0` would make 0 of NaN.
    inlined!(kernel.apply([x]), |[x]| if x <= 0.0 { 0.0 } else { x })
}

/// The gradient of `x`, given that of the output. `x` may equally be the output.
pub fn backward(dout: &Tensor, x: &Tensor) -> Result<Tensor> {
    let kernel = EntrywiseKernel { shader: &SHADER, kernel: "backward", name: "relu gradient", cost: 1 };
    inlined!(kernel.apply([dout, x]), |[dout, x]| if x > 0.0 { dout } else { 0.0 })
}

impl Tape {
    /// ReLU.
    pub fn relu(&mut self, x: &Var) -> Result<Var> {
        let y = forward(x.value())?;
        self.record_one(&[x], y.clone(), move |dout, _| Ok(vec![Some(backward(&dout, &y)?)]))
    }
}
