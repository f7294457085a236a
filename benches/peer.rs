//! The gossamer side of `benches/peers`: training steps, evaluation and generation of one model, and
//! products.
//!
//! `cargo bench --bench peer -- prepare FOLDER KEY=VALUE…` makes the model (settings as for
//! `train`, from the preset `paper`) at its target density, and tokens for it. `measure FOLDER WHAT
//! [DEVICE]` prints one JSON line; WHAT is `loss`, `step`, `memory`, `evaluate` or `generate`.
//! `product M K N [DEVICE]` multiplies two dense matrices; `sparse M K N EVERY [DEVICE]` one by a
//! weight with one nonzero in EVERY entries, by its nonzeros and as if it were dense. DEVICE is the
//! CPU unless given.

use std::path::Path;
use std::time::Instant;

use gossamer::device::{Device, on_worker};
use gossamer::files::InMemory;
use gossamer::model::{
    Batch, Generator, LossOutput, Model, NoHooks, Parameters, Sampling, WeightFormat, Weights, evaluate,
};
use gossamer::observer::Observer;
use gossamer::ops::{compress, linear, sparse_linear};
use gossamer::sparsity;
use gossamer::tape::Tape;
use gossamer::train::config::RunConfig;
use gossamer::train::estimate::Estimate;
use gossamer::train::step::Trainer;
use gossamer::{Error, Result};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// Tokens of the prompt, and tokens generated after it.
const GENERATED: usize = 16;

fn main() -> Result<()> {
    // What `cargo bench` adds is of no interest.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["prepare", folder, settings @ ..] => prepare(Path::new(folder), settings),
        ["measure", folder, what, device @ ..] => print(device, |device| measure(Path::new(folder), what, device)),
        ["product", m, k, n, device @ ..] => {
            let sizes = (size(m)?, size(k)?, size(n)?);
            print(device, |device| product(sizes, device))
        }
        ["sparse", m, k, n, every, device @ ..] => {
            let sizes = (size(m)?, size(k)?, size(n)?);
            let every = size(every)?.max(1);
            print(device, |device| sparse(sizes, every, device))
        }
        // Nothing to do among all other benchmarks.
        _ => Ok(()),
    }
}

fn size(text: &str) -> Result<usize> {
    text.parse().map_err(|_| Error::Request(format!("`{text}` is not a size")))
}

/// Prints the result of `run` on a device, by default the CPU, as one line with the device's name.
fn print(name: &[&str], run: impl FnOnce(&Device) -> Result<Value> + Send) -> Result<()> {
    let device = Device::open(name.first().copied().unwrap_or("cpu"))?;
    on_worker(|| {
        let mut line = run(&device)?;
        line["adapter"] = json!(device.describe());
        println!("{line}");
        Ok(())
    })
}

fn prepare(folder: &Path, settings: &[&str]) -> Result<()> {
    let mut config = RunConfig::preset("paper")?;
    // torch's attention has no sinks.
    config.set("sink=false")?;
    settings.iter().try_for_each(|setting| config.set(setting))?;
    config.train.steps = 1_000_000;
    config.sparsity.anneal_start_frac = 0.0;
    config.sparsity.anneal_stop_frac = 0.0;
    config.validate()?;
    let mut model = Model::new(config.model.clone(), 0, &Device::cpu())?;
    let at = (1, config.train.steps);
    sparsity::apply_topk_and_decay(model.parameters.as_mut_slice(), &config.sparsity, at, 0.0)?;
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    model.save(folder)?;
    let path = folder.join("run.toml");
    std::fs::write(&path, config.to_toml()?).map_err(|e| Error::io(&path, e))?;
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let count = config.train.batch_size * config.model.block_size;
    let ids: Vec<String> = (0..count).map(|_| rng.random_range(0..config.model.vocab_size).to_string()).collect();
    let path = folder.join("tokens.json");
    std::fs::write(&path, format!("[{}]", ids.join(","))).map_err(|e| Error::io(&path, e))
}

