//! Sampling text, one token at a time.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Batch, Model, Weights};
use crate::Result;
use crate::tape::Tape;

/// How the next token is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most probable token.
    pub temperature: f32,
    /// Tokens drawn at most.
    pub max_new_tokens: usize,
    /// Ends the text when drawn.
    pub end_of_text: Option<u32>,
    /// Seed of the draws.
    pub seed: u64,
}

/// Continues `prompt` (at least one token) and returns the new tokens. Past `block_size` the context is cropped from
/// the left.
///
/// # Errors
/// Those of the forward pass.
pub fn generate(model: &Model, prompt: &[u32], sampling: &Sampling) -> Result<Vec<u32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed);
    let weights = Weights::constant(model, &[]);
    let mut tokens = prompt.to_vec();
    while tokens.len() < prompt.len() + sampling.max_new_tokens {
        let context = &tokens[tokens.len().saturating_sub(model.config.block_size)..];
        let batch = Batch::new(&model.device, &model.config, context, 1)?;
        let logits = model.forward(&mut Tape::new(), &weights, &batch, &mut ())?.value().read()?;
        let last = &logits[logits.len() - model.config.vocab_size..];
        let next = draw(last, sampling.temperature, &mut rng);
        if Some(next) == sampling.end_of_text {
            break;
        }
        tokens.push(next);
    }
    Ok(tokens.split_off(prompt.len()))
}

/// Draws from softmax(logits / temperature).
fn draw(logits: &[f32], temperature: f32, rng: &mut ChaCha8Rng) -> u32 {
    let top = logits.iter().enumerate().fold((0, f32::NEG_INFINITY), |m, (i, &l)| if l > m.1 { (i, l) } else { m });
    if temperature <= 0.0 {
        return top.0 as u32;
    }
    let weights: Vec<f64> = logits.iter().map(|&l| (f64::from(l - top.1) / f64::from(temperature)).exp()).collect();
    let mut left = rng.random::<f64>() * weights.iter().sum::<f64>();
    for (i, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return i as u32;
        }
    }
    top.0 as u32
}
