//! Background work: a thread, the updates that it sends, and a flag that asks it to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use anyhow::Context;

/// The message when a thread has ended without an answer.
const ENDED: &str = "stopped unexpectedly: open the file again";

/// A thread that answers requests `Q`, always the newest one, with updates `U`. Dropping the job
/// asks it to stop.
pub struct Job<U, Q = ()> {
    requests: Sender<(u64, Q)>,
    updates: Receiver<(u64, U)>,
    stop: Arc<AtomicBool>,
    requested: u64,
    answered: u64,
    ended: bool,
}

/// The requests of a job, in its thread.
pub struct Inbox<U, Q = ()> {
    pub reporter: Reporter<U>,
    requests: Receiver<(u64, Q)>,
    newest: Option<(u64, Q)>,
}

/// Sends a job's updates from its thread.
pub struct Reporter<U> {
    updates: Sender<(u64, U)>,
    number: u64,
    pub stop: Arc<AtomicBool>,
    // Dropped after `updates`: whoever is woken then sees that no update will come.
    wake: Wake,
}

/// Calls the function also when the thread panics.
struct Wake(Box<dyn Fn() + Send + Sync>);

impl Drop for Wake {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl<U, Q> Drop for Job<U, Q> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<U: Send + 'static, Q: Send + 'static> Job<U, Q> {
    /// Starts a thread with `work`, which takes requests when it is ready. `wake` is called after
    /// every update.
    pub fn serve(wake: impl Fn() + Send + Sync + 'static, work: impl FnOnce(Inbox<U, Q>) + Send + 'static) -> Self {
        let ((requests, incoming), (outgoing, updates)) = (channel(), channel());
        let stop = Arc::<AtomicBool>::default();
        let reporter = Reporter { updates: outgoing, number: 0, stop: stop.clone(), wake: Wake(Box::new(wake)) };
        let inbox = Inbox { reporter, requests: incoming, newest: None };
        // If the system has no thread left, the job has ended, as after a panic.
        drop(thread::Builder::new().name("explorer job".into()).spawn(move || work(inbox)));
        Self { requests, updates, stop, requested: 0, answered: 0, ended: false }
    }

    /// Requests something. Older requests that are not being answered yet are dropped.
    pub fn request(&mut self, request: Q) {
        self.requested += 1;
        // A thread that has ended does not receive it, and no answer comes.
        drop(self.requests.send((self.requested, request)));
    }
}

impl<U: Send + 'static> Job<U> {
    /// Runs `work` once on a thread. Its result is the last update.
    pub fn run(wake: impl Fn() + Send + Sync + 'static, work: impl FnOnce(&Reporter<U>) -> U + Send + 'static) -> Self {
        let mut job = Self::serve(wake, |mut inbox| {
            if inbox.next_request().is_some() {
                let result = work(&inbox.reporter);
                inbox.reporter.finish(result);
            }
        });
        job.request(());
        job
    }
}

impl<T> Job<Result<T, String>> {
    /// Takes the job's result once it is there, or the error that there will be none.
    pub fn take_result(job: &mut Option<Self>) -> Option<Result<T, String>> {
        let running = job.as_mut()?;
        let result = running.poll().or_else(|| running.ended.then(|| Err(ENDED.into())))?;
        *job = None;
        Some(result)
    }
}

impl<U, Q> Job<U, Q> {
    /// The next update, if it has come.
    pub fn poll(&mut self) -> Option<U> {
        let update = self.updates.try_recv();
        self.ended |= update.as_ref().is_err_and(|&error| error == TryRecvError::Disconnected);
        self.received(update.ok()?)
    }

