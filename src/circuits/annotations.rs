//! Labels and groups that people give to what a circuit is drawn of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::write_atomic;
use crate::{Error, Result};

/// The version of the file.
const VERSION: u32 = 1;

/// What people have written about a circuit. Items are named `0.attn.q[3]`, `embedding[5]` or
/// `unembedding[7]`; names that the circuit does not have are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Annotations {
    version: u32,
    /// Labels by item.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The items of groups, by the groups' names.
    #[serde(default)]
    pub groups: BTreeMap<String, BTreeSet<String>>,
    /// The names of groups that are drawn as one box.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub collapsed: BTreeSet<String>,
    /// How far groups were moved in the drawing, by their names: to the right and down, in the
    /// drawing's units, in which a node's box is 46 wide.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub offsets: BTreeMap<String, [f64; 2]>,
}

/// A drawing with a group further away than this is damaged rather than arranged.
const FARTHEST: f64 = 1e6;

impl Default for Annotations {
    fn default() -> Self {
        Self {
            version: VERSION,
            labels: BTreeMap::new(),
            groups: BTreeMap::new(),
            collapsed: BTreeSet::new(),
            offsets: BTreeMap::new(),
        }
    }
}

impl Annotations {
    /// The file of the annotations of a circuit's file: `quotes.annotations.json` for `quotes.json`.
    pub fn path(circuit: &Path) -> PathBuf {
        circuit.with_extension("annotations.json")
    }

    /// Those in the file next to a circuit's, if there is one.
    ///
    /// # Errors
    /// [`Error::File`] if it is damaged or of another version; [`Error::Io`] if it cannot be read.
    pub fn of_file(circuit: &Path) -> Result<Option<Self>> {
        let path = Self::path(circuit);
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|e| Error::io(&path, e))?,
        };
        let read: Self = serde_json::from_str(&text).map_err(|e| Error::file(&path, e.to_string()))?;
        read.check().map_err(|message| Error::file(&path, message))?;
        Ok(Some(read))
    }

    /// Returns what is wrong with them.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!("annotations of version {}: this program reads {VERSION}", self.version));
        }
        match self.offsets.iter().find(|(_, by)| by.iter().any(|by| by.is_nan() || by.abs() > FARTHEST)) {
            Some((name, by)) => Err(format!("the group {name:?} is moved by {by:?}: the farthest is {FARTHEST}")),
            None => Ok(()),
        }
    }

    /// Writes them whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::Data(e.to_string()))?;
        write_atomic(path, |out| writeln!(out, "{text}").map_err(|e| Error::io(path, e)))
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.groups.is_empty()
    }

    /// The group that an item is in: its number, in the order of names.
    pub fn group_of(&self, item: &str) -> Option<usize> {
        self.groups.values().position(|items| items.contains(item))
    }

    /// The name of the group of that number, in the order of names.
    pub fn group_name(&self, number: usize) -> Option<&str> {
        self.groups.keys().nth(number).map(String::as_str)
    }
}
