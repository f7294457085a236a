//! The example that comes with the package.

use std::path::PathBuf;

use pyo3::prelude::*;

use crate::errors::OrRaise;

/// The folder of the example: a trained sparse model, its dense partner in `dense`, bridges between
/// them, and circuits. It is written into `folder`, which must be new or empty, or else into the
/// user's cache.
#[pyfunction]
#[pyo3(signature = (folder=None))]
pub fn example(folder: Option<PathBuf>) -> PyResult<PathBuf> {
    match folder {
        Some(folder) => gossamer::example::unpack(&folder).map(|()| folder),
        None => gossamer::example::cached(),
    }
    .or_raise()
}
