//! What is to be written is looked at before the work whose result it is.

use std::fs;
use std::path::Path;

use super::target::{Target, follow};
use super::temporary::Temporary;
use crate::error::{Error, Result};

/// Returns an error unless a file can be written at `path`, which is left as it is. What is no regular file, such as `-`, a pipe or a
/// device, is taken as it comes.
///
/// # Errors
/// [`Error::Io`] for a folder in its place, a folder that is missing, or where the system refuses.
pub fn check_output(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    match Target::of(path)? {
        Target::File(real) => Temporary::create(real, path).map(drop),
        _ => Ok(()),
    }
}

/// Returns an error unless the folder `path` can be made or written into. Nothing is left behind.
///
/// # Errors
/// [`Error::File`] where a file is in the way; [`Error::Io`] where the system refuses.
pub fn check_output_folder(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    if path.as_os_str().is_empty() {
        return Err(Error::File { path: path.into(), message: "an empty name; name a folder".into() });
    }
    // Of a link, the folder that it leads to is made.
    let real = follow(path)?;
    let existing = real.ancestors().find(|above| above.symlink_metadata().is_ok());
    let existing = existing.unwrap_or(Path::new("."));
    match fs::metadata(existing) {
        Ok(found) if found.is_dir() => Temporary::create(existing.join("probe"), path).map(drop),
        Ok(_) => Err(Error::file(path, format!("{} is in the way: it is no folder", existing.display()))),
        Err(e) => Err(Error::io(existing, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_told_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "kept").unwrap();
        for bad in [dir.path().to_path_buf(), at("no/file"), at("file/x"), at("new/"), "".into()] {
            assert!(check_output(&bad).is_err(), "{}", bad.display());
        }
        for good in [at("file"), at("new"), "-".into()] {
            check_output(&good).unwrap();
        }
        for bad in [at("file"), at("file/x"), "".into()] {
            assert!(check_output_folder(&bad).is_err(), "{}", bad.display());
        }
        for good in [dir.path().to_path_buf(), at("a/b/c"), "relative".into()] {
            check_output_folder(&good).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(fs::read(at("file")).unwrap(), b"kept");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_are_taken_as_they_come() {
        check_output("/dev/null").unwrap();
        check_output("/dev/stdout").unwrap();
        assert!(check_output("/proc/no-such-file").is_err());
    }
}
