//! The zip archive around a pickle and its storages.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;
use zip::{CompressionMethod, ZipArchive};

use crate::files::open_input;
use crate::{Error, Result};

/// How files in torch's format before 1.6 begin.
const OLD: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

/// The bytes of an archive, mapped or in memory, and where its entries are in them.
pub(super) struct Archive {
    bytes: Box<dyn AsRef<[u8]> + Send + Sync>,
    /// By name, without the archive's prefix.
    entries: HashMap<String, Range<usize>>,
    pickle: Range<usize>,
}

impl Archive {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = open_input(path)?;
        // SAFETY: the mapping is private to this module and read-only, and lives as long as the
        // archive that holds it; every access stays inside the slice it gives. What the type system
        // cannot promise is that no one else changes the file meanwhile: the public functions
        // document that.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        Self::new(Box::new(map)).map_err(|message| Error::file(path, message))
    }

    pub(super) fn new(bytes: Box<dyn AsRef<[u8]> + Send + Sync>) -> Result<Self, String> {
        let entries = entries((*bytes).as_ref())?;
        let pickle = entries.get("data.pkl").cloned().ok_or("the archive has no data.pkl")?;
        let archive = Self { bytes, entries, pickle };
        match archive.entry("byteorder") {
            None | Some(b"little") => Ok(archive),
            Some(b"big") => Err("its numbers are big-endian; save it again on a little-endian machine".into()),
            Some(other) => Err(format!("its byte order is {}; `little` was expected", shown(other))),
        }
    }

    pub(super) fn pickle(&self) -> &[u8] {
        &self.bytes()[self.pickle.clone()]
    }

    pub(super) fn storage(&self, key: &str) -> Option<&[u8]> {
        self.entry(&format!("data/{key}"))
    }

    fn entry(&self, name: &str) -> Option<&[u8]> {
        self.bytes().get(self.entries.get(name)?.clone())
    }

    fn bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }
}

/// The byte range of each entry, by its name without the archive's prefix. All ranges are inside
/// `bytes`.
fn entries(bytes: &[u8]) -> Result<HashMap<String, Range<usize>>, String> {
    if bytes.starts_with(OLD) {
        return Err("torch's format before 1.6; load it in torch and save it again".into());
    }
    if !bytes.starts_with(b"PK") {
        return Err("not a zip archive, as torch.save writes them".into());
    }
    let unreadable = |error: zip::result::ZipError| format!("not a whole zip archive: {error}");
    let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(unreadable)?;
    if zip.has_duplicate_names() {
        return Err("the archive has several entries of one name".into());
    }
    let pickles: Vec<String> = zip
        .file_names_raw()
        .filter_map(|name| std::str::from_utf8(name).ok()?.strip_suffix("/data.pkl"))
        .filter(|prefix| !prefix.contains('/'))
        .map(|prefix| format!("{prefix}/"))
        .collect();
    let [prefix] = pickles.as_slice() else {
        return Err(format!("an archive with {} data.pkl in it, where torch.save writes one", pickles.len()));
    };
    if zip.file_names_raw().any(|name| name == format!("{prefix}constants.pkl").as_bytes()) {
        return Err("a TorchScript program; save the state_dict of its module with torch.save instead".into());
    }
    let mut entries = HashMap::new();
    for index in 0..zip.len() {
        let file = zip.by_index_raw(index).map_err(unreadable)?;
        let Some(name) = std::str::from_utf8(file.name_raw()).ok().and_then(|name| name.strip_prefix(prefix)) else {
            continue;
        };
        if file.compression() != CompressionMethod::Stored || file.encrypted() || file.size() != file.compressed_size()
        {
            return Err(format!("entry `{name}` is compressed or encrypted; torch.save does not do that"));
        }
        let range = file.data_start().and_then(|start| Some(start..start.checked_add(file.size())?));
        let range = range.and_then(|r| Some(usize::try_from(r.start).ok()?..usize::try_from(r.end).ok()?));
        let range = range.filter(|range| bytes.get(range.clone()).is_some());
        entries.insert(name.to_string(), range.ok_or_else(|| format!("entry `{name}` reaches beyond the file"))?);
    }
    Ok(entries)
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(16)]).escape_default().to_string()
}
