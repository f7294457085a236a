//! Row-major arrays on a device.

use std::fmt;
use std::sync::Arc;

use super::cpu;
use super::{Backend, Device, Gpu, gpu, meta};
use crate::{Error, Result};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for u32 {}
}

/// The entries of tensors: `f32`, or `u32` for token ids and indices.
pub trait Element: bytemuck::Pod + Default + Send + Sync + fmt::Debug + PartialEq + sealed::Sealed {}

impl Element for f32 {}

impl Element for u32 {}

/// A row-major array on a device. Clones share their storage: do not write to a tensor that was
/// cloned.
#[derive(Clone)]
pub struct Tensor<T: Element = f32> {
    shape: Vec<usize>,
    device: Device,
    data: Storage<T>,
}

enum Storage<T: Element> {
    Cpu(Arc<cpu::Buffer<T>>),
    Gpu(Arc<gpu::Buffer>),
    Meta(Arc<meta::Buffer>),
}

impl<T: Element> Clone for Storage<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Cpu(b) => Self::Cpu(b.clone()),
            Self::Gpu(b) => Self::Gpu(b.clone()),
            Self::Meta(b) => Self::Meta(b.clone()),
        }
    }
}

impl<T: Element> fmt::Debug for Tensor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor{:?} on {:?}", self.shape, self.device)
    }
}

impl<T: Element> Tensor<T> {
    pub(super) fn empty(device: &Device, name: &str, shape: &[usize]) -> Result<Self> {
        let bytes = bytes_of::<T>(name, shape)?;
        let data = match device {
            Device::Cpu(cpu) => Storage::Cpu(Arc::new(cpu.alloc(name, bytes / size_of::<T>())?)),
            Device::Gpu(gpu) => Storage::Gpu(Arc::new(gpu.alloc(name, bytes as u64)?)),
            Device::Meta(meta) => Storage::Meta(Arc::new(meta.alloc(name, bytes as u64)?)),
        };
        Ok(Self { shape: shape.to_vec(), device: device.clone(), data })
    }

    /// Tensors of these names and shapes, like those of [`Tensor::empty`]. On a GPU they are parts of
    /// few buffers, so that a kernel can bind several of them as one: such kernels are the only ones
    /// that may write one of them and bind another.
    pub(super) fn empty_together(device: &Device, tensors: &[(&str, &[usize])]) -> Result<Vec<Self>> {
        let Device::Gpu(gpu) = device else {
            return tensors.iter().map(|(name, shape)| Self::empty(device, name, shape)).collect();
        };
        let sizes = tensors.iter().map(|(name, shape)| Ok((*name, bytes_of::<T>(name, shape)? as u64)));
        let buffers = gpu.alloc_together(&sizes.collect::<Result<Vec<_>>>()?)?;
        let tensor = |((_, shape), buffer): (&(&str, &[usize]), gpu::Buffer)| Self {
            shape: shape.to_vec(),
            device: device.clone(),
            data: Storage::Gpu(Arc::new(buffer)),
        };
        Ok(tensors.iter().zip(buffers).map(tensor).collect())
    }

    /// Overwrites all entries with those of `other`, which is on the same device and not allocated
    /// together with it.
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths differ, [`Error::Device`] if the tensor has clones.
    pub(crate) fn copy_from(&mut self, other: &Self) -> Result<()> {
        if other.len() != self.len() {
            return Err(Error::shape("copy", format!("{:?} into {:?}", other.shape, self.shape)));
        }
        match &self.device {
            Device::Gpu(gpu) => {
                gpu.copy(other.buffer()?, self.unshared_buffer()?, (size_of::<T>() * other.len()) as u64)
            }
            Device::Cpu(_) => {
                self.as_mut_slice()?.copy_from_slice(other.as_slice()?);
                Ok(())
            }
            Device::Meta(_) => Ok(()),
        }
    }

    /// Entries before it in the buffer of which it is a part on a GPU.
    pub(crate) fn offset(&self) -> usize {
        if let Storage::Gpu(buffer) = &self.data { buffer.offset() as usize / size_of::<T>() } else { 0 }
    }

    /// Whether a kernel can bind it and `other` as one. A meta device binds nothing.
    pub(crate) fn shares_buffer(&self, other: &Self) -> bool {
        match (&self.data, &other.data) {
            (Storage::Gpu(a), Storage::Gpu(b)) => a.shares(b),
            (Storage::Meta(_), Storage::Meta(_)) => true,
            _ => false,
        }
    }

