//! The commands `gossamer` and `train`, which the package installs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use pyo3::prelude::*;

/// Runs the command `train`; `args` begins with its name. Returns the exit code.
#[pyfunction]
pub fn run_train(py: Python<'_>, args: Vec<OsString>) -> u8 {
    number(py.detach(|| gossamer::cli::train::main(args)))
}

/// Runs the command `gossamer`; `args` begins with its name. `programs` is the folder of `train`,
/// which sweeps start. Returns the exit code.
#[pyfunction]
pub fn run_gossamer(py: Python<'_>, args: Vec<OsString>, programs: PathBuf) -> u8 {
    number(py.detach(|| gossamer::cli::gossamer::main(args, programs)))
}

fn number(code: ExitCode) -> u8 {
    (0..u8::MAX).find(|&number| ExitCode::from(number) == code).unwrap_or(u8::MAX)
}
