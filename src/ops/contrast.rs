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
pub const SHADER: Shader = Shader::new("contrast", include_str!("../../shaders/contrast.wgsl"));

/// The choices of a batch, on its device.
#[derive(Clone, Debug)]
pub struct Choices {
    /// Where in the flat logits the right and the wrong token's logit of each sequence stand: (B, 2).
    places: Tensor<u32>,
    shape: [usize; 3],
}

impl Choices {
    /// For logits of `shape` (B, T, V): at which position each sequence chooses between which tokens, `(at, right, wrong)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is not one choice a sequence, or one is outside the logits.
    pub fn new(device: &Device, shape: [usize; 3], choices: &[(usize, u32, u32)]) -> Result<Self> {
        let [batch, time, vocab] = shape;
        if choices.len() != batch || batch == 0 || batch * time * vocab > u32::MAX as usize {
            return Err(Error::shape("contrast", format!("{} choices for logits {shape:?}", choices.len())));
        }
        let mut places = Vec::with_capacity(2 * batch);
        for (b, &(at, right, wrong)) in choices.iter().enumerate() {
            if at >= time || right as usize >= vocab || wrong as usize >= vocab {
                let message = format!("tokens {right} and {wrong} at position {at} are not in logits {shape:?}");
                return Err(Error::shape("contrast", message));
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
pub fn forward(logits: &Tensor, choices: &Choices) -> Result<Tensor> {
    expect_shape("contrast", "logits", logits, &choices.shape)?;
    let batch = choices.shape[0];
    let mut z = logits.device().empty("contrast", &[batch])?;
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
            let (logits, places) = (logits.native()?, choices.places.native()?);
            for (z, place) in z.native_mut()?.iter_mut().zip(places.chunks_exact(2)) {
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
pub fn backward(dz: &Tensor, choices: &Choices) -> Result<Tensor> {
    let batch = choices.shape[0];
    expect_shape("contrast", "gradient", dz, &[batch])?;
    let mut dlogits: Tensor = dz.device().zeros("contrast gradient", &choices.shape)?;
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
            let (dz, places) = (dz.native()?, choices.places.native()?);
            let out = dlogits.native_mut()?;
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
