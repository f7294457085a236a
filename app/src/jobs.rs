//! Work off the window's thread, of which only what is still wanted comes back.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::Context;

/// Work of one kind, such as opening a file: a newer request makes the results of older ones unwanted.
pub struct Jobs<T> {
    sender: Sender<(u64, T)>,
    receiver: Receiver<(u64, T)>,
    latest: u64,
    pending: bool,
}

impl<T> Default for Jobs<T> {
    fn default() -> Self {
        let (sender, receiver) = channel();
        Self { sender, receiver, latest: 0, pending: false }
    }
}

impl<T: Send + 'static> Jobs<T> {
    /// Starts `work` on a thread of its own, which calls `wake` when it is done. (A system that has no thread left to give leaves nothing
    /// pending.)
    pub fn start(&mut self, work: impl FnOnce() -> T + Send + 'static, wake: impl FnOnce() + Send + 'static) {
        self.latest += 1;
        let (sender, number) = (self.sender.clone(), self.latest);
        // A window that was closed in the meantime no longer listens.
        let job = move || {
            drop(sender.send((number, work())));
            wake();
        };
        self.pending = thread::Builder::new().name("explorer job".into()).spawn(job).is_ok();
    }

    /// The result of the latest request, once it is there.
    pub fn finished(&mut self) -> Option<T> {
        let latest = self.latest;
        let result = self.receiver.try_iter().filter(|&(number, _)| number == latest).last()?.1;
        self.pending = false;
        Some(result)
    }

    /// Whether a result is still to come.
    pub fn pending(&self) -> bool {
        self.pending
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
            jobs.start(move || number, move || done.send(()).unwrap());
        }
        for _ in 1..=3 {
            wait.recv().unwrap();
        }
        assert!(jobs.pending());
        assert_eq!(jobs.finished(), Some(3));
        assert_eq!((jobs.finished(), jobs.pending()), (None, false));
    }
}
