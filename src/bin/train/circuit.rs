//! `train circuit`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::finished::Finished;
use anyhow::{Context, Result, bail};
use gossamer::Error;
use gossamer::circuits::prune::{self, SearchSettings};
use gossamer::circuits::search::{CircuitSearch, Ranking, SearchResult};
use gossamer::circuits::tasks::{self, Split, Task};
use gossamer::circuits::tune::tune;
use gossamer::circuits::{Layout, MEANS, Nodes, lock, parallel, text_means};
use gossamer::device::Device;
use gossamer::files::{check_output_folder, create_folder};
use gossamer::formats::{FindOptions, ModelFiles};
use gossamer::model::WeightFormat;
use gossamer::settings::{count, split};
use gossamer::sweep::Shard;
use gossamer::terminal::{Progress, print, signals};
use gossamer::text::tokenizer::Tokenizer;

#[derive(clap::Args)]
pub struct Args {
    /// A run, a checkpoint, a Hugging Face folder, a published folder, or a Hub id
    model: String,
    /// A task by name (`gossamer tasks list`), a .jsonl file of pairs, or `all`; may be repeated
    #[arg(long, value_name = "TASK", required = true, num_args = 1..)]
    task: Vec<String>,
    /// Where circuits go, as TASK.json [default: MODEL/circuits]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// One setting of the search, such as k_coef=1e-3, or several with spaces between them (`train --settings`); may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The task loss that a circuit must reach
    #[arg(long)]
    target_loss: Option<f64>,
    /// Try N random settings around the given ones and keep the smallest circuit
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = count::<u64>(0, 100_000))]
    tune: u64,
    /// Find up to N circuits a task, each without the nodes of those before; they go to TASK.2.json and so on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count::<u64>(1, 1_000_000))]
    disjoint: u64,
    /// How nodes are ranked: `learned` gates, or the `attribution` baseline
    #[arg(long, value_enum, default_value = "learned")]
    ranking: RankingArg,
    /// Keep nodes that the loss would not miss
    #[arg(long)]
    no_clean_up: bool,
    /// Text that mean activations are taken over [default: generated Python]; may be repeated
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    /// Tokens that mean activations are taken over
    #[arg(long, default_value_t = 65_536, value_parser = count::<usize>(1, 1_000_000_000))]
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

#[derive(Clone, Copy, clap::ValueEnum)]
enum RankingArg {
    Learned,
    Attribution,
}

impl Args {
    fn settings(&self) -> Result<SearchSettings> {
        let mut settings = SearchSettings::default();
        self.set.iter().flat_map(|text| split(text)).try_for_each(|assignment| settings.set(&assignment))?;
        settings.target_loss = self.target_loss.unwrap_or(settings.target_loss);
        settings.validate()?;
        Ok(settings)
    }

