//! Locks between processes. The system ends them with the process that holds them, so that none outlives a kill.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};

/// Between the first two looks at a lock that another process holds; then it doubles,
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// up to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(256);

/// So often a lock file is looked for again that was removed meanwhile. Some file systems give a file another number at each look.
const TRIES: usize = 100;

/// A lock file that this process holds, until it is dropped; the file is then removed.
///
/// Some file systems have no locks. There it is taken with a warning, whoever else has it.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    process: Option<u32>,
    host: String,
}

impl Lock {
    /// Takes the lock file at `path`, which is created if need be, or says who holds it.
    ///
    /// # Errors
    /// [`Error::Io`] naming `path` where the file cannot be created.
    pub fn take(path: impl AsRef<Path>) -> Result<Result<Self, Holder>> {
        let path = path.as_ref();
        let mut again = 0..TRIES;
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
            let file = file.map_err(|e| Error::io(path, e))?;
            match file.try_lock() {
                // Whoever held it may have removed it after it was opened here.
                Ok(()) if !is_at(&file, path) && again.next().is_some() => continue,
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

    /// As [`Lock::take`], but waits for whoever holds it. `check` is called several times a second meanwhile, and can end the
    /// wait with an error.
    ///
    /// # Errors
    /// Those of [`Lock::take`] and of `check`.
    pub fn wait(path: impl AsRef<Path>, mut check: impl FnMut() -> Result<()>) -> Result<Self> {
        let (mut pause, mut told) = (FIRST_PAUSE, false);
        loop {
            match Self::take(path.as_ref())? {
                Ok(lock) => return Ok(lock),
                // Most are held for less than that.
                Err(holder) if pause == LONGEST_PAUSE && !told => {
                    tracing::info!("waiting for {holder}, which has {}", path.as_ref().display());
                    told = true;
                }
                Err(_) => {}
            }
            check()?;
            std::thread::sleep(pause);
            pause = LONGEST_PAUSE.min(2 * pause);
        }
    }

    /// Leaves word of who holds it. A disk too full for that is no reason not to hold it.
    fn sign(&self) {
        let _ = self.file.set_len(0);
        let _ = writeln!(&self.file, "{} {}", std::process::id(), host());
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still held. Where it cannot be seen whether a file is still the one at its path, it stays.
        match cfg!(unix) {
            true => drop(fs::remove_file(&self.path)),
            false => drop(self.file.set_len(0)),
        }
    }
}

impl Holder {
    /// Whoever signed the lock file at `path`. It is held before it is signed, so this waits a little.
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
        match self.host.is_empty() || self.host == host() {
            true => Ok(()),
            false => write!(f, " on {}", self.host),
        }
    }
}

/// This machine's name, empty if it has none.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|key| std::env::var(key).ok()));
    name.unwrap_or_default().trim().into()
}

/// Whether `file` is what is at `path`, and not something that was there before.
#[cfg(unix)]
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(open), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

/// Whether something is at `path`; more cannot be seen here.
#[cfg(not(unix))]
pub(super) fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
}
