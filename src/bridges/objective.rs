//! What bridges are trained for (method: section 5), and its gradients.
//!
//! With `h^d`, `h^s` the residual streams of the dense and the sparse model at a site, `f` its encoder and `g` its decoder, and
//! `y^d` the dense model's predictions, the terms of a site are
//!
//! * `NMSE(f(h^d), h^s)`, for which `h^s` is a constant (unless [`Objective::draw_sparse`]), and `NMSE(g(h^s), h^d)`;
//! * `KL(y^d ‖ the sparse model continued from f(h^d))` and `KL(y^d ‖ the dense model continued from g(h^s))`;
//!
//! and the sparse model's own cross-entropy. The dense model is frozen.
//!
//! What is shared: each model runs once by itself, the dense one without a trace. The hybrids of a model that continue from
//! different sites run through a layer together: those that have entered so far are one batch. So is their way back, on which
//! a layer's weight gradient is one product, and at a sparse site the gradients of all its readers meet before they go on. All
//! of it is exact, and no layer is run for a hybrid that does not continue through it.

use std::sync::Arc;

use super::Bridges;
use crate::device::Tensor;
use crate::model::{Batch, Kind, Model, NoHooks, Pass, Weights};
use crate::observer::Observer;
use crate::ops::compress::SparseMatrix;
use crate::ops::{add, topk_logits};
use crate::tape::{Tape, Var};
use crate::train::bridge::Coefficients;
use crate::{Error, Result};

/// The terms of the objective, each before its coefficient. `T` holds one number, `S` one a site.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms<T, S> {
    /// The sparse model's own mean cross-entropy, in nats.
    pub cross_entropy: T,
    /// Normalised squared errors of the encoders.
    pub nmse_enc: S,
    /// Normalised squared errors of the decoders.
    pub nmse_dec: S,
    /// Mean divergences, in nats, of the sparse model continued from encoded dense streams.
    pub kl_d2s: S,
    /// Mean divergences, in nats, of the dense model continued from decoded sparse streams.
    pub kl_s2d: S,
}

/// The terms on their device: `(1)`, and for the sites either `(1)` each or `(sites)` at once.
pub type Losses = Terms<Tensor, Vec<Tensor>>;

impl Losses {
    /// Reads the terms back, waiting for the device.
    ///
    /// # Errors
    /// Those of the device.
    pub fn read(&self) -> Result<Terms<f64, Vec<f64>>> {
        let read = |tensors: &[Tensor]| {
            let mut all = Vec::new();
            for tensor in tensors {
                all.extend(tensor.read()?.into_iter().map(f64::from));
            }
            Ok::<_, Error>(all)
        };
        Ok(Terms {
            cross_entropy: read(std::slice::from_ref(&self.cross_entropy))?.into_iter().sum(),
            nmse_enc: read(&self.nmse_enc)?,
            nmse_dec: read(&self.nmse_dec)?,
            kl_d2s: read(&self.kl_d2s)?,
            kl_s2d: read(&self.kl_s2d)?,
        })
    }
}

impl Terms<f64, Vec<f64>> {
    /// The terms of the sites by their names in metrics, each with its coefficient.
    pub fn by_site(&self, c: &Coefficients) -> [(&'static str, &[f64], f64); 4] {
        [
            ("nmse_enc", &self.nmse_enc, c.nmse_enc),
            ("nmse_dec", &self.nmse_dec, c.nmse_dec),
            ("kl_d2s", &self.kl_d2s, c.kl_d2s),
            ("kl_s2d", &self.kl_s2d, c.kl_s2d),
        ]
    }

    /// Adds `share` times other terms; to terms of no site, those of any number of sites.
    pub fn add(&mut self, other: &Self, share: f64) {
        self.cross_entropy += share * other.cross_entropy;
        for (sums, terms) in [
            (&mut self.nmse_enc, &other.nmse_enc),
            (&mut self.nmse_dec, &other.nmse_dec),
            (&mut self.kl_d2s, &other.kl_d2s),
            (&mut self.kl_s2d, &other.kl_s2d),
        ] {
            sums.resize(terms.len(), 0.0);
            sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += share * term);
        }
    }

    /// The objective: the sum of all terms times their coefficients.
    pub fn total(&self, c: &Coefficients) -> f64 {
        let sites = self.by_site(c).into_iter().map(|(_, terms, c)| c * terms.iter().sum::<f64>());
        c.cross_entropy * self.cross_entropy + sites.sum::<f64>()
    }
}

/// The gradients of the objective.
pub struct BridgeGradients {
    /// For every parameter of the sparse model, in order, that is trained.
    pub sparse: Vec<Option<Tensor>>,
    /// For every tensor of the bridges, in order.
    pub bridges: Vec<Tensor>,
}

