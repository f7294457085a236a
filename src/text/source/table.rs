//! Tables: one column of each row is a text.

use std::path::Path;

use super::bytes::RawBytes;
use super::csv::CsvRows;
use super::kind::{FileKind, Layout};
use super::parquet::ParquetRows;
use crate::Result;

/// The rows of a table.
pub(super) enum Rows {
    Separated(Box<CsvRows>),
    Parquet(Box<ParquetRows>),
}

impl Rows {
    /// Opens the table at `path`, whose texts are in the column `field`.
    pub(super) fn open(path: &Path, kind: FileKind, field: &str, raw: &RawBytes) -> Result<Self> {
        Ok(match kind.layout {
            Layout::Parquet => Self::Parquet(Box::new(ParquetRows::open(path, field, raw)?)),
            _ => Self::Separated(Box::new(CsvRows::open(path, kind, field, raw)?)),
        })
    }

    /// The bytes of the next row's text, or that it has none; nothing after the last row.
    pub(super) fn next(&mut self) -> Result<Option<Option<Vec<u8>>>> {
        match self {
            Self::Separated(rows) => rows.next(),
            Self::Parquet(rows) => rows.next(),
        }
    }
}

/// Whether the table at `path` has such a column. One that cannot be opened may have it: reading it
/// says what is wrong.
pub(super) fn has_column(path: &Path, kind: FileKind, field: &str) -> bool {
    match Rows::open(path, kind, field, &RawBytes::default()) {
        Err(crate::Error::Unknown { .. }) => false,
        Ok(_) | Err(_) => true,
    }
}
