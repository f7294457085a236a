//! Training and the search for circuits as background jobs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gossamer::circuits::evaluate::EvaluationPlan;
use gossamer::circuits::pipeline::{SearchEvent, SearchObserver, SearchRequest, TaskOutcome, search_circuits};
use gossamer::circuits::prune::SearchSettings;
use gossamer::circuits::search::SearchPlan;
use gossamer::circuits::tasks;
use gossamer::device::Device;
use gossamer::error::explain;
use gossamer::formats::{ModelFiles, OpenedCircuit};
use gossamer::model::WeightFormat;
use gossamer::observer::{Observer, Stage};
use gossamer::pipelines::{CircuitRequest, evaluate_circuit};
use gossamer::text::source::Source;
use gossamer::text::tokenizer::Tokenizer;
use gossamer::train::communicator::Communicator;
use gossamer::train::config::RunConfig;
use gossamer::train::lock::claim;
use gossamer::train::run::{self, Event, Run};

use crate::jobs::{Job, Reporter, with_own_threads};

/// What to run in the background.
pub enum JobSpec {
    /// To train in `folder`; a run that exists there continues with its own settings.
    Train { config: Box<RunConfig>, folder: PathBuf },
    /// To find the circuit of `task` in the model at `model`.
    Find { model: PathBuf, task: String, settings: Box<SearchSettings> },
    /// To evaluate the circuit in a file in the model at `model`.
    Evaluate { circuit: PathBuf, model: PathBuf },
}

#[derive(Clone, Debug, Default)]
pub struct JobProgress {
    /// Steps done.
    pub done: u64,
    /// Steps of the whole job.
    pub all: u64,
    /// The latest numbers.
    pub message: String,
    /// The loss, if the step has one.
    pub loss: Option<f64>,
}

/// What a job has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobResult {
    /// What can be opened now.
    pub path: PathBuf,
    pub message: String,
    /// More about it: tables in text.
    pub report: Option<String>,
}

enum JobUpdate {
    Progress(JobProgress),
    Note(String),
    Done(Result<JobResult, String>),
}

/// A job that runs or has ended.
pub struct RunJob {
    pub title: String,
    pub progress: JobProgress,
    /// Steps and losses so far.
    pub curve: Vec<(f64, f64)>,
    /// Notes about the settings, as `train` prints them.
    pub notes: Vec<String>,
    /// `None` while it runs.
    pub outcome: Option<Result<JobResult, String>>,
    job: Job<JobUpdate>,
    /// How long a closing window waits for it to save what it has and end.
    grace: Duration,
}

impl Drop for RunJob {
    fn drop(&mut self) {
        self.stop();
        let until = Instant::now() + self.grace;
        while self.outcome.is_none()
            && let Some(update) = self.job.wait(until.saturating_duration_since(Instant::now()))
        {
            self.apply(update);
        }
    }
}

impl RunJob {
    /// Starts the job. `wake` is called after every update.
    pub fn start(spec: JobSpec, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let (title, seconds) = match &spec {
            JobSpec::Train { folder, .. } => (format!("training {}", folder.display()), 120),
            JobSpec::Find { task, .. } => (format!("the circuit of {task}"), 2),
            JobSpec::Evaluate { circuit, .. } => (format!("evaluating {}", circuit.display()), 2),
        };
        let job = Job::run(wake, move |reporter| {
            let done = with_own_threads(|| match spec {
                JobSpec::Train { config, folder } => train(*config, folder, reporter),
                JobSpec::Find { model, task, settings } => find(&model, &task, &settings, reporter),
                JobSpec::Evaluate { circuit, model } => evaluate(&circuit, &model, reporter),
            });
            JobUpdate::Done(done.flatten().map_err(|e| explain(e.as_ref())))
        });
        Self {
            title,
            progress: JobProgress::default(),
            curve: Vec::new(),
            notes: Vec::new(),
            outcome: None,
            job,
            grace: Duration::from_secs(seconds),
        }
    }

    /// Asks it to stop soon.
    pub fn stop(&self) {
        self.job.stop();
    }

    pub fn stopping(&self) -> bool {
        self.job.stopping()
    }

    /// Receives updates.
    pub fn poll(&mut self) {
        while let Some(update) = self.job.poll() {
            self.apply(update);
        }
        if self.job.failed() {
            self.outcome.get_or_insert_with(|| Err("stopped unexpectedly: start it again".into()));
        }
    }

