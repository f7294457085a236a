//! The terms of the objective that bridges are trained with (method: section 5).
//!
//! `TERMS` has a row for each. Settings, coefficients, gradients, metrics, the evaluation and the
//! memory estimate all go through it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::device::Tensor;
use crate::model::Batch;
use crate::settings::{SettingRow, Takes, within};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// A term of the objective.
pub(crate) struct Term {
    /// Its name in metrics and in `bridge.coefficients`. Those of hybrids end in `_d2s` or `_s2d`.
    pub(crate) name: &'static str,
    /// What its coefficient weighs, in a line.
    pub(crate) about: &'static str,
    /// Its coefficient unless set.
    pub(crate) default: f64,
    pub(crate) loss: Loss,
}

/// What a term is computed of.
pub(crate) enum Loss {
    /// The sparse model's logits.
    Model(ModelLoss),
    /// What the encoder of a site gives, and the sparse stream there.
    Encoder(StreamLoss),
    /// What the decoder of a site gives, and the dense stream there.
    Decoder(StreamLoss),
    /// The logits of the sparse model continued from encoded streams, and the dense model's.
    SparseHybrid(HybridLoss),
    /// The logits of the dense model continued from decoded streams, and its own.
    DenseHybrid(HybridLoss),
}

/// Of logits `(B, T, V)`: `(1)`.
type ModelLoss = fn(&mut Tape, &Var, &Batch) -> Result<Var>;

/// Of streams and their targets `(B, T, d_model)`: `(1)`.
type StreamLoss = fn(&mut Tape, &Var, &Var) -> Result<Var>;

/// Of logits `(sites · B, T, V)` and targets `(B, T, V)`: `(sites)`.
type HybridLoss = fn(&mut Tape, &Var, &Tensor) -> Result<Var>;

/// All terms, in the order of metrics and settings.
pub(crate) const TERMS: &[Term] = &[
    Term {
        name: "cross_entropy",
        about: "of the sparse model's own loss",
        default: 1.0,
        loss: Loss::Model(cross_entropy),
    },
    Term { name: "nmse_enc", about: "of the encoders' errors", default: 1.0, loss: Loss::Encoder(Tape::nmse) },
    Term { name: "nmse_dec", about: "of the decoders' errors", default: 1.0, loss: Loss::Decoder(Tape::nmse) },
    Term {
        name: "kl_d2s",
        about: "of dense streams continued by the sparse model",
        default: 1.0,
        loss: Loss::SparseHybrid(Tape::kl),
    },
    Term {
        name: "kl_s2d",
        about: "of sparse streams continued by the dense model",
        default: 1.0,
        loss: Loss::DenseHybrid(Tape::kl),
    },
];

pub(crate) fn cross_entropy(tape: &mut Tape, logits: &Var, batch: &Batch) -> Result<Var> {
    Ok(tape.cross_entropy(logits, &batch.targets, batch.predictions())?.0)
}

/// What exists at one point of the computation, of which terms are computed. A site has the same
/// index everywhere.
pub(crate) enum Inputs<'a> {
    Model { logits: &'a Var },
    Encoder { streams: &'a [Var], targets: &'a [Var] },
    Decoder { streams: &'a [Var], targets: &'a [Var] },
    SparseHybrid { logits: &'a Var, target: &'a Tensor },
    DenseHybrid { logits: &'a Var, target: &'a Tensor },
}

/// Values of all terms, each before its coefficient: one value, one a site, or one tensor
/// `(sites)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms<T>([Vec<T>; TERMS.len()]);

impl<T> Default for Terms<T> {
    fn default() -> Self {
        Self([const { Vec::new() }; TERMS.len()])
    }
}

impl<T> Terms<T> {
    /// The values of a term; none if there is no term of that name.
    pub fn get(&self, name: &str) -> &[T] {
        TERMS.iter().position(|term| term.name == name).map_or(&[], |at| &self.0[at])
    }

    /// Adds a value to those of a term, if there is a term of that name.
    pub fn push(&mut self, name: &str, value: T) {
        if let Some(at) = TERMS.iter().position(|term| term.name == name) {
            self.0[at].push(value);
        }
    }

    /// The terms that have values at sites, with their names.
    pub fn by_site(&self) -> impl Iterator<Item = (&'static str, &[T])> {
        let sites = TERMS.iter().zip(&self.0).filter(|(term, _)| !matches!(term.loss, Loss::Model(_)));
        sites.map(|(term, values)| (term.name, values.as_slice()))
    }
}

