//! How much smaller are the circuits of a weight-sparse model than those of a dense one that predicts as well?
//!
//! Trains a sparse model on the built-in corpus, then a dense one of the same shape until its validation loss is no higher, and prunes
//! both on every task that both can do, at several target losses, with and without clean-up. Writes `circuits.csv`, a row a
//! circuit, and prints the ratios of edges, the geometric mean over tasks at equal target loss.
//!
//! `cargo run --release --example sparse_vs_dense -- --out FOLDER [--sparse RUN] [--preset NAME] [--prune KEY=VALUE…]`; hours.
//! `--quick`: tiny models that can do hardly anything, in seconds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use clap::Parser;
use gossamer::circuits::find::{Finder, Ranking};
use gossamer::circuits::prune::Settings;
use gossamer::circuits::{Layout, Nodes, graph, tasks};
use gossamer::device::Device;
use gossamer::files::{create_folder, write_atomic};
use gossamer::formats::ModelFiles;
use gossamer::model::{Batch, Hold, Model, Weights, evaluate, means, site_pattern};
use gossamer::text::tokenizer::Tokenizer;
use gossamer::train::config::RunConfig;
use gossamer::train::data::{RunData, batches, held_out, prepare};
use gossamer::train::run::Run;
use gossamer::train::step::Trainer;

#[derive(Parser)]
struct Args {
    /// Where everything goes
    #[arg(long, default_value = "runs/sparse_vs_dense")]
    out: PathBuf,
    /// A finished sparse run, instead of training one
    #[arg(long)]
    sparse: Option<PathBuf>,
    /// The preset of the sparse run
    #[arg(long, default_value = "quickstart")]
    preset: String,
    /// Task losses to reach
    #[arg(long, num_args = 1.., default_values_t = [0.3, 0.15, 0.05])]
    targets: Vec<f64>,
    /// Steps of pruning
    #[arg(long, default_value_t = 500)]
    steps: u64,
    /// Price of a kept node
    #[arg(long, default_value_t = 1e-3)]
    k_coef: f64,
    /// Learning rate of pruning
    #[arg(long, default_value_t = 1e-2)]
    lr: f64,
    /// auto, cpu, gpu…
    #[arg(long, default_value = "auto")]
    device: String,
    /// Tiny models, in seconds
    #[arg(long)]
    quick: bool,
}

/// One circuit's size.
struct Row {
    task: String,
    model: &'static str,
    target: f64,
    clean: bool,
    nodes: usize,
    edges: usize,
    loss: f64,
    held_out_loss: f64,
    ablated: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    create_folder(&args.out)?;
    let device = Device::open(&args.device)?;
    let (config, folder) = sparse_run(&args, &device)?;
    let tokenizer = Tokenizer::load(folder.join("tokenizer.json"))?;
    let data = prepare(&config, tokenizer.clone(), &args.out.join("cache"))?;
    let sequences = held_out(&config, &data.corpus.validation)?;
    let sparse = ModelFiles::open(&folder)?.load(Hold::Compressed, &device)?;
    let goal = evaluate(&sparse, &sequences, config.train.batch_size, false)?.loss;
    println!("sparse: validation loss {goal:.4}");
    let (dense, reached) = dense_twin(&config, &data, &sequences, goal, &device)?;
    println!("dense:  validation loss {reached:.4}");

    let mut rows = Vec::new();
    for (name, model) in [("sparse", &sparse), ("dense", &dense)] {
        rows.extend(circuits(&args, name, model, &tokenizer)?);
    }
    write_csv(&args.out.join("circuits.csv"), &rows)?;
    for clean in [false, true] {
        for &target in &args.targets {
            report(&rows, target, clean);
        }
    }
    Ok(())
}

/// The sparse run's settings and folder; trained now unless it is there.
fn sparse_run(args: &Args, device: &Device) -> Result<(RunConfig, PathBuf)> {
    if let Some(folder) = &args.sparse {
        return Ok((RunConfig::load(&folder.join("config.toml"))?, folder.clone()));
    }
    let folder = args.out.join("sparse");
    let mut config = RunConfig::preset(&args.preset)?;
    if args.quick {
        for setting in [
            "train.steps=60",
            "n_layer=1",
            "d_model=32",
            "n_head=2",
            "block_size=32",
            "vocab_size=512",
            "generated_documents=400",
            "batch_size=8",
            "samples=0",
        ] {
            config.set(setting)?;
        }
    }
    let stop = AtomicBool::new(false);
    let resume = folder.join("config.toml").exists();
    let run =
        Run { config, folder: folder.clone(), cache: args.out.join("cache"), device: device.clone(), stop: &stop };
    run.execute(resume, &mut |_| {}).context("training the sparse model")?;
    Ok((run.config, folder))
}

