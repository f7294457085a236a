//! Training runs: models and bridges.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use gossamer::bridges::{BridgeRequest, train_bridges as train_library_bridges};
use gossamer::formats::{ModelFiles, Pretrained};
use gossamer::observer::Stage;
use gossamer::train::communicator::Communicator;
use gossamer::train::request::TrainRequest;
use gossamer::train::run::{Event, StepProgress, TrainResult};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::compute::{Messages, compute_with};
use crate::errors::OrRaise;
use crate::model::Model;

/// How often a stage is reported at most.
const REPORTS: Duration = Duration::from_millis(100);

/// What long work tells Python about itself.
pub enum Message {
    /// How far a stage is: its name, how much of how much is done, and what is counted.
    Stage(String, u64, Option<u64>, String),
    /// A training step.
    Step(Box<StepProgress>),
    /// Something to be read, without a number.
    Note(String),
}

/// Reports stages, but not more often than anyone can read.
pub fn reporter<'a>(messages: &'a Messages<Message>) -> impl Fn(&Stage<'_>) + Sync + 'a {
    let last = Mutex::new(None::<Instant>);
    move |stage: &Stage<'_>| {
        let Ok(mut last) = last.lock() else { return };
        if last.is_none_or(|last| last.elapsed() > REPORTS) {
            *last = Some(Instant::now());
            let Stage { name, done, total, unit } = *stage;
            messages.send(Message::Stage(name.into(), done, total, unit.into()));
        }
    }
}

/// Calls `on_message(kind, …)` of the package with a message.
pub fn deliver(py: Python<'_>, on_message: &Py<PyAny>, message: Message) -> PyResult<()> {
    let on_message = on_message.bind(py);
    match message {
        Message::Stage(name, done, total, unit) => on_message.call1(("stage", name, done, total, unit))?,
        Message::Note(note) => on_message.call1(("note", note))?,
        Message::Step(progress) => on_message.call1(("step", Progress(*progress)))?,
    };
    Ok(())
}

/// Where a training run stands, after a step that was logged.
#[pyclass(frozen, module = "gossamer")]
pub struct Progress(StepProgress);

#[pymethods]
impl Progress {
    /// Steps done.
    #[getter]
    fn step(&self) -> u64 {
        self.0.step
    }

    /// Steps of the whole run.
    #[getter]
    fn steps(&self) -> u64 {
        self.0.steps
    }

    /// The last step's loss, in nats per token.
    #[getter]
    fn loss(&self) -> f64 {
        self.0.numbers.loss
    }

    /// The last evaluation's loss on held-out data, in nats per token, or None.
    #[getter]
    fn validation(&self) -> Option<f64> {
        self.0.validation
    }

    /// The learning rate.
    #[getter]
    fn lr(&self) -> f64 {
        self.0.numbers.lr
    }

    /// The root mean square of the gradient's entries.
    #[getter]
    fn grad_rms(&self) -> f64 {
        self.0.numbers.grad_rms
    }

    /// The share of matrix weights that may be nonzero.
    #[getter]
    fn density(&self) -> f64 {
        self.0.numbers.density
    }

    /// Matrix weights that are not zero.
    #[getter]
    fn nonzeros(&self) -> u64 {
        self.0.nonzeros
    }

    /// Tokens per second since the last logged step.
    #[getter]
    fn tokens_per_second(&self) -> f64 {
        self.0.tokens_per_second
    }

    /// Seconds left at that speed.
    #[getter]
    fn seconds_left(&self) -> f64 {
        self.0.left.as_secs_f64()
    }

    fn __repr__(&self) -> String {
        let validation = self.0.validation.map_or(String::new(), |v| format!(", validation {v:.3}"));
        format!("<step {} of {}, loss {:.3}{validation}>", self.0.step, self.0.steps, self.0.numbers.loss)
    }
}

/// What to train, as the package's functions were asked.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Request {
    preset: String,
    config: Option<PathBuf>,
    settings: Vec<String>,
    data: Vec<PathBuf>,
    tokenizer: Option<PathBuf>,
    out: Option<PathBuf>,
    init: Option<String>,
    resume: Option<PathBuf>,
    steps: Option<u64>,
    tokens: Option<u64>,
    device: Option<String>,
    seed: Option<u64>,
}

impl From<Request> for TrainRequest {
    fn from(r: Request) -> Self {
        let Request { preset, config, settings, data, tokenizer, out, init, resume, steps, tokens, device, seed } = r;
        Self {
            preset,
            config,
            set: settings,
            data,
            text_field: None,
            stream: false,
            offline: false,
            tokenizer,
            out,
            init,
            resume,
            steps,
            tokens,
            device,
            seed,
        }
    }
}

/// How a run ended.
struct Outcome {
    result: TrainResult,
    folder: PathBuf,
}

