//! Atomic writes of files and folders, and the reading of tensors and text.
//!
//! Everything is first written under a temporary name next to its target, synced to the disk, and
//! then renamed: a kill, a crash or a full disk at any instant leaves the old contents. The next
//! writer in a folder removes the temporary files of killed processes, never those of running ones.
//! A target that is a link stays a link, and the file that it leads to is replaced. A pipe or a
//! device is written to directly.

mod check;
mod input;
mod lock;
mod mapped;
mod renamed;
mod sharded;
mod source;
mod target;
mod temporary;
mod tensors;
mod text;
pub(crate) mod versioned;
mod write;
mod xml;

pub use check::{check_output, check_output_folder};
pub use input::open_input;
pub use lock::{Holder, Lock};
pub use mapped::SafetensorsFile;
pub use renamed::Renamed;
pub use sharded::ShardedSafetensors;
pub use source::{FloatType, InMemory, TensorInfo, TensorSource};
pub use target::is_stdout;
pub(crate) use temporary::{Temporary, lock_name, sweep_own};
pub use tensors::{HostIds, HostTensor, load_ids, load_metadata, load_tensors, parse_ids, parse_names, parse_tensors};
pub(crate) use text::serialize_as_text;
pub use text::{read_text, read_unmarked, utf16, without_mark};
pub(crate) use write::encode;
pub use write::{save_arrays, save_tensors, write_safetensors};
pub(crate) use xml::escape_xml;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use target::Target;
pub(crate) use target::follow;
use temporary::TemporaryFolder;

/// The prefix of a folder that is being replaced.
const OUTGOING: &str = ".old-gossamer-";
/// The prefix of a checkpoint that an earlier version was replacing.
const EARLIER_OUTGOING: &str = ".old-step-";

/// Writes the file at `path` through `write`, atomically. Replaces a file that is there or that
/// `path` links to.
///
/// The writer is buffered. The folder must exist. `-` and `/dev/stdout` are the standard output. A
/// pipe or a device is written to directly, not atomically.
///
/// # Errors
/// Returns [`Error::Io`] naming `path` for a folder, a socket, or where the system refuses, and the
/// errors of `write`. After an error, a file at `path` is unchanged and no temporary file remains.
pub fn write_atomic(path: impl AsRef<Path>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let path = path.as_ref();
    match Target::of(path)? {
        Target::File(real) => {
            let temporary = Temporary::create(real, path)?;
            fill(&temporary.file, path, write)?;
            temporary.publish()
        }
        other => fill(other.stream().map_err(|e| Error::io(path, e))?, path, write),
    }
}

/// Builds the folder at `path` through `build`, atomically. Replaces a folder that is there.
///
/// `build` receives an empty folder with a temporary name; everything in it is synced before the
/// folder gets its name. The parent folder must exist.
///
/// No system renames a folder over one with contents, so a replacement has three steps: rename the
/// old folder to `.old-gossamer-<name>`, rename the new one, remove the old one. At every instant
/// one of them is whole on the disk. After a kill between the first two steps,
/// [`clean_temporaries`] and the next call for the same `path` restore the old folder; call one of
/// them before looking for `path` after a kill.
///
/// # Errors
/// Returns [`Error::Io`] naming the file or folder that the system refused, and the errors of
/// `build`. After an error `path` is unchanged and no temporary folder remains.
pub fn replace_dir_atomic(path: impl AsRef<Path>, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let path = path.as_ref();
    let real = follow(path)?;
    file_name(&real).map_err(|e| e.at(path))?;
    restore(&real).map_err(|e| e.at(path))?;
    let temporary = TemporaryFolder::next_to(&real).map_err(|e| e.at(path))?;
    let built = build(&temporary.path).and_then(|()| sync_tree(&temporary.path));
    built.map_err(|e| e.moved(&temporary.path, path))?;
    move_in(&temporary.path, &real).map_err(|e| e.at(path))
}

/// Removes the temporary files of killed processes from the folder `dir`, and restores a folder
/// whose replacement was interrupted (see [`replace_dir_atomic`]). Subfolders, files of running
/// processes and files of other programs are kept. A `dir` that does not exist is clean.
///
/// # Errors
/// Returns [`Error::Io`] naming the file that could not be read, removed or renamed.
pub fn clean_temporaries(dir: impl AsRef<Path>) -> Result<()> {
    let dir = dir.as_ref();
    match sweep_own(dir) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        swept => swept?,
    }
    for entry in fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
        let path = entry.map_err(|e| Error::io(dir, e))?.path();
        let Some(name) = path.file_name().and_then(OsStr::to_str) else { continue };
        if let Some(target) = name.strip_prefix(OUTGOING) {
            restore(&dir.join(target))?;
        } else if let Some(step) = name.strip_prefix(EARLIER_OUTGOING) {
            restore(&dir.join(format!("step-{step}")))?;
        }
    }
    Ok(())
}

