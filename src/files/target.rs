//! The thing that a path leads to, as something to write to.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::parent;
use crate::error::{Error, Result};

/// More links in a row count as a cycle, as in operating systems.
const MAX_LINKS: usize = 40;

pub(super) enum Target {
    /// A file, which need not exist; the path is that of the file, not of a link to it.
    File(PathBuf),
    /// The process's standard output: `-`, `/dev/stdout`, and links to it.
    Stdout,
    /// The process's standard error.
    Stderr,
    /// Another of the process's open files.
    Descriptor(PathBuf),
    /// A device or a pipe.
    Special(PathBuf),
}

impl Target {
    /// Resolves `path`.
    pub(super) fn of(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stdout);
        }
        let refused = |kind, message: &str| Err(Error::io(path, io::Error::new(kind, message)));
        let (real, descriptor) = follow_until(path, |at| number_of(at).is_some())?;
        if descriptor {
            return Ok(match number_of(&real) {
                Some(1) => Self::Stdout,
                Some(2) => Self::Stderr,
                _ => Self::Descriptor(real),
            });
        }
        match fs::symlink_metadata(&real) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && ends_in_separator(path) => {
                refused(io::ErrorKind::NotADirectory, "there is no such folder; name a file")
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::File(real)),
            Err(e) => Err(Error::io(path, e)),
            Ok(found) if found.is_dir() => refused(io::ErrorKind::IsADirectory, "is a folder; name a file in it"),
            Ok(found) if found.is_file() => Ok(Self::File(real)),
            Ok(found) if is_socket(&found) => {
                refused(io::ErrorKind::InvalidInput, "is a socket, which is not written to as a file; name a file")
            }
            Ok(_) => Ok(Self::Special(real)),
        }
    }

    /// A stream to write to, of anything but a file.
    pub(super) fn stream(&self) -> io::Result<Box<dyn Write>> {
        let open = |options: &mut OpenOptions, path: &Path| -> io::Result<Box<dyn Write>> {
            Ok(Box::new(options.write(true).open(path)?))
        };
        match self {
            Self::Stdout => Ok(Box::new(io::stdout())),
            Self::Stderr => Ok(Box::new(io::stderr())),
            // A file that is already open is continued.
            Self::Descriptor(path) => open(OpenOptions::new().append(true), path),
            Self::Special(path) => open(&mut OpenOptions::new(), path),
            Self::File(path) => Ok(Box::new(File::create(path)?)),
        }
    }
}

/// Whether writing to `path` writes to the standard output, as with `-`: nothing else should be
/// written there then.
pub fn is_stdout(path: impl AsRef<Path>) -> bool {
    matches!(Target::of(path.as_ref()), Ok(Target::Stdout))
}

/// The path at the end of the links at `path`, which need not exist.
pub(crate) fn follow(path: &Path) -> Result<PathBuf> {
    Ok(follow_until(path, |_| false)?.0)
}

/// Follows links up to the last one, or until `stop` returns true; the flag says which.
fn follow_until(path: &Path, stop: impl Fn(&Path) -> bool) -> Result<(PathBuf, bool)> {
    // Without a trailing separator, which would make a link count as its target.
    let mut at: PathBuf = path.components().collect();
    for _ in 0..MAX_LINKS {
        if stop(&at) {
            return Ok((at, true));
        }
        match fs::read_link(&at) {
            Ok(to) => at = parent(&at).join(to),
            // Not a link, or it does not exist.
            Err(_) => return Ok((at, false)),
        }
    }
    Err(Error::io(path, io::Error::other("too many links, one after the other")))
}

/// The number of the open file that a path such as `/dev/stdout`, `/dev/fd/3` or `/proc/self/fd/3`
/// names.
fn number_of(path: &Path) -> Option<u32> {
    if !cfg!(unix) {
        return None;
    }
    for (name, number) in [("/dev/stdout", 1), ("/dev/stderr", 2)] {
        if path == Path::new(name) {
            return Some(number);
        }
    }
    let process = format!("/proc/{}/fd", std::process::id());
    let folder = path.parent()?;
    let matches = [Path::new("/dev/fd"), Path::new("/proc/self/fd"), Path::new(&process)].contains(&folder);
    path.file_name().and_then(OsStr::to_str).filter(|_| matches)?.parse().ok()
}

fn ends_in_separator(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().last().is_some_and(|&byte| std::path::is_separator(byte.into()))
}

#[cfg(unix)]
fn is_socket(found: &fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&found.file_type())
}

#[cfg(not(unix))]
fn is_socket(_found: &fs::Metadata) -> bool {
    false
}
