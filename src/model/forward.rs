//! The forward pass, written once for every device, with its named sites.
//!
//! A layer: `x ← act(x + attn(norm1(x)))`, then `x ← act(x + mlp(norm2(x)))`; AbsTopK wherever the configuration says
//! (method: section 1). Sites are visited after their AbsTopK.

use std::ops::Range;
use std::rc::Rc;

use super::finite::{first_not_finite, index_of};
use super::{Activation, Batch, Cache, Hooks, Model, ModelConfig, QueryPositions, ResidualActivation, Weights};
use crate::device::Tensor;
use crate::ops::embedding::Index;
use crate::tape::{Tape, Var, Weight};
use crate::{Error, Result};

/// RMSNorm's epsilon: the machine epsilon of f32, as the published code has it.
const RMS_EPS: f32 = f32::EPSILON;
/// LayerNorm's epsilon.
const LN_EPS: f32 = 1e-5;

/// A forward pass under way, in parts. The residual stream has `2 n_layer + 1` sites at which it can be begun and ended:
/// before every attention (`2i`), before every MLP (`2i + 1`), and after the last layer (`2 n_layer`). Between two
/// neighbouring sites lies a sublayer, of the same number as the site before it.
///
/// The stream `(n·B, T, d_model)` may hold the batch's `B` sequences several times over, one copy after the other, each
/// with values of its own: hybrids that continue through the same layers do so together.
pub struct Pass<'a> {
    /// Where the operations are recorded.
    pub tape: &'a mut Tape,
    model: &'a Model,
    weights: &'a Weights,
    batch: &'a Batch,
    sites: &'a mut dyn Hooks,
    cache: Option<&'a mut Cache>,
    /// The positions `(B, T, width)`, once they were needed.
    positions: Option<Var>,
    checked: bool,
}

impl ModelConfig {
    /// How many sites the residual stream has at which a forward pass can be begun and ended (see [`Pass`]).
    pub fn residual_sites(&self) -> usize {
        2 * self.n_layer + 1
    }

    /// The name of the residual stream's site of that number: `3.resid_in`, `3.resid_mid`, or `final_resid` for the last.
    pub fn residual_site(&self, number: usize) -> String {
        match number {
            last if last + 1 >= self.residual_sites() => "final_resid".into(),
            site if site % 2 == 0 => format!("{}.resid_in", site / 2),
            site => format!("{}.resid_mid", site / 2),
        }
    }
}

impl Model {
    /// Logits `(B, T, V)` of a batch.
    ///
    /// # Errors
    /// Those of the operations and of `sites`.
    pub fn forward(&self, tape: &mut Tape, weights: &Weights, batch: &Batch, sites: &mut dyn Hooks) -> Result<Var> {
        Pass::new(self, weights, batch, tape, sites).logits()
    }

    /// Logits `(B, 1, V)` at one place of each sequence of a batch: most of the work that a large vocabulary makes is saved.
    ///
    /// # Errors
    /// Those of the operations and of `sites`.
    pub fn forward_at(
        &self,
        tape: &mut Tape,
        weights: &Weights,
        batch: &Batch,
        places: &QueryPositions,
        sites: &mut dyn Hooks,
    ) -> Result<Var> {
        let mut pass = Pass::new(self, weights, batch, tape, sites);
        let x = pass.stream()?;
        let x = pass.site("final_resid", x)?;
        let (b, t) = batch.shape();
        let d_model = self.config.d_model;
        let rows = pass.tape.reshape(&x, &[b * t, d_model])?;
        let rows = pass.tape.embedding(&rows, &places.rows)?;
        let x = pass.tape.reshape(&rows, &[b, 1, d_model])?;
        let rows = pass.bigrams(&places.tokens, [b, 1])?;
        pass.predict(&x, rows)
    }

