//! Where tensors live and operations run: pick a device, allocate, upload, launch, read back. Knows
//! nothing of models.
//!
//! [`Gpu`] runs hand-written WGSL through wgpu; [`Cpu`] runs the same operations natively; [`Meta`]
//! runs none and counts what they would allocate. An operation asks its tensors for their backend;
//! nothing above [`crate::ops`] needs to know it.

mod adapters;
pub mod cpu;
pub mod gpu;
mod meta;
mod tensor;
mod tuning;

pub use adapters::{AdapterSummary, adapters};
pub use cpu::{Cpu, on_worker, use_threads};
pub(crate) use gpu::cache_folder;
pub use gpu::launch::Shader;
pub(crate) use gpu::launch::{Launch, Together};
pub(crate) use gpu::params::{Field, Params, params};
pub use gpu::{Gpu, GpuOptions, Usage};
pub use meta::Meta;
pub use tensor::{Element, Tensor};

use std::fmt;

use crate::{Error, Result};

/// Where tensors live and operations run. Cloning is cheap and names the same device.
#[derive(Clone)]
pub enum Device {
    /// The processor, through native code.
    Cpu(Cpu),
    /// A graphics adapter, through wgpu.
    Gpu(Gpu),
    /// Nothing: it only counts allocations.
    Meta(Meta),
}

/// How an operation runs.
pub(crate) enum Backend<'a> {
    /// It launches kernels.
    Gpu(Queue<'a>),
    /// It runs natively.
    Cpu,
    /// It leaves its results unwritten.
    Meta,
}

/// Where launches go: to a GPU, or nowhere on a [`Meta`] device that stands for one.
#[derive(Clone, Copy)]
pub(crate) struct Queue<'a>(Option<&'a Gpu>);

impl<'a> Queue<'a> {
    pub(crate) fn gpu(self) -> Option<&'a Gpu> {
        self.0
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl Device {
    /// Opens a device by its command-line name: `auto`, `cpu`, `gpu`, or `gpu:<index or part of a
    /// name>`.
    ///
    /// `auto` takes the first hardware GPU and otherwise the CPU; [`Device::describe`] says which
    /// it was.
    ///
    /// # Errors
    /// [`Error::Config`] for a name of another form, [`Error::Device`] if a GPU was asked for and
    /// none answers.
    pub fn open(name: &str) -> Result<Self> {
        Self::open_nth(name, 0)
    }

    /// As [`Device::open`], for process number `nth`, counted from 0, of several on this machine:
    /// `auto` deals its hardware GPUs out to them.
    pub(crate) fn open_nth(name: &str, nth: usize) -> Result<Self> {
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

    /// A device that computes nothing and counts what the CPU, or else a GPU, would allocate.
    pub(crate) fn meta(like_cpu: bool) -> Self {
        Self::Meta(Meta::new(like_cpu))
    }

    pub(crate) fn backend(&self) -> Backend<'_> {
        match self {
            Self::Cpu(_) => Backend::Cpu,
            Self::Gpu(gpu) => Backend::Gpu(Queue(Some(gpu))),
            Self::Meta(meta) if meta.like_cpu => Backend::Meta,
            Self::Meta(_) => Backend::Gpu(Queue(None)),
        }
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

    /// One line of text: which device this is.
    pub fn describe(&self) -> String {
        match self {
            Self::Cpu(cpu) => cpu.describe(),
            Self::Gpu(gpu) => gpu.describe(),
            Self::Meta(_) => "no device: it counts allocations".into(),
        }
    }

    /// Whether this is the native CPU device, or stands for it.
    pub fn is_cpu(&self) -> bool {
        !matches!(self.backend(), Backend::Gpu(_))
    }

    /// The largest tensor in bytes that the device can bind at once, if it has such a limit.
    pub(crate) fn largest_tensor(&self) -> Option<u64> {
        match self {
            Self::Gpu(gpu) => Some(gpu.largest_binding()),
            Self::Cpu(_) | Self::Meta(_) => None,
        }
    }

    /// A tensor of `shape` whose contents are unspecified; the operation that asked for it writes
    /// all of it.
    pub(crate) fn empty<T: Element>(&self, name: &str, shape: &[usize]) -> Result<Tensor<T>> {
        Tensor::empty(self, name, shape)
    }

    /// Tensors as those of [`Device::empty`], which on a GPU are parts of few buffers.
    pub(crate) fn empty_together<T: Element>(&self, tensors: &[(&str, &[usize])]) -> Result<Vec<Tensor<T>>> {
        Tensor::empty_together(self, tensors)
    }

    /// A tensor of zeros. Errors as `Device::empty`.
    pub fn zeros<T: Element>(&self, name: &str, shape: &[usize]) -> Result<Tensor<T>> {
        let mut tensor = self.empty(name, shape)?;
        tensor.clear()?;
        Ok(tensor)
    }

    /// Copies `data`, row-major, into a new tensor of `shape`. Errors as `Device::empty`, and
    /// [`Error::Shape`] if the lengths disagree.
    pub fn upload<T: Element>(&self, name: &str, shape: &[usize], data: &[T]) -> Result<Tensor<T>> {
        let mut tensor = self.empty(name, shape)?;
        tensor.write(data)?;
        Ok(tensor)
    }

    /// A tensor of `shape` whose entries, zeros at first, `fill` writes: on a meta device nothing.
    /// Errors as [`Device::empty`].
    pub(crate) fn upload_with(&self, name: &str, shape: &[usize], fill: impl FnOnce(&mut [f32])) -> Result<Tensor> {
        let mut tensor = self.empty(name, shape)?;
        if !matches!(self, Self::Meta(_)) {
            let mut data = vec![0.0; tensor.len()];
            fill(&mut data);
            tensor.write(&data)?;
        }
        Ok(tensor)
    }

    /// Waits until everything launched so far has run.
    ///
    /// # Errors
    /// [`Error::Device`] with the driver's message if anything launched so far failed.
    pub fn sync(&self) -> Result<()> {
        match self {
            Self::Gpu(gpu) => gpu.wait(),
            Self::Cpu(_) | Self::Meta(_) => Ok(()),
        }
    }

    /// Bytes of device memory now allocated, in use or kept for reuse.
    pub fn allocated(&self) -> u64 {
        match self {
            Self::Cpu(cpu) => cpu.allocated(),
            Self::Gpu(gpu) => gpu.allocated(),
            Self::Meta(meta) => meta.allocated(),
        }
    }

    /// What the device has been asked to do since it was opened. Only a GPU counts it.
    ///
    /// # Errors
    /// [`Error::Device`] if another thread failed while using the GPU.
    pub fn usage(&self) -> Result<Usage> {
        if let Self::Gpu(gpu) = self { gpu.usage() } else { Ok(Usage::default()) }
    }

    /// Fills the memory kept for reuse with set bits, which are NaN as floats. It makes an
    /// operation that leaves a part of its result unwritten fail its check. Waits for the device.
    pub(crate) fn poison_free_memory(&self) -> Result<()> {
        match self {
            Self::Cpu(cpu) => cpu.poison_free_memory(),
            Self::Gpu(gpu) => gpu.poison_free_memory(),
            Self::Meta(_) => Ok(()),
        }
    }

    /// Whether `other` names the same device.
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cpu(a), Self::Cpu(b)) => a.same(b),
            (Self::Gpu(a), Self::Gpu(b)) => a.same(b),
            (Self::Meta(a), Self::Meta(b)) => a.same(b),
            _ => false,
        }
    }
}
