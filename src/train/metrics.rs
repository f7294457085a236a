//! What a run reports as it goes: `metrics.jsonl`, a line a logged step, and the same scalars for
//! TensorBoard.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::tensorboard::EventFile;
use crate::error::{Error, Result};
use crate::files::write_atomic;

/// The run folder's open metrics: lines of JSON in `metrics.jsonl`, scalars in
/// `events.out.tfevents.<unix time>.gossamer`.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    lines: File,
    events: EventFile,
}

impl Metrics {
    /// Opens the metrics of the run in the folder `run_dir`, which must exist.
    ///
    /// * `resume_step` `None`: a new run. Metrics that are there already are never overwritten.
    /// * `Some(n)`: continues at step `n`. What an interrupted run logged of step `n` and later
    ///   ones is dropped, as is a last line that it did not finish, so that `metrics.jsonl` ends up
    ///   as if nothing had happened. `Some(0)` starts over.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if a new run finds metrics there, or if an earlier line is not one of ours;
    /// [`Error::Io`] where the system refuses.
    pub fn open(run_dir: impl AsRef<Path>, resume_step: Option<u64>) -> Result<Self> {
        let dir = run_dir.as_ref();
        let path = dir.join("metrics.jsonl");
        let written = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(|e| Error::io(&path, e))?,
        };
        match resume_step {
            None if !written.is_empty() => {
                return Err(Error::file(&path, "another run logged here already: resume it, or choose a new folder"));
            }
            None => {}
            Some(step) => {
                let kept = lines_before(step, &written, &path)?;
                write_atomic(&path, |out| out.write_all(&kept).map_err(|e| Error::io(&path, e)))?;
            }
        }
        let opened = OpenOptions::new().append(true).create(true).open(&path);
        let lines = opened.map_err(|e| Error::io(&path, e))?;
        let mut events = EventFile::create(dir)?;
        if let Some(step) = resume_step {
            events.restart(step)?;
        }
        Ok(Self { path, lines, events })
    }

    /// Appends one line, `{"step":..,"loss":..}`, with `values` in the order given, and the same as
    /// TensorBoard scalars (as f32). A value that is not finite is `null` in the line. Both are in
    /// the system's hands when this returns: a kill loses nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] naming the file, for example on a full disk; [`Error::Config`] for a value
    /// named `step`.
    pub fn log(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut line = format!("{{\"step\":{step}");
        for &(name, value) in values {
            if name == "step" {
                return Err(Error::config(name, "a metric cannot have this name: it is the line's own"));
            }
            let value = if value.is_finite() { serde_json::Value::from(value) } else { serde_json::Value::Null };
            line += &format!(",{}:{value}", serde_json::Value::from(name));
        }
        line += "}\n";
        self.lines.write_all(line.as_bytes()).map_err(|e| Error::io(&self.path, e))?;
        self.events.scalars(step, values)
    }

    /// Adds a value to the last line, which is that of `step`, as if it had been the last of its
    /// values.
    ///
    /// # Errors
    ///
    /// As [`Metrics::log`].
    pub fn amend(&mut self, step: u64, name: &str, value: f64) -> Result<()> {
        const END: &[u8] = b"}\n";
        let failed = |e| Error::io(&self.path, e);
        let number = if value.is_finite() { serde_json::Value::from(value) } else { serde_json::Value::Null };
        // Whole or not at all: a line that was cut off would be dropped when the run continues.
        let mut lines = fs::read(&self.path).map_err(failed)?;
        lines.truncate(lines.strip_suffix(END).map_or(lines.len(), <[u8]>::len));
        lines.extend(format!(",{}:{number}}}\n", serde_json::Value::from(name)).bytes());
        write_atomic(&self.path, |out| out.write_all(&lines).map_err(failed))?;
        self.lines = OpenOptions::new().append(true).open(&self.path).map_err(failed)?;
        self.events.scalars(step, &[(name, value)])
    }
}

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct MetricsLine {
    /// Steps done.
    pub step: u64,
    /// The values by their names, without those that are not finite.
    #[serde(flatten)]
    values: BTreeMap<String, Option<f64>>,
}

impl MetricsLine {
    /// Whether a value of that name was logged, finite or not.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The names of the values, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The value of that name, if it was logged and is finite.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied().flatten()
    }
}

/// What stands at the axis of a metric, or of another number of that name: its unit, too.
pub fn label(name: &str) -> String {
    let unit = match name {
        "loss" | "validation_loss" => "nats per token",
        "tokens_per_second" => return "tokens per second".into(),
        _ if name.split('_').any(|word| word == "kl") => "nats per token",
        _ if name.split('_').any(|word| word == "loss") => "nats",
        _ => return name.replace('_', " "),
    };
    format!("{} ({unit})", name.replace('_', " "))
}

/// What the run in the folder `run_dir` has logged so far; nothing if it has not begun. A line that
/// is still being written is skipped.
///
/// # Errors
///
/// [`Error::Io`] where it cannot be read, [`Error::File`] for a line that is not one of ours.
pub fn read(run_dir: impl AsRef<Path>) -> Result<Vec<MetricsLine>> {
    let path = run_dir.as_ref().join("metrics.jsonl");
    let written = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(|e| Error::io(&path, e))?,
    };
    let whole = written.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let line = |(index, line): (usize, &[u8])| {
        serde_json::from_slice(line).map_err(|e| Error::file(&path, format!("line {}: {e}", index + 1)))
    };
    whole.enumerate().map(line).collect()
}

#[derive(Deserialize)]
struct Line {
    step: u64,
}

/// Those lines of `written`, the contents of the file at `path`, whose step is before `step`.
fn lines_before(step: u64, written: &[u8], path: &Path) -> Result<Vec<u8>> {
    let mut kept = Vec::with_capacity(written.len());
    for (index, line) in written.split_inclusive(|&byte| byte == b'\n').enumerate() {
        match serde_json::from_slice::<Line>(line) {
            Ok(parsed) if parsed.step < step => {
                kept.extend(line.trim_ascii_end());
                kept.push(b'\n');
            }
            Ok(_) => {}
            // Only the last line can lack its end: the run was stopped while writing it.
            Err(_) if !line.ends_with(b"\n") => {}
            Err(e) => {
                let message = format!("line {} is damaged ({e}): remove it, and the run can continue", index + 1);
                return Err(Error::file(path, message));
            }
        }
    }
    Ok(kept)
}
