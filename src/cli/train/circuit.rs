//! `train circuit`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::Error;
use crate::circuits::pipeline::{SearchEvent, SearchObserver, SearchRequest, TaskOutcome, search_circuits};
use crate::circuits::prune::SearchSettings;
use crate::circuits::search::{Ranking, SearchPlan};
use crate::circuits::{Node, tasks};
use crate::cli::{ContextArgs, FieldArgs};
use crate::device::Device;
use crate::formats::{FindOptions, ModelFiles};
use crate::model::WeightFormat;
use crate::pipelines::{search_row, search_table};
use crate::settings::{count, split};
use crate::sweep::Shard;
use crate::terminal::{Progress, print, signals};
use anyhow::{Context, Result, bail};

#[derive(clap::Args)]
pub struct Args {
    /// A run, a checkpoint, a Hugging Face folder, a published folder, or a Hub id
    model: String,
    /// A task by name (`gossamer tasks list`), a .toml or .jsonl file, or `all`; may be repeated
    #[arg(long, value_name = "TASK", required = true, num_args = 1..)]
    task: Vec<String>,
    /// Where circuits go, as TASK.json [default: MODEL/circuits]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Settings of the search, such as k_coef=1e-3, with spaces between several
    /// (`train --settings`); may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The task loss that a circuit must reach
    #[arg(long)]
    target_loss: Option<f64>,
    /// Try N random settings around the given ones and near the best; keep the smallest circuit,
    /// and list all in TASK.trials.csv
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = count::<u64>(0, 100_000))]
    tune: u64,
    /// Try settings until that many minutes have passed for a task (with --tune: at most N)
    #[arg(long, value_name = "MINUTES", default_value_t = 0.0)]
    tune_minutes: f64,
    /// Find up to N circuits of a task, each without the nodes of those before; they go to
    /// TASK.2.json and so on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count::<u64>(1, 1_000_000))]
    disjoint: u64,
    /// A node that no circuit may keep, such as 0.attn.v[5]; may be repeated
    #[arg(long, value_name = "NODE", num_args = 1..)]
    exclude: Vec<Node>,
    /// How nodes are ranked: `learned` gates, or the baselines `attribution` and
    /// `integrated-gradients`
    #[arg(long, value_enum, default_value = "learned")]
    ranking: Ranking,
    /// Keep nodes that the loss would not miss
    #[arg(long)]
    no_clean_up: bool,
    /// Let edges carry constants, too, where the loss stays within its limit
    #[arg(long)]
    prune_edges: bool,
    /// Text that mean activations are taken over [default: generated Python]; may be repeated
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    field: FieldArgs,
    /// Tokens that mean activations are taken over
    #[arg(long, default_value_t = SearchRequest::MEAN_TOKENS, value_parser = count::<usize>(1, 1_000_000_000))]
    mean_tokens: usize,
    /// A tokenizer.json, if the model comes without one
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// auto, cpu, gpu, gpu:INDEX or gpu:PART-OF-A-NAME (see `gossamer devices`)
    #[arg(long, default_value = "auto")]
    device: String,
    /// Do only this part of the tasks, such as 0/3, 1/3 or 2/3, without those that were done before
    #[arg(long, value_name = "INDEX/COUNT")]
    shard: Option<Shard>,
    /// Do not go to the network
    #[arg(long)]
    offline: bool,
}

impl Args {
    fn request(&self) -> Result<SearchRequest> {
        let mut settings = SearchSettings::default();
        self.set.iter().flat_map(|text| split(text)).try_for_each(|assignment| settings.set(&assignment))?;
        settings.target_loss = self.target_loss.unwrap_or(settings.target_loss);
        let tasks = self.task.iter().map(|name| tasks::open_all(name)).collect::<Result<Vec<_>, _>>()?.concat();
        Ok(SearchRequest {
            tasks: tasks.into_iter().map(|task| self.context.of(task)).collect::<Result<_, _>>()?,
            plan: SearchPlan {
                settings,
                ranking: self.ranking,
                clean_up: !self.no_clean_up,
                prune_edges: self.prune_edges,
                trials: self.tune,
                minutes: self.tune_minutes,
            },
            disjoint: self.disjoint,
            exclude: self.exclude.clone(),
            data: self.field.source(&self.data, self.offline),
            mean_tokens: self.mean_tokens,
            folder: match (&self.out, Path::new(&self.model)) {
                (Some(out), _) => out.clone(),
                (None, model) if model.is_dir() => model.join("circuits"),
                (None, _) => PathBuf::from("circuits"),
            },
            model_path: self.model.clone(),
            skip_finished: self.is_part(),
        })
    }

