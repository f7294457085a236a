//! The right to write in a run's folder, which one process at a time has.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::files::{Lock, create_folder};
use crate::{Error, Result};

/// The lock file in a run's folder.
const LOCK: &str = ".lock";

/// Held while something writes in a run's folder.
#[derive(Debug)]
pub struct RunLock {
    lock: Option<Lock>,
    /// The folder, if it was created for this.
    created: Option<PathBuf>,
}

impl RunLock {
    /// Locks the folder `run`, which is created if need be, and removed again if it is left empty.
    ///
    /// # Errors
    /// [`Error::File`] naming the folder and the process that writes there; [`Error::Io`] where the
    /// folder cannot be created or written to.
    pub fn take(run: &Path) -> Result<Self> {
        let created = (!run.exists()).then(|| run.to_path_buf());
        create_folder(run)?;
        match Lock::acquire(run.join(LOCK))? {
            Ok(lock) => Ok(Self { lock: Some(lock), created }),
            Err(holder) => {
                let message = format!(
                    "{holder} is writing in this run: wait until it has ended, stop it, or choose another folder (--out)"
                );
                Err(Error::file(run, message))
            }
        }
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // The lock file lies in the folder.
        self.lock = None;
        if let Some(folder) = &self.created {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Creates the folder `base` or, where something is there, the first of `base-2`, `base-3` and so
/// on where nothing is. Of several processes at once, each gets one of its own.
///
/// # Errors
/// [`Error::Io`] naming the folder that could not be created.
pub fn claim(base: &Path) -> Result<PathBuf> {
    create_folder(base.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    let mut number = 1;
    loop {
        let path = numbered(base, number);
        match fs::create_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(e) => return Err(Error::io(path, e)),
            Ok(()) => return Ok(path),
        }
    }
}

/// The folder that [`claim`] would create now, to be shown to a person.
pub fn free(base: &Path) -> PathBuf {
    let free = (1..).map(|number| numbered(base, number)).find(|path| path.symlink_metadata().is_err());
    free.unwrap_or_else(|| base.into())
}

fn numbered(base: &Path, number: u64) -> PathBuf {
    match number {
        1 => base.into(),
        _ => {
            let mut name = base.file_name().unwrap_or_default().to_os_string();
            name.push(format!("-{number}"));
            base.with_file_name(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once_and_free_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("a/run");
        let lock = RunLock::take(&run).unwrap();
        let message = RunLock::take(&run).unwrap_err().to_string();
        assert!(message.contains(&format!("process {}", std::process::id())) && message.contains("run: "), "{message}");
        drop(lock);
        assert!(!run.exists(), "it was created for the lock, and nothing is in it");
        drop(RunLock::take(&run).unwrap());
    }

    #[test]
    fn claims_at_the_same_time_differ() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("runs/quickstart");
        let mut claimed: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| claim(&base).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        claimed.sort();
        let mut expected: Vec<_> = (1..=8).map(|number| numbered(&base, number)).collect();
        expected.sort();
        assert_eq!(claimed, expected);
        assert_eq!(free(&base), dir.path().join("runs/quickstart-9"));
    }
}
