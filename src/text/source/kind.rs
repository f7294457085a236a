//! What a file holds, by the end of its name.

use std::path::Path;

/// How documents are laid out in a file. The numbers are hashed with a file's contents, and change
/// when the same contents are to give other documents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layout {
    Python = 2,
    Text = 3,
    JsonLines = 4,
    Csv = 5,
    Tsv = 6,
    Parquet = 7,
}

/// How a file is compressed. The numbers are hashed, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Compression {
    None = 0,
    Gzip = 1,
    Zstd = 2,
    Xz = 3,
}

const LAYOUTS: [(&str, Layout); 6] = [
    ("py", Layout::Python),
    ("txt", Layout::Text),
    ("jsonl", Layout::JsonLines),
    ("csv", Layout::Csv),
    ("tsv", Layout::Tsv),
    ("parquet", Layout::Parquet),
];

const COMPRESSIONS: [(&str, Compression); 3] =
    [("gz", Compression::Gzip), ("zst", Compression::Zstd), ("xz", Compression::Xz)];

/// What files may be, for messages.
pub(super) const EXPECTED: &str =
    ".py, .txt, .jsonl, .csv or .tsv files (also .gz, .zst or .xz of those) or .parquet files";

/// What a file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileKind {
    pub(super) layout: Layout,
    pub(super) compression: Compression,
}

impl FileKind {
    /// The kind of a file of this name; `None` for one that holds no documents.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let ends_in = |path: &Path| Some(path.extension()?.to_str()?.to_ascii_lowercase());
        let last = ends_in(path)?;
        let packed = COMPRESSIONS.iter().find(|(name, _)| *name == last).map(|(_, compression)| *compression);
        let (last, compression) = match packed {
            Some(compression) => (ends_in(Path::new(path.file_stem()?))?, compression),
            None => (last, Compression::None),
        };
        let layout = LAYOUTS.iter().find(|(name, _)| *name == last).map(|(_, layout)| *layout)?;
        // Parquet compresses its own pages, and is not read from the beginning to the end.
        (layout != Layout::Parquet || compression == Compression::None).then_some(Self { layout, compression })
    }

    /// The byte that is hashed after the contents of such a file.
    pub(super) fn byte(self) -> u8 {
        self.layout as u8 + 16 * self.compression as u8
    }

    /// Whether the documents are in a field that has a name.
    pub(super) fn has_fields(self) -> bool {
        !matches!(self.layout, Layout::Python | Layout::Text)
    }

    /// Whether all rows have the same columns.
    pub(super) fn is_table(self) -> bool {
        matches!(self.layout, Layout::Csv | Layout::Tsv | Layout::Parquet)
    }

    /// Whether the bytes of the file are those of its documents, nearly.
    pub(super) fn is_plain(self) -> bool {
        self.compression == Compression::None && !self.is_table()
    }
}
