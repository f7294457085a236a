//! The search for the circuits of several tasks, from a model to the files in a folder.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::finished::Finished;
use super::prune::{PruningStep, SearchSettings};
use super::search::{CircuitSearch, SearchPlan};
use super::tasks::{self, Split, Task};
use super::tune::write_trials;
use super::{Circuit, Layout, MEANS, Node, Nodes, lock, parallel, text_means};
use crate::files::{check_output_folder, create_folder};
use crate::model::Model;
use crate::observer::{Observer, Stage};
use crate::text::source::Source;
use crate::text::tokenizer::Tokenizer;
use crate::{Error, Result};

/// Which circuits to search for, and how.
#[derive(Clone, Debug)]
pub struct SearchRequest {
    /// The tasks, of different names.
    pub tasks: Vec<Task>,
    /// How a task's circuit is searched for.
    pub plan: SearchPlan,
    /// How many circuits to search for in each task, each without the nodes of those before.
    pub disjoint: u64,
    /// Nodes that no circuit may keep.
    pub exclude: Vec<Node>,
    /// Text to take mean activations over; generated Python if it names none.
    pub data: Source,
    /// Tokens to take mean activations over.
    pub mean_tokens: usize,
    /// Where circuits go, as `TASK.json`, `TASK.2.json` and so on.
    pub folder: PathBuf,
    /// Where the model is, for the files.
    pub model_path: String,
    /// Whether tasks are skipped that an earlier call with the same request finished.
    pub skip_finished: bool,
}

impl SearchRequest {
    /// Tokens that mean activations are taken over by default.
    pub const MEAN_TOKENS: usize = 65_536;

    /// Returns an error if the request contradicts itself, or the folder cannot be written to.
    ///
    /// # Errors
    /// Returns [`Error::Request`], [`Error::Config`], or those of [`check_output_folder`].
    pub fn validate(&self) -> Result<()> {
        self.plan.validate()?;
        let mut names: Vec<_> = self.tasks.iter().map(|task| &task.title).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let message = format!("two tasks are called {}: their circuits would have one file", pair[0]);
            return Err(Error::Request(message));
        }
        check_output_folder(&self.folder)
    }

    /// Everything that a task's circuits depend on.
    fn key(&self, task: &Task, model: &str) -> serde_json::Value {
        serde_json::json!({
            "model": model,
            "settings": self.plan.settings,
            "tune": self.plan.trials,
            "tune_minutes": self.plan.minutes,
            "disjoint": self.disjoint,
            "exclude": self.exclude,
            "ranking": self.plan.ranking,
            "clean_up": self.plan.clean_up,
            "prune_edges": self.plan.prune_edges,
            "data": self.data.key(),
            "mean_tokens": self.mean_tokens,
            "task": task.hash,
        })
    }
}

/// What happens during a search.
pub enum SearchEvent<'a> {
    /// Mean activations are measured.
    Means(&'a Stage<'a>),
    /// The searches begin.
    Searching,
    /// A message about a task.
    Note(String),
    /// A task was finished by an earlier call.
    Skipped(&'a str),
    /// A step of pruning for the circuit `name`, the first of which comes before any work.
    Step {
        /// The circuit's name.
        name: &'a str,
        /// Steps done, in all trials; with a budget of minutes the seconds that have passed.
        done: u64,
        /// Steps of all trials, or the seconds there are.
        total: u64,
        /// The step; nothing before the first.
        step: Option<PruningStep>,
    },
    /// A circuit was found and written.
    Circuit {
        /// Its name, and its file's without `.json`.
        name: &'a str,
        /// The circuit.
        circuit: &'a Circuit,
        /// How long the search took.
        took: Duration,
    },
    /// No circuit was found.
    NotFound {
        /// The name that its file would have.
        name: &'a str,
        /// Whether circuits of the same task were found before.
        further: bool,
        /// Why.
        error: &'a Error,
    },
}

/// Who watches a search, and ends it.
pub struct SearchObserver<'a> {
    /// Ends the search with [`Error::Stopped`] once it is set.
    pub stop: Arc<AtomicBool>,
    /// Called at each event, from any thread.
    pub on_event: &'a (dyn Fn(SearchEvent<'_>) + Sync),
}

