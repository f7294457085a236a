//! The loss of a choice between two tokens (method: section 3): minus log softmax over {right, wrong} at one position.
//!
//! logits: (B, T, V); for sequence b `z[b] = logits[b, at[b], right[b]] − logits[b, at[b], wrong[b]]` and
//! `loss = mean over b of log(1 + e^(−z[b]))`.
//!
//! Gradient: `dz[b] = −sigmoid(−z[b]) / B`, which goes to the right token's logit, and its negative to the wrong one's.

use super::expect_shape;
use crate::device::{Device, Launch, Shader, Tensor};
use crate::{Error, Result};

/// The kernels.
pub const SHADER: Shader = Shader::new("logit_diff", include_str!("../../shaders/logit_diff.wgsl"));

/// The choices of a batch, on its device.
#[derive(Clone, Debug)]
pub struct TokenPairs {
    /// Where in the flat logits the right and the wrong token's logit of each sequence stand: (B, 2).
    places: Tensor<u32>,
    shape: [usize; 3],
}

impl TokenPairs {
    /// For logits of `shape` (B, T, V): at which position each sequence chooses between which tokens, `(at, right, wrong)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one choice a sequence, or one is outside the logits.
    pub fn new(device: &Device, shape: [usize; 3], choices: &[(usize, u32, u32)]) -> Result<Self> {
        let [batch, time, vocab] = shape;
        if choices.len() != batch || batch == 0 || batch * time * vocab > u32::MAX as usize {
            return Err(Error::shape("logit_diff", format!("{} choices for logits {shape:?}", choices.len())));
        }
        let mut places = Vec::with_capacity(2 * batch);
        for (b, &(at, right, wrong)) in choices.iter().enumerate() {
            if at >= time || right as usize >= vocab || wrong as usize >= vocab {
                let message = format!("tokens {right} and {wrong} at position {at} are not in logits {shape:?}");
                return Err(Error::shape("logit_diff", message));
            }
            let row = (b * time + at) * vocab;
            places.extend([(row + right as usize) as u32, (row + wrong as usize) as u32]);
        }
        Ok(Self { places: device.upload("choices", &[batch, 2], &places)?, shape })
    }
}

/// `z`, the right token's logit minus the wrong one's: (B).
///
/// # Errors
/// [`Error::Shape`] if the logits have another shape than the choices were made for.
pub fn forward(logits: &Tensor, choices: &TokenPairs) -> Result<Tensor> {
    expect_shape("logit_diff", "logits", logits, &choices.shape)?;
    let batch = choices.shape[0];
    let mut z = logits.device().empty("logit_diff", &[batch])?;
    match logits.gpu() {
        Some(gpu) => Launch::new(&SHADER, "forward")
            .bind(logits)
            .bind(&choices.places)
            .bind(&z)
            .word(batch)
            .items(batch, 64)
            .work(batch)
            .run(gpu)?,
        None => {
            let (logits, places) = (logits.as_slice()?, choices.places.as_slice()?);
            for (z, place) in z.as_mut_slice()?.iter_mut().zip(places.chunks_exact(2)) {
                *z = logits[place[0] as usize] - logits[place[1] as usize];
            }
        }
    }
    Ok(z)
}

/// The gradient of the logits, given that of `z`: (B).
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit.
pub fn backward(dz: &Tensor, choices: &TokenPairs) -> Result<Tensor> {
    let batch = choices.shape[0];
    expect_shape("logit_diff", "gradient", dz, &[batch])?;
    let mut dlogits: Tensor = dz.device().zeros("logit_diff gradient", &choices.shape)?;
    match dz.gpu() {
        Some(gpu) => Launch::new(&SHADER, "backward")
            .bind(dz)
            .bind(&choices.places)
            .bind(&dlogits)
            .word(batch)
            .items(batch, 64)
            .work(batch)
            .run(gpu)?,
        None => {
            let (dz, places) = (dz.as_slice()?, choices.places.as_slice()?);
            let out = dlogits.as_mut_slice()?;
            for (dz, place) in dz.iter().zip(places.chunks_exact(2)) {
                out[place[0] as usize] += dz;
                out[place[1] as usize] -= dz;
            }
        }
    }
    Ok(dlogits)
}

/// `log(1 + e^(−z))` and minus its slope, `sigmoid(−z)`, in float64 and without overflow.
pub fn loss(z: f64) -> (f64, f64) {
    let e = (-z.abs()).exp();
    let loss = e.ln_1p() + (-z).max(0.0);
    (loss, if z >= 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) })
}
