//! A model's shapes and variants.

use gossamer::model::ModelConfig;
use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// A model's shapes and variants, under the published names: `config.d_model`,
/// `config["d_model"]`, `dict(config)`.
#[pyclass(frozen, mapping, module = "gossamer")]
pub struct Config(Py<PyDict>);

impl Config {
    /// A model's configuration.
    pub fn new(py: Python<'_>, config: &ModelConfig) -> PyResult<Self> {
        Ok(Self(pythonize::pythonize(py, config)?.cast_into::<PyDict>()?.unbind()))
    }
}

#[pymethods]
impl Config {
    fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let missing = || PyAttributeError::new_err(format!("the configuration has no `{name}`"));
        self.0.bind(py).get_item(name)?.ok_or_else(missing)
    }

    fn __getitem__<'py>(&self, py: Python<'py>, name: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.0.bind(py).as_any().get_item(name)
    }

    fn keys<'py>(&self, py: Python<'py>) -> Bound<'py, PyList> {
        self.0.bind(py).keys()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.0.bind(py).as_any().try_iter()?.into_any())
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.0.bind(py).len()
    }

    fn __contains__(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.0.bind(py).contains(name)
    }

    fn __dir__<'py>(&self, py: Python<'py>) -> Bound<'py, PyList> {
        self.keys(py)
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, Config>) -> PyResult<bool> {
        self.0.bind(py).eq(&other.get().0)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let entries = self.0.bind(py).iter().map(|(name, value)| Ok(format!("{name}={}", value.repr()?)));
        Ok(format!("Config({})", entries.collect::<PyResult<Vec<_>>>()?.join(", ")))
    }
}
