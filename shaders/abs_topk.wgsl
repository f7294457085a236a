// The k entries of largest magnitude in each row. Everything happens on bits: the order of bits & 0x7fffffff is that of
// magnitudes, and no driver flushes or reorders what it takes for an integer.

#include grid
#include prefix_select

// A row this short is read from global memory once and kept in 8 KiB of workgroup memory; a longer one is read again
// in each pass.
const STAGE: u32 = 2048u;
const MAGNITUDE: u32 = 0x7fffffffu;

struct Params { rows: u32, cols: u32, k: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@group(0) @binding(3) var<storage, read_write> zeros: array<u32>;

var<workgroup> staged: array<u32, 2048>;
var<workgroup> bound: u32;

fn entry(row: u32, i: u32) -> u32 {
    if p.cols <= STAGE {
        return staged[i];
    }
    return x[row * p.cols + i];
}

// What is known of the threshold, the k-th largest magnitude: its leading bits, and how many entries with these bits are
// still to be kept.
struct Search { threshold: u32, need: u32 }

// One radix pass over the bits from `shift` up to where the pass before ended (8 bits, 7 in the last): counts the
// candidates by digit and walks down from the largest digit to the one in which the k-th largest entry lies.
fn narrow(row: u32, lane: u32, known: Search, shift: u32, above: u32, mask: u32) -> Search {
    atomicStore(&counts[lane], 0u);
    workgroupBarrier();
    // Compared in two shifts: none may be by 32 bits.
    for (var i = lane; i < p.cols; i += 256u) {
        let magnitude = entry(row, i) & MAGNITUDE;
        if (magnitude & above) == known.threshold {
            atomicAdd(&counts[mask - ((magnitude >> shift) & mask)], 1u);
        }
    }
    prefix_select(lane, known.need);
    return Search(known.threshold | ((mask - bin) << shift), remainder);
}

// x, y: (rows, cols); zeros: (rows). One workgroup a row; 1 <= k <= cols.
@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(wid, grid);
    if row >= p.rows {
        return;
    }
    if p.cols <= STAGE {
        for (var i = lane; i < p.cols; i += 256u) {
            staged[i] = x[row * p.cols + i];
        }
    }
    if lane == 0u {
        bound = p.cols;
    }
    // The first digit is the exponent, whose few common values the atomics would otherwise all meet in one bin.
    var search = narrow(row, lane, Search(0u, p.k), 23u, 0u, 0xffu);
    search = narrow(row, lane, search, 15u, 0x7f800000u, 0xffu);
    search = narrow(row, lane, search, 7u, 0x7fff8000u, 0xffu);
    search = narrow(row, lane, search, 0u, 0x7fffff80u, 0x7fu);

    // Of the entries equal to the threshold the first `need` stay: those below `bound`. Where all stay, the bound
    // matters only to say which zeros were kept.
    let t = search.threshold;
    let partial = bin_count > search.need || t == 0u;
    let chunk = (p.cols + 255u) / 256u;
    let first = min(lane * chunk, p.cols);
    let end = min(first + chunk, p.cols);
    var mine = 0u;
    if partial {
        for (var i = first; i < end; i++) {
            mine += select(0u, 1u, (entry(row, i) & MAGNITUDE) == t);
        }
    }
    atomicStore(&counts[lane], mine);
    prefix_select(lane, search.need);
    if partial && lane == bin {
        var remaining = remainder;
        var i = first;
        while remaining > 0u && i < end {
            remaining -= select(0u, 1u, (entry(row, i) & MAGNITUDE) == t);
            i++;
        }
        bound = i;
    }
    workgroupBarrier();
    for (var i = lane; i < p.cols; i += 256u) {
        let bits = entry(row, i);
        let magnitude = bits & MAGNITUDE;
        let kept = magnitude > t || (magnitude == t && i < bound);
        y[row * p.cols + i] = select(0u, bits, kept);
    }
    if lane == 0u {
        zeros[row] = select(0u, bound, t == 0u);
    }
}

@group(0) @binding(1) var<storage, read> dout: array<u32>;
@group(0) @binding(2) var<storage, read> kept: array<u32>;
@group(0) @binding(3) var<storage, read> kept_zeros: array<u32>;
@group(0) @binding(4) var<storage, read_write> dx: array<u32>;

// dout, kept (the forward pass's y), dx: (rows, cols); kept_zeros: (rows). One entry an invocation.
@compute @workgroup_size(256)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.rows * p.cols {
        let row = i / p.cols;
        let passes = (kept[i] & MAGNITUDE) != 0u || i - row * p.cols < kept_zeros[row];
        dx[i] = select(0u, dout[i], passes);
    }
}
