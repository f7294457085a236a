//! The wgpu device: one queue, recycled buffers, and launches gathered into few submissions.

mod cache;
pub mod launch;
pub(super) mod params;
mod pipeline;
mod queue;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::tuning::Tuning;
use crate::{Error, Result};
use cache::Compiled;
use pipeline::Pipelines;
use queue::Pending;

/// How to open a GPU, whichever it is.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// The folder that keeps compiled kernels and tuned choices for later runs; without one,
    /// nothing is kept.
    pub cache: Option<PathBuf>,
    /// Whether kernels use subgroup operations, if the adapter has them. Selections do not depend
    /// on it; sums of floats differ in the order of the terms.
    pub subgroups: bool,
    /// Whether kernels check every index and bound every loop while they run, as wgpu does by
    /// default. Results do not depend on it. It takes time, and keeps a mistake in a kernel from
    /// reaching other memory.
    pub checked: bool,
    /// For work on kernels: a folder laid out as `shaders/`, whose files replace the built-in ones.
    /// Such kernels are always checked, and neither they nor tuned choices are kept.
    pub shaders: Option<PathBuf>,
}

impl GpuOptions {
    /// Options from the environment. `GOSSAMER_CACHE` names the folder for the cache: empty, there
    /// is none; unset, it is the user's cache folder. `GOSSAMER_SUBGROUPS=0` turns subgroup
    /// operations off, `GOSSAMER_CHECKED=1` turns checks on, `GOSSAMER_SHADERS` names a folder of
    /// kernels.
    pub fn from_env() -> Self {
        Self {
            cache: cache_folder(),
            subgroups: std::env::var_os("GOSSAMER_SUBGROUPS").is_none_or(|value| value != "0"),
            checked: std::env::var_os("GOSSAMER_CHECKED").is_some_and(|value| value != "0"),
            shaders: std::env::var_os("GOSSAMER_SHADERS").filter(|folder| !folder.is_empty()).map(PathBuf::from),
        }
    }
}

/// Most bytes of a buffer, whatever the adapter grants: kernels index its words in 32 bits, and
/// some compute indices past its end.
const MAX_BUFFER_BYTES: u64 = 1 << 33;

/// Where parts of buffers may begin, in bytes: the largest alignment WebGPU allows a device to ask
/// for.
const PART_ALIGNMENT: u64 = 256;

/// A graphics adapter with its queue.
#[derive(Clone)]
pub struct Gpu {
    shared: Arc<Shared>,
}

struct Shared {
    adapter: wgpu::Adapter,
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    limits: wgpu::Limits,
    options: GpuOptions,
    compiled: Option<Compiled>,
    tuning: Mutex<Tuning>,
    pipelines: Mutex<Pipelines>,
    pending: Mutex<Pending>,
    /// Free buffers by size and number. What a step gets depends on which are free, and not on the
    /// order in which they were freed, so that steps that do the same get the same.
    free: Mutex<BTreeMap<(u64, u64), wgpu::Buffer>>,
    /// How many buffers there have been.
    buffers: AtomicU64,
    allocated: AtomicU64,
    /// Bytes of the tensors that launches have bound, and nanoseconds that the host has waited.
    bound: AtomicU64,
    waited: AtomicU64,
    failure: Arc<Mutex<Option<String>>>,
}

/// What a device has been asked to do since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Launches of each kernel, as `shader::kernel`.
    pub kernels: BTreeMap<String, u64>,
    /// Bytes of all tensors that the launches bound: what they read and wrote at most, without what
    /// they read twice.
    pub bytes: u64,
    /// Bind groups made: none, once launches repeat themselves.
    pub bind_groups: u64,
    /// How long the host has waited for the device.
    pub waited: Duration,
}

impl Usage {
    /// Launches of all kernels.
    pub fn launches(&self) -> u64 {
        self.kernels.values().sum()
    }

    /// What was asked since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let kernel = |(name, launches): (&String, &u64)| {
            let more = launches - before.kernels.get(name).copied().unwrap_or_default();
            (more > 0).then(|| (name.clone(), more))
        };
        Self {
            kernels: self.kernels.iter().filter_map(kernel).collect(),
            bytes: self.bytes - before.bytes,
            bind_groups: self.bind_groups - before.bind_groups,
            waited: self.waited - before.waited,
        }
    }
}

