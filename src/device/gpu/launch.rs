//! How an operation starts its kernel.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::params::{Block, Params};
use super::pipeline::Key;
use super::queue::{Command, GroupKey, MAX_PARAMS, PARAMS_STRIDE};
use super::{Buffer, lock};
use crate::device::{Element, Queue, Tensor};
use crate::{Error, Result};

/// Workgroups in one grid dimension at most, by WebGPU's default limits.
const GRID: u64 = 65_535;

/// The WGSL source of one operation.
pub struct Shader {
    /// The operation's name: that of its file in `shaders/`.
    pub name: &'static str,
    /// The text, with `#include` lines not yet resolved.
    pub source: &'static str,
}

/// Shared snippets; a line `#include <name>` in a shader stands for the snippet's text.
struct Snippet {
    name: &'static str,
    text: &'static str,
    /// The text for devices with subgroups, if it differs.
    subgroups: Option<&'static str>,
}

macro_rules! snippet {
    ($name:literal) => {
        Snippet { subgroups: None, ..snippet!($name, $name) }
    };
    ($name:literal, $subgroups:literal) => {
        Snippet {
            name: $name,
            text: include_str!(concat!("../../../shaders/include/", $name, ".wgsl")),
            subgroups: Some(include_str!(concat!("../../../shaders/include/", $subgroups, ".wgsl"))),
        }
    };
}

/// All snippets, and with them all variants of shaders.
const INCLUDES: &[Snippet] = &[
    snippet!("attention_blocks"),
    snippet!("grid"),
    snippet!("lanes", "lanes_subgroups"),
    snippet!("log_sum"),
    snippet!("norm"),
    snippet!("norm_weight"),
    snippet!("prefix_select", "prefix_select_subgroups"),
    snippet!("weight_key"),
];

/// Begins a section of a shader that belongs to the kernels named after it.
const SECTION: &str = "#kernel ";

impl Shader {
    /// Names a shader's text.
    pub(crate) const fn new(name: &'static str, source: &'static str) -> Self {
        Self { name, source }
    }

    /// The names of its kernels.
    pub fn kernels(&self) -> Vec<&'static str> {
        let sections = self.source.lines().filter_map(|line| line.strip_prefix(SECTION));
        let sections: Vec<_> = sections.flat_map(str::split_whitespace).collect();
        if !sections.is_empty() {
            return sections;
        }
        let marked = self.source.split("@compute").skip(1).filter_map(|text| text.split_once("\nfn "));
        marked.filter_map(|(_, name)| Some(name.split_once('(')?.0)).collect()
    }

    /// Whether a kernel has another text for devices with subgroup operations.
    ///
    /// # Errors
    /// [`Error::Device`] for an include that does not exist.
    pub fn uses_subgroups(&self) -> Result<bool> {
        for kernel in self.kernels() {
            if self.wgsl(kernel, true)? != self.wgsl(kernel, false)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The complete WGSL text for `kernel`, for devices with or without subgroup operations:
    /// includes are resolved, and of the sections that lines `#kernel <names>` begin, only its own
    /// is there.
    ///
    /// # Errors
    /// [`Error::Device`] for an include that does not exist.
    pub fn wgsl(&self, kernel: &str, subgroups: bool) -> Result<String> {
        self.wgsl_from(None, kernel, subgroups)
    }

    /// As [`Shader::wgsl`], with the files of `folder`, laid out as `shaders/`, instead of the
    /// built-in ones.
    pub(super) fn wgsl_from(&self, folder: Option<&Path>, kernel: &str, subgroups: bool) -> Result<String> {
        let source = text(folder, &format!("{}.wgsl", self.name), self.source)?;
        let mut out = String::with_capacity(source.len() + 1024);
        let mut included = true;
        for line in source.lines() {
            if let Some(section) = line.strip_prefix(SECTION) {
                included = section.split_whitespace().any(|name| name == kernel);
            } else if let Some(name) = line.trim().strip_prefix("#include ").filter(|_| included) {
                match INCLUDES.iter().find(|snippet| snippet.name == name.trim()) {
                    Some(snippet) => out.push_str(&snippet.resolve(folder, subgroups)?),
                    None => return Err(Error::Device(format!("shader {}: no include {name}", self.name))),
                }
            } else if included {
                out.push_str(line);
            }
            out.push('\n');
        }
        Ok(out)
    }
}

impl Snippet {
    fn resolve(&self, folder: Option<&Path>, subgroups: bool) -> Result<Cow<'static, str>> {
        match self.subgroups.filter(|_| subgroups) {
            Some(built_in) => text(folder, &format!("include/{}_subgroups.wgsl", self.name), built_in),
            None => text(folder, &format!("include/{}.wgsl", self.name), self.text),
        }
    }
}

