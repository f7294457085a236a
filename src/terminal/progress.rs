//! Progress of long work: bars on a terminal, otherwise a line on standard error every ten seconds.
//! Quick work shows nothing.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressStyle};

use super::signals;
use crate::observer::{Observer, Stage};

/// The variable that sets the seconds between two lines; 0 means none.
pub(crate) const SECONDS: &str = "GOSSAMER_PROGRESS";
/// Between two lines, by default.
const INTERVAL: Duration = Duration::from_secs(10);
/// Shorter work gets no bar.
const QUICK: Duration = Duration::from_millis(500);
/// Between two updates of the bars.
const REFRESH: Duration = Duration::from_millis(200);
/// Parallel work items named in a line.
const NAMED: usize = 4;

/// Shows the progress of this process until it is dropped.
pub struct Progress {
    shared: Arc<ProgressShared>,
    report: Box<dyn Fn(&Stage<'_>) + Send + Sync>,
    ticker: Option<JoinHandle<()>>,
}

struct ProgressShared {
    /// The bars, on a terminal.
    bars: Option<MultiProgress>,
    interval: Duration,
    state: Mutex<ProgressState>,
    changed: Condvar,
}

struct ProgressState {
    items: Vec<WorkItem>,
    numbers: usize,
    /// When a line was last written.
    last_line: Instant,
    over: bool,
}

struct WorkItem {
    number: usize,
    name: String,
    since: Instant,
    done: u64,
    total: Option<u64>,
    unit: String,
    note: String,
    bar: Option<ProgressBar>,
}

impl ProgressShared {
    fn state(&self) -> MutexGuard<'_, ProgressState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Shows nothing until there is work.
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
        let state = ProgressState { items: Vec::new(), numbers: 0, last_line: Instant::now(), over: false };
        let shared = Arc::new(ProgressShared { bars, interval, state: Mutex::new(state), changed: Condvar::new() });
        let watched = shared.clone();
        let report = Box::new(move |stage: &Stage<'_>| watched.state().main(stage.name).at(stage));
        let shown = shared.bars.is_some() || !interval.is_zero();
        let ticking = shared.clone();
        let tick = move || tick(&ticking);
        // Without a thread, nothing is shown.
        let ticker = shown.then(|| thread::Builder::new().name("progress".into()).spawn(tick).ok()).flatten();
        Self { shared, report, ticker }
    }

    /// Starts a stage.
    pub fn stage(&self, name: &str) {
        self.shared.state().main(name);
    }

    /// Ends the current stage.
    pub fn clear(&self) {
        let mut state = self.shared.state();
        if let Some(bar) = state.remove(0).and_then(|item| item.bar) {
            self.shared.remove(&bar);
        }
    }

    /// Sets the progress of the current stage.
    pub fn at(&self, done: u64, total: u64, note: String) {
        let mut state = self.shared.state();
        if let Some(main) = state.items.iter_mut().find(|item| item.number == 0) {
            (main.done, main.total, main.note) = (done, Some(total), note);
        }
    }

    /// An observer that reports to this and stops at a signal.
    pub fn observer(&self) -> Observer<'_> {
        Observer::stopped_by(signals::stop()).with_report(&*self.report)
    }

    /// Adds a work item that runs in parallel with others, until it is dropped.
    pub fn part(&self, name: &str) -> PartProgress<'_> {
        let mut state = self.shared.state();
        state.numbers += 1;
        let number = state.numbers;
        state.items.push(WorkItem::new(number, name));
        PartProgress { shared: &self.shared, number }
    }

    /// Writes a message to standard error.
    pub fn say(&self, line: impl std::fmt::Display) {
        self.aside(|| super::say(line));
    }

    /// Runs something that writes to the terminal, with the bars removed meanwhile.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        let mut state = self.shared.state();
        state.last_line = Instant::now();
        self.shared.clear();
        write()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.shared.changed.notify_all();
        if let Some(ticker) = self.ticker.take() {
            // A panic of the thread has been printed.
            let _ = ticker.join();
        }
        let mut state = self.shared.state();
        state.items.iter_mut().filter_map(|item| item.bar.take()).for_each(|bar| bar.finish_and_clear());
        self.shared.clear();
    }
}

