// The `keep` entries of largest key in each of several matrices, which lie in one buffer, in place.
// A layer of the grid takes a matrix. Keys are magnitude bits, with the
// sign bit set on entries that min-alive protects. Passes, in the order of launch: protect; four
// times histogram and pick; count_ties; locate; apply. All of it happens on bits, except for the
// decay.

#include grid

const MAGNITUDE: u32 = 0x7fffffffu;
const PROTECTED: u32 = 0x80000000u;
const NONE: u32 = 0xffffffffu;
// Entries a workgroup: 16 a lane, so that adding its bins to the global ones takes little of the
// time.
const BLOCK: u32 = 4096u;

struct Matrix {
    // Where its entries begin, and how many they are.
    first: u32,
    n: u32,
    cols: u32,
    // 0 none, 1 rows, 2 columns: `protect` entries of each are protected.
    neurons: u32,
    protect: u32,
    keep: u32,
    // The radix digit of this pass.
    shift: u32,
    blocks: u32,
    // Where its cuts begin, and its ties.
    cuts: u32,
    ties: u32,
    decays: u32,
    factor: f32,
}

// Of a launch: as many as its grid has layers.
struct Params { matrices: array<Matrix, 64> }

@group(0) @binding(0) var<uniform> p: Params;

#kernel protect

@group(0) @binding(1) var<storage, read> weight: array<u32>;
// (neurons, 2) of each matrix: a neuron protects the magnitudes above the first number, and those equal to it at a
// position below the second.
@group(0) @binding(2) var<storage, read_write> cuts: array<u32>;

var<workgroup> top: array<atomic<u32>, 16>;
var<workgroup> top_at: array<atomic<u32>, 16>;

// Finds each neuron's cut by taking its largest entry `protect` times. A workgroup handles one row,
// its lanes side by side along it, or 16 neighbouring columns with 16 lanes each, so that either
// way neighbouring lanes read neighbouring words.
@compute @workgroup_size(256)
fn protect(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let m = p.matrices[wid.z];
    let by_rows = m.neurons == 1u;
    let rows = m.n / m.cols;
    let count = select(select(m.cols, rows, by_rows), 0u, m.neurons == 0u);
    let extent = select(rows, m.cols, by_rows);
    let across = select(16u, 1u, by_rows);
    let group = flat_group(wid, grid);
    if group >= (count + across - 1u) / across {
        return;
    }
    let mine = lane % across;
    let neuron = group * across + mine;
    let start = m.first + select(neuron, neuron * m.cols, by_rows);
    let stride = select(m.cols, 1u, by_rows);
    var last = NONE;
    var last_at = 0u;
    for (var round = 0u; round < m.protect; round++) {
        var best = 0u;
        var best_at = NONE;
        if neuron < count {
            for (var e = lane / across; e < extent; e += 256u / across) {
                let magnitude = weight[start + e * stride] & MAGNITUDE;
                let next = magnitude < last || (magnitude == last && e > last_at);
                if next && (best_at == NONE || magnitude > best) {
                    best = magnitude;
                    best_at = e;
                }
            }
        }
        if lane < 16u {
            atomicStore(&top[lane], 0u);
            atomicStore(&top_at[lane], NONE);
        }
        workgroupBarrier();
        if best_at != NONE {
            atomicMax(&top[mine], best);
        }
        workgroupBarrier();
        if best_at != NONE && best == atomicLoad(&top[mine]) {
            atomicMin(&top_at[mine], best_at);
        }
        workgroupBarrier();
        last = atomicLoad(&top[mine]);
        last_at = atomicLoad(&top_at[mine]);
        workgroupBarrier();
    }
    if lane < across && neuron < count {
        cuts[m.cuts + 2u * neuron] = last;
        cuts[m.cuts + 2u * neuron + 1u] = last_at + 1u;
    }
}

#kernel histogram

#include weight_key

@group(0) @binding(1) var<storage, read> weight: array<u32>;
// (matrices, 3): the threshold's digits found so far; how many keys with these digits are still to be
// kept; after `locate`, one past the flat index of the last kept key that equals the threshold.
@group(0) @binding(3) var<storage, read> state: array<u32>;
// (matrices, 256)
@group(0) @binding(4) var<storage, read_write> bins: array<atomic<u32>>;

var<workgroup> local_bins: array<atomic<u32>, 256>;

// Counts the 8-bit digits at `shift` of all keys that begin as the threshold does.
@compute @workgroup_size(256)
fn histogram(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
             @builtin(local_invocation_index) lane: u32) {
    let m = p.matrices[wid.z];
    let group = flat_group(wid, grid);
    if group >= m.blocks {
        return;
    }
    atomicStore(&local_bins[lane], 0u);
    workgroupBarrier();
    let first = m.shift == 24u;
    let above = 0xffffff00u << m.shift;
    let prefix = select(state[3u * wid.z], 0u, first);
    for (var k = 0u; k < 16u; k++) {
        let i = group * BLOCK + k * 256u + lane;
        if i < m.n {
            let digits = key(m, i, weight[m.first + i]);
            if (digits & above) == prefix {
                atomicAdd(&local_bins[(digits >> m.shift) & 255u], 1u);
            }
        }
    }
    workgroupBarrier();
    let count = atomicLoad(&local_bins[lane]);
    if count > 0u {
        atomicAdd(&bins[256u * wid.z + lane], count);
    }
}

