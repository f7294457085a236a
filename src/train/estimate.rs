//! What a run will need, before it starts.

use super::communicator::Communicator;
use super::config::{OptimizerConfig, RunConfig};
use super::memory::{host_available, human_bytes};
use super::step::{Trainer, trains};
use crate::device::Device;
use crate::model::{Batch, Model, ModelConfig, Parameters};
use crate::ops::sparse_linear;
use crate::sparsity::{Schedule, keep_counts};
use crate::{Error, Result};

/// Counts and bytes of a run.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// Parameters.
    pub parameters: u64,
    /// Parameters that are not zero once the target density is reached.
    pub nonzeros: u64,
    /// Bytes on the device for weights, gradients, Adam's two moments, and the weights' nonzeros
    /// once products use them.
    pub state_bytes: u64,
    /// Bytes on the device for all else: the sequences, and one micro-batch's activations and
    /// logits with their gradients.
    pub activation_bytes: u64,
    /// Further bytes on the host: for the next checkpoint, and a step's sequences.
    pub host_bytes: u64,
    /// Processes on this machine that need as much each.
    pub on_host: u64,
    /// Numbers in all gradients of a step.
    pub(crate) gradients: u64,
    largest: Largest,
}

/// The largest tensor of a run.
#[derive(Clone, Debug)]
struct Largest {
    name: String,
    bytes: u64,
    /// The settings that make it smaller.
    lower: String,
}

/// The settings that make a parameter smaller.
fn shrinks(name: &str) -> &'static str {
    match name.rsplit('.').nth(1).unwrap_or(name) {
        "wte" | "lm_head" => "model.vocab_size or model.d_model",
        "wpe" => "model.block_size, model.d_model or model.d_pos_emb",
        "c_attn" => "model.n_head, model.d_head or model.d_model",
        "c_proj" if name.contains(".attn.") => "model.n_head, model.d_head or model.d_model",
        "c_fc" | "c_proj" => "model.d_mlp or model.d_model",
        _ if name == "bigram_table" => "model.vocab_size, or set model.enable_bigram_table to false",
        _ => "model.vocab_size, model.d_model or model.d_mlp",
    }
}

/// The settings that make what is computed of every token smaller, and one more.
fn fewer_tokens(or: &str) -> String {
    format!("train.batch_size (raise train.accumulate instead), model.block_size or {or}")
}

impl Estimate {
    /// How many parameters a model has.
    pub(crate) fn parameters_of(config: &ModelConfig) -> u64 {
        Parameters::shapes(config).iter().fold(0, |sum, (_, _, shape)| sum.saturating_add(size(shape)))
    }

    /// How many of them are trained.
    fn gradients_of(config: &RunConfig) -> u64 {
        let shapes = Parameters::shapes(&config.model);
        let trained = shapes.iter().filter(|(_, kind, _)| trains(&config.model, &config.train, *kind));
        trained.fold(0, |sum, (_, _, shape)| sum.saturating_add(size(shape)))
    }

    /// Remembers a tensor, if it is the largest of the run; the settings `lower` make it smaller.
    pub(crate) fn see_tensor(&mut self, name: String, bytes: u64, lower: &str) {
        if bytes > self.largest.bytes {
            self.largest = Largest { name, bytes, lower: lower.into() };
        }
    }

    /// Estimates a run on `device`, by going through the allocations of its first steps; a run with
    /// tensors that no machine can hold roughly.
    ///
    /// # Errors
    /// Those of [`Model::new`], [`Trainer::new`] and [`Trainer::step`] but for the device's limits.
    pub fn new(config: &RunConfig, device: &Device) -> Result<Self> {
        let shapes = Parameters::shapes(&config.model);
        let sum = |counts: &mut dyn Iterator<Item = u64>| counts.fold(0, u64::saturating_add);
        let parameters = Self::parameters_of(&config.model);
        let nonzeros = sum(&mut keep_counts(&shapes, &config.sparsity).iter().map(|&k| k as u64));
        let m = &config.model;
        let tokens = (config.train.batch_size as u64).saturating_mul(m.block_size as u64);
        // In bytes and saturating, since settings beyond any machine must be refused, not wrapped
        // around.
        let bytes = |numbers: u64, each: u64| numbers.saturating_mul(each);
        let DeviceBytes { state, total } = needed(config, device.is_cpu())?;
        let mut estimate = Self {
            parameters,
            nonzeros,
            state_bytes: state,
            activation_bytes: total.saturating_sub(state),
            host_bytes: bytes(parameters, 8).saturating_add(bytes(config.tokens_per_step(), 8)),
            on_host: 1,
            gradients: Self::gradients_of(config),
            largest: Largest { name: String::new(), bytes: 0, lower: String::new() },
        };
        for (what, width, or) in [
            ("logits", m.vocab_size, "model.vocab_size"),
            ("the MLP's neurons", m.mlp_width(), "model.d_mlp"),
            ("queries, keys and values", 3 * m.attention_width(), "model.n_head or model.d_head"),
            ("a sublayer's input", m.input_width(), "model.d_model"),
        ] {
            let needed = bytes(bytes(tokens, width as u64), 4);
            estimate.see_tensor(format!("{what} ({tokens} tokens)"), needed, &fewer_tokens(or));
        }
        for (name, _, shape) in &shapes {
            estimate.see_tensor(name.clone(), bytes(size(shape), 4), shrinks(name));
        }
        Ok(estimate)
    }

