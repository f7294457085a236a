// Cross-entropy of next-token predictions: logits x (rows, width), one target a row. A target that
// is not below the width means that the row has none.

#include grid
#include lanes

const LANES: u32 = 256u;

#kernel forward

#include log_sum

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> losses: array<f32>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

// lse = log(sum of e^x), loss = lse - x[target]: one workgroup a row.
@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(wid, grid);
    if row >= p.rows { return; }
    let start = row * p.width;
    let sums = row_log_sum(lane, start, p.width);
    if lane == 0u {
        lse[row] = sums.x + sums.y;
        var loss = 0.0;
        if targets[row] < p.width {
            // In this order small losses keep their digits when the logits are large.
            loss = (sums.x - x[start + targets[row]]) + sums.y;
        }
        losses[row] = loss;
    }
}

#kernel sum

struct Params { n: u32, chunk: u32, workgroups: u32, divisor: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> terms: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

// sums[group] = (sum of the group's chunk of terms) / divisor
@compute @workgroup_size(256)
fn sum(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
       @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    if group >= p.workgroups { return; }
    let start = group * p.chunk;
    let end = min(start + p.chunk, p.n);
    var part = 0.0;
    for (var i = start + lane; i < end; i += LANES) {
        part += terms[i];
    }
    let total = sum_lanes(lane, part);
    if lane == 0u {
        sums[group] = total / p.divisor;
    }
}

#kernel backward

struct Params { rows: u32, width: u32, count: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dloss: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> targets: array<u32>;
@group(0) @binding(4) var<storage, read> lse: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;

// dx = (softmax(x) - onehot) dloss / count, one entry an invocation.
@compute @workgroup_size(256)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i >= p.rows * p.width { return; }
    let row = i / p.width;
    let token = targets[row];
    var d = 0.0;
    if token < p.width {
        let scale = dloss[0] / p.count;
        d = exp(x[i] - lse[row]) * scale;
        if i - row * p.width == token {
            d -= scale;
        }
    }
    dx[i] = d;
}
