//! Tensors under other names than their file gives them.

use std::collections::BTreeMap;
use std::path::Path;

use super::{HostTensor, TensorInfo, TensorSource};
use crate::error::{Error, Result};

/// A source whose names have lost a prefix.
pub struct WithoutPrefix {
    inner: Box<dyn TensorSource>,
    entries: BTreeMap<String, TensorInfo>,
    /// The names in the file, by the names without the prefix.
    originals: BTreeMap<String, String>,
}

impl WithoutPrefix {
    /// Takes `prefix` off every name that carries it; names without it stay as they are, and a source without any such name is given back
    /// unchanged. `path` is for error messages.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if two tensors would then have the same name.
    pub fn wrap(inner: Box<dyn TensorSource>, prefix: &str, path: &Path) -> Result<Box<dyn TensorSource>> {
        if !inner.entries().keys().any(|name| name.starts_with(prefix)) {
            return Ok(inner);
        }
        let (mut entries, mut originals) = (BTreeMap::new(), BTreeMap::new());
        for (original, info) in inner.entries() {
            let name = original.strip_prefix(prefix).unwrap_or(original);
            if originals.insert(name.to_string(), original.clone()).is_some() {
                return Err(Error::file(path, format!("holds both `{name}` and `{prefix}{name}`")));
            }
            entries.insert(name.to_string(), info.clone());
        }
        Ok(Box::new(Self { inner, entries, originals }))
    }
}

impl TensorSource for WithoutPrefix {
    fn entries(&self) -> &BTreeMap<String, TensorInfo> {
        &self.entries
    }

    fn read(&self, name: &str) -> Result<HostTensor> {
        self.inner.read(self.originals.get(name).map_or(name, String::as_str))
    }
}
