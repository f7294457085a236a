//! Work without the interpreter: other Python threads run meanwhile, and Ctrl-C ends it.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use gossamer::device::on_worker;
use gossamer::observer::Observer;
use pyo3::PyErr;
use pyo3::prelude::*;

use crate::errors::exception;

/// How often Python is asked whether a signal has come.
const SIGNALS: Duration = Duration::from_millis(50);

/// Runs `work` on the CPU device's threads, where its operations start at once. A signal whose
/// handler raises, such as that of Ctrl-C, sets the flag that `work` is to stop by.
///
/// # Errors
/// What the signal's handler raised; what a callback of `work` raised and gave to
/// [`Stop::raise`]; the errors of `work`.
pub fn compute<T: Send>(py: Python<'_>, work: impl FnOnce(&Stop) -> gossamer::Result<T> + Send) -> PyResult<T> {
    let stop = Stop::default();
    let result = py.detach(|| {
        std::thread::scope(|scope| {
            let (sender, receiver) = channel();
            let (stop, work) = (&stop, work);
            scope.spawn(move || sender.send(on_worker(|| work(stop))));
            loop {
                match receiver.recv_timeout(SIGNALS) {
                    Ok(result) => return Some(result),
                    // It panicked, which the scope passes on.
                    Err(RecvTimeoutError::Disconnected) => return None,
                    Err(RecvTimeoutError::Timeout) => {
                        if let Err(error) = Python::attach(|py| py.check_signals()) {
                            stop.raise(error);
                        }
                    }
                }
            }
        })
    });
    finish(stop, result.unwrap_or(Err(gossamer::Error::Stopped)))
}

/// Runs `work`, which calls Python, on this thread.
///
/// # Errors
/// What a callback of `work` raised and gave to [`Stop::raise`]; the errors of `work`.
pub fn compute_here<T: Send>(py: Python<'_>, work: impl FnOnce(&Stop) -> gossamer::Result<T> + Send) -> PyResult<T> {
    let stop = Stop::default();
    let result = py.detach(|| work(&stop));
    finish(stop, result)
}

fn finish<T>(stop: Stop, result: gossamer::Result<T>) -> PyResult<T> {
    match (stop.raised.into_inner().unwrap_or_else(PoisonError::into_inner), result) {
        (_, Ok(value)) => Ok(value),
        (Some(raised), Err(_)) => Err(raised),
        (None, Err(error)) => Err(exception(error)),
    }
}

/// Ends a computation, and keeps why.
#[derive(Default)]
pub struct Stop {
    flag: AtomicBool,
    raised: Mutex<Option<PyErr>>,
}

impl Stop {
    /// Ends the computation with an exception; the first one counts.
    pub fn raise(&self, error: PyErr) {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.flag.store(true, Ordering::Relaxed);
    }

    /// An observer that stops by the flag.
    pub fn observer(&self) -> Observer<'_> {
        Observer::stopped_by(&self.flag)
    }
}
