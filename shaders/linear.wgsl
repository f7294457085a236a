// Matrix products and column sums.

#include grid

struct Params {
    m: u32, n: u32, k: u32,
    // Distances between neighbours along the rows and along the columns of each factor.
    a_row: u32, a_col: u32, b_row: u32, b_col: u32,
    has_bias: u32,
    // Length of one workgroup's share of the inner dimension: k itself unless the product is split.
    share: u32,
    groups: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

// A workgroup computes a tile of the output, SIDE x SIDE invocations with ROWS x 4 entries each. Of each factor it keeps a
// slab of SIDE steps along the inner dimension, so that every invocation fetches exactly one group of four of b, and one
// or two of a. A slab row has one group of padding, which keeps transposing stores off one another's memory banks.
// Whatever the tile, an entry's terms are added in the same order.
//
// SIDE 16, ROWS 4: 64 x 64 entries, 256 invocations (the portable maximum). 16 multiply-adds for two 16-byte reads of
// workgroup memory, and 16 accumulators fit every GPU's registers; 8.5 KiB, so that even of 16 KiB little is idle.
// SIDE 8, ROWS 4: 32 x 32 entries, 64 invocations. For outputs that would leave most of a larger tile, or most of the
// GPU, without work.
// SIDE 16, ROWS 8: 128 x 64 entries. 32 multiply-adds for three reads, at the price of 32 accumulators and 12.75 KiB.
override SIDE: u32 = 16u;
override ROWS: u32 = 4u;
override A_PITCH: u32 = SIDE * ROWS / 4u + 1u;
override B_PITCH: u32 = SIDE + 1u;
var<workgroup> a_slab: array<vec4<f32>, SIDE * A_PITCH>;
var<workgroup> b_slab: array<vec4<f32>, SIDE * B_PITCH>;

// Zero outside the matrix, so that ragged edges need no other care.
fn a_at(i: u32, l: u32, end: u32) -> f32 {
    if i < p.m && l < end {
        return a[i * p.a_row + l * p.a_col];
    }
    return 0.0;
}

fn b_at(l: u32, j: u32, end: u32) -> f32 {
    if j < p.n && l < end {
        return b[l * p.b_row + j * p.b_col];
    }
    return 0.0;
}

fn a_four(i: u32, l: u32, end: u32) -> vec4<f32> {
    return vec4<f32>(a_at(i, l, end), a_at(i + 1u, l, end), a_at(i + 2u, l, end), a_at(i + 3u, l, end));
}

fn b_four(l: u32, j: u32, end: u32) -> vec4<f32> {
    return vec4<f32>(b_at(l, j, end), b_at(l, j + 1u, end), b_at(l, j + 2u, end), b_at(l, j + 3u, end));
}

fn store(at: u32, i: u32, j: u32, value: f32) {
    if i < p.m && j < p.n {
        var sum = value;
        if p.has_bias != 0u && at == 0u {
            sum += bias[j];
        }
        out[(at * p.m + i) * p.n + j] = sum;
    }
}

fn store_four(at: u32, i: u32, j: u32, value: vec4<f32>) {
    store(at, i, j, value.x);
    store(at, i, j + 1u, value.y);
    store(at, i, j + 2u, value.z);
    store(at, i, j + 3u, value.w);
}

// out = a b + bias with a: (m, k), b: (k, n), bias: (n), out: (shares, m, n); share s sums steps s * share and on.
@compute @workgroup_size(SIDE * SIDE)
fn product(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    if group >= p.groups {
        return;
    }
    let height = SIDE * ROWS;
    let width = SIDE * 4u;
    let across = (p.n + width - 1u) / width;
    let tiles = across * ((p.m + height - 1u) / height);
    let at = group / tiles;
    let tile = group % tiles;
    let i0 = (tile / across) * height;
    let j0 = (tile % across) * width;
    let start = at * p.share;
    let end = min(start + p.share, p.k);

    // Neighbouring invocations fetch neighbouring numbers, whichever way the factor lies in memory.
    let row = lane / SIDE;
    let col = lane % SIDE;
    let a_l = select(row, col, p.a_col == 1u);
    let a_i = select(col, row, p.a_col == 1u);
    let b_l = select(row, col, p.b_row == 1u);
    let b_j = select(col, row, p.b_row == 1u);

    var c0 = vec4<f32>();
    var c1 = vec4<f32>();
    var c2 = vec4<f32>();
    var c3 = vec4<f32>();
    // The lower half of the tile, if it has eight rows an invocation.
    let lower = 4u * SIDE;
    var c4 = vec4<f32>();
    var c5 = vec4<f32>();
    var c6 = vec4<f32>();
    var c7 = vec4<f32>();
    // The next slab travels while this one is multiplied.
    var a_next = a_four(i0 + 4u * a_i, start + a_l, end);
    var a_lower = vec4<f32>();
    if ROWS == 8u {
        a_lower = a_four(i0 + lower + 4u * a_i, start + a_l, end);
    }
    var b_next = b_four(start + b_l, j0 + 4u * b_j, end);
    for (var l0 = start; l0 < end; l0 += SIDE) {
        a_slab[a_l * A_PITCH + a_i] = a_next;
        if ROWS == 8u {
            a_slab[a_l * A_PITCH + SIDE + a_i] = a_lower;
        }
        b_slab[b_l * B_PITCH + b_j] = b_next;
        workgroupBarrier();
        a_next = a_four(i0 + 4u * a_i, l0 + SIDE + a_l, end);
        if ROWS == 8u {
            a_lower = a_four(i0 + lower + 4u * a_i, l0 + SIDE + a_l, end);
        }
        b_next = b_four(l0 + SIDE + b_l, j0 + 4u * b_j, end);
        for (var l = 0u; l < SIDE; l++) {
            let u = a_slab[l * A_PITCH + row];
            let v = b_slab[l * B_PITCH + col];
            c0 += u.x * v;
            c1 += u.y * v;
            c2 += u.z * v;
            c3 += u.w * v;
            if ROWS == 8u {
                let w = a_slab[l * A_PITCH + SIDE + row];
                c4 += w.x * v;
                c5 += w.y * v;
                c6 += w.z * v;
                c7 += w.w * v;
            }
        }
        workgroupBarrier();
    }
    let i = i0 + 4u * row;
    let j = j0 + 4u * col;
    store_four(at, i, j, c0);
    store_four(at, i + 1u, j, c1);
    store_four(at, i + 2u, j, c2);
    store_four(at, i + 3u, j, c3);
    if ROWS == 8u {
        store_four(at, i + lower, j, c4);
        store_four(at, i + lower + 1u, j, c5);
        store_four(at, i + lower + 2u, j, c6);
        store_four(at, i + lower + 3u, j, c7);
    }
}

struct SumParams { rows: u32, cols: u32, groups: u32 }

@group(0) @binding(0) var<uniform> s: SumParams;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

var<workgroup> quarter: array<f32, 256>;

// sums_c = the sum of rows 64 c to 64 c + 63 of x: (rows, cols). A workgroup takes 64 neighbouring columns, so that
// reads are whole cache lines, and cuts the 64 rows among its four quarters.
@compute @workgroup_size(256)
fn column_sums(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
               @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    if group >= s.groups {
        return;
    }
    let across = (s.cols + 63u) / 64u;
    let chunk = group / across;
    let col = (group % across) * 64u + lane % 64u;
    let first = chunk * 64u + (lane / 64u) * 16u;
    let last = min(first + 16u, s.rows);
    var sum = 0.0;
    if col < s.cols {
        for (var r = first; r < last; r++) {
            sum += x[r * s.cols + col];
        }
    }
    quarter[lane] = sum;
    workgroupBarrier();
    if lane < 64u && col < s.cols {
        sums[chunk * s.cols + col] =
            (quarter[lane] + quarter[lane + 64u]) + (quarter[lane + 128u] + quarter[lane + 192u]);
    }
}