impl Terms<Var> {
    /// Computes the terms that take `inputs`.
    pub(crate) fn compute(&mut self, tape: &mut Tape, batch: &Batch, inputs: &Inputs) -> Result<()> {
        for (term, values) in TERMS.iter().zip(&mut self.0) {
            match (&term.loss, inputs) {
                (Loss::Model(loss), Inputs::Model { logits }) => values.push(loss(tape, logits, batch)?),
                (Loss::Encoder(loss), Inputs::Encoder { streams, targets })
                | (Loss::Decoder(loss), Inputs::Decoder { streams, targets }) => {
                    for (stream, target) in streams.iter().zip(*targets) {
                        values.push(loss(tape, stream, target)?);
                    }
                }
                (Loss::SparseHybrid(loss), Inputs::SparseHybrid { logits, target })
                | (Loss::DenseHybrid(loss), Inputs::DenseHybrid { logits, target }) => {
                    values.push(loss(tape, logits, target)?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The gradients of `share` times the objective for the terms whose loss is of a kind; none for
    /// a coefficient of 0.
    pub(crate) fn seeds(
        &self,
        coefficients: &Coefficients,
        share: f32,
        kind: fn(&Loss) -> bool,
    ) -> Result<Vec<(Var, Tensor)>> {
        let mut seeds = Vec::new();
        for ((term, values), coefficient) in TERMS.iter().zip(&self.0).zip(coefficients.0) {
            for var in values.iter().filter(|_| coefficient != 0.0 && kind(&term.loss)) {
                let data = vec![(coefficient * f64::from(share)) as f32; var.value().len()];
                seeds.push((var.clone(), var.value().device().upload("seed", var.value().shape(), &data)?));
            }
        }
        Ok(seeds)
    }

    pub(crate) fn values(&self) -> Terms<Tensor> {
        Terms(self.0.each_ref().map(|values| values.iter().map(|var| var.value().clone()).collect()))
    }
}

impl Terms<Tensor> {
    /// Reads the terms back, waiting for the device.
    ///
    /// # Errors
    /// Those of the device.
    pub fn read(&self) -> Result<Terms<f64>> {
        let mut read = Terms::default();
        for (values, tensors) in read.0.iter_mut().zip(&self.0) {
            for tensor in tensors {
                values.extend(tensor.read()?.into_iter().map(f64::from));
            }
        }
        Ok(read)
    }
}

impl Terms<f64> {
    /// Adds `share` times other terms; to terms without values, those of any number of sites.
    pub(crate) fn add(&mut self, other: &Self, share: f64) {
        for (sums, values) in self.0.iter_mut().zip(&other.0) {
            sums.resize(values.len(), 0.0);
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += share * value);
        }
    }

    /// The objective: the sum of all values times their coefficients.
    pub fn total(&self, coefficients: &Coefficients) -> f64 {
        self.0.iter().zip(coefficients.0).map(|(values, c)| c * values.iter().sum::<f64>()).sum()
    }
}

/// The coefficient of each term.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients([f64; TERMS.len()]);

const RANGE: Takes = within(0.0, 1e6);

impl Default for Coefficients {
    fn default() -> Self {
        let mut all = Self::zero();
        all.0.iter_mut().zip(TERMS).for_each(|(coefficient, term)| *coefficient = term.default);
        all
    }
}

impl Coefficients {
    /// All coefficients 0.
    pub fn zero() -> Self {
        Self([0.0; TERMS.len()])
    }

    /// The same, but for one term.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no such term.
    pub fn with(mut self, name: &str, value: f64) -> Result<Self> {
        match TERMS.iter().position(|term| term.name == name) {
            Some(at) => self.0[at] = value,
            None => return Err(Error::config(format!("bridge.coefficients.{name}"), "there is no such term")),
        }
        Ok(self)
    }

    pub(super) fn validate(&self) -> Result<()> {
        match self.0.iter().zip(Self::rows()).find(|(value, _)| !RANGE.has(**value)) {
            Some((value, row)) => Err(Error::config(row.key, format!("{value} is not {RANGE}"))),
            None => Ok(()),
        }
    }

    pub(super) fn rows() -> impl Iterator<Item = SettingRow> {
        TERMS.iter().map(|term| SettingRow {
            key: format!("bridge.coefficients.{}", term.name),
            takes: RANGE,
            optional: false,
            about: term.about,
        })
    }
}

impl Serialize for Coefficients {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(TERMS.iter().map(|term| term.name).zip(self.0))
    }
}

impl<'de> Deserialize<'de> for Coefficients {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = BTreeMap::<String, f64>::deserialize(deserializer)?;
        let set = |all: Self, (name, value): (&String, &f64)| all.with(name, *value);
        values.iter().try_fold(Self::default(), set).map_err(serde::de::Error::custom)
    }
}
