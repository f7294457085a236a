// Predictions cut down to the most probable entries of each row.

#include grid

#kernel probabilities

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> lse: array<f32>;
@group(0) @binding(3) var<storage, read_write> probability: array<f32>;

// One entry an invocation, as below.
@compute @workgroup_size(256)
fn probabilities(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i >= p.rows * p.width { return; }
    probability[i] = exp(x[i] - lse[i / p.width]);
}

#kernel cut

struct Params { rows: u32, width: u32, depth: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> lse: array<f32>;
@group(0) @binding(3) var<storage, read> kept: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn cut(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
       @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i >= p.rows * p.width { return; }
    y[i] = select(lse[i / p.width] - p.depth, x[i], kept[i] > 0.0);
}