/// A dense model, a sparse one and the bridges between them, ready to be measured. All live on one device.
pub struct Objective<'a> {
    /// The dense model.
    pub dense: &'a Model,
    /// Its parameters, as constants.
    pub dense_weights: &'a Weights,
    /// The sparse model.
    pub sparse: &'a Model,
    /// For each parameter of the sparse model its nonzeros, where linear layers shall use them; it may be empty.
    pub compressed: &'a [Option<Arc<SparseMatrix>>],
    /// What joins them.
    pub bridges: &'a Bridges,
    /// What each term counts.
    pub coefficients: Coefficients,
    /// Whether the encoders' errors draw the sparse stream to what the encoders give, too. The method holds it constant; its
    /// scale is constant either way.
    pub draw_sparse: bool,
    /// The divergences are from the dense model's so many most probable tokens alone, their probabilities scaled to a sum of 1; none: from all.
    pub kl_top: Option<usize>,
    /// Who may stop it, between two operations.
    pub observer: Observer<'a>,
}

/// What the dense model makes of a batch.
pub(super) struct Dense {
    /// The residual stream at every site, `(B, T, d_dense)`.
    sites: Vec<Var>,
    /// `(B, T, V)`.
    pub(super) logits: Tensor,
}

/// What the sparse model makes of a batch.
pub(super) struct Sparse {
    /// The residual stream at every site, `(B, T, d_sparse)`.
    sites: Vec<Var>,
    /// `(B, T, V)`.
    pub(super) logits: Var,
}

/// What the maps of one direction make of a batch, at every site.
pub(super) struct Mapped {
    /// The other model's stream, `(B, T, d_model)`.
    pub(super) streams: Vec<Var>,
    /// Normalised squared errors, `(1)`.
    pub(super) errors: Vec<Var>,
}

/// A batch as each model reads it; their longest sequences may differ.
pub(super) struct Batches {
    pub(super) dense: Batch,
    pub(super) sparse: Batch,
    /// Whether everything ends at the first site that is not finite.
    pub(super) checked: bool,
}

impl<'a> Objective<'a> {
    /// The method's objective, with all coefficients 1 and the sparse model's weights dense.
    pub fn new(dense: &'a Model, dense_weights: &'a Weights, sparse: &'a Model, bridges: &'a Bridges) -> Self {
        let coefficients = Coefficients::default();
        Self {
            dense,
            dense_weights,
            sparse,
            compressed: &[],
            bridges,
            coefficients,
            draw_sparse: false,
            kl_top: None,
            observer: Observer::default(),
        }
    }
}

