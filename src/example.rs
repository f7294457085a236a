//! The example that comes with every program: a sparse model trained next to a dense one, the
//! bridges between them, and circuits of several tasks. `scripts/example` makes it.

use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::device::cache_folder;
use crate::files::{create_folder, replace_dir_atomic, write_atomic};
use crate::{Error, Result};

/// Its files.
static PACKED: &[u8] = include_bytes!("../examples/example.zip");

/// Where `gossamer example` puts it.
pub const FOLDER: &str = "runs/example";

/// The circuit that is shown first, in the example's folder.
pub const CIRCUIT: &str = "circuits/while_return_true.json";

/// Writes the example into a folder that is new or empty.
///
/// # Errors
/// [`Error::Request`] if the folder has something in it, [`Error::Io`] where a file cannot be
/// written.
pub fn unpack(folder: &Path) -> Result<()> {
    if fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::Request(format!("{} is not empty: name another folder with --out", folder.display())));
    }
    if let Some(parent) = folder.parent() {
        create_folder(parent)?;
    }
    replace_dir_atomic(folder, |folder| write_files(PACKED, folder))
}

/// The example in the user's cache, or in the system's folder for temporary files; unpacked if it
/// is not there yet.
///
/// # Errors
/// Those of [`unpack`].
pub fn cached() -> Result<PathBuf> {
    let hash: String = Sha256::digest(PACKED).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let folder = cache_folder().unwrap_or_else(std::env::temp_dir).join(format!("gossamer-example-{hash}"));
    if !folder.is_dir() {
        unpack(&folder)?;
    }
    Ok(folder)
}

/// Writes the files of an archive into an existing folder.
fn write_files(archive: &[u8], folder: &Path) -> Result<()> {
    let damaged = |e: &dyn std::fmt::Display| Error::Data(format!("the built-in example is damaged: {e}"));
    let mut archive = ZipArchive::new(Cursor::new(archive)).map_err(|e| damaged(&e))?;
    for at in 0..archive.len() {
        let mut file = archive.by_index(at).map_err(|e| damaged(&e))?;
        let name = file.enclosed_name().ok_or_else(|| damaged(&"a name leads out of its folder"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| damaged(&e))?;
        let path = folder.join(name);
        if let Some(parent) = path.parent() {
            create_folder(parent)?;
        }
        write_atomic(&path, |out| out.write_all(&bytes).map_err(|e| Error::io(&path, e)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive(name: &str) -> Vec<u8> {
        let mut out = ZipWriter::new(Cursor::new(Vec::new()));
        out.start_file(name, SimpleFileOptions::default()).unwrap();
        out.write_all(b"text").unwrap();
        out.finish().unwrap().into_inner()
    }

    #[test]
    fn files_go_into_folders_and_not_out_of_them() {
        let folder = tempfile::tempdir().unwrap();
        write_files(&archive("a/b.txt"), folder.path()).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("a/b.txt")).unwrap(), "text");
        let error = write_files(&archive("../c.txt"), &folder.path().join("a")).unwrap_err();
        assert!(error.to_string().contains("leads out"), "{error}");
        assert!(!folder.path().join("c.txt").exists());
    }

    #[test]
    fn a_damaged_archive_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_files(&archive("a")[..20], folder.path()).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }

    #[test]
    fn a_folder_with_something_in_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine"), "").unwrap();
        assert!(matches!(unpack(folder.path()), Err(Error::Request(_))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
