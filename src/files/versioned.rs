//! JSON files with a version, written atomically and checked when read.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{read_unmarked, write_atomic};
use crate::{Error, Result};

pub(crate) trait Versioned: Serialize + DeserializeOwned {
    /// The name of the file in messages.
    const WHAT: &'static str;
    /// The version that is written, and the newest that can be read.
    const VERSION: u32;
    /// The oldest that can be read.
    const OLDEST: u32 = Self::VERSION;

    /// An error message if the contents are invalid.
    fn check(&self) -> Result<(), String>;
}

pub(crate) fn load<T: Versioned>(path: &Path) -> Result<T> {
    parse(&read_unmarked(path)?).map_err(|message| Error::file(path, message))
}

/// Reads a file's contents, or returns what is wrong with them.
pub(crate) fn parse<T: Versioned>(bytes: &[u8]) -> Result<T, String> {
    // The version first: the fields of another version may differ.
    let wrong = |e: serde_json::Error| format!("not a {}: {e}", T::WHAT);
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(wrong)?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        None => return Err(format!("not a {}: no `version`", T::WHAT)),
        Some(v) if !(u64::from(T::OLDEST)..=u64::from(T::VERSION)).contains(&v) => {
            let versions = if T::OLDEST == T::VERSION { String::new() } else { format!("{} to ", T::OLDEST) };
            return Err(format!("{} of version {v}; this program reads version {versions}{}", T::WHAT, T::VERSION));
        }
        Some(_) => {}
    }
    let read: T = serde_json::from_slice(bytes).map_err(wrong)?;
    read.check()?;
    Ok(read)
}

pub(crate) fn save<T: Versioned>(value: &T, path: &Path) -> Result<()> {
    value.check().map_err(|message| Error::file(path, message))?;
    let mut text = serde_json::to_string(value).map_err(|e| Error::file(path, e.to_string()))?;
    text.push('\n');
    write_atomic(path, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io(path, e)))
}

/// An error message for a number that is not finite.
pub(crate) fn finite(name: &str, value: f64) -> Result<(), String> {
    if value.is_finite() { Ok(()) } else { Err(format!("{name} is {value}")) }
}

/// Gives a [`Versioned`] type its methods `load` and `save`.
macro_rules! load_and_save {
    ($type:ty) => {
        impl $type {
            /// Reads and checks a file.
            ///
            /// # Errors
            /// [`crate::Error::Io`] where it cannot be read, [`crate::Error::File`] naming what is
            /// wrong in it.
            pub fn load(path: impl AsRef<std::path::Path>) -> $crate::Result<Self> {
                $crate::files::versioned::load(path.as_ref())
            }

            /// Writes the file whole or not at all. The same contents give the same bytes.
            ///
            /// # Errors
            /// [`crate::Error::File`] for what `load` rejects, [`crate::Error::Io`] if it cannot be
            /// written.
            pub fn save(&self, path: impl AsRef<std::path::Path>) -> $crate::Result<()> {
                $crate::files::versioned::save(self, path.as_ref())
            }
        }
    };
}

pub(crate) use load_and_save;
