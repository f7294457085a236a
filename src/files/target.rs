//! What is to be written is looked at before the work whose result it is.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Error, Result};

/// Returns an error unless a file can be written at `path`, which is left as it is. `-` and what is no regular file, such as a pipe or a
/// device, is taken as it comes.
///
/// # Errors
/// [`Error::File`] for a folder in its place or a folder that is missing; [`Error::Io`] where the system refuses.
pub fn check_output(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    if path == Path::new("-") {
        return Ok(());
    }
    if path.as_os_str().is_empty() {
        return Err(Error::File { path: path.into(), message: "an empty name; name a file".into() });
    }
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(Error::file(path, "is a folder; name a file in it")),
        Ok(found) if !found.is_file() => return Ok(()),
        _ => {}
    }
    if path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(Error::file(path, "ends in no name of a file"));
    }
    // What replaces a file through a link lies where that one does.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let folder = match real.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(Error::file(path, format!("there is no folder {}", folder.display())));
    }
    try_to_write(folder).map_err(|e| Error::io(path, e))
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
    let existing = path.ancestors().find(|above| above.symlink_metadata().is_ok());
    let existing = existing.unwrap_or(Path::new("."));
    match fs::metadata(existing) {
        Ok(found) if found.is_dir() => try_to_write(existing).map_err(|e| Error::io(path, e)),
        Ok(_) => Err(Error::file(path, format!("{} is in the way: it is no folder", existing.display()))),
        Err(e) => Err(Error::io(existing, e)),
    }
}

/// Makes a file in `folder`, and removes it.
fn try_to_write(folder: &Path) -> io::Result<()> {
    let probe = folder.join(format!(".tmp-probe-{}", std::process::id()));
    fs::File::create(&probe)?;
    fs::remove_file(&probe)
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
