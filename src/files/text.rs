//! Text files as people's editors write them.

use std::path::Path;

use super::input::read_input;
use crate::{Error, Result};

/// What some editors write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The text of a file, without the byte order mark that it may begin with.
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::File`] if it is UTF-16 or otherwise not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    text_of(read_input(path)?).map_err(|message| Error::file(path, message))
}

/// The text that a file's bytes are.
///
/// # Errors
/// What is wrong with them, in words.
pub fn text_of(mut bytes: Vec<u8>) -> Result<String, String> {
    if let Some(message) = utf16(&bytes) {
        return Err(message.into());
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    String::from_utf8(bytes).map_err(|error| format!("is not UTF-8: byte {}", error.utf8_error().valid_up_to()))
}

/// `bytes` without the byte order mark that they may begin with.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// Says so if bytes begin as UTF-16 or UTF-32 does.
pub fn utf16(bytes: &[u8]) -> Option<&'static str> {
    let marked = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    marked.then_some("is UTF-16, not UTF-8: save it as UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_skipped_and_other_encodings_named() {
        assert_eq!(text_of(b"\xef\xbb\xbfa\xef\xbb\xbf".to_vec()).unwrap(), "a\u{feff}");
        assert_eq!(text_of(Vec::new()).unwrap(), "");
        for utf16 in [&b"\xff\xfea\0"[..], b"\xfe\xff\0a"] {
            assert!(text_of(utf16.to_vec()).unwrap_err().contains("UTF-16"));
        }
        assert!(text_of(b"ab\xffc".to_vec()).unwrap_err().contains("byte 2"));
        assert_eq!((without_mark(b"\xef\xbb\xbfa"), without_mark(b"a")), (&b"a"[..], &b"a"[..]));
    }
}