impl Outcome {
    fn dict<'py>(self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let Self { result, folder } = self;
        let TrainResult { model, tokenizer, checkpoint, step, finished, validation, bigram, .. } = result;
        let dict = PyDict::new(py);
        let model = Model::new(Pretrained { model, tokenizer: Some(tokenizer) }, checkpoint.display().to_string());
        dict.set_item("model", Py::new(py, model)?)?;
        dict.set_item("folder", folder)?;
        dict.set_item("checkpoint", checkpoint)?;
        dict.set_item("step", step)?;
        dict.set_item("finished", finished)?;
        dict.set_item("validation", validation)?;
        dict.set_item("bigram", bigram)?;
        Ok(dict)
    }
}

/// Trains a model.
#[pyfunction]
pub fn train<'py>(py: Python<'py>, request: Request, on_message: Py<PyAny>) -> PyResult<Bound<'py, PyDict>> {
    let request = TrainRequest::from(request);
    execute(py, on_message, |messages, stop| {
        let (config, report) = (request.settings(|_| ())?, reporter(messages));
        let observer = stop.observer().with_report(&report);
        let name = if config.bridge.is_some() { "bridges" } else { &request.preset };
        let prepared = request.prepare(config, name, &Communicator::single(), observer)?;
        let mut watch = |event: Event<'_>| tell(messages, &prepared.run.folder, event);
        let result = match prepared.run.config.bridge {
            Some(_) => train_library_bridges(&prepared.run, request.start(), &mut watch)?,
            None => prepared.run.execute(request.start(), &mut watch)?,
        };
        Ok(Outcome { result, folder: prepared.run.folder.clone() })
    })
}

/// Trains bridges between a dense model and a sparse one.
#[pyfunction]
pub fn train_bridges<'py>(
    py: Python<'py>,
    dense: String,
    sparse: Option<String>,
    request: Request,
    on_message: Py<PyAny>,
) -> PyResult<Bound<'py, PyDict>> {
    let request = BridgeRequest { dense: Some(dense), sparse, run: request.into() };
    execute(py, on_message, |messages, stop| {
        let (config, report) = (request.settings()?, reporter(messages));
        let observer = stop.observer().with_report(&report);
        let prepared = request.run.prepare(config, "bridges", &Communicator::single(), observer)?;
        let mut watch = |event: Event<'_>| tell(messages, &prepared.run.folder, event);
        let result = train_library_bridges(&prepared.run, request.run.start(), &mut watch)?;
        Ok(Outcome { result, folder: prepared.run.folder.clone() })
    })
}

fn execute<'py>(
    py: Python<'py>,
    on_message: Py<PyAny>,
    work: impl FnOnce(&Messages<Message>, &crate::compute::Stop) -> gossamer::Result<Outcome> + Send,
) -> PyResult<Bound<'py, PyDict>> {
    let receive = |py: Python<'_>, message| deliver(py, &on_message, message);
    compute_with(py, receive, |stop, messages| work(messages, stop))?.dict(py)
}

fn tell(messages: &Messages<Message>, folder: &Path, event: Event<'_>) {
    messages.send(match event {
        Event::Planned(_, device) => Message::Note(format!("run {} on {}", folder.display(), device.describe())),
        Event::Data(data) => Message::Note(format!("{} tokens", data.corpus.statistics.tokens)),
        Event::Resumed(step) => Message::Note(format!("resumed at step {step}")),
        Event::Step(progress) => Message::Step(Box::new(*progress)),
        Event::Saved(path) => Message::Note(format!("saved {}", path.display())),
        Event::Trained => Message::Note("measuring".into()),
    });
}

/// Writes any model as a folder for other programs: "hf" for Hugging Face's transformers, "torch"
/// for the published inference code, "all" for both, "sparse_pretrain" for that training program.
#[pyfunction]
#[pyo3(signature = (source, destination, *, to="all", float=None, force=false, offline=false))]
pub fn convert(
    py: Python<'_>,
    source: PathBuf,
    destination: PathBuf,
    to: &str,
    float: Option<&str>,
    force: bool,
    offline: bool,
) -> PyResult<()> {
    use gossamer::files::FloatType;
    use gossamer::formats::{ConvertFormat, ConvertOptions, FindOptions, convert};
    let float = match float {
        None => None,
        Some("float32" | "f32") => Some(FloatType::F32),
        Some("float16" | "f16") => Some(FloatType::F16),
        Some("bfloat16" | "bf16") => Some(FloatType::BF16),
        Some(other) => {
            let message = format!("float is {other:?}; there are float32, float16 and bfloat16");
            return Err(pyo3::exceptions::PyValueError::new_err(message));
        }
    };
    let options = FindOptions { offline, progress: true, ..FindOptions::default() };
    let to = ConvertFormat::named(to).or_raise()?;
    let work = || convert(&ModelFiles::find(&source, &options)?, &destination, ConvertOptions { to, float, force });
    py.detach(work).or_raise()
}
