//! Locks between processes. The system releases them when their process ends, so none outlives a
//! kill.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};

/// The pause after the first attempt to get a lock; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(256);

/// How often a lock file that was removed meanwhile is opened again. Some file systems give a file
/// another number each time.
const TRIES: usize = 100;

/// A lock file that this process holds until it is dropped, which removes the file.
///
/// Some file systems have no locks. There it is granted with a warning.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
}

/// The process that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    process: Option<u32>,
    host: String,
}

impl Lock {
    /// Acquires the lock file at `path`, which is created if necessary, or returns the process that
    /// holds it.
    ///
    /// # Errors
    /// Returns [`Error::Io`] naming `path` if the file cannot be created.
    pub fn acquire(path: impl AsRef<Path>) -> Result<Result<Self, Holder>> {
        let path = path.as_ref();
        let mut retries = 0..TRIES;
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
            let file = file.map_err(|e| Error::io(path, e))?;
            match file.try_lock() {
                // The previous holder may have removed the file after it was opened here.
                Ok(()) if !is_at(&file, path) && retries.next().is_some() => continue,
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Err(Holder::of(path))),
                Err(TryLockError::Error(e)) => {
                    tracing::warn!(
                        "{}: no locks here ({e}): two processes would not notice each other",
                        path.display()
                    );
                }
            }
            let lock = Self { path: path.into(), file };
            lock.sign();
            return Ok(Ok(lock));
        }
    }

    /// As [`Lock::acquire`], but waits for the lock. Calls `check` several times a second
    /// meanwhile; its error ends the wait.
    ///
    /// # Errors
    /// Returns the errors of [`Lock::acquire`] and of `check`.
    pub fn wait(path: impl AsRef<Path>, mut check: impl FnMut() -> Result<()>) -> Result<Self> {
        let (mut pause, mut logged) = (FIRST_PAUSE, false);
        loop {
            match Self::acquire(path.as_ref())? {
                Ok(lock) => return Ok(lock),
                // Most locks are held for a shorter time.
                Err(holder) if pause == LONGEST_PAUSE && !logged => {
                    tracing::info!("waiting for {holder}, which holds {}", path.as_ref().display());
                    logged = true;
                }
                Err(_) => {}
            }
            check()?;
            std::thread::sleep(pause);
            pause = LONGEST_PAUSE.min(2 * pause);
        }
    }

    /// Writes the process and the host into the file. A full disk is no reason not to hold the
    /// lock.
    fn sign(&self) {
        let _ = self.file.set_len(0);
        let _ = writeln!(&self.file, "{} {}", std::process::id(), host());
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is held. Only on Unix can `is_at` tell whether a file was replaced.
        let _ = if cfg!(unix) { fs::remove_file(&self.path) } else { self.file.set_len(0) };
    }
}

impl Holder {
    /// The process named in the lock file at `path`. Waits a little, since a lock is held before it
    /// is signed.
    fn of(path: &Path) -> Self {
        const PATIENCE: usize = 20;
        for _ in 0..PATIENCE {
            let text = fs::read_to_string(path).unwrap_or_default();
            if let Some((process, host)) = text.trim_end().split_once(' ') {
                return Self { process: process.parse().ok(), host: host.into() };
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { process: None, host: String::new() }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            Some(process) => write!(f, "process {process}")?,
            None => f.write_str("another process")?,
        }
        if self.host.is_empty() || self.host == host() { Ok(()) } else { write!(f, " on {}", self.host) }
    }
}

/// The name of this machine, empty if it has none.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|key| std::env::var(key).ok()));
    name.unwrap_or_default().trim().into()
}

/// Whether `file` is the file at `path`, not an earlier one of that name.
#[cfg(unix)]
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(open), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

/// Whether there is a file at `path`; this system does not tell more.
#[cfg(not(unix))]
pub(super) fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
}
