//! Documents in files and folders of Python, text, JSON lines and tables, compressed or not, and in
//! data sets of the Hugging Face Hub. `kind.rs` is the table of what files may be.

mod bytes;
mod csv;
mod documents;
mod fingerprint;
mod json;
mod kind;
mod parquet;
mod stdin;
mod table;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::RawBytes;
pub use documents::{Documents, SkippedDocuments};
use kind::{EXPECTED, FileKind};
use stdin::KeptStdin;
pub(crate) use stdin::{is_stdin, keep_stdin};
use walk::{Visited, walk};

pub(crate) use crate::hub::DATASET_PREFIX;
use crate::hub::{Hub, HubDataset};
use crate::observer::{Observer, Stage};
use crate::{Error, Result};

/// The field that has the text, unless another is named.
pub const DEFAULT_FIELD: &str = "text";

/// Files, folders and data sets to read documents from, in the order given.
///
/// A `.py` file is one document. A `.txt` file is one document, or several with
/// [`END_OF_TEXT`](super::tokenizer::END_OF_TEXT) between them; so is the string in a field of each
/// line of a `.jsonl` file, of each row of a `.csv`, `.tsv` or `.parquet` file. The line end after
/// an `END_OF_TEXT` belongs to it, and so does white space after the last one. All but Parquet may
/// be compressed: `.txt.gz`, `.jsonl.zst`, `.csv.xz` and so on. Folders are read recursively, sorted
/// by name, without hidden entries (`.name`), `SKIPPED_FOLDERS`, tables that lack the column, and
/// files with other extensions; a folder that several symbolic links lead to is read once. A byte
/// order mark is no part of a text. Documents that cannot be used are skipped and counted (see
/// [`SkippedDocuments`]).
///
/// `-` is the standard input, as a `.txt` file; `-.jsonl`, `-.csv.gz` and so on say what else it is.
/// `hub:OWNER/NAME`, with `@REVISION` and `:CONFIGURATION/SPLIT` after it if wanted, is a data set
/// of the Hub (see [`HubDataset`]).
#[derive(Debug, Clone)]
pub struct Source {
    /// Files, folders and data sets.
    pub paths: Vec<PathBuf>,
    /// The field or column that has the text.
    pub text_field: String,
    /// The Hub, for data sets.
    pub hub: Hub,
    /// What came from the standard input.
    stdin: Arc<Mutex<Option<KeptStdin>>>,
}

impl Default for Source {
    fn default() -> Self {
        Self::new::<PathBuf>([])
    }
}

/// A file of documents.
#[derive(Debug, Clone)]
pub(crate) enum SourceFile {
    /// A file on this machine.
    Local(PathBuf),
    /// A file of a data set, which may have to be downloaded: the data set and the file's number.
    Remote(Arc<HubDataset>, usize),
}

impl SourceFile {
    /// The file, downloaded if necessary.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        match self {
            Self::Local(path) => Ok(path.clone()),
            Self::Remote(dataset, number) => dataset.fetch(*number),
        }
    }
}

