// The `keep` entries of largest key in a whole matrix, in place. Keys are magnitude bits, with the sign bit set on
// entries that min-alive protects. Passes, in the order of launch: protect; four times histogram and pick; ties;
// locate; apply. All of it happens on bits, except for the decay.

#include grid
#include prefix_select

const MAGNITUDE: u32 = 0x7fffffffu;
const PROTECTED: u32 = 0x80000000u;
const NONE: u32 = 0xffffffffu;
// Entries a workgroup: 16 a lane, so that emptying its bins into the global ones is small beside filling them.
const BLOCK: u32 = 4096u;

// neurons: 0 none, 1 rows, 2 columns. `protect` entries of each are protected. `shift`: the radix digit of this pass.
struct Params {
    n: u32,
    cols: u32,
    neurons: u32,
    protect: u32,
    keep: u32,
    shift: u32,
    blocks: u32,
    decays: u32,
    factor: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> w: array<u32>;
// (neurons, 2): a neuron protects the magnitudes above the first number, and those equal to it at a position below the
// second.
@group(0) @binding(2) var<storage, read_write> cuts_out: array<u32>;

var<workgroup> top: array<atomic<u32>, 16>;
var<workgroup> top_at: array<atomic<u32>, 16>;

// Finds each neuron's cut by taking its largest entry `protect` times. A workgroup handles one row, its lanes side by
// side along it, or 16 neighbouring columns with 16 lanes each, so that either way neighbouring lanes read
// neighbouring words.
@compute @workgroup_size(256)
fn protect(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let by_rows = p.neurons == 1u;
    let rows = p.n / p.cols;
    let count = select(p.cols, rows, by_rows);
    let extent = select(rows, p.cols, by_rows);
    let across = select(16u, 1u, by_rows);
    let group = flat_group(wid, grid);
    if group >= (count + across - 1u) / across {
        return;
    }
    let mine = lane % across;
    let neuron = group * across + mine;
    let start = select(neuron, neuron * p.cols, by_rows);
    let stride = select(p.cols, 1u, by_rows);
    var last = NONE;
    var last_at = 0u;
    for (var round = 0u; round < p.protect; round++) {
        var best = 0u;
        var best_at = NONE;
        if neuron < count {
            for (var e = lane / across; e < extent; e += 256u / across) {
                let magnitude = w[start + e * stride] & MAGNITUDE;
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
        cuts_out[2u * neuron] = last;
        cuts_out[2u * neuron + 1u] = last_at + 1u;
    }
}

@group(0) @binding(2) var<storage, read> cuts: array<u32>;

fn key(i: u32, bits: u32) -> u32 {
    let magnitude = bits & MAGNITUDE;
    if p.neurons == 0u {
        return magnitude;
    }
    let r = i / p.cols;
    let c = i - r * p.cols;
    let neuron = select(c, r, p.neurons == 1u);
    let position = select(r, c, p.neurons == 1u);
    let cut = cuts[2u * neuron];
    let safe = magnitude > cut || (magnitude == cut && position < cuts[2u * neuron + 1u]);
    return select(magnitude, magnitude | PROTECTED, safe);
}

// state: the threshold's digits found so far; how many keys with these digits are still to be kept; after `locate`, one
// past the flat index of the last kept key that equals the threshold.
@group(0) @binding(3) var<storage, read> state: array<u32, 3>;
@group(0) @binding(4) var<storage, read_write> bins: array<atomic<u32>, 256>;

var<workgroup> local_bins: array<atomic<u32>, 256>;

// Counts the 8-bit digits at `shift` of all keys that begin as the threshold does.
@compute @workgroup_size(256)
fn histogram(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
             @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    if group >= p.blocks {
        return;
    }
    atomicStore(&local_bins[lane], 0u);
    workgroupBarrier();
    let first = p.shift == 24u;
    let above = 0xffffff00u << p.shift;
    let prefix = select(state[0], 0u, first);
    for (var k = 0u; k < 16u; k++) {
        let i = group * BLOCK + k * 256u + lane;
        if i < p.n {
            let digits = key(i, w[i]);
            if (digits & above) == prefix {
                atomicAdd(&local_bins[(digits >> p.shift) & 255u], 1u);
            }
        }
    }
    workgroupBarrier();
    let count = atomicLoad(&local_bins[lane]);
    if count > 0u {
        atomicAdd(&bins[lane], count);
    }
}

@group(0) @binding(1) var<storage, read_write> picked: array<u32, 3>;
@group(0) @binding(2) var<storage, read_write> spent: array<u32, 256>;

// Walks down from the largest digit to the one in which the threshold lies, and empties the bins for the next pass.
// One workgroup.
@compute @workgroup_size(256)
fn pick(@builtin(local_invocation_index) lane: u32) {
    let first = p.shift == 24u;
    atomicStore(&counts[255u - lane], spent[lane]);
    spent[lane] = 0u;
    prefix_select(lane, select(picked[1], p.keep, first));
    if lane == 0u {
        picked[0] = select(picked[0], 0u, first) | ((255u - bin) << p.shift);
        picked[1] = remainder;
    }
}

@group(0) @binding(4) var<storage, read_write> ties_out: array<u32>;

var<workgroup> tie_count: atomic<u32>;

// ties_out[group] = how many keys of a block equal the threshold.
@compute @workgroup_size(256)
fn ties(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    if group >= p.blocks {
        return;
    }
    if lane == 0u {
        atomicStore(&tie_count, 0u);
    }
    workgroupBarrier();
    var mine = 0u;
    for (var k = 0u; k < 16u; k++) {
        let i = group * BLOCK + k * 256u + lane;
        if i < p.n {
            mine += select(0u, 1u, key(i, w[i]) == state[0]);
        }
    }
    if mine > 0u {
        atomicAdd(&tie_count, mine);
    }
    workgroupBarrier();
    if lane == 0u {
        ties_out[group] = atomicLoad(&tie_count);
    }
}

@group(0) @binding(3) var<storage, read> block_ties: array<u32>;
@group(0) @binding(4) var<storage, read_write> located: array<u32, 3>;

var<workgroup> found_block: u32;
var<workgroup> found_remaining: u32;

// Finds the block of the last key that equals the threshold and is kept, then its place in there. One workgroup.
@compute @workgroup_size(256)
fn locate(@builtin(local_invocation_index) lane: u32) {
    let threshold = located[0];
    let need = located[1];
    let chunk = (p.blocks + 255u) / 256u;
    let first = min(lane * chunk, p.blocks);
    let end = min(first + chunk, p.blocks);
    var mine = 0u;
    for (var b = first; b < end; b++) {
        mine += block_ties[b];
    }
    atomicStore(&counts[lane], mine);
    prefix_select(lane, need);
    if lane == bin {
        var b = first;
        var remaining = remainder;
        while b + 1u < end && remaining > block_ties[b] {
            remaining -= block_ties[b];
            b++;
        }
        found_block = b;
        found_remaining = remaining;
    }
    workgroupBarrier();
    let start = found_block * BLOCK + lane * 16u;
    mine = 0u;
    for (var i = start; i < min(start + 16u, p.n); i++) {
        mine += select(0u, 1u, key(i, w[i]) == threshold);
    }
    atomicStore(&counts[lane], mine);
    prefix_select(lane, found_remaining);
    if lane == bin {
        var i = start;
        var remaining = remainder;
        while remaining > 0u && i < p.n {
            remaining -= select(0u, 1u, key(i, w[i]) == threshold);
            i++;
        }
        located[2] = i;
    }
}

@group(0) @binding(1) var<storage, read_write> weight: array<u32>;

// Zeroes what is not kept and decays the rest. One entry an invocation.
@compute @workgroup_size(256)
fn apply(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
         @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.n {
        let bits = weight[i];
        let mine = key(i, bits);
        var kept = 0u;
        if mine > state[0] || (mine == state[0] && i < state[2]) {
            kept = bits;
            // Not a multiplication by 1: a driver may flush small numbers in it.
            if p.decays != 0u {
                kept = bitcast<u32>(bitcast<f32>(bits) * p.factor);
            }
        }
        weight[i] = kept;
    }
}

// Decays all entries. One entry an invocation.
@compute @workgroup_size(256)
fn decay(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
         @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.n {
        weight[i] = bitcast<u32>(bitcast<f32>(weight[i]) * p.factor);
    }
}
