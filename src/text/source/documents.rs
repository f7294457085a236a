//! Documents one by one.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use super::SourceFile;
use super::bytes::{Bytes, RawBytes, failed};
use super::json::{Problem, parse};
use super::kind::{FileKind, Layout};
use super::table::Rows;
use crate::files::without_mark;
use crate::observer::Observer;
use crate::text::tokenizer::END_OF_TEXT;
use crate::{Error, Result};

/// Numbers of skipped documents by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SkippedDocuments {
    /// Documents, lines or rows that are not UTF-8.
    pub not_utf8: u64,
    /// Documents without text.
    pub empty: u64,
    /// Lines of `.jsonl` files that are not JSON objects.
    pub not_json: u64,
    /// Lines and rows without a string in the text field.
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
            (no_text, "have no string in the text field"),
            (surrogates, "have half of a surrogate pair"),
        ];
        let nonzero = all.into_iter().filter(|&(count, _)| count > 0);
        nonzero.map(|(count, reason)| format!("{count} skipped that {reason}")).collect::<Vec<_>>().join(", ")
    }
}

/// Reads documents one by one; holds one document (of a `.jsonl` file: one line) at a time.
pub struct Documents<'a> {
    files: std::vec::IntoIter<SourceFile>,
    field: String,
    open: Option<OpenFile>,
    /// Whether the last file opened has no more text than bytes.
    plain: bool,
    /// The text of a line or row with several documents, and the start of the next one.
    line: Option<(String, usize)>,
    skipped: SkippedDocuments,
    separators: u64,
    raw: RawBytes,
    observer: Observer<'a>,
}

struct OpenFile {
    path: PathBuf,
    kind: FileKind,
    content: Content,
}

enum Content {
    Parts(Parts),
    Rows(Rows),
}

/// A file that separators divide into parts.
struct Parts {
    reader: BufReader<Bytes>,
    /// Whether nothing of it has been read.
    fresh: bool,
    /// Whether the previous part ended with a separator.
    divided: bool,
}

/// A part of a file between separators.
struct Part {
    bytes: Vec<u8>,
    layout: Layout,
    /// Whether there is a separator before it.
    follows: bool,
    /// Whether there is one after it.
    ends: bool,
}

/// The separator of parts of such a file. A Python file is one part.
fn delimiter(layout: Layout) -> &'static [u8] {
    match layout {
        Layout::Text => END_OF_TEXT.as_bytes(),
        Layout::JsonLines => b"\n",
        _ => b"",
    }
}

impl OpenFile {
    fn new(path: PathBuf, field: &str, raw: &RawBytes) -> Result<Self> {
        let kind = FileKind::of(&path).ok_or_else(|| Error::file(&path, "is of no known kind"))?;
        let content = if kind.is_table() {
            Content::Rows(Rows::open(&path, kind, field, raw)?)
        } else {
            let reader = BufReader::with_capacity(1 << 16, Bytes::open(&path, kind.compression, raw)?);
            Content::Parts(Parts { reader, fresh: true, divided: false })
        };
        Ok(Self { path, kind, content })
    }
}

impl<'a> Documents<'a> {
    pub(crate) fn of(files: Vec<SourceFile>, field: &str, observer: Observer<'a>) -> Self {
        Self {
            files: files.into_iter(),
            field: field.into(),
            open: None,
            plain: true,
            line: None,
            skipped: SkippedDocuments::default(),
            separators: 0,
            raw: RawBytes::default(),
            observer,
        }
    }

    /// Bytes of files read so far.
    pub(super) fn read(&self) -> u64 {
        self.raw.read()
    }

    /// Whether the file read last has about as many bytes as its documents.
    pub(super) fn is_plain(&self) -> bool {
        self.plain
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
        self.raw.fingerprint()
    }

    /// The next document; `None` if this piece of input has none; `Err(None)` at the end.
    fn step(&mut self) -> Result<Option<String>, Option<Error>> {
        if let Some((text, start)) = self.line.take() {
            return Ok(self.document_in(text, start));
        }
        self.observer.check()?;
        if self.open.is_none() {
            let path = self.files.next().ok_or(None)?.path()?;
            let open = OpenFile::new(path, &self.field, &self.raw)?;
            self.plain = open.kind.is_plain();
            self.open = Some(open);
        }
        let Some(OpenFile { kind, content: Content::Rows(rows), .. }) = &mut self.open else {
            let Some(part) = self.part()? else { return Ok(None) };
            return Ok(self.document(part));
        };
        let kind = *kind;
        let Some(row) = rows.next()? else {
            self.raw.end_file(kind, &self.field);
            self.open = None;
            return Ok(None);
        };
        Ok(self.row(row))
    }

    /// The next part of the open file; `None` after the last.
    fn part(&mut self) -> Result<Option<Part>> {
        /// Bytes read between two checks of the observer.
        const STEP: u64 = 1 << 22;
        let Some(OpenFile { path, kind, content: Content::Parts(parts) }) = &mut self.open else { return Ok(None) };
        let (kind, delimiter) = (*kind, delimiter(kind.layout));
        // The last byte of a delimiter may be frequent: each step must be cheap.
        let (mut bytes, mut checked) = (Vec::new(), 0);
        let ends = loop {
            if bytes.len() - checked >= STEP as usize {
                self.observer.check()?;
                checked = bytes.len();
            }
            let mut reader = parts.reader.by_ref().take(STEP);
            let read = match delimiter.last() {
                Some(&last) => reader.read_until(last, &mut bytes),
                None => reader.read_to_end(&mut bytes),
            };
            if read.map_err(|error| failed(path, kind, error))? == 0 {
                break false;
            }
            if !delimiter.is_empty() && bytes.ends_with(delimiter) {
                break true;
            }
        };
        self.observer.check()?;
        parts.reader.get_mut().renew();
        let first = std::mem::replace(&mut parts.fresh, false);
        let follows = std::mem::replace(&mut parts.divided, ends);
        if !ends {
            parts.reader.get_mut().finish().map_err(|error| failed(path, kind, error))?;
            self.raw.end_file(kind, &self.field);
            self.open = None;
        }
        // An empty file is an empty document, an empty part after the last separator none.
        if bytes.is_empty() && !ends && !(first && kind.layout != Layout::JsonLines) {
            return Ok(None);
        }
        if ends {
            bytes.truncate(bytes.len() - delimiter.len());
        }
        if first {
            bytes.drain(..bytes.len() - without_mark(&bytes).len());
        }
        Ok(Some(Part { bytes, layout: kind.layout, follows, ends }))
    }

    fn document(&mut self, part: Part) -> Option<String> {
        let Part { mut bytes, layout, follows, ends } = part;
        if layout == Layout::JsonLines {
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

    /// The first document of a row's text, if the row has one.
    fn row(&mut self, text: Option<Vec<u8>>) -> Option<String> {
        let Some(bytes) = text else {
            self.skipped.no_text += 1;
            return None;
        };
        let text = self.utf8(bytes)?;
        self.document_in(text, 0)
    }

    fn json_line(&mut self, line: Vec<u8>) -> Option<String> {
        let line = self.utf8(line)?;
        if line.trim().is_empty() {
            return None;
        }
        match parse(&line, &self.field) {
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
