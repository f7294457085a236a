//! Files and folders under temporary names, on their way to their places.
//!
//! Each is locked while the process that writes it lives. That is how others know which ones were left by a process that has ended,
//! also where it ran in another container or on another machine, where its number means nothing.

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

/// How the names begin; then come the process and a counter.
const MARK: &str = ".tmp-gossamer-";
/// How long something lies untouched before it counts as left, where there are no locks.
const LEFT_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// A file being written beside its final place. Dropped without [`Temporary::publish`], it disappears.
pub(crate) struct Temporary {
    pub(crate) file: File,
    path: PathBuf,
    /// The file itself, where the name that was given is a link to it.
    real: PathBuf,
    named: PathBuf,
    published: bool,
}

impl Temporary {
    /// Opens a new file, for reading and writing, in the folder of the file that `target` names or leads to.
    ///
    /// # Errors
    /// [`Error::Io`] naming `target` where it is no file, or where the system refuses.
    pub(crate) fn beside(target: &Path) -> Result<Self> {
        match Target::of(target)? {
            Target::File(real) => Self::create(real, target),
            _ => Err(Error::io(target, io::Error::new(io::ErrorKind::InvalidInput, "is not a plain file; name one"))),
        }
    }

    /// As [`Temporary::beside`], for the file `real`, which errors call `named`.
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
                // Swept away by another process between creation and lock.
                Ok(file) if !hold(&file, &path) => continue,
                Ok(file) => return Ok(Self { file, path, real, named: named.into(), published: false }),
            }
        }
    }

    /// The file's final place as it was named, for error messages.
    pub(crate) fn target(&self) -> &Path {
        &self.named
    }

    /// Makes the contents durable, then gives the file its final name. A file that it replaces keeps its permissions.
    ///
    /// # Errors
    /// [`Error::Io`] naming the final place.
    pub(crate) fn publish(mut self) -> Result<()> {
        let failed = |e| Error::io(&self.named, e);
        self.file.sync_all().map_err(failed)?;
        if cfg!(unix)
            && let Ok(replaced) = fs::metadata(&self.real)
        {
            // A system that has none loses nothing.
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

/// A folder being filled beside its final place. Dropped before it was moved there, it disappears.
pub(super) struct TemporaryFolder {
    pub(super) path: PathBuf,
    /// Open, and locked, while it is filled; nothing where folders cannot be opened.
    _held: Option<File>,
}

impl TemporaryFolder {
    /// Creates an empty folder beside `target`.
    pub(super) fn beside(target: &Path) -> Result<Self> {
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
                // Swept away by another process meanwhile.
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

/// Locks a temporary file or folder just created. False if another process took it for one that was left.
fn hold(file: &File, path: &Path) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && path.symlink_metadata().is_ok()
}

/// Removes what processes that have ended left half-written beside `target`. What cannot be looked at or removed stays: it may be
/// someone else's, and what is to be written does not need it gone.
fn sweep(target: &Path) {
    // Earlier versions had names that are told from other programs' only by the target's.
    let own = target.file_name().and_then(OsStr::to_str);
    let _ = each_left(parent(target), |name| name.starts_with(MARK) || own.is_some_and(|own| is_earlier(name, own)));
}

/// Removes all that this program left half-written in `folder`, a run's, that of its checkpoints, or the corpora's.
pub(crate) fn sweep_own(folder: &Path) -> Result<()> {
    each_left(folder, |name| name.starts_with(MARK) || is_earlier_of_ours(name))
}

/// Whether an earlier version gave the temporary name to something that it wrote in such a folder.
fn is_earlier_of_ours(name: &str) -> bool {
    let digits = |c: char| c.is_ascii_digit() || c == '-';
    let first = name.strip_prefix(".tmp-").map(|rest| rest.trim_end_matches(digits));
    let second = || name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.').map(|(target, _)| target);
    let ours = |target: &str| {
        target == "step"
            || target.ends_with(".tokens")
            || ["config.toml", "tokenizer.json", "metrics.jsonl"].contains(&target)
    };
    match first {
        Some(target) => ours(target) && is_earlier(name, target),
        None => second().is_some_and(|target| ours(target) && is_earlier(name, target)),
    }
}

/// Whether `name` is the temporary one that an earlier version gave to `target`: `.tmp-TARGET-PROCESS`, `.tmp-TARGET-PROCESS-COUNTER` or
/// `.TARGET.PROCESS-COUNTER.tmp`.
fn is_earlier(name: &str, target: &str) -> bool {
    let numbers = |text: &str| text.split('-').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let first = name.strip_prefix(".tmp-").and_then(|rest| rest.strip_prefix(target)?.strip_prefix('-'));
    let rest = name.strip_prefix('.').and_then(|rest| rest.strip_prefix(target)?.strip_prefix('.'));
    let second = rest.and_then(|rest| rest.strip_suffix(".tmp")).filter(|rest| rest.contains('-'));
    first.is_some_and(numbers) || second.is_some_and(numbers)
}

/// Removes what is left of those things in `folder` whose names are `temporary`.
fn each_left(folder: &Path, temporary: impl Fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        if entry.file_name().to_str().is_some_and(&temporary) {
            remove_left(&entry.path());
        }
    }
    Ok(())
}

/// Removes a temporary file or folder unless its process still lives.
fn remove_left(path: &Path) {
    let Ok(found) = fs::symlink_metadata(path) else { return };
    let opened = match found.is_dir() {
        true => File::open(path),
        false if found.is_file() => OpenOptions::new().read(true).write(true).open(path),
        false => return,
    };
    let locked = match &opened {
        Ok(file) => file.try_lock(),
        Err(_) => Err(TryLockError::Error(io::ErrorKind::Unsupported.into())),
    };
    match locked {
        // Still held here while it goes, so that no two take it for left. Another may have taken the name since it was opened.
        Ok(()) if opened.as_ref().is_ok_and(|file| is_at(file, path)) => drop(remove(path)),
        Err(TryLockError::Error(_)) if is_old(&found) => drop(remove(path)),
        _ => {}
    }
}

fn is_old(found: &fs::Metadata) -> bool {
    found.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > LEFT_AFTER)
}

/// The lock file for what is made in `folder` under that name. One that a killed process left is removed with the rest. Two names that
/// share one wait for each other, which harms nobody.
pub(crate) fn lock_name(folder: &Path, name: impl AsRef<OsStr>) -> PathBuf {
    folder.join(format!("{MARK}{:08x}.lock", crc32c::crc32c(name.as_ref().as_encoded_bytes())))
}

/// A name beside `target` that this process has not used.
fn next_name(target: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    parent(target).join(format!("{MARK}{}-{number}", std::process::id()))
}
