//! Training: the sparse model by its own recipe (method: section 2), the bridges by Adam, both
//! along the gradients of one objective.

use std::path::Path;

use super::file::{BridgeFile, load_moments, save_moments};
use super::maps::check_fit;
use super::{BridgeGradients, Bridges, Objective};
use crate::device::Tensor;
use crate::model::{Model, ModelConfig, Weights};
use crate::observer::Observer;
use crate::ops::{adam, add};
use crate::sparsity::{self, Sharkfin};
use crate::train::bridge::BridgeConfig;
use crate::train::bridge_loss::Terms;
use crate::train::communicator::buckets;
use crate::train::run::Trainable;
use crate::train::step::{AdamMoments, StepNumbers, StepRecord, Trainer};
use crate::{Error, Result};

/// A sparse model in training together with its bridges to a frozen dense one.
pub struct BridgeTrainer {
    /// The sparse model, with the step count and the settings of the run.
    pub sparse: Trainer,
    /// The dense model.
    pub dense: Model,
    /// The bridges.
    pub bridges: Bridges,
    settings: BridgeConfig,
    moments: Vec<AdamMoments>,
    dense_hash: String,
}

/// What one step leaves to be read back when convenient.
pub struct BridgeStepRecord {
    step: StepRecord,
    /// Of each micro-batch.
    terms: Vec<Terms<Tensor>>,
}

impl BridgeTrainer {
    /// Training of new bridges between `dense` and the model of `sparse`, from the seed alone; or
    /// of those in `checkpoint`, from where it left them.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the models do not fit together, [`Error::Config`] for impossible
    /// settings, the device's limits; of a checkpoint, [`Error::Io`] and [`Error::File`] naming
    /// what is missing, damaged, or belongs to other models.
    pub fn new(
        sparse: Trainer,
        dense: Model,
        settings: BridgeConfig,
        seed: u64,
        checkpoint: Option<&Path>,
    ) -> Result<Self> {
        settings.validate()?;
        Self::fits(&dense.config, &sparse.model.config)?;
        let dense_hash = dense.hash()?;
        let Some(folder) = checkpoint else { return Self::start(sparse, dense, settings, seed, dense_hash) };
        let file = BridgeFile::load(folder)?;
        let bridges = file.open(folder, (&dense, dense_hash.as_str()), &sparse.model)?;
        let moments = load_moments(folder, &bridges)?;
        Ok(Self { sparse, dense, bridges, settings, moments, dense_hash })
    }

    /// Training of new bridges.
    pub(super) fn start(
        sparse: Trainer,
        dense: Model,
        settings: BridgeConfig,
        seed: u64,
        dense_hash: String,
    ) -> Result<Self> {
        let (device, encoder, afrac) = (&sparse.model.device, settings.encoder, settings.encoder_afrac);
        let bridges = Bridges::new(&dense.config, &sparse.model.config, encoder, afrac, seed, device)?;
        let zeros = |map: &super::BridgeTensor| {
            let zeros = |which: &str| device.zeros(&format!("{which}.{}", map.name), map.value.shape());
            Ok(AdamMoments { m: zeros("m")?, v: zeros("v")? })
        };
        let moments = bridges.list.iter().map(zeros).collect::<Result<_>>()?;
        Ok(Self { sparse, dense, bridges, settings, moments, dense_hash })
    }

    pub(super) fn sparse_mut(&mut self) -> &mut Trainer {
        &mut self.sparse
    }

    /// Returns an error for models between which no bridges can be trained.
    pub(crate) fn fits(dense: &ModelConfig, sparse: &ModelConfig) -> Result<()> {
        check_fit(dense, sparse)?;
        match sparse.block_size > dense.block_size {
            true => Err(Error::config(
                "model.block_size",
                format!("is {}, but the dense model reads {} tokens at most", sparse.block_size, dense.block_size),
            )),
            false => Ok(()),
        }
    }

    /// The terms of each micro-batch, and the average of the gradients over all ranks.
    fn gradients(&self, batches: &[Vec<u32>], observer: Observer) -> Result<(Vec<Terms<Tensor>>, BridgeGradients)> {
        let (step, optimizer, settings) = (self.sparse.steps_done(), &self.sparse.optimizer, &self.settings);
        let dense_weights = Weights::constant(&self.dense, &[]);
        let objective = Objective {
            dense: &self.dense,
            dense_weights: &dense_weights,
            sparse: &self.sparse.model,
            compressed: self.sparse.compressed(),
            bridges: &self.bridges,
            coefficients: settings.coefficients_at(step, optimizer.steps),
            detach_target: settings.detach_target,
            kl_top: settings.kl_top,
            kl_top_renormalize: settings.kl_top_renormalize,
            sharpness: settings.sharpness_at(step, optimizer.steps),
            observer,
        };
        let share = self.sparse.share();
        let (mut terms, mut total) = (Vec::with_capacity(batches.len()), None);
        for tokens in batches {
            let trained = |kind| self.sparse.trains(kind);
            let (losses, gradients) = objective.gradients(tokens, optimizer.batch_size, share, &trained)?;
            terms.push(losses);
            if let Some(total) = &mut total { sum(total, gradients)? } else { total = Some(gradients) }
        }
        let BridgeGradients { sparse, bridges } = total.ok_or_else(|| Error::shape("step", "no batches"))?;
        let of_sparse = sparse.len();
        let mut all: Vec<_> = sparse.into_iter().chain(bridges.into_iter().map(Some)).collect();
        buckets::sum(&self.sparse.communicator, &mut all)?;
        let bridges = all.split_off(of_sparse).into_iter().flatten().collect();
        Ok((terms, BridgeGradients { sparse: all, bridges }))
    }

