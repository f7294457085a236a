//! Files and folders written whole or not at all.
//!
//! Everything is first written under a temporary name beside its target, synced to the disk, and only then renamed, so that a kill, a
//! crash or a full disk at any instant leaves what was there before. Names that begin with `.tmp-` or `.old-` belong to this module;
//! [`clean_temporaries`] clears away what a killed run left of them.

mod mapped;
mod renamed;
mod sharded;
mod source;
mod tensors;
mod text;
pub(crate) mod versioned;
mod write;

pub use mapped::SafetensorsFile;
pub use renamed::WithoutPrefix;
pub use sharded::ShardedSafetensors;
pub use source::{FloatType, InMemory, TensorInfo, TensorSource};
pub use tensors::{HostTensor, load_ids, load_metadata, load_tensors, parse_ids, parse_names, parse_tensors};
pub use text::{read_text, read_unmarked, utf16, without_mark};
pub use write::{HostIds, save_arrays, save_tensors, write_safetensors};

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// What a half-written file or folder is called, before its own name.
const TEMPORARY: &str = ".tmp-";
/// What a folder on its way out is called, before its own name.
const OUTGOING: &str = ".old-";

/// Writes the file at `path` through `write`, whole or not at all; a file already there is replaced.
///
/// The writer handed to `write` is buffered. The folder must exist.
///
/// # Errors
///
/// [`Error::Io`] naming `path` where the system refuses (full disk, read-only folder, no folder), or whatever `write` returns. On any
/// error `path` is as it was and no temporary file stays.
pub fn write_atomic(path: impl AsRef<Path>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let path = path.as_ref();
    let temporary = temporary_name(path)?;
    let written = File::create(&temporary)
        .map_err(|e| Error::io(path, e))
        .and_then(|file| fill(file, path, write))
        .and_then(|()| fs::rename(&temporary, path).map_err(|e| Error::io(path, e)));
    if written.is_err() {
        // The first error is the one to tell; the file may not even have been created.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    sync_folder(parent(path))
}

/// Builds the folder at `path` through `build`, whole or not at all; a folder already there is replaced.
///
/// `build` is given an empty folder under a temporary name; everything it leaves there is synced before the folder takes its place. The
/// folder above must exist.
///
/// A folder cannot be renamed over another that holds something, so a replacement takes three steps: the old one steps aside as
/// `.old-<name>`, the new one takes its name, the old one is removed. At every instant one of the two is whole on the disk; the only instant
/// at which neither has the name is between the first two steps, and [`clean_temporaries`], as well as the next call for the same `path`,
/// then puts the old one back. Call it before looking for `path` after a kill.
///
/// # Errors
///
/// [`Error::Io`] naming the file or folder the system refused, or whatever `build` returns. On any error `path` is as it was and no
/// temporary folder stays.
pub fn replace_dir_atomic(path: impl AsRef<Path>, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let path = path.as_ref();
    let temporary = temporary_name(path)?;
    let outgoing = prefixed(OUTGOING, file_name(path)?, "");
    let outgoing = parent(path).join(outgoing);
    restore(&outgoing, path)?;

    let built = fs::create_dir(&temporary)
        .map_err(|e| Error::io(path, e))
        .and_then(|()| build(&temporary))
        .and_then(|()| sync_tree(&temporary))
        .and_then(|()| move_in(&temporary, &outgoing, path));
    if built.is_err() {
        // The first error is the one to tell; the folder may not even have been created.
        let _ = fs::remove_dir_all(&temporary);
        return built;
    }
    sync_folder(parent(path))?;
    remove(&outgoing)
}

/// Removes from the folder `dir` what killed runs left half-written, and puts back a folder that was caught between its old and its new
/// contents (see [`replace_dir_atomic`]). Does not look into folders below. A `dir` that does not exist has nothing to clean.
///
/// Only for the one process that writes to `dir`: the temporary files of another would be taken from under it.
///
/// # Errors
///
/// [`Error::Io`] naming what could not be read, removed or renamed.
pub fn clean_temporaries(dir: impl AsRef<Path>) -> Result<()> {
    let dir = dir.as_ref();
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| Error::io(dir, e))?,
    };
    for entry in entries {
        let path = entry.map_err(|e| Error::io(dir, e))?.path();
        let Some(name) = path.file_name().and_then(OsStr::to_str) else { continue };
        if name.starts_with(TEMPORARY) {
            remove(&path)?;
        } else if let Some(target) = name.strip_prefix(OUTGOING) {
            restore(&path, &dir.join(target))?;
        }
    }
    Ok(())
}

