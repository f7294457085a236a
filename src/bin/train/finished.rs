//! Which tasks have been answered to which question, for calls that share the work out with `--shard`.

use std::fs;
use std::path::{Path, PathBuf};

use gossamer::files::{create_folder, write_atomic};
use gossamer::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A task's answer: `finished/TASK.json` in the folder of the circuits.
#[derive(Serialize, Deserialize)]
struct Mark {
    /// Everything that the answer depends on.
    question: Value,
    /// Why there is no circuit, if there is none.
    without: Option<String>,
}

/// The marks of a folder of circuits.
pub struct Finished {
    circuits: PathBuf,
    folder: PathBuf,
    question: Value,
}

impl Finished {
    pub fn new(circuits: &Path, question: Value) -> Result<Self> {
        let folder = circuits.join("finished");
        create_folder(&folder)?;
        Ok(Self { circuits: circuits.into(), folder, question })
    }

    /// Whether the task was answered, and the answer is there.
    pub fn has(&self, task: &str) -> bool {
        let mark = fs::read(self.path(task)).ok().and_then(|bytes| serde_json::from_slice::<Mark>(&bytes).ok());
        let there = |mark: &Mark| mark.without.is_some() || self.circuits.join(format!("{task}.json")).is_file();
        mark.is_some_and(|mark| mark.question == self.question && there(&mark))
    }

    /// Forgets the answer, before another one is written.
    pub fn forget(&self, task: &str) -> Result<()> {
        match fs::remove_file(self.path(task)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(self.path(task), e)),
            _ => Ok(()),
        }
    }

    /// Remembers the answer: a circuit, or that there is none.
    pub fn mark(&self, task: &str, without: Option<String>) -> Result<()> {
        let path = self.path(task);
        let mark = serde_json::to_string_pretty(&Mark { question: self.question.clone(), without });
        let mark = mark.map_err(|e| Error::file(&path, e.to_string()))?;
        write_atomic(&path, |out| writeln!(out, "{mark}").map_err(|e| Error::io(&path, e)))
    }

    fn path(&self, task: &str) -> PathBuf {
        self.folder.join(format!("{task}.json"))
    }
}
