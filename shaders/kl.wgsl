// KL(p || q) of rows: p the softmax of a target (rows, v), q that of blocks of logits (n, rows, v) with as many rows each.

#include grid
#include lanes
#include log_sum

const LANES: u32 = 256u;

struct Rows { rows: u32, v: u32 }

@group(0) @binding(0) var<uniform> p: Rows;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> lse_out: array<f32>;

// lse = log(sum of e^x): one workgroup a row.
@compute @workgroup_size(256)
fn log_sum_exp(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
               @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(wid, grid);
    if row >= p.rows { return; }
    let sums = row_log_sum(lane, row * p.v, p.v);
    if lane == 0u {
        lse_out[row] = sums.x + sums.y;
    }
}

// `rows` of logits, `block` of target.
struct Blocks { rows: u32, v: u32, block: u32 }

@group(0) @binding(0) var<uniform> b: Blocks;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> wanted: array<f32>;
@group(0) @binding(3) var<storage, read> lse: array<f32>;
@group(0) @binding(4) var<storage, read> wanted_lse: array<f32>;
@group(0) @binding(5) var<storage, read_write> losses: array<f32>;

// losses = sum of p (log p - log q): one workgroup a row.
@compute @workgroup_size(256)
fn divergence(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
              @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(wid, grid);
    if row >= b.rows { return; }
    let target_row = row % b.block;
    var part = 0.0;
    for (var c = lane; c < b.v; c += LANES) {
        let log_p = wanted[target_row * b.v + c] - wanted_lse[target_row];
        let log_q = logits[row * b.v + c] - lse[row];
        part += exp(log_p) * (log_p - log_q);
    }
    let total = sum_lanes(lane, part);
    if lane == 0u {
        losses[row] = total;
    }
}

struct Mean { blocks: u32, block: u32 }

@group(0) @binding(0) var<uniform> m: Mean;
@group(0) @binding(1) var<storage, read> terms: array<f32>;
@group(0) @binding(2) var<storage, read_write> means: array<f32>;

// One workgroup a block.
@compute @workgroup_size(256)
fn mean(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let block = flat_group(wid, grid);
    if block >= m.blocks { return; }
    var part = 0.0;
    for (var i = lane; i < m.block; i += LANES) {
        part += terms[block * m.block + i];
    }
    let total = sum_lanes(lane, part);
    if lane == 0u {
        means[block] = total / f32(m.block);
    }
}

@group(0) @binding(5) var<storage, read> dloss: array<f32>;
@group(0) @binding(6) var<storage, read_write> dlogits: array<f32>;

// dlogits = (q - p) dloss[block] / block, one entry an invocation.
@compute @workgroup_size(256)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i >= b.rows * b.v { return; }
    let row = i / b.v;
    let target_row = row % b.block;
    let want = exp(wanted[target_row * b.v + i % b.v] - wanted_lse[target_row]);
    dlogits[i] = (exp(logits[i] - lse[row]) - want) * dloss[row / b.block] / f32(b.block);
}