/// Creates the folder `path`, and those above it that are missing, so that they outlive a crash. One that exists is left as it is.
///
/// # Errors
///
/// [`Error::Io`] naming the folder that could not be created, or that is a file.
pub fn create_folder(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path);
    if above != path {
        create_folder(above)?;
    }
    match fs::create_dir(path) {
        Err(_) if path.is_dir() => Ok(()),
        Err(e) => Err(Error::io(path, e)),
        Ok(()) => sync_folder(above),
    }
}

/// Lets `write` fill `file` through a buffer, and waits until the disk has it all. Errors name `path`.
fn fill(file: File, path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut buffered = BufWriter::with_capacity(1 << 18, file);
    write(&mut buffered)?;
    let file = buffered.into_inner().map_err(|e| Error::io(path, e.into_error()))?;
    file.sync_all().map_err(|e| Error::io(path, e))
}

/// Puts the finished folder `temporary` in the place of `path`, whose old contents, if any, end up at `outgoing`.
fn move_in(temporary: &Path, outgoing: &Path, path: &Path) -> Result<()> {
    let replacing = exists(path)?;
    if replacing {
        fs::rename(path, outgoing).map_err(|e| Error::io(path, e))?;
    }
    fs::rename(temporary, path).map_err(|e| {
        if replacing {
            // If even this fails, `clean_temporaries` will do it later.
            let _ = fs::rename(outgoing, path);
        }
        Error::io(path, e)
    })
}

/// Finishes a replacement of `path` that was cut short: `outgoing`, if it exists, goes back where it was, or away if `path` has been replaced.
fn restore(outgoing: &Path, path: &Path) -> Result<()> {
    if !exists(outgoing)? {
        Ok(())
    } else if exists(path)? {
        remove(outgoing)
    } else {
        fs::rename(outgoing, path).map_err(|e| Error::io(path, e))?;
        sync_folder(parent(path))
    }
}

/// Removes a file, or a folder with all it holds; nothing there is fine.
fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|e| Error::io(path, e)),
    }
}

fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io(path, e)),
    }
}

/// Syncs every file below `folder`, and every folder after what it holds. Links are left alone.
fn sync_tree(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|e| Error::io(&path, e))?;
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            // Windows syncs only what is open for writing; elsewhere that would refuse a read-only file.
            let file = OpenOptions::new().read(true).write(cfg!(windows)).open(&path);
            file.and_then(|file| file.sync_all()).map_err(|e| Error::io(&path, e))?;
        }
    }
    sync_folder(folder)
}

/// Makes the names in `folder` durable.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some network file systems have no such thing; a rename there is as durable as it gets.
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        synced => synced.map_err(|e| Error::io(folder, e)),
    }
}

/// Folders cannot be synced here; the system writes their names out by itself.
#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> Result<()> {
    Ok(())
}

/// The folder that holds `path`.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

fn file_name(path: &Path) -> Result<&OsStr> {
    let nameless = || Error::io(path, io::Error::new(io::ErrorKind::InvalidInput, "the path ends in no name"));
    path.file_name().ok_or_else(nameless)
}

/// A free name beside `path`: the process and a counter keep writers apart, in one process and in several. What an earlier process of the
/// same number left there is removed.
fn temporary_name(path: &Path) -> Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let suffix = match COUNTER.fetch_add(1, Ordering::Relaxed) {
        0 => format!("-{}", std::process::id()),
        n => format!("-{}-{n}", std::process::id()),
    };
    let temporary = parent(path).join(prefixed(TEMPORARY, file_name(path)?, &suffix));
    match remove(&temporary) {
        Err(Error::Io { source, .. }) => Err(Error::io(path, source)),
        Err(other) => Err(other),
        Ok(()) => Ok(temporary),
    }
}

fn prefixed(prefix: &str, name: &OsStr, suffix: &str) -> OsString {
    let mut full = OsString::from(prefix);
    full.push(name);
    full.push(suffix);
    full
}

/// Lower-case hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_an_error_that_names_the_file() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let path = Path::new("runs/a/model.safetensors");
        let failed = fill(full, path, |out| out.write_all(b"numbers").map_err(|e| Error::io(path, e)));
        let Err(Error::Io { path: named, source }) = failed else { panic!("{failed:?}") };
        assert_eq!(named, path);
        assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    }
}