    fn apply(&mut self, update: JobUpdate) {
        match update {
            JobUpdate::Progress(progress) => {
                self.curve.extend(progress.loss.map(|loss| (progress.done as f64, loss)));
                self.progress = progress;
            }
            JobUpdate::Note(note) => self.notes.push(note),
            JobUpdate::Done(outcome) => self.outcome = Some(outcome),
        }
    }
}

/// The settings of a preset with `changes`, each `key=value`; checkpoints enough to watch it form.
///
/// # Errors
/// What is wrong with a setting.
pub fn settings(preset: &str, changes: &str) -> gossamer::Result<RunConfig> {
    /// So many checkpoints are kept of a run.
    const CHECKPOINTS: u64 = 24;
    let mut config = RunConfig::preset(preset)?;
    let mut changed = config.clone();
    let named = changed.set_all(&[changes])?;
    let steps = changed.train.steps;
    config.run.checkpoint_every = (steps / CHECKPOINTS).max(1);
    config.run.eval_every = config.run.checkpoint_every;
    config.run.keep_checkpoints = 0;
    config.set_all(&[changes])?;
    config.fit_vocabulary(named.iter().any(|key| key == "model.vocab_size"))?;
    config.validate()?;
    Ok(config)
}

/// Where the circuit of a task is kept, by the model's path.
pub fn circuit_file(model: &Path, task: &str) -> PathBuf {
    let folder = if model.is_dir() { model } else { model.parent().unwrap_or(model) };
    folder.join("circuits").join(format!("{task}.json"))
}

fn train(config: RunConfig, folder: PathBuf, reporter: &Reporter<JobUpdate>) -> Result<JobResult> {
    let settings = folder.join("config.toml");
    let resume = settings.exists();
    let config = if resume { RunConfig::load(&settings)? } else { config };
    // As a plain run, its checkpoints would lose their bridges.
    anyhow::ensure!(
        config.bridge.is_none(),
        "{} trains bridges, which this window cannot: `train --resume {0}` continues it, `train bridges` begins one",
        folder.display()
    );
    let device = Device::open(&config.run.device)?;
    let new = !folder.exists();
    // Two windows may have been offered the same name.
    let folder = if new { claim(&folder)? } else { folder };
    let above = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut progress = JobProgress { all: config.train.steps, ..JobProgress::default() };
    let show = |progress: &mut JobProgress, message: String, loss: Option<f64>| {
        (progress.message, progress.loss) = (message, loss);
        reporter.update(JobUpdate::Progress(progress.clone()));
    };
    show(&mut progress, "reading the data, and its tokenizer".into(), None);
    let at_start = progress.clone();
    let report = |stage: &Stage| show(&mut at_start.clone(), stage_message(stage), None);
    let observer = Observer::stopped_by(&reporter.stop).with_report(&report);
    let cache = above.join("cache");
    let run = Run { config, cache, device, observer, communicator: Communicator::single(), folder: folder.clone() };
    let outcome = run.execute(resume, &mut |event| match event {
        Event::Step(step) => {
            progress.done = step.step;
            show(&mut progress, step_message(step), Some(step.numbers.loss));
        }
        Event::Resumed(step) => {
            progress.done = step;
            show(&mut progress, format!("continues at step {step}"), None);
        }
        Event::Data(_) => show(&mut progress, "the first step".into(), None),
        Event::Trained => show(&mut progress, "measuring".into(), None),
        Event::Planned(..) => {
            for note in run.config.notes() {
                reporter.update(JobUpdate::Note(note));
            }
        }
        Event::Saved(_) => {}
    });
    if outcome.is_err() && new {
        // Only if nothing was written there.
        let _ = fs::remove_dir(&folder);
    }
    let outcome = outcome?;
    let message = match outcome.validation {
        Some(validation) => format!("done: validation loss {validation:.3} nats per token"),
        None if outcome.finished => {
            "done, but without a validation loss: start it in the same folder to measure it".into()
        }
        None => format!("stopped at step {}; it continues when it is started in the same folder", outcome.step),
    };
    Ok(JobResult { path: folder, message, report: None })
}

