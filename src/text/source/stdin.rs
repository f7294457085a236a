//! Documents from the standard input. Some things read their documents more than once, so what
//! comes in is kept in a file.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};

use super::kind::FileKind;
use crate::files::{create_folder, hex, write_atomic};
use crate::{Error, Result};

/// A file with what came in. It is removed when no source needs it any more.
#[derive(Debug)]
pub(super) struct KeptStdin {
    path: PathBuf,
}

impl Drop for KeptStdin {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl KeptStdin {
    /// Reads the standard input to its end; `name` is `-` or `-.jsonl` and the like.
    pub(super) fn read(name: &Path) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("gossamer-stdin-{}-{number}.{}", std::process::id(), extension(name)?);
        let path = std::env::temp_dir().join(name);
        let failed = |source| Error::io(&path, source);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
        let kept = Self { path: path.clone() };
        copy(&mut file).map_err(failed)?;
        Ok(kept)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

/// Whether this stands for the standard input: `-`, or `-.jsonl` and the like.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text == "-" || text.starts_with("-."))
}

/// Reads the standard input to its end, into a file in `folder` that is named by its contents, and
/// stays. A run continues with it.
pub(crate) fn keep_stdin(name: &Path, folder: &Path) -> Result<PathBuf> {
    let extension = extension(name)?;
    create_folder(folder)?;
    let incoming = folder.join(format!("stdin-{}", std::process::id()));
    let mut digest = String::new();
    write_atomic(&incoming, |out| {
        digest = copy(out).map_err(|source| Error::io(&incoming, source))?;
        Ok(())
    })?;
    let path = folder.join(format!("stdin-{}.{extension}", &digest[..16]));
    std::fs::rename(&incoming, &path).map_err(|source| Error::io(&path, source))?;
    std::path::absolute(&path).map_err(|source| Error::io(&path, source))
}

/// What the name says of the kind: a `.txt` file unless it says something else.
fn extension(name: &Path) -> Result<&str> {
    let extension = name.to_str().and_then(|text| text.strip_prefix("-.")).unwrap_or("txt");
    match FileKind::of(Path::new(&format!("stdin.{extension}"))) {
        Some(_) => Ok(extension),
        None => Err(Error::file(name, "is no kind of text: `-` is plain text, `-.jsonl` lines of JSON, and so on")),
    }
}

/// Copies the standard input, and returns its SHA-256 in hexadecimal.
fn copy(out: &mut (impl Write + ?Sized)) -> io::Result<String> {
    let (mut digest, mut buffer, mut input) = (Sha256::new(), vec![0; 1 << 16], io::stdin().lock());
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok(hex(&digest.finalize())),
            read => {
                digest.update(&buffer[..read]);
                out.write_all(&buffer[..read])?;
            }
        }
    }
}
