// Causal attention. q, k, v, y: (B, T, H·D), heads next to each other; lse, delta: (B, H, T).
//
// The kernels over blocks give each of 64 invocations one query (or key), which it holds in
// registers, and stage keys and values (or queries and output gradients) in tiles that all of them
// read. Channels go by fours, padded with zeros. A key that the query does not see is left out by
// its index, so that no infinities are needed.

#include grid

// Channels of a head.
override D: u32 = 16u;

#kernel forward

#include attention_blocks

@group(0) @binding(4) var<storage, read> sink: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;

// One query an invocation; the softmax is kept relative to the largest score met so far, as in
// flash attention (Dao et al. 2022).
@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    if group >= p.workgroups { return; }
    let at = block_of(group);
    let t = at.first + lane;
    let row = at.base + t * at.stride;
    var query: array<vec4<f32>, 32>;
    var sums: array<vec4<f32>, 32>;
    if t < p.t {
        for (var c = 0u; c < QUADS; c++) {
            query[c] = load_q(row, c) * p.scale;
        }
    }
    var top = 0.0;
    var sum = 0.0;
    if p.has_sink == 1u {
        top = sink[at.head];
        sum = 1.0;
    }
    let end = min(at.first + 64u, p.t);
    for (var start = first_key(at.first) / TILE * TILE; start < end; start += TILE) {
        let n = min(TILE, end - start);
        stage_keys(at, lane, start, n);
        workgroupBarrier();
        var seen = 0u;
        if t < p.t && t >= start {
            seen = min(n, t + 1u - start);
        }
        for (var j = max(first_key(t), start) - start; j < seen; j++) {
            var score = 0.0;
            for (var c = 0u; c < QUADS; c++) {
                score += dot(query[c], tile_a[j * QUADS + c]);
            }
            // No sum means no score yet: the first one is the largest.
            if sum == 0.0 || score > top {
                let shrink = exp(min(top - score, 0.0));
                sum *= shrink;
                for (var c = 0u; c < QUADS; c++) {
                    sums[c] *= shrink;
                }
                top = score;
            }
            let weight = exp(score - top);
            sum += weight;
            for (var c = 0u; c < QUADS; c++) {
                sums[c] += weight * tile_b[j * QUADS + c];
            }
        }
        workgroupBarrier();
    }
    if t >= p.t { return; }
    lse[at.stats + t] = top + log(sum);
    for (var c = 0u; c < QUADS; c++) {
        let i = row + 4u * c;
        let out = sums[c] / sum;
        let kept = exists(c);
        y[i] = out.x;
        if kept.y { y[i + 1u] = out.y; }
        if kept.z { y[i + 2u] = out.z; }
        if kept.w { y[i + 3u] = out.w; }
    }
}

#kernel backward_delta

