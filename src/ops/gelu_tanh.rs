//! The tanh form of the Gaussian error linear unit, GPT-2's `gelu_new`: `y = x (1 + tanh u)/2`,
//! where `u = sqrt(2/pi) (x + 0.044715 x^3)`, entry by entry.
//!
//! It is computed as `y = x S(x)` with `S(x) = 1/(1 + e^(-2u))`, which is the same. Gradient: `dx =
//! dout (S(x) + x S'(x))`, where `S' = 2 u' S (1 - S)` and `u' = sqrt(2/pi) (1 + 3 · 0.044715 x^2)`.

use super::elementwise::EntrywiseKernel;
use super::math::exp;
use crate::Result;
use crate::device::cpu::inlined;
use crate::device::{Shader, Tensor};
use crate::tape::{Tape, Var};

pub(super) const SHADER: Shader = Shader::new("gelu_tanh", include_str!("../../shaders/gelu_tanh.wgsl"));

/// `2 sqrt(2/pi)`.
const SLOPE: f32 = 1.595_769_2;

/// `S(x)` and `x S'(x)`. Both are made of `e^(-2|u|)`, which cannot overflow; from `|x| = 10` on it
/// is 0, and squares of larger numbers might overflow.
#[inline(always)]
fn sigmoid_of(x: f32) -> (f32, f32) {
    let a = if x.abs() < 10.0 { x.abs() } else { 10.0 };
    let square = 0.044_715 * a * a;
    let e = exp(-SLOPE * a * (1.0 + square));
    let tail = e / (1.0 + e);
    let slope = SLOPE * a * (1.0 + 3.0 * square) * tail / (1.0 + e);
    if x < 0.0 { (tail, -slope) } else { (1.0 - tail, slope) }
}

/// `x S(x)`, in the shape of `x`.
///
/// # Errors
/// Those of the device.
pub fn forward(x: &Tensor) -> Result<Tensor> {
    let kernel = EntrywiseKernel { shader: &SHADER, kernel: "forward", name: "gelu_tanh", cost: 32 };
    inlined!(kernel.apply([x]), |[x]| x * sigmoid_of(x).0)
}

/// The gradient of `x`, given that of the output.
///
/// # Errors
/// [`crate::Error::Shape`] if the shapes differ.
pub fn backward(dout: &Tensor, x: &Tensor) -> Result<Tensor> {
    let kernel = EntrywiseKernel { shader: &SHADER, kernel: "backward", name: "gelu_tanh gradient", cost: 32 };
    inlined!(kernel.apply([dout, x]), |[dout, x]| {
        let (sigmoid, slope) = sigmoid_of(x);
        dout * (sigmoid + slope)
    })
}

impl Tape {
    /// GELU in its tanh form.
    pub fn gelu_tanh(&mut self, x: &Var) -> Result<Var> {
        let (y, x_value) = (forward(x.value())?, x.value().clone());
        self.record_one(&[x], y, move |dout, _| Ok(vec![Some(backward(&dout, &x_value)?)]))
    }
}
