//! JSON files with a version: read whole and checked, written whole or not at all.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{read_unmarked, write_atomic};
use crate::{Error, Result};

/// What such a file holds.
pub(crate) trait Versioned: Serialize + DeserializeOwned {
    /// What messages call the file.
    const WHAT: &'static str;
    /// The only version that is read.
    const VERSION: u32;

    /// What is wrong with it, if anything is.
    fn check(&self) -> Result<(), String>;
}

/// Reads a file and checks it.
pub(crate) fn load<T: Versioned>(path: &Path) -> Result<T> {
    let wrong = |message: String| Error::file(path, message);
    let value: serde_json::Value =
        serde_json::from_slice(&read_unmarked(path)?).map_err(|e| wrong(format!("not a {}: {e}", T::WHAT)))?;
    // The version first: another version's fields may differ, which would be the lesser news.
    match value.get("version").and_then(serde_json::Value::as_u64) {
        None => return Err(wrong(format!("not a {}: no `version`", T::WHAT))),
        Some(v) if v != u64::from(T::VERSION) => {
            return Err(wrong(format!("{} of version {v}; this program reads version {}", T::WHAT, T::VERSION)));
        }
        Some(_) => {}
    }
    let read: T = serde_json::from_value(value).map_err(|e| wrong(format!("not a {}: {e}", T::WHAT)))?;
    read.check().map_err(wrong)?;
    Ok(read)
}

/// Writes what [`load`] would read.
pub(crate) fn save<T: Versioned>(value: &T, path: &Path) -> Result<()> {
    value.check().map_err(|message| Error::file(path, message))?;
    let mut text = serde_json::to_string(value).map_err(|e| Error::file(path, e.to_string()))?;
    text.push('\n');
    write_atomic(path, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io(path, e)))
}

/// Complains about a number that is none.
pub(crate) fn finite(name: &str, value: f64) -> Result<(), String> {
    if value.is_finite() { Ok(()) } else { Err(format!("{name} is {value}")) }
}
