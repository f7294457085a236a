//! Work off the window's thread, of which only what is still wanted comes back.

use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

use anyhow::Context;

/// Work of one kind, such as opening a file: a newer request makes the results of older ones unwanted.
pub struct Jobs<T> {
    /// Where the latest one's result comes; nothing where none is to come.
    latest: Option<Receiver<Result<T, String>>>,
}

impl<T> Default for Jobs<T> {
    fn default() -> Self {
        Self { latest: None }
    }
}

/// What is told where a thread ended without a word.
pub const STOPPED: &str = "stopped unexpectedly: open the file again";

/// Calls when it goes, also where its thread panics.
pub struct Last<F: Fn()>(pub F);

impl<F: Fn()> Drop for Last<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl<T: Send + 'static> Jobs<T> {
    /// Starts `work` on a thread of its own, which calls `wake` when it is done.
    pub fn start(
        &mut self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
        wake: impl Fn() + Send + 'static,
    ) {
        let (sender, receiver) = channel();
        self.latest = Some(receiver);
        let job = move || {
            // The sender goes first: who is woken finds the result, or that none will come.
            let _wake = Last(wake);
            let sender = sender;
            // What is no longer wanted is not heard.
            drop(sender.send(work()));
        };
        // Of a thread that the system has not got to give nothing is heard, as of one that has panicked.
        drop(thread::Builder::new().name("explorer job".into()).spawn(job));
    }

    /// The result of the latest request, once it is there, or what went wrong.
    pub fn finished(&mut self) -> Option<Result<T, String>> {
        let result = match self.latest.as_ref()?.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err(STOPPED.into()),
        };
        self.latest = None;
        Some(result)
    }

    /// Whether a result is still to come.
    pub fn pending(&self) -> bool {
        self.latest.is_some()
    }
}

/// Does long work with threads of its own: in those that all share, one piece of work would wait for another.
///
/// # Errors
/// The system has no thread left to give.
pub fn with_own_threads<R: Send>(work: impl FnOnce() -> R + Send) -> anyhow::Result<R> {
    let threads = rayon::ThreadPoolBuilder::new().build().context("no threads could be started")?;
    Ok(threads.install(work))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::Jobs;

    #[test]
    fn only_the_latest_result_is_wanted() {
        let (mut jobs, (done, wait)) = (Jobs::default(), channel());
        for number in 1..=3 {
            let done = done.clone();
            jobs.start(move || Ok(number), move || done.send(()).unwrap());
        }
        for _ in 1..=3 {
            wait.recv().unwrap();
        }
        assert!(jobs.pending());
        assert_eq!(jobs.finished(), Some(Ok(3)));
        assert_eq!((jobs.finished(), jobs.pending()), (None, false));
    }

    #[test]
    fn work_that_panics_is_not_waited_for() {
        let (mut jobs, (done, wait)) = (Jobs::<()>::default(), channel());
        jobs.start(|| std::panic::resume_unwind(Box::new(())), move || done.send(()).unwrap());
        wait.recv().unwrap();
        assert_eq!((jobs.finished(), jobs.pending()), (Some(Err(super::STOPPED.into())), false));
    }
}
