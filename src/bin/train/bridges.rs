//! `train bridges`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use gossamer::bridges::{BridgeTrainer, estimate_on};
use gossamer::device::Device;
use gossamer::formats::{FindOptions, ModelFiles};
use gossamer::model::{Model, ModelConfig, WeightFormat};
use gossamer::terminal::print;
use gossamer::text::tokenizer::Tokenizer;
use gossamer::train::bridge::BridgeConfig;
use gossamer::train::communicator::Communicator;
use gossamer::train::config::RunConfig;
use gossamer::train::run::Run;

use super::{RunArgs, Screen, absolute, progress, report};

#[derive(clap::Args)]
pub struct Args {
    /// The dense model: a run, a checkpoint, a Hugging Face folder, a published folder, or a Hub id
    #[arg(long, value_name = "MODEL", required_unless_present = "resume", conflicts_with = "resume")]
    dense: Option<String>,
    /// Go on from this sparse model, at its density, instead of from a new one
    #[arg(long, value_name = "MODEL", conflicts_with = "resume")]
    sparse: Option<String>,
    #[command(flatten)]
    run: RunArgs,
}

pub fn run(args: &Args, communicator: &Communicator) -> Result<()> {
    let config = match &args.dense {
        None => args.run.config(|_| ())?,
        Some(dense) => config(args, dense)?,
    };
    execute(&args.run, config, communicator)
}

/// The settings of a new run: shapes that both models share are the dense one's, unless they are set.
fn config(args: &Args, dense: &str) -> Result<RunConfig> {
    let files = find(dense)?;
    let sparse = args.sparse.as_deref().map(find).transpose()?;
    let mut config = args.run.config(|config| {
        let ModelConfig { n_layer, vocab_size, block_size, .. } = files.config;
        config.model = ModelConfig { n_layer, vocab_size, block_size, ..config.model.clone() };
        if let Some(sparse) = &sparse {
            // What only other programs honour is not gone on with.
            config.model = sparse.config.without_unused();
            // Dense again at first, it would forget what it is.
            (config.sparsity.anneal_start_frac, config.sparsity.anneal_stop_frac) = (0.0, 0.0);
        }
        config.bridge = Some(BridgeConfig::default());
    })?;
    let bridge = config.bridge.get_or_insert_default();
    bridge.dense = place(dense)?;
    bridge.sparse = args.sparse.as_deref().map(place).transpose()?;
    if config.data.tokenizer.is_none() {
        let own =
            files.tokenizer.context("the dense model comes without a tokenizer.json: name one with --tokenizer")?;
        config.data.tokenizer = Some(absolute(&own)?);
    }
    if let Some(path) = &config.data.tokenizer {
        let (entries, vocabulary) = (Tokenizer::load(path)?.vocab_size(), config.model.vocab_size);
        if entries != vocabulary {
            bail!(
                "{} has {entries} entries, but the dense model's vocabulary is {vocabulary}: name its own with --tokenizer",
                path.display()
            );
        }
    }
    Ok(config)
}

fn find(model: &str) -> Result<ModelFiles> {
    Ok(ModelFiles::find(model, &FindOptions { progress: true, ..FindOptions::default() })?)
}

/// A path is written in full, so that a run can be resumed from anywhere; other names stay.
fn place(model: &str) -> Result<String> {
    match Path::new(model).exists() {
        true => Ok(absolute(Path::new(model))?.display().to_string()),
        false => Ok(model.into()),
    }
}

/// Starts the run of `config`, or goes on with the one in its folder.
pub fn execute(args: &RunArgs, mut config: RunConfig, communicator: &Communicator) -> Result<()> {
    if let Some(device) = &args.device {
        config.run.device = device.clone();
    }
    config.validate()?;
    let Some(bridge) = config.bridge.clone() else { bail!("that run trains no bridges: go on with `train --resume`") };
    let dense = find(&bridge.dense).context("the dense model")?;
    BridgeTrainer::fits(&dense.config, &config.model)?;
    let device = Device::open_nth(&config.run.device, communicator.topology()?.local)?;
    let estimate = estimate_on(&config, &dense.config, &device);
    let places = args.places("bridges", communicator)?;
    let (folder, cache) = (places.folder.clone(), places.cache.clone());
    let progress = progress(communicator);
    let run = Run { config, folder, cache, device, observer: progress.observer(), communicator: communicator.clone() };
    let mut screen = Screen::new(&progress);
    let seed = run.config.run.seed;
    let trainee = |trainer, checkpoint: Option<&Path>| {
        let dense = dense.load(WeightFormat::Sparse, &run.device)?;
        BridgeTrainer::new(trainer, dense, bridge.clone(), seed, checkpoint)
    };
    let watch = &mut |event: gossamer::train::run::Event<'_>| screen.show(&run, event);
    let outcome = run.execute_with(args.start(), estimate, || fresh(&run, &bridge), trainee, watch)?;
    drop(screen);
    report(&run, &progress, &outcome)?;
    if outcome.validation.is_some() && communicator.is_root() {
        let checkpoint = outcome.checkpoint.display();
        progress.aside(|| print(format_args!("  its bridges           gossamer bridge eval {checkpoint}")));
    }
    Ok(())
}

/// The sparse model that training starts with.
fn fresh(run: &Run, bridge: &BridgeConfig) -> gossamer::Result<Model> {
    let Some(name) = &bridge.sparse else {
        return Model::new(run.config.model.clone(), run.config.run.seed, &run.device);
    };
    let files = ModelFiles::find(name, &FindOptions::default())?;
    if files.config.without_unused() != run.config.model.without_unused() {
        return Err(gossamer::Error::config(
            "model",
            format!("is set otherwise than in {name}, which training goes on from"),
        ));
    }
    let model = files.load(WeightFormat::Dense, &run.device)?;
    Ok(Model { config: run.config.model.clone(), ..model })
}
