//! RMSNorm over the last dimension: `y = x · rstd · w` with `rstd = 1 / sqrt(mean(x²) + eps)`
//! (Zhang and Sennrich 2019).
//!
//! Gradient, with `g = dy · w` and means over the row: `dx = rstd · (g − x̂ · mean(g · x̂))` where
//! `x̂ = x · rstd`, and `dw` = the sum over rows of `dy · x̂`.

use super::norm::{self, scale_of, sums};
use crate::Result;
use crate::device::cpu::inlined;
use crate::device::{Shader, Tensor};
use crate::tape::{Tape, Var};

pub(super) const SHADER: Shader = Shader::new("rms_norm", include_str!("../../shaders/rms_norm.wgsl"));

/// What [`forward`] returns.
#[derive(Debug)]
pub struct Forward {
    /// The normalised input, shaped as the input.
    pub y: Tensor,
    /// One scale a row, `(rows)`.
    pub rstd: Tensor,
}

/// `x · rstd · weight`, for `x: (.., C)` and `weight: (C)`. Rows of zeros stay zeros; a row whose
/// squares overflow is not finite.
///
/// # Errors
/// [`crate::Error::Shape`] if the widths differ or are 0.
pub fn forward(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Forward> {
    let (y, [rstd]) = inlined!(norm::forward((&SHADER, "forward"), x, weight, None, eps), |y, x, weight, _| {
        let [squares] = sums(x, x, x, |x, _, _| [x * x]);
        let rstd = scale_of(squares, x.len(), eps);
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            *y = x * rstd * w;
        }
        [rstd]
    })?;
    Ok(Forward { y, rstd })
}

/// The gradient of `x`, for `dout` and `x`: `(.., C)`, `weight: (C)` and the forward pass's `rstd:
/// (rows)`.
pub fn backward_input(dout: &Tensor, x: &Tensor, weight: &Tensor, rstd: &Tensor) -> Result<Tensor> {
    inlined!(norm::backward_input(&SHADER, dout, x, weight, [rstd]), |dx, dout, x, weight, [r]| {
        let [product] = sums(dout, x, weight, |d, x, w| [d * w * x]);
        let along = product * r * r / x.len() as f32;
        for (((dx, d), x), w) in dx.iter_mut().zip(dout).zip(x).zip(weight) {
            *dx = r * (d * w - x * along);
        }
    })
}

/// The gradient `(C)` of the weight, for `dout` and `x`: `(.., C)` and the forward pass's `rstd:
/// (rows)`.
pub fn backward_weight(dout: &Tensor, x: &Tensor, rstd: &Tensor) -> Result<Tensor> {
    inlined!(norm::backward_weight(&SHADER, dout, x, [rstd]), |d, x, [r]| d * x * r)
}

impl Tape {
    /// RMSNorm over the last dimension. Saves `x` and one scale a row.
    pub fn rms_norm(&mut self, x: &Var, weight: &Var, eps: f32) -> Result<Var> {
        let Forward { y, rstd } = forward(x.value(), weight.value(), eps)?;
        let (xv, wv) = (x.value().clone(), weight.value().clone());
        self.record_one(&[x, weight], y, move |dout, needs| {
            Ok(vec![
                needs[0].then(|| backward_input(&dout, &xv, &wv, &rstd)).transpose()?,
                needs[1].then(|| backward_weight(&dout, &xv, &rstd)).transpose()?,
            ])
        })
    }
}
