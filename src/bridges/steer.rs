//! Steering (method: section 5; paper: A.4): what a channel of the sparse model would change in the
//! dense one.
//!
//! A channel `c` that a sublayer of the sparse model reads is changed by δ_t at position t. Through
//! the decoder of the site before that sublayer, δ_t times the decoder's column c, scaled, is added
//! to what the dense model's sublayer reads at t. Bridges lie before the norms and channels after
//! them; the scale is the ratio of the streams' root mean squares, over reference text.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::Bridges;
use crate::device::Tensor;
use crate::files::{HostTensor, serialize_as_text};
use crate::model::{
    Batch, Edit, Hooks, Interventions, Model, ModelConfig, NoHooks, Pass, Recorder, Site, SiteKind, Weights,
    first_not_finite, probabilities,
};
use crate::observer::Observer;
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// Logits that are computed at once at most: more copies of a prompt run one after the other.
const LOGITS_AT_ONCE: usize = 1 << 24;

/// What sublayers read.
const INPUTS: [SiteKind; 2] = [SiteKind::AttnIn, SiteKind::MlpIn];

/// A channel of the sparse model that reads the residual stream: channel 17 of `3.attn.act_in` or
/// of `3.mlp.act_in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel {
    /// The sublayer that reads it: `2i` is attention `i`, `2i + 1` MLP `i`. The site of the bridges
    /// before it has the same number.
    pub sublayer: usize,
    /// Its number.
    pub index: usize,
}

impl Channel {
    /// The site that the sublayer reads.
    pub fn site(&self) -> Site {
        INPUTS[self.sublayer % 2].at(self.sublayer / 2)
    }

    /// Returns an error unless the model of `config` has this channel and it reads the residual
    /// stream.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        if self.sublayer + 1 >= config.residual_sites() {
            return Err(Error::config("node", format!("{self}: the model has {} layers", config.n_layer)));
        }
        match self.index < config.d_model {
            true => Ok(()),
            false => {
                let message = format!("{self}: only channels below {} stand for the residual stream", config.d_model);
                Err(Error::config("node", message))
            }
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.site(), self.index)
    }
}

impl FromStr for Channel {
    type Err = Error;

    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (layer, rest) = text.split_once('.')?;
            let (part, index) = rest.strip_suffix(']')?.split_once(".act_in[")?;
            let second = ["attn", "mlp"].iter().position(|name| *name == part)?;
            let sublayer = layer.parse::<usize>().ok()?.checked_mul(2)?.checked_add(second)?;
            let channel = Self { sublayer, index: index.parse().ok()? };
            (channel.to_string() == text).then_some(channel)
        };
        let expected = "a channel that reads the residual stream, such as 3.attn.act_in[17] or 0.mlp.act_in[5]";
        parse().ok_or_else(|| Error::config("node", format!("`{text}` is not {expected}")))
    }
}

serialize_as_text!(Channel);

/// Which way the scale goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Ratio {
    /// The dense stream's root mean square over the sparse one's, as the paper's appendix reads
    DenseOverSparse,
    /// The inverse: what a small change amounts to after the dense model's norm
    #[default]
    SparseOverDense,
}

/// Root mean squares of the residual streams before a sublayer, averaged over the tokens of
/// reference text. For a model with LayerNorm that of the stream's distance from its mean, which
/// its norm divides by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scale {
    /// Of the dense model.
    pub dense: f64,
    /// Of the sparse model.
    pub sparse: f64,
}

impl Scale {
    /// What decoders are multiplied by.
    pub(crate) fn ratio(&self, ratio: Ratio) -> f64 {
        match ratio {
            Ratio::DenseOverSparse => self.dense / self.sparse,
            Ratio::SparseOverDense => self.sparse / self.dense,
        }
    }
}

/// By how much channels of the sparse model change at each position of a prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    amounts: BTreeMap<Channel, Vec<f32>>,
}

impl Change {
    /// One channel's change, a number a position.
    pub fn new(channel: Channel, amounts: Vec<f32>) -> Self {
        Self { amounts: BTreeMap::from([(channel, amounts)]) }
    }

