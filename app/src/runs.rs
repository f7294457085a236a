//! Training and the search for circuits, on a thread of their own: started, watched and stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gossamer::circuits::pipeline::{SearchEvent, SearchObserver, SearchRequest, TaskOutcome, search_circuits};
use gossamer::circuits::prune::SearchSettings;
use gossamer::circuits::search::SearchPlan;
use gossamer::circuits::tasks;
use gossamer::device::Device;
use gossamer::error::explain;
use gossamer::formats::ModelFiles;
use gossamer::model::WeightFormat;
use gossamer::observer::{Observer, Stage};
use gossamer::text::tokenizer::Tokenizer;
use gossamer::train::communicator::Communicator;
use gossamer::train::config::RunConfig;
use gossamer::train::lock::claim;
use gossamer::train::run::{Event, Run};

use crate::jobs::{Last, with_own_threads};

/// Something that takes long.
pub enum Order {
    /// To train; a run that is already in the folder goes on.
    Train {
        /// The settings of a new run.
        config: Box<RunConfig>,
        /// The run's folder.
        folder: PathBuf,
    },
    /// To find the circuit of a task.
    Find {
        /// Where the model is.
        model: PathBuf,
        /// The task's name.
        task: String,
        /// How.
        settings: Box<SearchSettings>,
    },
}

/// How far it is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Steps done.
    pub done: u64,
    /// Steps of all.
    pub all: u64,
    /// The latest numbers.
    pub said: String,
    /// The loss, if the step has one.
    pub loss: Option<f64>,
}

/// A closing window waits so long for a run to save what it has.
const SAVING: Duration = Duration::from_secs(120);
/// So long for what has nothing to save.
const ENDING: Duration = Duration::from_secs(2);

enum News {
    Progress(Progress),
    /// What can be opened now, and what to say.
    Done(Result<(PathBuf, String), String>),
}

/// Something under way, or done.
pub struct Work {
    /// What it is.
    pub title: String,
    /// How far it is.
    pub progress: Progress,
    /// Steps and losses so far.
    pub curve: Vec<(f64, f64)>,
    /// What can be opened and what to say about it, or what went wrong; nothing while it goes on.
    pub outcome: Option<Result<(PathBuf, String), String>>,
    news: Receiver<News>,
    stop: Arc<AtomicBool>,
    /// Whether it has something to save when it is stopped.
    saves: bool,
}

impl Drop for Work {
    /// A window that closes lets a run save what it has. That is not cut short; all else ends soon.
    fn drop(&mut self) {
        self.stop();
        let until = Instant::now() + if self.saves { SAVING } else { ENDING };
        while self.outcome.is_none()
            && let Ok(news) = self.news.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            if let News::Done(outcome) = news {
                self.outcome = Some(outcome);
            }
        }
    }
}

impl Work {
    /// Starts it. `wake` is called for whatever there is to see.
    pub fn start(order: Order, wake: impl Fn() + Send + 'static) -> Self {
        let (sender, news) = channel();
        let stop = Arc::<AtomicBool>::default();
        let title = match &order {
            Order::Train { folder, .. } => format!("training {}", folder.display()),
            Order::Find { task, .. } => format!("the circuit of {task}"),
        };
        let saves = matches!(order, Order::Train { .. });
        let stopped = stop.clone();
        let work = move || {
            let watched = std::sync::Mutex::new((sender, Last(wake)));
            let tell = |news| {
                if let Ok(watched) = watched.lock() {
                    drop(watched.0.send(news));
                    (watched.1.0)();
                }
            };
            let told = |progress| tell(News::Progress(progress));
            let done = with_own_threads(|| match order {
                Order::Train { config, folder } => train(*config, folder, &stopped, &told),
                Order::Find { model, task, settings } => find(&model, &task, &settings, &stopped, &told),
            });
            tell(News::Done(done.flatten().map_err(|e| explain(e.as_ref()))));
        };
        let started = thread::Builder::new().name("work".into()).spawn(work);
        let outcome = started.err().map(|e| Err(format!("no thread could be started: {e}")));
        Self { title, progress: Progress::default(), curve: Vec::new(), outcome, news, stop, saves }
    }

