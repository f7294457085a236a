//! The exact Gaussian error linear unit: `y = x P(x)`, where `P(x) = (1 + erf(x/sqrt 2))/2`, entry
//! by entry.
//!
//! Gradient: `dx = dout (P(x) + x e^(-x^2/2)/sqrt(2 pi))`.

use super::elementwise::EntrywiseKernel;
use super::math;
use crate::Result;
use crate::device::cpu::inlined;
use crate::device::{Shader, Tensor};
use crate::tape::{Tape, Var};

pub(super) const SHADER: Shader = Shader::new("gelu", include_str!("../../shaders/gelu.wgsl"));

/// `1/sqrt(2 pi)`.
const BELL_HEIGHT: f32 = 0.398_942_3;

/// `x P(x)`, in the shape of `x`. `P` is within 1e-7 of its true value for every finite `x`.
pub fn forward(x: &Tensor) -> Result<Tensor> {
    let kernel = EntrywiseKernel { shader: &SHADER, kernel: "forward", name: "gelu", cost: 32 };
    inlined!(kernel.apply([x]), |[x]| x * math::normal_cdf(x).0)
}

/// The gradient of `x`, given that of the output.
pub fn backward(dout: &Tensor, x: &Tensor) -> Result<Tensor> {
    let kernel = EntrywiseKernel { shader: &SHADER, kernel: "backward", name: "gelu gradient", cost: 32 };
    inlined!(kernel.apply([dout, x]), |[dout, x]| {
        let (cdf, bell) = math::normal_cdf(x);
        dout * (x * BELL_HEIGHT).mul_add(bell, cdf)
    })
}

impl Tape {
    /// Exact GELU.
    pub fn gelu(&mut self, x: &Var) -> Result<Var> {
        let (y, x_value) = (forward(x.value())?, x.value().clone());
        self.record_one(&[x], y, move |dout, _| Ok(vec![Some(backward(&dout, &x_value)?)]))
    }
}