    /// Whether it is one of several that share the tasks without talking to each other.
    pub fn is_part(&self) -> bool {
        self.shard.is_some()
    }
}

pub fn run(args: &Args) -> Result<()> {
    let mut request = args.request()?;
    request.validate()?;
    let mut at = 0..;
    request.tasks.retain(|_| args.shard.is_none_or(|shard| at.next().is_some_and(|at| shard.has(at))));
    let progress = Progress::new();
    progress.stage("opening the model");
    let options = FindOptions { offline: args.offline, tokenizer: args.tokenizer.clone(), ..FindOptions::default() };
    let model =
        ModelFiles::find(&args.model, &options)?.pretrained(WeightFormat::Sparse, &Device::open(&args.device)?)?;
    progress.stage("measuring mean activations");

    let table = search_table();
    let print = |line: String| progress.aside(|| print(line));
    let parts = Mutex::new(BTreeMap::new());
    let part = |name: &str| parts.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    let on_event = |event: SearchEvent<'_>| match event {
        SearchEvent::Means(stage) => drop(progress.observer().advance(stage)),
        SearchEvent::Searching => {
            progress.clear();
            print(table.heading());
        }
        SearchEvent::Note(note) => progress.say(format!("note: {note}")),
        SearchEvent::Skipped(task) => print(format!("{task:28} was done before")),
        SearchEvent::Step { name, done, total, step } => {
            let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
            let part = parts.entry(name.to_string()).or_insert_with(|| progress.part(name));
            if let Some(step) = step {
                let what = if done < total { "learning gates" } else { "choosing the smallest circuit" };
                part.at(done, total, format!("{what}, loss {:.3}, {} nodes", step.loss, step.kept));
            }
        }
        SearchEvent::Circuit { name, circuit, took } => {
            drop(part(name));
            print(table.line(&search_row(name, circuit, took)));
        }
        SearchEvent::NotFound { name, further, error } => {
            drop(part(name));
            if further {
                print(format!("{name}: without the circuits before it {error}"));
            } else if !matches!(error, Error::Stopped) {
                progress.say(format!("{name}: {error}"));
            }
        }
    };
    let observer = SearchObserver { stop: signals::stop().clone(), on_event: &on_event };
    let outcomes = search_circuits(&model.model, model.tokenizer()?, &request, &observer)?;
    conclude(args, &request, &progress, outcomes)
}

/// Prints what came of all tasks.
fn conclude(args: &Args, request: &SearchRequest, progress: &Progress, outcomes: Vec<TaskOutcome>) -> Result<()> {
    let count = |has: fn(&TaskOutcome) -> bool| outcomes.iter().filter(|outcome| has(outcome)).count();
    let all = outcomes.len();
    if all == 0 || count(|outcome| matches!(outcome, TaskOutcome::Circuits(_))) > 0 {
        let folder = request.folder.display();
        progress.aside(|| print(format!("\ncircuits are in {folder}; losses are those on held-out pairs")));
    }
    let stopped = count(|outcome| matches!(outcome, TaskOutcome::Failed(Error::Stopped)));
    if stopped > 0 {
        progress.say(format!("stopped before {stopped} of {all} tasks were done"));
        return Err(Error::Stopped.into());
    }
    let none = count(|outcome| matches!(outcome, TaskOutcome::None(_)));
    let mut errors: Vec<Error> = outcomes.into_iter().filter_map(TaskOutcome::failure).collect();
    match errors.len() {
        0 => {}
        failed => return Err(errors.remove(0)).context(format!("{failed} of {all} tasks could not be done")),
    }
    match none {
        // A part of the tasks may well be those without a circuit.
        1.. if none == all && args.shard.is_none() => bail!("no circuit was found"),
        1.. => progress.say(format!("{none} of {all} tasks have no circuit")),
        0 => {}
    }
    Ok(())
}
