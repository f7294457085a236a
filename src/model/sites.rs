//! The named places of a forward pass: who looks at them, and what there is to see (method: section 1).

use std::collections::BTreeMap;

use regex::Regex;

use super::{Batch, Model, ModelConfig, Pass, Weights};
use crate::observer::Observer;
use crate::ops::linear;
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// Someone who sees, and may replace, the value at every named site of a forward pass.
pub trait Hooks {
    /// Called with the site's published name, such as `3.mlp.post_act`, and its value `(B, T, width)`.
    ///
    /// # Errors
    /// Any; the forward pass ends with it.
    fn on_activation(&mut self, tape: &mut Tape, name: &str, value: Var) -> Result<Var>;

    /// Called to apply AbsTopK at a place such as `3.mlp_neuron`, keeping `k` entries of each row of `x`.
    ///
    /// # Errors
    /// Any; the forward pass ends with it.
    fn on_topk(&mut self, tape: &mut Tape, place: &str, x: &Var, k: usize) -> Result<Var> {
        let _ = place;
        tape.abs_topk(x, k)
    }

    /// Called with what a sublayer's linear layer, such as `0.attn.c_attn`, made of its input, before activation function and
    /// AbsTopK.
    ///
    /// # Errors
    /// Any; the forward pass ends with it.
    fn on_linear(&mut self, tape: &mut Tape, name: &str, input: &Var, output: Var) -> Result<Var> {
        let _ = (tape, name, input);
        Ok(output)
    }
}

/// Hooks that do nothing.
pub struct NoHooks;

impl Hooks for NoHooks {
    fn on_activation(&mut self, _: &mut Tape, _: &str, value: Var) -> Result<Var> {
        Ok(value)
    }
}

/// Ends the forward pass once it is to stop.
impl Hooks for Observer<'_> {
    fn on_activation(&mut self, _: &mut Tape, _: &str, value: Var) -> Result<Var> {
        self.check().map(|()| value)
    }

    fn on_linear(&mut self, _: &mut Tape, _: &str, _: &Var, output: Var) -> Result<Var> {
        self.check().map(|()| output)
    }
}

/// One after the other: the second sees what the first made of it. AbsTopK is the first one's.
impl<A: Hooks, B: Hooks> Hooks for (A, B) {
    fn on_activation(&mut self, tape: &mut Tape, name: &str, value: Var) -> Result<Var> {
        let value = self.0.on_activation(tape, name, value)?;
        self.1.on_activation(tape, name, value)
    }

    fn on_topk(&mut self, tape: &mut Tape, place: &str, x: &Var, k: usize) -> Result<Var> {
        self.0.on_topk(tape, place, x, k)
    }

    fn on_linear(&mut self, tape: &mut Tape, name: &str, input: &Var, output: Var) -> Result<Var> {
        let output = self.0.on_linear(tape, name, input, output)?;
        self.1.on_linear(tape, name, input, output)
    }
}

impl<S: Hooks + ?Sized> Hooks for &mut S {
    fn on_activation(&mut self, tape: &mut Tape, name: &str, value: Var) -> Result<Var> {
        (**self).on_activation(tape, name, value)
    }

    fn on_topk(&mut self, tape: &mut Tape, place: &str, x: &Var, k: usize) -> Result<Var> {
        (**self).on_topk(tape, place, x, k)
    }

    fn on_linear(&mut self, tape: &mut Tape, name: &str, input: &Var, output: Var) -> Result<Var> {
        (**self).on_linear(tape, name, input, output)
    }
}

/// Writes down the value at every site; with `gradients`, their gradients can be taken from the tape afterwards.
#[derive(Default)]
pub struct Recorder {
    /// The sites seen, in order.
    pub sites: Vec<(String, Var)>,
    /// Whether to keep the sites' gradients.
    pub gradients: bool,
    /// Only sites whose name it matches are written down; all, if there is none.
    pub pattern: Option<Regex>,
}

