//! Compiled kernels, by what they were compiled from.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wgpu::naga;

use super::Gpu;
use super::cache::Compiled;
use super::launch::Shader;
use super::params::{self, Block};
use crate::{Error, Result};

/// What a pipeline is compiled from.
pub(super) struct Key {
    pub(super) shader: &'static Shader,
    pub(super) kernel: &'static str,
    pub(super) constants: Vec<(&'static str, f64)>,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (self.shader.name, self.kernel) == (other.shader.name, other.kernel) && self.bits().eq(other.bits())
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.shader.name, self.kernel).hash(state);
        self.bits().for_each(|constant| constant.hash(state));
    }
}

impl Key {
    fn bits(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.constants.iter().map(|(name, value)| (*name, value.to_bits()))
    }

    fn text(&self) -> String {
        let mut text = format!("{}::{}", self.shader.name, self.kernel);
        for (name, value) in &self.constants {
            text.push_str(&format!(" {name}={value}"));
        }
        text
    }
}

pub(super) struct Pipeline {
    /// Its number among all.
    pub(super) id: u64,
    pub(super) raw: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
    /// Tensors it takes.
    pub(super) bindings: usize,
    /// How often it was launched.
    pub(super) launches: AtomicU64,
}

struct Module {
    raw: wgpu::ShaderModule,
    ir: naga::Module,
    info: naga::valid::ModuleInfo,
}

#[derive(Default)]
pub(super) struct Pipelines {
    modules: HashMap<(&'static str, &'static str), Arc<Module>>,
    pipelines: HashMap<Key, Arc<Pipeline>>,
}

impl Pipelines {
    /// What has been compiled, as `shader::kernel CONSTANT=value`, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.pipelines.keys().map(Key::text).collect();
        names.sort();
        names
    }

    /// How often each kernel was launched, whatever its constants.
    pub(super) fn launches(&self) -> BTreeMap<String, u64> {
        let mut launches = BTreeMap::new();
        for (key, pipeline) in &self.pipelines {
            let kernel = format!("{}::{}", key.shader.name, key.kernel);
            *launches.entry(kernel).or_default() += pipeline.launches.load(Ordering::Relaxed);
        }
        launches
    }

    pub(super) fn get(&mut self, gpu: &Gpu, key: Key, block: Block) -> Result<Arc<Pipeline>> {
        if let Some(pipeline) = self.pipelines.get(&key) {
            return Ok(pipeline.clone());
        }
        let text = key.text();
        let failed = |reason: String| Error::Device(format!("kernel {text}: {reason}"));
        let module = self.module(gpu, key.shader, key.kernel)?;
        let device = &gpu.shared.device;
        let index = module.ir.entry_points.iter().position(|e| e.name == key.kernel);
        let uses =
            module.info.get_entry_point(index.ok_or_else(|| failed("the shader has no such entry point".into()))?);
        params::check(&module.ir, uses, block).map_err(failed)?;
        let entries = layout_entries(&module.ir, uses);
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let layout =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(&text), entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&text),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let raw = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&text),
            layout: Some(&pipeline_layout),
            module: &module.raw,
            entry_point: Some(key.kernel),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &key.constants,
                zero_initialize_workgroup_memory: gpu.shared.options.checked,
            },
            cache: gpu.shared.compiled.as_ref().map(Compiled::raw),
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(failed(error.to_string()));
        }
        let bindings = entries.len() - 1;
        let pipeline =
            Arc::new(Pipeline { id: self.pipelines.len() as u64, raw, layout, bindings, launches: AtomicU64::new(0) });
        self.pipelines.insert(key, pipeline.clone());
        Ok(pipeline)
    }

    fn module(&mut self, gpu: &Gpu, shader: &'static Shader, kernel: &'static str) -> Result<Arc<Module>> {
        if let Some(module) = self.modules.get(&(shader.name, kernel)) {
            return Ok(module.clone());
        }
        let failed = |reason: String| Error::Device(format!("shader {}: {reason}", shader.name));
        let folder = gpu.shared.options.shaders.as_deref();
        let wgsl = shader.wgsl_from(folder, kernel, gpu.subgroups())?;
        let ir = naga::front::wgsl::parse_str(&wgsl).map_err(|e| failed(e.emit_to_string(&wgsl)))?;
        let mut capabilities = naga::valid::Capabilities::empty();
        capabilities.set(naga::valid::Capabilities::SUBGROUP, gpu.subgroups());
        let info = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities)
            .validate(&ir)
            .map_err(|e| failed(e.emit_to_string(&wgsl)))?;
        let scope = gpu.shared.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(shader.name), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
        let device = &gpu.shared.device;
        let raw = if gpu.shared.options.checked || folder.is_some() {
            device.create_shader_module(descriptor)
        } else {
            // SAFETY: the text is one of this crate's own shaders; those of a folder, which a user
            // may have written, take the branch above. Each shader guards its indices by the shapes
            // that its launch was given, every loop counts up to an end, no divisor is zero, and
            // workgroup memory is written before it is read. Only this crate makes the indices of
            // sparse matrices. Tests run every kernel both ways.
            unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
        };
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(failed(error.to_string()));
        }
        let module = Arc::new(Module { raw, ir, info });
        self.modules.insert((shader.name, kernel), module.clone());
        Ok(module)
    }
}

/// The bind group layout of an entry point: the parameters at binding 0, and the storage buffers
/// that it uses.
fn layout_entries(module: &naga::Module, uses: &naga::valid::FunctionInfo) -> Vec<wgpu::BindGroupLayoutEntry> {
    let buffer = |binding, ty, has_dynamic_offset| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
        count: None,
    };
    let mut entries = vec![buffer(0, wgpu::BufferBindingType::Uniform, true)];
    for (handle, global) in module.global_variables.iter() {
        if let (naga::AddressSpace::Storage { access }, Some(binding)) = (global.space, &global.binding)
            && !uses[handle].is_empty()
        {
            let read_only = !access.contains(naga::StorageAccess::STORE);
            entries.push(buffer(binding.binding, wgpu::BufferBindingType::Storage { read_only }, false));
        }
    }
    entries.sort_by_key(|e| e.binding);
    entries
}
