//! What `gossamer devices` lists.

use super::gpu;

/// One graphics adapter, described.
#[derive(Debug, Clone, serde::Serialize)]
pub struct AdapterSummary {
    /// The index that `--device gpu:<index>` takes.
    pub index: usize,
    /// The adapter's name.
    pub name: String,
    /// Vulkan, Metal, Dx12 or Gl.
    pub backend: String,
    /// The driver's name and version.
    pub driver: String,
    /// DiscreteGpu, IntegratedGpu, VirtualGpu, Cpu or Other.
    pub kind: String,
    /// Whether it has compute shaders, without which gossamer cannot use it.
    pub computes: bool,
    /// Largest storage buffer that a kernel can bind, in bytes.
    pub largest_binding: u64,
    /// Largest buffer, in bytes.
    pub largest_buffer: u64,
    /// Shared memory of a workgroup, in bytes.
    pub workgroup_memory: u32,
    /// Most invocations in a workgroup.
    pub workgroup_invocations: u32,
    /// Storage buffers a kernel can bind.
    pub storage_buffers: u32,
    /// Sizes a subgroup can have.
    pub subgroup: (u32, u32),
    /// The optional features that it has and that fast paths can use.
    pub features: Vec<String>,
}

/// The adapters of this machine, hardware first; none where there is no driver.
pub fn adapters() -> Vec<AdapterSummary> {
    let optional = [
        ("subgroups", wgpu::Features::SUBGROUP),
        ("f16", wgpu::Features::SHADER_F16),
        ("timestamps", wgpu::Features::TIMESTAMP_QUERY),
        ("pipeline cache", wgpu::Features::PIPELINE_CACHE),
    ];
    let list = gpu::enumerate();
    list.iter()
        .enumerate()
        .map(|(index, adapter)| {
            let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
            AdapterSummary {
                index,
                name: info.name,
                backend: info.backend.to_string(),
                driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
                kind: format!("{:?}", info.device_type),
                computes: gpu::computes(adapter),
                largest_binding: limits.max_storage_buffer_binding_size,
                largest_buffer: limits.max_buffer_size,
                workgroup_memory: limits.max_compute_workgroup_storage_size,
                workgroup_invocations: limits.max_compute_invocations_per_workgroup,
                storage_buffers: limits.max_storage_buffers_per_shader_stage,
                subgroup: (info.subgroup_min_size, info.subgroup_max_size),
                features: optional.iter().filter(|(_, f)| features.contains(*f)).map(|(n, _)| n.to_string()).collect(),
            }
        })
        .collect()
}
