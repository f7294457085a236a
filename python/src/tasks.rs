//! Tasks: pairs of prompts with one next token each.

use gossamer::circuits::tasks as library;
use gossamer::circuits::tasks::{Pair, Split, TokenPair};
use gossamer::pipelines::evaluate_task;
use pyo3::exceptions::{PyKeyError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::arguments::choice;
use crate::compute::compute;
use crate::errors::OrRaise;
use crate::model::Model;

/// A task: pairs of a clean and a counterfactual prompt, each followed by another token.
#[pyclass(frozen, module = "gossamer.tasks")]
pub struct Task(pub library::Task);

#[pymethods]
impl Task {
    /// A task of one's own.
    ///
    /// A pair is a dict with `clean`, `counterfactual`, `target` (what follows the clean prompt)
    /// and `alternative` (what follows the other), or a tuple of these four texts. `test` has the
    /// held-out pairs; without it, every fifth pair of `pairs` is held out.
    #[new]
    #[pyo3(signature = (pairs, test=None, *, name="task"))]
    fn new(pairs: &Bound<'_, PyAny>, test: Option<&Bound<'_, PyAny>>, name: &str) -> PyResult<Self> {
        let pairs = self::pairs(pairs)?;
        let (train, test) = match test {
            Some(test) => (pairs, self::pairs(test)?),
            None => {
                let (test, train): (Vec<_>, Vec<_>) = pairs.into_iter().partition(|pair| pair.template % 5 == 0);
                (train, test)
            }
        };
        Ok(Self(library::Task::from_pairs(name, train, test).or_raise()?))
    }

    /// A built-in task by its name, or the one in a `.toml` or `.jsonl` file.
    #[staticmethod]
    fn open(name: &str) -> PyResult<Self> {
        Ok(Self(library::open(name).or_raise()?))
    }

    /// What commands and files call it.
    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    /// What the model must choose, in a sentence.
    #[getter]
    fn description(&self) -> &str {
        &self.0.description
    }

    /// The version of its pairs.
    #[getter]
    fn version(&self) -> u32 {
        self.0.version
    }

    /// The first `count` pairs of a split ("train" or "test") of the stream `seed`: dicts with
    /// `clean`, `counterfactual`, `target` and `alternative`.
    ///
    /// With a `model`, they are those that it is evaluated on: with answers as its tokenizer writes
    /// them, without pairs that do not suit it, and with `clean_ids`, `counterfactual_ids` (their last
    /// `block_size` tokens), `target_id` and `alternative_id`.
    #[pyo3(signature = (count=8, *, split="train", seed=0, model=None))]
    fn pairs<'py>(
        &self,
        py: Python<'py>,
        count: usize,
        split: &str,
        seed: u64,
        model: Option<&Bound<'py, Model>>,
    ) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let split: Split = choice("split", split)?;
        let Some(model) = model else {
            let count = self.0.len(split).map_or(count, |all| count.min(all));
            return (0..count).map(|index| row(py, self.0.pair(split, seed, index as u64))).collect();
        };
        let pretrained = &*model.get().pretrained;
        let (tokenizer, longest) = (pretrained.tokenizer().or_raise()?, pretrained.model.config.block_size);
        let task = self.0.clone().for_tokenizer(tokenizer).or_raise()?;
        let batch = library::batch(&task, split, seed, 0, count, tokenizer, longest).or_raise()?;
        let with_ids = |(pair, tokens): (Pair, TokenPair)| {
            let row = row(py, pair)?;
            row.set_item("clean_ids", tokens.clean)?;
            row.set_item("counterfactual_ids", tokens.counterfactual)?;
            row.set_item("target_id", tokens.target)?;
            row.set_item("alternative_id", tokens.alternative)?;
            Ok(row)
        };
        batch.pairs.into_iter().zip(batch.tokens).map(with_ids).collect()
    }

    fn __repr__(&self) -> String {
        format!("<Task {}: {}>", self.0.name, self.0.description)
    }
}

/// The names of the built-in tasks.
#[pyfunction]
pub fn task_names() -> Vec<&'static str> {
    library::names().collect()
}

/// How well a model does a task: a dict with `task`, `answers`, and for each of `train` and `test`
/// `loss` in nats, `accuracy`, `pairs`.
#[pyfunction]
#[pyo3(signature = (model, task, *, pairs=512, seed=0))]
pub fn evaluate_on_task<'py>(
    py: Python<'py>,
    model: &Bound<'py, Model>,
    task: &Bound<'py, PyAny>,
    pairs: usize,
    seed: u64,
) -> PyResult<Bound<'py, PyAny>> {
    let task = self::task(task)?;
    let model = &*model.get().pretrained;
    let result = compute(py, |_| evaluate_task(model, &task, pairs, seed))?;
    match result.error {
        Some(error) => Err(PyValueError::new_err(error)),
        None => Ok(pythonize::pythonize(py, &result)?),
    }
}

/// A task, by its name, its file or as an object.
///
/// # Errors
/// ValueError for an unknown name, TypeError for anything else.
pub fn task(task: &Bound<'_, PyAny>) -> PyResult<library::Task> {
    if let Ok(name) = task.cast::<PyString>() {
        return library::open(name.to_str()?).or_raise();
    }
    let task = task.cast::<Task>().map_err(|_| PyTypeError::new_err("a task, or the name of one, is expected"))?;
    Ok(task.get().0.clone())
}

fn row(py: Python<'_>, pair: Pair) -> PyResult<Bound<'_, PyDict>> {
    let Pair { clean, counterfactual, target, alternative, .. } = pair;
    let row = PyDict::new(py);
    row.set_item("clean", clean)?;
    row.set_item("counterfactual", counterfactual)?;
    row.set_item("target", target)?;
    row.set_item("alternative", alternative)?;
    Ok(row)
}

fn pairs(pairs: &Bound<'_, PyAny>) -> PyResult<Vec<Pair>> {
    pairs.try_iter()?.enumerate().map(|(at, item)| pair(&item?, at + 1)).collect()
}

fn pair(pair: &Bound<'_, PyAny>, number: usize) -> PyResult<Pair> {
    let wrong = |what: &str| PyValueError::new_err(format!("pair {number}: {what}"));
    let (clean, counterfactual, target, alternative): (String, String, String, String) = match pair.cast::<PyDict>() {
        Ok(dict) => {
            let get = |name: &str| -> PyResult<String> {
                let missing = || PyKeyError::new_err(format!("pair {number} has no `{name}`"));
                dict.get_item(name)?.ok_or_else(missing)?.extract()
            };
            (get("clean")?, get("counterfactual")?, get("target")?, get("alternative")?)
        }
        Err(_) => pair.extract().map_err(|_| wrong("a dict or a tuple of four texts is expected"))?,
    };
    if target == alternative {
        return Err(wrong("target and alternative are the same"));
    }
    if clean.is_empty() || counterfactual.is_empty() || target.is_empty() || alternative.is_empty() {
        return Err(wrong("an empty text"));
    }
    Ok(Pair { clean, counterfactual, target, alternative, after: Default::default(), template: number })
}