    /// Adds another change of the same prompt.
    pub fn merge(&mut self, other: Self) {
        for (channel, amounts) in other.amounts {
            let sum = self.amounts.entry(channel).or_insert_with(|| vec![0.0; amounts.len()]);
            sum.iter_mut().zip(amounts).for_each(|(sum, amount)| *sum += amount);
        }
    }

    /// `strength` times the change.
    pub fn scaled(&self, strength: f64) -> Self {
        let scale = |amounts: &Vec<f32>| amounts.iter().map(|a| (f64::from(*a) * strength) as f32).collect();
        Self { amounts: self.amounts.iter().map(|(channel, amounts)| (*channel, scale(amounts))).collect() }
    }

    /// The same amounts, but each through another channel of the same sublayer.
    pub(crate) fn through(&self, other: impl Fn(Channel) -> usize) -> Self {
        let mut all = Self::default();
        for (&channel, amounts) in &self.amounts {
            all.merge(Self::new(Channel { index: other(channel), ..channel }, amounts.clone()));
        }
        all
    }

    /// The channels, with their amounts.
    pub fn amounts(&self) -> impl Iterator<Item = (Channel, &[f32])> {
        self.amounts.iter().map(|(channel, amounts)| (*channel, amounts.as_slice()))
    }
}

/// What the sublayers of the sparse model read on a prompt.
#[derive(Clone, Debug)]
pub struct Reading {
    tokens: Vec<u32>,
    /// Of each sublayer, `(T, width)`.
    inputs: Vec<Vec<f32>>,
}

impl Reading {
    /// A channel's activation at every position; zeros for a channel that is not there.
    pub fn channel(&self, channel: Channel) -> Vec<f32> {
        let length = self.tokens.len();
        match self.inputs.get(channel.sublayer).map(|input| input.chunks_exact(input.len() / length)) {
            Some(rows) => rows.map(|row| row.get(channel.index).copied().unwrap_or(0.0)).collect(),
            None => vec![0.0; length],
        }
    }

    /// The change of `channel` that makes it what it is in `other`. Of prompts of different
    /// lengths, what comes after their common start is compared from the ends, and positions that
    /// the other one lacks do not change.
    pub fn towards(&self, other: &Self, channel: Channel) -> Change {
        let (own, theirs) = (self.channel(channel), other.channel(channel));
        let common = self.tokens.iter().zip(&other.tokens).take_while(|(a, b)| a == b).count();
        let amount = |t: usize| {
            let there = if t < common { Some(t) } else { (t + theirs.len()).checked_sub(own.len()) };
            match there.filter(|&at| t < common || at >= common).and_then(|at| theirs.get(at)) {
                Some(value) => value - own[t],
                None => 0.0,
            }
        };
        Change::new(channel, (0..own.len()).map(amount).collect())
    }
}

/// A dense model that is steered through bridges, and the sparse model that says how.
pub struct Steering<'a> {
    dense: &'a Model,
    sparse: &'a Model,
    dense_weights: Weights,
    sparse_weights: Weights,
    /// Of the sparse model, once it was asked for.
    hash: OnceLock<String>,
    /// Of every sublayer, in order.
    scales: Vec<Scale>,
    /// Of every sublayer the scaled decoder, `(d_sparse, d_dense)`.
    decoders: Vec<Vec<f32>>,
    observer: Observer<'a>,
}