    /// The extent of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tensor as a matrix: (product of all but the last dimension, last dimension).
    pub fn rows_cols(&self) -> (usize, usize) {
        if let Some((&last, rest)) = self.shape.split_last() { (rest.iter().product(), last) } else { (1, 1) }
    }

    /// The device that holds it.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The same numbers under another shape of equal length.
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths differ.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        // Sizes that overflow could come out as the right number.
        if shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)) != Some(self.len()) {
            return Err(Error::shape("reshape", format!("{:?} does not fit into {shape:?}", self.shape)));
        }
        Ok(Self { shape: shape.to_vec(), device: self.device.clone(), data: self.data.clone() })
    }

    /// The entries, on the CPU device.
    pub(crate) fn as_slice(&self) -> Result<&[T]> {
        if let Storage::Cpu(buffer) = &self.data { Ok(buffer.as_slice()) } else { Err(wrong_device("CPU")) }
    }

    /// The entries, to be written, on the CPU device.
    pub(crate) fn as_mut_slice(&mut self) -> Result<&mut [T]> {
        match &mut self.data {
            Storage::Cpu(buffer) => Arc::get_mut(buffer).map(cpu::Buffer::as_mut_slice).ok_or_else(shared),
            _ => Err(wrong_device("CPU")),
        }
    }

    /// Whether no clone shares the storage.
    pub(crate) fn is_unique(&self) -> bool {
        match &self.data {
            Storage::Cpu(buffer) => Arc::strong_count(buffer) == 1,
            Storage::Gpu(buffer) => Arc::strong_count(buffer) == 1,
            Storage::Meta(buffer) => Arc::strong_count(buffer) == 1,
        }
    }

    pub(super) fn buffer(&self) -> Result<&Arc<gpu::Buffer>> {
        if let Storage::Gpu(buffer) = &self.data { Ok(buffer) } else { Err(wrong_device("GPU")) }
    }

    /// As [`Tensor::buffer`], if nothing else reads it.
    fn unshared_buffer(&self) -> Result<&Arc<gpu::Buffer>> {
        if self.is_unique() { self.buffer() } else { Err(shared()) }
    }

    /// Copies the entries to the host. Waits for the device. A meta device gives zeros.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn read(&self) -> Result<Vec<T>> {
        match (&self.data, &self.device) {
            (Storage::Cpu(buffer), _) => Ok(buffer.as_slice().to_vec()),
            (Storage::Gpu(buffer), Device::Gpu(gpu)) => gpu.read(buffer, self.len()),
            (Storage::Meta(_), _) => Ok(vec![T::default(); self.len()]),
            _ => Err(wrong_device("GPU")),
        }
    }

    /// Overwrites all entries with `data`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the lengths differ, [`Error::Device`] if the tensor has clones.
    pub fn write(&mut self, data: &[T]) -> Result<()> {
        if data.len() != self.len() {
            return Err(Error::shape("write", format!("{} entries into {:?}", data.len(), self.shape)));
        }
        match &self.device {
            Device::Gpu(gpu) => gpu.write(self.unshared_buffer()?, bytemuck::cast_slice(data)),
            Device::Cpu(_) => {
                self.as_mut_slice()?.copy_from_slice(data);
                Ok(())
            }
            Device::Meta(_) => Ok(()),
        }
    }

    /// Overwrites all entries with zero bits.
    ///
    /// # Errors
    /// [`Error::Device`] if the tensor has clones.
    pub fn clear(&mut self) -> Result<()> {
        match &self.device {
            Device::Gpu(gpu) => gpu.clear(self.unshared_buffer()?),
            Device::Cpu(_) => {
                self.as_mut_slice()?.fill(T::default());
                Ok(())
            }
            Device::Meta(_) => Ok(()),
        }
    }

    /// The GPU this tensor lives on, if it does.
    pub(crate) fn gpu(&self) -> Option<&Gpu> {
        if let Device::Gpu(gpu) = &self.device { Some(gpu) } else { None }
    }

    /// How operations on this tensor run.
    pub(crate) fn backend(&self) -> Backend<'_> {
        self.device.backend()
    }
}

fn bytes_of<T: Element>(name: &str, shape: &[usize]) -> Result<usize> {
    shape.iter().try_fold(size_of::<T>(), |n, &d| n.checked_mul(d)).ok_or_else(|| Error::Limit {
        tensor: name.to_string(),
        needed: u64::MAX,
        limit: format!("the shape {shape:?} overflows"),
    })
}

fn shared() -> Error {
    Error::Device("a tensor that has clones cannot be written".into())
}

fn wrong_device(expected: &str) -> Error {
    Error::Device(format!("a tensor was expected on the {expected} device and lives on another"))
}