impl Recorder {
    /// One for the sites whose names match `pattern`.
    pub fn matching(pattern: Regex) -> Self {
        Self { pattern: Some(pattern), ..Self::default() }
    }
}

impl Hooks for Recorder {
    fn on_activation(&mut self, tape: &mut Tape, name: &str, value: Var) -> Result<Var> {
        if self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(name)) {
            if self.gradients {
                tape.keep_gradient(&value);
            }
            self.sites.push((name.to_string(), value.clone()));
        }
        Ok(value)
    }
}

/// A regular expression over site names.
///
/// # Errors
/// [`Error::Config`] saying what is wrong with it.
pub fn site_pattern(pattern: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|e| Error::config("sites", format!("`{pattern}` is no regular expression: {e}")))
}

impl ModelConfig {
    /// The names and widths of all sites, in the order of the forward pass.
    pub fn sites(&self) -> Vec<(String, usize)> {
        let (d, input, heads, mlp) = (self.d_model, self.input_width(), self.attention_width(), self.mlp_width());
        let layer = [
            ("resid_in", d),
            ("attn.act_in", input),
            ("attn.q", heads),
            ("attn.k", heads),
            ("attn.v", heads),
            ("attn.y", heads),
            ("attn.resid_delta", d),
            ("resid_mid", d),
            ("mlp.act_in", input),
            ("mlp.post_act", mlp),
            ("mlp.resid_delta", d),
        ];
        let layers = (0..self.n_layer).flat_map(|i| layer.map(|(site, width)| (format!("{i}.{site}"), width)));
        layers.chain([("final_resid".to_string(), d)]).collect()
    }
}

/// The mean activation of every channel of the sites whose names match `pattern`, over all positions of `batches`.
///
/// # Errors
/// [`Error::NonFiniteSite`] where a mean is not finite; those of the batches and of the forward pass.
pub fn means(
    model: &Model,
    batches: impl IntoIterator<Item = Result<Batch>>,
    pattern: &Regex,
) -> Result<BTreeMap<String, Vec<f32>>> {
    take_means(model, batches, pattern, true)
}

/// As [`means`], of whatever the sites hold: means of numbers that are not finite are not finite either.
///
/// # Errors
/// Those of the batches and of the forward pass.
pub fn means_unchecked(
    model: &Model,
    batches: impl IntoIterator<Item = Result<Batch>>,
    pattern: &Regex,
) -> Result<BTreeMap<String, Vec<f32>>> {
    take_means(model, batches, pattern, false)
}

fn take_means(
    model: &Model,
    batches: impl IntoIterator<Item = Result<Batch>>,
    pattern: &Regex,
    finite: bool,
) -> Result<BTreeMap<String, Vec<f32>>> {
    let weights = Weights::constant(model, &[]);
    let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut count = 0;
    for batch in batches {
        let batch = batch?;
        let (mut tape, mut recorder) = (Tape::new(), Recorder::matching(pattern.clone()));
        let pass = Pass::new(model, &weights, &batch, &mut tape, &mut recorder);
        let mut pass = if finite { pass } else { pass.unchecked() };
        pass.logits()?;
        for (site, value) in recorder.sites {
            let sum = linear::backward_bias(value.value())?.read()?;
            if finite {
                model.check_finite((&format!("the sum over {site}"), &sum), &weights, &batch, &mut NoHooks)?;
            }
            let total = sums.entry(site).or_insert_with(|| vec![0.0; sum.len()]);
            total.iter_mut().zip(&sum).for_each(|(t, &s)| *t += f64::from(s));
        }
        let (sequences, length) = batch.shape();
        count += sequences * length;
    }
    let mean = |sum: Vec<f64>| sum.into_iter().map(|s| (s / count.max(1) as f64) as f32).collect();
    Ok(sums.into_iter().map(|(site, sum)| (site, mean(sum))).collect())
}
