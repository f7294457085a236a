// The root-mean-square of all gradients, and the factor that scales them by it.

#include grid
#include lanes

const LANES: u32 = 256u;

// Of square_sum_join and factor.
@group(0) @binding(1) var<storage, read> blocks: array<f32>;

// The sum of `n` numbers by one workgroup, each lane in four strands so that long vectors lose
// little.
fn join(lane: u32, n: u32) -> f32 {
    var sums = vec4<f32>(0.0);
    for (var i = lane; i < n; i += 1024u) {
        sums.x += blocks[i];
        if i + 256u < n { sums.y += blocks[i + 256u]; }
        if i + 512u < n { sums.z += blocks[i + 512u]; }
        if i + 768u < n { sums.w += blocks[i + 768u]; }
    }
    return sum_lanes(lane, (sums.x + sums.y) + (sums.z + sums.w));
}

#kernel square_sum_blocks

struct Params { n: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> partial: array<f32>;

// partial[group] = sum of the squares of 4096 entries.
@compute @workgroup_size(256)
fn square_sum_blocks(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                     @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    if group >= (p.n + 4095u) / 4096u {
        return;
    }
    var sums = vec4<f32>(0.0);
    for (var k = 0u; k < 4u; k++) {
        let i = group * 4096u + k * 1024u + lane;
        var v = vec4<f32>(0.0);
        if i < p.n { v.x = x[i]; }
        if i + 256u < p.n { v.y = x[i + 256u]; }
        if i + 512u < p.n { v.z = x[i + 512u]; }
        if i + 768u < p.n { v.w = x[i + 768u]; }
        sums += v * v;
    }
    let sum = sum_lanes(lane, (sums.x + sums.y) + (sums.z + sums.w));
    if lane == 0u {
        partial[group] = sum;
    }
}

#kernel square_sum_join

struct Params { n: u32, slot: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

// sums[slot] = sum of the blocks' sums. One workgroup.
@compute @workgroup_size(256)
fn square_sum_join(@builtin(local_invocation_index) lane: u32) {
    let sum = join(lane, p.n);
    if lane == 0u {
        sums[p.slot] = sum;
    }
}

#kernel factor

struct Params { n: u32, rule: u32, inverse_count: f32, eps: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

// out = [factor, rms]; rule 0: normalize, 1: clip, 2: none. One workgroup.
@compute @workgroup_size(256)
fn factor(@builtin(local_invocation_index) lane: u32) {
    let total = join(lane, p.n);
    if lane == 0u {
        let rms = sqrt(total * p.inverse_count);
        var value = 1.0;
        if p.rule == 0u {
            value = 1.0 / (rms + p.eps);
        } else if p.rule == 1u && rms > 1.0 {
            value = 1.0 / rms;
        }
        out[0] = value;
        out[1] = rms;
    }
}
