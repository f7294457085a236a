// Dense matrices, which lie in one buffer, to their nonzeros by row (CSR) and by column (CSC), and
// back. A layer of the grid makes one list: one order of one matrix.
//
// Rows and columns go through the same kernels: segment i, entry e is the number at i *
// segment_step + e * entry_step. Each segment is cut into pieces of 64 entries, and an invocation
// goes through one piece: first to count, then, when all counts are summed up, to write its
// nonzeros where they belong. Pieces are short enough to occupy a GPU and make one count for 64
// numbers.

#include grid

#kernel count fill

struct List {
    // Where the matrix begins.
    weight: u32,
    segments: u32,
    length: u32,
    segment_step: u32,
    entry_step: u32,
    // Pieces in a segment, and whether neighbouring invocations take neighbouring segments (or
    // pieces of one segment).
    pieces: u32,
    segments_first: u32,
    capacity: u32,
    // Where its part of the other arrays begins.
    starts: u32,
    offsets: u32,
    indices: u32,
    values: u32,
}

// Of a launch: as many as its grid has layers.
struct Params { lists: array<List, 64> }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> weight: array<f32>;

fn is_nonzero(at: u32) -> bool {
    return (bitcast<u32>(weight[at]) & 0x7fffffffu) != 0u;
}

// (segment, piece) of an invocation.
fn piece_of(list: List, item: u32) -> vec2<u32> {
    if list.segments_first != 0u {
        return vec2<u32>(item % list.segments, item / list.segments);
    }
    return vec2<u32>(item / list.pieces, item % list.pieces);
}

@group(0) @binding(2) var<storage, read_write> starts: array<u32>;

// starts[segment * pieces + piece] = how many nonzeros the piece has, and a last 0; the prefix sum
// over all lists then makes starts of them.
@compute @workgroup_size(64)
fn count(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
         @builtin(local_invocation_index) lane: u32) {
    let list = p.lists[wid.z];
    let item = flat_group(wid, grid) * 64u + lane;
    let total = list.segments * list.pieces;
    if item < total {
        let at = piece_of(list, item);
        let last = min((at.y + 1u) * 64u, list.length);
        var found = 0u;
        for (var e = at.y * 64u; e < last; e++) {
            found += select(0u, 1u, is_nonzero(list.weight + at.x * list.segment_step + e * list.entry_step));
        }
        starts[list.starts + at.x * list.pieces + at.y] = found;
    } else if item == total {
        starts[list.starts + total] = 0u;
    }
}

@group(0) @binding(3) var<storage, read_write> offsets: array<u32>;
@group(0) @binding(4) var<storage, read_write> indices: array<u32>;
@group(0) @binding(5) var<storage, read_write> values: array<f32>;

// Writes the nonzeros; what lies past the capacity is dropped.
@compute @workgroup_size(64)
fn fill(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let list = p.lists[wid.z];
    let item = flat_group(wid, grid) * 64u + lane;
    let total = list.segments * list.pieces;
    if item > total {
        return;
    }
    // The lists before it have entries, too.
    let before = starts[list.starts];
    if item < total {
        let at = piece_of(list, item);
        var slot = starts[list.starts + at.x * list.pieces + at.y] - before;
        if at.y == 0u {
            offsets[list.offsets + at.x] = min(slot, list.capacity);
        }
        let last = min((at.y + 1u) * 64u, list.length);
        for (var e = at.y * 64u; e < last; e++) {
            let source = list.weight + at.x * list.segment_step + e * list.entry_step;
            if is_nonzero(source) {
                if slot < list.capacity {
                    indices[list.indices + slot] = e;
                    values[list.values + slot] = weight[source];
                }
                slot++;
            }
        }
    } else {
        offsets[list.offsets + list.segments] = min(starts[list.starts + total] - before, list.capacity);
    }
}

#kernel scan shift

struct Params { n: u32, workgroups: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;
@group(0) @binding(2) var<storage, read_write> totals: array<u32>;

var<workgroup> lanes: array<u32, 256>;

// Replaces each of 1,024 neighbouring entries by the sum of those before it among them, and keeps
// their total.
@compute @workgroup_size(256)
fn scan(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    if group >= p.workgroups {
        return;
    }
    let first = group * 1024u + lane * 4u;
    let last = min(first + 4u, p.n);
    var local = 0u;
    for (var i = first; i < last; i++) {
        local += sums[i];
    }
    lanes[lane] = local;
    workgroupBarrier();
    // After the round with distance d, a lane holds the sum of the 2 d lanes up to and including
    // it.
    for (var d = 1u; d < 256u; d *= 2u) {
        var before = 0u;
        if lane >= d {
            before = lanes[lane - d];
        }
        workgroupBarrier();
        lanes[lane] += before;
        workgroupBarrier();
    }
    var running = lanes[lane] - local;
    for (var i = first; i < last; i++) {
        let count = sums[i];
        sums[i] = running;
        running += count;
    }
    if lane == 255u {
        totals[group] = running;
    }
}

// Adds to each block of 1,024 entries what came before the block.
@compute @workgroup_size(256)
fn shift(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
         @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.n {
        sums[i] += totals[i / 1024u];
    }
}

#kernel decompress

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> offsets: array<u32>;
@group(0) @binding(2) var<storage, read> indices: array<u32>;
@group(0) @binding(3) var<storage, read> values: array<f32>;
@group(0) @binding(4) var<storage, read_write> dense: array<f32>;

// Scatters the nonzeros into a matrix of zeros, a row a workgroup.
@compute @workgroup_size(64)
fn decompress(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
              @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(wid, grid);
    if row >= p.rows {
        return;
    }
    let end = offsets[row + 1u];
    for (var i = offsets[row] + lane; i < end; i += 64u) {
        dense[row * p.width + indices[i]] = values[i];
    }
}
