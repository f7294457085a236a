//! The forward pass, written once for every device, with its named sites.
//!
//! A layer: `x ← act(x + attn(norm1(x)))`, then `x ← act(x + mlp(norm2(x)))`; AbsTopK wherever the
//! configuration says (method: section 1). Sites are visited after their AbsTopK.

use std::fmt::Display;
use std::ops::Range;
use std::rc::Rc;

use super::finite::{first_not_finite, index_of};
use super::parameters::{LayerIds, LinearIds, NormIds, ParameterIds};
use super::{
    Activation, Batch, Hooks, KvCache, LinearLayer, Model, ModelConfig, QueryPositions, ResidualActivation, Site,
    SiteKind, Weights,
};
use crate::device::Tensor;
use crate::ops::embedding::Index;
use crate::ops::linear::Weight;
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// RMSNorm's epsilon: the machine epsilon of f32, as the published code has it.
const RMS_EPS: f32 = f32::EPSILON;

/// A forward pass in parts. It can begin and end at any of the `2 n_layer + 1` sites of the
/// residual stream (see [`ModelConfig::residual_site`]): before every attention (`2i`), before
/// every MLP (`2i + 1`), and after the last layer (`2 n_layer`). The sublayer after a site has the
/// site's number.
///
/// The stream `(n·B, T, d_model)` may hold `n` copies of the batch's `B` sequences, one after the
/// other, each with its own values: hybrids that continue through the same layers do so together.
pub struct Pass<'a> {
    /// Where the operations are recorded.
    pub tape: &'a mut Tape,
    model: &'a Model,
    weights: &'a Weights,
    batch: &'a Batch,
    hooks: &'a mut dyn Hooks,
    cache: Option<&'a mut KvCache>,
    /// The positions `(B, T, width)`, once they were needed.
    positions: Option<Var>,
    checked: bool,
}

/// What a forward pass with targets gives.
pub struct LossOutput {
    /// Mean cross-entropy over the predicted tokens, in nats: `(1)`.
    pub loss: Var,
    /// Cross-entropy of each position `(B·T)`; 0 where nothing is predicted.
    pub losses: Tensor,
    /// Logits `(B, T, V)`.
    pub logits: Var,
}

impl Model {
    /// Logits `(B, T, V)` of a batch.
    ///
    /// # Errors
    /// Those of the operations and of `hooks`.
    pub fn forward(&self, tape: &mut Tape, weights: &Weights, batch: &Batch, hooks: &mut dyn Hooks) -> Result<Var> {
        Pass::new(self, weights, batch, tape, hooks).logits()
    }

    /// Logits `(B, 1, V)` at one position of each sequence of a batch, without the cost of the
    /// other positions' logits.
    pub(crate) fn forward_at(
        &self,
        tape: &mut Tape,
        weights: &Weights,
        batch: &Batch,
        positions: &QueryPositions,
        hooks: &mut dyn Hooks,
    ) -> Result<Var> {
        let mut pass = Pass::new(self, weights, batch, tape, hooks);
        let x = pass.stream()?;
        let x = pass.site(Site::FinalResid, x)?;
        let (b, t) = batch.shape();
        let d_model = self.config.d_model;
        let rows = pass.tape.reshape(&x, &[b * t, d_model])?;
        let rows = pass.tape.embedding(&rows, &positions.rows)?;
        let x = pass.tape.reshape(&rows, &[b, 1, d_model])?;
        let rows = pass.bigrams(&positions.tokens, [b, 1])?;
        pass.predict(&x, rows)
    }

    /// Logits `(B, T, V)` of `batch` sequences' next tokens, given those in `cache`, to which they
    /// are added. After the first call, each sequence gets one token per call.
    ///
    /// # Errors
    /// [`Error::Shape`] past `block_size`; otherwise those of the operations and of `hooks`.
    pub fn extend(
        &self,
        weights: &Weights,
        cache: &mut KvCache,
        tokens: &[u32],
        batch: usize,
        hooks: &mut dyn Hooks,
    ) -> Result<Tensor> {
        let batch = Batch::after(&self.device, &self.config, tokens, batch, cache.len())?;
        let mut tape = Tape::new();
        let mut pass = Pass::new(self, weights, &batch, &mut tape, hooks);
        pass.cache = Some(&mut *cache);
        let logits = pass.logits()?;
        cache.advance(batch.shape().1);
        Ok(logits.value().clone())
    }

