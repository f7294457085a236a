//! One search for a task's circuits at a time.

use std::path::Path;

use crate::files::Lock;
use crate::{Error, Result};

/// Locks the circuits of `task` in `folder`, which must exist, during a search. Other tasks are not
/// locked.
///
/// # Errors
/// [`Error::File`] naming the process that holds the lock; [`Error::Io`] if the folder cannot be
/// written to.
pub fn lock(folder: &Path, task: &str) -> Result<Lock> {
    Lock::acquire(folder.join(format!(".{task}.lock")))?.map_err(|holder| {
        let message = format!(
            "{holder} is searching for this circuit: wait until it has ended, stop it, or choose another folder (--out)"
        );
        Error::file(folder.join(format!("{task}.json")), message)
    })
}