struct Params { t: u32, heads: u32, n: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> y: array<f32>;
@group(0) @binding(3) var<storage, read_write> delta: array<f32>;

// delta = dout · y, one query of one head an invocation.
@compute @workgroup_size(256)
fn backward_delta(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i >= p.n { return; }
    let at = i / p.t;
    let row = ((at / p.heads * p.t + i % p.t) * p.heads + at % p.heads) * D;
    var sum = 0.0;
    for (var c = row; c < row + D; c++) {
        sum += dout[c] * y[c];
    }
    delta[i] = sum;
}

#kernel backward_query backward_key

#include attention_blocks

@group(0) @binding(4) var<storage, read> dout: array<f32>;
@group(0) @binding(5) var<storage, read> lse: array<f32>;
@group(0) @binding(6) var<storage, read> delta: array<f32>;
@group(0) @binding(7) var<storage, read_write> dq: array<f32>;

fn load_dout(row: u32, c: u32) -> vec4<f32> {
    let i = indices(row, c);
    return select(vec4<f32>(), vec4<f32>(dout[i.x], dout[i.y], dout[i.z], dout[i.w]), exists(c));
}

// One query an invocation, over tiles of keys: dq.
@compute @workgroup_size(64)
fn backward_query(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    if group >= p.workgroups { return; }
    let at = block_of(group);
    let t = at.first + lane;
    let row = at.base + t * at.stride;
    var query: array<vec4<f32>, 32>;
    var slope: array<vec4<f32>, 32>;
    var sums: array<vec4<f32>, 32>;
    var my_lse = 0.0;
    var my_delta = 0.0;
    if t < p.t {
        my_lse = lse[at.stats + t];
        my_delta = delta[at.stats + t];
        for (var c = 0u; c < QUADS; c++) {
            query[c] = load_q(row, c) * p.scale;
            slope[c] = load_dout(row, c);
        }
    }
    let end = min(at.first + 64u, p.t);
    for (var start = first_key(at.first) / TILE * TILE; start < end; start += TILE) {
        let n = min(TILE, end - start);
        stage_keys(at, lane, start, n);
        workgroupBarrier();
        var seen = 0u;
        if t < p.t && t >= start {
            seen = min(n, t + 1u - start);
        }
        for (var j = max(first_key(t), start) - start; j < seen; j++) {
            var score = 0.0;
            var dweight = 0.0;
            for (var c = 0u; c < QUADS; c++) {
                score += dot(query[c], tile_a[j * QUADS + c]);
                dweight += dot(slope[c], tile_b[j * QUADS + c]);
            }
            let dscore = exp(score - my_lse) * (dweight - my_delta);
            for (var c = 0u; c < QUADS; c++) {
                sums[c] += dscore * tile_a[j * QUADS + c];
            }
        }
        workgroupBarrier();
    }
    if t >= p.t { return; }
    for (var c = 0u; c < QUADS; c++) {
        let i = row + 4u * c;
        let out = sums[c] * p.scale;
        let kept = exists(c);
        dq[i] = out.x;
        if kept.y { dq[i + 1u] = out.y; }
        if kept.z { dq[i + 2u] = out.z; }
        if kept.w { dq[i + 3u] = out.w; }
    }
}

@group(0) @binding(7) var<storage, read_write> dk: array<f32>;
@group(0) @binding(8) var<storage, read_write> dv: array<f32>;

// One key an invocation, over tiles of the queries from its block on: dk and dv.
@compute @workgroup_size(64)
fn backward_key(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    if group >= p.workgroups { return; }
    let at = block_of(group);
    let t = at.first + lane;
    let row = at.base + t * at.stride;
    var key: array<vec4<f32>, 32>;
    var value: array<vec4<f32>, 32>;
    var key_sums: array<vec4<f32>, 32>;
    var value_sums: array<vec4<f32>, 32>;
    if t < p.t {
        for (var c = 0u; c < QUADS; c++) {
            key[c] = load_k(row, c);
            value[c] = load_v(row, c);
        }
    }
    // The last key of the block is seen by the queries of its window.
    let end = min(at.first + 63u + p.window, p.t);
    for (var start = at.first; start < end; start += TILE) {
        let n = min(TILE, end - start);
        for (var i = lane; i < n * QUADS; i += 64u) {
            let from_row = at.base + (start + i / QUADS) * at.stride;
            tile_a[i] = load_q(from_row, i % QUADS) * p.scale;
            tile_b[i] = load_dout(from_row, i % QUADS);
        }
        if lane < n {
            tile_lse[lane] = lse[at.stats + start + lane];
            tile_delta[lane] = delta[at.stats + start + lane];
        }
        workgroupBarrier();
        // Queries before the key do not see it, nor do those that it is too far behind; past the end
        // there is no key.
        var j = n;
        if t < p.t {
            j = max(t, start) - start;
        }
        let seen = min(n, max(t + p.window, start) - start);
        for (; j < seen; j++) {
            var score = 0.0;
            var dweight = 0.0;
            for (var c = 0u; c < QUADS; c++) {
                score += dot(key[c], tile_a[j * QUADS + c]);
                dweight += dot(value[c], tile_b[j * QUADS + c]);
            }
            let weight = exp(score - tile_lse[j]);
            let dscore = weight * (dweight - tile_delta[j]);
            for (var c = 0u; c < QUADS; c++) {
                key_sums[c] += dscore * tile_a[j * QUADS + c];
                value_sums[c] += weight * tile_b[j * QUADS + c];
            }
        }
        workgroupBarrier();
    }
    if t >= p.t { return; }
    for (var c = 0u; c < QUADS; c++) {
        let i = row + 4u * c;
        let kept = exists(c);
        dk[i] = key_sums[c].x;
        dv[i] = value_sums[c].x;
        if kept.y { dk[i + 1u] = key_sums[c].y; dv[i + 1u] = value_sums[c].y; }
        if kept.z { dk[i + 2u] = key_sums[c].z; dv[i + 2u] = value_sums[c].z; }
        if kept.w { dk[i + 3u] = key_sums[c].w; dv[i + 3u] = value_sums[c].w; }
    }
}

#kernel backward_sink

#include lanes

struct Params { t: u32, heads: u32, batch: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> sink: array<f32>;
@group(0) @binding(2) var<storage, read> lse: array<f32>;
@group(0) @binding(3) var<storage, read> delta: array<f32>;
@group(0) @binding(4) var<storage, read_write> dsink: array<f32>;

const LANES: u32 = 256u;

// dsink = - sum over b and t of e^(sink - lse) delta, one head a workgroup.
@compute @workgroup_size(256)
fn backward_sink(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let head = flat_group(wid, grid);
    if head >= p.heads { return; }
    var part = 0.0;
    for (var i = lane; i < p.batch * p.t; i += 256u) {
        let at = (i / p.t * p.heads + head) * p.t + i % p.t;
        part -= exp(sink[head] - lse[at]) * delta[at];
    }
    let total = sum_lanes(lane, part);
    if lane == 0u {
        dsink[head] = total;
    }
}