impl<'a> Steering<'a> {
    /// Measures the scales on `reference`, sequences that both models can read.
    ///
    /// # Errors
    /// [`Error::Data`] if the reference is empty or a stream is zero on all of it,
    /// [`Error::NonFiniteSite`] where one is not finite; otherwise those of the models.
    pub fn new(
        dense: &'a Model,
        sparse: &'a Model,
        bridges: &Bridges,
        reference: &[Vec<u32>],
        ratio: Ratio,
    ) -> Result<Self> {
        let (dense_weights, sparse_weights) = (Weights::constant(dense, &[]), Weights::constant(sparse, &[]));
        let of_dense = root_mean_squares(dense, &dense_weights, reference).map_err(|e| e.in_model("dense"))?;
        let of_sparse = root_mean_squares(sparse, &sparse_weights, reference).map_err(|e| e.in_model("sparse"))?;
        let scales: Vec<_> =
            of_dense.into_iter().zip(of_sparse).map(|(dense, sparse)| Scale { dense, sparse }).collect();
        let (d, s) = (dense.config.d_model, sparse.config.d_model);
        let mut decoders = Vec::with_capacity(scales.len());
        for (site, scale) in scales.iter().enumerate() {
            let ratio = scale.ratio(ratio);
            if !ratio.is_finite() || ratio == 0.0 {
                return Err(Error::Data(format!("the residual stream at site {site} is zero on all reference text")));
            }
            let weight = bridges.decoder(site)?.read()?;
            let entry = |i: usize| (ratio * f64::from(weight[i % d * s + i / d])) as f32;
            decoders.push((0..d * s).map(entry).collect());
        }
        let (hash, observer) = (OnceLock::new(), Observer::default());
        Ok(Self { dense, sparse, dense_weights, sparse_weights, hash, scales, decoders, observer })
    }

    /// The same, watched by `observer`, which may stop it between two prompts.
    #[must_use]
    pub(crate) fn observed(self, observer: Observer<'a>) -> Self {
        Self { observer, ..self }
    }

