//! `gossamer tasks`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Subcommand;
use gossamer::Error;
use gossamer::circuits::prune::MAX_PAIRS;
use gossamer::circuits::tasks::{self, Split, Task};
use gossamer::circuits::{Calibration, Questions};
use gossamer::files::check_output;
use gossamer::model::Weights;
use gossamer::settings::count as bounded;
use gossamer::terminal::Progress;
use serde_json::json;

use crate::open::{ModelArgs, Opened};
use crate::output::screen;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// All built-in tasks, a line each
    List,
    /// Some pairs of a task
    Show {
        /// A task's name, or a .jsonl file
        task: String,
        /// How many pairs
        #[arg(long, default_value_t = 3, value_parser = bounded::<u64>(1, 1_000_000))]
        count: u64,
        /// Pairs from the held-out templates
        #[arg(long)]
        test: bool,
        /// Which pairs
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Write them to this .jsonl file instead
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
    /// How well a model does the tasks: loss and accuracy on train and test pairs
    Eval(EvalArgs),
}

#[derive(clap::Args)]
struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A task's name, or a .jsonl file; may be repeated [default: all twenty]
    #[arg(long, value_name = "TASK", num_args = 1..)]
    task: Vec<String>,
    /// Pairs of each split
    #[arg(long, default_value_t = 128, value_parser = bounded::<usize>(1, MAX_PAIRS))]
    pairs: usize,
    /// Which pairs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::List => list(),
        Command::Show { task, count, test, seed, save } => {
            show(&named(task)?, *count, if *test { Split::Test } else { Split::Train }, *seed, save.as_deref())
        }
        Command::Eval(args) => eval(args),
    }
}

pub fn named(name: &str) -> Result<Task> {
    Ok(match name.ends_with(".jsonl") {
        true => Task::from_file(Path::new(name))?,
        false => tasks::find(name)?,
    })
}

fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for task in tasks::all() {
        writeln!(out, "{:28} {}", task.name, task.description)?;
    }
    Ok(())
}

fn show(task: &Task, count: u64, split: Split, seed: u64, save: Option<&Path>) -> Result<()> {
    if count == 0 {
        bail!("nothing to show: --count must be at least 1");
    }
    let mut out = screen(&[save])?;
    if let Some(path) = save {
        check_output(path)?;
        task.save(path, 0, seed, count)?;
        writeln!(out, "{}", path.display())?;
        return Ok(());
    }
    writeln!(out, "{}: {}", task.name, task.description)?;
    for index in 0..count {
        let pair = task.pair(split, seed, index);
        writeln!(out, "\n--- positive, then {:?}\n{}", pair.target, pair.positive)?;
        writeln!(out, "--- negative, then {:?}\n{}", pair.alternative, pair.negative)?;
    }
    Ok(())
}

fn eval(args: &EvalArgs) -> Result<()> {
    let progress = Progress::new();
    progress.stage("opening the model");
    let opened = args.model.open()?;
    let list = match args.task.is_empty() {
        true => tasks::all(),
        false => args.task.iter().map(|name| named(name)).collect::<Result<_>>()?,
    };
    progress.stage("evaluating tasks");
    let print = |line: &str| progress.aside(|| writeln!(std::io::stdout(), "{line}"));
    if !args.json {
        print(&format!("{:28} {:24} {:>17} {:>17}", "task", "answers", "train", "test"))?;
        print(&format!("{:28} {:24} {:>17} {:>17}", "", "", "loss  accuracy", "loss  accuracy"))?;
    }
    let (mut rows, mut failed) = (Vec::new(), 0);
    for (done, task) in list.iter().enumerate() {
        progress.at(done as u64, list.len() as u64, task.name.clone());
        match one(args, &opened, task.clone()) {
            Ok((answers, [train, test])) => {
                if !args.json {
                    let cell = |(loss, accuracy): (f64, f64)| format!("{loss:8.4}  {:5.1} %", 100.0 * accuracy);
                    print(&format!("{:28} {:24} {:>17} {:>17}", task.name, answers, cell(train), cell(test)))?;
                }
                rows.push(json!({ "task": task.name, "answers": answers,
                    "train": { "loss": train.0, "accuracy": train.1 }, "test": { "loss": test.0, "accuracy": test.1 } }));
            }
            // Of the model, not of the task.
            Err(error) if matches!(error.downcast_ref(), Some(Error::NonFiniteSite { .. })) => return Err(error),
            Err(error) => {
                failed += 1;
                if !args.json {
                    print(&format!("{:28} {error}", task.name))?;
                }
                rows.push(json!({ "task": task.name, "error": error.to_string() }));
            }
        }
    }
    if args.json {
        print(&serde_json::to_string_pretty(&rows)?)?;
    }
    if failed == list.len() {
        bail!("none of the {failed} tasks could be evaluated");
    }
    Ok(())
}

type Score = (f64, f64);

/// The answers that the tokenizer takes, and loss and accuracy on train and on test pairs.
fn one(args: &EvalArgs, opened: &Opened, task: Task) -> Result<(String, [Score; 2])> {
    let model = &opened.model;
    let task = task.fitted(opened.tokenizer()?)?;
    let mut answers = String::new();
    let mut scores = [(0.0, 0.0); 2];
    for (score, split) in scores.iter_mut().zip([Split::Train, Split::Test]) {
        let longest = model.config.block_size;
        let batch = tasks::batch(&task, split, args.seed, 0, args.pairs, opened.tokenizer()?, longest)?;
        let questions = Questions::new(model, &batch.tokens)?;
        let got = questions.answers(model, &Weights::constant(model, &[]), &mut ())?;
        *score = (got.loss(Calibration::default()), got.accuracy(Calibration::default()));
        if let Some(pair) = batch.tokens.first() {
            answers = format!("{} | {}", opened.show(pair.target), opened.show(pair.alternative));
        }
    }
    Ok((answers, scores))
}
