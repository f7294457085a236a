//! What bridges are trained for (method: section 5), and its gradients.
//!
//! [`crate::train::bridge_loss`] has the table of the terms. The dense model is frozen.
//!
//! Each model runs alone once, the dense one without gradients. The hybrids of a model that
//! continue from different sites run through a layer together: those that have entered so far are
//! one batch. So is their backward pass, in which a layer's weight gradient is one product, and at
//! a sparse site the gradients of all its readers are summed before they are propagated. All of it
//! is exact, and no layer runs for a hybrid that does not continue through it.

use std::sync::Arc;

use super::Bridges;
use crate::device::Tensor;
use crate::model::{Batch, Kind, Model, Pass, Weights};
use crate::observer::Observer;
use crate::ops::compress::SparseMatrix;
use crate::ops::kl::Support;
use crate::ops::{add, topk_logits};
use crate::tape::{Tape, Var};
use crate::train::bridge_loss::{Coefficients, Inputs, Loss, Target, Terms};
use crate::{Error, Result};

/// The gradients of the objective.
pub struct BridgeGradients {
    /// For every parameter of the sparse model, in order, that is trained.
    pub sparse: Vec<Option<Tensor>>,
    /// For every tensor of the bridges, in order.
    pub bridges: Vec<Tensor>,
}

/// A dense model, a sparse one and the bridges between them, ready to be measured. All live on one
/// device.
pub struct Objective<'a> {
    /// The dense model.
    pub dense: &'a Model,
    /// Its parameters, as constants.
    pub dense_weights: &'a Weights,
    /// The sparse model.
    pub sparse: &'a Model,
    /// For each parameter of the sparse model its nonzero weights, where linear layers use them; it
    /// may be empty.
    pub compressed: &'a [Option<Arc<SparseMatrix>>],
    /// The encoders and decoders.
    pub bridges: &'a Bridges,
    /// What each term is multiplied by.
    pub coefficients: Coefficients,
    /// Whether the sparse streams are constants in the encoders' errors, as in the method;
    /// otherwise these errors move the sparse model as well. The scale of an error is constant
    /// either way.
    pub detach_target: bool,
    /// The divergences are from this many most probable tokens of the dense model, their
    /// probabilities scaled to a sum of 1; none: from all.
    pub kl_top: Option<usize>,
    /// Whether the other predictions, too, are scaled to a sum of 1 over those tokens.
    pub kl_top_renormalize: bool,
    /// The sharpness of encoders with thresholds; none: they are hard.
    pub sharpness: Option<f32>,
    /// May stop it between two operations.
    pub observer: Observer<'a>,
}

/// The residual stream of a model alone at every site, `(B, T, d_model)`, and its logits `(B, T,
/// V)`.
pub(super) struct Activations {
    pub(super) sites: Vec<Var>,
    pub(super) logits: Var,
}