#kernel pick

#include prefix_select

@group(0) @binding(1) var<storage, read_write> state: array<u32>;
@group(0) @binding(2) var<storage, read_write> bins: array<u32>;

// Walks down from the largest digit to the one in which the threshold lies, and empties the bins
// for the next pass. One workgroup a matrix.
@compute @workgroup_size(256)
fn pick(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let m = p.matrices[wid.z];
    let at = 3u * wid.z;
    let first = m.shift == 24u;
    atomicStore(&counts[255u - lane], bins[256u * wid.z + lane]);
    bins[256u * wid.z + lane] = 0u;
    prefix_select(lane, select(state[at + 1u], m.keep, first));
    if lane == 0u {
        state[at] = select(state[at], 0u, first) | ((255u - bin) << m.shift);
        state[at + 1u] = remainder;
    }
}

#kernel count_ties

#include weight_key

@group(0) @binding(1) var<storage, read> weight: array<u32>;
@group(0) @binding(3) var<storage, read> state: array<u32>;
@group(0) @binding(4) var<storage, read_write> ties: array<u32>;

var<workgroup> tie_count: atomic<u32>;

// ties = how many keys of a block equal the threshold.
@compute @workgroup_size(256)
fn count_ties(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let m = p.matrices[wid.z];
    let group = flat_group(wid, grid);
    if group >= m.blocks {
        return;
    }
    if lane == 0u {
        atomicStore(&tie_count, 0u);
    }
    workgroupBarrier();
    var mine = 0u;
    for (var k = 0u; k < 16u; k++) {
        let i = group * BLOCK + k * 256u + lane;
        if i < m.n {
            mine += select(0u, 1u, key(m, i, weight[m.first + i]) == state[3u * wid.z]);
        }
    }
    if mine > 0u {
        atomicAdd(&tie_count, mine);
    }
    workgroupBarrier();
    if lane == 0u {
        ties[m.ties + group] = atomicLoad(&tie_count);
    }
}

#kernel locate

#include prefix_select
#include weight_key

@group(0) @binding(1) var<storage, read> weight: array<u32>;
@group(0) @binding(3) var<storage, read> ties: array<u32>;
@group(0) @binding(4) var<storage, read_write> state: array<u32>;

var<workgroup> found_block: u32;
var<workgroup> found_remaining: u32;

// Finds the block of the last key that equals the threshold and is kept, then its place in there.
// One workgroup a matrix.
@compute @workgroup_size(256)
fn locate(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let m = p.matrices[wid.z];
    let threshold = state[3u * wid.z];
    let need = state[3u * wid.z + 1u];
    let chunk = (m.blocks + 255u) / 256u;
    let first = min(lane * chunk, m.blocks);
    let end = min(first + chunk, m.blocks);
    var mine = 0u;
    for (var b = first; b < end; b++) {
        mine += ties[m.ties + b];
    }
    atomicStore(&counts[lane], mine);
    prefix_select(lane, need);
    if lane == bin {
        var b = first;
        var remaining = remainder;
        while b + 1u < end && remaining > ties[m.ties + b] {
            remaining -= ties[m.ties + b];
            b++;
        }
        found_block = b;
        found_remaining = remaining;
    }
    workgroupBarrier();
    let start = found_block * BLOCK + lane * 16u;
    mine = 0u;
    for (var i = start; i < min(start + 16u, m.n); i++) {
        mine += select(0u, 1u, key(m, i, weight[m.first + i]) == threshold);
    }
    atomicStore(&counts[lane], mine);
    prefix_select(lane, found_remaining);
    if lane == bin {
        var i = start;
        var remaining = remainder;
        while remaining > 0u && i < m.n {
            remaining -= select(0u, 1u, key(m, i, weight[m.first + i]) == threshold);
            i++;
        }
        state[3u * wid.z + 2u] = i;
    }
}

#kernel apply

#include weight_key

@group(0) @binding(1) var<storage, read_write> weight: array<u32>;
@group(0) @binding(3) var<storage, read> state: array<u32>;

// Zeroes what is not kept and decays what is. One entry an invocation.
@compute @workgroup_size(256)
fn apply(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
         @builtin(local_invocation_index) lane: u32) {
    let m = p.matrices[wid.z];
    let i = flat_group(wid, grid) * 256u + lane;
    if i < m.n {
        let bits = weight[m.first + i];
        let mine = key(m, i, bits);
        let threshold = state[3u * wid.z];
        var kept = 0u;
        if mine > threshold || (mine == threshold && i < state[3u * wid.z + 2u]) {
            kept = bits;
            // Not a multiplication by 1: a driver may flush small numbers in it.
            if m.decays != 0u {
                kept = bitcast<u32>(bitcast<f32>(bits) * m.factor);
            }
        }
        weight[m.first + i] = kept;
    }
}

#kernel decay

@group(0) @binding(1) var<storage, read_write> weight: array<u32>;

// Decays all entries. One entry an invocation.
@compute @workgroup_size(256)
fn decay(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
         @builtin(local_invocation_index) lane: u32) {
    let m = p.matrices[wid.z];
    let i = flat_group(wid, grid) * 256u + lane;
    if i < m.n {
        weight[m.first + i] = bitcast<u32>(bitcast<f32>(weight[m.first + i]) * m.factor);
    }
}
