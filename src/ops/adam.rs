//! One step of Adam (Kingma & Ba 2014, bias-corrected) with decoupled weight decay, in place.
//!
//! With `g = factor · grad`: `m = β1·m + (1 − β1)·g`, `v = β2·v + (1 − β2)·g²`,
//! `w -= lr · (m / (1 − β1^step)) / (sqrt(v / (1 − β2^step)) + eps)`, then `w -= decay · w`.
//!
//! No gradient: it ends the step.

use rayon::prelude::*;

use super::expect_same;
use crate::device::cpu::{rows_per_block, vectorised};
use crate::device::{Backend, Launch, Shader, Tensor, params};
use crate::{Error, Result};

params! {
    struct AdamParams {
        n: u32,
        scaled: u32,
        beta1: f32,
        rest1: f32,
        beta2: f32,
        rest2: f32,
        rate: f32,
        correction: f32,
        eps: f32,
        keep: f32,
    }
}

pub(super) const SHADER: Shader = Shader::new("adam", include_str!("../../shaders/adam.wgsl"));

/// The numbers of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment, at least 0 and below 1.
    pub beta1: f32,
    /// Decay of the second moment, at least 0 and below 1.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// The number of this step; the first is 1.
    pub step: u64,
    /// Decoupled weight decay, already multiplied by the learning rate; 0 for none.
    pub decay: f32,
}

impl Settings {
    /// What kernels and loops compute with, each number rounded once from float64.
    fn params(&self, n: usize, scaled: bool) -> Result<AdamParams> {
        for (key, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::config(key, format!("{beta} is not at least 0 and below 1")));
            }
        }
        if self.step == 0 {
            return Err(Error::config("step", "Adam counts its steps from 1"));
        }
        let (beta1, beta2) = (f64::from(self.beta1), f64::from(self.beta2));
        let steps = self.step as f64;
        Ok(AdamParams {
            n: n as u32,
            scaled: u32::from(scaled),
            beta1: self.beta1,
            rest1: (1.0 - beta1) as f32,
            beta2: self.beta2,
            rest2: (1.0 - beta2) as f32,
            rate: (f64::from(self.lr) / (1.0 - beta1.powf(steps))) as f32,
            correction: (1.0 / (1.0 - beta2.powf(steps))) as f32,
            eps: self.eps,
            keep: (1.0 - f64::from(self.decay)) as f32,
        })
    }
}

/// Updates `weight` and its moments `m` and `v` from `grad`, all of one shape. The gradient is
/// multiplied by `factor[0]` first, if there is a `factor`: it stays on the device, so that nothing
/// waits for its value.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ or `factor` is empty, [`Error::Config`] for a β outside
/// [0, 1) or step 0, [`Error::Device`] if one of the three written tensors has clones.
pub fn apply(
    weight: &mut Tensor,
    grad: &Tensor,
    m: &mut Tensor,
    v: &mut Tensor,
    factor: Option<&Tensor>,
    settings: &Settings,
) -> Result<()> {
    expect_same("adam", weight, grad)?;
    expect_same("adam", weight, m)?;
    expect_same("adam", weight, v)?;
    if factor.is_some_and(Tensor::is_empty) {
        return Err(Error::shape("adam", "the gradient's factor is empty"));
    }
    let params = settings.params(weight.len(), factor.is_some())?;
    match weight.backend() {
        Backend::Gpu(queue) => Launch::new(&SHADER, "apply", params)
            .bind(&[grad, factor.unwrap_or(grad), weight, m, v])
            .threads(weight.len(), 256)
            .cost(16 * weight.len())
            .run(queue),
        Backend::Cpu => {
            let factor = factor.map_or(Ok(1.0), |f| f.as_slice().map(|f| f[0]))?;
            let block = rows_per_block(1);
            let state = weight.as_mut_slice()?.par_chunks_mut(block).zip(m.as_mut_slice()?.par_chunks_mut(block));
            let state = state.zip(v.as_mut_slice()?.par_chunks_mut(block)).zip(grad.as_slice()?.par_chunks(block));
            state.for_each(|(((w, m), v), g)| vectorised!(update(w, g, m, v, factor, params)));
            Ok(())
        }
        Backend::Meta => Ok(()),
    }
}

#[inline(always)]
fn update(w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], factor: f32, c: AdamParams) {
    let n = w.len();
    let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
    for i in 0..n {
        let g = g[i] * factor;
        m[i] = c.beta1 * m[i] + c.rest1 * g;
        v[i] = c.beta2 * v[i] + c.rest2 * (g * g);
        w[i] = (w[i] - c.rate * m[i] / ((v[i] * c.correction).sqrt() + c.eps)) * c.keep;
    }
}
