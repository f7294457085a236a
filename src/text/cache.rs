//! Tokens in a file, mapped into memory.
//!
//! The file, all numbers little-endian: 8 bytes `MAGIC`; thirteen u64: format version, bytes per
//! token (2 or 4), number of tokens, largest token, then of the whole corpus documents, bytes,
//! documents skipped as not UTF-8, as empty, as no JSON objects, as without text, as with lone
//! surrogates, separators between documents, then a CRC-32C of the tokens and the header before it;
//! the tokens.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use super::corpus::CorpusStatistics;
use super::source::SkippedDocuments;
use crate::files::Temporary;
use crate::{Error, Result};

const MAGIC: [u8; 8] = *b"gossatok";
/// Changes with the layout of the file, and with its contents for the same input.
pub const VERSION: u64 = 2;
const FIELDS: usize = 13;
const HEADER: usize = 8 + 8 * FIELDS;
/// Bytes read or written at once.
const BUFFER: usize = 1 << 16;

/// A sequence of tokens, usually in a mapped file, which takes no memory.
#[derive(Debug)]
pub struct Tokens {
    store: Store,
    width: usize,
    len: usize,
    max_id: u32,
}

#[derive(Debug)]
enum Store {
    Mapped(Mmap),
    Memory(Vec<u8>),
}

impl Tokens {
    /// Tokens in memory.
    pub fn from_ids(ids: &[u32]) -> Self {
        let bytes = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let max_id = ids.iter().copied().max().unwrap_or(0);
        Self { store: Store::Memory(bytes), width: 4, len: ids.len(), max_id }
    }

    /// The number of tokens.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The largest token; 0 if there is none. It must be below the vocabulary size of a model.
    pub fn max_id(&self) -> u32 {
        self.max_id
    }

    /// The tokens in `range`.
    ///
    /// # Errors
    /// Returns [`Error::Data`] if it reaches beyond the end.
    pub fn get(&self, range: Range<usize>) -> Result<Vec<u32>> {
        let mut ids = vec![0; range.len()];
        self.copy_into(range.start, &mut ids)?;
        Ok(ids)
    }

    /// Fills `ids` with the tokens from `offset`.
    ///
    /// # Errors
    /// Returns [`Error::Data`] if there are fewer.
    pub fn copy_into(&self, offset: usize, ids: &mut [u32]) -> Result<()> {
        if offset > self.len || ids.len() > self.len - offset {
            let (requested, len) = (ids.len(), self.len);
            return Err(Error::Data(format!(
                "{requested} tokens from offset {offset} exceed the {len} that there are"
            )));
        }
        let bytes = &self.bytes()[offset * self.width..][..ids.len() * self.width];
        for (id, bytes) in ids.iter_mut().zip(bytes.chunks_exact(self.width)) {
            *id = read_id(bytes);
        }
        Ok(())
    }

    /// All tokens in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.bytes().chunks_exact(self.width).map(read_id)
    }

    fn bytes(&self) -> &[u8] {
        match &self.store {
            Store::Mapped(map) => &map[HEADER..],
            Store::Memory(bytes) => bytes,
        }
    }

    /// Maps the file at `path`, which only [`super::corpus::Corpus::prepare`] writes; `None` if
    /// there is none or it is damaged.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if it cannot be read.
    pub fn open(path: &Path) -> Result<Option<(Self, CorpusStatistics)>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(path, error)),
        };
        if file.metadata().map_err(|source| Error::io(path, source))?.len() < HEADER as u64 {
            return Ok(None);
        }
        // SAFETY: only the cache writes this file: under a temporary name, renamed once complete,
        // and never changed in place afterwards. Rebuilding renames a new file over it, which does
        // not affect maps of the old one: see the tests in tests/text/corpus.rs that rebuild a
        // cache while it is mapped.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| Error::io(path, source))?;
        let tokens = Self::check(map);
        if tokens.is_none() {
            tracing::warn!("{} is damaged and will be rebuilt", path.display());
        }
        Ok(tokens)
    }

    fn check(map: Mmap) -> Option<(Self, CorpusStatistics)> {
        let (header, tokens) = map.split_at_checked(HEADER)?;
        let mut fields = [0; FIELDS];
        for (field, bytes) in fields.iter_mut().zip(header[8..].chunks_exact(8)) {
            *field = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        let [
            version,
            width,
            len,
            max_id,
            documents,
            bytes,
            not_utf8,
            empty,
            not_json,
            no_text,
            surrogates,
            separators,
            crc,
        ] = fields;
        let whole = header[..8] == MAGIC
            && version == VERSION
            && (width == 2 || width == 4)
            && len.checked_mul(width) == Some(tokens.len() as u64)
            && crc == u64::from(crc32c::crc32c_append(crc32c::crc32c(tokens), &header[..HEADER - 8]));
        if !whole {
            return None;
        }
        let skipped = SkippedDocuments { not_utf8, empty, not_json, no_text, surrogates };
        let statistics = CorpusStatistics { documents, bytes, tokens: len, skipped, separators };
        let (width, len) = (width as usize, len as usize);
        Some((Self { width, len, max_id: u32::try_from(max_id).ok()?, store: Store::Mapped(map) }, statistics))
    }
}

