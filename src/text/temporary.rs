//! A file that appears under its name complete or not at all.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// Tells apart the temporary files of one process.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A file being written beside its final place. Dropped without [`Temporary::publish`], it disappears.
pub(crate) struct Temporary {
    pub file: File,
    path: PathBuf,
    target: PathBuf,
    published: bool,
}

impl Temporary {
    /// Opens a new file in the folder of `target`, for reading and writing.
    pub fn beside(target: &Path) -> Result<Self> {
        let Some(name) = target.file_name() else {
            return Err(Error::file(target, "is not the name of a file"));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
        let path = target.with_file_name(hidden);
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|source| Error::io(&path, source))?;
        Ok(Self { file, path, target: target.to_path_buf(), published: false })
    }

    /// Where the file is now, for error messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the contents durable, then gives the file its final name.
    pub fn publish(mut self) -> Result<()> {
        self.file.sync_all().map_err(|source| Error::io(&self.path, source))?;
        std::fs::rename(&self.path, &self.target).map_err(|source| Error::io(&self.target, source))?;
        self.published = true;
        // The new name is durable only once its folder is; some systems cannot sync a folder, and lose nothing by it.
        if let Some(Ok(folder)) = self.target.parent().map(File::open) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

impl Write for Temporary {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Replaces the file at `path` by `bytes` in one instant.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temporary = Temporary::beside(path)?;
    temporary.file.write_all(bytes).map_err(|source| Error::io(temporary.path(), source))?;
    temporary.publish()
}