    /// Waits for the next update, at most until `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Option<U> {
        let update = self.updates.recv_timeout(timeout);
        self.ended |= update.as_ref().is_err_and(|&error| error == RecvTimeoutError::Disconnected);
        self.received(update.ok()?)
    }

    fn received(&mut self, (number, update): (u64, U)) -> Option<U> {
        self.answered = self.answered.max(number);
        Some(update)
    }

    /// Whether the answer to the newest request is still to come.
    pub fn pending(&self) -> bool {
        !self.ended && self.answered < self.requested
    }

    /// Whether the thread has ended without an answer to the newest request.
    pub fn failed(&self) -> bool {
        self.ended && self.answered < self.requested
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl<U, Q> Inbox<U, Q> {
    /// Waits for the next request: of several, the newest. Nothing once the job is dropped.
    pub fn next_request(&mut self) -> Option<Q> {
        if !self.outdated() {
            self.newest = Some(self.requests.recv().ok()?);
            self.outdated();
        }
        let (number, request) = self.newest.take()?;
        self.reporter.number = number;
        Some(request)
    }

    /// Whether a newer request waits than the one that is being answered.
    pub fn outdated(&mut self) -> bool {
        if let Some(newest) = self.requests.try_iter().last() {
            self.newest = Some(newest);
        }
        self.newest.is_some()
    }
}

impl<U> Reporter<U> {
    /// Sends an update with more to come. Returns whether anyone receives it.
    pub fn update(&self, update: U) -> bool {
        self.send(self.number.saturating_sub(1), update)
    }

    /// Sends the last update about the request.
    pub fn finish(&self, update: U) {
        self.send(self.number, update);
    }

    fn send(&self, number: u64, update: U) -> bool {
        let received = self.updates.send((number, update)).is_ok();
        (self.wake.0)();
        received
    }
}

/// Requests to a job, the newest answer, and the error if the last request has none.
pub struct Request<Q, A> {
    job: Job<Result<A, String>, Q>,
    last: Option<Q>,
    pub answer: Option<Arc<A>>,
    pub error: Option<String>,
}

impl<Q: Clone + PartialEq + Send + 'static, A: Send + 'static> Request<Q, A> {
    pub fn new(job: Job<Result<A, String>, Q>) -> Self {
        Self { job, last: None, answer: None, error: None }
    }

    /// Receives answers. Returns whether one came.
    pub fn poll(&mut self) -> bool {
        let mut received = false;
        while let Some(answer) = self.job.poll() {
            received = true;
            match answer {
                Ok(answer) => (self.answer, self.error) = (Some(Arc::new(answer)), None),
                Err(error) => self.error = Some(error),
            }
        }
        if self.job.failed() {
            self.error = Some(ENDED.into());
        }
        received
    }

    /// Sends a request unless it equals the last one.
    pub fn send(&mut self, request: Q) {
        if self.last.as_ref() != Some(&request) {
            self.last = Some(request.clone());
            self.job.request(request);
        }
    }

    pub fn pending(&self) -> bool {
        self.job.pending()
    }
}

/// Runs long work in its own thread pool: in the shared one, jobs would wait for each other.
pub fn with_own_threads<R: Send>(work: impl FnOnce() -> R + Send) -> anyhow::Result<R> {
    let threads = rayon::ThreadPoolBuilder::new().build().context("no threads could be started")?;
    Ok(threads.install(work))
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;
    use std::sync::mpsc::channel;

    use super::{ENDED, Inbox, Job};

    #[test]
    fn only_the_newest_of_waiting_requests_is_answered() {
        let ((open, door), (woken, wakes)) = (channel::<()>(), channel());
        let work = move |mut inbox: Inbox<Vec<(i32, bool)>, i32>| {
            let mut log = Vec::new();
            while let Some(number) = inbox.next_request() {
                inbox.reporter.update(log.clone());
                door.recv().unwrap();
                log.push((number, inbox.outdated()));
                inbox.reporter.finish(log.clone());
            }
        };
        let mut job = Job::serve(move || woken.send(()).unwrap_or_default(), work);
        job.request(1);
        wakes.recv().unwrap();
        assert_eq!((job.poll(), job.pending()), (Some(vec![]), true));
        for number in 2..=5 {
            job.request(number);
        }
        open.send(()).unwrap();
        // The last update about the first request, and the first about the last.
        (0..2).for_each(|_| wakes.recv().unwrap());
        assert_eq!([job.poll(), job.poll()], [Some(vec![(1, true)]), Some(vec![(1, true)])]);
        assert!(job.pending());
        open.send(()).unwrap();
        wakes.recv().unwrap();
        assert_eq!((job.poll(), job.pending()), (Some(vec![(1, true), (5, false)]), false));
        assert_eq!(job.poll(), None);
    }

    #[test]
    fn a_newer_job_replaces_an_older_one() {
        let (done, wait) = channel();
        let mut latest = None;
        for number in 1..=3 {
            let done = done.clone();
            latest = Some(Job::run(move || done.send(()).unwrap(), move |_| Ok(number)));
        }
        // Each wakes with its result and when its thread ends.
        (0..6).for_each(|_| wait.recv().unwrap());
        assert_eq!((Job::take_result(&mut latest), latest.is_none()), (Some(Ok(3)), true));
    }

    #[test]
    fn a_thread_that_panics_is_not_waited_for() {
        let (woken, wakes) = channel();
        let mut job =
            Some(Job::<Result<(), String>>::run(move || woken.send(()).unwrap(), |_| resume_unwind(Box::new(()))));
        wakes.recv().unwrap();
        assert_eq!(Job::take_result(&mut job), Some(Err(ENDED.into())));
    }
}
