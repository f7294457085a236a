//! Bridges between a dense and a sparse model: evaluated, and used to steer.

use std::path::PathBuf;

use gossamer::bridges::{
    Channel, ModelName, PairRequest, Ratio, Recipe, SteerRequest, SteerTarget, Strengths, TaskSteering,
};
use gossamer::text::source::Source;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arguments::{choice, edits, texts};
use crate::compute::compute;

/// A sparse model's bridges to a dense one, as `train_bridges` leaves them in a run.
#[pyclass(frozen, module = "gossamer")]
pub struct Bridges {
    /// The run, or the checkpoint, of the sparse model.
    #[pyo3(get)]
    path: String,
    dense: Option<String>,
    device: String,
    offline: bool,
}

#[pymethods]
impl Bridges {
    /// The bridges in a run or a checkpoint of `train_bridges`. `dense` is the dense model, if it
    /// is no longer where it was.
    #[new]
    #[pyo3(signature = (path, *, dense=None, device="auto", offline=false))]
    fn new(path: PathBuf, dense: Option<String>, device: &str, offline: bool) -> Self {
        Self { path: path.display().to_string(), dense, device: device.into(), offline }
    }

    /// Errors of the bridges at every site, and how far models that continue across them are from
    /// the dense model, over at most `max_tokens` tokens of the files in `data`, or of generated
    /// Python: a dict.
    #[pyo3(signature = (*, data=Vec::new(), max_tokens=16_384, batch_size=8))]
    fn evaluate<'py>(
        &self,
        py: Python<'py>,
        data: Vec<PathBuf>,
        max_tokens: usize,
        batch_size: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let request = self.request(data, max_tokens);
        let result = compute(py, |stop| request.open()?.evaluate(batch_size, stop.observer()))?;
        Ok(pythonize::pythonize(py, &result)?)
    }

    /// Steers the dense model by channels of the sparse one, and says what that does to its
    /// predictions.
    ///
    /// Either after one `prompt`: channels `nodes` (such as "3.attn.act_in[17]") become what they
    /// are in the `counterfactual` prompt, or `edits` of the sparse model's channels are made. Or
    /// on held-out pairs of a `task`, by `nodes` or by the best channel of the file `circuit`.
    /// `strengths` are those that the change is multiplied by (0 to 1 in tenths); `random` draws
    /// of random channels are compared with. Returns a list of dicts, with the fields of
    /// `gossamer steer --json`.
    #[pyo3(signature = (
        prompt=None, *, counterfactual=None, nodes=None, edits=None, task=None, circuit=None, strengths=None, pairs=64,
        reverse=false, random=8, seed=0, ratio="sparse_over_dense", top=5, data=Vec::new(), max_tokens=16_384
    ))]
    #[allow(clippy::too_many_arguments)]
    fn steer<'py>(
        &self,
        py: Python<'py>,
        prompt: Option<String>,
        counterfactual: Option<String>,
        nodes: Option<&Bound<'py, PyAny>>,
        edits: Option<&Bound<'py, PyAny>>,
        task: Option<String>,
        circuit: Option<PathBuf>,
        strengths: Option<Vec<f64>>,
        pairs: usize,
        reverse: bool,
        random: usize,
        seed: u64,
        ratio: &str,
        top: usize,
        data: Vec<PathBuf>,
        max_tokens: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let ratio: Ratio = choice("ratio", ratio)?;
        let (channels, edits) = (channels(nodes)?, self::edits(edits)?);
        let target = match prompt {
            Some(prompt) => SteerTarget::Prompt(Recipe {
                version: Recipe::VERSION,
                sparse: ModelName { path: self.path.clone(), hash: String::new() },
                prompt,
                counterfactual,
                nodes: channels,
                edits,
                strength: 1.0,
                random,
                seed,
                ratio,
            }),
            None if task.is_none() && circuit.is_none() => {
                return Err(PyValueError::new_err("give a prompt, a task or a circuit"));
            }
            None => SteerTarget::Task(TaskSteering { task, circuit, channels, pairs, reverse, random, seed, ratio }),
        };
        let (request, pair) =
            (SteerRequest { target, strengths: strengths.map(Strengths) }, self.request(data, max_tokens));
        let lines = compute(py, |stop| request.run(&pair, stop.observer())?.json(top))?;
        let loads = py.import("json")?.getattr("loads")?;
        let rows = lines.lines().map(|line| loads.call1((line,))).collect::<PyResult<Vec<_>>>()?;
        Ok(rows.into_pyobject(py)?.into_any())
    }

    fn __repr__(&self) -> String {
        format!("<Bridges {}>", self.path)
    }
}

impl Bridges {
    fn request(&self, data: Vec<PathBuf>, max_tokens: usize) -> PairRequest {
        PairRequest {
            sparse: self.path.clone(),
            dense: self.dense.clone(),
            tokenizer: None,
            offline: self.offline,
            data: Source::new(data),
            max_tokens,
            device: self.device.clone(),
        }
    }
}

fn channels(nodes: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Channel>> {
    let parse = |name: &str| name.parse().map_err(|error| PyValueError::new_err(format!("{name}: {error}")));
    nodes.map_or(Ok(Vec::new()), texts)?.iter().map(|name| parse(name)).collect()
}
