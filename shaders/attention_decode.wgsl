// Attention of one query a sequence. q, y: (B, 1, H·D); keys, values: (B, capacity, H·D); scores:
// (B, H, length).

#include grid

#kernel score

struct Params {
    // B · H · length
    n: u32,
    // The first time that the query sees, and how many.
    first: u32,
    length: u32,
    capacity: u32,
    heads: u32,
    // D
    width: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> keys: array<f32>;
@group(0) @binding(3) var<storage, read_write> scores: array<f32>;

// Where the channels of head `at % heads` of sequence `at / heads` begin at the first time.
fn start(at: u32) -> u32 {
    return (at / p.heads * p.capacity + p.first) * p.heads * p.width + at % p.heads * p.width;
}

// One product of the query with a key an invocation.
@compute @workgroup_size(64)
fn score(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 64u + lane;
    if i >= p.n {
        return;
    }
    let at = i / p.length;
    let key = start(at) + i % p.length * p.heads * p.width;
    var sum = 0.0;
    for (var c = 0u; c < p.width; c++) {
        sum += q[at * p.width + c] * keys[key + c];
    }
    scores[i] = sum * p.scale;
}

#kernel mix

#include lanes

const LANES: u32 = 64u;

struct Params {
    // B · H · length
    n: u32,
    // The first time that the query sees, and how many.
    first: u32,
    length: u32,
    capacity: u32,
    heads: u32,
    // D
    width: u32,
    has_sink: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> scores: array<f32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read> sink: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// Where the channels of head `at % heads` of sequence `at / heads` begin at the first time.
fn start(at: u32) -> u32 {
    return (at / p.heads * p.capacity + p.first) * p.heads * p.width + at % p.heads * p.width;
}

// A head a workgroup. All invocations find the largest score and the sum of exponentials together;
// then each takes channels of its own through all times.
@compute @workgroup_size(64)
fn mix(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
       @builtin(local_invocation_index) lane: u32) {
    let at = flat_group(wid, grid);
    if at >= p.n / p.length {
        return;
    }
    let first = at * p.length;
    var top = scores[first];
    for (var j = lane; j < p.length; j += LANES) {
        top = max(top, scores[first + j]);
    }
    top = max_lanes(lane, top);
    if p.has_sink != 0u {
        top = max(top, sink[at % p.heads]);
    }
    var sum = 0.0;
    for (var j = lane; j < p.length; j += LANES) {
        sum += exp(scores[first + j] - top);
    }
    var total = sum_lanes(lane, sum);
    if p.has_sink != 0u {
        total += exp(sink[at % p.heads] - top);
    }
    for (var c = lane; c < p.width; c += LANES) {
        var mixed = 0.0;
        for (var j = 0u; j < p.length; j++) {
            mixed += exp(scores[first + j] - top) * values[start(at) + j * p.heads * p.width + c];
        }
        y[at * p.width + c] = mixed / total;
    }
}
