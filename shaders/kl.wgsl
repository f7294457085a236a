// KL(p || q) of rows: p the softmax of targets (block, width), q that of logits (n, block, width),
// or that over the entries alone at which log p is at least `floor`.

#include grid
#include lanes

const LANES: u32 = 256u;

#kernel log_sum_exp

#include log_sum

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;

// lse = log(sum of e^x): one workgroup a row.
@compute @workgroup_size(256)
fn log_sum_exp(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
               @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(wid, grid);
    if row >= p.rows { return; }
    let sums = row_log_sum(lane, row * p.width, p.width);
    if lane == 0u {
        lse[row] = sums.x + sums.y;
    }
}

#kernel support_log_sum_exp

// `rows` of logits x, `block` of targets.
struct Params { rows: u32, width: u32, block: u32, floor: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> targets: array<f32>;
@group(0) @binding(3) var<storage, read> target_lse: array<f32>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

// lse = log(sum of e^x over the support): one workgroup a row.
@compute @workgroup_size(256)
fn support_log_sum_exp(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                       @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(wid, grid);
    if row >= p.rows { return; }
    let target_start = row % p.block * p.width;
    let least = target_lse[row % p.block] + p.floor;
    // Lanes without an entry hold the lowest float: no infinities needed.
    var best = -3.4028234e38;
    for (var c = lane; c < p.width; c += LANES) {
        best = select(best, max(best, x[row * p.width + c]), targets[target_start + c] >= least);
    }
    let top = max_lanes(lane, best);
    var part = 0.0;
    for (var c = lane; c < p.width; c += LANES) {
        if targets[target_start + c] >= least {
            part += exp(x[row * p.width + c] - top);
        }
    }
    let sum = sum_lanes(lane, part);
    if lane == 0u {
        lse[row] = top + log(sum);
    }
}

#kernel divergence

// `rows` of logits x, `block` of targets.
struct Params { rows: u32, width: u32, block: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> targets: array<f32>;
@group(0) @binding(3) var<storage, read> lse: array<f32>;
@group(0) @binding(4) var<storage, read> target_lse: array<f32>;
@group(0) @binding(5) var<storage, read_write> losses: array<f32>;

// losses = sum of p (log p - log q): one workgroup a row.
@compute @workgroup_size(256)
fn divergence(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
              @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(wid, grid);
    if row >= p.rows { return; }
    let target_row = row % p.block;
    var part = 0.0;
    for (var c = lane; c < p.width; c += LANES) {
        let log_p = targets[target_row * p.width + c] - target_lse[target_row];
        let log_q = x[row * p.width + c] - lse[row];
        part += exp(log_p) * (log_p - log_q);
    }
    let total = sum_lanes(lane, part);
    if lane == 0u {
        losses[row] = total;
    }
}

#kernel mean

struct Params { blocks: u32, block: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> losses: array<f32>;
@group(0) @binding(2) var<storage, read_write> means: array<f32>;

// One workgroup a block.
@compute @workgroup_size(256)
fn mean(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let block = flat_group(wid, grid);
    if block >= p.blocks { return; }
    var part = 0.0;
    for (var i = lane; i < p.block; i += LANES) {
        part += losses[block * p.block + i];
    }
    let total = sum_lanes(lane, part);
    if lane == 0u {
        means[block] = total / f32(p.block);
    }
}

#kernel backward

// `rows` of logits x, `block` of targets.
struct Params { rows: u32, width: u32, block: u32, floor: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> targets: array<f32>;
@group(0) @binding(3) var<storage, read> lse: array<f32>;
@group(0) @binding(4) var<storage, read> target_lse: array<f32>;
@group(0) @binding(5) var<storage, read> dloss: array<f32>;
@group(0) @binding(6) var<storage, read_write> dlogits: array<f32>;

// dlogits = (q - p) dloss[block] / block, where q is 0 outside of the support; one entry an
// invocation.
@compute @workgroup_size(256)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i >= p.rows * p.width { return; }
    let row = i / p.width;
    let target_row = row % p.block;
    let log_p = targets[target_row * p.width + i % p.width] - target_lse[target_row];
    let q = select(exp(x[i] - lse[row]), 0.0, log_p < p.floor);
    dlogits[i] = (q - exp(log_p)) * dloss[row / p.block] / f32(p.block);
}
