//! Sampling text, one token at a time.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Batch, Hooks, KvCache, Model, NoHooks, Weights, first_not_finite};
use crate::tape::Tape;
use crate::{Error, Result};

/// How the next token is drawn. The default draws from the model's own distribution.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most probable token.
    pub temperature: f32,
    /// Only this many of the most probable tokens can be drawn.
    pub top_k: Option<usize>,
    /// Only the most probable tokens that together reach this probability can be drawn: the
    /// smallest such set.
    pub top_p: Option<f64>,
    /// Tokens drawn at most.
    pub max_new_tokens: usize,
    /// Ends the text when drawn.
    pub end_of_text: Option<u32>,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: None, top_p: None, max_new_tokens: 64, end_of_text: None, seed: 0 }
    }
}

/// The softmax of `logits`: every token's probability, by id.
pub fn probabilities(logits: &[f32]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut all: Vec<f64> = logits.iter().map(|&logit| (f64::from(logit) - f64::from(top)).exp()).collect();
    let sum: f64 = all.iter().sum();
    all.iter_mut().for_each(|p| *p /= sum);
    all
}

impl Model {
    /// Continues `prompt` (at least one token): the new tokens.
    ///
    /// # Errors
    /// Those of [`Generator`].
    pub fn generate(&self, prompt: &[u32], sampling: &Sampling) -> Result<Vec<u32>> {
        let mut generator = Generator::new(self, prompt, *sampling)?;
        std::iter::from_fn(|| generator.next_token().transpose()).collect()
    }

    /// Every token's probability after `prompt`, by id.
    ///
    /// # Errors
    /// [`Error::Shape`] for a prompt that the model cannot read, [`Error::NonFiniteSite`] where a
    /// logit is not finite; otherwise those of the forward pass and of `hooks`.
    pub fn next_token(&self, prompt: &[u32], hooks: &mut dyn Hooks) -> Result<Vec<f64>> {
        let batch = Batch::new(&self.device, &self.config, prompt, 1)?;
        let weights = Weights::constant(self, &[]);
        let logits = self.forward(&mut Tape::new(), &weights, &batch, hooks)?.value().read()?;
        let last = &logits[logits.len() - self.config.vocab_size..];
        self.check_finite("logits", last, &weights, &batch, hooks)?;
        Ok(probabilities(last))
    }
}

/// Tokens by their probabilities, the most probable first, of equals the lowest id.
pub fn ranked(p: &[f64]) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..p.len() as u32).collect();
    ids.sort_by(|&a, &b| p[b as usize].total_cmp(&p[a as usize]).then(a.cmp(&b)));
    ids
}