    fn tasks(&self) -> Result<Vec<Task>> {
        let mut list = Vec::new();
        for name in &self.task {
            match name.as_str() {
                "all" => list.extend(tasks::all()),
                file if file.ends_with(".jsonl") => list.push(Task::from_file(Path::new(file))?),
                name => list.push(tasks::find(name)?),
            }
        }
        let mut names: Vec<_> = list.iter().map(|task| &task.name).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            bail!("two tasks are called {}: their circuits would have one file", pair[0]);
        }
        Ok(list)
    }

    /// All that a task's circuits depend on.
    fn question(&self, settings: &SearchSettings, hash: &str) -> serde_json::Value {
        serde_json::json!({
            "model": hash,
            "settings": settings,
            "tune": self.tune,
            "disjoint": self.disjoint,
            "attribution": matches!(self.ranking, RankingArg::Attribution),
            "clean_up": !self.no_clean_up,
            "data": self.data,
            "mean_tokens": self.mean_tokens,
            "tasks": tasks::VERSION,
        })
    }

    /// Whether it is one of several that share the tasks without talking to each other.
    pub fn is_part(&self) -> bool {
        self.shard.is_some()
    }

    fn folder(&self) -> PathBuf {
        match (&self.out, Path::new(&self.model)) {
            (Some(out), _) => out.clone(),
            (None, model) if model.is_dir() => model.join("circuits"),
            (None, _) => PathBuf::from("circuits"),
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let (settings, tasks, folder) = (args.settings()?, args.tasks()?, args.folder());
    if args.tune > 0 && matches!(args.ranking, RankingArg::Attribution) {
        bail!("--tune tries settings of the learned gates, which --ranking attribution does not use: leave one away");
    }
    check_output_folder(&folder)?;
    let progress = Progress::new();
    progress.stage("opening the model");
    let files = ModelFiles::find(&args.model, &FindOptions { offline: args.offline, ..FindOptions::default() })?;
    let tokenizer = args.tokenizer.as_ref().or(files.tokenizer.as_ref());
    let tokenizer = tokenizer.context("the model comes without a tokenizer.json: name one with --tokenizer")?;
    let tokenizer = Tokenizer::load(tokenizer)?;
    let device = Device::open(&args.device)?;
    let model = files.load(WeightFormat::Sparse, &device)?;
    create_folder(&folder)?;
    let hash = model.hash()?;
    let longest = settings.max_length.min(model.config.block_size);
    // The means take longer than the pairs, without which nobody wants them.
    let nodes = match tasks.iter().any(|task| check(task, &settings, &tokenizer, longest).is_ok()) {
        false => None,
        true => {
            progress.stage("measuring mean activations");
            let path = folder.join(MEANS);
            let means = text_means(&model, &tokenizer, &args.data, args.mean_tokens, &path, &progress.observer())?;
            progress.clear();
            let mut nodes = Nodes::new(Layout::new(&model.config), &means, &device)?;
            nodes.stop = signals::stop().clone();
            Some(nodes)
        }
    };
    let circuit_search = nodes.map(|nodes| CircuitSearch { model: &model, nodes, tokenizer: &tokenizer });

    let finished = Finished::new(&folder, args.question(&settings, &hash))?;
    let (mut at, mut tasks) = (0.., tasks);
    tasks.retain(|_| args.shard.is_none_or(|shard| at.next().is_some_and(|at| shard.has(at))));
    let search = Search { args, settings: &settings, path: &args.model, hash: &hash, folder: &folder, progress };
    search.print("task                          loss    →  circuit  ablated   nodes  edges   seconds");
    if args.is_part() {
        tasks.retain(|task| {
            let done = finished.has(&task.name);
            if done {
                search.print(&format!("{:28} was done before", task.name));
            }
            !done
        });
    }
    let answer = |at: usize| search.answer(circuit_search.as_ref(), (&tokenizer, longest), &tasks[at], &finished);
    let found = parallel::map(&device, tasks.len(), answer)?;
    search.conclude(found)
}

fn is_stop(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Stopped))
}

/// What is to be known of a task's pairs, if there are any of both splits.
fn check(task: &Task, settings: &SearchSettings, tokenizer: &Tokenizer, longest: usize) -> Result<Vec<String>> {
    let task = task.clone().for_tokenizer(tokenizer)?;
    let pairs = |split| tasks::batch(&task, split, settings.seed, 0, settings.eval_pairs, tokenizer, longest);
    let notes = [pairs(Split::Train)?, pairs(Split::Test)?].map(|batch| batch.notes());
    Ok(notes.into_iter().flatten().collect())
}

/// Whether it says that the task has no circuit. Any other error says nothing about the task.
fn is_answer(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::UnreachableTarget { .. } | Error::UnsuitableTask { .. }))
}

/// What a search says of a task: a circuit, none, or an error that says nothing about it.
type Answer = Result<bool>;

/// What the searches for all tasks have in common.
struct Search<'a> {
    args: &'a Args,
    settings: &'a SearchSettings,
    path: &'a str,
    hash: &'a str,
    folder: &'a Path,
    progress: Progress,
}

