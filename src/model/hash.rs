//! What identifies a model: a hash of its configuration's shapes and of every number.

use sha2::{Digest, Sha256};

use super::Model;
use crate::files::hex;
use crate::{Error, Result};

impl Model {
    /// `sha256:…` over every parameter's name, shape and numbers, in order. Zeros count alike with
    /// either sign, so that a model held compressed has the hash of the same model held dense, on
    /// every device and from every file format.
    ///
    /// # Errors
    /// Those of the device.
    pub fn hash(&self) -> Result<String> {
        hash_of(self.parameters.iter().map(|p| Ok((p.name.as_str(), p.shape.as_slice(), p.read()?.data))))
    }
}

/// Returns an error unless `what`, which was made with the model of hash `expected`, is used with
/// that one. `model` says which of several it is: `model` alone, or `sparse model`.
///
/// # Errors
/// [`Error::OtherModel`] with both hashes.
pub fn expect_model(what: impl Into<String>, model: &str, expected: &str, found: &str) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::OtherModel { what: what.into(), model: model.into(), expected: expected.into(), found: found.into() })
}

/// `sha256:…` over names, shapes and numbers, in order.
pub(crate) fn hash_of<'a>(tensors: impl Iterator<Item = Result<(&'a str, &'a [usize], Vec<f32>)>>) -> Result<String> {
    let mut hash = Sha256::new();
    for tensor in tensors {
        let (name, shape, data) = tensor?;
        hash.update(format!("{name} {shape:?}\n"));
        for chunk in data.chunks(1 << 14) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|v| (v + 0.0).to_le_bytes()).collect();
            hash.update(&bytes);
        }
    }
    Ok(format!("sha256:{}", hex(&hash.finalize())))
}
