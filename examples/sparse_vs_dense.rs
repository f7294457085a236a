//! How much smaller are the circuits of a weight-sparse model than those of a dense one that
//! predicts as well?
//!
//! Trains a sparse model on the built-in corpus, then a dense one of the same shape, an ordinary
//! transformer without AbsTopK, until its validation loss is no higher, and prunes both on every
//! task that both can do, at several target losses, with and without clean-up; the sparse one also
//! by attribution, the baseline of learned gates. Writes `circuits.csv`, a row a circuit, and
//! `circuits.png`, `.svg` and `.pdf`, and prints the ratios of edges, the geometric mean over tasks at equal target
//! loss.
//!
//! `cargo run --release --example sparse_vs_dense -- [--out FOLDER] [--sparse RUN]`: about two
//! hours on two cores. Run again with the same `--out`, it uses the models that it has trained.
//! `--quick`: tiny models that can do hardly anything, in seconds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use gossamer::Error;
use gossamer::chart::{Axis, Chart, FORMATS, Series};
use gossamer::circuits::prune::SearchSettings;
use gossamer::circuits::search::{CircuitSearch, Ranking};
use gossamer::circuits::tasks::Task;
use gossamer::circuits::{Layout, Nodes, graph, parallel, tasks};
use gossamer::device::{Device, on_worker};
use gossamer::files::{create_folder, write_atomic};
use gossamer::formats::ModelFiles;
use gossamer::model::{Batch, Model, WeightFormat, evaluate, means};
use gossamer::observer::Observer;
use gossamer::terminal::print;
use gossamer::text::tokenizer::Tokenizer;
use gossamer::train::communicator::Communicator;
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
    #[arg(long, default_value = "circuits")]
    preset: String,
    /// Task losses to reach
    #[arg(long, num_args = 1.., default_values_t = [0.3, 0.15, 0.05])]
    targets: Vec<f64>,
    /// Steps of pruning
    #[arg(long, default_value_t = 300)]
    steps: u64,
    /// Pairs a step; circuits are chosen by twice as many
    #[arg(long, default_value_t = 32)]
    pairs: usize,
    /// Prices of a kept node to try
    #[arg(long, num_args = 1.., default_values_t = [1e-3, 3e-3])]
    k_coefs: Vec<f64>,
    /// Lengths of training to try the dense model with, shortest first: one over these of the
    /// sparse model's steps
    #[arg(long, num_args = 1.., default_values_t = [24, 16, 12, 8, 5, 3, 2, 1])]
    parts: Vec<u64>,
    /// The dense model's activations are as sparse as those of the sparse one, its weights alone
    /// are dense
    #[arg(long)]
    keep_afrac: bool,
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
#[derive(Clone)]
struct Row {
    task: String,
    model: &'static str,
    target: f64,
    clean: bool,
    k_coef: f64,
    nodes: usize,
    edges: usize,
    loss: f64,
    held_out_loss: f64,
    ablated: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    on_worker(|| run(&args))
}

