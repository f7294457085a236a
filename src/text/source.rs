//! Documents in files and folders of Python, plain text and JSON lines.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::tokenizer::END_OF_TEXT;
use crate::files::{hex, without_mark};
use crate::observer::{Observer, Stage};
use crate::{Error, Result};

/// Folders of other people's code or generated files, which are skipped.
pub(crate) const SKIPPED_FOLDERS: [&str; 3] = ["site-packages", "__pycache__", "node_modules"];

/// Files and folders to read documents from, in the order given.
///
/// A `.py` file is one document. A `.txt` file is one document, or several with [`END_OF_TEXT`]
/// between them; so is the string field `text` of each line of a `.jsonl` file. The line end after
/// an [`END_OF_TEXT`] belongs to it, and so does white space after the last one. Folders are read
/// recursively, sorted by name, without hidden entries (`.name`), `SKIPPED_FOLDERS` and files
/// with other extensions; a folder that several symbolic links lead to is read once. A byte order
/// mark is no part of a text. Documents that cannot be used are skipped and counted (see
/// [`SkippedDocuments`]).
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Files and folders.
    pub paths: Vec<PathBuf>,
}

impl Source {
    /// Reads these files and folders.
    pub fn new<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        Self { paths: paths.into_iter().map(Into::into).collect() }
    }

    /// Every file that documents are read from, in order.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>> {
        let (mut files, mut visited) = (Vec::new(), Visited::default());
        for path in &self.paths {
            let metadata = std::fs::metadata(path).map_err(|source| Error::io(path, source))?;
            if metadata.is_dir() {
                walk(path, &mut visited, &mut files)?;
            } else if FileKind::of(path).is_none() {
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
    ///
    /// # Errors
    /// Returns the errors of `Source::files`.
    pub fn documents(&self) -> Result<Documents<'static>> {
        Ok(Documents::of(self.files()?, Observer::default()))
    }

    /// Documents of at most `max_bytes` together, spread evenly over the source, always the same
    /// ones: enough to train a tokenizer. The last document may be truncated.
    ///
    /// # Errors
    /// Returns the errors of `Source::files` and of reading, [`Error::Data`] if there are no
    /// documents, and [`Error::Stopped`].
    pub fn sample(&self, max_bytes: u64, observer: &Observer) -> Result<Vec<String>> {
        let files = self.files()?;
        let mut total = 0;
        for path in &files {
            total += std::fs::metadata(path).map_err(|source| Error::io(path, source))?.len();
        }
        let (mut seen, mut kept, mut sample) = (0u64, 0u64, Vec::new());
        let mut documents = Documents::of(files, *observer);
        while let Some(document) = documents.next() {
            let mut document = document?;
            let (done, unit) = (documents.read, "bytes");
            observer.advance(&Stage { name: "sampling text", done, total: Some(total), unit })?;
            let chosen = u128::from(kept) * u128::from(total) <= u128::from(seen) * u128::from(max_bytes);
            seen += document.len() as u64;
            if total > max_bytes && !chosen {
                continue;
            }
            let remaining = usize::try_from(max_bytes - kept).unwrap_or(usize::MAX);
            let whole = document.len() <= remaining;
            let end = (0..=remaining.min(document.len())).rev().find(|&end| document.is_char_boundary(end));
            document.truncate(end.unwrap_or(0));
            document.shrink_to_fit();
            kept += document.len() as u64;
            if !document.is_empty() {
                sample.push(document);
            }
            if !whole {
                break;
            }
        }
        if sample.is_empty() {
            return Err(Error::Data(self.no_documents(&documents.skipped)));
        }
        Ok(sample)
    }

    /// The error message if there are no documents.
    pub(crate) fn no_documents(&self, skipped: &SkippedDocuments) -> String {
        let paths: Vec<_> = self.paths.iter().map(|path| path.display().to_string()).collect();
        let listed = skipped.listed();
        let reasons = if listed.is_empty() { listed } else { format!("; {listed}") };
        format!("no documents in {}: expected .py, .txt or .jsonl files with UTF-8 text{reasons}", paths.join(", "))
    }
}

