//! What training bridges needs, before it starts.

use crate::device::Device;
use crate::model::ModelConfig;
use crate::train::bridge_loss::{Inputs, allocate};
use crate::train::config::RunConfig;
use crate::train::estimate::{Estimate, MICRO_BATCHES};
use crate::train::plan::{Memory, Plan, Tape, Tensor, Var, Weights, batch};
use crate::train::step::trains;

/// Estimates a run on the CPU device that trains a sparse model together with bridges to a dense one, as [`Estimate::new`] does.
pub fn estimate(config: &RunConfig, dense: &ModelConfig) -> Estimate {
    estimate_for(config, dense, true)
}

/// As [`estimate()`], for a run on `device`.
pub fn estimate_on(config: &RunConfig, dense: &ModelConfig, device: &Device) -> Estimate {
    estimate_for(config, dense, device.is_cpu())
}

fn estimate_for(config: &RunConfig, dense: &ModelConfig, cpu: bool) -> Estimate {
    let sparse = &config.model;
    let number = |n: usize| n as u64;
    let times = |a: u64, b: u64| a.saturating_mul(b);
    let sites = number(sparse.residual_sites());
    let maps = times(sites, times(2 * number(dense.d_model), number(sparse.d_model)))
        .saturating_add(times(sites, number(dense.d_model + sparse.d_model)));
    let tokens = number(config.train.batch_size.saturating_mul(sparse.block_size));
    let mut estimate = Estimate::of(config, cpu);
    // Weights, gradients and two moments of the bridges, the frozen weights, and the sparse model's gradients once more.
    let state = times(maps, 16)
        .saturating_add(times(Estimate::parameters_of(dense), 4))
        .saturating_add(times(estimate.gradients, 4));
    let device_bytes = needed(config, dense, cpu);
    estimate.state_bytes = estimate.state_bytes.saturating_add(state).min(device_bytes);
    estimate.activation_bytes = device_bytes.saturating_sub(estimate.state_bytes);
    estimate.gradients = estimate.gradients.saturating_add(maps);
    estimate.host_bytes = estimate.host_bytes.saturating_add(times(maps, 12));
    let logits = times(times(tokens, sites), times(number(sparse.vocab_size), 4));
    // Layers and vocabulary are the dense model's.
    let lower = "train.batch_size (raise train.accumulate instead) or model.block_size";
    estimate.see_tensor(format!("logits of {sites} hybrids ({tokens} tokens)"), logits, lower);
    estimate
}

/// What is frozen, and what is trained, of a pair.
struct Pair<'a> {
    config: &'a RunConfig,
    dense: &'a ModelConfig,
    memory: Memory,
    tokens: u64,
    dense_weights: Weights,
    sparse_weights: Weights,
    /// Of each site weight and bias of the encoder, then of the decoder.
    maps: Vec<Tensor>,
}

/// Goes through the allocations of [`super::BridgeTrainer`].
fn needed(config: &RunConfig, dense: &ModelConfig, cpu: bool) -> u64 {
    let (sparse, memory) = (&config.model, Memory::new(cpu));
    let (d, s) = (dense.d_model as u64, sparse.d_model as u64);
    let sizes = [d.saturating_mul(s), s, s.saturating_mul(d), d];
    let pair = Pair {
        config,
        dense,
        tokens: (config.train.batch_size as u64).saturating_mul(sparse.block_size as u64),
        dense_weights: Weights::new(&memory, dense),
        sparse_weights: Weights::new(&memory, sparse),
        maps: (0..sparse.residual_sites()).flat_map(|_| sizes.map(|len| memory.floats(len))).collect(),
        memory: memory.clone(),
    };
    let trained = pair.sparse_weights.trained(|kind| trains(sparse, &config.train, kind));
    let moments: Vec<_> = trained
        .into_iter()
        .chain(pair.maps.iter().map(|map| map.len()))
        .flat_map(|len| [memory.floats(len), memory.floats(len)])
        .collect();
    let mut lists = Vec::new();
    for _ in 0..2 {
        let mut total = None;
        for _ in 0..config.train.accumulate.clamp(1, MICRO_BATCHES) {
            let gradients = pair.gradients();
            total.get_or_insert(gradients);
        }
        drop(total);
        lists.clear();
        lists = pair.sparse_weights.lists(&memory, sparse, &config.sparsity);
    }
    drop((lists, moments));
    memory.bytes()
}

