//! Where documents come from: files and folders of Python, plain text and JSON lines.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::files::hex;
use crate::{Error, Result};

/// Folders that hold other people's code or machine-made files, and are passed over while walking.
pub const SKIPPED_FOLDERS: [&str; 3] = ["site-packages", "__pycache__", "node_modules"];

/// A mix of files and folders to read documents from, in the order given.
///
/// `.py` and `.txt` files are one document each; each line of a `.jsonl` file is one, in its string field `text`. Folders are walked
/// recursively in the order of their entries' names. In folders, hidden entries (`.name`), [`SKIPPED_FOLDERS`] and files with
/// other extensions are passed over; a folder that several symbolic links lead to is read once. Documents that are not UTF-8
/// are skipped and counted, empty ones too.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Files and folders.
    pub paths: Vec<PathBuf>,
}

impl Source {
    /// A source of these files and folders.
    pub fn new<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        Self { paths: paths.into_iter().map(Into::into).collect() }
    }

    /// Every file that documents are read from, in order.
    ///
    /// # Errors
    /// [`Error::Io`] for a path that does not exist or cannot be read, [`Error::File`] for a named file of an unknown kind.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let (mut files, mut visited) = (Vec::new(), HashSet::new());
        for path in &self.paths {
            let metadata = std::fs::metadata(path).map_err(|source| Error::io(path, source))?;
            if metadata.is_dir() {
                walk(path, &mut visited, &mut files)?;
            } else if Kind::of(path).is_none() {
                return Err(Error::file(path, "is neither a folder nor a .py, .txt or .jsonl file"));
            } else if !metadata.is_file() {
                return Err(Error::file(path, "is not a regular file"));
            } else {
                files.push(path.clone());
            }
        }
        Ok(files)
    }

    /// The documents, read one by one.
    pub fn documents(&self) -> Result<Documents> {
        Ok(Documents::of(self.files()?))
    }

    /// Documents of about `max_bytes` together, spread evenly over the source, always the same ones: enough to train a tokenizer on.
    /// Never more than `max_bytes`; the last document is cut short if it must be.
    pub fn sample(&self, max_bytes: u64) -> Result<Vec<String>> {
        let files = self.files()?;
        let mut total = 0;
        for path in &files {
            total += std::fs::metadata(path).map_err(|source| Error::io(path, source))?.len();
        }
        let (mut seen, mut kept, mut sample) = (0u64, 0u64, Vec::new());
        for document in Documents::of(files) {
            let mut document = document?;
            let wanted = u128::from(kept) * u128::from(total) <= u128::from(seen) * u128::from(max_bytes);
            seen += document.len() as u64;
            if total > max_bytes && !wanted {
                continue;
            }
            let left = usize::try_from(max_bytes - kept).unwrap_or(usize::MAX);
            let whole = document.len() <= left;
            let end = (0..=left.min(document.len())).rev().find(|&end| document.is_char_boundary(end));
            document.truncate(end.unwrap_or(0));
            kept += document.len() as u64;
            if !document.is_empty() {
                sample.push(document);
            }
            if !whole {
                break;
            }
        }
        Ok(sample)
    }
}

fn walk(folder: &Path, visited: &mut HashSet<PathBuf>, files: &mut Vec<PathBuf>) -> Result<()> {
    let real = folder.canonicalize().map_err(|source| Error::io(folder, source))?;
    if !visited.insert(real) {
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|source| Error::io(folder, source))? {
        entries.push(entry.map_err(|source| Error::io(folder, source))?.path());
    }
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        // A link to nowhere is no document.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_dir() && !SKIPPED_FOLDERS.contains(&name.as_ref()) {
            walk(&path, visited, files)?;
        } else if metadata.is_file() && Kind::of(&path).is_some() {
            files.push(path);
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Whole,
    JsonLines,
}

impl Kind {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "py" | "txt" => Some(Self::Whole),
            "jsonl" => Some(Self::JsonLines),
            _ => None,
        }
    }
}

/// SHA-256 over files' kinds and contents in order; names and places do not count.
#[derive(Default)]
struct Fingerprint {
    digest: Sha256,
    length: u64,
}

impl Fingerprint {
    fn feed(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
    }