/// The text of `file` in `folder`, or the built-in one where there is no folder.
fn text(folder: Option<&Path>, file: &str, built_in: &'static str) -> Result<Cow<'static, str>> {
    match folder.map(|folder| folder.join(file)) {
        Some(path) => std::fs::read_to_string(&path).map(Cow::Owned).map_err(|e| Error::io(&path, e)),
        None => Ok(Cow::Borrowed(built_in)),
    }
}

/// What a kernel can bind.
pub(crate) trait Bind {
    fn storage(&self) -> Result<Arc<Buffer>>;
    fn bytes(&self) -> u64;
}

impl<T: Element> Bind for Tensor<T> {
    fn storage(&self) -> Result<Arc<Buffer>> {
        self.buffer().cloned()
    }

    fn bytes(&self) -> u64 {
        (self.len() * size_of::<T>()) as u64
    }
}

/// Tensors that were allocated together, as one: all of the buffer of which they are parts. Each
/// begins at its [`Tensor::offset`].
pub(crate) struct Together<'a, T: Element>(pub(crate) &'a [&'a Tensor<T>]);

impl<T: Element> Bind for Together<'_, T> {
    fn storage(&self) -> Result<Arc<Buffer>> {
        let wrong = || Error::Device("tensors of several buffers cannot be bound as one".into());
        let (first, others) = self.0.split_first().ok_or_else(wrong)?;
        if !others.iter().all(|other| first.shares_buffer(other)) {
            return Err(wrong());
        }
        Ok(Arc::new(first.buffer()?.whole()))
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|tensor| tensor.bytes()).sum()
    }
}

/// One kernel launch, built up and then run.
///
/// In the WGSL, group 0 binding 0 is the uniform struct of the parameters, and bindings 1, 2, … are
/// the tensors in the order of [`Launch::bind`].
pub(crate) struct Launch {
    shader: &'static Shader,
    kernel: &'static str,
    constants: Vec<(&'static str, f64)>,
    buffers: Vec<Result<Arc<Buffer>>>,
    block: Block,
    params: Vec<u8>,
    workgroups: u64,
    layers: u32,
    cost: u64,
    /// Of the tensors.
    bytes: u64,
}

impl Launch {
    /// A launch of `kernel`.
    pub(crate) fn new<P: Params>(shader: &'static Shader, kernel: &'static str, params: P) -> Self {
        Self {
            shader,
            kernel,
            constants: Vec::new(),
            buffers: Vec::new(),
            block: Block { fields: P::FIELDS, rows: None },
            params: bytemuck::bytes_of(&params).to_vec(),
            workgroups: 0,
            layers: 1,
            cost: 0,
            bytes: 0,
        }
    }

    /// A launch of `kernel` for several things at once: the grid has a layer for each of `rows`,
    /// whose workgroups find it at their `workgroup_id.z`. The uniform struct is one array of N
    /// rows.
    pub(crate) fn table<P: Params, const N: usize>(
        shader: &'static Shader,
        kernel: &'static str,
        rows: impl IntoIterator<Item = P>,
    ) -> Self {
        let rows: Vec<P> = rows.into_iter().take(N).collect();
        let mut params = bytemuck::cast_slice(&rows).to_vec();
        params.resize(N * size_of::<P>(), 0);
        Self {
            block: Block { fields: P::FIELDS, rows: Some(N) },
            params,
            layers: rows.len() as u32,
            ..Self::new(shader, kernel, P::zeroed())
        }
    }

    /// Sets the pipeline constant (`override`) `name`. Every set of values is compiled once.
    pub(crate) fn constant(mut self, name: &'static str, value: impl Into<f64>) -> Self {
        self.constants.push((name, value.into()));
        self
    }

