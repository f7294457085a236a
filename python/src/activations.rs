//! The activations of a run, by site.

use std::sync::OnceLock;

use gossamer::model::{PromptTensor, Site};
use numpy::{PyArray1, PyArrayDyn};
use pyo3::exceptions::{PyKeyError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};

use crate::arguments::array;
use crate::errors::OrRaise;

/// Activations or gradients by site: a mapping from site names to arrays (B, T, width) of float32.
///
/// Prompts of a batch may differ in length; what follows a prompt's end is 0, and `lengths` has
/// the length of each. `cache["0.mlp.post_act"]` and `cache["mlp.post_act", 0]` are the same. An
/// array is read from the device when it is first asked for.
#[pyclass(frozen, mapping, module = "gossamer")]
pub struct Activations {
    sites: Vec<Values>,
    lengths: Vec<usize>,
}

/// The values at a site.
struct Values {
    site: Site,
    tensor: PromptTensor,
    /// They were read.
    array: OnceLock<Py<PyArrayDyn<f32>>>,
}

impl Activations {
    /// The values at sites, in the order of the forward pass.
    pub fn new(sites: impl IntoIterator<Item = (Site, PromptTensor)>, lengths: &[usize]) -> Self {
        let sites = sites.into_iter().map(|(site, tensor)| Values { site, tensor, array: OnceLock::new() });
        Self { sites: sites.collect(), lengths: lengths.to_vec() }
    }

    fn find(&self, name: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
        let name = if let Ok(pair) = name.cast::<PyTuple>() {
            let (kind, layer): (String, usize) = pair.extract()?;
            format!("{layer}.{kind}")
        } else if let Ok(name) = name.cast::<PyString>() {
            name.to_str()?.to_string()
        } else {
            return Err(PyTypeError::new_err("a site's name is expected, such as \"0.mlp.post_act\""));
        };
        Ok(name.parse().ok().and_then(|site: Site| self.sites.iter().position(|values| values.site == site)))
    }

    fn array<'py>(&self, py: Python<'py>, at: usize) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        let values = &self.sites[at];
        if let Some(array) = values.array.get() {
            return Ok(array.bind(py).clone());
        }
        let read = array(py, py.detach(|| values.tensor.read()).or_raise()?)?;
        // Another thread may have been first; then its array is the one.
        Ok(values.array.get_or_init(|| read.unbind()).bind(py).clone())
    }
}

#[pymethods]
impl Activations {
    fn __getitem__<'py>(&self, py: Python<'py>, name: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        match self.find(name)? {
            Some(at) => self.array(py, at),
            None => {
                let sites: Vec<_> = self.sites.iter().map(|values| values.site.to_string()).collect();
                Err(PyKeyError::new_err(format!("{name} was not recorded; there are: {}", sites.join(", "))))
            }
        }
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.find(name)?.is_some())
    }

    fn __len__(&self) -> usize {
        self.sites.len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.keys(py)?.into_any().try_iter()?.into_any())
    }

    /// The names of the sites, in the order of the forward pass.
    fn keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.sites.iter().map(|values| values.site.to_string()))
    }

    /// The arrays, in the same order.
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyArrayDyn<f32>>>> {
        (0..self.sites.len()).map(|at| self.array(py, at)).collect()
    }

    /// Pairs of names and arrays.
    fn items<'py>(&self, py: Python<'py>) -> PyResult<Vec<(String, Bound<'py, PyArrayDyn<f32>>)>> {
        (0..self.sites.len()).map(|at| Ok((self.sites[at].site.to_string(), self.array(py, at)?))).collect()
    }

    /// The array of a site, or `default` if it was not recorded.
    #[pyo3(signature = (name, default=None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyAny>,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self.find(name)? {
            Some(at) => Ok(self.array(py, at)?.into_any()),
            None => Ok(default.unwrap_or_else(|| py.None().into_bound(py))),
        }
    }

    /// The length of each prompt, (B) of int64.
    #[getter]
    fn lengths<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        PyArray1::from_iter(py, self.lengths.iter().map(|&length| length as i64))
    }

    fn __repr__(&self) -> String {
        let prompts = match self.lengths.len() {
            1 => "1 prompt".into(),
            count => format!("{count} prompts"),
        };
        let longest = self.lengths.iter().max().copied().unwrap_or(0);
        let names: Vec<_> = self.sites.iter().take(3).map(|values| values.site.to_string()).collect();
        let more = if self.sites.len() > names.len() { ", …" } else { "" };
        let count = self.sites.len();
        format!("<Activations at {count} sites ({}{more}), {prompts} of up to {longest} tokens>", names.join(", "))
    }
}
