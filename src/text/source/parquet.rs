//! One column of text of a Parquet file, read page by page.
//!
//! The `parquet` crate believes the sizes that a file claims and allocates them, so every claim
//! passes here first.

use std::path::Path;

use super::bytes::RawBytes;
use crate::Result;

#[cfg(not(feature = "datasets"))]
pub(super) struct ParquetRows(std::convert::Infallible);

#[cfg(not(feature = "datasets"))]
impl ParquetRows {
    pub(super) fn open(path: &Path, _: &str, _: &RawBytes) -> Result<Self> {
        let message = "this program was built without Parquet: build it with `--features datasets`";
        Err(crate::Error::file(path, message))
    }

    pub(super) fn next(&mut self) -> Result<Option<Option<Vec<u8>>>> {
        match self.0 {}
    }
}

#[cfg(feature = "datasets")]
pub(super) use reading::ParquetRows;

#[cfg(feature = "datasets")]
mod reading {
    use std::fs::File;
    use std::io::{self, BufReader, Read, Seek, SeekFrom};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    use bytes::Bytes;
    use parquet::basic::{Compression, Encoding, Type};
    use parquet::column::page::{Page, PageMetadata, PageReader};
    use parquet::column::reader::ColumnReaderImpl;
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::errors::{ParquetError, Result as ParquetResult};
    use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
    use parquet::file::reader::{ChunkReader, Length};
    use parquet::file::serialized_reader::SerializedPageReader;

    use super::super::no_column;
    use std::path::PathBuf;

    use super::{Path, RawBytes, Result};
    use crate::Error;

    /// Bytes of a page, compressed or not, at most. Writers aim at one mebibyte, but a text is never
    /// divided.
    const MAX_PAGE: usize = 1 << 28;

    /// Values in a page at most.
    const MAX_VALUES: u32 = 1 << 24;

    /// How much smaller Deflate makes anything at most.
    const MAX_DEFLATE: usize = 1032;

    pub(in super::super) struct ParquetRows {
        path: PathBuf,
        file: File,
        metadata: ParquetMetaData,
        column: usize,
        /// The next row group.
        group: usize,
        open: Option<ColumnReaderImpl<ByteArrayType>>,
        raw: RawBytes,
        /// The file's bytes for each row.
        share: u64,
    }

    impl ParquetRows {
        pub(in super::super) fn open(path: &Path, field: &str, raw: &RawBytes) -> Result<Self> {
            let mut file = File::open(path).map_err(|source| Error::io(path, source))?;
            feed(&mut file, raw).map_err(|source| Error::io(path, source))?;
            let metadata = guarded(|| ParquetMetaDataReader::new().parse_and_finish(&file));
            let metadata = metadata.map_err(|error| damaged(path, &error))?;
            let schema = metadata.file_metadata().schema_descr();
            let names: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
            let column = names.iter().position(|name| name == field).ok_or_else(|| no_column(path, field, &names))?;
            let found = schema.column(column);
            if found.physical_type() != Type::BYTE_ARRAY || found.max_rep_level() > 0 {
                let many = if found.max_rep_level() > 0 { "lists of " } else { "" };
                let message = format!("its column `{field}` holds {many}{}, not text", found.physical_type());
                return Err(Error::file(path, message));
            }
            let size = file.metadata().map_err(|source| Error::io(path, source))?.len();
            let share = size / u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0).max(1);
            Ok(Self { path: path.into(), file, metadata, column, group: 0, open: None, raw: raw.clone(), share })
        }

        pub(in super::super) fn next(&mut self) -> Result<Option<Option<Vec<u8>>>> {
            loop {
                if let Some(mut open) = self.open.take()
                    && let Some(row) = guarded(|| read(&mut open)).map_err(|error| damaged(&self.path, &error))?
                {
                    self.open = Some(open);
                    self.raw.advance(self.share);
                    return Ok(Some(row));
                }
                if self.group == self.metadata.num_row_groups() {
                    return Ok(None);
                }
                self.open = Some(guarded(|| self.row_group()).map_err(|error| damaged(&self.path, &error))?);
                self.group += 1;
            }
        }