    /// The loss of a batch's targets.
    ///
    /// # Errors
    /// Those of the operations and of `hooks`.
    pub fn forward_loss(
        &self,
        tape: &mut Tape,
        weights: &Weights,
        batch: &Batch,
        hooks: &mut dyn Hooks,
    ) -> Result<LossOutput> {
        let mut pass = Pass::new(self, weights, batch, tape, hooks);
        let logits = pass.logits()?;
        let (loss, losses) = pass.cross_entropy(&logits)?;
        Ok(LossOutput { loss, losses, logits })
    }
}

impl<'a> Pass<'a> {
    /// A pass of `batch` that has not begun. `hooks` are called for the parts that are run.
    pub fn new(
        model: &'a Model,
        weights: &'a Weights,
        batch: &'a Batch,
        tape: &'a mut Tape,
        hooks: &'a mut dyn Hooks,
    ) -> Self {
        hooks.on_start(&batch.lengths);
        let checked = model.parameters.loaded_not_finite;
        Self { tape, model, weights, batch, hooks, cache: None, positions: None, checked }
    }

    /// Lets the pass end with [`Error::NonFiniteSite`] at the first site that is not finite, if
    /// `checked`; every site is then read back. So does every pass of a model that was loaded with
    /// weights which are not finite.
    #[must_use]
    pub(crate) fn checked(mut self, checked: bool) -> Self {
        self.checked |= checked;
        self
    }

    /// Lets the pass continue whatever its numbers are.
    #[must_use]
    pub fn unchecked(mut self) -> Self {
        self.checked = false;
        self
    }

    /// The residual stream at its first site: `(B, T, d_model)`.
    ///
    /// # Errors
    /// Those of the operations.
    pub fn embed(&mut self) -> Result<Var> {
        let (b, t) = self.batch.shape();
        let wte = self.parameter(self.ids().embedding)?;
        let embedded = self.tape.embedding(&wte, &self.batch.tokens)?;
        let x = self.tape.reshape(&embedded, &[b, t, self.config().d_model])?;
        let x = match self.config().d_pos_emb {
            Some(_) => x,
            None => {
                let positions = self.positions()?;
                self.tape.add(&x, &positions)?
            }
        };
        match self.config().residual_topk(0) {
            Some(k) => self.tape.abs_topk(&x, k),
            None => Ok(x),
        }
    }

    /// Takes the stream `x: (n·B, T, d_model)` through some sublayers, from the site of the first
    /// one's number to that of `sublayers.end`.
    ///
    /// # Errors
    /// [`Error::Shape`] for a stream of another shape or sublayers that the model does not have;
    /// otherwise those of the operations and of the hooks.
    pub fn advance(&mut self, mut x: Var, sublayers: Range<usize>) -> Result<Var> {
        if sublayers.end >= self.config().residual_sites() {
            return Err(Error::shape("forward", format!("sublayers {sublayers:?} of {}", 2 * self.config().n_layer)));
        }
        self.copies(&x)?;
        for sublayer in sublayers {
            x = self.sublayer(sublayer, x)?;
        }
        Ok(x)
    }

    /// The logits `(n·B, T, V)` of the stream `x: (n·B, T, d_model)` at its last site.
    ///
    /// # Errors
    /// [`Error::Shape`] for a stream of another shape; otherwise those of the operations and of the
    /// hooks.
    pub fn unembed(&mut self, x: Var) -> Result<Var> {
        let copies = self.copies(&x)?;
        let x = self.site(Site::FinalResid, x)?;
        let (b, t) = self.batch.shape();
        let tokens = self.batch.tokens.clone();
        let rows = self.bigrams(&tokens, [b, t])?;
        let rows = rows.map(|rows| self.repeat(&rows, copies)).transpose()?;
        self.predict(&x, rows)
    }

    /// The bigram table's logits after `tokens`, if the model has the table.
    fn bigrams(&mut self, tokens: &Rc<Index>, [b, t]: [usize; 2]) -> Result<Option<Var>> {
        let Some(table) = self.optional(self.ids().bigrams)? else { return Ok(None) };
        let rows = self.tape.embedding(&table, tokens)?;
        Ok(Some(self.tape.reshape(&rows, &[b, t, self.config().vocab_size])?))
    }

    fn predict(&mut self, x: &Var, bigrams: Option<Var>) -> Result<Var> {
        let x = self.norm(self.ids().final_norm, x)?;
        let head = LinearIds { weight: self.ids().unembedding, bias: Some(self.ids().logits_bias) };
        let logits = self.linear(head, &x)?;
        let logits = if let Some(bigrams) = bigrams { self.tape.add(&logits, &bigrams)? } else { logits };
        self.check(&"logits", logits.value())?;
        Ok(logits)
    }

