//! `gossamer tasks`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Subcommand;
use crate::circuits::prune::MAX_PAIRS;
use crate::circuits::tasks::{self, Split, Task};
use crate::files::check_output;
use crate::pipelines::{TaskEvaluation, evaluate_task};
use crate::settings::count as bounded;
use crate::terminal::{Progress, screen};
use crate::text::notation::token;

use crate::cli::ContextArgs;
use super::open::{JsonArgs, ModelArgs};

#[derive(Subcommand)]
pub enum Args {
    /// All built-in tasks, a line each
    List,
    /// Some pairs of a task
    Show {
        /// A task's name, or a .toml or .jsonl file
        task: String,
        /// How many pairs
        #[arg(long, default_value_t = 3, value_parser = bounded::<u64>(1, 1_000_000))]
        count: u64,
        #[command(flatten)]
        context: ContextArgs,
        /// Pairs from the held-out templates; --save writes both
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
pub struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A task's name, or a .toml or .jsonl file; may be repeated [default: all built-in ones]
    #[arg(long, value_name = "TASK", num_args = 1..)]
    task: Vec<String>,
    #[command(flatten)]
    context: ContextArgs,
    /// Pairs of each split
    #[arg(long, default_value_t = 128, value_parser = bounded::<usize>(1, MAX_PAIRS))]
    pairs: usize,
    /// Which pairs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    output: JsonArgs,
}

pub fn run(args: &Args) -> Result<()> {
    match args {
        Args::List => list(),
        Args::Show { task, count, context, test, seed, save } => {
            let task = context.of(tasks::open(task)?)?;
            show(&task, *count, if *test { Split::Test } else { Split::Train }, *seed, save.as_deref())
        }
        Args::Eval(args) => eval(args),
    }
}

fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for task in tasks::all()? {
        writeln!(out, "{:28} {}", task.name, task.description)?;
    }
    Ok(())
}

fn show(task: &Task, count: u64, split: Split, seed: u64, save: Option<&Path>) -> Result<()> {
    let mut out = screen(&[save])?;
    if let Some(path) = save {
        check_output(path)?;
        task.save(path, 0, seed, count)?;
        return Ok(writeln!(out, "{}", path.display())?);
    }
    writeln!(out, "{}: {}", task.title, task.description)?;
    for index in 0..count {
        let pair = task.pair(split, seed, index);
        writeln!(out, "\n--- clean, then {}\n{}", token(&pair.target), pair.clean)?;
        writeln!(out, "--- counterfactual, then {}\n{}", token(&pair.alternative), pair.counterfactual)?;
    }
    Ok(())
}

fn eval(args: &EvalArgs) -> Result<()> {
    let list = match &args.task[..] {
        [] => tasks::all()?,
        names => names.iter().map(|name| tasks::open(name)).collect::<Result<Vec<_>, _>>()?,
    };
    let list: Vec<Task> = list.into_iter().map(|task| args.context.of(task)).collect::<Result<_, _>>()?;
    let (progress, json) = (Progress::new(), args.output.json);
    let model = args.model.open(&progress)?;
    progress.stage("evaluating tasks");
    let print = |line: &str| progress.aside(|| writeln!(std::io::stdout(), "{line}"));
    let table = TaskEvaluation::table();
    if !json {
        print(&table.heading())?;
    }
    let mut rows = Vec::new();
    for (done, task) in list.iter().enumerate() {
        progress.at(done as u64, list.len() as u64, task.title.clone());
        let row = evaluate_task(&model, task, args.pairs, args.seed)?;
        if !json {
            print(&row.text(&table))?;
        }
        rows.push(row);
    }
    if json {
        print(&serde_json::to_string_pretty(&rows)?)?;
    }
    if rows.iter().all(|row| row.error.is_some()) {
        bail!("none of the {} tasks could be evaluated", rows.len());
    }
    Ok(())
}
