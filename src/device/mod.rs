//! Where numbers live and run: pick a device, allocate, upload, launch, read back. Knows nothing of models.
//!
//! Two devices stand behind one interface. [`Gpu`] runs hand-written WGSL through wgpu; [`Cpu`] runs native twins of the
//! same operations. An operation asks its tensors for their device and takes the matching branch; nothing above
//! [`crate::ops`] needs to know which one it is on.

mod adapters;
pub mod cpu;
pub mod gpu;
mod tensor;

pub use adapters::{AdapterSummary, adapters};
pub use cpu::{Cpu, on_worker, use_threads};
pub use gpu::launch::{Launch, Shader};
pub use gpu::{Gpu, GpuOptions};
pub use tensor::{Element, Tensor};

use crate::{Error, Result};

/// A place where tensors live and operations run. Cloning is cheap and names the same device.
#[derive(Clone, Debug)]
pub enum Device {
    /// The processor, through native code.
    Cpu(Cpu),
    /// A graphics adapter, through wgpu.
    Gpu(Gpu),
}

impl Device {
    /// Opens a device by its command-line name: `auto`, `cpu`, `gpu`, or `gpu:<index or part of a name>`.
    ///
    /// `auto` takes the first hardware GPU and otherwise the CPU; [`Device::describe`] says which it was.
    ///
    /// # Errors
    /// [`Error::Config`] for a name of another form, [`Error::Device`] if a GPU was asked for and none answers.
    pub fn open(name: &str) -> Result<Self> {
        Self::open_nth(name, 0)
    }

    /// As [`Device::open`], for one of several processes on this machine: `auto` gives them its hardware GPUs in turn, to this
    /// one the `nth`, counted from 0.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub fn open_nth(name: &str, nth: usize) -> Result<Self> {
        let name = name.trim();
        match name.split_once(':') {
            None if name == "cpu" => Ok(Self::cpu()),
            None if name == "gpu" => Ok(Self::Gpu(Gpu::open(None)?)),
            None if name == "auto" => Ok(Self::auto(nth)),
            Some(("gpu", which)) if !which.trim().is_empty() => Ok(Self::Gpu(Gpu::open(Some(which.trim()))?)),
            _ => Err(Error::config(
                "device",
                format!("`{name}` is not one of auto, cpu, gpu, gpu:<index> or gpu:<part of a name>"),
            )),
        }
    }

    /// The native CPU device.
    pub fn cpu() -> Self {
        Self::Cpu(Cpu::new())
    }

    fn auto(nth: usize) -> Self {
        let reason = match gpu::hardware_adapter(nth) {
            Ok(adapter) => match Gpu::from_adapter(adapter, &GpuOptions::from_env()) {
                Ok(gpu) => return Self::Gpu(gpu),
                Err(error) => error.to_string(),
            },
            Err(reason) => reason,
        };
        tracing::info!("{reason}: using the CPU");
        Self::cpu()
    }

    /// One line for people: which device this is.
    pub fn describe(&self) -> String {
        match self {
            Self::Cpu(cpu) => cpu.describe(),
            Self::Gpu(gpu) => gpu.describe(),
        }
    }

    /// Whether this is the native CPU device.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Self::Cpu(_))
    }

    /// The largest tensor in bytes that the device can bind at once, if it has such a limit.
    pub fn largest_tensor(&self) -> Option<u64> {
        match self {
            Self::Cpu(_) => None,
            Self::Gpu(gpu) => Some(gpu.largest_binding()),
        }
    }

    /// A tensor of `shape` whose contents are unspecified; the operation that asked for it writes all of it.
    ///
    /// # Errors
    /// [`Error::Limit`] if the device cannot bind a tensor that large, [`Error::Memory`] if it has no room;
    /// both name the tensor by `name`.
    pub fn empty<T: Element>(&self, name: &str, shape: &[usize]) -> Result<Tensor<T>> {
        Tensor::empty(self, name, shape)
    }

    /// A tensor of zeros. Errors as [`Device::empty`].
    pub fn zeros<T: Element>(&self, name: &str, shape: &[usize]) -> Result<Tensor<T>> {
        let mut tensor = self.empty(name, shape)?;
        tensor.clear()?;
        Ok(tensor)
    }

    /// Copies `data`, row-major, into a new tensor of `shape`. Errors as [`Device::empty`], and
    /// [`Error::Shape`] if the lengths disagree.
    pub fn upload<T: Element>(&self, name: &str, shape: &[usize], data: &[T]) -> Result<Tensor<T>> {
        let mut tensor = self.empty(name, shape)?;
        tensor.write(data)?;
        Ok(tensor)
    }

    /// Waits until everything launched so far has run.
    ///
    /// # Errors
    /// [`Error::Device`] with the driver's message if anything launched so far failed.
    pub fn sync(&self) -> Result<()> {
        match self {
            Self::Cpu(_) => Ok(()),
            Self::Gpu(gpu) => gpu.wait(),
        }
    }

    /// Bytes of device memory now allocated, in use or kept for reuse.
    pub fn allocated(&self) -> u64 {
        match self {
            Self::Cpu(cpu) => cpu.allocated(),
            Self::Gpu(gpu) => gpu.allocated(),
        }
    }

    /// Fills the memory kept for reuse with set bits, which are NaN as floats: an operation that leaves a part of its result
    /// unwritten then shows. For checks of operations; it waits for the device.
    ///
    /// # Errors
    /// [`Error::Device`] if the device failed.
    pub fn poison_free_memory(&self) -> Result<()> {
        match self {
            Self::Cpu(cpu) => cpu.poison_free_memory(),
            Self::Gpu(gpu) => gpu.poison_free_memory(),
        }
    }

    /// Whether `other` names the same device.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cpu(a), Self::Cpu(b)) => a.same(b),
            (Self::Gpu(a), Self::Gpu(b)) => a.same(b),
            _ => false,
        }
    }
}
