//! The module `gossamer._gossamer`: gossamer's library for Python. The package around it, in
//! `python/gossamer`, adds what is simpler in Python.

mod activations;
mod arguments;
mod bridges;
mod circuits;
mod cli;
mod compute;
mod config;
mod errors;
mod example;
mod hooks;
mod model;
mod tasks;
mod tokenizer;
mod train;

use pyo3::prelude::*;

#[pymodule]
mod _gossamer {
    #[pymodule_export]
    use crate::activations::Activations;
    #[pymodule_export]
    use crate::bridges::Bridges;
    #[pymodule_export]
    use crate::circuits::{Circuit, find_circuits};
    #[pymodule_export]
    use crate::cli::{run_gossamer, run_train};
    #[pymodule_export]
    use crate::config::Config;
    #[pymodule_export]
    use crate::errors::Error;
    #[pymodule_export]
    use crate::example::example;
    #[pymodule_export]
    use crate::model::{Gradients, Model, from_state_dict, load, new_model};
    #[pymodule_export]
    use crate::tasks::{Task, evaluate_on_task, task_names};
    #[pymodule_export]
    use crate::tokenizer::Tokenizer;
    #[pymodule_export]
    use crate::train::{Progress, convert, train, train_bridges};
}
