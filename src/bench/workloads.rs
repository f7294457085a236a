//! The pieces of work that devices are measured by, small ones of a kind before large ones.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Unit;
use crate::device::{Device, Tensor};
use crate::files::InMemory;
use crate::model::{Batch, Generator, Model, Parameters, Sampling, WeightFormat};
use crate::ops::weight_topk::{self, Neurons, Rule};
use crate::ops::{abs_topk, add, attention, compress, linear, sparse_linear};
use crate::sparsity;
use crate::train::config::RunConfig;
use crate::train::step::Trainer;
use crate::{Error, Result};

/// Does one run; the argument counts them.
type Job = Box<dyn FnMut(usize) -> Result<()>>;

/// Puts the inputs on a device.
type Prepare = Box<dyn FnOnce(&Device) -> Result<Job>>;

/// A piece of work, not prepared yet.
pub(super) struct Workload {
    /// Its kind.
    pub(super) name: &'static str,
    /// Its sizes.
    pub(super) shape: String,
    /// How much it is.
    pub(super) amount: f64,
    pub(super) unit: Unit,
    pub(super) prepare: Prepare,
}

fn workload<J: FnMut(usize) -> Result<()> + 'static>(
    name: &'static str,
    shape: String,
    amount: f64,
    unit: Unit,
    prepare: impl FnOnce(&Device) -> Result<J> + 'static,
) -> Workload {
    let prepare = Box::new(|device: &Device| prepare(device).map(|job| Box::new(job) as Job));
    Workload { name, shape, amount, unit, prepare }
}

/// Bytes of inputs to rotate through, more than the caches of most devices.
const ROTATED: usize = 96 << 20;

/// Rows, and width, of the products with sparse weights.
const ROWS: usize = 512;
const WIDTH: usize = 1024;

/// All of them, in the order of the report.
pub(super) fn all() -> Vec<Workload> {
    let mut list = vec![bandwidth()];
    list.extend([256, 512, 1024, 4096].map(matmul));
    list.extend([1, 4, 16, 64, 256].map(sparse));
    list.extend(
        [("dense", 1.0), ("a quarter of both factors", 0.25)].map(|(what, share)| weight_gradient(what, share)),
    );
    list.push(abs_topk());
    list.push(weight_topk());
    list.extend([attention(false), attention(true)]);
    // A small batch first: from its time that of the others is estimated.
    let steps = [("quickstart", Some(2)), ("quickstart", None), ("small", None)];
    list.extend(steps.map(|(preset, batch)| step("training step, dense", preset, batch, true)));
    list.extend(steps.map(|(preset, batch)| step("training step, sparse", preset, batch, false)));
    list.extend(["quickstart", "small"].map(generation));
    list
}

/// Numbers around 0, of which `share` are not zero.
fn numbers(device: &Device, seed: u64, shape: &[usize], share: f64) -> Result<Tensor> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut number = || if share >= 1.0 || rng.random_bool(share) { rng.random_range(-1.0..1.0f32) } else { 0.0 };
    let data: Vec<f32> = (0..shape.iter().product()).map(|_| number()).collect();
    device.upload("benchmark", shape, &data)
}

/// Copies of an input, enough to fill the caches.
fn rotated(device: &Device, shape: &[usize], share: f64) -> Result<Vec<Tensor>> {
    let bytes = 4 * shape.iter().product::<usize>();
    let copies = (ROTATED / bytes.max(1)).clamp(2, 24);
    (0..copies as u64).map(|seed| numbers(device, seed, shape, share)).collect()
}

fn bandwidth() -> Workload {
    const LENGTH: usize = 1 << 23;
    let (shape, amount) = (format!("sum of two × {LENGTH} numbers"), 12.0 * LENGTH as f64);
    workload("memory", shape, amount, Unit::Bytes, |device| {
        let inputs = rotated(device, &[LENGTH], 1.0)?;
        let job = move |round: usize| {
            add::forward(&inputs[round % inputs.len()], &inputs[(round + 1) % inputs.len()]).map(drop)
        };
        Ok(job)
    })
}