/// Appends the files below `top`, sorted by name. Not recursive, since folders can be deep.
fn walk(top: &Path, visited: &mut Visited, files: &mut Vec<PathBuf>) -> Result<()> {
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
        } else if metadata.is_file() && FileKind::of(&path).is_some() {
            files.push(path);
        }
    }
    Ok(())
}

/// The folders that were read.
type Visited = HashSet<Identity>;

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

/// The kind of a file. The numbers are hashed with its contents, and change when the same contents
/// are to give other documents.
#[derive(Clone, Copy, PartialEq)]
enum FileKind {
    Python = 2,
    Text = 3,
    JsonLines = 4,
}

impl FileKind {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "py" => Some(Self::Python),
            "txt" => Some(Self::Text),
            "jsonl" => Some(Self::JsonLines),
            _ => None,
        }
    }

    /// The separator of parts of such a file. A Python file is one part.
    fn delimiter(self) -> &'static [u8] {
        match self {
            Self::Python => b"",
            Self::Text => END_OF_TEXT.as_bytes(),
            Self::JsonLines => b"\n",
        }
    }
}

/// SHA-256 over the kinds and contents of files, in order, without their names.
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

    fn end_file(&mut self, kind: FileKind) {
        // After the contents, so that a file's length need not be known before.
        self.digest.update(self.length.to_le_bytes());
        self.digest.update([kind as u8]);
        self.length = 0;
    }
}

/// The fingerprint that [`Documents::fingerprint`] has after reading all of `files`.
pub(crate) fn fingerprint(files: &[PathBuf], observer: &Observer) -> Result<String> {
    let mut fingerprint = Fingerprint::default();
    let mut buffer = vec![0; 1 << 16];
    let mut done = 0;
    for path in files {
        let mut file = File::open(path).map_err(|source| Error::io(path, source))?;
        loop {
            let read = file.read(&mut buffer).map_err(|source| Error::io(path, source))?;
            if read == 0 {
                break;
            }
            fingerprint.feed(&buffer[..read]);
            done += read as u64;
            observer.advance(&Stage { name: "looking for changes in the text", done, total: None, unit: "bytes" })?;
        }
        fingerprint.end_file(FileKind::of(path).unwrap_or(FileKind::Python));
    }
    Ok(hex(&fingerprint.digest.finalize()))
}

/// Numbers of skipped documents by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SkippedDocuments {
    /// Documents, or lines of `.jsonl` files, that are not UTF-8.
    pub not_utf8: u64,
    /// Documents without text.
    pub empty: u64,
    /// Lines of `.jsonl` files that are not JSON objects.
    pub not_json: u64,
    /// Lines without a string `text`.
    pub no_text: u64,
    /// Lines with half of a surrogate pair (`\ud800`), which is no character.
    pub surrogates: u64,
}

impl SkippedDocuments {
    /// All numbers with their reasons, such as `2 skipped that are not UTF-8`; empty if nothing was
    /// skipped.
    pub fn listed(&self) -> String {
        let Self { not_utf8, empty, not_json, no_text, surrogates } = *self;
        let all = [
            (not_utf8, "are not UTF-8"),
            (empty, "are empty"),
            (not_json, "are not JSON objects"),
            (no_text, "have no string `text`"),
            (surrogates, "have half of a surrogate pair"),
        ];
        let nonzero = all.into_iter().filter(|&(count, _)| count > 0);
        nonzero.map(|(count, reason)| format!("{count} skipped that {reason}")).collect::<Vec<_>>().join(", ")
    }
}

/// Reads documents one by one; holds one document (of a `.jsonl` file: one line) at a time.
pub struct Documents<'a> {
    files: std::vec::IntoIter<PathBuf>,
    open: Option<OpenFile>,
    /// The text of a line with several documents, and the start of the next one.
    line: Option<(String, usize)>,
    skipped: SkippedDocuments,
    separators: u64,
    /// Bytes read.
    read: u64,
    fingerprint: Fingerprint,
    observer: Observer<'a>,
}

