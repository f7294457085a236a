//! Work without the interpreter: other Python threads run meanwhile, and Ctrl-C ends it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
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
/// What the signal's handler raised; otherwise the errors of `work`.
pub fn compute<T: Send>(py: Python<'_>, work: impl FnOnce(&Stop) -> gossamer::Result<T> + Send) -> PyResult<T> {
    compute_with::<(), T>(py, |_, ()| Ok(()), |stop, _| work(stop))
}

/// As [`compute`]; `work` sends messages, which `receive` is called with on this thread. `work` does
/// not wait for that, so that what `receive` computes never waits for `work`.
///
/// # Errors
/// What `receive` raised, which also stops `work`; otherwise as [`compute`].
pub fn compute_with<M: Send, T: Send>(
    py: Python<'_>,
    mut receive: impl FnMut(Python<'_>, M) -> PyResult<()> + Send,
    work: impl FnOnce(&Stop, &Messages<M>) -> gossamer::Result<T> + Send,
) -> PyResult<T> {
    let stop = Stop::default();
    let result = py.detach(|| {
        std::thread::scope(|scope| {
            let (messages, incoming) = channel();
            let (done, result) = channel();
            let stop = &stop;
            scope.spawn(move || {
                let messages = Messages(messages);
                // Nobody listens any more only if this thread panicked.
                let _ = done.send(on_worker(|| work(stop, &messages)));
            });
            loop {
                let called = match incoming.recv_timeout(SIGNALS) {
                    Ok(message) => Python::attach(|py| py.check_signals().and_then(|()| receive(py, message))),
                    Err(RecvTimeoutError::Timeout) => Python::attach(|py| py.check_signals()),
                    // It has ended, or it panicked, which the scope passes on.
                    Err(RecvTimeoutError::Disconnected) => return result.recv().ok(),
                };
                if let Err(error) = called {
                    stop.raise(error);
                }
            }
        })
    });
    finish(stop, result.unwrap_or(Err(gossamer::Error::Stopped)))
}

/// Where a computation's messages go.
pub struct Messages<M>(Sender<M>);

impl<M> Messages<M> {
    /// Sends a message.
    pub fn send(&self, message: M) {
        // Nobody listens any more only where the computation is over.
        let _ = self.0.send(message);
    }
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
        (Some(raised), _) => Err(raised),
        (None, result) => result.map_err(exception),
    }
}

/// Ends a computation, and keeps why.
#[derive(Default)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    raised: Mutex<Option<PyErr>>,
}

impl Stop {
    /// Ends the computation with an exception; the first one counts.
    pub fn raise(&self, error: PyErr) {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.flag.store(true, Ordering::Relaxed);
    }

    /// The flag that the library's functions stop by.
    pub fn flag(&self) -> &Arc<AtomicBool> {
        &self.flag
    }

    /// An observer that stops by the flag.
    pub fn observer(&self) -> Observer<'_> {
        Observer::stopped_by(&self.flag)
    }
}