/// Creates the folder `path` and its missing parents, durably. An existing one is kept.
///
/// # Errors
/// Returns [`Error::Io`] naming the folder that could not be created, or that is a file.
pub fn create_folder(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    // The parent of a name alone is the working folder.
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    // A link to a folder that does not exist yet stays a link.
    let path = follow(path)?;
    let above = parent(&path);
    if above != path {
        create_folder(above)?;
    }
    match fs::create_dir(&path) {
        Err(_) if path.is_dir() => Ok(()),
        Err(e) => Err(Error::io(path, e)),
        Ok(()) => sync_folder(above),
    }
}

/// Lets `write` write to `out` through a buffer. Errors name `path`.
fn fill(out: impl Write, path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut buffered = BufWriter::with_capacity(1 << 18, out);
    if let Err(error) = write(&mut buffered) {
        // Dropping the buffer would write its contents.
        drop(buffered.into_parts());
        return Err(error);
    }
    let written = buffered.into_inner().map_err(io::IntoInnerError::into_error).and_then(|mut out| out.flush());
    written.map_err(|e| Error::io(path, e))
}

/// Renames the finished folder `temporary` to `path`, and removes the old contents.
fn move_in(temporary: &Path, path: &Path) -> Result<()> {
    let outgoing = outgoing(path)?;
    let _moving = moving(path)?;
    put_back(&outgoing, path)?;
    let replacing = exists(path)?;
    if replacing {
        fs::rename(path, &outgoing).map_err(|e| Error::io(path, e))?;
    }
    fs::rename(temporary, path).map_err(|e| {
        if replacing {
            // If this fails too, `clean_temporaries` does it later.
            let _ = fs::rename(&outgoing, path);
        }
        Error::io(path, e)
    })?;
    // The new name must be durable before the old contents are removed.
    sync_folder(parent(path))?;
    remove(&outgoing)
}

/// Completes an interrupted replacement of `path`.
pub(crate) fn restore(path: &Path) -> Result<()> {
    let name = file_name(path)?;
    let earlier = name.to_str().and_then(|name| name.strip_prefix("step-"));
    let earlier = earlier.map(|step| path.with_file_name(format!("{EARLIER_OUTGOING}{step}")));
    for outgoing in [Some(outgoing(path)?), earlier].into_iter().flatten() {
        if exists(&outgoing)? {
            let _moving = moving(path)?;
            put_back(&outgoing, path)?;
        }
    }
    Ok(())
}

/// Renames `outgoing` back to `path`, or removes it if `path` has been replaced.
fn put_back(outgoing: &Path, path: &Path) -> Result<()> {
    if !exists(outgoing)? {
        Ok(())
    } else if exists(path)? {
        remove(outgoing)
    } else {
        fs::rename(outgoing, path).map_err(|e| Error::io(path, e))?;
        sync_folder(parent(path))
    }
}

/// Locks the replacement of the folder at `path`: no other process repairs the state in between.
fn moving(path: &Path) -> Result<Lock> {
    Lock::wait(lock_name(parent(path), file_name(path)?), || Ok(()))
}

/// Removes a file, or a folder with its contents, if it exists.
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

/// Syncs every file below `folder`, and every folder after its contents. Skips links.
fn sync_tree(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|e| Error::io(&path, e))?;
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            // Windows syncs only files open for writing; other systems would refuse a read-only
            // file then.
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
        // Some network file systems cannot sync a folder.
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        synced => synced.map_err(|e| Error::io(folder, e)),
    }
}

/// Folders cannot be synced here.
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
    let no_name = || Error::io(path, io::Error::new(io::ErrorKind::InvalidInput, "the path ends in no name"));
    path.file_name().ok_or_else(no_name)
}

/// The name of the folder `path` while it is being replaced.
fn outgoing(path: &Path) -> Result<PathBuf> {
    let mut name = OsString::from(OUTGOING);
    name.push(file_name(path)?);
    Ok(path.with_file_name(name))
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

    /// As the parent of a name alone.
    #[test]
    fn the_working_folder_need_not_be_created() {
        create_folder("").unwrap();
        create_folder(Path::new("name").parent().unwrap()).unwrap();
    }
}
