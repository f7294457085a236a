//! How capability and interpretability trade off over width and density (Gao et al. 2025, figure 3).
//!
//! Trains a model for every width, density and seed at equal compute, finds the circuit of every
//! task that it does, and writes `circuits.csv` (a row a circuit), `frontier.csv` (a row a model:
//! validation loss, and the geometric mean of edges over the tasks that all models do) and
//! `frontier.png`, `.svg` and `.pdf`. Compute counts multiply-adds with all weights, zeros too, as training by masks
//! costs on most machines: a model of twice as many weights gets half the steps.
//!
//! `cargo run --release --example frontier -- [--out FOLDER]`: a night on two cores. Run again with
//! the same `--out`, it continues where it stopped. `--quick`: tiny models, in seconds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use gossamer::Error;
use gossamer::chart::{Axis, Chart, FORMATS, Series};
use gossamer::circuits::prune::{SearchSettings, kept_count};
use gossamer::circuits::search::{CircuitSearch, Ranking};
use gossamer::circuits::{Layout, Nodes, graph, measured_means, parallel, tasks};
use gossamer::device::{Device, on_worker};
use gossamer::files::{create_folder, write_atomic};
use gossamer::formats::ModelFiles;
use gossamer::model::{ModelConfig, Parameters, WeightFormat, evaluate};
use gossamer::observer::Observer;
use gossamer::terminal::print;
use gossamer::text::source::Source;
use gossamer::text::tokenizer::Tokenizer;
use gossamer::train::communicator::Communicator;
use gossamer::train::config::RunConfig;
use gossamer::train::data::{held_out, prepare};
use gossamer::train::run::Run;
use serde::{Deserialize, Serialize};

#[derive(Parser)]
struct Args {
    /// Where everything goes
    #[arg(long, default_value = "runs/frontier")]
    out: PathBuf,
    /// The preset of all runs; steps are those of its own width
    #[arg(long, default_value = "circuits")]
    preset: String,
    /// Steps at the preset's width [default: a quarter of the preset's]
    #[arg(long)]
    steps: Option<u64>,
    /// Widths of the residual stream, multiples of the width of a head
    #[arg(long, num_args = 1.., default_values_t = [64, 128, 256])]
    widths: Vec<usize>,
    /// Densities of hidden matrices
    #[arg(long, num_args = 1.., default_values_t = [0.25, 0.0625, 0.015625])]
    densities: Vec<f64>,
    /// Seeds, from 0
    #[arg(long, default_value_t = 2)]
    seeds: u64,
    /// The task loss that circuits must reach
    #[arg(long, default_value_t = 0.15)]
    target: f64,
    /// auto, cpu, gpu…
    #[arg(long, default_value = "auto")]
    device: String,
    /// Tiny models, in seconds
    #[arg(long)]
    quick: bool,
}

/// A model of the grid.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct GridPoint {
    width: usize,
    density: f64,
    seed: u64,
}

/// What a model came to: kept in its folder once its circuits are found.
#[derive(Serialize, Deserialize)]
struct Outcome {
    validation_loss: f64,
    circuits: Vec<TaskCircuit>,
}

/// The circuit of a task.
#[derive(Serialize, Deserialize)]
struct TaskCircuit {
    task: String,
    nodes: usize,
    edges: usize,
    loss: f64,
    held_out_loss: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    on_worker(|| run(&args))
}

fn run(args: &Args) -> Result<()> {
    create_folder(&args.out)?;
    let device = Device::open(&args.device)?;
    let mut outcomes: Vec<(GridPoint, Outcome)> = Vec::new();
    for seed in 0..args.seeds {
        for &width in &args.widths {
            for &density in &args.densities {
                let point = GridPoint { width, density, seed };
                let outcome = outcome(args, point, &device)?;
                let (loss, count) = (outcome.validation_loss, outcome.circuits.len());
                print(format_args!(
                    "width {width}, density {density}, seed {seed}: {loss:.4} nats, circuits of {count} tasks"
                ));
                outcomes.push((point, outcome));
                save(args, &outcomes)?;
            }
        }
    }
    Ok(())
}

