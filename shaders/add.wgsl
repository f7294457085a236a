// Sums of tensors of equal shape.

#include grid

struct Params { n: u32 }

@group(0) @binding(0) var<uniform> p: Params;
#kernel forward

@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

// out = a + b, one entry an invocation.
@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.n {
        out[i] = a[i] + b[i];
    }
}

#kernel accumulate

@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read_write> sum: array<f32>;

// sum += a.
@compute @workgroup_size(256)
fn accumulate(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
              @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.n {
        sum[i] += a[i];
    }
}