impl Source {
    /// Reads these files, folders and data sets, texts from the field `text`.
    pub fn new<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        let paths = paths.into_iter().map(Into::into).collect();
        Self { paths, text_field: DEFAULT_FIELD.into(), hub: Hub::default(), stdin: Arc::default() }
    }

    /// The same source with texts from another field.
    #[must_use]
    pub fn with_field(self, field: impl Into<String>) -> Self {
        Self { text_field: field.into(), ..self }
    }

    /// The same source, which does not use the network if `offline`.
    #[must_use]
    pub fn offline(mut self, offline: bool) -> Self {
        self.hub.offline |= offline;
        self
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// What decides its contents, as far as names do.
    pub(crate) fn key(&self) -> serde_json::Value {
        match self.text_field == DEFAULT_FIELD {
            true => serde_json::json!(self.paths),
            false => serde_json::json!({ "paths": self.paths, "text_field": self.text_field }),
        }
    }

    /// The names of what it reads, with commas.
    pub fn names(&self) -> String {
        self.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    }

    /// Every file that documents are read from, in order.
    pub(crate) fn files(&self) -> Result<Vec<SourceFile>> {
        let (mut files, mut visited) = (Vec::new(), Visited::default());
        for path in &self.paths {
            if let Some(name) = path.to_str().and_then(|text| text.strip_prefix(DATASET_PREFIX)) {
                let dataset = Arc::new(HubDataset::open(&self.hub, name)?);
                files.extend((0..dataset.len()).map(|number| SourceFile::Remote(dataset.clone(), number)));
                continue;
            }
            if is_stdin(path) {
                files.push(SourceFile::Local(self.kept_stdin(path)?));
                continue;
            }
            let metadata = std::fs::metadata(path).map_err(|source| Error::io(path, source))?;
            if metadata.is_dir() {
                let mut found = Vec::new();
                walk(path, &self.text_field, &mut visited, &mut found)?;
                files.extend(found.into_iter().map(SourceFile::Local));
            } else if FileKind::of(path).is_none() {
                return Err(Error::file(path, format!("is no folder, and none of {EXPECTED}")));
            } else if !metadata.is_file() {
                return Err(Error::file(path, "is not a regular file"));
            } else {
                files.push(SourceFile::Local(path.clone()));
            }
        }
        Ok(files)
    }

    /// The file with what came from the standard input.
    fn kept_stdin(&self, name: &Path) -> Result<PathBuf> {
        let mut stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        match &*stdin {
            Some(kept) => Ok(kept.path()),
            None => Ok(stdin.insert(KeptStdin::read(name)?).path()),
        }
    }

    /// The documents, read one by one.
    ///
    /// # Errors
    /// Returns [`Error::Io`] and [`Error::File`] for a path that cannot be read or holds no
    /// documents, and [`Error::Hub`] for a data set that cannot be fetched.
    pub fn documents(&self) -> Result<Documents<'static>> {
        self.watched(Observer::default())
    }

    /// As [`Source::documents`], stopped by `observer`.
    pub(crate) fn watched<'a>(&self, observer: Observer<'a>) -> Result<Documents<'a>> {
        Ok(Documents::of(self.files()?, &self.text_field, observer))
    }

    /// Documents of at most `max_bytes` together, spread evenly over the source, always the same
    /// ones: enough to train a tokenizer. The last document may be truncated.
    ///
    /// # Errors
    /// Returns the errors of [`Source::documents`] and of reading, [`Error::Data`] if there are no
    /// documents, and [`Error::Stopped`].
    pub fn sample(&self, max_bytes: u64, observer: &Observer) -> Result<Vec<String>> {
        let files = self.files()?;
        let mut total = 0;
        for file in &files {
            let path = file.path()?;
            total += std::fs::metadata(&path).map_err(|source| Error::io(path, source))?.len();
        }
        let (mut seen, mut kept, mut sample) = (0u64, 0u64, Vec::new());
        let mut documents = Documents::of(files, &self.text_field, *observer);
        while let Some(document) = documents.next() {
            let mut document = document?;
            let (done, unit) = (documents.read(), "bytes");
            observer.advance(&Stage { name: "sampling text", done, total: Some(total), unit })?;
            let chosen = u128::from(kept) * u128::from(total) <= u128::from(seen) * u128::from(max_bytes);
            // What is compressed gives more text than it has bytes.
            seen = if documents.is_plain() { seen + document.len() as u64 } else { done };
            if total > max_bytes && !chosen {
                continue;
            }
            let whole = truncate(&mut document, max_bytes - kept);
            kept += document.len() as u64;
            if !document.is_empty() {
                sample.push(document);
            }
            if !whole {
                break;
            }
        }
        self.some(sample, &documents.skipped())
    }

    /// The first documents, of at most `max_bytes` together. The last one may be truncated. What
    /// comes after them is neither read nor downloaded.
    ///
    /// # Errors
    /// Those of [`Source::sample`].
    pub fn head(&self, max_bytes: u64, observer: &Observer) -> Result<Vec<String>> {
        let (mut kept, mut head) = (0, Vec::new());
        let mut documents = self.watched(*observer)?;
        while let Some(document) = if kept < max_bytes { documents.next() } else { None } {
            let mut document = document?;
            truncate(&mut document, max_bytes - kept);
            kept += document.len() as u64;
            head.push(document);
            let (name, total, unit) = ("sampling text", Some(max_bytes), "bytes");
            observer.advance(&Stage { name, done: kept, total, unit })?;
        }
        self.some(head, &documents.skipped())
    }

    /// The documents, unless there are none.
    fn some(&self, documents: Vec<String>, skipped: &SkippedDocuments) -> Result<Vec<String>> {
        match documents.is_empty() {
            true => Err(Error::Data(self.no_documents(skipped))),
            false => Ok(documents),
        }
    }

    /// The error message if there are no documents.
    pub(crate) fn no_documents(&self, skipped: &SkippedDocuments) -> String {
        let listed = skipped.listed();
        let reasons = if listed.is_empty() { listed } else { format!("; {listed}") };
        let field = &self.text_field;
        let fields =
            if skipped.no_text > 0 { format!(" `{field}` (--text-field names another)") } else { String::new() };
        format!("no documents in {}: expected {EXPECTED} with UTF-8 text{reasons}{fields}", self.names())
    }
}

/// Truncates a text to `most` bytes or a little less, not within a character. Returns whether all of
/// it remains.
fn truncate(text: &mut String, most: u64) -> bool {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let whole = text.len() <= most;
    let end = (0..=most.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    text.truncate(end.unwrap_or(0));
    text.shrink_to_fit();
    whole
}

/// The fingerprint that [`Documents::fingerprint`] has after reading all of `files`.
pub(crate) fn fingerprint(files: &[SourceFile], field: &str, observer: &Observer) -> Result<String> {
    let raw = RawBytes::default();
    let mut buffer = vec![0; 1 << 16];
    for file in files {
        let path = file.path()?;
        let failed = |source| Error::io(&path, source);
        let mut opened = std::fs::File::open(&path).map_err(failed)?;
        loop {
            let read = std::io::Read::read(&mut opened, &mut buffer).map_err(failed)?;
            if read == 0 {
                break;
            }
            raw.feed(&buffer[..read]);
            raw.advance(read as u64);
            let (name, done, unit) = ("looking for changes in the text", raw.read(), "bytes");
            observer.advance(&Stage { name, done, total: None, unit })?;
        }
        if let Some(kind) = FileKind::of(&path) {
            raw.end_file(kind, field);
        }
    }
    Ok(raw.fingerprint())
}

/// The error about a table without the column that was to be read.
fn no_column(path: &Path, field: &str, names: &[String]) -> Error {
    const SHOWN: usize = 20;
    let mut known = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        known += ", …";
    }
    let name = format!("{field} in {}", path.display());
    Error::Unknown { kind: "column", name, known: known + " (--text-field COLUMN names it)" }
}
