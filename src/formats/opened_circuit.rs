//! A circuit from a file of any kind that holds one.

use std::io::Read;
use std::path::Path;

use super::Payload;
use crate::circuits::Circuit;
use crate::files::open_input;
use crate::{Error, Result};

/// A circuit, and what else its file holds.
pub struct OpenedCircuit {
    /// The circuit.
    pub circuit: Circuit,
    /// All that a published file holds; nothing for a circuit file.
    pub payload: Option<Box<Payload>>,
}

impl OpenedCircuit {
    /// Opens a circuit file or a published circuit (`viz_data.pt`), whatever its name. A pipe, which
    /// can be read only once, holds a circuit file.
    ///
    /// # Errors
    /// Those of [`Payload::open`] for an archive, those of [`Circuit::load`] for anything else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if is_archive(path)? {
            let payload = Box::new(Payload::open(path)?);
            return Ok(Self { circuit: payload.circuit.clone(), payload: Some(payload) });
        }
        Ok(Self { circuit: Circuit::load(path)?, payload: None })
    }

    /// What the file lacks, or what in it was not understood; a sentence each.
    pub fn missing(&self) -> &[String] {
        self.payload.as_ref().map_or(&[], |payload| &payload.missing)
    }
}

/// Whether a regular file begins as zip archives do.
fn is_archive(path: &Path) -> Result<bool> {
    if path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Ok(false);
    }
    let mut start = Vec::new();
    open_input(path)?.take(2).read_to_end(&mut start).map_err(|e| Error::io(path, e))?;
    Ok(start == b"PK")
}
