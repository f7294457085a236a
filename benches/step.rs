//! Time of one training step on the CPU: of the presets, against density at fixed width, and
//! against width at a fixed number of nonzeros.
//!
//! `cargo bench --bench step` measures all; what follows `--` chooses a group (`presets`,
//! `density`, `width`) or lines by a part of their name, as in `cargo bench --bench step -- density
//! 'small, d'`. Medians, with the fastest step beside them: on a machine that does other things,
//! compare the latter.

use std::time::{Duration, Instant};

use gossamer::device::{Device, on_worker};
use gossamer::model::{Batch, LossOutput, Model, NoHooks, Weights};
use gossamer::tape::Tape;
use gossamer::train::config::RunConfig;
use gossamer::train::step::Trainer;

/// Time spent on steps of each kind, at least.
const TIME: Duration = Duration::from_secs(4);

fn main() -> gossamer::Result<()> {
    let wanted: Vec<_> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let measure = |group: &str, name: &str, config: RunConfig, density: f64| {
        let part = |w: &String| !["presets", "density", "width"].contains(&w.as_str()) && name.contains(w.as_str());
        let chosen = wanted.is_empty() || wanted.iter().any(|w| w == group || part(w));
        if chosen { measure(name, config, density) } else { Ok(()) }
    };
    for preset in ["quickstart", "circuits", "small"] {
        let config = RunConfig::preset(preset)?;
        let target = config.sparsity.target_density;
        measure("presets", &format!("{preset}, dense"), config.clone(), 1.0)?;
        measure("presets", &format!("{preset}, density 1/{:.0}", 1.0 / target), config, target)?;
    }
    for every in [1, 4, 16, 64, 256] {
        measure("density", &format!("width 1024, density 1/{every}"), wide(1024)?, 1.0 / f64::from(every))?;
    }
    for (width, every) in [(256, 4), (512, 16), (1024, 64), (2048, 256)] {
        measure("width", &format!("width {width:4}, density 1/{every}"), wide(width)?, 1.0 / f64::from(every))?;
    }
    Ok(())
}

/// Four layers of the published model with another width, on 512 tokens.
fn wide(width: usize) -> gossamer::Result<RunConfig> {
    let mut config = RunConfig::preset("paper")?;
    (config.model.n_layer, config.model.d_model, config.model.n_head) = (4, width, width / 16);
    (config.train.batch_size, config.train.accumulate) = (2, 1);
    Ok(config)
}

/// Steps of the hidden matrices' `density`; embedding and unembedding keep four times as much.
fn measure(name: &str, mut config: RunConfig, density: f64) -> gossamer::Result<()> {
    // An anneal that has just begun, so that the weights' top-k has work, or one that was over
    // before it began.
    config.train.steps = 1_000_000;
    (config.sparsity.target_density, config.sparsity.embed_target_density) = (density, (4.0 * density).min(1.0));
    config.sparsity.anneal_start_frac = 0.0;
    if density >= 1.0 {
        (config.sparsity.target_density, config.sparsity.anneal_stop_frac) = (0.5, 1.0);
    } else {
        config.sparsity.anneal_stop_frac = 0.0;
    }
    on_worker(|| steps(name, &config))
}

fn steps(name: &str, config: &RunConfig) -> gossamer::Result<()> {
    let device = Device::cpu();
    let model = Model::new(config.model.clone(), 0, &device)?;
    let mut trainer = Trainer::new(model, config.train.clone(), config.sparsity.clone())?;
    let tokens: Vec<u32> = (0..config.tokens_per_step()).map(|i| skewed(i, config.model.vocab_size as u64)).collect();
    let batch = || Batch::new(&device, &config.model, &tokens, config.train.batch_size);

    // The first steps allocate, and make the weights sparse.
    for _ in 0..2 {
        trainer.step(&[batch()?])?;
    }
    let (mut steps, mut forwards, mut backwards) = (Vec::new(), Vec::new(), Vec::new());
    let start = Instant::now();
    while start.elapsed() < TIME || steps.len() < 5 {
        let batch = batch()?;
        let mut tape = Tape::new();
        let forward = Instant::now();
        let trains = |kind| trainer.trains(kind);
        let weights = Weights::new(&trainer.model, &mut tape, trains, trainer.compressed());
        let LossOutput { loss, .. } = trainer.model.forward_loss(&mut tape, &weights, &batch, &mut NoHooks)?;
        forwards.push(forward.elapsed());
        let seed = device.upload("seed", &[1], &[1.0])?;
        let backward = Instant::now();
        tape.backward(&loss, seed)?;
        backwards.push(backward.elapsed());
        drop((tape, weights, loss));

        let step = Instant::now();
        let record = trainer.step(&[batch])?;
        steps.push(step.elapsed());
        trainer.numbers(&record)?;
    }
    let [step, forward, backward] = [&mut steps, &mut forwards, &mut backwards].map(|times| {
        times.sort();
        (times[times.len() / 2].as_secs_f64() * 1e3, times[0].as_secs_f64() * 1e3)
    });
    println!(
        "{name:28} step {:7.1} ms (best {:7.1}, {:6.0} tokens/s)  forward {:.1}  backward {:.1}  update {:.1}",
        step.0,
        step.1,
        tokens.len() as f64 / step.1 * 1e3,
        forward.0,
        backward.0,
        step.0 - forward.0 - backward.0,
    );
    Ok(())
}

/// A token for position `i`; small ones are frequent, as in text.
fn skewed(i: u64, vocab: u64) -> u32 {
    let bits = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let unit = (bits ^ (bits >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
    let unit = unit as f64 / (1u64 << 24) as f64;
    (unit * unit * unit * vocab as f64) as u32
}
