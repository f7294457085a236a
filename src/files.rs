//! Files and folders written whole or not at all.
//!
//! Everything is first written under a temporary name beside its target, synced to the disk, and only then renamed, so that a kill, a
//! crash or a full disk at any instant leaves what was there before. What a killed process leaves half-written is removed by whoever next
//! writes beside it; what a living one is writing is never touched. A target that is a link stays one, and the file that
//! it leads to is replaced. What is no file, such as a pipe or a device, is written to as it is.

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

pub use check::{check_output, check_output_folder};
pub use input::open_input;
pub use lock::{Holder, Lock};
pub use mapped::SafetensorsFile;
pub use renamed::Renamed;
pub use sharded::ShardedSafetensors;
pub use source::{FloatType, InMemory, TensorInfo, TensorSource};
pub use target::is_stdout;
pub(crate) use temporary::{Temporary, lock_name, sweep_own};
pub use tensors::{HostTensor, load_ids, load_metadata, load_tensors, parse_ids, parse_names, parse_tensors};
pub use text::{read_text, read_unmarked, utf16, without_mark};
pub use write::{HostIds, save_arrays, save_tensors, write_safetensors};

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use target::Target;
pub(crate) use target::follow;
use temporary::TemporaryFolder;

/// What a folder on its way out is called, before its own name.
const OUTGOING: &str = ".old-gossamer-";
/// What earlier versions called a checkpoint on its way out.
const EARLIER_OUTGOING: &str = ".old-step-";

/// Writes the file at `path` through `write`, whole or not at all; a file already there is replaced, and one that `path` links to.
///
/// The writer handed to `write` is buffered. The folder must exist. `-` and `/dev/stdout` are the process's standard output. What is there
/// and no file, such as a pipe or a device, is written to as it is, and not whole or not at all.
///
/// # Errors
///
/// [`Error::Io`] naming `path` where it is a folder or a socket or the system refuses (full disk, read-only folder, no folder), or whatever
/// `write` returns. On any error a file at `path` is as it was and no temporary file stays.
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

/// Builds the folder at `path` through `build`, whole or not at all; a folder already there is replaced.
///
/// `build` is given an empty folder under a temporary name; everything it leaves there is synced before the folder takes its place. The
/// folder above must exist.
///
/// A folder cannot be renamed over another that holds something, so a replacement takes three steps: the old one steps aside as
/// `.old-gossamer-<name>`, the new one takes its name, the old one is removed. At every instant one of the two is whole on the disk; the only instant
/// at which neither has the name is between the first two steps, and [`clean_temporaries`], as well as the next call for the same `path`,
/// then puts the old one back. Call it before looking for `path` after a kill.
///
/// # Errors
///
/// [`Error::Io`] naming the file or folder the system refused, or whatever `build` returns. On any error `path` is as it was and no
/// temporary folder stays.
pub fn replace_dir_atomic(path: impl AsRef<Path>, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let path = path.as_ref();
    let real = follow(path)?;
    file_name(&real).map_err(|e| e.at(path))?;
    restore(&real).map_err(|e| e.at(path))?;
    let temporary = TemporaryFolder::beside(&real).map_err(|e| e.at(path))?;
    let built = build(&temporary.path).and_then(|()| sync_tree(&temporary.path));
    built.map_err(|e| e.moved(&temporary.path, path))?;
    move_in(&temporary.path, &real).map_err(|e| e.at(path))
}

/// Removes from the folder `dir` what killed runs left half-written, and puts back a folder that was caught between its old and its new
/// contents (see [`replace_dir_atomic`]). Does not look into folders below. A `dir` that does not exist has nothing to clean. What a living
/// process is writing there stays.
///
/// Files and folders of other programs stay, whatever their names begin with.
///
/// # Errors
///
/// [`Error::Io`] naming what could not be read, removed or renamed.
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
    // A link to a folder that is not there yet stays.
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

/// Lets `write` fill `out` through a buffer. Errors name `path`.
fn fill(out: impl Write, path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut buffered = BufWriter::with_capacity(1 << 18, out);
    if let Err(error) = write(&mut buffered) {
        // What is still in the buffer is of no use.
        drop(buffered.into_parts());
        return Err(error);
    }
    let written = buffered.into_inner().map_err(io::IntoInnerError::into_error).and_then(|mut out| out.flush());
    written.map_err(|e| Error::io(path, e))
}

/// Puts the finished folder `temporary` in the place of `path`, whose old contents, if any, step aside and are removed.
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
            // If even this fails, `clean_temporaries` will do it later.
            let _ = fs::rename(&outgoing, path);
        }
        Error::io(path, e)
    })?;
    // The new name is on the disk before the old contents go.
    sync_folder(parent(path))?;
    remove(&outgoing)
}

/// Finishes a replacement of `path` that was cut short, if one was.
///
/// # Errors
/// [`Error::Io`] naming what could not be renamed or removed.
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

/// What is at `outgoing`, if anything, goes back to `path`, or away if `path` has been replaced.
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

/// Held by who moves the folder at `path` aside and another in: the state between is then nobody else's to mend.
fn moving(path: &Path) -> Result<Lock> {
    Lock::wait(lock_name(parent(path), file_name(path)?), || Ok(()))
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

/// Where the folder `path` is on its way out.
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
}