    fn end_file(&mut self, kind: Kind) {
        // Behind the contents, so that a file's length need not be known beforehand.
        self.digest.update(self.length.to_le_bytes());
        self.digest.update([kind as u8]);
        self.length = 0;
    }
}

/// The fingerprint that [`Documents::fingerprint`] has after reading all of `files`.
pub(crate) fn fingerprint(files: &[PathBuf]) -> Result<String> {
    let mut fingerprint = Fingerprint::default();
    let mut buffer = vec![0; 1 << 16];
    for path in files {
        let mut file = File::open(path).map_err(|source| Error::io(path, source))?;
        loop {
            let read = file.read(&mut buffer).map_err(|source| Error::io(path, source))?;
            if read == 0 {
                break;
            }
            fingerprint.feed(&buffer[..read]);
        }
        fingerprint.end_file(Kind::of(path).unwrap_or(Kind::Whole));
    }
    Ok(hex(&fingerprint.digest.finalize()))
}

/// Reads documents one by one; holds one document (of a `.jsonl` file: one line) at a time.
pub struct Documents {
    files: std::vec::IntoIter<PathBuf>,
    lines: Option<Lines>,
    not_utf8: u64,
    empty: u64,
    fingerprint: Fingerprint,
}

struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    number: u64,
}

impl Documents {
    pub(crate) fn of(files: Vec<PathBuf>) -> Self {
        let fingerprint = Fingerprint::default();
        Self { files: files.into_iter(), lines: None, not_utf8: 0, empty: 0, fingerprint }
    }

    /// How many documents so far were skipped because they are not UTF-8.
    pub fn not_utf8(&self) -> u64 {
        self.not_utf8
    }

    /// How many documents so far were skipped because there is nothing in them.
    pub fn empty(&self) -> u64 {
        self.empty
    }

    /// Of everything read so far, in hexadecimal.
    pub(crate) fn fingerprint(&self) -> String {
        hex(&self.fingerprint.digest.clone().finalize())
    }

    /// The next document; `None` when this piece of input holds none; `Err(None)` at the end of everything.
    fn step(&mut self) -> Result<Option<String>, Option<Error>> {
        if let Some(lines) = &mut self.lines {
            let mut line = Vec::new();
            let read = lines.reader.read_until(b'\n', &mut line);
            read.map_err(|source| Error::io(&lines.path, source))?;
            lines.number += 1;
            self.fingerprint.feed(&line);
            if line.is_empty() {
                self.fingerprint.end_file(Kind::JsonLines);
                self.lines = None;
                return Ok(None);
            }
            let Some(text) = Self::utf8(line, &mut self.not_utf8) else { return Ok(None) };
            if text.trim().is_empty() {
                return Ok(None);
            }
            return parse(&text).map(Some).map_err(|what| {
                let message = format!("line {} {what}", lines.number);
                Some(Error::file(&lines.path, message))
            });
        }
        let path = self.files.next().ok_or(None)?;
        if Kind::of(&path) == Some(Kind::JsonLines) {
            let file = File::open(&path).map_err(|source| Error::io(&path, source))?;
            self.lines = Some(Lines { path, reader: BufReader::new(file), number: 0 });
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(|source| Error::io(&path, source))?;
        self.fingerprint.feed(&bytes);
        self.fingerprint.end_file(Kind::Whole);
        Ok(Self::utf8(bytes, &mut self.not_utf8))
    }

    fn utf8(bytes: Vec<u8>, not_utf8: &mut u64) -> Option<String> {
        let text = String::from_utf8(bytes).ok();
        *not_utf8 += u64::from(text.is_none());
        text
    }
}

impl Iterator for Documents {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step() {
                Ok(Some(document)) if document.is_empty() => self.empty += 1,
                Ok(Some(document)) => return Some(Ok(document)),
                Ok(None) => {}
                Err(error) => return error.map(Err),
            }
        }
    }
}

/// The field `text` of one line, or what is wrong with it.
fn parse(line: &str) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Line {
        text: String,
    }
    // The derived reader would take an array of one string as well.
    if !line.trim_start().starts_with('{') {
        return Err("is not a JSON object".into());
    }
    match serde_json::from_str::<Line>(line) {
        Ok(Line { text }) => Ok(text),
        Err(error) if error.is_data() => Err("has no string field `text`".into()),
        Err(error) => Err(format!("is not valid JSON (column {})", error.column())),
    }
}