fn run(args: &Args) -> Result<()> {
    create_folder(&args.out)?;
    let device = Device::open(&args.device)?;
    let (config, folder) = sparse_run(args, &device)?;
    let tokenizer = Tokenizer::load(folder.join("tokenizer.json"))?;
    let data = prepare(&config, tokenizer.clone(), &args.out.join("cache"), &Observer::default())?;
    let sparse = ModelFiles::open(&folder)?.load(WeightFormat::Sparse, &device)?;
    let sequences = held_out(&config, &data.corpus.validation)?;
    let loss = evaluate(&sparse, &sequences, config.train.batch_size, false, &Observer::default())?.loss;
    print(format_args!("sparse: validation loss {loss:.4}"));
    let dense = dense_twin(args, &config, &data, &sparse, &Goal { sequences, loss })?;

    let rows = Rows { path: args.out.join("circuits.csv"), rows: Mutex::default() };
    for (name, model, ranking) in [
        ("sparse", &sparse, Ranking::Learned),
        ("attribution", &sparse, Ranking::Attribution),
        ("dense", &dense, Ranking::Learned),
    ] {
        circuits(args, Kind { model: name, ranking }, model, &tokenizer, &rows)?;
    }
    let rows = rows.rows.into_inner().map_err(|_| anyhow!("another thread failed"))?;
    let chart = chart(&rows, &args.targets);
    FORMATS.iter().try_for_each(|format| chart.save(&args.out.join(format!("circuits.{format}"))))?;
    for clean in [false, true] {
        for &target in &args.targets {
            for other in ["dense", "attribution"] {
                report(&rows, other, target, clean);
            }
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
    let resume = folder.join("config.toml").exists();
    let mut config =
        if resume { RunConfig::load(&folder.join("config.toml"))? } else { RunConfig::preset(&args.preset)? };
    if args.quick && !resume {
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
            "tasks=false",
        ] {
            config.set(setting)?;
        }
    }
    let run = Run {
        config,
        folder: folder.clone(),
        cache: args.out.join("cache"),
        device: device.clone(),
        observer: Observer::default(),
        communicator: Communicator::single(),
    };
    run.execute(resume, &mut |_| {}).context("training the sparse model")?;
    Ok((run.config, folder))
}

/// A dense model of the same shape that predicts no worse than the sparse one, whose validation
/// loss is `goal`. Of several lengths of training, each with warm-up and decay of its own, the
/// shortest that gets there, stopped as soon as it does. Kept in `dense/`.
fn dense_twin(args: &Args, config: &RunConfig, data: &RunData, sparse: &Model, goal: &Goal) -> Result<Model> {
    let folder = args.out.join("dense");
    let kind = if args.keep_afrac { "dense twin with AbsTopK" } else { "dense twin" };
    let (twin, about) = (folder.join("twin.txt"), format!("{kind} of {}\n", sparse.hash()?));
    if std::fs::read_to_string(&twin).is_ok_and(|kept| kept == about) {
        return Ok(ModelFiles::open(&folder)?.load(WeightFormat::Dense, &sparse.device)?);
    }
    let mut config = config.clone();
    // The sparse model's learning rate while it was dense.
    config.train.lr *= config.sparsity.target_density.sqrt();
    (config.sparsity.target_density, config.sparsity.embed_target_density) = (1.0, 1.0);
    if !args.keep_afrac {
        config.model.afrac = None;
    }
    let all = config.train.steps;
    for part in &args.parts {
        config.train.steps = (all / part.max(&1)).max(1);
        if let Some(model) = train_dense(&config, data, goal, &sparse.device)? {
            create_folder(&folder)?;
            model.save(&folder)?;
            write_atomic(&twin, |out| out.write_all(about.as_bytes()).map_err(|e| Error::io(&twin, e)))?;
            return Ok(model);
        }
    }
    bail!("a dense model does not reach the sparse one's validation loss of {:.4}", goal.loss)
}

/// What a dense model must reach, and where.
struct Goal {
    sequences: Vec<Vec<u32>>,
    loss: f64,
}

fn train_dense(config: &RunConfig, data: &RunData, goal: &Goal, device: &Device) -> Result<Option<Model>> {
    let steps = config.train.steps;
    let model = Model::new(config.model.clone(), config.run.seed, device)?;
    let mut trainer = Trainer::new(model, config.train.clone(), config.sparsity.clone())?;
    let every = (steps / 40).max(1);
    for done in 1..=steps {
        let batch = |tokens: &Vec<u32>| Batch::new(device, &config.model, tokens, config.train.batch_size);
        let batches =
            batches(config, &data.corpus.train, done - 1)?.iter().map(batch).collect::<Result<Vec<_>, _>>()?;
        let record = trainer.step(&batches)?;
        if (2 * done > steps && done % every == 0) || done == steps {
            trainer.numbers(&record)?;
            let loss =
                evaluate(&trainer.model, &goal.sequences, config.train.batch_size, false, &Observer::default())?.loss;
            if loss <= goal.loss {
                print(format_args!("dense:  validation loss {loss:.4} after {done} of {steps} steps"));
                return Ok(Some(trainer.model));
            }
            if done == steps {
                print(format_args!("dense:  validation loss {loss:.4} after all of {steps} steps: too few"));
            }
        }
    }
    Ok(None)
}

/// All circuits so far, and the file that keeps them.
struct Rows {
    path: PathBuf,
    rows: Mutex<Vec<Row>>,
}

impl Rows {
    /// Adds a task's circuits, and writes the file again: a later failure loses no hours of
    /// searching.
    fn add(&self, more: Vec<Row>) -> Result<()> {
        let mut rows = self.rows.lock().map_err(|_| anyhow!("another thread failed"))?;
        rows.extend(more);
        rows.sort_by(|a, b| (a.model, &a.task).cmp(&(b.model, &b.task)));
        write_csv(&self.path, &rows)
    }
}

/// The model of circuits, and how they are found.
#[derive(Clone, Copy)]
struct Kind {
    model: &'static str,
    ranking: Ranking,
}

fn circuits(args: &Args, kind: Kind, model: &Model, tokenizer: &Tokenizer, rows: &Rows) -> Result<()> {
    let length = model.config.block_size;
    let documents = gossamer::text::python::documents(0).map(Ok);
    let tokens = if args.quick { 64 * length } else { 65_536 };
    let sequences = gossamer::text::sequences::sequences(documents, tokenizer, length, tokens)?;
    let batches = sequences.iter().map(|s| Batch::new(&model.device, &model.config, s, 1));
    let means = means(model, batches, &model.config.sites(), true)?;
    let nodes = Nodes::new(Layout::new(&model.config), &means, &model.device)?;
    let search = CircuitSearch { model, nodes, tokenizer };
    let tasks = tasks::all()?;
    let done = parallel::map(&model.device, tasks.len(), |at| match task_rows(args, kind, &search, &tasks[at]) {
        Ok(found) => rows.add(found),
        Err(error) if is_answer(&error) => {
            print(format_args!("{}: {}: {error:#}", kind.model, tasks[at].name));
            Ok(())
        }
        Err(error) => Err(error),
    })?;
    done.into_iter().collect()
}

/// Whether the error means that the task has no circuit.
fn is_answer(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::UnreachableTarget { .. } | Error::UnsuitableTask { .. }))
}

