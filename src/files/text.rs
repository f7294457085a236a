//! Text files as editors write them.

use std::path::Path;

use super::input::read_input;
use crate::{Error, Result};

/// Some editors write this before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The text of a file, without a byte order mark.
///
/// # Errors
/// Returns [`Error::Io`] if it cannot be read, and [`Error::File`] if it is UTF-16 or otherwise not
/// UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let utf8 = String::from_utf8(read_unmarked(path)?);
    utf8.map_err(|error| Error::file(path, format!("is not UTF-8: byte {}", error.utf8_error().valid_up_to())))
}

/// The bytes of a text file, without a byte order mark, for parsers that report invalid UTF-8
/// themselves.
///
/// # Errors
/// Returns [`Error::Io`] if it cannot be read, and [`Error::File`] if it is UTF-16.
pub fn read_unmarked(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let mut bytes = read_input(path)?;
    if let Some(message) = utf16(&bytes) {
        return Err(Error::file(path, message));
    }
    bytes.drain(..bytes.len() - without_mark(&bytes).len());
    Ok(bytes)
}

/// `bytes` without a byte order mark.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// An error message if `bytes` begin as UTF-16 or UTF-32 does.
pub fn utf16(bytes: &[u8]) -> Option<&'static str> {
    let marked = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    marked.then_some("is UTF-16, not UTF-8: save it as UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_skipped_and_other_encodings_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_text(&path).map_err(|error| error.to_string())
        };
        assert_eq!(read(b"\xef\xbb\xbfa\xef\xbb\xbf").unwrap(), "a\u{feff}");
        assert_eq!(read(b"").unwrap(), "");
        for utf16 in [&b"\xff\xfea\0"[..], b"\xfe\xff\0a"] {
            assert!(read(utf16).unwrap_err().contains("UTF-16"));
        }
        assert!(read(b"ab\xffc").unwrap_err().contains("byte 2"));
        assert_eq!((without_mark(b"\xef\xbb\xbfa"), without_mark(b"a")), (&b"a"[..], &b"a"[..]));
    }
}
