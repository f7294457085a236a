//! The forward pass, written once for every device, with its named sites.
//!
//! A layer: `x ← act(x + attn(norm1(x)))`, then `x ← act(x + mlp(norm2(x)))`; AbsTopK wherever the configuration says
//! (method: section 1). Sites are visited after their AbsTopK.

use std::rc::Rc;
use std::sync::Arc;

use super::{Activation, Cache, Kind, Model, ModelConfig, ResidualActivation, Sites, Value};
use crate::device::{Device, Tensor};
use crate::ops::compress::Compressed;
use crate::ops::cross_entropy::IGNORE;
use crate::ops::embedding::Index;
use crate::tape::{Tape, Var, Weight};
use crate::{Error, Result};

/// RMSNorm's epsilon: the machine epsilon of f32, as the published code has it.
const RMS_EPS: f32 = f32::EPSILON;
/// LayerNorm's epsilon.
const LN_EPS: f32 = 1e-5;

/// A batch of token sequences on a device, ready to be read and predicted.
pub struct Batch {
    tokens: Rc<Index>,
    positions: Rc<Index>,
    targets: Tensor<u32>,
    batch: usize,
    length: usize,
}

impl Batch {
    /// `tokens`: `batch` sequences of equal length, one after the other. Every token but the first of its sequence is a
    /// target.
    ///
    /// # Errors
    /// [`Error::Shape`] if the tokens do not divide into the sequences, are too long for the model, or not in its
    /// vocabulary.
    pub fn new(device: &Device, config: &ModelConfig, tokens: &[u32], batch: usize) -> Result<Self> {
        Self::after(device, config, tokens, batch, 0)
    }

    /// As [`Batch::new`], where every sequence goes on after `before` tokens that are not given.
    fn after(device: &Device, config: &ModelConfig, tokens: &[u32], batch: usize, before: usize) -> Result<Self> {
        if batch == 0 || tokens.is_empty() || !tokens.len().is_multiple_of(batch) {
            return Err(Error::shape("batch", format!("{} tokens in {batch} sequences", tokens.len())));
        }
        let length = tokens.len() / batch;
        if before + length > config.block_size {
            let message = format!("{} tokens, but block_size is {}", before + length, config.block_size);
            return Err(Error::shape("batch", message));
        }
        let mut targets = vec![IGNORE; tokens.len()];
        for (row, target) in tokens.chunks(length).zip(targets.chunks_mut(length)) {
            target[..length - 1].copy_from_slice(&row[1..]);
        }
        let positions: Vec<_> = (0..tokens.len()).map(|i| (before + i % length) as u32).collect();
        Ok(Self {
            tokens: Rc::new(Index::new(device, tokens, config.vocab_size)?),
            positions: Rc::new(Index::new(device, &positions, config.block_size)?),
            targets: device.upload("targets", &[tokens.len()], &targets)?,
            batch,
            length,
        })
    }

    /// Number of tokens that are predicted.
    pub fn predictions(&self) -> usize {
        self.batch * (self.length - 1)
    }

    /// Number of sequences and their length.
    pub fn shape(&self) -> (usize, usize) {
        (self.batch, self.length)
    }
}

/// A model's parameters as values on a tape, in the order of [`super::Parameters`].
pub struct Weights {
    dense: Vec<Option<Var>>,
    lists: Vec<Option<Arc<Compressed>>>,
}

impl Weights {
    /// Parameters for which `wanted` says so get gradients, if they are held dense. `compressed` holds, per parameter, its
    /// nonzeros where linear layers shall use them; it may be empty.
    pub fn new(
        model: &Model,
        tape: &mut Tape,
        wanted: impl Fn(Kind) -> bool,
        compressed: &[Option<Arc<Compressed>>],
    ) -> Self {
        let mut lists = compressed.to_vec();
        lists.resize(model.parameters.len(), None);
        let mut dense = Vec::with_capacity(lists.len());
        for (p, lists) in model.parameters.iter().zip(&mut lists) {
            dense.push(match &p.value {
                Value::Dense(value) if wanted(p.kind) => Some(tape.leaf(value.clone())),
                Value::Dense(value) => Some(Var::constant(value.clone())),
                Value::Compressed(held) => {
                    *lists = Some(held.clone());
                    None
                }
            });
        }
        Self { dense, lists }
    }

    /// All parameters as constants: for inference.
    pub fn constant(model: &Model, compressed: &[Option<Arc<Compressed>>]) -> Self {
        Self::new(model, &mut Tape::new(), |_| false, compressed)
    }

    /// The parameters' values on the tape, in order; nothing for those that are held compressed.
    pub fn vars(&self) -> &[Option<Var>] {
        &self.dense
    }
}

/// One forward pass under way.
struct Pass<'a> {
    model: &'a Model,
    weights: &'a Weights,
    tape: &'a mut Tape,
    sites: &'a mut dyn Sites,
    cache: Option<&'a mut Cache>,
}