impl Search<'_> {
    /// Looks for a task's circuit, and remembers what came out. `finder` is there if any task has pairs, whose prompts have up to
    /// `longest` tokens.
    fn answer(
        &self,
        search: Option<&CircuitSearch>,
        (tokenizer, longest): (&Tokenizer, usize),
        task: &Task,
        finished: &Finished,
    ) -> Answer {
        if signals::stop().load(Ordering::Relaxed) {
            return Err(Error::Stopped.into());
        }
        let name = &task.name;
        let _lock = lock(self.folder, name).inspect_err(|error| self.say(&format!("{name}: {error}")))?;
        finished.forget(name)?;
        let found = check(task, self.settings, tokenizer, longest).and_then(|notes| {
            notes.iter().for_each(|note| self.say(&format!("note: {name}: {note}")));
            self.task(search.context("there are no mean activations")?, task)
        });
        let without = match found {
            Ok(()) => None,
            Err(error) if is_answer(&error) => {
                self.say(&format!("{name}: {error:#}"));
                self.remove(name, 1)?;
                Some(error.to_string())
            }
            Err(error) => {
                if !is_stop(&error) {
                    self.say(&format!("{name}: {error:#}"));
                }
                return Err(error);
            }
        };
        finished.mark(name, without.clone())?;
        Ok(without.is_none())
    }

    /// Says what came out of all tasks.
    fn conclude(&self, answers: Vec<Answer>) -> Result<()> {
        let (all, circuits) = (answers.len(), answers.iter().filter(|answer| matches!(answer, Ok(true))).count());
        let stopped = answers.iter().filter(|answer| answer.as_ref().is_err_and(is_stop)).count();
        let failed = answers.iter().filter(|answer| answer.is_err()).count() - stopped;
        let without = all - circuits - failed - stopped;
        if circuits > 0 || all == 0 {
            self.print(&format!("\ncircuits are in {}; losses are those on held-out pairs", self.folder.display()));
        }
        if stopped > 0 {
            self.say(&format!("stopped before {stopped} of {all} tasks were done"));
            return Err(Error::Stopped.into());
        }
        if let Some(error) = answers.into_iter().find_map(Result::err) {
            return Err(error.context(format!("{failed} of {all} tasks could not be done")));
        }
        match without {
            0 => Ok(()),
            // A part of the tasks may well be those without one.
            n if n == all && self.args.shard.is_none() => bail!("no circuit was found"),
            n => {
                self.say(&format!("{n} of {all} tasks have no circuit"));
                Ok(())
            }
        }
    }

    fn say(&self, line: &str) {
        self.progress.say(line);
    }

    /// Finds and saves a task's circuit, and as many more as are wanted that share no node with those before.
    fn task(&self, search: &CircuitSearch, task: &Task) -> Result<()> {
        let mut keep = self.circuit(search, task, &task.name)?;
        let mut rest = CircuitSearch { nodes: search.nodes.clone(), ..*search };
        let mut number = 1;
        // A circuit without nodes would be found for ever.
        while number < self.args.disjoint && keep.contains(&true) {
            rest.nodes = rest.nodes.excluding(&keep);
            number += 1;
            keep = match self.circuit(&rest, task, &format!("{}.{number}", task.name)) {
                Ok(keep) => keep,
                Err(error) if matches!(error.downcast_ref(), Some(Error::UnreachableTarget { .. })) => {
                    number -= 1;
                    self.print(&format!("{}: without those circuits {error:#}", task.name));
                    break;
                }
                Err(error) => return Err(error),
            };
        }
        // Those of an earlier search share nodes with the new ones.
        self.remove(&task.name, number + 1)
    }

    /// Removes an earlier search's circuits of a task from the `first` on.
    fn remove(&self, task: &str, first: u64) -> Result<()> {
        for number in first.. {
            let name = if number == 1 { task.to_string() } else { format!("{task}.{number}") };
            let path = self.folder.join(format!("{name}.json"));
            match fs::remove_file(&path) {
                Ok(()) => {}
                // The first may be gone where others are left.
                Err(e) if e.kind() == ErrorKind::NotFound && number == 1 => {}
                Err(e) if e.kind() == ErrorKind::NotFound => break,
                Err(e) => return Err(Error::io(path, e).into()),
            }
        }
        Ok(())
    }

    fn print(&self, line: &str) {
        self.progress.aside(|| print(line));
    }

    /// Finds a circuit, saves it as `name`, and says which nodes it keeps.
    fn circuit(&self, search: &CircuitSearch, task: &Task, name: &str) -> Result<Vec<bool>> {
        let start = Instant::now();
        let ranking = match self.args.ranking {
            RankingArg::Learned => Ranking::Learned,
            RankingArg::Attribution => Ranking::Attribution,
        };
        let part = self.progress.part(name);
        let steps = self.settings.steps.saturating_mul(self.args.tune.saturating_add(1));
        let done = AtomicU64::new(0);
        let watch = |step: prune::PruningStep| {
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            let what = if done < steps { "learning gates" } else { "choosing the smallest circuit" };
            part.at(done, steps, format!("{what}, loss {:.3}, {} nodes", step.loss, step.kept));
        };
        let clean_up = !self.args.no_clean_up;
        let (found, settings): (SearchResult, SearchSettings) = match self.args.tune {
            0 => (search.run(task, self.settings, ranking, clean_up, &watch)?, self.settings.clone()),
            trials => tune(search, task, self.settings, trials, clean_up, &watch)?,
        };
        drop(part);
        let circuit = search.describe(task, &found, &settings, self.path, self.hash)?;
        circuit.save(self.folder.join(format!("{name}.json")))?;
        let (test, counts) = (&circuit.losses.test, &circuit.counts);
        self.print(&format!(
            "{name:28} {:7.4} → {:8.4} {:8.4} {:7} {:6} {:9.1}",
            test.model,
            test.circuit,
            test.ablated,
            counts.nodes,
            counts.edges,
            start.elapsed().as_secs_f64()
        ));
        Ok(found.keep)
    }
}