        /// The texts of the next row group.
        fn row_group(&self) -> ParquetResult<ColumnReaderImpl<ByteArrayType>> {
            let group = self.metadata.row_group(self.group);
            let lacking = || ParquetError::General("a row group lacks the column".into());
            let chunk = group.columns().get(self.column).ok_or_else(lacking)?;
            let offsets =
                [Some(chunk.data_page_offset()), chunk.dictionary_page_offset(), Some(chunk.compressed_size())];
            if offsets.into_iter().flatten().chain([group.num_rows()]).any(i64::is_negative) {
                return Err(ParquetError::General("a size is negative".into()));
            }
            if chunk.column_type() != Type::BYTE_ARRAY {
                return Err(ParquetError::General("a row group has another type".into()));
            }
            let compression = chunk.compression();
            let known = [Compression::UNCOMPRESSED, Compression::SNAPPY].contains(&compression)
                || matches!(compression, Compression::GZIP(_) | Compression::ZSTD(_));
            if !known {
                return Err(ParquetError::NYI(format!(
                    "pages compressed with {compression} (only snappy, gzip and zstd are read)"
                )));
            }
            let column = self.metadata.file_metadata().schema_descr().column(self.column);
            let file = PageFile { file: self.file.try_clone()?, gzip: matches!(compression, Compression::GZIP(_)) };
            let rows = usize::try_from(group.num_rows())?;
            let pages = SerializedPageReader::new(Arc::new(file), chunk, rows, None)?;
            Ok(ColumnReaderImpl::new(column, Box::new(CheckedPages { pages, has_dictionary: false })))
        }
    }

    /// Lets `raw` know all bytes of the file.
    fn feed(file: &mut File, raw: &RawBytes) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                read => raw.feed(&buffer[..read]),
            }
        }
    }

    /// What `f` returns; an error if the crate panics, as it does on some damaged pages. What `f`
    /// uses must not be used again then.
    fn guarded<T>(f: impl FnOnce() -> ParquetResult<T>) -> ParquetResult<T> {
        let unreadable = |_| Err(ParquetError::General("a part of it cannot be decoded".into()));
        catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(unreadable)
    }

    fn damaged(path: &Path, error: &ParquetError) -> Error {
        let message = match error {
            ParquetError::NYI(message) => format!("has {message}"),
            error => format!("is damaged or no Parquet file: {error}"),
        };
        Error::file(path, message)
    }

    /// The next row, which may have no text; nothing at the end of the row group. Never several at
    /// once: in some encodings a text takes almost no room if it repeats the one before.
    fn read(column: &mut ColumnReaderImpl<ByteArrayType>) -> ParquetResult<Option<Option<Vec<u8>>>> {
        let (mut levels, mut values): (Vec<i16>, Vec<ByteArray>) = (Vec::new(), Vec::new());
        let (rows, _, _) = column.read_records(1, Some(&mut levels), None, &mut values)?;
        Ok((rows > 0).then(|| values.first().map(|value| value.data().to_vec())))
    }

    /// The file of a column's pages, whose headers are checked before anything is allocated for
    /// them.
    struct PageFile {
        file: File,
        gzip: bool,
    }

    impl PageFile {
        fn at(&self, start: u64) -> io::Result<BufReader<File>> {
            let mut file = self.file.try_clone()?;
            file.seek(SeekFrom::Start(start))?;
            Ok(BufReader::new(file))
        }
    }

    impl Length for PageFile {
        fn len(&self) -> u64 {
            self.file.metadata().map_or(0, |metadata| metadata.len())
        }
    }

    impl ChunkReader for PageFile {
        type T = io::Chain<io::Cursor<Vec<u8>>, BufReader<File>>;

        /// At the header of a page.
        fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
            let (mut header, mut reader) = (Vec::new(), self.at(start)?);
            reader.by_ref().take(64).read_to_end(&mut header)?;
            match claimed_sizes(&header) {
                Some(sizes) if sizes.iter().all(|&size| size <= MAX_PAGE as u64) => {}
                Some(_) => return Err(ParquetError::NYI(format!("a page of more than {MAX_PAGE} bytes"))),
                None => return Err(ParquetError::General("a page does not begin with its sizes".into())),
            }
            Ok(io::Cursor::new(header).chain(reader))
        }

        /// The contents of a page.
        fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
            if length > MAX_PAGE {
                return Err(ParquetError::NYI(format!("a page of more than {MAX_PAGE} bytes")));
            }
            let mut bytes = Vec::new();
            self.at(start)?.take(length as u64).read_to_end(&mut bytes)?;
            if bytes.len() < length {
                return Err(ParquetError::EOF("a page is cut off".into()));
            }
            // The crate decompresses these to the end, whatever their header claims.
            if self.gzip && length > MAX_PAGE / MAX_DEFLATE {
                let all = flate2::read::MultiGzDecoder::new(&bytes[..]);
                if io::copy(&mut all.take(MAX_PAGE as u64 + 1), &mut io::sink())? > MAX_PAGE as u64 {
                    return Err(ParquetError::NYI(format!("a page of more than {MAX_PAGE} bytes")));
                }
            }
            Ok(bytes.into())
        }
    }

    /// The sizes of a page that its header begins with, decompressed and compressed. The header is
    /// a Thrift structure in the compact protocol: its fields 1, 2 and 3 are 32-bit numbers.
    fn claimed_sizes(header: &[u8]) -> Option<[u64; 2]> {
        let mut bytes = header.iter();
        let mut number = || {
            const NEXT_FIELD_IS_I32: u8 = 0x15;
            let mut value = 0;
            (*bytes.next()? == NEXT_FIELD_IS_I32).then_some(())?;
            for shift in [0, 7, 14, 21, 28] {
                let byte = u64::from(*bytes.next()?);
                value |= (byte & 0x7f) << shift;
                if byte < 0x80 {
                    // Zigzag: odd numbers are negative ones, which no size is.
                    return (value % 2 == 0).then_some(value / 2);
                }
            }
            None
        };
        number()?;
        Some([number()?, number()?])
    }

    /// Pages that the crate can decode: it panics where a dictionary is missing, or
    /// levels are encoded in a way that there is none for.
    struct CheckedPages {
        pages: SerializedPageReader<PageFile>,
        has_dictionary: bool,
    }

    impl PageReader for CheckedPages {
        fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
            let Some(page) = self.pages.get_next_page()? else { return Ok(None) };
            if page.num_values() > MAX_VALUES {
                return Err(ParquetError::NYI(format!("a page of more than {MAX_VALUES} values")));
            }
            #[expect(deprecated, reason = "files have it")]
            let levels = [Encoding::RLE, Encoding::BIT_PACKED];
            if matches!(&page, Page::DataPage { def_level_encoding, .. } if !levels.contains(def_level_encoding)) {
                return Err(ParquetError::General("the levels of a page are encoded in an unknown way".into()));
            }
            match (&page, page.encoding()) {
                (Page::DictionaryPage { .. }, Encoding::PLAIN | Encoding::PLAIN_DICTIONARY) => {
                    self.has_dictionary = true;
                }
                (Page::DictionaryPage { .. }, _) => {
                    return Err(ParquetError::General("a dictionary is encoded".into()));
                }
                (_, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY) if !self.has_dictionary => {
                    return Err(ParquetError::General("a dictionary is missing".into()));
                }
                (_, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY | Encoding::PLAIN) => {}
                (_, Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY) => {}
                (_, other) => return Err(ParquetError::NYI(format!("texts in the encoding {other}"))),
            }
            Ok(Some(page))
        }

        fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
            self.pages.peek_next_page()
        }

        fn skip_next_page(&mut self) -> ParquetResult<()> {
            self.pages.skip_next_page()
        }
    }

    impl Iterator for CheckedPages {
        type Item = ParquetResult<Page>;

        fn next(&mut self) -> Option<Self::Item> {
            self.get_next_page().transpose()
        }
    }
}
