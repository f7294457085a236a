//! Opening files for reading. A pipe without a writer would block for ever, and a device may be
//! endless.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// A pipe or device is read up to this many bytes.
const MAX_STREAM_BYTES: u64 = 1 << 30;

/// Opens a file to be mapped into memory or read several times.
///
/// # Errors
/// Returns [`Error::Io`] where the system refuses, and [`Error::File`] for a folder, pipe, socket
/// or device.
pub fn open_input(path: impl AsRef<Path>) -> Result<File> {
    let path = path.as_ref();
    // Before it is opened: opening a pipe waits for a writer.
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

/// Reads a whole file, or up to [`MAX_STREAM_BYTES`] of a pipe or device, with a warning.
pub(super) fn read_input(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let found = fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if found.is_file() || found.is_dir() || path == Path::new("/dev/null") {
        return fs::read(path).map_err(|e| Error::io(path, e));
    }
    tracing::warn!("{} is {}: waiting for its contents", path.display(), kind(&found));
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_STREAM_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > MAX_STREAM_BYTES {
        return Err(Error::file(path, "gives more than a gibibyte: save the part that you need to a file"));
    }
    Ok(bytes)
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
    fn pipes_and_devices_cannot_be_mapped_but_read() {
        for device in ["/dev/null", "/dev/zero"] {
            let message = open_input(device).unwrap_err().to_string();
            assert!(message.contains(device) && message.contains("is a device"), "{message}");
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