/// A buffer with its number, by which bind groups are found again.
struct Numbered {
    id: u64,
    raw: wgpu::Buffer,
}

/// A storage buffer of a device, which reuses it once it is dropped.
struct Whole {
    numbered: Numbered,
    home: Gpu,
}

/// A tensor's storage: a buffer, or a part of one.
pub(crate) struct Buffer {
    whole: Arc<Whole>,
    part: Option<Part>,
}

/// Where a tensor lies in a buffer that it shares with others.
#[derive(Clone, Copy)]
struct Part {
    offset: u64,
    bytes: u64,
}

impl Buffer {
    fn raw(&self) -> &wgpu::Buffer {
        &self.whole.numbered.raw
    }

    /// What tells it from all others, and 0s from none: number of the buffer from 1, where it begins
    /// in there, and its bytes if it is a part.
    fn key(&self) -> [u64; 3] {
        [self.whole.numbered.id + 1, self.offset(), self.part.map_or(0, |part| part.bytes)]
    }

    /// Bytes of the buffer before it.
    pub(super) fn offset(&self) -> u64 {
        self.part.map_or(0, |part| part.offset)
    }

    fn binding(&self) -> wgpu::BindingResource<'_> {
        let size = self.part.and_then(|part| wgpu::BufferSize::new(part.bytes));
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: self.raw(), offset: self.offset(), size })
    }

    /// Whether it and `other` are parts of one buffer, or the same.
    pub(super) fn shares(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.whole, &other.whole)
    }

    /// All of the buffer of which it may be a part.
    pub(super) fn whole(&self) -> Self {
        Self { whole: self.whole.clone(), part: None }
    }
}

/// The folder for what later runs shall find: the one that `GOSSAMER_CACHE` names, none if that is
/// empty, otherwise the user's.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    cache::folder(|name| std::env::var_os(name))
}

impl Drop for Whole {
    fn drop(&mut self) {
        // Recorded launches run before later ones, so that the buffer can be reused at once.
        if let Ok(mut free) = self.home.shared.free.lock() {
            let Numbered { id, raw } = &self.numbered;
            free.insert((raw.size(), *id), raw.clone());
        }
    }
}

/// All adapters of this machine in the order of their indices: those of GL last, and within both
/// groups hardware first.
pub(super) fn enumerate() -> Vec<wgpu::Adapter> {
    let mut adapters = enumerate_without_gl();
    adapters.extend(adapters_of(wgpu::Backends::GL));
    adapters
}

/// The first of [`enumerate`], without the backend that takes longest to start.
fn enumerate_without_gl() -> Vec<wgpu::Adapter> {
    adapters_of(!wgpu::Backends::GL)
}

/// What `select` finds among the adapters without GL, or else among all.
fn find<T>(mut select: impl FnMut(&[wgpu::Adapter]) -> Option<T>) -> (Option<T>, Vec<wgpu::Adapter>) {
    let mut adapters = enumerate_without_gl();
    let mut found = select(&adapters);
    if found.is_none() {
        adapters.extend(adapters_of(wgpu::Backends::GL));
        found = select(&adapters);
    }
    (found, adapters)
}

/// The adapters of those of `backends` that `WGPU_BACKEND` allows, hardware first, in a stable
/// order.
fn adapters_of(backends: wgpu::Backends) -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    descriptor.flags.remove(wgpu::InstanceFlags::VALIDATION | wgpu::InstanceFlags::DEBUG);
    descriptor.backends &= backends;
    let backends = descriptor.backends;
    if backends.is_empty() {
        return Vec::new();
    }
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters = pollster::block_on(instance.enumerate_adapters(backends));
    adapters.sort_by_key(|a| match a.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    adapters
}

