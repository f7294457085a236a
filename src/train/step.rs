//! One optimizer step (method: section 2).

use std::sync::Arc;

use super::communicator::Communicator;
use super::communicator::buckets::Buckets;
use super::config::OptimizerConfig;
use crate::device::{Device, Tensor};
use crate::model::{Batch, Hooks, Kind, LossOutput, Model, ModelConfig, NoHooks, Parameter, Weights};
use crate::observer::Observer;
use crate::ops::compress::SparseMatrix;
use crate::ops::{adam, add, grad_rms};
use crate::sparsity::{self, Schedule};
use crate::tape::Tape;
use crate::{Error, Result};

/// A model with its optimizer's state.
pub struct Trainer {
    /// What the steps change.
    pub model: Model,
    /// How each step changes it.
    pub optimizer: OptimizerConfig,
    /// What share of the weights may be nonzero after each step.
    pub schedule: Schedule,
    /// Whether linear layers multiply by the nonzeros of their weights instead of by whole
    /// matrices. `None`: wherever that is faster.
    pub use_compressed: Option<bool>,
    pub(crate) communicator: Communicator,
    step: u64,
    pub(super) moments: Vec<Option<AdamMoments>>,
    compressed: Vec<Option<Arc<SparseMatrix>>>,
    /// How many there were after the last step.
    sparse_products: usize,
    /// The gradient that every micro-batch's loss starts from: its share of the step.
    seed: Tensor,
}

/// Adam's moments of one parameter. They stay dense.
pub(crate) struct AdamMoments {
    pub(crate) m: Tensor,
    pub(crate) v: Tensor,
}

/// What one step leaves to be read back when convenient.
pub struct StepRecord {
    /// The step, counted from 0.
    pub step: u64,
    /// Mean loss of each micro-batch, `(1)`, in nats.
    pub losses: Vec<Tensor>,
    /// The gradient's factor and its root-mean-square over all trained parameters: `(2)`.
    pub factor: Tensor,
    /// Sum of squares of every trained parameter's gradient.
    pub square_sums: Tensor,
    /// Learning rate of the step.
    pub lr: f64,
    /// Density of the hidden matrices after the step.
    pub density: f64,
    /// Density of embedding and unembedding after the step.
    pub embed_density: f64,
}

/// Whether parameters of this kind are trained.
pub(crate) fn trains(config: &ModelConfig, optimizer: &OptimizerConfig, kind: Kind) -> bool {
    match kind {
        Kind::LogitsBias => false,
        Kind::Position => optimizer.train_positions,
        Kind::Bigram => config.learnable_bigram_table,
        _ => true,
    }
}

/// A [`StepRecord`] read back.
#[derive(Clone, Copy, Debug)]
pub struct StepNumbers {
    /// The step, counted from 0.
    pub step: u64,
    /// Mean loss in nats.
    pub loss: f64,
    /// Root-mean-square of the gradient over all trained parameters.
    pub grad_rms: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Density of the hidden matrices after the step.
    pub density: f64,
    /// Density of embedding and unembedding after the step.
    pub embed_density: f64,
}

impl Trainer {
    /// Training of `model` from the start.
    ///
    /// # Errors
    /// The device's limits, naming the tensor; [`Error::SparseParameter`] naming a parameter that
    /// is held compressed, and [`Error::NonFiniteSite`] naming one that was loaded with numbers
    /// that are not finite.
    pub fn new(model: Model, optimizer: OptimizerConfig, schedule: Schedule) -> Result<Self> {
        schedule.validate()?;
        if model.parameters.loaded_not_finite
            && let Some(found) = model.parameters.not_finite()?.into_iter().next()
        {
            return Err(model.not_finite(found.name, found.value, None));
        }
        let seed = model.device.upload("seed", &[1], &[1.0 / optimizer.accumulate.max(1) as f32])?;
        let (moments, compressed) = (Vec::new(), Vec::new());
        let mut trainer = Self {
            model,
            optimizer,
            schedule,
            use_compressed: None,
            communicator: Communicator::single(),
            step: 0,
            moments,
            compressed,
            sparse_products: 0,
            seed,
        };
        trainer.model.parameters.gather()?;
        for p in trainer.model.parameters.iter() {
            let zeros = |which: &str| trainer.model.device.zeros(&format!("{which}.{}", p.name), &p.shape);
            trainer.moments.push(match trainer.trains(p.kind) {
                true => {
                    // Refused here, not halfway through the first step.
                    p.dense()?;
                    Some(AdamMoments { m: zeros("m")?, v: zeros("v")? })
                }
                false => None,
            });
        }
        Ok(trainer)
    }

    /// Whether parameters of this kind are trained.
    pub fn trains(&self, kind: Kind) -> bool {
        trains(&self.model.config, &self.optimizer, kind)
    }