    /// Logits `(B, T, V)` of `batch` sequences' next tokens, given those in `cache`, which then holds the new ones too.
    /// After the first call, tokens come one a sequence.
    ///
    /// # Errors
    /// [`Error::Shape`] past `block_size`; otherwise those of the operations and of `sites`.
    pub fn extend(
        &self,
        weights: &Weights,
        cache: &mut Cache,
        tokens: &[u32],
        batch: usize,
        sites: &mut dyn Hooks,
    ) -> Result<Tensor> {
        let batch = Batch::after(&self.device, &self.config, tokens, batch, cache.len())?;
        let mut tape = Tape::new();
        let mut pass = Pass::new(self, weights, &batch, &mut tape, sites);
        pass.cache = Some(&mut *cache);
        let logits = pass.logits()?;
        cache.advance(batch.shape().1);
        Ok(logits.value().clone())
    }

    /// Mean cross-entropy of a batch's targets, in nats: the loss `(1)`, the rows' own losses, and the logits.
    ///
    /// # Errors
    /// Those of the operations and of `sites`.
    pub fn loss(
        &self,
        tape: &mut Tape,
        weights: &Weights,
        batch: &Batch,
        sites: &mut dyn Hooks,
    ) -> Result<(Var, Tensor, Var)> {
        let mut pass = Pass::new(self, weights, batch, tape, sites);
        let logits = pass.logits()?;
        let (loss, losses) = pass.cross_entropy(&logits)?;
        Ok((loss, losses, logits))
    }
}

impl<'a> Pass<'a> {
    /// A pass of `batch` that has not begun. `sites` sees the named sites of the parts that are run.
    pub fn new(
        model: &'a Model,
        weights: &'a Weights,
        batch: &'a Batch,
        tape: &'a mut Tape,
        sites: &'a mut dyn Hooks,
    ) -> Self {
        let checked = model.parameters.loaded_not_finite();
        Self { tape, model, weights, batch, sites, cache: None, positions: None, checked }
    }

    /// Lets the pass end with [`Error::NonFiniteSite`] at the first site that is not finite, if `checked`; every site is then read back.
    /// So does every pass of a model that was loaded with weights which are not finite.
    #[must_use]
    pub fn checked(mut self, checked: bool) -> Self {
        self.checked |= checked;
        self
    }

