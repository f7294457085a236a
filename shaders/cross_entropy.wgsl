// Cross-entropy of next-token predictions: logits x (rows, v), one target a row. A target that is not below v means that the
// row has none.

#include grid
#include lanes
#include log_sum

const LANES: u32 = 256u;

struct Forward { rows: u32, v: u32 }

@group(0) @binding(0) var<uniform> p: Forward;
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
    let start = row * p.v;
    let sums = row_log_sum(lane, start, p.v);
    if lane == 0u {
        lse[row] = sums.x + sums.y;
        var loss = 0.0;
        if targets[row] < p.v {
            // In this order small losses keep their digits when the logits are large.
            loss = (sums.x - x[start + targets[row]]) + sums.y;
        }
        losses[row] = loss;
    }
}

struct Sum { n: u32, chunk: u32, groups: u32, divisor: f32 }

@group(0) @binding(0) var<uniform> s: Sum;
@group(0) @binding(1) var<storage, read> terms: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

// sums[group] = (sum of the group's chunk of terms) / divisor
@compute @workgroup_size(256)
fn sum(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
       @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    if group >= s.groups { return; }
    let start = group * s.chunk;
    let end = min(start + s.chunk, s.n);
    var part = 0.0;
    for (var i = start + lane; i < end; i += LANES) {
        part += terms[i];
    }
    let total = sum_lanes(lane, part);
    if lane == 0u {
        sums[group] = total / s.divisor;
    }
}

struct Backward { rows: u32, v: u32, count: f32 }

@group(0) @binding(0) var<uniform> b: Backward;
@group(0) @binding(1) var<storage, read> dloss: array<f32>;
@group(0) @binding(2) var<storage, read> logits: array<f32>;
@group(0) @binding(3) var<storage, read> wanted: array<u32>;
@group(0) @binding(4) var<storage, read> row_lse: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;

// dx = (softmax(x) - onehot) dloss / count, one entry an invocation.
@compute @workgroup_size(256)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i >= b.rows * b.v { return; }
    let row = i / b.v;
    let answer = wanted[row];
    var d = 0.0;
    if answer < b.v {
        let scale = dloss[0] / b.count;
        d = exp(logits[i] - row_lse[row]) * scale;
        if i - row * b.v == answer {
            d -= scale;
        }
    }
    dx[i] = d;
}
