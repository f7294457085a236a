//! Which tasks an earlier search has finished, for searches that share the work (`--shard`).

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::{create_folder, write_atomic};
use crate::{Error, Result};

/// What came of a task: `finished/TASK.json` in the folder of the circuits.
#[derive(Serialize, Deserialize)]
struct Mark {
    /// Everything that the outcome depends on.
    #[serde(rename = "question")]
    key: Value,
    /// Why there is no circuit, if there is none.
    #[serde(rename = "without")]
    reason: Option<String>,
}

/// The marks in a folder of circuits.
pub(super) struct Finished {
    circuits: PathBuf,
    folder: PathBuf,
}

impl Finished {
    pub(super) fn new(circuits: &Path) -> Result<Self> {
        let folder = circuits.join("finished");
        create_folder(&folder)?;
        Ok(Self { circuits: circuits.into(), folder })
    }

    /// Whether the task is finished under this key, and its circuit is there.
    pub(super) fn has(&self, task: &str, key: &Value) -> bool {
        let mark = fs::read(self.path(task)).ok().and_then(|bytes| serde_json::from_slice::<Mark>(&bytes).ok());
        let exists = |mark: &Mark| mark.reason.is_some() || self.circuits.join(format!("{task}.json")).is_file();
        mark.is_some_and(|mark| mark.key == *key && exists(&mark))
    }

    /// Removes the mark, before a search.
    pub(super) fn forget(&self, task: &str) -> Result<()> {
        match fs::remove_file(self.path(task)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(self.path(task), e)),
            _ => Ok(()),
        }
    }

    /// Marks the task as finished; `reason` says why there is no circuit.
    pub(super) fn mark(&self, task: &str, key: Value, reason: Option<String>) -> Result<()> {
        let path = self.path(task);
        let mark = serde_json::to_string_pretty(&Mark { key, reason });
        let mark = mark.map_err(|e| Error::file(&path, e.to_string()))?;
        write_atomic(&path, |out| writeln!(out, "{mark}").map_err(|e| Error::io(&path, e)))
    }

    fn path(&self, task: &str) -> PathBuf {
        self.folder.join(format!("{task}.json"))
    }
}