    /// Lets the pass go on whatever its numbers are.
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
        let wte = self.parameter("transformer.wte.weight")?;
        let embedded = self.tape.embedding(&wte, &self.batch.tokens)?;
        let x = self.tape.reshape(&embedded, &[b, t, self.config().d_model])?;
        match self.config().d_pos_emb {
            Some(_) => Ok(x),
            None => {
                let positions = self.positions()?;
                self.tape.add(&x, &positions)
            }
        }
    }

    /// Takes the stream `x: (n·B, T, d_model)` through some sublayers, from the site of the first one's number to that of
    /// `sublayers.end`.
    ///
    /// # Errors
    /// [`Error::Shape`] for a stream of another shape or sublayers that the model does not have; otherwise those of the
    /// operations and of the sites.
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
    /// [`Error::Shape`] for a stream of another shape; otherwise those of the operations and of the sites.
    pub fn unembed(&mut self, x: Var) -> Result<Var> {
        let copies = self.copies(&x)?;
        let x = self.site("final_resid", x)?;
        let (b, t) = self.batch.shape();
        let tokens = self.batch.tokens.clone();
        let rows = self.bigrams(&tokens, [b, t])?;
        let rows = rows.map(|rows| self.repeat(&rows, copies)).transpose()?;
        self.predict(&x, rows)
    }

    /// The bigram table's logits after `tokens`, if the model has the table.
    fn bigrams(&mut self, tokens: &Rc<Index>, [b, t]: [usize; 2]) -> Result<Option<Var>> {
        let Some(table) = self.find("bigram_table").cloned() else { return Ok(None) };
        let rows = self.tape.embedding(&table, tokens)?;
        Ok(Some(self.tape.reshape(&rows, &[b, t, self.config().vocab_size])?))
    }

    fn predict(&mut self, x: &Var, bigrams: Option<Var>) -> Result<Var> {
        let x = self.norm("transformer.ln_f", x)?;
        let head = if self.config().tied_unembed { "transformer.wte.weight" } else { "lm_head.weight" };
        let bias = self.parameter("final_logits_bias")?;
        let logits = self.matrix(head, &x, Some(&bias))?;
        let logits = match bigrams {
            Some(bigrams) => self.tape.add(&logits, &bigrams)?,
            None => logits,
        };
        self.check("logits", logits.value())?;
        Ok(logits)
    }

    /// Mean cross-entropy of the batch's targets, in nats, for `logits: (B, T, V)`: the loss `(1)`, and the rows' own losses.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn cross_entropy(&mut self, logits: &Var) -> Result<(Var, Tensor)> {
        self.tape.cross_entropy(logits, &self.batch.targets, self.batch.predictions())
    }

    /// The whole pass: logits `(B, T, V)`.
    ///
    /// # Errors
    /// Those of the operations and of the sites; [`Error::NonFiniteSite`] if the pass is [checked](Pass::checked).
    pub fn logits(&mut self) -> Result<Var> {
        let x = self.stream()?;
        self.unembed(x)
    }

    /// Returns an error if the pass is checked and the value `(n·B, T, width)` is not finite.
    fn check(&self, site: &str, value: &Tensor) -> Result<()> {
        if !self.checked {
            return Ok(());
        }
        match first_not_finite(&value.read()?) {
            None => Ok(()),
            Some((at, number)) => {
                let index = <[usize; 3]>::try_from(index_of(at, value.shape())).ok();
                // Logits at one place of each sequence do not say which.
                let index = index.filter(|_| value.shape().get(1) == Some(&self.batch.shape().1));
                let earlier = self.cache.as_ref().map_or(0, |cache| cache.len());
                let at = index.map(|[sequence, position, channel]| [sequence, position + earlier, channel]);
                Err(self.model.not_finite(site, number, at))
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
        let wpe = self.parameter("transformer.wpe.weight")?;
        let positions = self.tape.embedding(&wpe, &self.batch.positions)?;
        let width = positions.value().rows_cols().1;
        let positions = self.tape.reshape(&positions, &[b, t, width])?;
        Ok(self.positions.insert(positions).clone())
    }

    fn config(&self) -> &ModelConfig {
        &self.model.config
    }

    fn find(&self, name: &str) -> Option<&Var> {
        self.weights.dense.get(self.model.parameters.position(name)?)?.as_ref()
    }

    fn parameter(&self, name: &str) -> Result<Var> {
        self.find(name).cloned().ok_or_else(|| Error::Text(format!("the model lacks {name}")))
    }

    fn site(&mut self, name: &str, value: Var) -> Result<Var> {
        let value = self.sites.on_activation(self.tape, name, value)?;
        self.check(name, value.value())?;
        Ok(value)
    }

    fn sparse(&mut self, i: usize, place: &str, x: Var) -> Result<Var> {
        let width = x.value().rows_cols().1;
        match self.config().kept(place, width) {
            Some(k) => self.sites.on_topk(self.tape, &format!("{i}.{place}"), &x, k),
            None => Ok(x),
        }
    }

    fn norm(&mut self, name: &str, x: &Var) -> Result<Var> {
        let weight = self.parameter(&format!("{name}.weight"))?;
        if self.config().rms_norm {
            return self.tape.rms_norm(x, &weight, RMS_EPS);
        }
        let bias = self.find(&format!("{name}.bias")).cloned();
        self.tape.layer_norm(x, &weight, bias.as_ref(), LN_EPS)
    }

    fn linear(&mut self, name: &str, x: &Var) -> Result<Var> {
        let bias = self.find(&format!("{name}.bias")).cloned();
        let out = self.matrix(&format!("{name}.weight"), x, bias.as_ref())?;
        let name = name.strip_prefix("transformer.h.").unwrap_or(name);
        self.sites.on_linear(self.tape, name, x, out)
    }

    fn matrix(&mut self, name: &str, x: &Var, bias: Option<&Var>) -> Result<Var> {
        let position = self.model.parameters.position(name);
        let weight = match position.and_then(|i| self.weights.lists[i].clone()) {
            Some(matrix) => Weight::Sparse { matrix, dense: self.find(name).cloned() },
            None => Weight::Dense(self.parameter(name)?),
        };
        self.tape.linear(x, &weight, bias)
    }

    /// What a sublayer reads: the normalised residual stream and, if concatenated, its own norm of the positions.
    fn sublayer_input(&mut self, i: usize, norm: usize, x: &Var) -> Result<Var> {
        let mut h = self.norm(&format!("transformer.h.{i}.ln_{norm}"), x)?;
        if self.config().d_pos_emb.is_some() {
            let positions = self.positions()?;
            let p = self.norm(&format!("transformer.h.{i}.ln_p{norm}"), &positions)?;
            let copies = self.copies(x)?;
            let p = self.repeat(&p, copies)?;
            let last = h.value().shape().len() - 1;
            h = self.tape.concat(&[&h, &p], last)?;
        }
        self.sparse(i, if norm == 1 { "attn_in" } else { "mlp_in" }, h)
    }

    fn close_sublayer(&mut self, i: usize, x: &Var, delta: &Var, place: &str) -> Result<Var> {
        let mut x = self.tape.add(x, delta)?;
        if self.config().residual_activation_type == ResidualActivation::Relu {
            x = self.tape.relu(&x)?;
        }
        self.sparse(i, place, x)
    }

    fn attention(&mut self, i: usize, input: &Var) -> Result<Var> {
        let layer = format!("transformer.h.{i}.attn");
        let width = self.config().attention_width();
        let qkv = self.linear(&format!("{layer}.c_attn"), input)?;
        let parts = self.tape.split(&qkv, &[width; 3])?;
        drop(qkv);
        let mut sparse = Vec::with_capacity(3);
        for (part, letter) in parts.into_iter().zip(["q", "k", "v"]) {
            let part = self.sparse(i, &format!("attn_{letter}"), part)?;
            sparse.push(self.site(&format!("{i}.attn.{letter}"), part)?);
        }
        let sink = self.find(&format!("{layer}.attn_imp.sink_logit")).cloned();
        let n_head = self.config().n_head;
        let y = match &mut self.cache {
            None => self.tape.attention(&sparse[0], &sparse[1], &sparse[2], sink.as_ref(), n_head)?,
            Some(cache) => {
                let [q, k, v] = [0, 1, 2].map(|part| sparse[part].value());
                Var::constant(cache.attend(i, [q, k, v], sink.as_ref().map(Var::value), n_head)?)
            }
        };
        let y = self.site(&format!("{i}.attn.y"), y)?;
        let out = self.linear(&format!("{layer}.c_proj"), &y)?;
        self.sparse(i, "attn_out", out)
    }

    fn mlp(&mut self, i: usize, input: &Var) -> Result<Var> {
        let layer = format!("transformer.h.{i}.mlp");
        let h = self.linear(&format!("{layer}.c_fc"), input)?;
        let h = match self.config().activation_type {
            Activation::Gelu => self.tape.gelu(&h)?,
            Activation::Relu => self.tape.relu(&h)?,
        };
        let h = self.sparse(i, "mlp_neuron", h)?;
        let h = self.site(&format!("{i}.mlp.post_act"), h)?;
        let out = self.linear(&format!("{layer}.c_proj"), &h)?;
        self.sparse(i, "mlp_out", out)
    }

    /// From the site `number` to the next one.
    fn sublayer(&mut self, number: usize, x: Var) -> Result<Var> {
        let i = number / 2;
        match number % 2 {
            0 => {
                let x = self.site(&format!("{i}.resid_in"), x)?;
                let input = self.sublayer_input(i, 1, &x)?;
                let input = self.site(&format!("{i}.attn.act_in"), input)?;
                let delta = self.attention(i, &input)?;
                let delta = self.site(&format!("{i}.attn.resid_delta"), delta)?;
                self.close_sublayer(i, &x, &delta, "resid_post_attn")
            }
            _ => {
                let x = self.site(&format!("{i}.resid_mid"), x)?;
                let input = self.sublayer_input(i, 2, &x)?;
                let input = self.site(&format!("{i}.mlp.act_in"), input)?;
                let delta = self.mlp(i, &input)?;
                let delta = self.site(&format!("{i}.mlp.resid_delta"), delta)?;
                self.close_sublayer(i, &x, &delta, "resid_post_mlp")
            }
        }
    }
}
