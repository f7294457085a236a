//! The module `gossamer._gossamer`: gossamer's library for Python. The package around it, in
//! `python/gossamer`, adds what is simpler in Python.

mod activations;
mod arguments;
mod cli;
mod compute;
mod config;
mod errors;
mod hooks;
mod model;
mod tokenizer;

use pyo3::prelude::*;

#[pymodule]
mod _gossamer {
    #[pymodule_export]
    use crate::activations::Activations;
    #[pymodule_export]
    use crate::cli::{run_gossamer, run_train};
    #[pymodule_export]
    use crate::config::Config;
    #[pymodule_export]
    use crate::errors::Error;
    #[pymodule_export]
    use crate::model::{Gradients, Model, load};
    #[pymodule_export]
    use crate::tokenizer::Tokenizer;
}