/// A model's outcome, trained and searched unless that was done before.
fn outcome(args: &Args, point: GridPoint, device: &Device) -> Result<Outcome> {
    let GridPoint { width, density, seed } = point;
    let folder = args.out.join(format!("width_{width}_density_{density}_seed_{seed}"));
    let file = folder.join("outcome.json");
    if let Ok(text) = std::fs::read_to_string(&file) {
        return serde_json::from_str(&text).with_context(|| format!("{} is damaged: remove it", file.display()));
    }
    let (config, resume) = match RunConfig::load(&folder.join("config.toml")) {
        Ok(config) => (config, true),
        Err(_) => (config(args, point)?, false),
    };
    let cache = args.out.join("cache");
    let observer = Observer::default;
    let (device, communicator) = (device.clone(), Communicator::single());
    let run = Run { config, folder, cache, device, observer: observer(), communicator };
    run.execute(resume, &mut |_| {}).with_context(|| format!("training {}", run.folder.display()))?;

    let tokenizer = Tokenizer::load(run.folder.join("tokenizer.json"))?;
    let data = prepare(&run.config, tokenizer.clone(), &run.cache, &observer())?;
    let model = ModelFiles::open(&run.folder)?.load(WeightFormat::Sparse, &run.device)?;
    let sequences = held_out(&run.config, &data.corpus.validation)?;
    let validation_loss = evaluate(&model, &sequences, run.config.train.batch_size, false, &observer())?.loss;

    let tokens = if args.quick { 64 * model.config.block_size } else { 65_536 };
    let means = measured_means(&model, &tokenizer, &Source::default(), tokens, &observer())?;
    let nodes = Nodes::new(Layout::new(&model.config), &means, &model.device)?;
    let search = CircuitSearch { model: &model, nodes, tokenizer: &tokenizer };
    let mut tasks = tasks::all()?;
    tasks.truncate(if args.quick { 4 } else { tasks.len() });
    let found = parallel::map(&model.device, tasks.len(), |at| circuit(args, &search, &tasks[at]))?;
    let circuits = found.into_iter().filter_map(Result::transpose).collect::<Result<_>>()?;
    let outcome = Outcome { validation_loss, circuits };
    write(&file, &serde_json::to_string_pretty(&outcome)?)?;
    Ok(outcome)
}

/// The settings of a model's run.
fn config(args: &Args, GridPoint { width, density, seed }: GridPoint) -> Result<RunConfig> {
    let mut config = RunConfig::preset(&args.preset)?;
    let d_head = config.model.d_head.unwrap_or(config.model.d_model / config.model.n_head);
    let steps = args.steps.unwrap_or(config.train.steps / 4);
    let own = weights(&config.model);
    (config.model.d_model, config.model.n_head) = (width, (width / d_head).max(1));
    config.train.steps = (steps as f64 * own / weights(&config.model)).round().max(1.0) as u64;
    config.sparsity.target_density = density;
    (config.run.seed, config.run.samples) = (seed, 0);
    (config.run.eval_every, config.run.checkpoint_every) = (0, (config.train.steps / 4).max(1));
    if args.quick {
        config.train.steps = 20;
        for setting in ["n_layer=1", "block_size=32", "vocab_size=512", "generated_documents=400", "batch_size=8"] {
            config.set(setting)?;
        }
    }
    Ok(config)
}

/// Weights that a token is multiplied with, zeros included: all matrices but the embedding.
fn weights(config: &ModelConfig) -> f64 {
    let shapes = Parameters::shapes(config);
    let counted = shapes.iter().filter(|(name, _, shape)| shape.len() == 2 && !name.contains("wte"));
    counted.map(|(_, _, shape)| shape.iter().product::<usize>() as f64).sum()
}