struct OpenFile {
    path: PathBuf,
    kind: FileKind,
    reader: BufReader<File>,
    /// Whether nothing of it has been read.
    fresh: bool,
    /// Whether the previous part ended with a separator.
    divided: bool,
}

/// A part of a file between separators.
struct Part {
    bytes: Vec<u8>,
    kind: FileKind,
    /// Whether there is a separator before it.
    follows: bool,
    /// Whether there is one after it.
    ends: bool,
}

impl<'a> Documents<'a> {
    pub(crate) fn of(files: Vec<PathBuf>, observer: Observer<'a>) -> Self {
        let (skipped, fingerprint) = (SkippedDocuments::default(), Fingerprint::default());
        Self {
            files: files.into_iter(),
            open: None,
            line: None,
            skipped,
            separators: 0,
            read: 0,
            fingerprint,
            observer,
        }
    }

    /// The documents skipped so far.
    pub fn skipped(&self) -> SkippedDocuments {
        self.skipped
    }

    /// The number of [`END_OF_TEXT`] so far that separated documents.
    pub fn separators(&self) -> u64 {
        self.separators
    }

    /// The fingerprint of everything read so far, in hexadecimal.
    pub(crate) fn fingerprint(&self) -> String {
        hex(&self.fingerprint.digest.clone().finalize())
    }

    /// The next document; `None` if this piece of input has none; `Err(None)` at the end.
    fn step(&mut self) -> Result<Option<String>, Option<Error>> {
        if let Some((text, start)) = self.line.take() {
            return Ok(self.document_in(text, start));
        }
        if self.open.is_none() {
            let path = self.files.next().ok_or(None)?;
            let kind = FileKind::of(&path).unwrap_or(FileKind::Python);
            let file = File::open(&path).map_err(|source| Error::io(&path, source))?;
            let reader = BufReader::with_capacity(1 << 16, file);
            self.open = Some(OpenFile { path, kind, reader, fresh: true, divided: false });
        }
        let Some(part) = self.part()? else { return Ok(None) };
        Ok(self.document(part))
    }

    /// The next part of the open file; `None` after the last.
    fn part(&mut self) -> Result<Option<Part>> {
        /// Bytes read between two checks of the observer.
        const STEP: u64 = 1 << 22;
        let Some(open) = &mut self.open else { return Ok(None) };
        let (kind, delimiter) = (open.kind, open.kind.delimiter());
        // The last byte of a delimiter may be frequent: each step must be cheap.
        let (mut bytes, mut seen) = (Vec::new(), 0);
        let ends = loop {
            if bytes.len() - seen >= STEP as usize {
                self.observer.check()?;
                self.fingerprint.feed(&bytes[seen..]);
                seen = bytes.len();
            }
            let mut reader = open.reader.by_ref().take(STEP);
            let read = match delimiter.last() {
                Some(&last) => reader.read_until(last, &mut bytes),
                None => reader.read_to_end(&mut bytes),
            };
            let read = read.map_err(|source| Error::io(&open.path, source))?;
            self.read += read as u64;
            if !delimiter.is_empty() && bytes.ends_with(delimiter) {
                break true;
            }
            if read == 0 {
                break false;
            }
        };
        self.observer.check()?;
        self.fingerprint.feed(&bytes[seen..]);
        let first = std::mem::replace(&mut open.fresh, false);
        let follows = std::mem::replace(&mut open.divided, ends);
        if !ends {
            self.fingerprint.end_file(kind);
            self.open = None;
        }
        // An empty file is an empty document, an empty part after the last separator none.
        if bytes.is_empty() && !ends && !(first && kind != FileKind::JsonLines) {
            return Ok(None);
        }
        if ends {
            bytes.truncate(bytes.len() - delimiter.len());
        }
        if first {
            bytes.drain(..bytes.len() - without_mark(&bytes).len());
        }
        Ok(Some(Part { bytes, kind, follows, ends }))
    }