/// A task's circuits at all target losses, with and without clean-up: of all prices of a node the
/// smallest.
fn task_rows(
    args: &Args,
    Kind { model: name, ranking }: Kind,
    search: &CircuitSearch,
    task: &Task,
) -> Result<Vec<Row>> {
    let task = task.clone().for_tokenizer(search.tokenizer)?;
    let loosest = args.targets.iter().copied().fold(f64::MIN, f64::max);
    let (steps, pairs) = if args.quick { (10, 8) } else { (args.steps, args.pairs) };
    // Swaps are for small circuits only: they would favour one model.
    let base = SearchSettings {
        steps,
        pairs,
        eval_pairs: 2 * pairs,
        lr: args.lr,
        target_loss: loosest,
        local_search_max: 0,
        ..SearchSettings::default()
    };
    let mut rows: Vec<Row> = Vec::new();
    // Attribution has no price.
    let k_coefs: &[f64] = if ranking == Ranking::Learned { &args.k_coefs } else { &[0.0] };
    for &k_coef in k_coefs {
        let settings = SearchSettings { k_coef, ..base.clone() };
        let scores = search.rank(&task, &settings, ranking, &|_| {})?;
        for &target in &args.targets {
            for clean in [false, true] {
                let settings = SearchSettings { target_loss: target, ..settings.clone() };
                let found = match search.choose(&task, &settings, scores.clone(), clean) {
                    Err(Error::UnreachableTarget { .. }) => continue,
                    found => found?,
                };
                let row = Row {
                    task: task.name.clone(),
                    model: name,
                    target,
                    clean,
                    k_coef,
                    nodes: found.keep.iter().filter(|kept| **kept).count(),
                    edges: graph(search.model, &search.nodes.layout, &found.keep)?.edges.len(),
                    loss: found.train.circuit,
                    held_out_loss: found.test.circuit,
                    ablated: found.test.ablated,
                };
                match rows.iter_mut().find(|other| (other.target, other.clean) == (target, clean)) {
                    Some(other) if (row.edges, row.nodes) < (other.edges, other.nodes) => *other = row,
                    Some(_) => {}
                    None => rows.push(row),
                }
            }
        }
    }
    for row in &rows {
        let how = if row.clean { ", cleaned" } else { "" };
        print(format_args!("{name}: {} at {}{how}: {} nodes, {} edges", row.task, row.target, row.nodes, row.edges));
    }
    Ok(rows)
}

