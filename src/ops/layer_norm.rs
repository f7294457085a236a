//! LayerNorm over the last dimension: `y = x̂ · w (+ b)` with `x̂ = (x − mean) · rstd` and `rstd =
//! 1 / sqrt(variance + eps)`, the variance being the biased one (Ba, Kiros and Hinton 2016).
//!
//! Gradient, with `g = dy · w` and means over the row: `dx = rstd · (g − mean(g) − x̂ · mean(g ·
//! x̂))`, and `dw` = the sum over rows of `dy · x̂`. The bias's gradient is the sum over rows of
//! `dy`: [`super::linear`] has it.

use super::linear;
use super::norm::{self, scale_of, sums};
use crate::Result;
use crate::device::cpu::inlined;
use crate::device::{Shader, Tensor};
use crate::tape::{Tape, Var};

pub(super) const SHADER: Shader = Shader::new("layer_norm", include_str!("../../shaders/layer_norm.wgsl"));

/// What [`forward`] returns.
#[derive(Debug)]
pub struct Forward {
    /// The normalised input, shaped as the input.
    pub y: Tensor,
    /// Each row's mean, `(rows)`.
    pub mean: Tensor,
    /// Each row's scale, `(rows)`.
    pub rstd: Tensor,
}

/// `(x − mean) · rstd · weight (+ bias)`, for `x: (.., C)`, `weight` and `bias`: `(C)`. A row whose
/// squares overflow is not finite.
///
/// # Errors
/// [`crate::Error::Shape`] if the widths differ or are 0.
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, eps: f32) -> Result<Forward> {
    let (y, [mean, rstd]) = inlined!(
        norm::forward((&SHADER, if bias.is_some() { "forward_bias" } else { "forward" }), x, weight, bias, eps),
        |y, x, weight, bias| {
            let [sum] = sums(x, x, x, |x, _, _| [x]);
            let m = sum / x.len() as f32;
            let [squares] = sums(x, x, x, |x, _, _| [(x - m) * (x - m)]);
            let r = scale_of(squares, x.len(), eps);
            for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                *y = (x - m) * r * w;
            }
            y.iter_mut().zip(bias.unwrap_or_default()).for_each(|(y, b)| *y += b);
            [m, r]
        }
    )?;
    Ok(Forward { y, mean, rstd })
}

/// The gradient of `x`, for `dout` and `x`: `(.., C)`, `weight: (C)`, and the forward pass's `mean`
/// and `rstd`: `(rows)`.
pub fn backward_input(dout: &Tensor, x: &Tensor, weight: &Tensor, mean: &Tensor, rstd: &Tensor) -> Result<Tensor> {
    inlined!(norm::backward_input(&SHADER, dout, x, weight, [mean, rstd]), |dx, dout, x, weight, [m, r]| {
        let [sum, product] = sums(dout, x, weight, |d, x, w| [d * w, d * w * (x - m) * r]);
        let (sum, product) = (sum / x.len() as f32, product / x.len() as f32);
        for (((dx, d), x), w) in dx.iter_mut().zip(dout).zip(x).zip(weight) {
            *dx = r * (d * w - sum - (x - m) * r * product);
        }
    })
}

/// The gradient `(C)` of the weight, for `dout` and `x`: `(.., C)` and the forward pass's `mean`
/// and `rstd`: `(rows)`.
pub fn backward_weight(dout: &Tensor, x: &Tensor, mean: &Tensor, rstd: &Tensor) -> Result<Tensor> {
    inlined!(norm::backward_weight(&SHADER, dout, x, [mean, rstd]), |d, x, [m, r]| d * (x - m) * r)
}

impl Tape {
    /// LayerNorm over the last dimension. Saves `x` and two statistics a row.
    pub fn layer_norm(&mut self, x: &Var, weight: &Var, bias: Option<&Var>, eps: f32) -> Result<Var> {
        let Forward { y, mean, rstd } = forward(x.value(), weight.value(), bias.map(Var::value), eps)?;
        let (xv, wv) = (x.value().clone(), weight.value().clone());
        let inputs: Vec<_> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
        self.record_one(&inputs, y, move |dout, needs| {
            let mut gradients = vec![
                needs[0].then(|| backward_input(&dout, &xv, &wv, &mean, &rstd)).transpose()?,
                needs[1].then(|| backward_weight(&dout, &xv, &mean, &rstd)).transpose()?,
            ];
            if let Some(&needed) = needs.get(2) {
                gradients.push(needed.then(|| linear::backward_bias(&dout)).transpose()?);
            }
            Ok(gradients)
        })
    }
}
