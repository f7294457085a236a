//! The files below a folder.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::kind::FileKind;
use super::table;
use crate::{Error, Result};

/// Folders of other people's code or generated files, which are skipped.
pub(crate) const SKIPPED_FOLDERS: [&str; 3] = ["site-packages", "__pycache__", "node_modules"];

/// The folders that were read.
pub(super) type Visited = HashSet<Identity>;

/// Appends the files below `top`, sorted by name. Not recursive, since folders can be deep. Tables
/// without the column `field` are left out: they were not meant.
pub(super) fn walk(top: &Path, field: &str, visited: &mut Visited, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut pending = vec![top.to_path_buf()];
    while let Some(path) = pending.pop() {
        let named = path == top;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && !named {
            continue;
        }
        // Skips a link to nothing.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_dir() && (named || !SKIPPED_FOLDERS.contains(&name.as_ref())) {
            if !visited.insert(identity(&path, &metadata)?) {
                continue;
            }
            let mut entries = entries(&path)?;
            entries.sort_unstable_by(|a, b| b.cmp(a));
            pending.append(&mut entries);
        } else if metadata.is_file()
            && let Some(kind) = FileKind::of(&path)
        {
            if kind.is_table() && !table::has_column(&path, kind, field) {
                tracing::warn!(
                    "{} is left out: it has no column `{field}` (--text-field names another)",
                    path.display()
                );
                continue;
            }
            files.push(path);
        }
    }
    Ok(())
}

/// Device and inode. A canonical path would read every parent folder.
#[cfg(unix)]
type Identity = (u64, u64);
#[cfg(not(unix))]
type Identity = PathBuf;

#[cfg(unix)]
fn identity(_: &Path, metadata: &std::fs::Metadata) -> Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(folder: &Path, _: &std::fs::Metadata) -> Result<Identity> {
    folder.canonicalize().map_err(|source| Error::io(folder, source))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let all = std::fs::read_dir(folder).map_err(|source| Error::io(folder, source))?;
    all.map(|entry| entry.map(|entry| entry.path()).map_err(|source| Error::io(folder, source))).collect()
}