impl Sampling {
    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Config`] naming an impossible one.
    pub fn validate(&self) -> Result<()> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Error::config("temperature", format!("{} is not a number from 0 up", self.temperature)));
        }
        if self.top_k == Some(0) {
            return Err(Error::config("top-k", "at least one token must remain"));
        }
        match self.top_p {
            Some(p) if !(p > 0.0 && p <= 1.0) => Err(Error::config("top-p", format!("{p} is not in (0, 1]"))),
            _ => Ok(()),
        }
    }

    /// The tokens that can be drawn, the most probable first (of equals the lowest id), with their
    /// probabilities: softmax(logits / temperature), of which `top_k` keeps the largest and then
    /// `top_p` the smallest set that reaches it.
    pub fn distribution(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        // Adding zero makes equals of the two zeros, which total_cmp tells apart.
        let logit = |id: u32| logits[id as usize] + 0.0;
        // Where a logit is not a number, total_cmp still orders; a generator rejects such logits
        // before.
        order.sort_by(|&a, &b| logit(b).total_cmp(&logit(a)).then(a.cmp(&b)));
        order.truncate(if self.temperature == 0.0 { 1 } else { self.top_k.unwrap_or(usize::MAX) });
        let Some(&first) = order.first() else { return Vec::new() };
        let temperature = if self.temperature == 0.0 { 1.0 } else { f64::from(self.temperature) };
        let top = f64::from(logit(first));
        let mut kept: Vec<_> =
            order.into_iter().map(|id| (id, ((f64::from(logit(id)) - top) / temperature).exp())).collect();
        normalise(&mut kept);
        if let Some(top_p) = self.top_p {
            let mut reached = 0.0;
            let enough = kept.iter().position(|(_, p)| {
                reached += p;
                reached >= top_p
            });
            kept.truncate(enough.map_or(kept.len(), |last| last + 1));
            normalise(&mut kept);
        }
        kept
    }

    fn draw(&self, logits: &[f32], rng: &mut ChaCha8Rng) -> Option<u32> {
        let kept = self.distribution(logits);
        let mut remaining = if kept.len() > 1 { rng.random::<f64>() } else { 0.0 };
        let drawn = kept.iter().find(|(_, p)| {
            remaining -= p;
            remaining < 0.0
        });
        drawn.or(kept.first()).map(|(id, _)| *id)
    }
}

fn normalise(weights: &mut [(u32, f64)]) {
    let total: f64 = weights.iter().map(|(_, w)| w).sum();
    weights.iter_mut().for_each(|(_, w)| *w /= total);
}

/// A text that grows token by token.
///
/// Up to `block_size` tokens, keys and values are kept and every token costs one position. Beyond,
/// the context is cropped from the left as in the published code; what was computed
/// from the cropped tokens no longer holds, so that every further token costs a whole context.
pub struct Generator<'a> {
    model: &'a Model,
    weights: Weights,
    sampling: Sampling,
    rng: ChaCha8Rng,
    cache: Option<KvCache>,
    tokens: Vec<u32>,
    drawn: usize,
}

impl<'a> Generator<'a> {
    /// Starts after `prompt`.
    ///
    /// # Errors
    /// [`Error::Shape`] for an empty prompt or tokens that are not in the vocabulary,
    /// [`Error::Config`] for impossible sampling, and the device's limits.
    pub fn new(model: &'a Model, prompt: &[u32], sampling: Sampling) -> Result<Self> {
        sampling.validate()?;
        if prompt.is_empty() {
            return Err(Error::shape("generate", "an empty prompt: there is nothing to continue"));
        }
        if let Some(token) = prompt.iter().find(|&&token| token as usize >= model.config.vocab_size) {
            let message = format!("token {token} is not in a vocabulary of {}", model.config.vocab_size);
            return Err(Error::shape("generate", message));
        }
        Ok(Self {
            model,
            weights: Weights::constant(model, &[]),
            sampling,
            rng: ChaCha8Rng::seed_from_u64(sampling.seed),
            cache: Some(KvCache::new(model, 1)?),
            tokens: prompt.to_vec(),
            drawn: 0,
        })
    }

    /// The same without kept keys and values: every token costs a whole context. Slow; for
    /// comparison.
    pub fn without_cache(mut self) -> Self {
        self.cache = None;
        self
    }

    /// The next token, or nothing where the text ends.
    ///
    /// # Errors
    /// Those of the forward pass; [`Error::NonFiniteSite`] where a logit is not finite.
    pub fn next_token(&mut self) -> Result<Option<u32>> {
        if self.drawn == self.sampling.max_new_tokens {
            return Ok(None);
        }
        let logits = self.logits()?;
        let next = self.sampling.draw(&logits, &mut self.rng);
        match next {
            Some(token) if Some(token) != self.sampling.end_of_text => {
                self.tokens.push(token);
                self.drawn += 1;
            }
            // Nothing follows the end, however often it is asked for.
            _ => self.drawn = self.sampling.max_new_tokens,
        }
        Ok(next.filter(|&token| Some(token) != self.sampling.end_of_text))
    }

    /// The logits `(V)` of the token to come.
    fn logits(&mut self) -> Result<Vec<f32>> {
        let config = &self.model.config;
        let context = &self.tokens[self.tokens.len().saturating_sub(config.block_size)..];
        let whole = || Batch::new(&self.model.device, config, context, 1);
        let logits = match &mut self.cache {
            Some(cache) if context.len() == self.tokens.len() => {
                let new = &context[cache.len()..];
                self.model.extend(&self.weights, cache, new, 1, &mut NoHooks)?
            }
            _ => self.model.forward(&mut Tape::new(), &self.weights, &whole()?, &mut NoHooks)?.value().clone(),
        };
        let logits = logits.read()?;
        let last = logits[logits.len() - config.vocab_size..].to_vec();
        if first_not_finite(&last).is_some() {
            self.model.check_finite("logits", &last, &self.weights, &whole()?, &mut NoHooks)?;
        }
        Ok(last)
    }
}