    /// Binds the next tensors. A tensor that the kernel writes must not be bound twice.
    pub(crate) fn bind(mut self, tensors: &[&dyn Bind]) -> Self {
        self.buffers.extend(tensors.iter().map(|tensor| tensor.storage()));
        self.bytes += tensors.iter().map(|tensor| tensor.bytes()).sum::<u64>();
        self
    }

    /// As [`Launch::bind`], for tensors of one type.
    pub(crate) fn bind_all<'a>(self, tensors: impl IntoIterator<Item = &'a Tensor>) -> Self {
        tensors.into_iter().fold(self, |launch, tensor| launch.bind(&[tensor]))
    }

    /// How many workgroups. Past 65,535 they are folded into two dimensions: kernels get their flat
    /// number from `flat_group` of `include/grid.wgsl` and return if it is not below the number
    /// they were told in a parameter.
    pub(crate) fn workgroups(mut self, workgroups: usize) -> Self {
        self.workgroups = workgroups as u64;
        self
    }

    /// As many workgroups of `size` as `threads` need.
    pub(crate) fn threads(self, threads: usize, size: usize) -> Self {
        self.workgroups(threads.div_ceil(size))
    }

    /// An estimate of the arithmetic operations. It bounds the length of a submission.
    pub(crate) fn cost(mut self, operations: usize) -> Self {
        self.cost = operations as u64;
        self
    }

    /// Records the launch; it runs in order with all others. No workgroups: nothing happens.
    pub(crate) fn run(self, queue: Queue) -> Result<()> {
        let Some(gpu) = queue.gpu().filter(|_| self.workgroups > 0 && self.layers > 0) else { return Ok(()) };
        let buffers = self.buffers.into_iter().collect::<Result<Vec<_>>>()?;
        let key = Key { shader: self.shader, kernel: self.kernel, constants: self.constants };
        let pipeline = lock(&gpu.shared.pipelines)?.get(gpu, key, self.block)?;
        if pipeline.bindings != buffers.len() || self.params.len() > MAX_PARAMS {
            return Err(Error::Device(format!(
                "kernel {}::{} takes {} tensors, got {} (and {} bytes of parameters)",
                self.shader.name,
                self.kernel,
                pipeline.bindings,
                buffers.len(),
                self.params.len()
            )));
        }
        pipeline.launches.fetch_add(1, Ordering::Relaxed);
        gpu.shared.bound.fetch_add(self.bytes, Ordering::Relaxed);
        let mut pending = lock(&gpu.shared.pending)?;
        let mut group: GroupKey = (pipeline.id, [[0; 3]; 8]);
        for (key, buffer) in group.1.iter_mut().zip(&buffers) {
            *key = buffer.key();
        }
        let bindings = pending.group(group, |params| {
            let block = wgpu::BufferBinding {
                buffer: params,
                offset: 0,
                size: wgpu::BufferSize::new(self.params.len().next_multiple_of(PARAMS_STRIDE) as u64),
            };
            let blocks = std::iter::once(wgpu::BindingResource::Buffer(block));
            let resources = blocks.chain(buffers.iter().map(|buffer| buffer.binding()));
            let entries: Vec<_> =
                (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource }).collect();
            gpu.shared.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(self.shader.name),
                layout: &pipeline.layout,
                entries: &entries,
            })
        });
        let params = gpu.push_params(&mut pending, &self.params)?;
        let (x, y) = fold(self.workgroups);
        let workgroups = (x, y, self.layers);
        let command = Command::Dispatch { pipeline: pipeline.raw.clone(), bindings, params, workgroups };
        gpu.record(&mut pending, command, self.cost)
    }
}

/// Folds a number of workgroups into a grid of two dimensions with as little excess as possible.
fn fold(workgroups: u64) -> (u32, u32) {
    let rows = workgroups.div_ceil(GRID);
    (workgroups.div_ceil(rows) as u32, rows as u32)
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn folding_covers_the_grid_and_stays_within_limits() {
        for n in [1, 2, 65_534, 65_535, 65_536, 65_537, 131_071, 10_000_000, 4_000_000_000] {
            let (x, y) = fold(n);
            assert!(x <= 65_535 && y <= 65_535, "{n}: {x} x {y}");
            let excess = u64::from(x) * u64::from(y) - n;
            assert!(excess < u64::from(y), "{n}: {x} x {y} wastes {excess}");
        }
    }
}