impl Pair<'_> {
    /// The allocations of [`super::Objective::gradients`].
    fn gradients(&self) -> Option<Vec<Tensor>> {
        let (sparse, memory, tokens) = (&self.config.model, &self.memory, self.tokens);
        let (kl_top, detach_target) =
            self.config.bridge.as_ref().map_or((None, true), |bridge| (bridge.kl_top, bridge.detach_target));
        let trained = |kind| trains(sparse, &self.config.train, kind);
        let batches = [self.dense, sparse].map(|model| batch(memory, model, tokens));
        let mut dense_tape = Tape::new(memory);
        let frozen = self.dense_weights.vars(&mut dense_tape, |_| false);
        let mut plan = Plan::new(self.dense, &self.dense_weights, &frozen, tokens);
        let (dense_sites, dense_logits) = plan.run(&mut dense_tape)?;
        let target = &match kl_top {
            Some(_) => {
                let len = dense_logits.tensor.len();
                let [_probability, y, _kept] = [len; 3].map(|len| memory.floats(len));
                y
            }
            None => dense_logits.tensor.clone(),
        };

        let mut tape = Tape::new(memory);
        let vars = self.sparse_weights.vars(&mut tape, trained);
        let maps: Vec<_> = self.maps.iter().map(|map| tape.leaf(map)).collect();
        let (sites, logits) = Plan::new(sparse, &self.sparse_weights, &vars, tokens).run(&mut tape)?;
        let mut seeds = allocate(&mut tape, memory, tokens, &Inputs::Model { logits: &logits });
        drop(logits);
        let streams: Vec<_> = self.map(&mut tape, &dense_sites, &maps, &sites, 0);
        let streams: Vec<_> = streams.iter().map(|x| tape.abs_topk(x, sparse.d_model as u64)).collect();
        let constants: Vec<_> = sites.iter().map(|site| Var::constant(site.tensor.clone())).collect();
        let targets = if detach_target { &constants } else { &sites };
        seeds.extend(allocate(&mut tape, memory, tokens, &Inputs::Encoder { streams: &streams, targets }));

        let (mut hybrid_tape, hybrid_vars) = self.sparse_hybrids(streams, target, &mut seeds)?;

        let streams = self.map(&mut tape, &sites, &maps, &dense_sites, 2);
        seeds.extend(allocate(
            &mut tape,
            memory,
            tokens,
            &Inputs::Decoder { streams: &streams, targets: &dense_sites },
        ));
        let logits = hybrids(Plan::new(self.dense, &self.dense_weights, &frozen, tokens), &mut tape, streams)?;
        seeds.extend(allocate(&mut tape, memory, tokens, &Inputs::DenseHybrid { logits: &logits, target }));
        drop((logits, sites, constants));
        tape.backward_from(seeds);

        let mut all = Vec::new();
        for (var, hybrid) in vars.iter().zip(&hybrid_vars) {
            match (tape.take_gradient(var), hybrid_tape.take_gradient(hybrid)) {
                (Some(a), Some(_b)) => all.push(memory.floats(a.len())),
                (one, other) => all.extend(one.or(other)),
            }
        }
        all.extend(maps.iter().filter_map(|map| tape.take_gradient(map)));
        drop(batches);
        Some(all)
    }

    /// Encoders (the first map of a site is 0) or decoders (2) at every site.
    fn map(&self, tape: &mut Tape, from: &[Var], maps: &[Var], to: &[Var], first: usize) -> Vec<Var> {
        let sites = from.iter().zip(to).zip(maps.chunks(4));
        sites.map(|((h, to), map)| tape.linear(h, &map[first], Some(&map[first + 1]), to.tensor.len())).collect()
    }

    /// The sparse hybrids forward and backward. The gradients of `streams` are added to `seeds`.
    fn sparse_hybrids(
        &self,
        streams: Vec<Var>,
        target: &Tensor,
        seeds: &mut Vec<(Var, Tensor)>,
    ) -> Option<(Tape, Vec<Var>)> {
        let sparse = &self.config.model;
        let mut tape = Tape::new(&self.memory);
        let vars = self.sparse_weights.vars(&mut tape, |kind| trains(sparse, &self.config.train, kind));
        let entries: Vec<_> = streams.iter().map(|stream| tape.leaf(&stream.tensor)).collect();
        let plan = Plan::new(sparse, &self.sparse_weights, &vars, self.tokens);
        let logits = hybrids(plan, &mut tape, entries.clone())?;
        let of_terms =
            allocate(&mut tape, &self.memory, self.tokens, &Inputs::SparseHybrid { logits: &logits, target });
        drop(logits);
        tape.backward_from(of_terms);
        let gradients = streams.into_iter().zip(&entries);
        seeds.extend(gradients.filter_map(|(stream, entry)| Some((stream, tape.take_gradient(entry)?))));
        Some((tape, vars))
    }
}

/// The logits of a model continued from each of `entries`, one for each site.
fn hybrids(mut plan: Plan, tape: &mut Tape, entries: Vec<Var>) -> Option<Var> {
    let mut entered: Option<Var> = None;
    for (site, entry) in entries.into_iter().enumerate() {
        entered = Some(match entered {
            None => entry,
            Some(earlier) => {
                let arrived = plan.sublayer(tape, site - 1, earlier)?;
                tape.join(&[&arrived, &entry])
            }
        });
    }
    plan.unembed(tape, entered?)
}