    /// Mean cross-entropy of the batch's targets, in nats, for `logits: (B, T, V)`: the loss `(1)`,
    /// and the rows' own losses.
    pub(crate) fn cross_entropy(&mut self, logits: &Var) -> Result<(Var, Tensor)> {
        self.tape.cross_entropy(logits, &self.batch.targets, self.batch.predictions())
    }

    /// The whole pass: logits `(B, T, V)`.
    ///
    /// # Errors
    /// Those of the operations and of the hooks; [`Error::NonFiniteSite`] if the pass is checked.
    pub fn logits(&mut self) -> Result<Var> {
        let x = self.stream()?;
        self.unembed(x)
    }

    /// Returns an error if the pass is checked and the value `(n·B, T, width)` is not finite.
    fn check(&self, site: &dyn Display, value: &Tensor) -> Result<()> {
        if !self.checked {
            return Ok(());
        }
        match first_not_finite(&value.read()?) {
            None => Ok(()),
            Some((at, number)) => {
                let index = <[usize; 3]>::try_from(index_of(at, value.shape())).ok();
                // Logits at one position of each sequence do not say which.
                let index = index.filter(|_| value.shape().get(1) == Some(&self.batch.shape().1));
                let earlier = self.cache.as_ref().map_or(0, |cache| cache.len());
                let at = index.map(|[sequence, position, channel]| [sequence, position + earlier, channel]);
                Err(self.model.not_finite(site.to_string(), number, at))
            }
        }
    }

    /// The stream at its last site.
    fn stream(&mut self) -> Result<Var> {
        let x = self.embed()?;
        self.advance(x, 0..2 * self.model.config.n_layer)
    }

    /// How many copies of the batch the stream `x` holds.
    fn copies(&self, x: &Var) -> Result<usize> {
        let ((b, t), d) = (self.batch.shape(), self.config().d_model);
        match *x.value().shape() {
            [n, length, width] if n > 0 && n.is_multiple_of(b) && length == t && width == d => Ok(n / b),
            _ => {
                let message = format!("a residual stream {:?}, expected (n·{b}, {t}, {d})", x.value().shape());
                Err(Error::shape("forward", message))
            }
        }
    }

    /// `x: (B, ..)` repeated along its first dimension.
    fn repeat(&mut self, x: &Var, copies: usize) -> Result<Var> {
        if copies == 1 {
            return Ok(x.clone());
        }
        self.tape.concat(&vec![x; copies], 0)
    }

    fn positions(&mut self) -> Result<Var> {
        if let Some(positions) = &self.positions {
            return Ok(positions.clone());
        }
        let (b, t) = self.batch.shape();
        let wpe = self.parameter(self.ids().positions)?;
        let positions = self.tape.embedding(&wpe, &self.batch.positions)?;
        let width = positions.value().rows_cols().1;
        let positions = self.tape.reshape(&positions, &[b, t, width])?;
        Ok(self.positions.insert(positions).clone())
    }