/// A dense model of the same shape and schedule, trained until it predicts as well as the sparse one.
fn dense_twin(
    config: &RunConfig,
    data: &RunData,
    sequences: &[Vec<u32>],
    goal: f64,
    device: &Device,
) -> Result<(Model, f64)> {
    let mut config = config.clone();
    (config.sparsity.target_density, config.sparsity.embed_target_density) = (1.0, 1.0);
    let model = Model::new(config.model.clone(), config.run.seed, device)?;
    let mut trainer = Trainer::new(model, config.train.clone(), config.sparsity.clone())?;
    let every = (config.train.steps / 100).max(1);
    loop {
        let step = trainer.steps_done();
        let batch = |tokens: &Vec<u32>| Batch::new(device, &config.model, tokens, config.train.batch_size);
        let batches = batches(&config, &data.corpus.train, step)?.iter().map(batch).collect::<Result<Vec<_>, _>>()?;
        trainer.step(&batches)?;
        let done = step + 1 == config.train.steps;
        if (step + 1) % every == 0 || done {
            let loss = evaluate(&trainer.model, sequences, config.train.batch_size, false)?.loss;
            if loss <= goal || done {
                return Ok((trainer.model, loss));
            }
        }
    }
}

fn circuits(args: &Args, name: &'static str, model: &Model, tokenizer: &Tokenizer) -> Result<Vec<Row>> {
    let length = model.config.block_size;
    let documents = gossamer::text::python::documents(0).map(Ok);
    let sequences = gossamer::text::sequences::sequences(documents, tokenizer, length, 64 * length)?;
    let batches = sequences.iter().map(|s| Batch::new(&model.device, &model.config, s, 1));
    let means = means(model, batches, &site_pattern(".")?)?;
    let nodes = Nodes::new(Layout::new(&model.config), &means, &model.device)?;
    let finder = Finder { model, weights: Weights::constant(model, &[]), nodes, tokenizer };
    let loosest = args.targets.iter().copied().fold(f64::MIN, f64::max);
    let (steps, pairs) = if args.quick { (10, 8) } else { (args.steps, 64) };
    let settings = Settings {
        steps,
        pairs,
        eval_pairs: 2 * pairs,
        lr: args.lr,
        k_coef: args.k_coef,
        target_loss: loosest,
        ..Settings::default()
    };
    let mut rows = Vec::new();
    for task in tasks::all() {
        let Ok(task) = task.fitted(tokenizer) else { continue };
        let scores = match finder.rank(&task, &settings, Ranking::Learned, &mut |_| {}) {
            Ok(scores) => scores,
            Err(error) => {
                println!("{name}: {error}");
                continue;
            }
        };
        for &target in &args.targets {
            for clean in [false, true] {
                let settings = Settings { target_loss: target, ..settings.clone() };
                let found = finder.choose(&task, &settings, scores.clone(), clean)?;
                if found.train.circuit > target {
                    continue;
                }
                let edges = graph(model, &finder.nodes.layout, &found.keep)?.edges.len();
                let row = Row {
                    task: task.name.clone(),
                    model: name,
                    target,
                    clean,
                    nodes: found.keep.iter().filter(|kept| **kept).count(),
                    edges,
                    loss: found.train.circuit,
                    held_out_loss: found.test.circuit,
                    ablated: found.test.ablated,
                };
                println!(
                    "{name}: {} at {target}{}: {} nodes, {edges} edges",
                    row.task,
                    if clean { ", cleaned" } else { "" },
                    row.nodes
                );
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

fn write_csv(path: &Path, rows: &[Row]) -> Result<()> {
    let mut text = String::from("task,model,target_loss,clean_up,nodes,edges,loss,held_out_loss,ablated_loss\n");
    for r in rows {
        writeln!(
            text,
            "{},{},{},{},{},{},{},{},{}",
            r.task, r.model, r.target, r.clean, r.nodes, r.edges, r.loss, r.held_out_loss, r.ablated
        )?;
    }
    Ok(write_atomic(path, |out| out.write_all(text.as_bytes()).map_err(|e| gossamer::Error::io(path, e)))?)
}

/// Prints the ratio of edges over the tasks that both models do at `target`.
fn report(rows: &[Row], target: f64, clean: bool) {
    let of = |model: &str| -> BTreeMap<&str, usize> {
        let rows = rows.iter().filter(|r| r.model == model && r.target == target && r.clean == clean);
        rows.map(|r| (r.task.as_str(), r.edges)).collect()
    };
    let (sparse, dense) = (of("sparse"), of("dense"));
    // A circuit without an edge counts as one edge, so that the mean exists.
    let both =
        sparse.iter().filter_map(|(task, s)| Some((task, (*dense.get(task)?).max(1) as f64 / (*s).max(1) as f64)));
    let mut ratios: Vec<f64> = both.map(|(_, ratio)| ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let how = if clean { "with clean-up" } else { "without clean-up" };
    match ratios[..] {
        [] => println!("target {target}, {how}: no task that both models do"),
        [least, ..] => {
            let mean = (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp();
            let most = ratios[ratios.len() - 1];
            println!(
                "target {target}, {how}: dense circuits have {mean:.1} times the edges (geometric mean of {} tasks, {least:.1} to {most:.1})",
                ratios.len()
            );
        }
    }
}
