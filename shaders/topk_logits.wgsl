// Predictions cut down to the most probable entries of each row.

#include grid

struct Rows { rows: u32, v: u32 }

@group(0) @binding(0) var<uniform> p: Rows;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> lse: array<f32>;
@group(0) @binding(3) var<storage, read_write> probability: array<f32>;

// One entry an invocation, as below.
@compute @workgroup_size(256)
fn probabilities(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i >= p.rows * p.v { return; }
    probability[i] = exp(x[i] - lse[i / p.v]);
}

struct Cut { rows: u32, v: u32, depth: f32 }

@group(0) @binding(0) var<uniform> c: Cut;
@group(0) @binding(3) var<storage, read> kept: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(256)
fn cut(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
       @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i >= c.rows * c.v { return; }
    y[i] = select(lse[i / c.v] - c.depth, x[i], kept[i] > 0.0);
}