    /// The bridges' learning rate at a step.
    fn lr_at(&self, step: u64) -> f64 {
        let optimizer = &self.sparse.optimizer;
        let warmup_frac = self.settings.warmup_frac.unwrap_or(optimizer.warmup_frac);
        let rate = Sharkfin { lr: self.settings.lr, warmup_frac, decay: optimizer.lr_decay, sharkfin: false };
        rate.at(step, optimizer.steps, &self.sparse.schedule)
    }

    /// Mean terms over the micro-batches, waiting for the device.
    fn terms(&self, record: &BridgeStepRecord) -> Result<Terms<f64>> {
        let mut mean = Terms::default();
        for losses in &record.terms {
            mean.add(&losses.read()?, 1.0 / record.terms.len() as f64);
        }
        for (name, terms) in mean.of_models().chain(mean.by_site()) {
            if let Some(site) = terms.iter().position(|term| !term.is_finite()) {
                let tensor = format!("{name}/{site}");
                return Err(Error::NonFinite { step: record.step.step, tensor, value: terms[site] as f32 });
            }
        }
        Ok(mean)
    }
}

/// `total += gradients`.
fn sum(total: &mut BridgeGradients, gradients: BridgeGradients) -> Result<()> {
    let pairs = total.sparse.iter_mut().flatten().zip(gradients.sparse.iter().flatten());
    pairs.chain(total.bridges.iter_mut().zip(&gradients.bridges)).try_for_each(|(sum, g)| add::accumulate(sum, g))
}

impl Trainable for BridgeTrainer {
    type Record = BridgeStepRecord;

    fn trainer(&self) -> &Trainer {
        &self.sparse
    }

    fn into_model(self) -> Model {
        self.sparse.model
    }

    fn step(&mut self, batches: &[Vec<u32>], observer: &Observer) -> Result<BridgeStepRecord> {
        let (terms, gradients) = self.gradients(batches, *observer)?;
        let (step, optimizer) = (self.sparse.steps_done(), &self.sparse.optimizer);
        let settings = adam::Settings {
            lr: self.lr_at(step) as f32,
            beta1: optimizer.beta1 as f32,
            beta2: optimizer.beta2 as f32,
            eps: self.settings.eps as f32,
            step: step + 1,
            decay: 0.0,
        };
        let losses = terms.iter().flat_map(|terms| terms.get("cross_entropy")).cloned().collect();
        let record = self.sparse.update(losses, gradients.sparse, sparsity::apply_topk_and_decay)?;
        for ((map, AdamMoments { m, v }), gradient) in
            self.bridges.list.iter_mut().zip(&mut self.moments).zip(&gradients.bridges)
        {
            adam::apply(&mut map.value, gradient, m, v, None, &settings)?;
        }
        Ok(BridgeStepRecord { step: record, terms })
    }

    fn numbers(&self, record: &BridgeStepRecord) -> Result<(StepNumbers, Vec<(String, f64)>)> {
        let numbers = self.sparse.numbers(&record.step)?;
        let (terms, step) = (self.terms(record)?, record.step.step);
        let coefficients = self.settings.coefficients_at(step, self.sparse.optimizer.steps);
        let mut more =
            vec![("objective".to_string(), terms.total(&coefficients)), ("bridge_lr".to_string(), self.lr_at(step))];
        more.extend(terms.of_models().flat_map(|(name, terms)| terms.iter().map(|&term| (name.to_string(), term))));
        for (name, terms) in terms.by_site() {
            more.extend(terms.iter().enumerate().map(|(site, &term)| (format!("{name}/{site}"), term)));
        }
        Ok((numbers, more))
    }

    fn step_record<'a>(&self, record: &'a BridgeStepRecord) -> &'a StepRecord {
        &record.step
    }

    fn hash(&self) -> Result<String> {
        Ok(format!("{} {} {}", self.sparse.model.hash()?, self.bridges.hash()?, self.dense_hash))
    }

    fn save(&self, folder: &Path) -> Result<()> {
        let file = BridgeFile::new(&self.settings, &self.dense_hash, &self.sparse.model)?;
        file.save(folder, &self.bridges)?;
        save_moments(folder, &self.bridges, &self.moments)
    }
}
