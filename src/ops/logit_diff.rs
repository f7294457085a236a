//! Logit differences, and the task loss that they give (method: section 3): minus log softmax over
//! {right, wrong} at one position.
//!
//! logits: (B, T, V); for sequence b `z[b] = logits[b, at[b], right[b]] − logits[b, at[b],
//! wrong[b]]` and `loss = mean over b of log(1 + e^(−z[b]))`.
//!
//! Gradient: `dz[b] = −sigmoid(−z[b]) / B`, which goes to the right token's logit, and its negative
//! to the wrong one's.

use super::elementwise::Entries;
use super::expect_shape;
use crate::device::{Backend, Device, Launch, Shader, Tensor};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

pub(super) const SHADER: Shader = Shader::new("logit_diff", include_str!("../../shaders/logit_diff.wgsl"));

/// The right and the wrong token of each sequence of a batch, on its device.
#[derive(Clone, Debug)]
pub struct TokenPairs {
    /// The indices of their logits in the flat logits: (B, 2).
    positions: Tensor<u32>,
    shape: [usize; 3],
}

impl TokenPairs {
    /// For logits of `shape` (B, T, V): the position and the two tokens of each sequence, `(at,
    /// right, wrong)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one pair a sequence, or one is outside the logits.
    pub fn new(device: &Device, shape: [usize; 3], pairs: &[(usize, u32, u32)]) -> Result<Self> {
        let [batch, time, vocab] = shape;
        if pairs.len() != batch || batch == 0 || batch * time * vocab > u32::MAX as usize {
            return Err(Error::shape("logit_diff", format!("{} pairs of tokens for logits {shape:?}", pairs.len())));
        }
        let mut positions = Vec::with_capacity(2 * batch);
        for (b, &(at, right, wrong)) in pairs.iter().enumerate() {
            if at >= time || right as usize >= vocab || wrong as usize >= vocab {
                let message = format!("tokens {right} and {wrong} at position {at} are not in logits {shape:?}");
                return Err(Error::shape("logit_diff", message));
            }
            let row = (b * time + at) * vocab;
            positions.extend([(row + right as usize) as u32, (row + wrong as usize) as u32]);
        }
        Ok(Self { positions: device.upload("token pairs", &[batch, 2], &positions)?, shape })
    }
}

/// `z`, the right token's logit minus the wrong one's: (B).
///
/// # Errors
/// [`Error::Shape`] if the logits have another shape than the pairs were made for.
pub fn forward(logits: &Tensor, pairs: &TokenPairs) -> Result<Tensor> {
    expect_shape("logit_diff", "logits", logits, &pairs.shape)?;
    let batch = pairs.shape[0];
    let mut z = logits.device().empty("logit_diff", &[batch])?;
    match logits.backend() {
        Backend::Gpu(queue) => Launch::new(&SHADER, "forward", Entries::of(&z))
            .bind(&[logits, &pairs.positions, &z])
            .threads(batch, 64)
            .cost(batch)
            .run(queue)?,
        Backend::Cpu => {
            let (logits, positions) = (logits.as_slice()?, pairs.positions.as_slice()?);
            for (z, position) in z.as_mut_slice()?.iter_mut().zip(positions.chunks_exact(2)) {
                *z = logits[position[0] as usize] - logits[position[1] as usize];
            }
        }
        Backend::Meta => {}
    }
    Ok(z)
}

/// The gradient of the logits, given that of `z`: (B).
pub fn backward(dz: &Tensor, pairs: &TokenPairs) -> Result<Tensor> {
    let batch = pairs.shape[0];
    expect_shape("logit_diff", "gradient", dz, &[batch])?;
    let mut dlogits: Tensor = dz.device().zeros("logit_diff gradient", &pairs.shape)?;
    match dz.backend() {
        Backend::Gpu(queue) => Launch::new(&SHADER, "backward", Entries::of(dz))
            .bind(&[dz, &pairs.positions, &dlogits])
            .threads(batch, 64)
            .cost(batch)
            .run(queue)?,
        Backend::Cpu => {
            let (dz, positions) = (dz.as_slice()?, pairs.positions.as_slice()?);
            let out = dlogits.as_mut_slice()?;
            for (dz, position) in dz.iter().zip(positions.chunks_exact(2)) {
                out[position[0] as usize] += dz;
                out[position[1] as usize] -= dz;
            }
        }
        Backend::Meta => {}
    }
    Ok(dlogits)
}

/// `log(1 + e^(−z))` and minus its slope, `sigmoid(−z)`, in float64 and without overflow.
pub fn loss(z: f64) -> (f64, f64) {
    let e = (-z.abs()).exp();
    let loss = e.ln_1p() + (-z).max(0.0);
    (loss, if z >= 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) })
}

impl Tape {
    /// The differences `(B)` between the logits of two tokens. Saves their positions.
    pub fn logit_diff(&mut self, logits: &Var, pairs: &TokenPairs) -> Result<Var> {
        let (out, pairs) = (forward(logits.value(), pairs)?, pairs.clone());
        self.record_one(&[logits], out, move |dz, _| Ok(vec![Some(backward(&dz, &pairs)?)]))
    }
}