fn read_id(bytes: &[u8]) -> u32 {
    match *bytes {
        [a, b] => u32::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

pub(crate) struct TokenWriter {
    out: BufWriter<Temporary>,
    width: usize,
    len: u64,
    max_id: u32,
    crc: u32,
}

impl TokenWriter {
    /// A file that appears at `path` once it is complete, for tokens below `vocab_size`.
    pub(crate) fn create(path: &Path, vocab_size: usize) -> Result<Self> {
        let mut out = BufWriter::with_capacity(BUFFER, Temporary::next_to(path)?);
        let header = out.write_all(&[0; HEADER]);
        header.map_err(|source| Error::io(out.get_ref().target(), source))?;
        let width = if vocab_size <= 1 << 16 { 2 } else { 4 };
        Ok(Self { out, width, len: 0, max_id: 0, crc: 0 })
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn push(&mut self, ids: &[u32]) -> Result<()> {
        let bytes: Vec<u8> = match self.width {
            2 => ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect(),
            _ => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
        };
        self.crc = crc32c::crc32c_append(self.crc, &bytes);
        self.len += ids.len() as u64;
        self.max_id = ids.iter().copied().fold(self.max_id, u32::max);
        self.out.write_all(&bytes).map_err(|source| Error::io(self.out.get_ref().target(), source))
    }

    /// Distributes what was written: each run is a number of tokens, in order, and the index of the
    /// writer that gets them.
    pub(crate) fn scatter(self, runs: &[(u64, usize)], to: &mut [Self; 2]) -> Result<()> {
        let width = self.width;
        let mut temporary = self.into_temporary()?;
        let failed = |temporary: &Temporary, source| Error::io(temporary.target(), source);
        temporary.file.seek(SeekFrom::Start(HEADER as u64)).map_err(|source| failed(&temporary, source))?;
        let mut reader = BufReader::with_capacity(BUFFER, &temporary.file);
        let mut bytes = vec![0; BUFFER];
        for &(count, index) in runs {
            let mut remaining = count as usize * width;
            while remaining > 0 {
                let now = remaining.min(BUFFER);
                reader.read_exact(&mut bytes[..now]).map_err(|source| failed(&temporary, source))?;
                let ids: Vec<u32> = bytes[..now].chunks_exact(width).map(read_id).collect();
                to[index].push(&ids)?;
                remaining -= now;
            }
        }
        Ok(())
    }

    /// Completes the file with the `statistics` of the whole corpus, and publishes it.
    pub(crate) fn finish(self, statistics: &CorpusStatistics) -> Result<()> {
        let CorpusStatistics { documents, bytes, skipped, separators, .. } = *statistics;
        let SkippedDocuments { not_utf8, empty, not_json, no_text, surrogates } = skipped;
        let fields = [VERSION, self.width as u64, self.len, self.max_id.into(), documents, bytes];
        let fields = fields.into_iter().chain([not_utf8, empty, not_json, no_text, surrogates, separators]);
        let mut header = MAGIC.to_vec();
        header.extend(fields.flat_map(u64::to_le_bytes));
        let crc = crc32c::crc32c_append(self.crc, &header);
        header.extend(u64::from(crc).to_le_bytes());
        let mut temporary = self.into_temporary()?;
        let written = temporary.file.seek(SeekFrom::Start(0)).and_then(|_| temporary.file.write_all(&header));
        written.map_err(|source| Error::io(temporary.target(), source))?;
        temporary.publish()
    }

    fn into_temporary(self) -> Result<Temporary> {
        self.out.into_inner().map_err(|failed| {
            let (source, out) = failed.into_parts();
            Error::io(out.get_ref().target(), source)
        })
    }
}