    pub(super) fn observer(&self) -> &Observer<'a> {
        &self.observer
    }

    /// The scales of every sublayer, in order.
    pub fn scales(&self) -> &[Scale] {
        &self.scales
    }

    /// The sparse model.
    pub(crate) fn sparse(&self) -> &Model {
        self.sparse
    }

    /// The hash of the sparse model ([`Model::hash`]), computed once.
    pub(crate) fn sparse_hash(&self) -> Result<&str> {
        match self.hash.get() {
            Some(hash) => Ok(hash),
            None => {
                let hash = self.sparse.hash()?;
                Ok(self.hash.get_or_init(|| hash))
            }
        }
    }

    /// Runs the sparse model on a prompt.
    ///
    /// # Errors
    /// [`Error::Shape`] for a prompt that it cannot read; otherwise the device's.
    pub fn read(&self, prompt: &[u32]) -> Result<Reading> {
        let mut recorder = self.inputs();
        let batch = self.run_sparse(prompt, &mut recorder)?;
        let read = |(&site, input): (&Site, &Var)| {
            let input = input.value().read()?;
            self.check_sparse(site, &input, &batch, &mut NoHooks)?;
            Ok(input)
        };
        let inputs = recorder.values.iter().map(read).collect::<Result<_>>()?;
        Ok(Reading { tokens: prompt.to_vec(), inputs })
    }

    /// The change that edits of the sparse model's channels make on a prompt, in a run with all of
    /// them in place. They can be made where sublayers read the residual stream, `3.attn.act_in`
    /// and `3.mlp.act_in`. `donor` is the prompt that `=patch` takes from.
    ///
    /// # Errors
    /// [`Error::Config`] naming an edit that cannot be made; otherwise those of [`Steering::read`].
    pub fn edited(&self, prompt: &[u32], edits: &[Edit], donor: Option<&[u32]>) -> Result<Change> {
        let config = &self.sparse.config;
        if let Some(edit) = edits.iter().find(|edit| !edit.sites.kind().is_some_and(|kind| INPUTS.contains(&kind))) {
            return Err(Error::config(
                edit.sites.to_string(),
                "only attn.act_in and mlp.act_in lead into the dense model",
            ));
        }
        let donated = match donor {
            None => BTreeMap::new(),
            Some(donor) => {
                let (inputs, length) = (self.read(donor)?.inputs, donor.len());
                let host = |input: Vec<f32>| HostTensor { shape: vec![1, length, input.len() / length], data: input };
                let name = |(sublayer, input)| (Channel { sublayer, index: 0 }.site(), host(input));
                inputs.into_iter().enumerate().map(name).collect()
            }
        };
        let mut edits = Interventions::new(config, edits, BTreeMap::new(), donated)?;
        let mut change = Change::default();
        for (sublayer, (before, after)) in self.record(prompt, &mut edits)?.into_iter().enumerate() {
            let width = before.len() / prompt.len();
            for index in 0..width {
                let amount = |t: usize| after[t * width + index] - before[t * width + index];
                let amounts: Vec<f32> = (0..prompt.len()).map(amount).collect();
                if amounts.iter().any(|&a| a != 0.0) {
                    let channel = Channel { sublayer, index };
                    channel.check(config)?;
                    change.merge(Change::new(channel, amounts));
                }
            }
        }
        Ok(change)
    }

    /// What every sublayer reads, before and after `edits`.
    fn record(&self, prompt: &[u32], edits: &mut Interventions) -> Result<Vec<(Vec<f32>, Vec<f32>)>> {
        let (mut before, mut after) = (self.inputs(), self.inputs());
        let batch = self.run_sparse(prompt, &mut (&mut before, (&mut *edits, &mut after)))?;
        let mut read = |((&site, before), after): ((&Site, &Var), &Var)| {
            let (before, after) = (before.value().read()?, after.value().read()?);
            self.check_sparse(site, &before, &batch, &mut *edits)?;
            self.check_sparse(site, &after, &batch, &mut *edits)?;
            Ok((before, after))
        };
        before.values.iter().zip(after.values.values()).map(&mut read).collect()
    }

    /// Records what every sublayer reads.
    fn inputs(&self) -> Recorder {
        Recorder::of(self.sparse.config.sites_of(&INPUTS))
    }

    fn run_sparse(&self, prompt: &[u32], sites: &mut dyn Hooks) -> Result<Batch> {
        let batch = Batch::new(&self.sparse.device, &self.sparse.config, prompt, 1)?;
        let logits = self.sparse.forward(&mut Tape::new(), &self.sparse_weights, &batch, sites);
        logits.map(|_| batch).map_err(|e| e.in_model("sparse"))
    }

    fn check_sparse(&self, site: Site, values: &[f32], batch: &Batch, hooks: &mut dyn Hooks) -> Result<()> {
        self.sparse.check_finite(site, values, &self.sparse_weights, batch, hooks).map_err(|e| e.in_model("sparse"))
    }

    /// The dense model's probabilities of the token after `prompt`, by id, under each of several
    /// changes. All copies share the layers before the first change and run through the others as
    /// one batch.
    ///
    /// # Errors
    /// [`Error::Config`] for channels that the sparse model does not have, [`Error::Shape`] for
    /// changes of another length and for prompts that the dense model cannot read,
    /// [`Error::NonFiniteSite`] where a logit is not finite; otherwise the device's.
    pub fn probabilities(&self, prompt: &[u32], changes: &[Change]) -> Result<Vec<Vec<f64>>> {
        let copies = (LOGITS_AT_ONCE / (prompt.len().max(1) * self.dense.config.vocab_size)).max(1);
        let mut all = Vec::with_capacity(changes.len());
        for part in changes.chunks(copies) {
            self.observer.check()?;
            all.extend(self.run(prompt, part, false).map_err(|e| e.in_model("dense"))?);
        }
        Ok(all)
    }

    /// A run that is checked ends at the first site that is not finite.
    fn run(&self, prompt: &[u32], changes: &[Change], checked: bool) -> Result<Vec<Vec<f64>>> {
        let config = &self.dense.config;
        let batch = Batch::new(&self.dense.device, config, prompt, 1)?;
        let mut shifts = self.shifts(prompt.len(), changes)?;
        let end = 2 * config.n_layer;
        let first = shifts.first().unwrap_or(end);
        let mut tape = Tape::new();
        let pass = Pass::new(self.dense, &self.dense_weights, &batch, &mut tape, &mut shifts);
        let mut pass = pass.checked(checked);
        let x = pass.embed()?;
        let x = pass.advance(x, 0..first)?;
        let x = pass.tape.concat(&vec![&x; changes.len()], 0)?;
        let x = pass.advance(x, first..end)?;
        let logits = pass.unembed(x)?.value().read()?;
        let vocab = config.vocab_size;
        let last = |copy: &[f32]| {
            let last = &copy[copy.len() - vocab..];
            let Some((_, value)) = first_not_finite(last) else { return Ok(probabilities(last)) };
            if !checked {
                self.run(prompt, changes, true)?;
            }
            Err(self.dense.not_finite("logits".into(), value, None))
        };
        logits.chunks_exact(prompt.len() * vocab).map(last).collect()
    }

    /// What is added to what the dense model's sublayers read.
    fn shifts(&self, length: usize, changes: &[Change]) -> Result<Shifts> {
        let (width, d) = (self.dense.config.input_width(), self.dense.config.d_model);
        let mut hosts: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        for (copy, change) in changes.iter().enumerate() {
            for (channel, amounts) in change.amounts() {
                channel.check(&self.sparse.config)?;
                if amounts.len() != length {
                    let message = format!("{channel} changes at {} positions of {length}", amounts.len());
                    return Err(Error::shape("steer", message));
                }
                let row = &self.decoders[channel.sublayer][channel.index * d..][..d];
                let host = hosts.entry(channel.sublayer).or_insert_with(|| vec![0.0; changes.len() * length * width]);
                for (t, &amount) in amounts.iter().enumerate().filter(|(_, amount)| **amount != 0.0) {
                    let at = &mut host[(copy * length + t) * width..][..d];
                    at.iter_mut().zip(row).for_each(|(sum, weight)| *sum += amount * weight);
                }
            }
        }
        let mut shifts = BTreeMap::new();
        for (sublayer, host) in hosts {
            let tensor = self.dense.device.upload("steering", &[changes.len(), length, width], &host)?;
            shifts.insert(Channel { sublayer, index: 0 }.site(), (sublayer, tensor));
        }
        Ok(Shifts(shifts))
    }
}

