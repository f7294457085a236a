//! What a run will need, before it starts.

use super::communicator::Communicator;
use super::config::RunConfig;
use super::memory::{host_available, human_bytes};
use super::plan::{Memory, Plan, Tape, Weights, batch};
use super::step::trains;
use crate::device::Device;
use crate::model::{ModelConfig, Parameters};
use crate::sparsity::keep_counts;
use crate::{Error, Result};

/// Counts and bytes of a run.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// Parameters.
    pub parameters: u64,
    /// Parameters that are not zero once the target density is reached.
    pub nonzeros: u64,
    /// Bytes on the device for weights, gradients, Adam's two moments, and the weights' nonzeros once products use them.
    pub state_bytes: u64,
    /// Bytes on the device for all else: the sequences, and one micro-batch's activations and logits with their gradients.
    pub activation_bytes: u64,
    /// Bytes on the host beside that: a checkpoint on its way to the disk, and a step's sequences.
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

    /// Estimates a run on the CPU device, by going through the allocations of its first steps.
    pub fn new(config: &RunConfig) -> Self {
        Self::of(config, true)
    }

    /// As [`Estimate::new`], for a run on `device`.
    pub fn on(config: &RunConfig, device: &Device) -> Self {
        Self::of(config, device.is_cpu())
    }

    pub(crate) fn of(config: &RunConfig, cpu: bool) -> Self {
        let shapes = Parameters::shapes(&config.model);
        let sum = |counts: &mut dyn Iterator<Item = u64>| counts.fold(0, u64::saturating_add);
        let parameters = Self::parameters_of(&config.model);
        let nonzeros = sum(&mut keep_counts(&shapes, &config.sparsity).iter().map(|&k| k as u64));
        let m = &config.model;
        let tokens = (config.train.batch_size * m.block_size) as u64;
        // In bytes and saturating, since settings beyond any machine must be refused, not wrapped around.
        let bytes = |numbers: u64, each: u64| numbers.saturating_mul(each);
        let Needed { state_bytes, device_bytes } = needed(config, cpu);
        let mut estimate = Self {
            parameters,
            nonzeros,
            state_bytes,
            activation_bytes: device_bytes.saturating_sub(state_bytes),
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
        estimate
    }

    /// What each of `ranks` needs, if this is what its share of the batch needs: gradients travel by way of the host.
    ///
    /// # Errors
    /// [`Error::Communication`].
    pub fn on_each_of(mut self, communicator: &Communicator) -> Result<Self> {
        if communicator.size() > 1 {
            self.on_host = communicator.topology()?.on_host as u64;
            // As sent and as received.
            self.host_bytes = self.host_bytes.saturating_add(self.gradients.saturating_mul(8));
        }
        Ok(self)
    }

    /// Bytes on the device.
    pub fn device_bytes(&self) -> u64 {
        self.state_bytes.saturating_add(self.activation_bytes)
    }

    /// Complains if the run cannot fit, naming the settings to lower.
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
pub(crate) struct Needed {
    /// What lasts from step to step.
    pub(crate) state_bytes: u64,
    /// In all.
    pub(crate) device_bytes: u64,
}

/// Micro-batches and steps after which nothing new is allocated.
pub(crate) const MICRO_BATCHES: usize = 2;

/// Goes through the allocations of [`super::step::Trainer`]: a step with dense weights and, once these are thin enough, one with lists.
fn needed(config: &RunConfig, cpu: bool) -> Needed {
    let (model, train) = (&config.model, &config.train);
    let memory = Memory::new(cpu);
    let weights = Weights::new(&memory, model);
    let trained = |kind| trains(model, train, kind);
    let sizes = weights.trained(trained);
    let moments: Vec<_> = sizes.iter().flat_map(|&len| [memory.floats(len), memory.floats(len)]).collect();
    let state =
        memory.bytes().saturating_add(sizes.iter().fold(0u64, |sum, len| sum.saturating_add(len.saturating_mul(4))));
    let tokens = (train.batch_size as u64).saturating_mul(model.block_size as u64);
    let (mut lists, mut list_bytes) = (Vec::new(), 0);
    for _ in 0..2 {
        let accumulate = train.accumulate.max(1);
        let batches: Vec<_> = (0..accumulate.min(MICRO_BATCHES)).map(|_| batch(&memory, model, tokens)).collect();
        let words = batches[0].iter().fold(0u64, |sum, words| sum.saturating_add(words.len()));
        let others = memory.words(words.saturating_mul(accumulate.saturating_sub(batches.len()) as u64));
        let mut gradients: Vec<_> = weights.iter().map(|_| None).collect();
        for _ in &batches {
            let mut tape = Tape::new(&memory);
            let vars = weights.vars(&mut tape, trained);
            let Some(logits) = Plan::new(model, &weights, &vars, tokens).logits(&mut tape) else { break };
            let loss = tape.cross_entropy(&logits, tokens);
            drop(logits);
            let seed = memory.floats(1);
            tape.backward_to(&loss, seed, &vars, |slot, gradient| {
                gradients[slot].get_or_insert(gradient);
            });
        }
        drop((gradients, batches, others));
        lists.clear();
        let before = memory.bytes();
        lists = weights.lists(&memory, model, &config.sparsity);
        list_bytes = memory.bytes().saturating_sub(before).max(list_bytes);
    }
    drop((moments, lists));
    Needed { state_bytes: state.saturating_add(list_bytes).min(memory.bytes()), device_bytes: memory.bytes() }
}

/// How many numbers a tensor of `shape` has.
fn size(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |product: u64, &d| product.saturating_mul(d as u64))
}
