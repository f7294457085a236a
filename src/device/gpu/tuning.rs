//! Which of several ways is fastest on this adapter with this driver: choices by name, which may be kept on the disk beside the compiled
//! kernels. A choice changes how fast a result comes, never what it means.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Gpu, lock};
use crate::files::{create_folder, write_atomic};
use crate::{Error, Result};

/// The choices of one adapter, and its file.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Tuning {
    /// Adapter, driver and version of this program: other kernels, other choices.
    of: String,
    choices: BTreeMap<String, u32>,
}

impl Tuning {
    /// What `folder` holds for this adapter. A file that cannot be read, or is another's, is as good as none.
    pub(super) fn open(info: &wgpu::AdapterInfo, folder: Option<&Path>) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let wgpu::AdapterInfo { name, backend, driver, driver_info, .. } = info;
        let of = format!("{name}, {backend}, {driver} {driver_info}, gossamer {version}");
        let mut tuning = Self { of, choices: BTreeMap::new() };
        if let Some(bytes) = folder.and_then(|folder| fs::read(tuning.path(folder)).ok())
            && let Ok(kept) = serde_json::from_slice::<Self>(&bytes)
            && kept.of == tuning.of
        {
            tuning = kept;
        }
        tuning
    }

    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("tuning_{:08x}.json", crc32c::crc32c(self.of.as_bytes())))
    }
}

impl Gpu {
    /// What was chosen for `name`, if anything was.
    ///
    /// # Errors
    /// [`Error::Device`] if another thread failed while using the GPU.
    pub fn tuned(&self, name: &str) -> Result<Option<u32>> {
        Ok(lock(&self.shared.tuning)?.choices.get(name).copied())
    }

    /// Makes a choice, until this GPU is closed or [`Gpu::save_tuning`] is called.
    ///
    /// # Errors
    /// As [`Gpu::tuned`].
    pub fn set_tuned(&self, name: &str, choice: u32) -> Result<()> {
        lock(&self.shared.tuning)?.choices.insert(name.to_string(), choice);
        Ok(())
    }

    /// Writes all choices to the cache folder, where later runs find them, and says where; nothing if there is no such folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save_tuning(&self) -> Result<Option<PathBuf>> {
        let Some(folder) = &self.shared.options.cache else { return Ok(None) };
        let tuning = lock(&self.shared.tuning)?;
        let path = tuning.path(folder);
        let text = serde_json::to_string_pretty(&*tuning).map_err(|e| Error::file(&path, e.to_string()))?;
        create_folder(folder)?;
        write_atomic(&path, |out| writeln!(out, "{text}").map_err(|e| Error::io(&path, e)))?;
        Ok(Some(path))
    }
}
