//! Checks that a result can be written, before the work that computes it.

use std::fs;
use std::path::Path;

use super::target::{Target, follow};
use super::temporary::Temporary;
use crate::error::{Error, Result};

/// Returns an error if no file can be written at `path`; changes nothing there. Accepts what is no
/// regular file, such as `-`, a pipe or a device.
///
/// # Errors
/// Returns [`Error::Io`] for a folder, a missing parent, or where the system refuses.
pub fn check_output(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    if let Target::File(real) = Target::of(path)? { Temporary::create(real, path).map(drop) } else { Ok(()) }
}

/// Returns an error if the folder `path` cannot be created or written into. Leaves nothing behind.
///
/// # Errors
/// Returns [`Error::File`] if a file has the name of a folder, and [`Error::Io`] where the system
/// refuses.
pub fn check_output_folder(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    if path.as_os_str().is_empty() {
        return Err(Error::File { path: path.into(), message: "an empty name; name a folder".into() });
    }
    // For a link, the folder that it leads to is created.
    let real = follow(path)?;
    let existing = real.ancestors().find(|above| above.symlink_metadata().is_ok());
    let existing = existing.unwrap_or(Path::new("."));
    match fs::metadata(existing) {
        Ok(found) if found.is_dir() => Temporary::create(existing.join("probe"), path).map(drop),
        Ok(_) => Err(Error::file(path, format!("{} is in the way: it is no folder", existing.display()))),
        Err(e) => Err(Error::io(existing, e)),
    }
}
