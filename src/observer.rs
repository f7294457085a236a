//! How a long computation tells how far it is, and learns that it is to stop.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

/// How far one stage of a long computation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage<'a> {
    /// What is being done, such as `tokenizing`.
    pub name: &'a str,
    /// How much of it is done, in `unit`.
    pub done: u64,
    /// How much there is in all, where that is known.
    pub total: Option<u64>,
    /// What `done` and `total` count, such as `bytes`.
    pub unit: &'a str,
}

/// Who watches a long computation. The default watches nothing and never stops it.
#[derive(Clone, Copy, Default)]
pub struct Observer<'a> {
    stop: Option<&'a AtomicBool>,
    report: Option<&'a (dyn Fn(&Stage<'_>) + Sync)>,
}

impl<'a> Observer<'a> {
    /// Stops the computation once `stop` is true.
    pub fn stopped_by(stop: &'a AtomicBool) -> Self {
        Self { stop: Some(stop), report: None }
    }

    /// The same observer, which also calls `report` as the computation advances, from any of its
    /// threads.
    #[must_use]
    pub fn with_report(self, report: &'a (dyn Fn(&Stage<'_>) + Sync)) -> Self {
        Self { report: Some(report), ..self }
    }

    /// Returns [`Error::Stopped`] once the computation is to stop. Long loops call it at least
    /// every half second.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn check(&self) -> Result<()> {
        match self.stop {
            Some(stop) if stop.load(Ordering::Relaxed) => Err(Error::Stopped),
            _ => Ok(()),
        }
    }

    /// Reports how far `stage` is, then checks as [`Observer::check`] does.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn advance(&self, stage: &Stage<'_>) -> Result<()> {
        if let Some(report) = self.report {
            report(stage);
        }
        self.check()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const STAGE: Stage = Stage { name: "counting", done: 3, total: Some(10), unit: "pairs" };

    #[test]
    fn reports_reach_the_observer_until_it_stops() {
        let (stop, seen) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        let report = |stage: &Stage<'_>| seen.lock().unwrap().push(stage.done);
        let observer = Observer::stopped_by(&stop).with_report(&report);
        observer.advance(&STAGE).unwrap();
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(observer.advance(&STAGE), Err(Error::Stopped)));
        assert!(matches!(observer.check(), Err(Error::Stopped)));
        assert_eq!(*seen.lock().unwrap(), [3, 3]);
    }

    #[test]
    fn the_default_observer_never_stops_anything() {
        Observer::default().advance(&STAGE).unwrap();
    }
}