/// The progress of one of several parallel work items.
pub struct PartProgress<'a> {
    shared: &'a ProgressShared,
    number: usize,
}

impl PartProgress<'_> {
    /// Sets the progress, out of `total`, with a note.
    pub fn at(&self, done: u64, total: u64, note: String) {
        let mut state = self.shared.state();
        if let Some(item) = state.items.iter_mut().find(|item| item.number == self.number) {
            (item.done, item.total, item.note) = (done, Some(total), note);
        }
    }
}

impl Drop for PartProgress<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(bar) = state.remove(self.number).and_then(|item| item.bar) {
            self.shared.remove(&bar);
        }
    }
}

impl ProgressState {
    /// The current stage, which is started if it has another name.
    fn main(&mut self, name: &str) -> &mut WorkItem {
        let at = match self.items.iter().position(|item| item.number == 0) {
            Some(at) => at,
            None => {
                self.items.insert(0, WorkItem::new(0, name));
                0
            }
        };
        let main = &mut self.items[at];
        if main.name != name {
            *main = WorkItem { bar: main.bar.take(), ..WorkItem::new(0, name) };
        }
        main
    }

    fn remove(&mut self, number: usize) -> Option<WorkItem> {
        self.items.iter().position(|item| item.number == number).map(|at| self.items.remove(at))
    }

    fn line(&self) -> String {
        let mut named: Vec<String> = self.items.iter().take(NAMED).map(WorkItem::line).collect();
        if self.items.len() > NAMED {
            named.push(format!("and {} more", self.items.len() - NAMED));
        }
        named.join("; ")
    }
}

impl WorkItem {
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

    /// The progress and the note, without the name.
    fn numbers(&self) -> String {
        let mut text = String::new();
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
        let colon = if numbers.is_empty() { "" } else { ": " };
        format!("{}{colon}{numbers} ({seconds} s)", self.name)
    }
}

impl ProgressShared {
    /// Fails only on a terminal that has closed.
    fn clear(&self) {
        let _ = self.bars.as_ref().map(MultiProgress::clear);
    }

    fn remove(&self, bar: &ProgressBar) {
        bar.finish_and_clear();
        if let Some(bars) = &self.bars {
            bars.remove(bar);
        }
    }

    fn draw(&self, bars: &MultiProgress, item: &mut WorkItem) {
        if item.since.elapsed() < QUICK && item.bar.is_none() {
            return;
        }
        let bar = item.bar.get_or_insert_with(|| bars.add(ProgressBar::no_length())).clone();
        let template = if item.total.is_some() { "{prefix} {bar:30} {msg}" } else { "{prefix} {msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if let Some(total) = item.total {
            bar.set_length(total);
            bar.set_position(item.done);
        }
        bar.set_prefix(item.name.clone());
        bar.set_message(format!("{} ({} s)", item.numbers(), item.since.elapsed().as_secs()));
        bar.tick();
    }
}

/// Draws bars, or writes a line now and then, until it is over.
fn tick(shared: &ProgressShared) {
    let mut state = shared.state();
    while !state.over {
        let pause = if shared.bars.is_some() {
            REFRESH
        } else {
            shared.interval.saturating_sub(state.last_line.elapsed()).max(Duration::from_millis(10))
        };
        (state, _) = shared.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
        if state.over {
            return;
        }
        match &shared.bars {
            Some(bars) => state.items.iter_mut().for_each(|item| shared.draw(bars, item)),
            None if state.last_line.elapsed() >= shared.interval => {
                state.last_line = Instant::now();
                if !state.items.is_empty() {
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
    fn a_line_shows_the_stage_and_its_progress() {
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
    fn parallel_work_is_named_until_it_is_done() {
        let progress = Progress::hidden();
        let parts: Vec<_> = ["a", "b", "c", "d", "e"].map(|name| progress.part(name)).into();
        parts[1].at(3, 10, "loss 0.5".into());
        let line = progress.shared.state().line();
        assert_eq!(line, "a (0 s); b: 3 of 10  loss 0.5 (0 s); c (0 s); d (0 s); and 1 more");
        drop(parts);
        assert!(progress.shared.state().items.is_empty());
    }
}