impl Objective<'_> {
    /// The terms of `sequences` sequences of equal length, given one after the other.
    ///
    /// # Errors
    /// [`Error::Shape`] for tokens that a model does not know or sequences too long for it; otherwise those of the operations.
    pub fn losses(&self, tokens: &[u32], sequences: usize) -> Result<Losses> {
        let batches = self.batches(tokens, sequences)?;
        let dense = self.run_dense(&batches)?;
        let (mut tape, maps) = (Tape::new(), self.bridges.constants());
        let weights = Weights::constant(self.sparse, self.compressed);
        let sparse = self.run_sparse(&mut tape, &weights, &batches)?;
        let cross_entropy = self.own(&mut tape, &weights, &batches, sparse.logits.clone())?;
        let encoded = self.encode(&mut tape, &maps, &dense, &sparse)?;
        let d2s = self.continue_sparse(&mut tape, &weights, &batches, encoded.streams)?;
        let wanted = self.wanted(&dense)?;
        let kl_d2s = tape.kl(&d2s, &wanted)?;
        drop(d2s);
        let decoded = self.decode(&mut tape, &maps, &dense, &sparse)?;
        let s2d = self.continue_dense(&mut tape, &batches, decoded.streams)?;
        let kl_s2d = tape.kl(&s2d, &wanted)?;
        Ok(losses(&cross_entropy, &encoded.errors, &decoded.errors, &kl_d2s, &kl_s2d))
    }

    /// As [`Objective::losses`], with the gradients of `share` times the objective for the bridges and for those of the
    /// sparse model's parameters whose kind is `wanted`.
    ///
    /// # Errors
    /// Those of [`Objective::losses`].
    pub fn gradients(
        &self,
        tokens: &[u32],
        sequences: usize,
        share: f32,
        wanted: &dyn Fn(Kind) -> bool,
    ) -> Result<(Losses, BridgeGradients)> {
        let c = &self.coefficients;
        let batches = self.batches(tokens, sequences)?;
        let dense = self.run_dense(&batches)?;

        let mut tape = Tape::new();
        let weights = Weights::new(self.sparse, &mut tape, wanted, self.compressed);
        let maps: Vec<Var> = self.bridges.list.iter().map(|map| tape.leaf(map.value.clone())).collect();
        let mut sparse = self.run_sparse(&mut tape, &weights, &batches)?;
        let cross_entropy = self.own(&mut tape, &weights, &batches, sparse.logits)?;
        sparse.logits = Var::constant(dense.logits.clone());
        let encoded = self.encode(&mut tape, &maps, &dense, &sparse)?;
        let mut seeds: Vec<_> = self.seed(&cross_entropy, c.cross_entropy, share)?.into_iter().collect();

        // The sparse hybrids go forth and back on a tape of their own: what they keep is freed before the dense ones begin.
        let mut aside = Tape::new();
        let weights_aside = Weights::new(self.sparse, &mut aside, wanted, self.compressed);
        let entries: Vec<Var> = encoded.streams.iter().map(|stream| aside.leaf(stream.value().clone())).collect();
        let logits = self.continue_sparse(&mut aside, &weights_aside, &batches, entries.clone())?;
        let predicted = self.wanted(&dense)?;
        let kl_d2s = aside.kl(&logits, &predicted)?;
        drop(logits);
        aside.backward_while(self.seed(&kl_d2s, c.kl_d2s, share)?, || self.observer.check())?;
        for (stream, entry) in encoded.streams.into_iter().zip(&entries) {
            seeds.extend(aside.take_gradient(entry).map(|gradient| (stream, gradient)));
        }

        let decoded = self.decode(&mut tape, &maps, &dense, &sparse)?;
        let logits = self.continue_dense(&mut tape, &batches, decoded.streams)?;
        let kl_s2d = tape.kl(&logits, &predicted)?;
        drop(logits);
        seeds.extend(self.seed(&kl_s2d, c.kl_s2d, share)?);
        for (errors, coefficient) in [(&encoded.errors, c.nmse_enc), (&decoded.errors, c.nmse_dec)] {
            for error in errors {
                seeds.extend(self.seed(error, coefficient, share)?);
            }
        }
        drop(sparse);
        tape.backward_while(seeds, || self.observer.check())?;

        let mut of_sparse = Vec::with_capacity(self.sparse.parameters.len());
        for ((p, var), aside_var) in self.sparse.parameters.iter().zip(weights.vars()).zip(weights_aside.vars()) {
            of_sparse.push(match (var, aside_var) {
                (Some(var), Some(aside_var)) if var.needs_gradient() => {
                    match (tape.take_gradient(var), aside.take_gradient(aside_var)) {
                        (Some(a), Some(b)) => Some(add::forward(&a, &b)?),
                        (Some(one), None) | (None, Some(one)) => Some(one),
                        (None, None) => Some(self.sparse.device.zeros(&p.name, &p.shape)?),
                    }
                }
                _ => None,
            });
        }
        let of_bridges = self.bridges.list.iter().zip(&maps).map(|(map, var)| match tape.take_gradient(var) {
            Some(gradient) => Ok(gradient),
            None => self.sparse.device.zeros(&map.name, map.value.shape()),
        });
        let gradients = BridgeGradients { sparse: of_sparse, bridges: of_bridges.collect::<Result<_>>()? };
        Ok((losses(&cross_entropy, &encoded.errors, &decoded.errors, &kl_d2s, &kl_s2d), gradients))
    }

    pub(super) fn batches(&self, tokens: &[u32], sequences: usize) -> Result<Batches> {
        let device = &self.sparse.device;
        Ok(Batches {
            dense: Batch::new(device, &self.dense.config, tokens, sequences)?,
            sparse: Batch::new(device, &self.sparse.config, tokens, sequences)?,
            checked: false,
        })
    }

    pub(super) fn run_dense(&self, batches: &Batches) -> Result<Dense> {
        let (mut tape, mut observer) = (Tape::new(), self.observer);
        let pass = Pass::new(self.dense, self.dense_weights, &batches.dense, &mut tape, &mut observer);
        let (sites, logits) = run(self.dense, pass.checked(batches.checked)).map_err(|e| e.in_model("dense"))?;
        Ok(Dense { sites, logits: logits.value().clone() })
    }

    pub(super) fn run_sparse(&self, tape: &mut Tape, weights: &Weights, batches: &Batches) -> Result<Sparse> {
        let mut observer = self.observer;
        let pass = Pass::new(self.sparse, weights, &batches.sparse, tape, &mut observer);
        let (sites, logits) = run(self.sparse, pass.checked(batches.checked)).map_err(|e| e.in_model("sparse"))?;
        Ok(Sparse { sites, logits })
    }

    /// What the hybrids shall predict, `(B, T, V)`.
    fn wanted(&self, dense: &Dense) -> Result<Tensor> {
        self.kl_top.map_or(Ok(dense.logits.clone()), |n| topk_logits::forward(&dense.logits, n))
    }

    /// The sparse model's cross-entropy.
    pub(super) fn own(&self, tape: &mut Tape, weights: &Weights, batches: &Batches, logits: Var) -> Result<Var> {
        let mut hooks = NoHooks;
        let mut pass = Pass::new(self.sparse, weights, &batches.sparse, tape, &mut hooks);
        Ok(pass.cross_entropy(&logits)?.0)
    }

    pub(super) fn encode(&self, tape: &mut Tape, maps: &[Var], dense: &Dense, sparse: &Sparse) -> Result<Mapped> {
        let mut encoded = Mapped { streams: Vec::new(), errors: Vec::new() };
        for (site, (h, target)) in dense.sites.iter().zip(&sparse.sites).enumerate() {
            let stream = self.bridges.encode(tape, maps, site, h)?;
            let constant = Var::constant(target.value().clone());
            encoded.errors.push(tape.nmse(&stream, if self.draw_sparse { target } else { &constant })?);
            encoded.streams.push(stream);
        }
        Ok(encoded)
    }

    pub(super) fn decode(&self, tape: &mut Tape, maps: &[Var], dense: &Dense, sparse: &Sparse) -> Result<Mapped> {
        let mut decoded = Mapped { streams: Vec::new(), errors: Vec::new() };
        for (site, (h, target)) in sparse.sites.iter().zip(&dense.sites).enumerate() {
            let stream = self.bridges.decode(tape, maps, site, h)?;
            decoded.errors.push(tape.nmse(&stream, target)?);
            decoded.streams.push(stream);
        }
        Ok(decoded)
    }

    /// Logits `(sites · B, T, V)` of the sparse model continued from a stream at each site.
    pub(super) fn continue_sparse(
        &self,
        tape: &mut Tape,
        weights: &Weights,
        batches: &Batches,
        streams: Vec<Var>,
    ) -> Result<Var> {
        let mut observer = self.observer;
        let pass = Pass::new(self.sparse, weights, &batches.sparse, tape, &mut observer);
        hybrids(pass.checked(batches.checked), streams).map_err(|e| e.in_model("sparse"))
    }

    /// Logits `(sites · B, T, V)` of the dense model continued from a stream at each site.
    pub(super) fn continue_dense(&self, tape: &mut Tape, batches: &Batches, streams: Vec<Var>) -> Result<Var> {
        let mut observer = self.observer;
        let pass = Pass::new(self.dense, self.dense_weights, &batches.dense, tape, &mut observer);
        hybrids(pass.checked(batches.checked), streams).map_err(|e| e.in_model("dense"))
    }

    /// The gradient that the way back of a term begins with; none for one that does not count.
    fn seed(&self, term: &Var, coefficient: f64, share: f32) -> Result<Option<(Var, Tensor)>> {
        if coefficient == 0.0 {
            return Ok(None);
        }
        let shape = term.value().shape();
        let data = vec![(coefficient * f64::from(share)) as f32; term.value().len()];
        Ok(Some((term.clone(), self.sparse.device.upload("seed", shape, &data)?)))
    }
}

