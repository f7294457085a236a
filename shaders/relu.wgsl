// The rectifier, one entry an invocation.

#include grid

struct Params { n: u32 }

@group(0) @binding(0) var<uniform> p: Params;
#kernel forward

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

// y = max(x, 0)
@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.n {
        // Not max(): that would hide a NaN.
        y[i] = select(x[i], 0.0, x[i] <= 0.0);
    }
}

#kernel backward

@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

// dx = dout where x > 0
@compute @workgroup_size(256)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.n {
        dx[i] = select(0.0, dout[i], x[i] > 0.0);
    }
}
