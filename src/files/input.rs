//! How files are opened for reading. A pipe that no one writes into would be waited for for ever, and a device may have no end.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// What is no regular file is read up to so many bytes: 1 GiB.
const MOST: u64 = 1 << 30;

/// Opens a file that is mapped into memory or read more than once.
///
/// # Errors
/// [`Error::Io`] where the system refuses; [`Error::File`] for a folder, pipe, socket or device.
pub fn open_input(path: impl AsRef<Path>) -> Result<File> {
    let path = path.as_ref();
    // Asked before it is opened, since opening a pipe waits.
    let found = fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if found.is_dir() {
        return Err(Error::io(path, io::ErrorKind::IsADirectory.into()));
    }
    if !found.is_file() {
        let message = format!("is {}, and a regular file is needed: save what it gives to a file first", kind(&found));
        return Err(Error::file(path, message));
    }
    File::open(path).map_err(|e| Error::io(path, e))
}

/// Reads a whole file. A pipe, socket or device is read as well, with a warning that says what is waited for.
///
/// # Errors
/// [`Error::Io`] where the system refuses; [`Error::File`] for a pipe or device that gives more than a gibibyte.
pub(super) fn read_input(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let found = fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if found.is_file() || found.is_dir() || path == Path::new("/dev/null") {
        return fs::read(path).map_err(|e| Error::io(path, e));
    }
    tracing::warn!("{} is {}: waiting for what it gives", path.display(), kind(&found));
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes));
    read.map_err(|e| Error::io(path, e))?;
    match bytes.len() as u64 > MOST {
        true => Err(Error::file(path, "gives more than a gibibyte: save what is wanted of it to a file")),
        false => Ok(bytes),
    }
}

#[cfg(unix)]
fn kind(found: &fs::Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    let kind = found.file_type();
    match () {
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

#[cfg(not(unix))]
fn kind(_: &fs::Metadata) -> &'static str {
    "no regular file"
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_refused_where_it_is_mapped_and_read_where_it_ends() {
        for device in ["/dev/null", "/dev/zero"] {
            let said = open_input(device).unwrap_err().to_string();
            assert!(said.contains(device) && said.contains("is a device"), "{said}");
        }
        assert!(open_input("/").is_err() && read_input("/").is_err());
        assert_eq!(read_input("/dev/null").unwrap(), b"");

        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(open_input(&pipe).unwrap_err().to_string().contains("is a pipe"));
        let writer = pipe.clone();
        let writing = std::thread::spawn(move || fs::write(writer, "[train]\n").unwrap());
        assert_eq!(read_input(&pipe).unwrap(), b"[train]\n");
        writing.join().unwrap();
    }
}
