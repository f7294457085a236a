//! How far long work is: bars on a terminal, elsewhere a line on standard error every ten seconds. What is quick shows nothing.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressStyle};

use super::signals;
use crate::observer::{Observer, Stage};

/// The variable that sets the seconds between two lines; 0: none.
pub const SECONDS: &str = "GOSSAMER_PROGRESS";
/// Between two lines, unless it is set.
const INTERVAL: Duration = Duration::from_secs(10);
/// Work shorter than this gets no bar.
const QUICK: Duration = Duration::from_millis(500);
/// Between two looks at the bars.
const REFRESH: Duration = Duration::from_millis(200);
/// Pieces of work named in a line, of those that are done side by side.
const NAMED: usize = 4;

/// Shows how far the work of this process is, until it is dropped.
pub struct Progress {
    shared: Arc<Shared>,
    report: Box<dyn Fn(&Stage<'_>) + Send + Sync>,
    ticker: Option<JoinHandle<()>>,
}

struct Shared {
    /// Where there are bars.
    bars: Option<MultiProgress>,
    interval: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    work: Vec<Work>,
    numbers: usize,
    /// When a line was last written.
    said: Instant,
    over: bool,
}

/// Something under way.
struct Work {
    number: usize,
    name: String,
    since: Instant,
    done: u64,
    total: Option<u64>,
    unit: String,
    note: String,
    bar: Option<ProgressBar>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Shows nothing until there is something.
    pub fn new() -> Self {
        let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse::<f64>().ok());
        let interval = seconds.map_or(INTERVAL, |s| Duration::try_from_secs_f64(s).unwrap_or(INTERVAL));
        Self::with(std::io::stderr().is_terminal().then(MultiProgress::new), interval)
    }

    /// Never shows anything.
    pub fn hidden() -> Self {
        Self::with(None, Duration::ZERO)
    }

    fn with(bars: Option<MultiProgress>, interval: Duration) -> Self {
        let state = State { work: Vec::new(), numbers: 0, said: Instant::now(), over: false };
        let shared = Arc::new(Shared { bars, interval, state: Mutex::new(state), changed: Condvar::new() });
        let watched = shared.clone();
        let report = Box::new(move |stage: &Stage<'_>| watched.state().main(stage.name).at(stage));
        let shown = shared.bars.is_some() || !interval.is_zero();
        let ticking = shared.clone();
        let tick = move || tick(&ticking);
        // Without a thread, nothing is shown.
        let ticker = shown.then(|| thread::Builder::new().name("progress".into()).spawn(tick).ok()).flatten();
        Self { shared, report, ticker }
    }

    /// Says what is done from now on.
    pub fn stage(&self, name: &str) {
        self.shared.state().main(name);
    }

    /// The present stage is over, and there is no other.
    pub fn clear(&self) {
        let mut state = self.shared.state();
        if let Some(bar) = state.take(0).and_then(|work| work.bar) {
            self.shared.remove(&bar);
        }
    }

    /// Says how far the present stage is.
    pub fn at(&self, done: u64, total: u64, note: String) {
        let mut state = self.shared.state();
        if let Some(main) = state.work.iter_mut().find(|work| work.number == 0) {
            (main.done, main.total, main.note) = (done, Some(total), note);
        }
    }

    /// Reports to this, and stops at a signal.
    pub fn observer(&self) -> Observer<'_> {
        Observer::stopped_by(signals::stop()).with_report(&*self.report)
    }

    /// One of several pieces of work that are done side by side, until it is dropped.
    pub fn part(&self, name: &str) -> Part<'_> {
        let mut state = self.shared.state();
        state.numbers += 1;
        let number = state.numbers;
        state.work.push(Work::new(number, name));
        Part { shared: &self.shared, number }
    }

    /// Writes a message to standard error.
    pub fn say(&self, line: impl std::fmt::Display) {
        self.aside(|| super::say(line));
    }

    /// Does something that writes to the terminal, without the bars in its way.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        let mut state = self.shared.state();
        state.said = Instant::now();
        self.shared.clear();
        write()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.shared.changed.notify_all();
        if let Some(ticker) = self.ticker.take() {
            // A panic there has been told already.
            let _ = ticker.join();
        }
        let mut state = self.shared.state();
        state.work.iter_mut().filter_map(|work| work.bar.take()).for_each(|bar| bar.finish_and_clear());
        self.shared.clear();
    }
}

/// One of several pieces of work.
pub struct Part<'a> {
    shared: &'a Shared,
    number: usize,
}

impl Part<'_> {
    /// Says how far it is, in steps of `total`, with something to note.
    pub fn at(&self, done: u64, total: u64, note: String) {
        let mut state = self.shared.state();
        if let Some(work) = state.work.iter_mut().find(|work| work.number == self.number) {
            (work.done, work.total, work.note) = (done, Some(total), note);
        }
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(bar) = state.take(self.number).and_then(|work| work.bar) {
            self.shared.remove(&bar);
        }
    }
}

