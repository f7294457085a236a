//! `.csv` and `.tsv` files: the first row names the columns; fields may be in quotes.

use std::path::{Path, PathBuf};

use csv::{ByteRecord, ReaderBuilder};

use super::bytes::{Bytes, RawBytes, failed};
use super::kind::{FileKind, Layout};
use super::no_column;
use crate::files::{utf16, without_mark};
use crate::{Error, Result};

pub(super) struct CsvRows {
    path: PathBuf,
    kind: FileKind,
    reader: csv::Reader<Bytes>,
    column: usize,
    row: ByteRecord,
}

impl CsvRows {
    pub(super) fn open(path: &Path, kind: FileKind, field: &str, raw: &RawBytes) -> Result<Self> {
        let delimiter = if kind.layout == Layout::Tsv { b'\t' } else { b',' };
        let bytes = Bytes::open(path, kind.compression, raw)?;
        // A row with too few fields is skipped and counted, not the end of the file.
        let mut reader = ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(bytes);
        let names = reader.byte_headers().map_err(|error| read_error(path, kind, error))?;
        if let Some(message) = names.get(0).and_then(utf16) {
            return Err(Error::file(path, message));
        }
        let names: Vec<String> =
            names.iter().map(|name| String::from_utf8_lossy(without_mark(name)).trim().to_string()).collect();
        let column = names.iter().position(|name| name == field).ok_or_else(|| no_column(path, field, &names))?;
        reader.get_mut().renew();
        Ok(Self { path: path.into(), kind, reader, column, row: ByteRecord::new() })
    }

    pub(super) fn next(&mut self) -> Result<Option<Option<Vec<u8>>>> {
        let read = self.reader.read_byte_record(&mut self.row);
        if read.map_err(|error| read_error(&self.path, self.kind, error))? {
            self.reader.get_mut().renew();
            return Ok(Some(self.row.get(self.column).map(<[u8]>::to_vec)));
        }
        self.reader.get_mut().finish().map_err(|error| failed(&self.path, self.kind, error))?;
        Ok(None)
    }
}

fn read_error(path: &Path, kind: FileKind, error: csv::Error) -> Error {
    let message = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(source) => failed(path, kind, source),
        _ => Error::file(path, message),
    }
}
