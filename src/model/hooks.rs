//! Hooks: code that sees, and may replace, what a forward pass computes (method: section 1).

use std::collections::BTreeMap;

use super::{Site, SiteKind};
use crate::Result;
use crate::observer::Observer;
use crate::tape::{Tape, Var};

/// A linear layer of a sublayer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinearLayer {
    /// `attn.c_attn`: queries, keys and values.
    AttnIn,
    /// `attn.c_proj`.
    AttnOut,
    /// `mlp.c_fc`.
    MlpIn,
    /// `mlp.c_proj`.
    MlpOut,
}

impl LinearLayer {
    /// The published name within a layer, such as `mlp.c_fc`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AttnIn => "attn.c_attn",
            Self::AttnOut => "attn.c_proj",
            Self::MlpIn => "mlp.c_fc",
            Self::MlpOut => "mlp.c_proj",
        }
    }
}

/// Sees, and may replace, values of a forward pass. Every method has a default that changes
/// nothing. An error of a hook ends the forward pass.
pub trait Hooks {
    /// Called once when a pass begins, with the length of each prompt of the batch; shorter ones
    /// are padded on the right.
    fn on_start(&mut self, lengths: &[usize]) {
        let _ = lengths;
    }

    /// Called at each site with its value `(B, T, width)`.
    fn on_activation(&mut self, tape: &mut Tape, site: Site, value: Var) -> Result<Var> {
        let _ = (tape, site);
        Ok(value)
    }

    /// Called to apply AbsTopK in a layer, keeping `k` entries of each row of `x`. `kind` says
    /// where; for [`SiteKind::ResidIn`] it is the stream after the layer's MLP.
    fn on_topk(&mut self, tape: &mut Tape, layer: usize, kind: SiteKind, x: &Var, k: usize) -> Result<Var> {
        let _ = (layer, kind);
        tape.abs_topk(x, k)
    }

    /// Called with the input and output of a linear layer, before activation function and AbsTopK.
    /// `at` is the number of the transformer layer, and which of its linear layers it is.
    fn on_linear(&mut self, tape: &mut Tape, at: (usize, LinearLayer), input: &Var, output: Var) -> Result<Var> {
        let _ = (tape, at, input);
        Ok(output)
    }
}

/// Hooks that do nothing.
pub struct NoHooks;

impl Hooks for NoHooks {}

/// Ends the forward pass once it is to stop.
impl Hooks for Observer<'_> {
    fn on_activation(&mut self, _: &mut Tape, _: Site, value: Var) -> Result<Var> {
        self.check().map(|()| value)
    }

    fn on_linear(&mut self, _: &mut Tape, _: (usize, LinearLayer), _: &Var, output: Var) -> Result<Var> {
        self.check().map(|()| output)
    }
}

/// Both: the second sees what the first returned. The first one applies AbsTopK.
impl<A: Hooks, B: Hooks> Hooks for (A, B) {
    fn on_start(&mut self, lengths: &[usize]) {
        self.0.on_start(lengths);
        self.1.on_start(lengths);
    }

    fn on_activation(&mut self, tape: &mut Tape, site: Site, value: Var) -> Result<Var> {
        let value = self.0.on_activation(tape, site, value)?;
        self.1.on_activation(tape, site, value)
    }

    fn on_topk(&mut self, tape: &mut Tape, layer: usize, kind: SiteKind, x: &Var, k: usize) -> Result<Var> {
        self.0.on_topk(tape, layer, kind, x, k)
    }

    fn on_linear(&mut self, tape: &mut Tape, at: (usize, LinearLayer), input: &Var, output: Var) -> Result<Var> {
        let output = self.0.on_linear(tape, at, input, output)?;
        self.1.on_linear(tape, at, input, output)
    }
}

impl<H: Hooks + ?Sized> Hooks for &mut H {
    fn on_start(&mut self, lengths: &[usize]) {
        (**self).on_start(lengths);
    }

    fn on_activation(&mut self, tape: &mut Tape, site: Site, value: Var) -> Result<Var> {
        (**self).on_activation(tape, site, value)
    }

    fn on_topk(&mut self, tape: &mut Tape, layer: usize, kind: SiteKind, x: &Var, k: usize) -> Result<Var> {
        (**self).on_topk(tape, layer, kind, x, k)
    }

    fn on_linear(&mut self, tape: &mut Tape, at: (usize, LinearLayer), input: &Var, output: Var) -> Result<Var> {
        (**self).on_linear(tape, at, input, output)
    }
}

/// Keeps the values at sites.
#[derive(Default)]
pub struct Recorder {
    /// The values recorded, in the order of the forward pass.
    pub values: BTreeMap<Site, Var>,
    /// Whether the sites' gradients are kept, to be taken from the tape after the backward pass.
    gradients: bool,
    /// The sites to record; all if none.
    only: Option<Vec<Site>>,
}

impl Recorder {
    /// A recorder of these sites alone.
    pub fn of(sites: impl IntoIterator<Item = Site>) -> Self {
        Self { only: Some(sites.into_iter().collect()), ..Self::default() }
    }

    /// As [`Recorder::of`], with gradients, also where no parameter needs any.
    pub fn with_gradients(sites: impl IntoIterator<Item = Site>) -> Self {
        Self { gradients: true, ..Self::of(sites) }
    }
}

impl Hooks for Recorder {
    fn on_activation(&mut self, tape: &mut Tape, site: Site, mut value: Var) -> Result<Var> {
        if self.only.as_ref().is_none_or(|only| only.contains(&site)) {
            if self.gradients && !value.needs_gradient() {
                value = tape.leaf(value.value().clone());
            } else if self.gradients {
                tape.keep_gradient(&value);
            }
            self.values.insert(site, value.clone());
        }
        Ok(value)
    }
}
