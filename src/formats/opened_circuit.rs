//! A circuit from a file of any kind that holds one.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::{ModelFiles, Payload};
use crate::circuits::{Circuit, ModelRef};
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

    /// Where the circuit's model is: where the file says, or, if that has moved, around `path`, the
    /// circuit's file. A name on the Hub stays one.
    pub fn model_path(&self, path: &Path) -> Option<PathBuf> {
        let named = self.payload.as_ref().and_then(|payload| payload.model.clone());
        let recorded = Some(&self.circuit.model.path).filter(|path| !path.is_empty() && !self.circuit.is_foreign());
        let named = named.or_else(|| recorded.map(PathBuf::from));
        let is_there = |path: &Path| {
            let of_model = |files: ModelFiles| {
                let reference = &self.circuit.model;
                ModelRef::new(&reference.path, &reference.hash, &files.config) == *reference
            };
            path.exists() && ModelFiles::open(path).is_ok_and(of_model)
        };
        let around = path.ancestors().skip(1).take(2).map(Path::to_path_buf);
        // The folder of a bare name.
        let around = around.map(|path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path });
        match named {
            Some(named) if named.exists() => Some(named),
            named => around.into_iter().find(|path| is_there(path)).or(named),
        }
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