    fn document(&mut self, part: Part) -> Option<String> {
        let Part { mut bytes, kind, follows, ends } = part;
        if kind == FileKind::JsonLines {
            return self.json_line(bytes);
        }
        self.separators += u64::from(ends);
        if follows {
            // The line end after the separator belongs to it.
            let end = [&b"\r\n"[..], b"\n"].into_iter().find(|end| bytes.starts_with(end)).map_or(0, <[u8]>::len);
            bytes.drain(..end);
            if !ends && bytes.trim_ascii().is_empty() {
                return None;
            }
        }
        let text = self.utf8(bytes)?;
        self.kept(text, follows || ends)
    }

    fn json_line(&mut self, line: Vec<u8>) -> Option<String> {
        let line = self.utf8(line)?;
        if line.trim().is_empty() {
            return None;
        }
        match parse(&line) {
            Ok(text) => {
                drop(line);
                self.document_in(text, 0)
            }
            Err(problem) => {
                *match problem {
                    Problem::NotJson => &mut self.skipped.not_json,
                    Problem::NoText => &mut self.skipped.no_text,
                    Problem::Surrogate => &mut self.skipped.surrogates,
                } += 1;
                None
            }
        }
    }

    /// The document at `start` of a line's text; keeps the following ones for later.
    fn document_in(&mut self, text: String, start: usize) -> Option<String> {
        let Some(length) = text[start..].find(END_OF_TEXT) else {
            return match start {
                0 => self.kept(text, false),
                _ if text[start..].trim().is_empty() => None,
                _ => Some(text[start..].to_owned()),
            };
        };
        self.separators += 1;
        let document = text[start..start + length].to_owned();
        let next = start + length + END_OF_TEXT.len();
        let end = ["\r\n", "\n"].into_iter().find(|end| text[next..].starts_with(end)).map_or(0, str::len);
        self.line = Some((text, next + end));
        self.kept(document, true)
    }

    /// A document, unless it has no text; between separators, white space is no text.
    fn kept(&mut self, text: String, divided: bool) -> Option<String> {
        let empty = text.is_empty() || divided && text.trim().is_empty();
        self.skipped.empty += u64::from(empty);
        (!empty).then_some(text)
    }

    fn utf8(&mut self, bytes: Vec<u8>) -> Option<String> {
        let text = String::from_utf8(bytes).ok();
        self.skipped.not_utf8 += u64::from(text.is_none());
        text
    }
}

impl Iterator for Documents<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step() {
                Ok(Some(document)) => return Some(Ok(document)),
                Ok(None) => {}
                Err(error) => return error.map(Err),
            }
        }
    }
}

/// The reason why a line has no text.
enum Problem {
    NotJson,
    NoText,
    Surrogate,
}

/// The field `text` of a line.
fn parse(line: &str) -> Result<String, Problem> {
    #[derive(serde::Deserialize)]
    struct JsonLine {
        text: String,
    }
    // The derived parser would accept an array of one string.
    if !line.trim_start().starts_with('{') {
        return Err(Problem::NotJson);
    }
    serde_json::from_str::<JsonLine>(line).map(|line| line.text).map_err(|error| {
        if error.is_data() {
            return Problem::NoText;
        }
        let repaired = without_lone_surrogates(line);
        let surrogate = repaired != line && serde_json::from_str::<serde::de::IgnoredAny>(&repaired).is_ok();
        if surrogate { Problem::Surrogate } else { Problem::NotJson }
    })
}

/// JSON text in which every escaped half of a surrogate pair is replaced.
fn without_lone_surrogates(json: &str) -> String {
    let escape = |at: usize| {
        let digits = json[at..].strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut repaired, mut at) = (String::with_capacity(json.len()), 0);
    while let Some(start) = json[at..].find('\\').map(|start| at + start) {
        repaired += &json[at..start];
        let (length, lone) = match (escape(start), json.get(start + 6..).and_then(|_| escape(start + 6))) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => (12, false),
            (Some(0xd800..0xe000), _) => (6, true),
            _ => (1 + json[start + 1..].chars().next().map_or(0, char::len_utf8), false),
        };
        at = start + length;
        repaired += if lone { "\\ufffd" } else { &json[start..at] };
    }
    repaired + &json[at..]
}