/// The residual stream of a model by itself at every site, and its logits.
fn run(model: &Model, mut pass: Pass) -> Result<(Vec<Var>, Var)> {
    let mut x = pass.embed()?;
    let mut sites = vec![x.clone()];
    for sublayer in 0..model.config.residual_sites() - 1 {
        x = pass.advance(x, sublayer..sublayer + 1)?;
        sites.push(x.clone());
    }
    Ok((sites, pass.unembed(x)?))
}

/// Logits `(sites · B, T, V)` of a model continued from each of `entries: (B, T, d_model)`, one for each site.
fn hybrids(mut pass: Pass, entries: Vec<Var>) -> Result<Var> {
    let mut entered: Option<Var> = None;
    for (site, entry) in entries.into_iter().enumerate() {
        entered = Some(match entered {
            None => entry,
            Some(earlier) => {
                let arrived = pass.advance(earlier, site - 1..site)?;
                pass.tape.concat(&[&arrived, &entry], 0)?
            }
        });
    }
    let entered = entered.ok_or_else(|| Error::shape("bridges", "no sites"))?;
    pass.unembed(entered)
}

fn losses(cross_entropy: &Var, enc: &[Var], dec: &[Var], d2s: &Var, s2d: &Var) -> Losses {
    let values = |vars: &[Var]| vars.iter().map(|var| var.value().clone()).collect();
    Terms {
        cross_entropy: cross_entropy.value().clone(),
        nmse_enc: values(enc),
        nmse_dec: values(dec),
        kl_d2s: vec![d2s.value().clone()],
        kl_s2d: vec![s2d.value().clone()],
    }
}
