//! What is fastest on a device: tuned choices by name, which may be kept in the cache folder. They
//! change how fast a result is computed, and its last bits where another order of sums is faster.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{create_folder, write_atomic};
use crate::{Error, Result};

/// The tuned choices of one device, and their file.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Tuning {
    /// Device, driver and version of this program.
    of: String,
    choices: BTreeMap<String, u32>,
}

impl Tuning {
    /// What `folder` holds for `device`, which is described with its driver. A file that cannot be
    /// read, or is for another, counts as none.
    pub(super) fn open(device: &str, folder: Option<&Path>) -> Self {
        let tuning = Self { of: format!("{device}, gossamer {}", env!("CARGO_PKG_VERSION")), ..Self::default() };
        let kept = || serde_json::from_slice::<Self>(&fs::read(tuning.path(folder?)).ok()?).ok();
        match kept() {
            Some(kept) if kept.of == tuning.of => kept,
            _ => tuning,
        }
    }

    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("tuning_{:08x}.json", crc32c::crc32c(self.of.as_bytes())))
    }

    pub(super) fn choice(&self, name: &str) -> Option<u32> {
        self.choices.get(name).copied()
    }

    pub(super) fn choose(&mut self, name: &str, choice: u32) {
        self.choices.insert(name.to_string(), choice);
    }

    /// Writes all choices to `folder` for later runs and returns the file's path; without a folder,
    /// nothing.
    pub(super) fn save(&self, folder: Option<&Path>) -> Result<Option<PathBuf>> {
        let Some(folder) = folder else { return Ok(None) };
        let path = self.path(folder);
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::file(&path, e.to_string()))?;
        create_folder(folder)?;
        write_atomic(&path, |out| writeln!(out, "{text}").map_err(|e| Error::io(&path, e)))?;
        Ok(Some(path))
    }
}
