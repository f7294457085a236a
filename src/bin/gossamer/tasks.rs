//! `gossamer tasks`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Subcommand;
use gossamer::Error;
use gossamer::circuits::prune::MAX_PAIRS;
use gossamer::circuits::tasks::{self, Split, Task};
use gossamer::circuits::{Calibration, TaskBatch};
use gossamer::files::check_output;
use gossamer::formats::Pretrained;
use gossamer::model::{NoHooks, Weights};
use gossamer::settings::count as bounded;
use gossamer::terminal::{Progress, screen};
use gossamer::text::notation::token;
use serde_json::json;

use crate::open::ModelArgs;


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
        /// Pairs from the held-out templates; a file gets both
        #[arg(long, conflicts_with = "save")]
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
        writeln!(out, "\n--- positive, then {}\n{}", token(&pair.target), pair.clean)?;
        writeln!(out, "--- negative, then {}\n{}", token(&pair.alternative), pair.counterfactual)?;
    }
    Ok(())
}

fn eval(args: &EvalArgs) -> Result<()> {
    let list = match args.task.is_empty() {
        true => tasks::all(),
        false => args.task.iter().map(|name| named(name)).collect::<Result<_>>()?,
    };
    let progress = Progress::new();
    progress.stage("opening the model");
    let opened = args.model.open()?;
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
            Ok([train, test]) => {
                if !args.json {
                    let cell = |score: &Score| format!("{:8.4}  {:5.1} %", score.loss, 100.0 * score.accuracy);
                    let answers = train.answers.map(|id| opened.show(id)).join(" | ");
                    print(&format!("{:28} {:24} {:>17} {:>17}", task.name, answers, cell(&train), cell(&test)))?;
                    for note in [&train, &test].into_iter().filter_map(|score| score.notes.as_ref()) {
                        print(&format!("{:28} {note}", ""))?;
                    }
                }
                let answers: Vec<_> = train.answers.iter().map(|&id| json!({ "token": id, "text": opened.token_text(id) })).collect();
                rows.push(json!({ "task": task.name, "answers": answers, "train": train.json(), "test": test.json() }));
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

/// What a model makes of the pairs of one split.
struct Score {
    loss: f64,
    accuracy: f64,
    pairs: usize,
    cropped: u64,
    notes: Option<String>,
    /// Of the first pair.
    answers: [u32; 2],
}

impl Score {
    fn json(&self) -> serde_json::Value {
        let Self { loss, accuracy, pairs, cropped, .. } = self;
        json!({ "loss": loss, "accuracy": accuracy, "pairs": pairs, "cropped_prompts": cropped })
    }
}

/// The scores on train and on test pairs.
fn one(args: &EvalArgs, opened: &Pretrained, task: Task) -> Result<[Score; 2]> {
    let model = &opened.model;
    let task = task.for_tokenizer(opened.tokenizer()?)?;
    let longest = model.config.block_size;
    let tokenizer = opened.tokenizer()?;
    let batch = |split| tasks::batch(&task, split, args.seed, 0, args.pairs, tokenizer, longest);
    let batches = [batch(Split::Train)?, batch(Split::Test)?];
    let score = |batch: &tasks::PairBatch| -> Result<Score> {
        let task_batch = TaskBatch::new(model, &batch.tokens)?;
        let got = task_batch.logit_diffs(model, &Weights::constant(model, &[]), &mut NoHooks)?;
        let plain = Calibration::default();
        Ok(Score {
            loss: got.loss(plain),
            accuracy: got.accuracy(plain),
            pairs: batch.tokens.len(),
            cropped: batch.cropped,
            notes: batch.notes(),
            answers: batch.tokens.first().map_or([0, 0], |pair| [pair.target, pair.alternative]),
        })
    };
    Ok([score(&batches[0])?, score(&batches[1])?])
}
