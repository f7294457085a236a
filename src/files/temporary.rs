//! Files and folders under temporary names.
//!
//! Each is locked while its process runs. That is how other processes recognize those of processes
//! that have ended, even in another container or on another machine, where process numbers mean
//! nothing.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::lock::is_at;
use super::target::Target;
use super::{file_name, parent, remove, sync_folder};
use crate::error::{Error, Result};

/// The prefix of temporary names, before the process and a counter.
const MARK: &str = ".tmp-gossamer-";
/// The age at which a temporary file counts as abandoned where there are no locks.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// A file being written next to its target. Dropped without [`Temporary::publish`], it is removed.
pub(crate) struct Temporary {
    pub(crate) file: File,
    path: PathBuf,
    /// The target itself, if `named` is a link to it.
    real: PathBuf,
    named: PathBuf,
    published: bool,
}

impl Temporary {
    /// Opens a new file, for reading and writing, in the folder of the file that `target` names or
    /// links to.
    pub(crate) fn next_to(target: &Path) -> Result<Self> {
        match Target::of(target)? {
            Target::File(real) => Self::create(real, target),
            _ => Err(Error::io(target, io::Error::new(io::ErrorKind::InvalidInput, "is not a plain file; name one"))),
        }
    }

    /// As [`Temporary::next_to`], for the file `real`, which errors call `named`.
    pub(super) fn create(real: PathBuf, named: &Path) -> Result<Self> {
        let failed = |e| Error::io(named, e);
        file_name(&real)
            .map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidInput, "the path ends in no name")))?;
        sweep(&real);
        loop {
            let path = next_name(&real);
            match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(failed(e)),
                // Removed by another process between creation and lock.
                Ok(file) if !hold(&file, &path) => continue,
                Ok(file) => return Ok(Self { file, path, real, named: named.into(), published: false }),
            }
        }
    }

    /// The target as it was named, for error messages.
    pub(crate) fn target(&self) -> &Path {
        &self.named
    }

    /// Makes the contents durable and renames the file to its target. A replaced file keeps its
    /// permissions.
    pub(crate) fn publish(mut self) -> Result<()> {
        let failed = |e| Error::io(&self.named, e);
        self.file.sync_all().map_err(failed)?;
        if cfg!(unix)
            && let Ok(replaced) = fs::metadata(&self.real)
        {
            let _ = self.file.set_permissions(replaced.permissions());
        }
        fs::rename(&self.path, &self.real).map_err(failed)?;
        self.published = true;
        sync_folder(parent(&self.real))
    }
}

impl Write for Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A folder being filled next to its target. Dropped before it was renamed, it is removed.
pub(super) struct TemporaryFolder {
    pub(super) path: PathBuf,
    /// Open and locked while it is filled, where the system can open folders.
    _held: Option<File>,
}

impl TemporaryFolder {
    /// Creates an empty folder next to `target`.
    pub(super) fn next_to(target: &Path) -> Result<Self> {
        file_name(target)?;
        sweep(target);
        loop {
            let path = next_name(target);
            match fs::create_dir(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(Error::io(target, e)),
                Ok(()) => {}
            }
            match File::open(&path) {
                // Removed by another process meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Ok(folder) if !hold(&folder, &path) => continue,
                held => return Ok(Self { path, _held: held.ok() }),
            }
        }
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        let _ = remove(&self.path);
    }
}

/// Locks a new temporary file or folder. False if another process is removing it as abandoned.
fn hold(file: &File, path: &Path) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && path.symlink_metadata().is_ok()
}

/// Removes abandoned temporary files next to `target`. Ignores errors: they may belong to someone
/// else.
fn sweep(target: &Path) {
    // Names of earlier versions differ from those of other programs only by the target's name.
    let target_name = target.file_name().and_then(OsStr::to_str);
    let _ = remove_all_abandoned(parent(target), |name| {
        name.starts_with(MARK) || target_name.is_some_and(|target| is_earlier(name, target))
    });
}

/// Removes abandoned temporary files of this program in the folder of a run, of checkpoints or of
/// corpora.
pub(crate) fn sweep_own(folder: &Path) -> Result<()> {
    remove_all_abandoned(folder, |name| name.starts_with(MARK) || is_known_earlier(name))
}

/// Whether an earlier version used this temporary name for a file of such a folder.
fn is_known_earlier(name: &str) -> bool {
    let digits = |c: char| c.is_ascii_digit() || c == '-';
    let first = name.strip_prefix(".tmp-").map(|rest| rest.trim_end_matches(digits));
    let second = || name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.').map(|(target, _)| target);
    let known = |target: &str| {
        target == "step"
            || target.ends_with(".tokens")
            || ["config.toml", "tokenizer.json", "metrics.jsonl"].contains(&target)
    };
    match first {
        Some(target) => known(target) && is_earlier(name, target),
        None => second().is_some_and(|target| known(target) && is_earlier(name, target)),
    }
}

/// Whether `name` is the temporary name of `target` in an earlier version: `.tmp-TARGET-PROCESS`,
/// `.tmp-TARGET-PROCESS-COUNTER` or `.TARGET.PROCESS-COUNTER.tmp`.
fn is_earlier(name: &str, target: &str) -> bool {
    let numbers = |text: &str| text.split('-').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let first = name.strip_prefix(".tmp-").and_then(|rest| rest.strip_prefix(target)?.strip_prefix('-'));
    let rest = name.strip_prefix('.').and_then(|rest| rest.strip_prefix(target)?.strip_prefix('.'));
    let second = rest.and_then(|rest| rest.strip_suffix(".tmp")).filter(|rest| rest.contains('-'));
    first.is_some_and(numbers) || second.is_some_and(numbers)
}

/// Removes the abandoned files in `folder` whose names are `temporary`.
fn remove_all_abandoned(folder: &Path, temporary: impl Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        if entry.file_name().to_str().is_some_and(&temporary) {
            remove_abandoned(&entry.path());
        }
    }
    Ok(())
}

/// Removes a temporary file or folder unless its process is running.
fn remove_abandoned(path: &Path) {
    let Ok(found) = fs::symlink_metadata(path) else { return };
    let opened = if found.is_dir() {
        File::open(path)
    } else if found.is_file() {
        OpenOptions::new().read(true).write(true).open(path)
    } else {
        return;
    };
    let locked = match &opened {
        Ok(file) => file.try_lock(),
        Err(_) => Err(TryLockError::Error(io::ErrorKind::Unsupported.into())),
    };
    match locked {
        // Locked during the removal, so that only one process does it. The name may have been
        // reused since it was opened.
        Ok(()) if opened.as_ref().is_ok_and(|file| is_at(file, path)) => drop(remove(path)),
        Err(TryLockError::Error(_)) if is_old(&found) => drop(remove(path)),
        _ => {}
    }
}

fn is_old(found: &fs::Metadata) -> bool {
    found.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > ABANDONED_AFTER)
}

/// The lock file for writing `name` in `folder`. It is removed like an abandoned file. Two names
/// with the same lock file wait for each other, which is harmless.
pub(crate) fn lock_name(folder: &Path, name: impl AsRef<OsStr>) -> PathBuf {
    folder.join(format!("{MARK}{:08x}.lock", crc32c::crc32c(name.as_ref().as_encoded_bytes())))
}

/// A name next to `target` that this process has not used.
fn next_name(target: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    parent(target).join(format!("{MARK}{}-{number}", std::process::id()))
}
