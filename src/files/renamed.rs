//! Tensors under other names than in their file.

use std::collections::BTreeMap;
use std::path::Path;

use super::{HostTensor, TensorInfo, TensorSource};
use crate::error::{Error, Result};

/// A source whose tensors have other names.
pub struct Renamed {
    inner: Box<dyn TensorSource>,
    entries: BTreeMap<String, TensorInfo>,
    others: BTreeMap<String, String>,
    /// The names in the file, by the new ones.
    originals: BTreeMap<String, String>,
}

impl Renamed {
    /// Gives every tensor the name that `rename` returns. Returns the source itself if no name
    /// changes. `path` is for error messages.
    ///
    /// # Errors
    /// Returns [`Error::File`] if two tensors would have the same name.
    pub fn wrap(
        inner: Box<dyn TensorSource>,
        rename: impl Fn(&str) -> String,
        path: &Path,
    ) -> Result<Box<dyn TensorSource>> {
        if inner.entries().keys().all(|name| rename(name) == *name) {
            return Ok(inner);
        }
        let (mut entries, mut originals) = (BTreeMap::new(), BTreeMap::<String, String>::new());
        for (original, info) in inner.entries() {
            let name = rename(original);
            if let Some(other) = originals.insert(name.clone(), original.clone()) {
                return Err(Error::file(path, format!("holds both `{other}` and `{original}`, which are both {name}")));
            }
            entries.insert(name, info.clone());
        }
        let others = inner.others().into_iter().map(|(name, what)| (rename(&name), what)).collect();
        Ok(Box::new(Self { inner, entries, others, originals }))
    }
}

impl TensorSource for Renamed {
    fn entries(&self) -> &BTreeMap<String, TensorInfo> {
        &self.entries
    }

    fn others(&self) -> BTreeMap<String, String> {
        self.others.clone()
    }

    fn read(&self, name: &str) -> Result<HostTensor> {
        self.inner.read(self.originals.get(name).map_or(name, String::as_str))
    }
}
