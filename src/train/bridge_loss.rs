//! The terms of the objective that bridges are trained with (method: section 5).
//!
//! `TERMS` has a row for each. Settings, coefficients, gradients, metrics, the evaluation and the
//! memory estimate all go through it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::device::Tensor;
use crate::model::Batch;
use crate::ops::kl::Support;
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
    /// The sparse model's logits, and the dense model's. Computed in training only with a
    /// coefficient.
    Models(LogitsLoss),
    /// What the encoder of a site gives, and the sparse stream there.
    Encoder(StreamLoss),
    /// What the decoder of a site gives, and the dense stream there.
    Decoder(StreamLoss),
    /// The logits of the sparse model continued from encoded streams, and the dense model's.
    SparseHybrid(LogitsLoss),
    /// The logits of the dense model continued from decoded streams, and its own.
    DenseHybrid(LogitsLoss),
}

/// Of logits `(B, T, V)`: `(1)`.
type ModelLoss = fn(&mut Tape, &Var, &Batch) -> Result<Var>;

/// Of streams and their targets `(B, T, d_model)`: `(1)`.
type StreamLoss = fn(&mut Tape, &Var, &Var) -> Result<Var>;

/// Of logits `(n · B, T, V)` and targets `(B, T, V)`: `(n)`, one for each site or model.
type LogitsLoss = fn(&mut Tape, &Var, &Target) -> Result<Var>;

/// The dense model's predictions, which others are compared with.
pub(crate) struct Target {
    /// `(B, T, V)`.
    pub(crate) logits: Tensor,
    /// Which tokens the other predictions are of.
    pub(crate) support: Support,
}

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
        loss: Loss::SparseHybrid(kl),
    },
    Term {
        name: "kl_s2d",
        about: "of sparse streams continued by the dense model",
        default: 1.0,
        loss: Loss::DenseHybrid(kl),
    },
    Term {
        name: "kl_sparse",
        about: "of the sparse model's own divergence from the dense one",
        default: 0.0,
        loss: Loss::Models(kl),
    },
];

/// The term of that name in metrics.
pub(crate) fn term(name: &str) -> Option<&'static Term> {
    TERMS.iter().find(|term| term.name == name)
}

fn kl(tape: &mut Tape, logits: &Var, target: &Target) -> Result<Var> {
    tape.kl(logits, &target.logits, target.support)
}

pub(crate) fn cross_entropy(tape: &mut Tape, logits: &Var, batch: &Batch) -> Result<Var> {
    Ok(tape.cross_entropy(logits, &batch.targets, batch.predictions())?.0)
}

/// What exists at one point of the computation, of which terms are computed. A site has the same
/// index everywhere.
pub(crate) enum Inputs<'a> {
    Model { logits: &'a Var },
    Models { logits: &'a Var, target: &'a Target },
    Encoder { streams: &'a [Var], targets: &'a [Var] },
    Decoder { streams: &'a [Var], targets: &'a [Var] },
    SparseHybrid { logits: &'a Var, target: &'a Target },
    DenseHybrid { logits: &'a Var, target: &'a Target },
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
        self.of(|loss| !matches!(loss, Loss::Model(_) | Loss::Models(_)))
    }

    /// The terms that compare the two models, with their names: one value, or none where it was not
    /// computed.
    pub fn of_models(&self) -> impl Iterator<Item = (&'static str, &[T])> {
        self.of(|loss| matches!(loss, Loss::Models(_)))
    }

    fn of(&self, kind: fn(&Loss) -> bool) -> impl Iterator<Item = (&'static str, &[T])> {
        let terms = TERMS.iter().zip(&self.0).filter(move |(term, _)| kind(&term.loss));
        terms.map(|(term, values)| (term.name, values.as_slice()))
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
                (Loss::Models(loss), Inputs::Models { logits, target })
                | (Loss::SparseHybrid(loss), Inputs::SparseHybrid { logits, target })
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

/// A number for each term, which is a section of settings: its name, its values by default, what
/// they may be, and what they mean.
macro_rules! per_term {
    ($(#[$doc:meta])+ $name:ident = $section:literal, $default:expr, $takes:expr, $about:expr) => {
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name([f64; TERMS.len()]);

        impl Default for $name {
            fn default() -> Self {
                let mut all = Self::zero();
                let default: fn(&Term) -> f64 = $default;
                all.0.iter_mut().zip(TERMS).for_each(|(value, term)| *value = default(term));
                all
            }
        }

        impl $name {
            /// All 0.
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
                    None => {
                        let key = format!(concat!("bridge.", $section, ".{}"), name);
                        return Err(Error::config(key, "there is no such term"));
                    }
                }
                Ok(self)
            }

            pub(super) fn validate(&self) -> Result<()> {
                match self.0.iter().zip(Self::rows()).find(|(value, row)| !row.takes.has(**value)) {
                    Some((value, row)) => Err(Error::config(row.key, format!("{value} is not {}", row.takes))),
                    None => Ok(()),
                }
            }

            pub(super) fn rows() -> impl Iterator<Item = SettingRow> {
                let about: fn(&Term) -> &'static str = $about;
                TERMS.iter().map(move |term| SettingRow {
                    key: format!(concat!("bridge.", $section, ".{}"), term.name),
                    takes: $takes,
                    optional: false,
                    about: about(term),
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(TERMS.iter().map(|term| term.name).zip(self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let values = BTreeMap::<String, f64>::deserialize(deserializer)?;
                let set = |all: Self, (name, value): (&String, &f64)| all.with(name, *value);
                values.iter().try_fold(Self::default(), set).map_err(serde::de::Error::custom)
            }
        }
    };
}

per_term!(
    /// The coefficient of each term.
    Coefficients = "coefficients", |term| term.default, COEFFICIENT, |term| term.about
);

per_term!(
    /// The fraction of training over which the coefficient of each term rises from 0.
    Ramps = "ramps", |_| 0.0, SHARE, |_| "share of training over which that coefficient rises from 0"
);

const COEFFICIENT: Takes = within(0.0, 1e6);

const SHARE: Takes = within(0.0, 1.0);

impl Coefficients {
    /// Those of a step that `done` of the training ends with: a coefficient with a ramp is in
    /// proportion to it until the ramp's end.
    pub(crate) fn ramped(mut self, ramps: &Ramps, done: f64) -> Self {
        for (coefficient, &ramp) in self.0.iter_mut().zip(&ramps.0).filter(|(_, ramp)| done < **ramp) {
            *coefficient *= done / ramp;
        }
        self
    }

    /// Whether a term that compares the two models has one.
    pub(crate) fn compare_models(&self) -> bool {
        TERMS.iter().zip(self.0).any(|(term, value)| matches!(term.loss, Loss::Models(_)) && value != 0.0)
    }
}