/// Hardware adapter number `nth`, counted in a circle, of those that can compute; or why there is
/// none.
pub(super) fn hardware_adapter(nth: usize) -> std::result::Result<wgpu::Adapter, String> {
    let (mut software, mut hardware): (_, Vec<wgpu::Adapter>) = (None, Vec::new());
    let (_, adapters) = find(|adapters| adapters.iter().position(computes));
    for adapter in adapters {
        let info = adapter.get_info();
        match info.device_type {
            _ if !computes(&adapter) => {}
            wgpu::DeviceType::Cpu => software = software.or(Some(info.name)),
            _ => hardware.push(adapter),
        }
    }
    let reason = match software {
        Some(name) => format!("the only graphics adapter is software ({name})"),
        None => "no graphics adapter found".to_string(),
    };
    // Several backends list the same GPUs.
    let backend = hardware.first().map(|adapter| adapter.get_info().backend);
    hardware.retain(|adapter| Some(adapter.get_info().backend) == backend);
    let count = hardware.len().max(1);
    hardware.into_iter().nth(nth % count).ok_or(reason)
}

pub(super) fn computes(adapter: &wgpu::Adapter) -> bool {
    adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
}

/// What kernels need of `adapter`, with all the buffer sizes that it grants.
fn limits_of(adapter: &wgpu::Adapter) -> wgpu::Limits {
    let granted = adapter.limits();
    let limits = wgpu::Limits {
        max_storage_buffer_binding_size: granted.max_storage_buffer_binding_size,
        max_buffer_size: granted.max_buffer_size,
        ..wgpu::Limits::downlevel_defaults()
    }
    .or_worse_values_from(&granted);
    wgpu::Limits {
        max_storage_buffers_per_shader_stage: granted.max_storage_buffers_per_shader_stage.min(8),
        max_compute_workgroup_storage_size: granted.max_compute_workgroup_storage_size.min(16384),
        max_compute_invocations_per_workgroup: granted.max_compute_invocations_per_workgroup.min(256),
        max_compute_workgroup_size_x: granted.max_compute_workgroup_size_x.min(256),
        max_compute_workgroup_size_y: granted.max_compute_workgroup_size_y.min(256),
        ..limits
    }
}

impl Gpu {
    /// Opens the first adapter, or the one that `which` names: an index as `gossamer devices` lists
    /// them, or a part of the adapter's name, driver or backend in any case.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no such adapter or it cannot compute; the message lists those
    /// there are.
    pub fn open(which: Option<&str>) -> Result<Self> {
        Self::open_with(which, &GpuOptions::from_env())
    }

