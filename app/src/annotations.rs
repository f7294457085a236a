//! Labels and groups as a file next to the circuit, for others who open it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use gossamer::Error;
use gossamer::files::write_atomic;
use serde::{Deserialize, Serialize};

use crate::item::Item;
use crate::view::Edits;

const VERSION: u32 = 1;

/// What people have written about a circuit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Annotations {
    version: u32,
    labels: BTreeMap<Item, String>,
    groups: BTreeMap<String, BTreeSet<Item>>,
}

impl Annotations {
    pub fn of(edits: &Edits) -> Self {
        Self { version: VERSION, labels: edits.labels.clone(), groups: edits.groups.clone() }
    }

    /// Where those of a circuit's file are.
    pub fn path(circuit: &Path) -> PathBuf {
        circuit.with_extension("annotations.json")
    }

    /// Those next to a circuit's file, if there are any.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    pub fn beside(circuit: &Path) -> Result<Option<Self>, String> {
        let path = Self::path(circuit);
        if !path.exists() {
            return Ok(None);
        }
        let wrong = |error: String| format!("{}: {error}", path.display());
        let text = fs::read_to_string(&path).map_err(|e| wrong(e.to_string()))?;
        let read: Self = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        match read.version {
            VERSION => Ok(Some(read)),
            other => Err(wrong(format!("version {other} is not known here: this program reads {VERSION}"))),
        }
    }

    /// Writes them whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn save(&self, path: &Path) -> gossamer::Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::io(path, e.into()))?;
        write_atomic(path, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io(path, e)))
    }

    /// Gives them to a view without labels and groups of its own.
    pub fn fill(self, edits: &mut Edits) {
        if edits.labels.is_empty() && edits.groups.is_empty() {
            (edits.labels, edits.groups) = (self.labels, self.groups);
        }
    }
}