fn matmul(n: usize) -> Workload {
    let (shape, amount) = (format!("{n} × {n} × {n}"), 2.0 * (n as f64).powi(3));
    workload("matmul", shape, amount, Unit::Flops, move |device| {
        let (x, w) = (rotated(device, &[n, n], 1.0)?, numbers(device, 99, &[n, n], 1.0)?);
        Ok(move |round: usize| linear::forward(&x[round % x.len()], &w, None).map(drop))
    })
}

/// A weight of which one entry in `every` is not zero; 1: the dense product.
fn sparse(every: usize) -> Workload {
    let density = if every == 1 { "dense".to_string() } else { format!("1/{every}") };
    let name = if every == 1 { "linear, dense" } else { "linear, sparse weights" };
    let (shape, amount) = (format!("{ROWS} × {WIDTH} × {WIDTH}, {density}"), 2.0 * (ROWS * WIDTH * WIDTH) as f64);
    workload(name, shape, amount, Unit::Flops, move |device| {
        let x = rotated(device, &[ROWS, WIDTH], 0.25)?;
        let w = numbers(device, 99, &[WIDTH, WIDTH], 1.0 / every as f64)?;
        if every == 1 {
            return Ok(Box::new(move |round: usize| linear::forward(&x[round % x.len()], &w, None).map(drop)) as Job);
        }
        let w = compress::from_host(device, (WIDTH, WIDTH), &w.read()?)?;
        Ok(Box::new(move |round: usize| sparse_linear::forward(&x[round % x.len()], &w, None).map(drop)) as Job)
    })
}

fn weight_gradient(what: &'static str, share: f64) -> Workload {
    let (shape, amount) = (format!("{ROWS} × {WIDTH} × {WIDTH}, {what}"), 2.0 * (ROWS * WIDTH * WIDTH) as f64);
    workload("weight gradient", shape, amount, Unit::Flops, move |device| {
        let (x, dy) = (rotated(device, &[ROWS, WIDTH], share)?, numbers(device, 99, &[ROWS, WIDTH], share)?);
        Ok(move |round: usize| linear::backward_weight(&dy, &x[round % x.len()]).map(drop))
    })
}

fn abs_topk() -> Workload {
    let (shape, amount) = (format!("{ROWS} × {WIDTH}, 1/4"), (ROWS * WIDTH) as f64);
    workload("AbsTopK", shape, amount, Unit::Entries, |device| {
        let x = rotated(device, &[ROWS, WIDTH], 1.0)?;
        Ok(move |round: usize| abs_topk::forward(&x[round % x.len()], WIDTH / 4).map(drop))
    })
}

fn weight_topk() -> Workload {
    let shape = [4 * WIDTH, WIDTH];
    let count = shape[0] * shape[1];
    let (size, amount) = (format!("{} × {}, min-alive 4", shape[0], shape[1]), count as f64);
    workload("weight top-k", size, amount, Unit::Entries, move |device| {
        let mut weight = numbers(device, 99, &shape, 1.0)?;
        // Nothing is removed, so that every run does the same work: the selection takes the time.
        let rule = Rule { keep: count - 1, min_alive: 4, neurons: Some(Neurons::Rows), decay: 0.0 };
        Ok(move |_| weight_topk::apply(&mut weight, &rule))
    })
}

fn attention(back: bool) -> Workload {
    let (batch, time, heads, width) = (2, 256, 16, 16);
    let shape = [batch, time, heads * width];
    // Half of all pairs of positions, twice two products forward and five backward.
    let products = if back { 5.0 } else { 2.0 };
    let name = if back { "attention, backward" } else { "attention, forward" };
    let (size, amount) = (
        format!("{batch} × {time}, {heads} heads of {width}"),
        products * (batch * heads * time * time * width) as f64,
    );
    workload(name, size, amount, Unit::Flops, move |device| {
        let [q, k, v, dy] = [0, 1, 2, 3].map(|seed| numbers(device, seed, &shape, 1.0));
        let (q, k, v, dy, sink) = (q?, k?, v?, dy?, numbers(device, 4, &[heads], 1.0)?);
        let done = attention::forward(&q, &k, &v, Some(&sink), heads)?;
        let job = move |_| match back {
            false => attention::forward(&q, &k, &v, Some(&sink), heads).map(drop),
            true => attention::backward(&dy, &q, &k, &v, Some(&sink), &done, heads).map(drop),
        };
        Ok(job)
    })
}

