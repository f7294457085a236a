//! The bytes of a file, decompressed as they are read.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::fingerprint::Fingerprint;
use super::kind::{Compression, FileKind};
use crate::{Error, Result};

/// The largest document of a compressed file or table. Damaged and hostile files claim more.
pub(super) const MAX_DOCUMENT: u64 = 1 << 30;

/// KiB that decompressing `.xz` may need: `xz -9` needs 65 MiB.
const XZ_MEMORY: u32 = 256 << 10;

/// The base-2 logarithm of the largest window of `.zst`, which `zstd --long` makes.
#[cfg(feature = "datasets")]
const ZSTD_WINDOW: u32 = 27;

/// What was read of all files together, before decompression.
#[derive(Clone, Default)]
pub(super) struct RawBytes(Arc<Mutex<(Fingerprint, u64)>>);

impl RawBytes {
    /// Adds to the fingerprint.
    pub(super) fn feed(&self, bytes: &[u8]) {
        self.with(|fingerprint, _| fingerprint.feed(bytes));
    }

    /// Counts bytes as read.
    pub(super) fn advance(&self, bytes: u64) {
        self.with(|_, read| *read += bytes);
    }

    pub(super) fn end_file(&self, kind: FileKind, field: &str) {
        self.with(|fingerprint, _| fingerprint.end_file(kind, field));
    }

    /// The number of bytes.
    pub(super) fn read(&self) -> u64 {
        self.with(|_, read| *read)
    }

    /// Their fingerprint, in hexadecimal.
    pub(super) fn fingerprint(&self) -> String {
        self.with(|fingerprint, _| fingerprint.hex())
    }

    fn with<T>(&self, f: impl FnOnce(&mut Fingerprint, &mut u64) -> T) -> T {
        let (fingerprint, read) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f(fingerprint, read)
    }
}

/// A file that tells what is read of it.
pub(super) struct RawFile {
    file: File,
    raw: RawBytes,
}

impl Read for RawFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.raw.feed(&buffer[..read]);
        self.raw.advance(read as u64);
        Ok(read)
    }
}

/// The bytes of a file as its documents are made of them.
pub(super) struct Bytes {
    inner: Box<dyn Read + Send>,
    /// Bytes that may still be read before [`Bytes::renew`].
    left: u64,
    /// The same file, after what `inner` has read.
    rest: RawFile,
}

impl Bytes {
    /// Opens a file, and tells `raw` what is read of it.
    pub(super) fn open(path: &Path, compression: Compression, raw: &RawBytes) -> Result<Self> {
        let failed = |source| Error::io(path, source);
        let file = File::open(path).map_err(failed)?;
        let rest = RawFile { file: file.try_clone().map_err(failed)?, raw: raw.clone() };
        let file = RawFile { file, raw: raw.clone() };
        let buffered = |file| BufReader::with_capacity(1 << 16, file);
        let inner: Box<dyn Read + Send> = match compression {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered(file))),
            Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(buffered(file), true, XZ_MEMORY)),
            Compression::Zstd => zstd(buffered(file)).map_err(|message| Error::file(path, message))?,
        };
        // A file that is not compressed has no more bytes than it seems.
        let left = if compression == Compression::None { u64::MAX } else { MAX_DOCUMENT };
        Ok(Self { inner, left, rest })
    }

    /// Allows as much again as one document may have.
    pub(super) fn renew(&mut self) {
        self.left = self.left.max(MAX_DOCUMENT);
    }

    /// Reads what of the file remains after its documents.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        io::copy(&mut self.rest, &mut io::sink()).map(drop)
    }
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("a document has more than {MAX_DOCUMENT} bytes"))
        })?;
        Ok(read)
    }
}

#[cfg(feature = "datasets")]
fn zstd(file: BufReader<RawFile>) -> Result<Box<dyn Read + Send>, String> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(file).map_err(|error| error.to_string())?;
    decoder.window_log_max(ZSTD_WINDOW).map_err(|error| error.to_string())?;
    Ok(Box::new(decoder))
}

#[cfg(not(feature = "datasets"))]
fn zstd(_: BufReader<RawFile>) -> Result<Box<dyn Read + Send>, String> {
    Err("this program was built without Zstandard: build it with `--features datasets`, or decompress the file".into())
}

/// The error of reading the file at `path`: its contents, unless the system said no.
pub(super) fn failed(path: &Path, kind: FileKind, error: io::Error) -> Error {
    let damaged = kind.compression != Compression::None && error.raw_os_error().is_none();
    match (damaged, error.kind()) {
        (true, io::ErrorKind::OutOfMemory) => {
            Error::file(path, format!("needs more than {} MiB of memory to decompress", XZ_MEMORY >> 10))
        }
        (true, _) => Error::file(path, format!("cannot be decompressed: {error}; it may be damaged or cut off")),
        (false, io::ErrorKind::InvalidData) => Error::file(path, error.to_string()),
        (false, _) => Error::io(path, error),
    }
}