/// What came of one task.
#[derive(Debug)]
pub enum TaskOutcome {
    /// Circuits, with the names of their files.
    Circuits(Vec<PathBuf>),
    /// The model has no circuit for it.
    None(Error),
    /// An error that says nothing about the task.
    Failed(Error),
}

impl TaskOutcome {
    /// The error of a task that failed.
    pub fn failure(self) -> Option<Error> {
        if let Self::Failed(error) = self { Some(error) } else { None }
    }
}

/// Searches for the circuits of all tasks, side by side on the CPU's threads, and writes them into
/// the folder. The outcomes are in the order of the tasks that no earlier call finished.
///
/// # Errors
/// Those of [`SearchRequest::validate`], of the mean activations and of the folder; those of a task
/// are in its outcome.
pub fn search_circuits(
    model: &Model,
    tokenizer: &Tokenizer,
    request: &SearchRequest,
    observer: &SearchObserver,
) -> Result<Vec<TaskOutcome>> {
    request.validate()?;
    let event = |event: SearchEvent| (observer.on_event)(event);
    create_folder(&request.folder)?;
    let longest = request.plan.settings.max_length.min(model.config.block_size);
    let notes = |task: &Task| notes(task, &request.plan.settings, tokenizer, longest);
    // The means take longer than the pairs, without which they are not needed.
    let search = if request.tasks.iter().any(|task| notes(task).is_ok()) {
        let report = |stage: &Stage| event(SearchEvent::Means(stage));
        let means = Observer::stopped_by(&observer.stop).with_report(&report);
        let file = request.folder.join(MEANS);
        let means = text_means(model, tokenizer, &request.data, request.mean_tokens, &file, &means)?;
        let mut nodes = Nodes::new(Layout::new(&model.config), &means, &model.device)?;
        nodes.stop = observer.stop.clone();
        for &node in &request.exclude {
            let number = nodes.layout.number(node);
            let number = number.ok_or_else(|| Error::Mismatch(format!("the model has no node {node} to exclude")))?;
            nodes.excluded[number] = true;
        }
        Some(CircuitSearch { model, nodes, tokenizer })
    } else {
        None
    };
    event(SearchEvent::Searching);
    let (hash, finished) = (model.hash()?, Finished::new(&request.folder)?);
    let mut tasks: Vec<&Task> = request.tasks.iter().collect();
    tasks.retain(|task| {
        let skip = request.skip_finished && finished.has(&task.title, &request.key(task, &hash));
        if skip {
            event(SearchEvent::Skipped(&task.title));
        }
        !skip
    });
    let run = Run { request, observer, hash, finished };
    parallel::map(&model.device, tasks.len(), |at| {
        let found = notes(tasks[at]).map(|notes| {
            notes.iter().for_each(|note| event(SearchEvent::Note(format!("{}: {note}", tasks[at].title))));
        });
        run.outcome(tasks[at], found.and(search.as_ref().ok_or(Error::Stopped)))
    })
}

/// What there is to say about a task's pairs, if there are any of both splits.
fn notes(task: &Task, settings: &SearchSettings, tokenizer: &Tokenizer, longest: usize) -> Result<Vec<String>> {
    let task = task.clone().for_tokenizer(tokenizer)?;
    let pairs = |split| tasks::batch(&task, split, settings.seed, 0, settings.eval_pairs, tokenizer, longest);
    Ok([pairs(Split::Train)?, pairs(Split::Test)?].iter().filter_map(tasks::PairBatch::notes).collect())
}

/// What the searches for all tasks have in common.
struct Run<'a> {
    request: &'a SearchRequest,
    observer: &'a SearchObserver<'a>,
    hash: String,
    finished: Finished,
}