fn step_message(step: &run::StepProgress) -> String {
    let validation = step.validation.map(|v| format!(", validation {v:.3}")).unwrap_or_default();
    let (numbers, seconds) = (&step.numbers, step.left.as_secs());
    format!(
        "loss {:.3}{validation}, density {:.4}, {:.0} tokens/s, {seconds} s left",
        numbers.loss, numbers.density, step.tokens_per_second
    )
}

fn stage_message(stage: &Stage) -> String {
    let total = stage.total.map_or(String::new(), |total| format!(" of {total}"));
    format!("{}: {}{total} {}", stage.name, stage.done, stage.unit)
}

fn find(path: &Path, task: &str, settings: &SearchSettings, reporter: &Reporter<JobUpdate>) -> Result<JobResult> {
    let all = settings.steps;
    let show = |progress| _ = reporter.update(JobUpdate::Progress(progress));
    let say = |message: &str| show(JobProgress { all, message: message.into(), ..JobProgress::default() });
    say("opening the model");
    let files = ModelFiles::open(path)?;
    let tokenizer =
        files.tokenizer.as_ref().context("the model comes without a tokenizer.json: put it next to the weights")?;
    let tokenizer = Tokenizer::load(tokenizer)?;
    let model = files.load(WeightFormat::Sparse, &Device::open("auto")?)?;
    let file = circuit_file(path, task);
    let request = SearchRequest {
        tasks: vec![tasks::open(task)?],
        plan: SearchPlan { settings: settings.clone(), ..SearchPlan::default() },
        disjoint: 1,
        exclude: Vec::new(),
        data: Source::default(),
        mean_tokens: SearchRequest::MEAN_TOKENS,
        folder: file.parent().unwrap_or(path).to_path_buf(),
        model_path: path.display().to_string(),
        skip_finished: false,
    };
    let found = Mutex::new(String::new());
    let on_event = |event: SearchEvent<'_>| match event {
        SearchEvent::Means(stage) => say(&stage_message(stage)),
        SearchEvent::Step { done, step: Some(step), .. } => {
            let message = if done == all {
                "choosing the smallest circuit that is good enough".into()
            } else {
                format!("task loss {:.3}, {} nodes", step.loss, step.kept)
            };
            show(JobProgress { done, all, message, loss: Some(step.loss) });
        }
        SearchEvent::Circuit { circuit, .. } => {
            let (counts, test) = (&circuit.counts, &circuit.losses.test);
            *found.lock().unwrap_or_else(PoisonError::into_inner) =
                format!("{} nodes, {} edges; task loss on new pairs {:.3}", counts.nodes, counts.edges, test.circuit);
        }
        _ => {}
    };
    let observer = SearchObserver { stop: reporter.stop.clone(), on_event: &on_event };
    for outcome in search_circuits(&model, &tokenizer, &request, &observer)? {
        if let TaskOutcome::None(error) | TaskOutcome::Failed(error) = outcome {
            return Err(error.into());
        }
    }
    let message = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(JobResult { path: file, message, report: None })
}

fn evaluate(file: &Path, model: &Path, reporter: &Reporter<JobUpdate>) -> Result<JobResult> {
    let show = |done, all, message: &str| {
        let progress = JobProgress { done, all, message: message.into(), loss: None };
        reporter.update(JobUpdate::Progress(progress));
    };
    show(0, 0, "opening the model");
    let opened = OpenedCircuit::open(file)?;
    let model = ModelFiles::open(model)?.pretrained(WeightFormat::Sparse, &Device::open("auto")?)?;
    let request = CircuitRequest {
        circuit: &opened.circuit,
        file,
        payload: None,
        task: None,
        data: &Source::default(),
        max_tokens: SearchRequest::MEAN_TOKENS,
    };
    let report = |stage: &Stage| show(stage.done, stage.total.unwrap_or(0), stage.name);
    let observer = Observer::stopped_by(&reporter.stop).with_report(&report);
    let note = |note| _ = reporter.update(JobUpdate::Note(note));
    let evaluation = evaluate_circuit(&model, &request, &EvaluationPlan::default(), &observer, &note)?;
    let (held, checks) = (evaluation.checks.iter().filter(|check| check.holds).count(), evaluation.checks.len());
    let message = format!("{held} of {checks} checks hold");
    Ok(JobResult { path: file.to_path_buf(), message, report: Some(evaluation.report()?.text()) })
}
