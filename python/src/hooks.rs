//! Python functions as hooks of a forward pass.

use std::time::{Duration, Instant};

use gossamer::files::HostTensor;
use gossamer::model::{Hooks, ModelConfig, PromptTensor, Site};
use gossamer::tape::{Tape, Var};
use gossamer::{Error, Result};
use numpy::PyUntypedArrayMethods;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::arguments::{array, floats, site};
use crate::compute::Stop;
use crate::errors::OrRaise;

/// How long a forward pass continues before Python is asked whether a signal has come.
const SIGNALS: Duration = Duration::from_millis(50);

/// Functions `f(array, site)` by site. Each gets a read-only array (B, T, width) and returns one
/// that takes its place, or None.
pub struct PythonHooks<'a> {
    functions: Vec<(Site, Py<PyAny>)>,
    lengths: Vec<usize>,
    stop: &'a Stop,
    asked: Instant,
}

/// Ends a forward pass on this thread at a signal whose handler raises, such as that of Ctrl-C.
pub struct Signals<'a> {
    stop: &'a Stop,
    asked: Instant,
}

impl<'a> Signals<'a> {
    /// Hooks that end the forward pass through `stop`.
    pub fn new(stop: &'a Stop) -> Self {
        Self { stop, asked: Instant::now() }
    }

    fn check(&mut self) -> Result<()> {
        if self.asked.elapsed() <= SIGNALS {
            return Ok(());
        }
        self.asked = Instant::now();
        Python::attach(|py| py.check_signals()).map_err(|error| {
            self.stop.raise(error);
            Error::Stopped
        })
    }
}

impl Hooks for Signals<'_> {
    fn on_activation(&mut self, _: &mut Tape, _: Site, value: Var) -> Result<Var> {
        self.check().map(|()| value)
    }
}

/// The functions of `hooks`, a mapping from sites' names, or from regular expressions over them, or
/// a list of such pairs, in the order in which they are called.
///
/// # Errors
/// ValueError for a name that fits no site of the model.
pub fn functions(hooks: &Bound<'_, PyAny>, config: &ModelConfig) -> PyResult<Vec<(Site, Py<PyAny>)>> {
    let pairs = match hooks.cast::<PyDict>() {
        Ok(mapping) => mapping.items().into_any(),
        Err(_) => hooks.clone(),
    };
    let mut functions = Vec::new();
    for pair in pairs.try_iter()? {
        let (name, function): (Bound<'_, PyAny>, Py<PyAny>) = pair?.extract()?;
        let name = name.cast::<PyString>()?.to_str()?.to_string();
        let sites = match site(&name, config) {
            Ok(site) => vec![site],
            Err(_) => config.sites_matching(&name).or_raise()?,
        };
        functions.extend(sites.into_iter().map(|site| (site, function.clone_ref(hooks.py()))));
    }
    Ok(functions)
}

impl<'a> PythonHooks<'a> {
    /// Hooks that end the forward pass through `stop` when a function raises.
    pub fn new(functions: Vec<(Site, Py<PyAny>)>, stop: &'a Stop) -> Self {
        Self { functions, lengths: Vec::new(), stop, asked: Instant::now() }
    }

    /// Calls one function with the values of a site.
    fn call(&self, py: Python<'_>, function: &Py<PyAny>, site: Site, value: &Var) -> PyResult<Option<Vec<f32>>> {
        let tensor = value.value().clone();
        // (B·T, width) at some sites.
        let width = tensor.rows_cols().1;
        let prompts = self.lengths.len().max(1);
        let shape = [prompts, tensor.len() / (prompts * width).max(1), width];
        let values = PromptTensor { tensor: tensor.reshape(&shape).or_raise()?, lengths: self.lengths.clone().into() };
        let HostTensor { data, .. } = values.read().or_raise()?;
        let array = array(py, HostTensor { shape: shape.to_vec(), data })?;
        array.call_method1("setflags", (false,))?;
        debug_assert_eq!(array.ndim(), 3);
        let result = function.bind(py).call1((array, site.to_string()))?;
        if result.is_none() { Ok(None) } else { floats(&result, &shape).map(Some) }
    }
}

impl Hooks for PythonHooks<'_> {
    fn on_start(&mut self, lengths: &[usize]) {
        self.lengths = lengths.to_vec();
    }

    fn on_activation(&mut self, _: &mut Tape, site: Site, mut value: Var) -> Result<Var> {
        let ask = self.asked.elapsed() > SIGNALS;
        if !ask && self.functions.iter().all(|(known, _)| *known != site) {
            return Ok(value);
        }
        self.asked = Instant::now();
        let stop = |error| {
            self.stop.raise(error);
            Error::Stopped
        };
        Python::attach(|py| {
            py.check_signals().map_err(stop)?;
            for (_, function) in self.functions.iter().filter(|(known, _)| *known == site) {
                if let Some(data) = self.call(py, function, site, &value).map_err(stop)? {
                    let old = value.value();
                    value = Var::constant(old.device().upload("hook", old.shape(), &data)?);
                }
            }
            Ok(value)
        })
    }
}