    /// Lets `ranks` train together: each gives [`Trainer::step`] a share of the step's batches,
    /// equally many predictions each, and all do the update that the average over all of them asks
    /// for.
    ///
    /// # Errors
    /// Those of the device.
    pub fn join(&mut self, communicator: Communicator) -> Result<()> {
        self.seed.write(&[self.share_of(&communicator)])?;
        self.communicator = communicator;
        Ok(())
    }

    /// The share of a micro-batch in the step.
    fn share_of(&self, communicator: &Communicator) -> f32 {
        1.0 / (self.optimizer.accumulate.max(1) * communicator.size()) as f32
    }

    pub(crate) fn share(&self) -> f32 {
        self.share_of(&self.communicator)
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// Takes up training where a checkpoint left it.
    pub(super) fn restore(&mut self, step: u64, moments: Vec<Option<AdamMoments>>) -> Result<()> {
        self.step = step;
        self.moments = moments;
        self.recompress()
    }

    /// Nonzeros of the parameters in their compressed form, where linear layers use it; for
    /// evaluation.
    pub fn compressed(&self) -> &[Option<Arc<SparseMatrix>>] {
        &self.compressed
    }

    fn recompress(&mut self) -> Result<()> {
        self.compressed.clear();
        if let Some(last) = self.step.checked_sub(1) {
            let at = (last, self.optimizer.steps);
            let parameters = self.model.parameters.as_slice();
            self.compressed = sparsity::compress(parameters, &self.schedule, at, self.use_compressed)?;
            self.tell_products(at);
        }
        Ok(())
    }

    /// Says so where products change from dense weights to nonzeros.
    fn tell_products(&mut self, (step, steps): (u64, u64)) {
        let before = std::mem::replace(&mut self.sparse_products, self.compressed.iter().flatten().count());
        let planning = matches!(self.model.device, Device::Meta(_));
        if self.sparse_products != before && !planning {
            let (density, embed_density) =
                (self.schedule.density(step, steps), self.schedule.embed_density(step, steps));
            tracing::debug!(
                "step {}: {} of {} matrices are multiplied by their nonzeros (density {density:.3}, embeddings {embed_density:.3})",
                step + 1,
                self.sparse_products,
                self.model.parameters.iter().filter(|p| p.kind.is_matrix()).count()
            );
        }
    }

    /// Does one step on the average gradient of `batches`.
    ///
    /// # Errors
    /// Those of the operations. Numbers that are not finite are not looked for here but in
    /// [`Trainer::numbers`], since that waits for the device.
    pub fn step(&mut self, batches: &[Batch]) -> Result<StepRecord> {
        self.step_with(batches, &mut NoHooks, sparsity::apply_topk_and_decay)
    }

    /// As [`Trainer::step`], given up with [`Error::Stopped`] once it is to stop; the model is then
    /// as it was before.
    pub(crate) fn step_observed(&mut self, batches: &[Batch], observer: &Observer) -> Result<StepRecord> {
        let (losses, gradients) = self.gradients(batches, &mut { *observer }, observer)?;
        self.update(losses, gradients, sparsity::apply_topk_and_decay)
    }

    /// As [`Trainer::step`], with someone at the forward pass's sites, and another hand than
    /// [`sparsity::apply_topk_and_decay`] to keep and decay weights.
    pub(crate) fn step_with(
        &mut self,
        batches: &[Batch],
        sites: &mut dyn Hooks,
        apply_rules: impl FnMut(&mut [Parameter], &Schedule, (u64, u64), f32) -> Result<()>,
    ) -> Result<StepRecord> {
        let (losses, gradients) = self.gradients(batches, sites, &Observer::default())?;
        self.update(losses, gradients, apply_rules)
    }

    /// Does one step along `gradients`, one for each parameter that is trained. `losses` are the
    /// model's own on each micro-batch, `(1)`.
    pub(crate) fn update(
        &mut self,
        losses: Vec<Tensor>,
        gradients: Vec<Option<Tensor>>,
        mut apply_rules: impl FnMut(&mut [Parameter], &Schedule, (u64, u64), f32) -> Result<()>,
    ) -> Result<StepRecord> {
        let (step, steps) = (self.step, self.optimizer.steps);
        let lr = self.optimizer.lr_at(step, &self.schedule);
        let trained = gradients.iter().flatten().count();
        let mut square_sums = self.model.device.empty("square sums", &[trained])?;
        let mut numel = 0;
        for (slot, gradient) in gradients.iter().flatten().enumerate() {
            grad_rms::square_sum(gradient, &mut square_sums, slot)?;
            numel += gradient.len() as u64;
        }
        let factor = grad_rms::factor(&square_sums, numel, self.optimizer.grad_rms)?;
        let settings = adam::Settings {
            lr: lr as f32,
            beta1: self.optimizer.beta1 as f32,
            beta2: self.optimizer.beta2 as f32,
            eps: self.optimizer.eps as f32,
            step: step + 1,
            decay: 0.0,
        };
        let (at, decay) = ((step, steps), (self.optimizer.weight_decay * lr) as f32);
        // Freed first, so that the next forms can use the same memory.
        self.compressed.clear();
        // A CPU does all that is done to a matrix while it is in the caches, a GPU one thing after the
        // other, each to all matrices in few launches.
        let at_once = if self.model.device.is_cpu() { 1 } else { gradients.len().max(1) };
        let mut gradients = gradients.into_iter();
        let parameters = self.model.parameters.as_mut_slice().chunks_mut(at_once);
        for (parameters, moments) in parameters.zip(self.moments.chunks_mut(at_once)) {
            for ((p, moments), gradient) in parameters.iter_mut().zip(moments).zip(&mut gradients) {
                if let (Some(AdamMoments { m, v }), Some(gradient)) = (moments, gradient) {
                    adam::apply(p.dense_mut()?, &gradient, m, v, Some(&factor), &settings)?;
                }
            }
            apply_rules(parameters, &self.schedule, at, decay)?;
            self.compressed.extend(sparsity::compress(parameters, &self.schedule, at, self.use_compressed)?);
        }
        self.step += 1;
        self.tell_products(at);
        Ok(StepRecord {
            step,
            losses,
            factor,
            square_sums,
            lr,
            density: self.schedule.density(step, steps),
            embed_density: self.schedule.embed_density(step, steps),
        })
    }

    /// Losses of the batches, and the average over all ranks of their gradients for every trained
    /// parameter. Finished gradients of the last batch are sent while its backward pass computes
    /// further ones.
    fn gradients(
        &self,
        batches: &[Batch],
        sites: &mut dyn Hooks,
        observer: &Observer,
    ) -> Result<(Vec<Tensor>, Vec<Option<Tensor>>)> {
        if batches.len() != self.optimizer.accumulate {
            let message = format!("{} batches for accumulate = {}", batches.len(), self.optimizer.accumulate);
            return Err(Error::shape("step", message));
        }
        let device = &self.model.device;
        let mut total: Vec<Option<Tensor>> = (0..self.model.parameters.len()).map(|_| None).collect();
        let mut losses = Vec::with_capacity(batches.len());
        let mut buckets = Buckets::new(&self.communicator);
        for (i, batch) in batches.iter().enumerate() {
            let mut tape = Tape::new();
            let weights = Weights::new(&self.model, &mut tape, |kind| self.trains(kind), &self.compressed);
            let LossOutput { loss, logits, .. } = self.model.forward_loss(&mut tape, &weights, batch, sites)?;
            drop(logits);
            losses.push(loss.value().clone());
            tape.backward_to(&loss, self.seed.clone(), weights.vars(), |slot, gradient| {
                observer.check()?;
                let gradient = match (gradient, self.model.parameters.iter().nth(slot)) {
                    (None, Some(p)) => Some(device.zeros(&p.name, &p.shape)?),
                    (gradient, _) => gradient,
                };
                match (&mut total[slot], gradient) {
                    (Some(sum), Some(gradient)) => add::accumulate(sum, &gradient)?,
                    (sum, gradient) => *sum = gradient,
                }
                match &total[slot] {
                    Some(sum) if i + 1 == batches.len() => buckets.give(slot, sum),
                    _ => Ok(()),
                }
            })?;
        }
        buckets.finish(&mut total)?;
        Ok((losses, total))
    }

    /// Reads a record back, waiting for the device.
    ///
    /// # Errors
    /// [`Error::NonFinite`] naming the step and either `loss` or the first parameter whose gradient
    /// went wrong.
    pub fn numbers(&self, record: &StepRecord) -> Result<StepNumbers> {
        let mut loss = 0.0;
        for tensor in &record.losses {
            loss += f64::from(first(tensor)?) / record.losses.len() as f64;
        }
        let bad = |tensor: &str, value: f32| Error::NonFinite { step: record.step, tensor: tensor.into(), value };
        if !loss.is_finite() {
            return Err(bad("loss", loss as f32));
        }
        let factor = record.factor.read()?;
        let grad_rms = factor.get(1).copied().unwrap_or(f32::NAN);
        if !grad_rms.is_finite() {
            let names = self.model.parameters.iter().filter(|p| self.trains(p.kind)).map(|p| &p.name);
            for (name, sum) in names.zip(record.square_sums.read()?) {
                if !sum.is_finite() {
                    return Err(bad(&format!("the gradient of {name}"), sum));
                }
            }
            return Err(bad("the gradient's root-mean-square", grad_rms));
        }
        Ok(StepNumbers {
            step: record.step,
            loss,
            grad_rms: grad_rms.into(),
            lr: record.lr,
            density: record.density,
            embed_density: record.embed_density,
        })
    }
}

fn first(tensor: &Tensor) -> Result<f32> {
    tensor.read()?.first().copied().ok_or_else(|| Error::shape("loss", "no number"))
}
