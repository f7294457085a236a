//! What a training step asks of a GPU and of the host: kernels launched, bytes of the tensors that
//! they bind, and the host's time without what it waits for the device.
//!
//! `cargo bench --bench launches [-- DEVICE]` counts steps of the preset `quickstart` with two and
//! three layers, dense and sparse, on `gpu` or the device named. To see the host's time alone, run
//! it on a device that does nothing: `WGPU_BACKEND=noop WGPU_NOOP_BACKEND=1 cargo bench --features
//! wgpu/noop --bench launches`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gossamer::Result;
use gossamer::device::{Device, Usage};
use gossamer::model::{Batch, Model};
use gossamer::train::config::RunConfig;
use gossamer::train::step::Trainer;

/// Steps of which the fastest counts.
const STEPS: usize = 8;

fn main() -> Result<()> {
    let name = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let device = Device::open(name.as_deref().unwrap_or("gpu"))?;
    println!("{}", device.describe());
    println!("{:24} {:>8} {:>10} {:>12} {:>10}", "step", "launches", "MB bound", "host ms", "µs/launch");
    let mut kernels: BTreeMap<String, [u64; 4]> = BTreeMap::new();
    let kinds = [(2, 1.0), (3, 1.0), (2, 0.0625), (3, 0.0625)];
    for (column, (layers, density)) in kinds.into_iter().enumerate() {
        let (usage, host) = step(&device, layers, density)?;
        let (launches, host) = (usage.launches(), host.as_secs_f64());
        println!(
            "{:24} {launches:8} {:10.2} {:12.3} {:10.2}",
            format!("{layers} layers, {}", if density < 1.0 { "sparse" } else { "dense" }),
            usage.bytes as f64 / 1e6,
            host * 1e3,
            host * 1e6 / launches.max(1) as f64
        );
        for (kernel, launches) in usage.kernels {
            kernels.entry(kernel).or_default()[column] = launches;
        }
    }
    println!("\n{:40} 2 dense 3 dense 2 sparse 3 sparse", "kernel");
    for (kernel, [a, b, c, d]) in kernels {
        println!("{kernel:40} {a:7} {b:7} {c:8} {d:8}");
    }
    Ok(())
}

/// One step's launches, and the host's time for it.
fn step(device: &Device, layers: usize, density: f64) -> Result<(Usage, Duration)> {
    let mut config = RunConfig::preset("quickstart")?;
    (config.model.n_layer, config.train.batch_size) = (layers, 2);
    // Densities that have just begun to fall, so that weight top-k has work, or that have arrived.
    config.train.steps = 1_000_000;
    config.sparsity.anneal_start_frac = 0.0;
    config.sparsity.anneal_stop_frac = if density < 1.0 { 0.0 } else { 1.0 };
    let model = Model::new(config.model.clone(), 0, device)?;
    let mut trainer = Trainer::new(model, config.train.clone(), config.sparsity.clone())?;
    trainer.use_compressed = Some(density < 1.0);
    let tokens: Vec<u32> = (0..config.tokens_per_step() as u32).map(|i| i * i % 97).collect();
    let (mut usage, mut least) = (Usage::default(), Duration::MAX);
    for _ in 0..STEPS {
        device.sync()?;
        let (before, start) = (device.usage()?, Instant::now());
        trainer.step(&[Batch::new(device, &config.model, &tokens, config.train.batch_size)?])?;
        let elapsed = start.elapsed();
        usage = device.usage()?.since(&before);
        least = least.min(elapsed.saturating_sub(usage.waited));
    }
    Ok((usage, least))
}