impl State {
    /// The stage of that name, which is the present one from now on.
    fn main(&mut self, name: &str) -> &mut Work {
        let at = match self.work.iter().position(|work| work.number == 0) {
            Some(at) => at,
            None => {
                self.work.insert(0, Work::new(0, name));
                0
            }
        };
        let main = &mut self.work[at];
        if main.name != name {
            *main = Work { bar: main.bar.take(), ..Work::new(0, name) };
        }
        main
    }

    fn take(&mut self, number: usize) -> Option<Work> {
        self.work.iter().position(|work| work.number == number).map(|at| self.work.remove(at))
    }

    fn line(&self) -> String {
        let mut named: Vec<String> = self.work.iter().take(NAMED).map(Work::line).collect();
        if self.work.len() > NAMED {
            named.push(format!("and {} more", self.work.len() - NAMED));
        }
        named.join("; ")
    }
}

impl Work {
    fn new(number: usize, name: &str) -> Self {
        let (note, unit) = (String::new(), String::new());
        Self { number, name: name.into(), since: Instant::now(), done: 0, total: None, unit, note, bar: None }
    }

    fn at(&mut self, stage: &Stage<'_>) {
        (self.done, self.total) = (stage.done, stage.total);
        if self.unit != stage.unit {
            self.unit = stage.unit.into();
        }
    }

    /// What is known of it, without its name.
    fn numbers(&self) -> String {
        let mut text = String::new();
        // Writing to a text does not fail.
        let _ = match (self.total, self.done) {
            (Some(total), done) => write!(text, "{} of {} ", HumanCount(done), HumanCount(total)),
            (None, 0) => Ok(()),
            (None, done) => write!(text, "{} ", HumanCount(done)),
        };
        text += &self.unit;
        let mut text = text.trim_end().to_string();
        if !self.note.is_empty() {
            text += if text.is_empty() { "" } else { "  " };
            text += &self.note;
        }
        text
    }

    fn line(&self) -> String {
        let (seconds, numbers) = (self.since.elapsed().as_secs(), self.numbers());
        match numbers.is_empty() {
            true => format!("{} ({seconds} s)", self.name),
            false => format!("{}: {numbers} ({seconds} s)", self.name),
        }
    }
}

impl Shared {
    /// Bars that cannot be taken away are those of a terminal that is gone.
    fn clear(&self) {
        let _ = self.bars.as_ref().map(MultiProgress::clear);
    }

    fn remove(&self, bar: &ProgressBar) {
        bar.finish_and_clear();
        if let Some(bars) = &self.bars {
            bars.remove(bar);
        }
    }

    fn draw(&self, bars: &MultiProgress, work: &mut Work) {
        if work.since.elapsed() < QUICK && work.bar.is_none() {
            return;
        }
        let bar = work.bar.get_or_insert_with(|| bars.add(ProgressBar::no_length())).clone();
        let template = if work.total.is_some() { "{prefix} {bar:30} {msg}" } else { "{prefix} {msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if let Some(total) = work.total {
            bar.set_length(total);
            bar.set_position(work.done);
        }
        bar.set_prefix(work.name.clone());
        bar.set_message(format!("{} ({} s)", work.numbers(), work.since.elapsed().as_secs()));
        bar.tick();
    }
}

/// Draws bars, or writes a line now and then, until it is over.
fn tick(shared: &Shared) {
    let mut state = shared.state();
    while !state.over {
        let pause = if shared.bars.is_some() {
            REFRESH
        } else {
            shared.interval.saturating_sub(state.said.elapsed()).max(Duration::from_millis(10))
        };
        (state, _) = shared.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
        if state.over {
            return;
        }
        match &shared.bars {
            Some(bars) => state.work.iter_mut().for_each(|work| shared.draw(bars, work)),
            None if state.said.elapsed() >= shared.interval => {
                state.said = Instant::now();
                if !state.work.is_empty() {
                    let _ = std::io::stderr().write_all(format!("{}\n", state.line()).as_bytes());
                }
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_is_done_and_how_far_it_is() {
        let progress = Progress::hidden();
        progress.stage("reading");
        assert_eq!(progress.shared.state().line(), "reading (0 s)");
        let stage = Stage { name: "evaluating", done: 1200, total: Some(5000), unit: "sequences" };
        progress.observer().advance(&stage).unwrap();
        assert_eq!(progress.shared.state().line(), "evaluating: 1,200 of 5,000 sequences (0 s)");
        progress.observer().advance(&Stage { name: "counting", done: 7, total: None, unit: "bytes" }).unwrap();
        assert_eq!(progress.shared.state().line(), "counting: 7 bytes (0 s)");
    }

    #[test]
    fn pieces_of_work_are_named_until_they_are_done() {
        let progress = Progress::hidden();
        let parts: Vec<_> = ["a", "b", "c", "d", "e"].map(|name| progress.part(name)).into();
        parts[1].at(3, 10, "loss 0.5".into());
        let line = progress.shared.state().line();
        assert_eq!(line, "a (0 s); b: 3 of 10  loss 0.5 (0 s); c (0 s); d (0 s); and 1 more");
        drop(parts);
        assert!(progress.shared.state().work.is_empty());
    }
}