    /// As [`Gpu::open`], with options that do not come from the environment.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub fn open_with(which: Option<&str>, options: &GpuOptions) -> Result<Self> {
        let (found, adapters) = find(|adapters| match which {
            None => adapters.iter().position(computes),
            Some(which) => match which.parse::<usize>() {
                Ok(index) => Some(index).filter(|&i| i < adapters.len()),
                Err(_) => adapters.iter().position(|a| {
                    let info = a.get_info();
                    let text = format!("{} {} {}", info.name, info.driver, info.backend).to_lowercase();
                    text.contains(&which.to_lowercase())
                }),
            },
        });
        if adapters.is_empty() {
            return Err(Error::Device("no graphics adapter or driver found; `--device cpu` needs none".into()));
        }
        let missing = no_such(&adapters, which);
        let adapter = found.and_then(|index| adapters.into_iter().nth(index)).ok_or(missing)?;
        Self::from_adapter(adapter, options)
    }

    /// Opens `adapter` with all the buffer sizes it grants.
    pub(crate) fn from_adapter(adapter: wgpu::Adapter, options: &GpuOptions) -> Result<Self> {
        let mut options = options.clone();
        if options.shaders.is_some() {
            (options.checked, options.cache) = (true, None);
        }
        let info = adapter.get_info();
        if !computes(&adapter) {
            return Err(Error::Device(format!("{} ({}) has no compute shaders", info.name, info.backend)));
        }
        let limits = limits_of(&adapter);
        let mut features = wgpu::Features::PIPELINE_CACHE;
        features.set(wgpu::Features::SUBGROUP, options.subgroups);
        let features = adapter.features() & features;
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("gossamer"),
            required_features: features,
            required_limits: limits.clone(),
            ..Default::default()
        }))
        .map_err(|e| Error::Device(format!("{} ({}): {e}", info.name, info.backend)))?;
        let failure = Arc::new(Mutex::new(None));
        let report = failure.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            if let Ok(mut first) = report.lock() {
                first.get_or_insert(error.to_string());
            }
        }));
        let pending = Mutex::new(Pending::new(&device));
        let wgpu::AdapterInfo { name, backend, driver, driver_info, .. } = &info;
        let tuning = Tuning::open(&format!("{name}, {backend}, {driver} {driver_info}"), options.cache.as_deref());
        let compiled = options.cache.as_deref().and_then(|folder| Compiled::open(&device, &info, folder));
        Ok(Self {
            shared: Arc::new(Shared {
                adapter,
                device,
                queue,
                info,
                limits,
                options,
                compiled,
                tuning: Mutex::new(tuning),
                pipelines: Mutex::default(),
                pending,
                free: Mutex::default(),
                buffers: AtomicU64::new(0),
                allocated: AtomicU64::new(0),
                bound: AtomicU64::new(0),
                waited: AtomicU64::new(0),
                failure,
            }),
        })
    }

    /// Another device on the same adapter, opened with other options.
    pub(crate) fn reopen(&self, options: &GpuOptions) -> Result<Self> {
        Self::from_adapter(self.shared.adapter.clone(), options)
    }

    /// The options it was opened with.
    pub fn options(&self) -> &GpuOptions {
        &self.shared.options
    }

    /// The kernels compiled so far, as `shader::kernel CONSTANT=value`, sorted.
    ///
    /// # Errors
    /// [`Error::Device`] if another thread failed while using the GPU.
    pub fn compiled_kernels(&self) -> Result<Vec<String>> {
        Ok(lock(&self.shared.pipelines)?.names())
    }

    /// One line of text: adapter, backend and driver, whether kernels use subgroup operations, and
    /// their folder if they are not built in.
    pub fn describe(&self) -> String {
        let info = &self.shared.info;
        let subgroups = if self.subgroups() { "with subgroups" } else { "without subgroups" };
        let shaders = match &self.shared.options.shaders {
            Some(folder) => format!(", kernels of {}", folder.display()),
            None => String::new(),
        };
        format!("GPU {} ({}, {} {}), {subgroups}{shaders}", info.name, info.backend, info.driver, info.driver_info)
            .replace(" )", ")")
    }

    /// Whether kernels use subgroup operations.
    pub(crate) fn subgroups(&self) -> bool {
        self.shared.device.features().contains(wgpu::Features::SUBGROUP)
    }

    /// The adapter's description.
    pub fn info(&self) -> &wgpu::AdapterInfo {
        &self.shared.info
    }

    /// The largest storage buffer in bytes that a kernel can bind.
    pub(crate) fn largest_binding(&self) -> u64 {
        let limits = &self.shared.limits;
        limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(MAX_BUFFER_BYTES)
    }

    /// The tuned choice for `name`, if there is one.
    ///
    /// # Errors
    /// [`Error::Device`] if another thread failed while using the GPU.
    pub fn tuned(&self, name: &str) -> Result<Option<u32>> {
        Ok(lock(&self.shared.tuning)?.choice(name))
    }

    /// Sets the choice for `name`. It lasts until this GPU is closed, or for good after
    /// [`Gpu::save_tuning`].
    ///
    /// # Errors
    /// As [`Gpu::tuned`].
    pub fn set_tuned(&self, name: &str, choice: u32) -> Result<()> {
        lock(&self.shared.tuning)?.choose(name, choice);
        Ok(())
    }

    /// Writes all choices to the cache folder for later runs and returns the file's path; without
    /// such a folder, nothing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save_tuning(&self) -> Result<Option<PathBuf>> {
        lock(&self.shared.tuning)?.save(self.shared.options.cache.as_deref())
    }

    pub(super) fn usage(&self) -> Result<Usage> {
        Ok(Usage {
            kernels: lock(&self.shared.pipelines)?.launches(),
            bytes: self.shared.bound.load(Ordering::Relaxed),
            bind_groups: lock(&self.shared.pending)?.groups_made,
            waited: Duration::from_nanos(self.shared.waited.load(Ordering::Relaxed)),
        })
    }

    pub(super) fn allocated(&self) -> u64 {
        self.shared.allocated.load(Ordering::Relaxed)
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// A storage buffer of `bytes` (at least 4, so that even an empty tensor can be bound).
    pub(super) fn alloc(&self, name: &str, bytes: u64) -> Result<Buffer> {
        let size = bytes.max(4);
        if size > self.largest_binding() {
            return Err(Error::Limit {
                tensor: name.to_string(),
                needed: bytes,
                limit: format!(
                    "{} binds at most {} bytes (max_storage_buffer_binding_size); `--device cpu` has no such limit",
                    self.shared.info.name,
                    self.largest_binding()
                ),
            });
        }
        let mut free = lock(&self.shared.free)?;
        let fitting = free.range((size, 0)..=(2 * size, u64::MAX)).next().map(|(key, _)| *key);
        let recycled = fitting.and_then(|key| free.remove(&key).map(|raw| Numbered { id: key.1, raw }));
        drop(free);
        let numbered = match recycled {
            Some(numbered) => numbered,
            None => {
                let raw = self.create_buffer(
                    name,
                    size,
                    wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                )?;
                self.shared.allocated.fetch_add(size, Ordering::Relaxed);
                Numbered { id: self.shared.buffers.fetch_add(1, Ordering::Relaxed), raw }
            }
        };
        Ok(Buffer { whole: Arc::new(Whole { numbered, home: self.clone() }), part: None })
    }

    /// Storage for several tensors, each with its name and bytes, in as few buffers as can be bound.
    pub(super) fn alloc_together(&self, tensors: &[(&str, u64)]) -> Result<Vec<Buffer>> {
        let (mut parts, mut rest) = (Vec::with_capacity(tensors.len()), tensors);
        while !rest.is_empty() {
            let (mut offsets, mut total) = (Vec::new(), 0u64);
            for (_, bytes) in rest {
                let start = total.next_multiple_of(PART_ALIGNMENT);
                let end = start.saturating_add((*bytes).max(4));
                if end > self.largest_binding() && !offsets.is_empty() {
                    break;
                }
                offsets.push(start);
                total = end;
            }
            let (now, later) = rest.split_at(offsets.len());
            let whole = self.alloc(now[0].0, total)?;
            for (offset, (_, bytes)) in offsets.into_iter().zip(now) {
                let part = Part { offset, bytes: (*bytes).max(4) };
                parts.push(Buffer { part: Some(part), ..whole.whole() });
            }
            rest = later;
        }
        Ok(parts)
    }

    /// Fills the free buffers with set bits.
    pub(super) fn poison_free_memory(&self) -> Result<()> {
        let free: Vec<wgpu::Buffer> = lock(&self.shared.free)?.values().cloned().collect();
        // Recorded launches may still write to them.
        self.wait()?;
        for raw in free {
            self.shared.queue.write_buffer(&raw, 0, &vec![0xff; raw.size() as usize]);
        }
        Ok(())
    }

    fn create_buffer(&self, name: &str, size: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let device = &self.shared.device;
        let scope = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer =
            device.create_buffer(&wgpu::BufferDescriptor { label: Some(name), size, usage, mapped_at_creation: false });
        match pollster::block_on(scope.pop()) {
            Some(error) => Err(Error::Memory(format!(
                "no device memory for {name} ({size} bytes, {} already allocated): {error}",
                self.allocated()
            ))),
            None => Ok(buffer),
        }
    }

    fn check(&self) -> Result<()> {
        match lock(&self.shared.failure)?.take() {
            Some(message) => Err(Error::Device(format!("{}: {message}", self.shared.info.name))),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({})", self.shared.info.name)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    mutex.lock().map_err(|_| Error::Device("another thread failed while using the GPU".into()))
}

/// The error that no adapter is the requested one; it lists them as `gossamer devices` does.
fn no_such(adapters: &[wgpu::Adapter], which: Option<&str>) -> Error {
    let requested = which.map_or("a GPU that can compute".to_string(), |w| format!("`{w}`"));
    let line = |(index, adapter): (usize, &wgpu::Adapter)| {
        let info = adapter.get_info();
        let compute = if computes(adapter) { "" } else { ", without compute shaders" };
        format!("gpu:{index} {} ({}, {:?}{compute})", info.name, info.backend, info.device_type)
    };
    let all: Vec<_> = adapters.iter().enumerate().map(line).collect();
    Error::Device(format!("no adapter matches {requested}; there are {}; and cpu", all.join(", ")))
}
