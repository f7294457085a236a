//! One search for a task's circuits at a time.

use std::path::Path;

use crate::files::Lock;
use crate::{Error, Result};

/// Locks the circuits of `task` in `folder`, which must exist, while they are looked for and written. Other tasks' are free.
///
/// # Errors
/// [`Error::File`] naming the process that has them; [`Error::Io`] where the folder cannot be written to.
pub fn lock(folder: &Path, task: &str) -> Result<Lock> {
    Lock::acquire(folder.join(format!(".{task}.lock")))?.map_err(|holder| {
        let message = format!(
            "{holder} is looking for this circuit: wait until it has ended, stop it, or choose another folder (--out)"
        );
        Error::file(folder.join(format!("{task}.json")), message)
    })
}
