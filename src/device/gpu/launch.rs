//! How an operation starts its kernel.

use super::pipeline::Key;
use super::queue::Command;
use super::{Buffer, Gpu, lock};
use crate::device::{Element, Tensor};
use crate::{Error, Result};

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

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
    /// What takes its place where the device has subgroups.
    subgroups: Option<&'static str>,
}

/// All there are, and with them all variants in which a shader comes.
const INCLUDES: &[Snippet] = &[
    Snippet { name: "grid", text: include_str!("../../../shaders/include/grid.wgsl"), subgroups: None },
    Snippet {
        name: "lanes",
        text: include_str!("../../../shaders/include/lanes.wgsl"),
        subgroups: Some(include_str!("../../../shaders/include/lanes_subgroups.wgsl")),
    },
    Snippet { name: "log_sum", text: include_str!("../../../shaders/include/log_sum.wgsl"), subgroups: None },
    Snippet {
        name: "prefix_select",
        text: include_str!("../../../shaders/include/prefix_select.wgsl"),
        subgroups: Some(include_str!("../../../shaders/include/prefix_select_subgroups.wgsl")),
    },
];

impl Shader {
    /// Names a shader's text.
    pub const fn new(name: &'static str, source: &'static str) -> Self {
        Self { name, source }
    }

    /// The complete WGSL text, includes resolved, for devices with or without subgroup operations.
    ///
    /// # Errors
    /// [`Error::Device`] for an include that does not exist.
    pub fn wgsl(&self, subgroups: bool) -> Result<String> {
        self.wgsl_from(None, subgroups)
    }

    /// As [`Shader::wgsl`], with the files of `folder`, laid out as `shaders/` is, in place of the built-in ones.
    ///
    /// # Errors
    /// As [`Shader::wgsl`], and [`Error::Io`] for a file that cannot be read.
    pub(super) fn wgsl_from(&self, folder: Option<&Path>, subgroups: bool) -> Result<String> {
        let source = text(folder, &format!("{}.wgsl", self.name), self.source)?;
        let mut out = String::with_capacity(source.len() + 1024);
        for line in source.lines() {
            match line.trim().strip_prefix("#include ") {
                Some(name) => match INCLUDES.iter().find(|snippet| snippet.name == name.trim()) {
                    Some(snippet) => out.push_str(&snippet.resolve(folder, subgroups)?),
                    None => return Err(Error::Device(format!("shader {}: no include {name}", self.name))),
                },
                None => out.push_str(line),
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

/// One kernel launch, built up and then run.
///
/// In the WGSL, group 0 binding 0 is the uniform parameter block, filled with [`Launch::word`] and [`Launch::float`]
/// in order (scalars only), and bindings 1, 2, … are the tensors in the order of [`Launch::bind`]. Entry points of one
/// file may declare different globals under the same binding number.
pub struct Launch {
    shader: &'static Shader,
    entry: &'static str,
    constants: Vec<(&'static str, f64)>,
    buffers: Vec<Result<Arc<Buffer>>>,
    params: Vec<u32>,
    groups: u64,
    work: u64,
}

impl Launch {
    /// A launch of entry point `entry`.
    pub fn new(shader: &'static Shader, entry: &'static str) -> Self {
        Self { shader, entry, constants: Vec::new(), buffers: Vec::new(), params: Vec::new(), groups: 0, work: 0 }
    }

    /// Sets the pipeline constant (`override`) `name`. Every set of values is compiled once.
    pub fn constant(mut self, name: &'static str, value: impl Into<f64>) -> Self {
        self.constants.push((name, value.into()));
        self
    }

    /// Binds the next tensor. A tensor that the kernel writes must not be bound twice.
    pub fn bind<T: Element>(mut self, tensor: &Tensor<T>) -> Self {
        self.buffers.push(tensor.buffer().cloned());
        self
    }

    /// Appends an integer parameter.
    pub fn word(mut self, value: usize) -> Self {
        self.params.push(value as u32);
        self
    }

    /// Appends a float parameter.
    pub fn float(mut self, value: f32) -> Self {
        self.params.push(value.to_bits());
        self
    }

    /// How many workgroups. Past 65,535 they are folded into two dimensions: kernels get their flat number from
    /// `flat_group` of `include/grid.wgsl` and return if it is not below the number they were told in a parameter.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups as u64;
        self
    }

    /// As [`Launch::groups`], for `items` handled `size` a workgroup.
    pub fn items(self, items: usize, size: usize) -> Self {
        self.groups(items.div_ceil(size))
    }

    /// An estimate of the arithmetic operations, by which submissions are kept short.
    pub fn work(mut self, operations: usize) -> Self {
        self.work = operations as u64;
        self
    }

    /// Records the launch; it runs in order with all others. No workgroups: nothing happens.
    ///
    /// # Errors
    /// [`Error::Device`] if the kernel does not compile or the tensors do not match its bindings.
    pub fn run(self, gpu: &Gpu) -> Result<()> {
        if self.groups == 0 {
            return Ok(());
        }
        let buffers = self.buffers.into_iter().collect::<Result<Vec<_>>>()?;
        let key = Key::new(self.shader, self.entry, &self.constants);
        let pipeline = lock(&gpu.shared.pipelines)?.get(gpu, key)?;
        if pipeline.bindings != buffers.len() || self.params.len() * 4 > super::queue::PARAMS_STRIDE {
            return Err(Error::Device(format!(
                "kernel {}::{} takes {} tensors, got {} (and {} parameters)",
                self.shader.name,
                self.entry,
                pipeline.bindings,
                buffers.len(),
                self.params.len()
            )));
        }
        let mut pending = lock(&gpu.shared.pending)?;
        let mut entries = vec![wgpu::BindGroupEntry {
            binding: 0,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &pending.params_buffer,
                offset: 0,
                size: wgpu::BufferSize::new(super::queue::PARAMS_STRIDE as u64),
            }),
        }];
        for (i, buffer) in buffers.iter().enumerate() {
            entries.push(wgpu::BindGroupEntry { binding: i as u32 + 1, resource: buffer.raw()?.as_entire_binding() });
        }
        let bindings = gpu.shared.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(self.shader.name),
            layout: &pipeline.layout,
            entries: &entries,
        });
        drop(entries);
        let params = pending.push_params(&self.params);
        let command = Command::Dispatch { pipeline: pipeline.raw.clone(), bindings, params, groups: fold(self.groups) };
        gpu.record(&mut pending, command, self.work)
    }
}

/// Folds a number of workgroups into a grid of two dimensions with as little excess as possible.
fn fold(groups: u64) -> (u32, u32) {
    let rows = groups.div_ceil(GRID);
    (groups.div_ceil(rows) as u32, rows as u32)
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