/// The gradients of the sparse hybrids' terms.
struct HybridGradients {
    /// For every parameter of the sparse model, in order.
    weights: Vec<Option<Tensor>>,
    /// For the encoded streams.
    streams: Vec<(Var, Tensor)>,
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
        Self {
            dense,
            dense_weights,
            sparse,
            compressed: &[],
            bridges,
            coefficients: Coefficients::default(),
            detach_target: true,
            kl_top: None,
            kl_top_renormalize: false,
            sharpness: None,
            observer: Observer::default(),
        }
    }

    /// The terms of `sequences` sequences of equal length, given one after the other.
    ///
    /// # Errors
    /// [`Error::Shape`] for tokens that a model does not know or sequences too long for it;
    /// otherwise those of the operations.
    pub fn losses(&self, tokens: &[u32], sequences: usize) -> Result<Terms<Tensor>> {
        let batches = self.batches(tokens, sequences)?;
        let dense = self.run_dense(&batches)?;
        let target = &self.target(dense.logits.value())?;
        let (mut tape, maps) = (Tape::new(), self.bridges.constants());
        let (weights, batch) = (Weights::constant(self.sparse, self.compressed), &batches.sparse);
        let sparse = self.run_sparse(&mut tape, &weights, &batches)?;
        let mut terms = Terms::default();
        self.of_sparse(&mut tape, batch, &sparse.logits, target, &mut terms)?;
        let streams = self.encode(&mut tape, &maps, &dense.sites)?;
        terms.compute(&mut tape, batch, &Inputs::Encoder { streams: &streams, targets: &sparse.sites })?;
        let logits = &self.continue_sparse(&mut tape, &weights, &batches, streams)?;
        terms.compute(&mut tape, batch, &Inputs::SparseHybrid { logits, target })?;
        let streams = self.decode(&mut tape, &maps, &sparse.sites)?;
        terms.compute(&mut tape, batch, &Inputs::Decoder { streams: &streams, targets: &dense.sites })?;
        let logits = &self.continue_dense(&mut tape, &batches, streams)?;
        terms.compute(&mut tape, batch, &Inputs::DenseHybrid { logits, target })?;
        Ok(terms.values())
    }

    /// As [`Objective::losses`], with the gradients of `share` times the objective for the bridges
    /// and for those of the sparse model's parameters whose kind is `trained`.
    ///
    /// # Errors
    /// Those of [`Objective::losses`].
    pub fn gradients(
        &self,
        tokens: &[u32],
        sequences: usize,
        share: f32,
        trained: &dyn Fn(Kind) -> bool,
    ) -> Result<(Terms<Tensor>, BridgeGradients)> {
        let batches = self.batches(tokens, sequences)?;
        let batch = &batches.sparse;
        let dense = self.run_dense(&batches)?;
        let target = self.target(dense.logits.value())?;

        let (mut tape, mut terms) = (Tape::new(), Terms::default());
        let weights = Weights::new(self.sparse, &mut tape, trained, self.compressed);
        let maps: Vec<Var> = self.bridges.list.iter().map(|map| tape.leaf(map.value.clone())).collect();
        let Activations { sites, logits } = self.run_sparse(&mut tape, &weights, &batches)?;
        self.of_sparse(&mut tape, batch, &logits, &target, &mut terms)?;
        drop(logits);
        let streams = self.encode(&mut tape, &maps, &dense.sites)?;
        let constant = |var: &Var| Var::constant(var.value().clone());
        let targets = if self.detach_target { &sites.iter().map(constant).collect() } else { &sites };
        terms.compute(&mut tape, batch, &Inputs::Encoder { streams: &streams, targets })?;

        let hybrids = self.backward_sparse(streams, &batches, &target, share, trained, &mut terms)?;
        let mut seeds = hybrids.streams;

        let streams = self.decode(&mut tape, &maps, &sites)?;
        terms.compute(&mut tape, batch, &Inputs::Decoder { streams: &streams, targets: &dense.sites })?;
        let logits = self.continue_dense(&mut tape, &batches, streams)?;
        terms.compute(&mut tape, batch, &Inputs::DenseHybrid { logits: &logits, target: &target })?;
        drop((logits, sites));
        seeds.extend(terms.seeds(&self.coefficients, share, |loss| !matches!(loss, Loss::SparseHybrid(_)))?);
        tape.backward_while(seeds, || self.observer.check())?;

        let zeros = |name: &str, shape: &[usize]| self.sparse.device.zeros(name, shape);
        let mut sparse = Vec::with_capacity(self.sparse.parameters.len());
        for ((p, var), hybrid) in self.sparse.parameters.iter().zip(weights.vars()).zip(hybrids.weights) {
            let var = var.as_ref().filter(|var| var.needs_gradient());
            sparse.push(match var.map(|var| (tape.take_gradient(var), hybrid)) {
                None => None,
                Some((Some(a), Some(b))) => Some(add::forward(&a, &b)?),
                Some((None, None)) => Some(zeros(&p.name, &p.shape)?),
                Some((one, other)) => one.or(other),
            });
        }
        let of_map = |(map, var): (&super::BridgeTensor, &Var)| {
            tape.take_gradient(var).map_or_else(|| zeros(&map.name, map.value.shape()), Ok)
        };
        let bridges = self.bridges.list.iter().zip(&maps).map(of_map).collect::<Result<_>>()?;
        Ok((terms.values(), BridgeGradients { sparse, bridges }))
    }

    /// Computes the terms of the sparse model's own logits.
    fn of_sparse(
        &self,
        tape: &mut Tape,
        batch: &Batch,
        logits: &Var,
        target: &Target,
        terms: &mut Terms<Var>,
    ) -> Result<()> {
        terms.compute(tape, batch, &Inputs::Model { logits })?;
        match self.coefficients.compare_models() {
            true => terms.compute(tape, batch, &Inputs::Models { logits, target }),
            false => Ok(()),
        }
    }

    /// Computes the terms of the sparse hybrids, and their backward pass on a tape of its own: what
    /// it saves is freed before the dense hybrids run.
    fn backward_sparse(
        &self,
        streams: Vec<Var>,
        batches: &Batches,
        target: &Target,
        share: f32,
        trained: &dyn Fn(Kind) -> bool,
        terms: &mut Terms<Var>,
    ) -> Result<HybridGradients> {
        let mut tape = Tape::new();
        let weights = Weights::new(self.sparse, &mut tape, trained, self.compressed);
        let entries: Vec<Var> = streams.iter().map(|stream| tape.leaf(stream.value().clone())).collect();
        let logits = self.continue_sparse(&mut tape, &weights, batches, entries.clone())?;
        terms.compute(&mut tape, &batches.sparse, &Inputs::SparseHybrid { logits: &logits, target })?;
        drop(logits);
        let seeds = terms.seeds(&self.coefficients, share, |loss| matches!(loss, Loss::SparseHybrid(_)))?;
        tape.backward_while(seeds, || self.observer.check())?;
        let streams = streams.into_iter().zip(&entries);
        let streams = streams.filter_map(|(stream, entry)| Some((stream, tape.take_gradient(entry)?))).collect();
        let weights = weights.vars().iter().map(|var| tape.take_gradient(var.as_ref()?)).collect();
        Ok(HybridGradients { weights, streams })
    }

    pub(super) fn batches(&self, tokens: &[u32], sequences: usize) -> Result<Batches> {
        let device = &self.sparse.device;
        Ok(Batches {
            dense: Batch::new(device, &self.dense.config, tokens, sequences)?,
            sparse: Batch::new(device, &self.sparse.config, tokens, sequences)?,
            checked: false,
        })
    }

    pub(super) fn run_dense(&self, batches: &Batches) -> Result<Activations> {
        let (mut tape, mut observer) = (Tape::new(), self.observer);
        let pass = Pass::new(self.dense, self.dense_weights, &batches.dense, &mut tape, &mut observer);
        run(self.dense, pass.checked(batches.checked)).map_err(|e| e.in_model("dense"))
    }

    pub(super) fn run_sparse(&self, tape: &mut Tape, weights: &Weights, batches: &Batches) -> Result<Activations> {
        let mut observer = self.observer;
        let pass = Pass::new(self.sparse, weights, &batches.sparse, tape, &mut observer);
        run(self.sparse, pass.checked(batches.checked)).map_err(|e| e.in_model("sparse"))
    }

    /// What predictions are compared with.
    fn target(&self, dense_logits: &Tensor) -> Result<Target> {
        let Some(n) = self.kl_top else { return Ok(Target { logits: dense_logits.clone(), support: Support::All }) };
        let support = if self.kl_top_renormalize { Support::OfTarget } else { Support::All };
        Ok(Target { logits: topk_logits::forward(dense_logits, n)?, support })
    }

    /// What the encoders make of the dense streams, at every site.
    pub(super) fn encode(&self, tape: &mut Tape, maps: &[Var], sites: &[Var]) -> Result<Vec<Var>> {
        sites.iter().enumerate().map(|(site, h)| self.bridges.encode(tape, maps, site, h, self.sharpness)).collect()
    }

    /// What the decoders make of the sparse streams, at every site.
    pub(super) fn decode(&self, tape: &mut Tape, maps: &[Var], sites: &[Var]) -> Result<Vec<Var>> {
        sites.iter().enumerate().map(|(site, h)| self.bridges.decode(tape, maps, site, h)).collect()
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
}

fn run(model: &Model, mut pass: Pass) -> Result<Activations> {
    let mut x = pass.embed()?;
    let mut sites = vec![x.clone()];
    for sublayer in 0..model.config.residual_sites() - 1 {
        x = pass.advance(x, sublayer..sublayer + 1)?;
        sites.push(x.clone());
    }
    Ok(Activations { sites, logits: pass.unembed(x)? })
}

/// Logits `(sites · B, T, V)` of a model continued from each of `entries: (B, T, d_model)`, one for
/// each site.
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