impl Run<'_> {
    fn outcome(&self, task: &Task, search: Result<&CircuitSearch>) -> TaskOutcome {
        let found = self.task(task, search);
        if let Err(error) = &found {
            (self.observer.on_event)(SearchEvent::NotFound { name: &task.title, further: false, error });
        }
        match found {
            Ok(files) => TaskOutcome::Circuits(files),
            Err(error @ (Error::UnreachableTarget { .. } | Error::UnsuitableTask { .. })) => TaskOutcome::None(error),
            Err(error) => TaskOutcome::Failed(error),
        }
    }

    /// Searches for a task's circuits, and remembers what came of it.
    fn task(&self, task: &Task, search: Result<&CircuitSearch>) -> Result<Vec<PathBuf>> {
        if self.observer.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let name = &task.title;
        let _lock = lock(&self.request.folder, name)?;
        self.finished.forget(name)?;
        let found = search.and_then(|search| self.circuits(search, task));
        let none = match &found {
            Ok(_) => None,
            Err(error @ (Error::UnreachableTarget { .. } | Error::UnsuitableTask { .. })) => {
                self.remove(name, 1)?;
                Some(error.to_string())
            }
            Err(_) => return found,
        };
        self.finished.mark(name, self.request.key(task, &self.hash), none)?;
        found
    }

    /// Searches for a task's circuit, and for more that share no node with those before.
    fn circuits(&self, search: &CircuitSearch, task: &Task) -> Result<Vec<PathBuf>> {
        let mut remaining = CircuitSearch { nodes: search.nodes.clone(), ..*search };
        let mut files = Vec::new();
        for number in 1..=self.request.disjoint.max(1) {
            let name = &circuit_name(&task.title, number);
            let keep = match self.circuit(&remaining, task, name) {
                Ok(keep) => keep,
                Err(error @ Error::UnreachableTarget { .. }) if number > 1 => {
                    (self.observer.on_event)(SearchEvent::NotFound { name, further: true, error: &error });
                    break;
                }
                Err(error) => return Err(error),
            };
            files.push(self.file(name));
            // A circuit without nodes would be found again and again.
            if !keep.contains(&true) {
                break;
            }
            remaining.nodes = remaining.nodes.excluding(&keep);
        }
        // Those of an earlier search share nodes with the new ones.
        self.remove(&task.title, files.len() as u64 + 1)?;
        Ok(files)
    }

    /// Searches for a circuit, writes it as `name`, and returns which nodes it keeps.
    fn circuit(&self, search: &CircuitSearch, task: &Task, name: &str) -> Result<Vec<bool>> {
        let (start, plan, done) = (Instant::now(), &self.request.plan, AtomicU64::new(0));
        let timed = plan.minutes > 0.0;
        let total = match timed {
            true => (60.0 * plan.minutes).ceil() as u64,
            false => plan.settings.steps.saturating_mul(plan.trials.saturating_add(1)),
        };
        let report = |done, step| (self.observer.on_event)(SearchEvent::Step { name, done, total, step });
        report(0, None);
        let on_step = |step| {
            let steps = done.fetch_add(1, Ordering::Relaxed) + 1;
            report(if timed { start.elapsed().as_secs().min(total) } else { steps }, Some(step));
        };
        let result = search.run(task, plan, &on_step)?;
        let circuit = search.describe(task, &result, &self.request.model_path, &self.hash)?;
        circuit.save(self.file(name))?;
        if plan.tunes() {
            write_trials(&self.request.folder.join(format!("{name}.trials.csv")), &result.trials)?;
        }
        (self.observer.on_event)(SearchEvent::Circuit { name, circuit: &circuit, took: start.elapsed() });
        Ok(result.keep)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.request.folder.join(format!("{name}.json"))
    }

    /// Removes an earlier search's circuits of a task from the number `first` on.
    fn remove(&self, task: &str, first: u64) -> Result<()> {
        for number in first.. {
            let path = self.file(&circuit_name(task, number));
            match fs::remove_file(&path) {
                Ok(()) => {}
                // The first may be missing where others are not.
                Err(e) if e.kind() == ErrorKind::NotFound && number == 1 => {}
                Err(e) if e.kind() == ErrorKind::NotFound => break,
                Err(e) => return Err(Error::io(path, e)),
            }
        }
        Ok(())
    }
}

fn circuit_name(task: &str, number: u64) -> String {
    if number == 1 { task.into() } else { format!("{task}.{number}") }
}
