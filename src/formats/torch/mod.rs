//! Zip archives as `torch.save` writes them, written, and read without executing anything.
//!
//! Such an archive holds one pickle, `data.pkl`, and every storage of numbers as a file of its own,
//! `data/<key>`. A pickle is a program that may call any Python function; the reader here knows the
//! few calls that rebuild tensors and dictionaries, and refuses a file that asks for any other.
//! Whatever the bytes, it ends with a value or an error: no panic, no endless loop, and never more
//! memory than a fixed multiple of the file's size.
//!
//! [`TorchFile`] gives the value as it was saved; [`TorchStateDict`] a model's tensors by their
//! names. [`write_torch`] writes a value that PyTorch loads.

mod archive;
mod arena;
mod calls;
mod numbers;
mod pickle;
mod sparse;
mod state_dict;
mod tree;
mod value;
mod write;

pub use sparse::{SparseLayout, SparseRef};
pub use state_dict::TorchStateDict;
pub use value::{DataType, TensorRef, Value};
pub use write::{Numbers, write_torch};

use std::path::{Path, PathBuf};

use archive::Archive;

use crate::files::HostTensor;
use crate::{Error, Result};

/// What `torch.save` wrote: a value, and the numbers of the tensors in it, which are read when
/// asked for.
///
/// A tensor may be a view of its storage: transposed, sliced, expanded, or shared with others. It
/// is read as the view that was saved.
pub struct TorchFile {
    path: PathBuf,
    archive: Archive,
    value: Value,
}

impl TorchFile {
    /// Maps the archive at `path` and reads everything but the tensors' numbers.
    ///
    /// The archive's checksums are not compared, because torch has a setting to write none. Changing
    /// the file while it is open may cause torn numbers or, where it gets shorter, end the process.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened; [`Error::File`] if it is not such an archive
    /// (torch's format before 1.6, TorchScript, compressed or big-endian archives included), is
    /// damaged, or asks for a Python function that is not on the short list.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_archive(path, Archive::open(path)?)
    }

    /// As [`Self::open`], from bytes already in memory; `path` is for error messages.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn from_bytes(path: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_archive(path, Archive::new(Box::new(bytes)).map_err(|message| Error::file(path, message))?)
    }

    fn from_archive(path: &Path, archive: Archive) -> Result<Self> {
        let value = pickle::read(archive.pickle()).map_err(|message| Error::file(path, message))?;
        Ok(Self { path: path.to_path_buf(), archive, value })
    }

    /// The file's name, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was saved.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The numbers of a float tensor of this file, row-major, as f32.
    ///
    /// # Errors
    /// [`Error::File`] naming the tensor's storage: the tensor reaches beyond its storage, the
    /// storage is missing, there is too little memory, the tensor is of integers, or a 64-bit
    /// number is too large for f32.
    pub fn floats(&self, tensor: &TensorRef) -> Result<HostTensor> {
        self.storage(tensor)
            .and_then(|storage| numbers::floats(tensor, storage))
            .map_err(|m| self.tensor_error(tensor, &m))
    }

    /// The numbers of a sparse float tensor of this file, zeros included, row-major.
    ///
    /// # Errors
    /// [`Error::File`] as for [`Self::floats`], also where an index lies outside of the tensor.
    pub fn sparse_floats(&self, tensor: &SparseRef) -> Result<HostTensor> {
        tensor.dense(|part| self.storage(part)).map_err(|m| self.tensor_error(&tensor.values, &m))
    }

    /// The numbers of an integer or boolean tensor of this file, row-major.
    ///
    /// # Errors
    /// [`Error::File`] as for [`Self::floats`], here if the tensor is of floats.
    pub fn integers(&self, tensor: &TensorRef) -> Result<Vec<i64>> {
        self.storage(tensor)
            .and_then(|storage| numbers::integers(tensor, storage))
            .map_err(|m| self.tensor_error(tensor, &m))
    }

    fn storage(&self, tensor: &TensorRef) -> Result<&[u8], String> {
        let key = &tensor.storage;
        self.archive.storage(key).ok_or_else(|| format!("there is no storage `{key}` in the archive"))
    }

    fn tensor_error(&self, tensor: &TensorRef, message: &str) -> Error {
        Error::file(&self.path, format!("a tensor in storage `{}`: {message}", tensor.storage))
    }
}