    /// What each of `ranks` needs, if this is what its share of the batch needs: gradients travel
    /// by way of the host.
    pub(crate) fn on_each_of(mut self, communicator: &Communicator) -> Result<Self> {
        if communicator.size() > 1 {
            self.on_host = communicator.topology()?.local_size as u64;
            // As sent and as received.
            self.host_bytes = self.host_bytes.saturating_add(self.gradients.saturating_mul(8));
        }
        Ok(self)
    }

    /// Bytes on the device.
    pub fn device_bytes(&self) -> u64 {
        self.state_bytes.saturating_add(self.activation_bytes)
    }

    /// Returns an error that names the settings to lower if the run cannot fit.
    ///
    /// # Errors
    /// [`Error::Memory`] or [`Error::Limit`].
    pub fn check(&self, device: &Device) -> Result<()> {
        if let Some(limit) = device.largest_tensor().filter(|&limit| self.largest.bytes > limit) {
            return Err(Error::Limit {
                tensor: self.largest.name.clone(),
                needed: self.largest.bytes,
                limit: format!("{} binds at most {limit}; lower {}", device.describe(), self.largest.lower),
            });
        }
        let needed =
            if device.is_cpu() { self.device_bytes().saturating_add(self.host_bytes) } else { self.host_bytes };
        let needed = needed.saturating_mul(self.on_host);
        match host_available() {
            Some(available) if needed > available => {
                let lower = match self.activation_bytes > self.state_bytes {
                    true => "train.batch_size (raise train.accumulate instead) or model.block_size",
                    false => "model.d_model, model.n_layer or model.d_mlp",
                };
                let ranks = match self.on_host {
                    1 => String::new(),
                    n => format!(" for {n} ranks on this machine"),
                };
                Err(Error::Memory(format!(
                    "the run needs about {} of memory{ranks} and {} are available; lower {lower}",
                    human_bytes(needed),
                    human_bytes(available)
                )))
            }
            _ => Ok(()),
        }
    }
}

/// Bytes on a device.
#[derive(Clone, Copy)]
pub(crate) struct DeviceBytes {
    /// What lasts from step to step.
    pub(crate) state: u64,
    /// In all.
    pub(crate) total: u64,
}

impl DeviceBytes {
    /// For a run with tensors that no machine can hold: roughly, so that the larger part is known.
    fn beyond_any_machine(config: &RunConfig) -> Self {
        let m = &config.model;
        let sublayers = [m.input_width(), m.attention_width(), m.mlp_width()];
        let layer = sublayers.iter().fold(0, |sum: u64, &width| sum.saturating_add(4 * width as u64));
        let token = layer.saturating_mul(m.n_layer as u64).saturating_add(m.vocab_size as u64).saturating_mul(4);
        let tokens = (config.train.batch_size as u64).saturating_mul(m.block_size as u64);
        let state = Estimate::parameters_of(m).saturating_mul(16);
        Self { state, total: tokens.saturating_mul(token).saturating_add(state) }
    }
}

/// What a rehearsal found. Only a tensor that no machine or no sparse matrix can hold means that a
/// run cannot be rehearsed.
pub(crate) fn or_roughly(rehearsed: Result<DeviceBytes>, config: &RunConfig) -> Result<DeviceBytes> {
    match rehearsed {
        Err(Error::Limit { .. }) => Ok(DeviceBytes::beyond_any_machine(config)),
        other => other,
    }
}