impl Model {
    /// Logits `(B, T, V)` of a batch.
    ///
    /// # Errors
    /// Those of the operations and of `sites`.
    pub fn forward(&self, tape: &mut Tape, weights: &Weights, batch: &Batch, sites: &mut dyn Sites) -> Result<Var> {
        Pass { model: self, weights, tape, sites, cache: None }.run(batch)
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
        sites: &mut dyn Sites,
    ) -> Result<Tensor> {
        let batch = Batch::after(&self.device, &self.config, tokens, batch, cache.len())?;
        let mut tape = Tape::new();
        let logits = Pass { model: self, weights, tape: &mut tape, sites, cache: Some(&mut *cache) }.run(&batch)?;
        cache.advance(batch.length);
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
        sites: &mut dyn Sites,
    ) -> Result<(Var, Tensor, Var)> {
        let logits = self.forward(tape, weights, batch, sites)?;
        let (loss, losses) = tape.cross_entropy(&logits, &batch.targets, batch.predictions())?;
        Ok((loss, losses, logits))
    }
}

impl Pass<'_> {
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
        self.sites.visit(self.tape, name, value)
    }

    fn sparse(&mut self, i: usize, place: &str, x: Var) -> Result<Var> {
        let width = x.value().rows_cols().1;
        match self.config().kept(place, width) {
            Some(k) => self.sites.select(self.tape, &format!("{i}.{place}"), &x, k),
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
        self.sites.project(self.tape, name, x, out)
    }

    fn matrix(&mut self, name: &str, x: &Var, bias: Option<&Var>) -> Result<Var> {
        let position = self.model.parameters.position(name);
        let weight = match position.and_then(|i| self.weights.lists[i].clone()) {
            Some(lists) => Weight::Compressed { lists, dense: self.find(name).cloned() },
            None => Weight::Dense(self.parameter(name)?),
        };
        self.tape.linear(x, &weight, bias)
    }

    /// What a sublayer reads: the normalised residual stream and, if concatenated, its own norm of the positions.
    fn sublayer_input(&mut self, i: usize, sublayer: usize, x: &Var, positions: Option<&Var>) -> Result<Var> {
        let mut h = self.norm(&format!("transformer.h.{i}.ln_{sublayer}"), x)?;
        if let Some(positions) = positions {
            let p = self.norm(&format!("transformer.h.{i}.ln_p{sublayer}"), positions)?;
            h = self.tape.concat(&h, &p)?;
        }
        self.sparse(i, if sublayer == 1 { "attn_in" } else { "mlp_in" }, h)
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

    fn layer(&mut self, i: usize, x: Var, positions: Option<&Var>) -> Result<Var> {
        let x = self.site(&format!("{i}.resid_in"), x)?;

        let input = self.sublayer_input(i, 1, &x, positions)?;
        let input = self.site(&format!("{i}.attn.act_in"), input)?;
        let delta = self.attention(i, &input)?;
        let delta = self.site(&format!("{i}.attn.resid_delta"), delta)?;
        let x = self.close_sublayer(i, &x, &delta, "resid_post_attn")?;
        let x = self.site(&format!("{i}.resid_mid"), x)?;

        let input = self.sublayer_input(i, 2, &x, positions)?;
        let input = self.site(&format!("{i}.mlp.act_in"), input)?;
        let delta = self.mlp(i, &input)?;
        let delta = self.site(&format!("{i}.mlp.resid_delta"), delta)?;
        self.close_sublayer(i, &x, &delta, "resid_post_mlp")
    }

    fn run(&mut self, batch: &Batch) -> Result<Var> {
        let (b, t) = batch.shape();
        let wte = self.parameter("transformer.wte.weight")?;
        let wpe = self.parameter("transformer.wpe.weight")?;
        let embedded = self.tape.embedding(&wte, &batch.tokens)?;
        let mut x = self.tape.reshape(&embedded, &[b, t, self.config().d_model])?;
        let positions = self.tape.embedding(&wpe, &batch.positions)?;
        let width = positions.value().rows_cols().1;
        let positions = self.tape.reshape(&positions, &[b, t, width])?;
        let concatenated = self.config().d_pos_emb.is_some();
        if !concatenated {
            x = self.tape.add(&x, &positions)?;
        }
        for i in 0..self.config().n_layer {
            x = self.layer(i, x, concatenated.then_some(&positions))?;
        }
        let x = self.site("final_resid", x)?;
        let x = self.norm("transformer.ln_f", &x)?;
        let head = if self.config().tied_unembed { "transformer.wte.weight" } else { "lm_head.weight" };
        let bias = self.parameter("final_logits_bias")?;
        let logits = self.matrix(head, &x, Some(&bias))?;
        match self.find("bigram_table").cloned() {
            Some(table) => {
                let rows = self.tape.embedding(&table, &batch.tokens)?;
                let rows = self.tape.reshape(&rows, &[b, t, self.config().vocab_size])?;
                self.tape.add(&logits, &rows)
            }
            None => Ok(logits),
        }
    }
}
