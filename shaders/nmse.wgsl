// Squared errors of rows, each relative to the squared distance of its target from the mean of all
// targets.

#include grid
#include lanes

const LANES: u32 = 256u;

#kernel measure

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> targets: array<f32>;
@group(0) @binding(3) var<storage, read> sums: array<f32>;
@group(0) @binding(4) var<storage, read_write> errors: array<f32>;
@group(0) @binding(5) var<storage, read_write> distances: array<f32>;

// errors = |x - target|^2 and distances = |target - mean|^2, where sums = rows * mean: one
// workgroup a row.
@compute @workgroup_size(256)
fn measure(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(wid, grid);
    if row >= p.rows { return; }
    var error = 0.0;
    var distance = 0.0;
    for (var c = lane; c < p.width; c += LANES) {
        let t = targets[row * p.width + c];
        let off = x[row * p.width + c] - t;
        let away = t - sums[c] / f32(p.rows);
        error += off * off;
        distance += away * away;
    }
    let error_sum = sum_lanes(lane, error);
    let distance_sum = sum_lanes(lane, distance);
    if lane == 0u {
        errors[row] = error_sum;
        distances[row] = distance_sum;
    }
}

#kernel weigh

struct Params { rows: u32, width: u32, least: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> errors: array<f32>;
@group(0) @binding(2) var<storage, read> distances: array<f32>;
@group(0) @binding(3) var<storage, read> sums: array<f32>;
@group(0) @binding(4) var<storage, read_write> weights: array<f32>;
@group(0) @binding(5) var<storage, read_write> loss: array<f32>;

// weights = 1 / (rows * distance), or 0 for rows at the mean; loss = sum of weights * errors. One
// workgroup.
@compute @workgroup_size(256)
fn weigh(@builtin(local_invocation_index) lane: u32) {
    var part = 0.0;
    for (var r = lane; r < p.rows; r += LANES) {
        part += distances[r];
    }
    part /= f32(p.rows);
    for (var c = lane; c < p.width; c += LANES) {
        let mean = sums[c] / f32(p.rows);
        part += mean * mean;
    }
    let least = p.least * sum_lanes(lane, part);
    var loss_part = 0.0;
    for (var r = lane; r < p.rows; r += LANES) {
        var weight = 0.0;
        if distances[r] > least {
            weight = 1.0 / (f32(p.rows) * distances[r]);
        }
        weights[r] = weight;
        loss_part += weight * errors[r];
    }
    let total = sum_lanes(lane, loss_part);
    if lane == 0u {
        loss[0] = total;
    }
}

#kernel backward

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> targets: array<f32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read> dloss: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;

// dx = 2 (x - target) weight dloss, one entry an invocation.
@compute @workgroup_size(256)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.rows * p.width {
        dx[i] = 2.0 * (x[i] - targets[i]) * weights[i / p.width] * dloss[0];
    }
}