/// Micro-batches of a step after which another one allocates nothing new.
const MICRO_BATCHES: usize = 2;

/// Most tokens of a micro-batch that an estimate runs with: further tokens add in proportion.
const MAX_TOKENS: usize = 1 << 20;

/// What training on one device allocates: `prepare` makes what trains on a meta device, `trainer`
/// gives its trainer, and `step` does a step. It runs with dense weights first, then at the
/// densities at which sparse ones come to be used.
pub(crate) fn rehearse<T>(
    config: &RunConfig,
    cpu: bool,
    prepare: impl FnOnce(&RunConfig, &Device, Trainer) -> Result<T>,
    trainer: impl Fn(&mut T) -> &mut Trainer,
    step: impl Fn(&mut T, &[Vec<u32>]) -> Result<()>,
) -> Result<DeviceBytes> {
    let mut config = config.clone();
    let (device, batch_size, accumulate) = (Device::meta(cpu), config.train.batch_size, config.train.accumulate.max(1));
    config.train.batch_size = batch_size.min((MAX_TOKENS / config.model.block_size.max(1)).max(1));
    config.train.accumulate = accumulate.min(MICRO_BATCHES);
    let model = Model::new(config.model.clone(), 0, &device)?;
    let optimizer = OptimizerConfig { steps: 1, ..config.train.clone() };
    let mut trained = prepare(&config, &device, Trainer::new(model, optimizer, config.sparsity.clone())?)?;
    let gradients = Estimate::gradients_of(&config).saturating_mul(4);
    let mut state = device.allocated().saturating_add(gradients);
    let batch = vec![0; config.train.batch_size * config.model.block_size];
    let others = batch.len().saturating_mul(6).saturating_mul(accumulate - config.train.accumulate);
    let others = device.empty::<u32>("batches", &[others])?;
    let batches = vec![batch; config.train.accumulate];
    let mut nonzeros = 0;
    for at in telling_steps(&config, cpu) {
        trainer(&mut trained).schedule = Schedule {
            target_density: config.sparsity.density(at, config.train.steps),
            embed_target_density: config.sparsity.embed_density(at, config.train.steps),
            anneal_start_frac: 0.0,
            anneal_stop_frac: 0.0,
            ..config.sparsity.clone()
        };
        step(&mut trained, &batches)?;
        let sparse = trainer(&mut trained).compressed().iter().flatten().map(|matrix| matrix.bytes()).sum();
        nonzeros = u64::max(nonzeros, sparse);
    }
    drop((trained, others));
    state = state.saturating_add(nonzeros).min(device.allocated());
    // Activations are in proportion to the batch.
    let activations = u128::from(device.allocated() - state) * batch_size as u128 / config.train.batch_size as u128;
    Ok(DeviceBytes { state, total: state.saturating_add(u64::try_from(activations).unwrap_or(u64::MAX)) })
}

/// The steps at which products begin to use sparse matrices, between the first and the last one.
fn telling_steps(config: &RunConfig, cpu: bool) -> Vec<u64> {
    let (schedule, steps) = (&config.sparsity, config.train.steps);
    let first = |density: &dyn Fn(u64) -> f64, threshold: f64| {
        let (mut low, mut high) = (0, steps);
        while low < high {
            let middle = low + (high - low) / 2;
            if density(middle) > threshold { low = middle + 1 } else { high = middle }
        }
        low
    };
    let [all, after_topk] = sparse_linear::sparse_densities(cpu);
    let mut at = vec![0];
    at.extend([all, after_topk].map(|threshold| first(&|step| schedule.density(step, steps), threshold)));
    at.push(first(&|step| schedule.embed_density(step, steps), all));
    at.sort_unstable();
    at.push(steps);
    at
}

/// What training a model allocates.
fn needed(config: &RunConfig, cpu: bool) -> Result<DeviceBytes> {
    let step = |trainer: &mut Trainer, batches: &[Vec<u32>]| {
        let (device, model) = (&trainer.model.device, &trainer.model.config);
        let batches = batches.iter().map(|tokens| Batch::new(device, model, tokens, trainer.optimizer.batch_size));
        trainer.step(&batches.collect::<Result<Vec<_>>>()?).map(drop)
    };
    or_roughly(rehearse(config, cpu, |_, _, trainer| Ok(trainer), |trainer| trainer, step), config)
}

/// How many numbers a tensor of `shape` has.
fn size(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |product: u64, &d| product.saturating_mul(d as u64))
}
