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

/// Serializes a type as its text, which it is read from.
macro_rules! serialize_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use serialize_as_text;