/// The smallest circuit of a task; nothing if the model does not do it.
fn circuit(args: &Args, search: &CircuitSearch, task: &tasks::Task) -> Result<Option<TaskCircuit>> {
    let (steps, pairs) = if args.quick { (10, 8) } else { (300, 32) };
    let settings =
        SearchSettings { steps, pairs, eval_pairs: 4 * pairs, target_loss: args.target, ..SearchSettings::default() };
    let found = || {
        let task = task.clone().for_tokenizer(search.tokenizer)?;
        let scores = search.rank(&task, &settings, Ranking::Learned, &|_| {})?;
        let found = search.choose(&task, &settings, scores, true)?;
        Ok(TaskCircuit {
            task: task.name,
            nodes: kept_count(&found.keep),
            edges: graph(search.model, &search.nodes.layout, &found.keep)?.edges.len(),
            loss: found.train.circuit,
            held_out_loss: found.test.circuit,
        })
    };
    match found() {
        Ok(found) => Ok(Some(found)),
        Err(Error::UnreachableTarget { .. } | Error::UnsuitableTask { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The tasks that all models have a circuit of.
fn shared(outcomes: &[(GridPoint, Outcome)]) -> Vec<&str> {
    let has = |outcome: &Outcome, task: &str| outcome.circuits.iter().any(|circuit| circuit.task == task);
    let first = outcomes.first().map(|(_, outcome)| &outcome.circuits[..]).unwrap_or_default();
    let tasks = first.iter().map(|circuit| circuit.task.as_str());
    tasks.filter(|task| outcomes.iter().all(|(_, outcome)| has(outcome, task))).collect()
}

/// The geometric mean of edges over `tasks`, a circuit without edges counted as one edge; nothing
/// without tasks.
fn mean_edges(outcome: &Outcome, tasks: &[&str]) -> Option<f64> {
    let of = outcome.circuits.iter().filter(|found| tasks.contains(&found.task.as_str()));
    let logs: Vec<f64> = of.map(|found| (found.edges.max(1) as f64).ln()).collect();
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
}

fn save(args: &Args, outcomes: &[(GridPoint, Outcome)]) -> Result<()> {
    let tasks = shared(outcomes);
    let mut circuits = String::from("width,density,seed,task,nodes,edges,loss,held_out_loss\n");
    let mut models = String::from("width,density,seed,validation_loss,tasks,shared_tasks,mean_edges\n");
    for (GridPoint { width, density, seed }, outcome) in outcomes {
        for TaskCircuit { task, nodes, edges, loss, held_out_loss } in &outcome.circuits {
            writeln!(circuits, "{width},{density},{seed},{task},{nodes},{edges},{loss},{held_out_loss}")?;
        }
        let edges = mean_edges(outcome, &tasks).map_or(String::new(), |edges| edges.to_string());
        let (loss, count, shared) = (outcome.validation_loss, outcome.circuits.len(), tasks.len());
        writeln!(models, "{width},{density},{seed},{loss},{count},{shared},{edges}")?;
    }
    write(&args.out.join("circuits.csv"), &circuits)?;
    write(&args.out.join("frontier.csv"), &models)?;
    let chart = chart(outcomes, &tasks);
    Ok(FORMATS.iter().try_for_each(|format| chart.save(&args.out.join(format!("frontier.{format}"))))?)
}

/// A line for each width, from density to density: means over seeds, each seed as a pale point.
fn chart(outcomes: &[(GridPoint, Outcome)], tasks: &[&str]) -> Chart {
    let mut widths: BTreeMap<usize, Vec<(f64, f64, f64)>> = BTreeMap::new();
    for (point, outcome) in outcomes {
        if let Some(edges) = mean_edges(outcome, tasks) {
            widths.entry(point.width).or_default().push((point.density, outcome.validation_loss, edges));
        }
    }
    let mut series = Vec::new();
    for (style, (width, mut points)) in widths.into_iter().enumerate() {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let seeds = points.iter().map(|&(_, loss, edges)| (loss, edges)).collect();
        series.push(Series::dots("", style, seeds).faint());
        let mean = |same: &[(f64, f64, f64)]| {
            let count = same.len() as f64;
            let loss = same.iter().map(|point| point.1).sum::<f64>() / count;
            (loss, (same.iter().map(|point| point.2.ln()).sum::<f64>() / count).exp())
        };
        let points = points.chunk_by(|a, b| a.0 == b.0).map(mean).collect();
        series.push(Series::line(format!("width {width}"), style, points));
    }
    Chart {
        title: format!("Edges of the circuits of {} tasks, at equal compute", tasks.len()),
        x: Axis::linear("validation loss (nats per token)"),
        y: Axis::log("edges (geometric mean)"),
        series,
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    Ok(write_atomic(path, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io(path, e)))?)
}
