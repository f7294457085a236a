//! What a step of bridge training costs, against what it cannot avoid: a forward and a backward
//! pass of each model by itself and of every hybrid through the layers that it continues in. Both
//! are timed on the CPU, the passes one by one, and counted in multiplications as if all weights
//! were dense.
//!
//! `cargo bench --bench bridges` measures pairs of two and of four layers.

use std::time::Instant;

use gossamer::Result;
use gossamer::bridges::BridgeTrainer;
use gossamer::device::{Device, on_worker};
use gossamer::model::{Batch, LossOutput, Model, ModelConfig, NoHooks, Pass, Weights};
use gossamer::observer::Observer;
use gossamer::ops::kl::Support;
use gossamer::tape::{Tape, Var};
use gossamer::train::bridge::BridgeConfig;
use gossamer::train::config::RunConfig;
use gossamer::train::run::Trainable;
use gossamer::train::step::Trainer;

/// Runs of each kind, after one to warm up; the median counts.
const RUNS: usize = 7;

fn main() -> Result<()> {
    on_worker(|| [2, 4].into_iter().try_for_each(pair))
}

fn pair(layers: usize) -> Result<()> {
    let device = Device::cpu();
    let mut config = RunConfig::preset("circuits")?;
    config.model.n_layer = layers;
    config.train.steps = 1_000_000;
    (config.sparsity.anneal_start_frac, config.sparsity.anneal_stop_frac) = (0.0, 0.0);
    let ordinary = ModelConfig { afrac: None, ..config.model.clone() };
    let dense = Model::new(ordinary, 1, &device)?;
    let sparse =
        Trainer::new(Model::new(config.model.clone(), 0, &device)?, config.train.clone(), config.sparsity.clone())?;
    let settings = BridgeConfig { dense: "dense".into(), ..BridgeConfig::default() };
    let mut trainer = BridgeTrainer::new(sparse, dense, settings, 0, None)?;
    let (sequences, length) = (config.train.batch_size, config.model.block_size);
    let tokens: Vec<u32> = (0..sequences * length).map(|i| (i * i * 31 % config.model.vocab_size) as u32).collect();

    let step = seconds(|| trainer.step(std::slice::from_ref(&tokens), &Observer::default()).map(drop))?;
    let sites = 2 * layers + 1;
    let mut parts = (0.0, 0.0);
    let mut add =
        |seconds: f64, operations: f64| parts = (parts.0 + seconds, parts.1 + operations * (sequences * length) as f64);
    let (dense, sparse, bridges) = (&trainer.dense, &trainer.sparse.model, &trainer.bridges);
    let batch = Batch::new(&device, &dense.config, &tokens, sequences)?;

    // By themselves: the dense model forward, the sparse one both ways.
    let frozen = Weights::constant(dense, &[]);
    let alone = || dense.forward(&mut Tape::new(), &frozen, &batch, &mut NoHooks);
    let predicted = alone()?.value().clone();
    add(seconds(|| alone().map(drop))?, multiplications(&dense.config, 0));
    let own = || {
        let mut tape = Tape::new();
        let weights = Weights::new(sparse, &mut tape, |kind| trainer.sparse.trains(kind), trainer.sparse.compressed());
        let LossOutput { loss, .. } = sparse.forward_loss(&mut tape, &weights, &batch, &mut NoHooks)?;
        tape.backward(&loss, device.upload("seed", &[1], &[1.0])?)
    };
    add(seconds(own)?, 3.0 * multiplications(&sparse.config, 0));
    // Maps there and back, whose inputs need no gradient in the one direction.
    let d2s = (dense.config.d_model * sparse.config.d_model) as f64;
    for site in 0..sites {
        for back in [false, true] {
            let (from, to) = if back { (sparse, dense) } else { (dense, sparse) };
            let stream = device.upload(
                "stream",
                &[sequences, length, from.config.d_model],
                &noise(&tokens, from.config.d_model),
            )?;
            let target =
                device.upload("target", &[sequences, length, to.config.d_model], &noise(&tokens, to.config.d_model))?;
            let map = || {
                let mut tape = Tape::new();
                let maps: Vec<Var> = bridges.list.iter().map(|map| tape.leaf(map.value.clone())).collect();
                let input = if back { tape.leaf(stream.clone()) } else { Var::constant(stream.clone()) };
                let mapped = if back {
                    bridges.decode(&mut tape, &maps, site, &input)?
                } else {
                    bridges.encode(&mut tape, &maps, site, &input, None)?
                };
                let error = tape.nmse(&mapped, &Var::constant(target.clone()))?;
                tape.backward(&error, device.upload("seed", &[1], &[1.0])?)
            };
            add(seconds(map)?, d2s * if back { 3.0 } else { 2.0 });
            // The hybrid that goes on from there.
            let compressed = if back { &[][..] } else { trainer.sparse.compressed() };
            let hybrid = || {
                let mut tape = Tape::new();
                let weights = Weights::new(to, &mut tape, |kind| !back && trainer.sparse.trains(kind), compressed);
                let entry = tape.leaf(target.clone());
                let mut hooks = NoHooks;
                let mut pass = Pass::new(to, &weights, &batch, &mut tape, &mut hooks);
                let end = pass.advance(entry, site..sites - 1)?;
                let logits = pass.unembed(end)?;
                let divergence = tape.kl(&logits, &predicted, Support::All)?;
                tape.backward(&divergence, device.upload("seed", divergence.value().shape(), &[1.0])?)
            };
            add(seconds(hybrid)?, multiplications(&to.config, site) * if back { 2.0 } else { 3.0 });
        }
    }
    println!(
        "{layers} layers, width {}, {} tokens: a step {:.1} ms; {} passes one by one {:.1} ms, {:.2} G multiplications: ×{:.2}",
        config.model.d_model,
        sequences * length,
        step * 1e3,
        2 + 2 * sites,
        parts.0 * 1e3,
        parts.1 / 1e9,
        step / parts.0
    );
    Ok(())
}

/// Multiplications for one token on the way from a site of the stream to the logits.
fn multiplications(config: &ModelConfig, site: usize) -> f64 {
    let (d, heads, mlp) = (config.d_model, config.attention_width(), config.mlp_width());
    // A token looks back on half of the sequence, twice: for the scores and for the values.
    let attention = 4 * d * heads + heads * config.block_size;
    let sublayers = (site..2 * config.n_layer).map(|at| if at % 2 == 0 { attention } else { 2 * d * mlp });
    (sublayers.sum::<usize>() + d * config.vocab_size) as f64
}

/// A stream that is different at each of `tokens`.
fn noise(tokens: &[u32], width: usize) -> Vec<f32> {
    (0..tokens.len() * width)
        .map(|i| ((i * 7919 + 13 * tokens[i / width] as usize) % 1009) as f32 / 504.0 - 1.0)
        .collect()
}

fn seconds(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    run()?;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[RUNS / 2])
}