fn measure(folder: &Path, what: &str, device: &Device) -> Result<Value> {
    let config = RunConfig::load(&folder.join("run.toml"))?;
    let path = folder.join("tokens.json");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let tokens: Vec<u32> = serde_json::from_str(&text).map_err(|e| Error::file(&path, e.to_string()))?;
    let batch = || Batch::new(device, &config.model, &tokens, config.train.batch_size);
    let load = |format| -> Result<Model> {
        let host = InMemory::from(gossamer::files::load_tensors(folder.join("model.safetensors"))?);
        let parameters = Parameters::load(&config.model, &host, format, device)?;
        Ok(Model { config: config.model.clone(), parameters, device: device.clone() })
    };
    match what {
        "loss" => {
            let model = load(WeightFormat::Dense)?;
            let weights = Weights::constant(&model, &[]);
            let LossOutput { loss, losses, .. } =
                model.forward_loss(&mut Tape::new(), &weights, &batch()?, &mut NoHooks)?;
            Ok(json!({ "loss": loss.value().read()?[0], "losses": losses.read()? }))
        }
        "step" => {
            let mut trainer = Trainer::new(load(WeightFormat::Dense)?, config.train.clone(), config.sparsity.clone())?;
            // The first step builds the sparse matrices, the second allocates the remaining
            // to allocate.
            let first = trainer.step(&[batch()?])?;
            let loss = trainer.numbers(&first)?.loss;
            let mut step = || trainer.step(&[batch()?]).map(drop);
            step()?;
            Ok(json!({ "loss": loss, "seconds": seconds(device, &mut step)? }))
        }
        "memory" => {
            let mut trainer = Trainer::new(load(WeightFormat::Dense)?, config.train.clone(), config.sparsity.clone())?;
            (0..3).try_for_each(|_| trainer.step(&[batch()?]).map(drop))?;
            let status = std::fs::read_to_string("/proc/self/status").map_err(|e| Error::io("/proc/self/status", e))?;
            let peak =
                status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
            let peak: u64 =
                peak.ok_or_else(|| Error::Device("the system does not report the peak memory of this process".into()))?;
            let estimate = Estimate::new(&config, &gossamer::device::Device::cpu())?;
            Ok(json!({ "bytes": peak * 1024, "state": estimate.state_bytes, "activations": estimate.activation_bytes }))
        }
        "evaluate" => {
            let model = load(WeightFormat::Sparse)?;
            let sequences: Vec<Vec<u32>> = tokens.chunks(config.model.block_size).map(<[u32]>::to_vec).collect();
            let mut run =
                || evaluate(&model, &sequences, config.train.batch_size, false, &Observer::default()).map(drop);
            run()?;
            Ok(json!({ "seconds": seconds(device, &mut run)? }))
        }
        "generate" => {
            let model = load(WeightFormat::Sparse)?;
            let mut run = || -> Result<()> {
                let sampling = Sampling { max_new_tokens: GENERATED, temperature: 0.0, ..Sampling::default() };
                let mut generator = Generator::new(&model, &tokens[..GENERATED], sampling)?;
                while generator.next_token()?.is_some() {}
                Ok(())
            };
            run()?;
            Ok(json!({ "seconds": seconds(device, &mut run)? }))
        }
        other => Err(Error::Request(format!("`{other}` is not loss, step, memory, evaluate or generate"))),
    }
}

/// `(m, k)` by `(k, n)`. The second factor lies transposed, as a weight does here; its numbers are
/// the same as on the other side.
fn product((m, k, n): (usize, usize, usize), device: &Device) -> Result<Value> {
    let entry = |i: usize, seed: usize| ((i * 7919 + seed) % 1009) as f32 / 504.0 - 1.0;
    let x: Vec<f32> = (0..m * k).map(|i| entry(i, 1)).collect();
    let weight: Vec<f32> = (0..n * k).map(|i| entry(i % k * n + i / k, 2)).collect();
    let (x, weight) = (device.upload("x", &[m, k], &x)?, device.upload("weight", &[n, k], &weight)?);
    let mut out = linear::forward(&x, &weight, None)?;
    let mut run = || linear::forward(&x, &weight, None).map(|product| out = product);
    run()?;
    let seconds = seconds(device, &mut run)?;
    let out = out.read()?;
    // Weighted by position, so that exchanged entries change the sum.
    let checksum: f64 = out.iter().enumerate().map(|(i, v)| f64::from(*v) * f64::from(entry(i, 3))).sum();
    let scale: f64 = out.iter().map(|v| f64::from(v.abs())).sum();
    Ok(json!({ "seconds": seconds, "checksum": checksum, "scale": scale }))
}

/// `(m, k)` by a weight `(n, k)` of which one entry in `every` is not zero, by its nonzeros and as
/// if it were dense.
fn sparse((m, k, n): (usize, usize, usize), every: usize, device: &Device) -> Result<Value> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
    let x: Vec<f32> = (0..m * k).map(|_| rng.random_range(-1.0..1.0)).collect();
    let mut entry = || if rng.random_range(0..every) == 0 { rng.random_range(-1.0..1.0) } else { 0.0 };
    let weight: Vec<f32> = (0..n * k).map(|_| entry()).collect();
    let (x, dense) = (device.upload("x", &[m, k], &x)?, device.upload("weight", &[n, k], &weight)?);
    let nonzeros = compress::from_host(device, (n, k), &weight)?;
    let (a, b) = (sparse_linear::forward(&x, &nonzeros, None)?.read()?, linear::forward(&x, &dense, None)?.read()?);
    if let Some((a, b)) = a.iter().zip(&b).find(|(a, b)| (*a - *b).abs() > 1e-4 * (1.0 + b.abs())) {
        return Err(Error::Mismatch(format!("the products differ: {a} and {b}")));
    }
    let by_nonzeros = seconds(device, &mut || sparse_linear::forward(&x, &nonzeros, None).map(drop))?;
    let as_dense = seconds(device, &mut || linear::forward(&x, &dense, None).map(drop))?;
    Ok(json!({ "seconds": by_nonzeros, "dense_seconds": as_dense }))
}

/// The median of five runs, each to its end.
fn seconds(device: &Device, run: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
    device.sync()?;
    let mut seconds = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        run()?;
        device.sync()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}