fn write_csv(path: &Path, rows: &[Row]) -> Result<()> {
    let mut text = String::from("task,model,target_loss,clean_up,k_coef,nodes,edges,loss,held_out_loss,ablated_loss\n");
    for r in rows {
        writeln!(
            text,
            "{},{},{},{},{},{},{},{},{},{}",
            r.task, r.model, r.target, r.clean, r.k_coef, r.nodes, r.edges, r.loss, r.held_out_loss, r.ablated
        )?;
    }
    Ok(write_atomic(path, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io(path, e)))?)
}

/// Edges of one model's circuits at `target`, by task. A circuit without an edge counts as one
/// edge, so that means exist.
fn edges<'a>(rows: &'a [Row], model: &str, target: f64, clean: bool) -> BTreeMap<&'a str, f64> {
    let rows = rows.iter().filter(|r| r.model == model && r.target == target && r.clean == clean);
    rows.map(|r| (r.task.as_str(), r.edges.max(1) as f64)).collect()
}

/// The edges of the sparse model's circuits and of those of another kind, for each task that both
/// do at `target` and that takes edges.
fn both(rows: &[Row], other: &str, target: f64, clean: bool) -> Vec<(f64, f64)> {
    let (sparse, other) = (edges(rows, "sparse", target, clean), edges(rows, other, target, clean));
    let pairs = sparse.iter().filter_map(|(task, s)| Some((*s, *other.get(task)?)));
    pairs.filter(|pair| *pair != (1.0, 1.0)).collect()
}

fn geometric_mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), v| (sum + v.ln(), count + 1.0));
    (sum / count).exp()
}

/// Prints the ratio of edges over the tasks that both do at `target`.
fn report(rows: &[Row], other: &str, target: f64, clean: bool) {
    let mut ratios: Vec<f64> =
        both(rows, other, target, clean).into_iter().map(|(sparse, other)| other / sparse).collect();
    ratios.sort_by(f64::total_cmp);
    let how = if clean { "with clean-up" } else { "without clean-up" };
    match ratios[..] {
        [] => print(format_args!("target {target}, {how}: no task that both do and that takes edges ({other})")),
        [least, ..] => print(format_args!(
            "target {target}, {how}: {other} circuits have {:.1} times the edges (geometric mean of {} tasks, {least:.1} to {:.1}, median {:.1})",
            geometric_mean(ratios.iter().copied()),
            ratios.len(),
            ratios[ratios.len() - 1],
            ratios[ratios.len() / 2]
        )),
    }
}

/// Edges against task loss: every task's circuits after clean-up as dots, the geometric means over
/// shared tasks as lines.
fn chart(rows: &[Row], targets: &[f64]) -> Chart {
    let mut series = Vec::new();
    for (style, model) in ["sparse", "dense"].into_iter().enumerate() {
        let of = rows.iter().filter(|r| r.model == model && r.clean && r.edges > 0);
        let points = of.map(|r| (r.loss, r.edges as f64)).collect();
        series.push(Series::dots("", style, points).faint());
        for (clean, style) in [(true, style), (false, style + 2)] {
            let mean = |&target: &f64| {
                let shared = both(rows, "dense", target, clean);
                let edges = shared.iter().map(|&(sparse, dense)| if model == "sparse" { sparse } else { dense });
                (!shared.is_empty()).then(|| (target, geometric_mean(edges)))
            };
            let name = format!("{model}{}", if clean { "" } else { ", without clean-up" });
            series.push(Series::line(name, style, targets.iter().filter_map(mean).collect()));
        }
    }
    Chart {
        title: "Circuits of a sparse and of a dense model of equal loss".into(),
        x: Axis::log("task loss (nats)"),
        y: Axis::log("edges"),
        series,
    }
}