/// A preset's training at the start, or at the target density.
fn trainer(config: Result<RunConfig>, dense: bool, device: &Device) -> Result<(RunConfig, Trainer)> {
    let mut config = config?;
    // Densities that have just begun to fall, so that weight top-k has work, or that are at their
    // targets.
    config.train.steps = 1_000_000;
    config.sparsity.anneal_start_frac = 0.0;
    config.sparsity.anneal_stop_frac = if dense { 1.0 } else { 0.0 };
    let model = Model::new(config.model.clone(), 0, device)?;
    let trainer = Trainer::new(model, config.train.clone(), config.sparsity.clone())?;
    Ok((config, trainer))
}

/// A preset, with another batch if one is given.
fn preset(name: &str, batch: Option<usize>) -> Result<RunConfig> {
    let mut config = RunConfig::preset(name)?;
    config.train.batch_size = batch.unwrap_or(config.train.batch_size);
    Ok(config)
}

/// The sizes of a preset as text.
fn sizes(name: &str, batch: Option<usize>) -> (String, f64) {
    match preset(name, batch) {
        Ok(config) => {
            let (m, t) = (&config.model, &config.train);
            let batch = format!("batch {} × {}", t.batch_size, m.block_size);
            (format!("{} layers, width {}, {batch}", m.n_layer, m.d_model), config.tokens_per_step() as f64)
        }
        Err(_) => (name.to_string(), 1.0),
    }
}

fn step(name: &'static str, base: &'static str, batch: Option<usize>, dense: bool) -> Workload {
    let (shape, amount) = sizes(base, batch);
    workload(name, shape, amount, Unit::Tokens, move |device| {
        let (config, mut trainer) = trainer(preset(base, batch), dense, device)?;
        let vocabulary = config.model.vocab_size as u64;
        let tokens: Vec<u32> = (0..config.tokens_per_step()).map(|i| skewed(i, vocabulary)).collect();
        let device = device.clone();
        Ok(move |_| {
            let batch = Batch::new(&device, &config.model, &tokens, config.train.batch_size)?;
            trainer.step(&[batch]).map(drop)
        })
    })
}

/// Tokens that one run generates.
const GENERATED: usize = 16;

fn generation(base: &'static str) -> Workload {
    let (shape, _) = sizes(base, None);
    let shape = shape.split(", batch").next().unwrap_or_default().to_string();
    workload("generation", shape, GENERATED as f64, Unit::Tokens, move |device| {
        let (config, mut trainer) = trainer(preset(base, None), false, device)?;
        let at = (1, config.train.steps);
        sparsity::apply_topk_and_decay(trainer.model.parameters.as_mut_slice(), &config.sparsity, at, 0.0)?;
        let host = InMemory::from(trainer.model.parameters.to_host()?);
        let parameters = Parameters::load(&config.model, &host, WeightFormat::Sparse, device)?;
        let model = Model { config: config.model.clone(), parameters, device: device.clone() };
        let job = move |round: usize| {
            let sampling = Sampling { max_new_tokens: GENERATED, temperature: 0.0, ..Sampling::default() };
            let mut generator = Generator::new(&model, &[round as u32 % 97], sampling)?;
            for _ in 0..GENERATED {
                generator.next_token()?.ok_or_else(|| Error::Data("generation ended early".into()))?;
            }
            Ok(())
        };
        Ok(job)
    })
}

/// A token for position `i`. Small ones are frequent, as in text.
fn skewed(i: u64, vocab: u64) -> u32 {
    let bits = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let unit = (bits ^ (bits >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
    let unit = unit as f64 / (1u64 << 24) as f64;
    (unit * unit * unit * vocab as f64) as u32
}
