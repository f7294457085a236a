//! Our side of `benches/peers/torch`: one training step, evaluation and generation of one model, timed on the CPU.
//!
//! `cargo bench --bench peer -- prepare FOLDER KEY=VALUE…` makes the model (settings as for `train`, from the preset `paper`) at its target
//! density, and tokens for it. `measure FOLDER WHAT` prints one JSON line; WHAT is `loss`, `step`, `evaluate` or `generate`.

use std::path::Path;
use std::time::Instant;

use gossamer::device::{Device, on_worker};
use gossamer::files::InMemory;
use gossamer::model::{Batch, Generator, Hold, Model, Parameters, Sampling, Weights, evaluate};
use gossamer::sparsity;
use gossamer::tape::Tape;
use gossamer::train::config::RunConfig;
use gossamer::train::step::Trainer;
use gossamer::{Error, Result};
use rand::{RngExt, SeedableRng};

/// Tokens that are generated after a prompt of as many.
const GENERATED: usize = 16;

fn main() -> Result<()> {
    // What `cargo bench` adds is of no interest.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["prepare", folder, settings @ ..] => prepare(Path::new(folder), settings),
        ["measure", folder, what] => on_worker(|| measure(Path::new(folder), what)),
        // Among all other benches there is nothing to do.
        _ => Ok(()),
    }
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
    model.parameters.iter_mut().try_for_each(|p| sparsity::enforce(p, &config.sparsity, at, 0.0))?;
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

fn measure(folder: &Path, what: &str) -> Result<()> {
    let config = RunConfig::load(&folder.join("run.toml"))?;
    let path = folder.join("tokens.json");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let tokens: Vec<u32> = serde_json::from_str(&text).map_err(|e| Error::file(&path, e.to_string()))?;
    let device = Device::cpu();
    let batch = || Batch::new(&device, &config.model, &tokens, config.train.batch_size);
    let load = |hold| -> Result<Model> {
        let host = InMemory::from(gossamer::files::load_tensors(folder.join("model.safetensors"))?);
        let parameters = Parameters::load(&config.model, &host, hold, &device)?;
        Ok(Model { config: config.model.clone(), parameters, device: device.clone() })
    };
    match what {
        "loss" => {
            let model = load(Hold::Dense)?;
            let weights = Weights::constant(&model, &[]);
            let (loss, ..) = model.loss(&mut Tape::new(), &weights, &batch()?, &mut ())?;
            println!("{{\"loss\": {}}}", loss.value().read()?[0]);
        }
        "step" => {
            let mut trainer = Trainer::new(load(Hold::Dense)?, config.train.clone(), config.sparsity.clone())?;
            // The first step finds the compressed forms missing, the second allocates what is left to allocate.
            let mut step = || trainer.step(&[batch()?]).map(drop);
            (0..2).try_for_each(|_| step())?;
            print_seconds(5, &mut step)?;
        }
        "evaluate" => {
            let model = load(Hold::Compressed)?;
            let sequences: Vec<Vec<u32>> = tokens.chunks(config.model.block_size).map(<[u32]>::to_vec).collect();
            let mut run = || evaluate(&model, &sequences, config.train.batch_size, false).map(drop);
            run()?;
            print_seconds(5, &mut run)?;
        }
        "generate" => {
            let model = load(Hold::Compressed)?;
            let mut run = || -> Result<()> {
                let sampling = Sampling { max_new_tokens: GENERATED, temperature: 0.0, ..Sampling::default() };
                let mut generator = Generator::new(&model, &tokens[..GENERATED], sampling)?;
                while generator.next_token()?.is_some() {}
                Ok(())
            };
            run()?;
            print_seconds(5, &mut run)?;
        }
        other => return Err(Error::Text(format!("`{other}` is not loss, step, evaluate or generate"))),
    }
    Ok(())
}

fn print_seconds(runs: usize, run: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let mut seconds = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        run()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    println!("{{\"seconds\": {}}}", seconds[seconds.len() / 2]);
    Ok(())
}