    fn config(&self) -> &'a ModelConfig {
        &self.model.config
    }

    fn ids(&self) -> &'a ParameterIds {
        &self.model.parameters.ids
    }

    fn layer(&self, layer: usize) -> Result<&'a LayerIds> {
        let missing = || Error::MissingTensor { holder: "the model".into(), name: format!("layer {layer}") };
        self.ids().layers.get(layer).ok_or_else(missing)
    }

    fn parameter(&self, id: usize) -> Result<Var> {
        let name = || self.model.parameters.name(id);
        self.weights.dense.get(id).cloned().flatten().ok_or_else(|| Error::SparseParameter { name: name() })
    }

    fn optional(&self, id: Option<usize>) -> Result<Option<Var>> {
        id.map(|id| self.parameter(id)).transpose()
    }

    fn site(&mut self, site: Site, value: Var) -> Result<Var> {
        let value = self.hooks.on_activation(self.tape, site, value)?;
        self.check(&site, value.value())?;
        Ok(value)
    }

    fn topk(&mut self, layer: usize, kind: SiteKind, x: Var) -> Result<Var> {
        if let Some(k) = self.config().topk(kind) { self.hooks.on_topk(self.tape, layer, kind, &x, k) } else { Ok(x) }
    }

    /// Applies AbsTopK and shows the result at the site.
    fn topk_site(&mut self, layer: usize, kind: SiteKind, x: Var) -> Result<Var> {
        let x = self.topk(layer, kind, x)?;
        self.site(kind.at(layer), x)
    }

    fn norm(&mut self, ids: NormIds, x: &Var) -> Result<Var> {
        let weight = self.parameter(ids.weight)?;
        if self.config().rms_norm {
            return self.tape.rms_norm(x, &weight, RMS_EPS);
        }
        let bias = self.optional(ids.bias)?;
        self.tape.layer_norm(x, &weight, bias.as_ref(), self.config().ln_eps as f32)
    }

    fn linear(&mut self, ids: LinearIds, x: &Var) -> Result<Var> {
        let bias = self.optional(ids.bias)?;
        let weight = match self.weights.sparse.get(ids.weight).cloned().flatten() {
            Some(matrix) => Weight::Sparse { matrix, dense: self.weights.dense.get(ids.weight).cloned().flatten() },
            None => Weight::Dense(self.parameter(ids.weight)?),
        };
        self.tape.linear(x, &weight, bias.as_ref())
    }

    fn layer_linear(&mut self, layer: usize, linear: LinearLayer, x: &Var) -> Result<Var> {
        let out = self.linear(self.layer(layer)?.linears[linear as usize], x)?;
        self.hooks.on_linear(self.tape, (layer, linear), x, out)
    }

    /// The input of a sublayer (`part` 0: attention, 1: MLP): the normalized residual stream and,
    /// if concatenated, the positions with their own norm.
    fn sublayer_input(&mut self, layer: usize, part: usize, x: &Var) -> Result<Var> {
        let ids = self.layer(layer)?;
        let mut h = self.norm(ids.norms[part], x)?;
        if let Some(norms) = ids.position_norms {
            let positions = self.positions()?;
            let p = self.norm(norms[part], &positions)?;
            let copies = self.copies(x)?;
            let p = self.repeat(&p, copies)?;
            let last = h.value().shape().len() - 1;
            h = self.tape.concat(&[&h, &p], last)?;
        }
        self.topk_site(layer, [SiteKind::AttnIn, SiteKind::MlpIn][part], h)
    }

    fn attention(&mut self, layer: usize, input: &Var) -> Result<Var> {
        let width = self.config().attention_width();
        let qkv = self.layer_linear(layer, LinearLayer::AttnIn, input)?;
        let parts = self.tape.split(&qkv, &[width; 3])?;
        drop(qkv);
        let mut heads = Vec::with_capacity(3);
        for (part, kind) in parts.into_iter().zip([SiteKind::AttnQ, SiteKind::AttnK, SiteKind::AttnV]) {
            heads.push(self.topk_site(layer, kind, part)?);
        }
        let sink = self.optional(self.layer(layer)?.sink)?;
        let options = self.config().attention_options(layer);
        let y = match &mut self.cache {
            None => self.tape.attention(&heads[0], &heads[1], &heads[2], sink.as_ref(), options)?,
            Some(cache) => {
                let [q, k, v] = [0, 1, 2].map(|part| heads[part].value());
                Var::constant(cache.attend(layer, [q, k, v], sink.as_ref().map(Var::value), options)?)
            }
        };
        let y = self.site(SiteKind::AttnY.at(layer), y)?;
        let out = self.layer_linear(layer, LinearLayer::AttnOut, &y)?;
        self.topk_site(layer, SiteKind::AttnOut, out)
    }

    fn mlp(&mut self, layer: usize, input: &Var) -> Result<Var> {
        let h = self.layer_linear(layer, LinearLayer::MlpIn, input)?;
        let h = match self.config().activation_type {
            Activation::Gelu => self.tape.gelu(&h)?,
            Activation::GeluTanh => self.tape.gelu_tanh(&h)?,
            Activation::Relu => self.tape.relu(&h)?,
        };
        let h = self.topk_site(layer, SiteKind::MlpNeuron, h)?;
        let out = self.layer_linear(layer, LinearLayer::MlpOut, &h)?;
        self.topk_site(layer, SiteKind::MlpOut, out)
    }

    /// From the residual stream's site of this number to the next one.
    fn sublayer(&mut self, number: usize, x: Var) -> Result<Var> {
        let (layer, part) = (number / 2, number % 2);
        let x = self.site(self.config().residual_site(number), x)?;
        let input = self.sublayer_input(layer, part, &x)?;
        let (delta, next) = match part {
            0 => (self.attention(layer, &input)?, SiteKind::ResidMid),
            _ => (self.mlp(layer, &input)?, SiteKind::ResidIn),
        };
        let mut x = self.tape.add(&x, &delta)?;
        if self.config().residual_activation_type == ResidualActivation::Relu {
            x = self.tape.relu(&x)?;
        }
        match self.config().residual_topk(number + 1) {
            Some(k) => self.hooks.on_topk(self.tape, layer, next, &x, k),
            None => Ok(x),
        }
    }
}