/// By site: its sublayer, and what is added there, `(copies, T, width)`.
struct Shifts(BTreeMap<Site, (usize, Tensor)>);

impl Shifts {
    fn first(&self) -> Option<usize> {
        self.0.values().map(|(sublayer, _)| *sublayer).min()
    }
}

impl Hooks for Shifts {
    fn on_activation(&mut self, tape: &mut Tape, site: Site, value: Var) -> Result<Var> {
        match self.0.get(&site) {
            Some((_, shift)) => tape.add(&value, &Var::constant(shift.clone())),
            None => Ok(value),
        }
    }
}

/// Of the residual stream before every sublayer, averaged over all tokens.
fn root_mean_squares(model: &Model, weights: &Weights, reference: &[Vec<u32>]) -> Result<Vec<f64>> {
    let mut sums = vec![0.0; model.config.residual_sites() - 1];
    let mut tokens = 0;
    for sequence in reference {
        let batch = Batch::new(&model.device, &model.config, sequence, 1)?;
        let mut recorder = Recorder::of(model.config.sites_of(&[SiteKind::ResidIn, SiteKind::ResidMid]));
        model.forward(&mut Tape::new(), weights, &batch, &mut recorder)?;
        for (sum, (site, stream)) in sums.iter_mut().zip(&recorder.values) {
            let stream = stream.value().read()?;
            model.check_finite(site, &stream, weights, &batch, &mut NoHooks)?;
            let rows = stream.chunks_exact(model.config.d_model);
            *sum += rows.map(|row| root_mean_square(row, !model.config.rms_norm)).sum::<f64>();
        }
        tokens += sequence.len();
    }
    if tokens == 0 {
        return Err(Error::Data("there is no reference text to measure the streams' scales on".into()));
    }
    Ok(sums.into_iter().map(|sum| sum / tokens as f64).collect())
}

fn root_mean_square(row: &[f32], centred: bool) -> f64 {
    let mean = |f: &dyn Fn(f64) -> f64| row.iter().map(|&x| f(x.into())).sum::<f64>() / row.len() as f64;
    let centre = if centred { mean(&|x| x) } else { 0.0 };
    mean(&|x| (x - centre) * (x - centre)).sqrt()
}
