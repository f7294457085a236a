//! A thread that answers requests: always the newest, never those that it came after.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use crate::jobs::Last;

/// Work that goes on with what it has opened, unlike [`crate::jobs::Jobs`], each of which starts anew.
pub struct Worker<Q, A> {
    requests: Sender<(u64, Q)>,
    answers: Receiver<(u64, A)>,
    asked: u64,
    answered: u64,
    stopped: bool,
}

/// What the thread has of it.
pub struct Inbox<Q, A> {
    requests: Receiver<(u64, Q)>,
    /// What came while something else was being answered.
    waiting: Option<(u64, Q)>,
    /// The number of the request that is being answered.
    number: u64,
    answers: Sender<(u64, A)>,
    /// The last to go: who is woken knows by then that no answer will come.
    wake: Last<Box<dyn Fn() + Send>>,
}

impl<Q: Send + 'static, A: Send + 'static> Worker<Q, A> {
    /// Starts a thread with `work`, which takes requests when it is ready. `wake` is called after every answer.
    pub fn start(work: impl FnOnce(Inbox<Q, A>) + Send + 'static, wake: impl Fn() + Send + 'static) -> Self {
        let ((requests, incoming), (outgoing, answers)) = (channel(), channel());
        let inbox =
            Inbox { requests: incoming, waiting: None, number: 0, answers: outgoing, wake: Last(Box::new(wake)) };
        // A thread that the system has not got to give has stopped.
        drop(thread::Builder::new().name("explorer worker".into()).spawn(move || work(inbox)));
        Self { requests, answers, asked: 0, answered: 0, stopped: false }
    }

    /// Asks something. What was asked before and is not being answered yet is forgotten.
    pub fn ask(&mut self, request: Q) {
        self.asked += 1;
        // Where nobody listens any more, no answer comes either.
        drop(self.requests.send((self.asked, request)));
    }

    /// The newest answer that has come since the last call.
    pub fn answer(&mut self) -> Option<A> {
        let mut newest = None;
        loop {
            match self.answers.try_recv() {
                Ok(answer) => newest = Some(answer),
                Err(stop) => {
                    self.stopped = stop == TryRecvError::Disconnected;
                    break;
                }
            }
        }
        let (number, answer) = newest?;
        self.answered = self.answered.max(number);
        Some(answer)
    }

    /// Whether the answer to the newest request is still to come.
    pub fn pending(&self) -> bool {
        !self.stopped && self.answered < self.asked
    }

    /// Whether the thread has ended, so that nothing will be answered any more.
    pub fn stopped(&self) -> bool {
        self.stopped
    }
}

impl<Q, A> Inbox<Q, A> {
    /// Waits for the next request: of several, the newest. Nothing, when nobody is left to ask.
    pub fn take(&mut self) -> Option<Q> {
        if !self.outdated() {
            self.waiting = Some(self.requests.recv().ok()?);
            self.outdated();
        }
        let (number, request) = self.waiting.take()?;
        self.number = number;
        Some(request)
    }

    /// Whether what is being answered is no longer wanted: something newer waits.
    pub fn outdated(&mut self) -> bool {
        if let Some(newest) = self.requests.try_iter().last() {
            self.waiting = Some(newest);
        }
        self.waiting.is_some()
    }

    /// Answers, with more to come.
    pub fn early(&self, answer: A) {
        self.send(self.number.saturating_sub(1), answer);
    }

    /// Answers.
    pub fn done(&self, answer: A) {
        self.send(self.number, answer);
    }

    fn send(&self, number: u64, answer: A) {
        // Where nobody listens any more, nobody will ask any more, either.
        drop(self.answers.send((number, answer)));
        (self.wake.0)();
    }
}

#[cfg(test)]
mod tests {
    use super::Worker;
    use std::sync::mpsc::channel;

    #[test]
    fn only_the_newest_of_waiting_requests_is_answered_and_what_is_outdated_is_known() {
        let ((open, door), (said, hear)) = (channel::<()>(), channel());
        let work = move |mut inbox: super::Inbox<i32, Vec<(i32, bool)>>| {
            let mut log = Vec::new();
            while let Some(number) = inbox.take() {
                inbox.early(log.clone());
                door.recv().unwrap();
                log.push((number, inbox.outdated()));
                inbox.done(log.clone());
            }
        };
        let mut worker = Worker::start(work, move || said.send(()).unwrap_or_default());
        worker.ask(1);
        hear.recv().unwrap();
        assert_eq!((worker.answer(), worker.pending()), (Some(vec![]), true));
        for number in 2..=5 {
            worker.ask(number);
        }
        open.send(()).unwrap();
        // Done with the first, early with the last.
        (0..2).for_each(|_| hear.recv().unwrap());
        assert_eq!((worker.answer(), worker.pending()), (Some(vec![(1, true)]), true));
        open.send(()).unwrap();
        hear.recv().unwrap();
        assert_eq!((worker.answer(), worker.pending()), (Some(vec![(1, true), (5, false)]), false));
        assert_eq!(worker.answer(), None);
    }

    #[test]
    fn a_thread_that_panics_is_not_waited_for() {
        let (said, hear) = channel();
        let work = |mut inbox: super::Inbox<i32, ()>| {
            inbox.take();
            std::panic::resume_unwind(Box::new(()));
        };
        let mut worker = Worker::start(work, move || said.send(()).unwrap_or_default());
        worker.ask(1);
        hear.recv().unwrap();
        assert_eq!((worker.answer(), worker.stopped(), worker.pending()), (None, true, false));
    }
}