    /// Asks it to stop soon.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked to stop.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Takes in what has come.
    pub fn listen(&mut self) {
        loop {
            match self.news.try_recv() {
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    let stopped = || Err("stopped unexpectedly: start it again".into());
                    self.outcome.get_or_insert_with(stopped);
                    return;
                }
                Ok(News::Progress(progress)) => {
                    self.curve.extend(progress.loss.map(|loss| (progress.done as f64, loss)));
                    self.progress = progress;
                }
                Ok(News::Done(outcome)) => self.outcome = Some(outcome),
            }
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

fn train(
    config: RunConfig,
    folder: PathBuf,
    stop: &AtomicBool,
    told: &(dyn Fn(Progress) + Sync),
) -> Result<(PathBuf, String)> {
    let settings = folder.join("config.toml");
    let resume = settings.exists();
    let config = if resume { RunConfig::load(&settings)? } else { config };
    // Done as a plain run, its checkpoints would lose their bridges.
    anyhow::ensure!(
        config.bridge.is_none(),
        "{} trains bridges, which this window cannot: `train --resume {0}` goes on with them, `train bridges` begins",
        folder.display()
    );
    let device = Device::open(&config.run.device)?;
    let new = !folder.exists();
    // Two windows may have been offered the same name.
    let folder = if new { claim(&folder)? } else { folder };
    let above = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let all = config.train.steps;
    told(Progress { all, said: "reading the data, and its tokenizer".into(), ..Progress::default() });
    let report = |stage: &Stage| told(Progress { all, said: of(stage), ..Progress::default() });
    let observer = Observer::stopped_by(stop).with_report(&report);
    let run = Run {
        config,
        cache: above.join("cache"),
        device,
        observer,
        communicator: Communicator::single(),
        folder: folder.clone(),
    };
    let mut done = 0;
    let outcome = run.execute(resume, &mut |event| match event {
        Event::Step(progress) => {
            done = progress.step;
            let validation = progress.validation.map(|v| format!(", validation {v:.3}")).unwrap_or_default();
            let said = format!(
                "loss {:.3}{validation}, density {:.4}, {:.0} tokens/s, {} s left",
                progress.numbers.loss,
                progress.numbers.density,
                progress.tokens_per_second,
                progress.left.as_secs()
            );
            told(Progress { done, all, said, loss: Some(progress.numbers.loss) });
        }
        Event::Resumed(step) => told(Progress { done: step, all, said: format!("goes on at step {step}"), loss: None }),
        Event::Data(_) => told(Progress { done, all, said: "the first step".into(), loss: None }),
        Event::Trained => told(Progress { done, all, said: "measuring".into(), loss: None }),
        Event::Planned(..) | Event::Saved(_) => {}
    });
    if outcome.is_err() && new {
        // Only if nothing was written there.
        let _ = fs::remove_dir(&folder);
    }
    let outcome = outcome?;
    let said = match outcome.validation {
        Some(validation) => format!("done: validation loss {validation:.3} nats per token"),
        None if outcome.finished => {
            "done, but for its validation loss: started in the same folder, it is measured".into()
        }
        None => format!("stopped at step {}; started in the same folder, it goes on", outcome.step),
    };
    Ok((folder, said))
}

/// How far a stage is.
fn of(stage: &Stage) -> String {
    let total = stage.total.map_or(String::new(), |total| format!(" of {total}"));
    format!("{}: {}{total} {}", stage.name, stage.done, stage.unit)
}

fn find(
    path: &Path,
    task: &str,
    settings: &SearchSettings,
    stop: &Arc<AtomicBool>,
    told: &(dyn Fn(Progress) + Sync),
) -> Result<(PathBuf, String)> {
    let all = settings.steps;
    let say = |said: &str| told(Progress { all, said: said.into(), ..Progress::default() });
    say("opening the model");
    let files = ModelFiles::open(path)?;
    let tokenizer =
        files.tokenizer.as_ref().context("the model comes without a tokenizer.json: put it beside the weights")?;
    let tokenizer = Tokenizer::load(tokenizer)?;
    let model = files.load(WeightFormat::Sparse, &Device::open("auto")?)?;
    let file = circuit_file(path, task);
    let request = SearchRequest {
        tasks: vec![tasks::find(task)?],
        plan: SearchPlan { settings: settings.clone(), ..SearchPlan::default() },
        disjoint: 1,
        data: Vec::new(),
        mean_tokens: SearchRequest::MEAN_TOKENS,
        folder: file.parent().unwrap_or(path).to_path_buf(),
        model_path: path.display().to_string(),
        skip_finished: false,
    };
    let found = Mutex::new(String::new());
    let on_event = |event: SearchEvent<'_>| match event {
        SearchEvent::Means(stage) => say(&of(stage)),
        SearchEvent::Step { done, step: Some(step), .. } => {
            let said = match done == all {
                true => "choosing the smallest circuit that is good enough".into(),
                false => format!("task loss {:.3}, {} nodes", step.loss, step.kept),
            };
            told(Progress { done, all, said, loss: Some(step.loss) });
        }
        SearchEvent::Found { circuit, .. } => {
            let (counts, test) = (&circuit.counts, &circuit.losses.test);
            *found.lock().unwrap_or_else(PoisonError::into_inner) =
                format!("{} nodes, {} edges; task loss on new pairs {:.3}", counts.nodes, counts.edges, test.circuit);
        }
        _ => {}
    };
    let observer = SearchObserver { stop: stop.clone(), on_event: &on_event };
    for outcome in search_circuits(&model, &tokenizer, &request, &observer)? {
        if let TaskOutcome::None(error) | TaskOutcome::Failed(error) = outcome {
            return Err(error.into());
        }
    }
    Ok((file, found.into_inner().unwrap_or_else(PoisonError::into_inner)))
}
