// Matrix products and column sums.

#include grid

#kernel product

struct Params {
    m: u32, n: u32, k: u32,
    // Distances between neighbours along the rows and along the columns of each factor.
    a_row: u32, a_col: u32, b_row: u32, b_col: u32,
    has_bias: u32,
    // Length of one workgroup's share of the inner dimension: k itself unless the product is split.
    share: u32,
    workgroups: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

// A workgroup computes a tile of the output, SIDE x SIDE invocations with EACH x EACH entries each.
// Of each factor it keeps a slab of DEPTH steps along the inner dimension, so that every invocation
// fetches exactly one group of four of each. A slab row has one group of padding, which keeps
// transposing stores off one another's memory banks. Whatever the tile, an entry's terms are added
// in the same order.
//
// SIDE 8, EACH 4: 32 x 32 entries, 64 invocations. For outputs that would leave most of a larger
// tile, or most of the GPU, without work. SIDE 16, EACH 4: 64 x 64 entries, 256 invocations (the
// portable maximum). 16 multiply-adds for two 16-byte reads of workgroup memory, and 16
// accumulators fit every GPU's registers. SIDE 16, EACH 8: 128 x 128 entries. 64 multiply-adds for
// four reads, at the price of 64 accumulators. Both of the latter take 8.5 KiB of workgroup memory,
// so that even of 16 KiB little is idle.
override SIDE: u32 = 16u;
override EACH: u32 = 4u;
override DEPTH: u32 = 4u * SIDE / EACH;
override FOURS: u32 = SIDE * EACH / 4u;
override PITCH: u32 = FOURS + 1u;
var<workgroup> a_slab: array<vec4<f32>, DEPTH * PITCH>;
var<workgroup> b_slab: array<vec4<f32>, DEPTH * PITCH>;

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

fn store_block(at: u32, i: u32, j: u32, r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32>) {
    store_four(at, i, j, r0);
    store_four(at, i + 1u, j, r1);
    store_four(at, i + 2u, j, r2);
    store_four(at, i + 3u, j, r3);
}

// out = a b + bias with a: (m, k), b: (k, n), bias: (n), out: (shares, m, n); share s sums steps s
// * share and on.
@compute @workgroup_size(SIDE * SIDE)
fn product(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    if group >= p.workgroups {
        return;
    }
    let edge = SIDE * EACH;
    let across = (p.n + edge - 1u) / edge;
    let tiles = across * ((p.m + edge - 1u) / edge);
    let at = group / tiles;
    let tile = group % tiles;
    let i0 = (tile / across) * edge;
    let j0 = (tile % across) * edge;
    let start = at * p.share;
    let end = min(start + p.share, p.k);

    // Neighbouring invocations fetch neighbouring numbers, whichever way the factor lies in memory.
    let a_l = select(lane / FOURS, lane % DEPTH, p.a_col == 1u);
    let a_i = select(lane % FOURS, lane / DEPTH, p.a_col == 1u);
    let b_l = select(lane / FOURS, lane % DEPTH, p.b_row == 1u);
    let b_j = select(lane % FOURS, lane / DEPTH, p.b_row == 1u);
    let row = lane / SIDE;
    let col = lane % SIDE;

    // Four by four entries, and with eight rows and columns those below, at the right, and below at
    // the right.
    var c0 = vec4<f32>();
    var c1 = vec4<f32>();
    var c2 = vec4<f32>();
    var c3 = vec4<f32>();
    var below0 = vec4<f32>();
    var below1 = vec4<f32>();
    var below2 = vec4<f32>();
    var below3 = vec4<f32>();
    var right0 = vec4<f32>();
    var right1 = vec4<f32>();
    var right2 = vec4<f32>();
    var right3 = vec4<f32>();
    var both0 = vec4<f32>();
    var both1 = vec4<f32>();
    var both2 = vec4<f32>();
    var both3 = vec4<f32>();
    // The next slab travels while this one is multiplied.
    var a_next = a_four(i0 + 4u * a_i, start + a_l, end);
    var b_next = b_four(start + b_l, j0 + 4u * b_j, end);
    for (var l0 = start; l0 < end; l0 += DEPTH) {
        a_slab[a_l * PITCH + a_i] = a_next;
        b_slab[b_l * PITCH + b_j] = b_next;
        workgroupBarrier();
        a_next = a_four(i0 + 4u * a_i, l0 + DEPTH + a_l, end);
        b_next = b_four(l0 + DEPTH + b_l, j0 + 4u * b_j, end);
        for (var l = 0u; l < DEPTH; l++) {
            let u = a_slab[l * PITCH + row];
            let v = b_slab[l * PITCH + col];
            c0 += u.x * v;
            c1 += u.y * v;
            c2 += u.z * v;
            c3 += u.w * v;
            if EACH == 8u {
                let lower = a_slab[l * PITCH + SIDE + row];
                let further = b_slab[l * PITCH + SIDE + col];
                below0 += lower.x * v;
                below1 += lower.y * v;
                below2 += lower.z * v;
                below3 += lower.w * v;
                right0 += u.x * further;
                right1 += u.y * further;
                right2 += u.z * further;
                right3 += u.w * further;
                both0 += lower.x * further;
                both1 += lower.y * further;
                both2 += lower.z * further;
                both3 += lower.w * further;
            }
        }
        workgroupBarrier();
    }
    let i = i0 + 4u * row;
    let j = j0 + 4u * col;
    store_block(at, i, j, c0, c1, c2, c3);
    if EACH == 8u {
        let half = 4u * SIDE;
        store_block(at, i + half, j, below0, below1, below2, below3);
        store_block(at, i, j + half, right0, right1, right2, right3);
        store_block(at, i + half, j + half, both0, both1, both2, both3);
    }
}

#kernel column_sums

struct Params { rows: u32, cols: u32, workgroups: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

var<workgroup> quarter: array<f32, 256>;

// sums_c = the sum of rows 64 c to 64 c + 63 of x: (rows, cols). A workgroup takes 64 neighbouring
// columns, so that reads are whole cache lines, and cuts the 64 rows among its four quarters.
@compute @workgroup_size(256)
fn column_sums(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
               @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    if group >= p.workgroups {
        return;
    }
    let across = (p.cols + 63u) / 64u;
    let chunk = group / across;
    let col = (group % across) * 64u + lane % 64u;
    let first = chunk * 64u + (lane / 64u) * 16u;
    let last = min(first + 16u, p.rows);
    var sum = 0.0;
    if col < p.cols {
        for (var r = first; r < last; r++) {
            sum += x[r * p.cols + col];
        }
    }
    quarter[lane] = sum;
    workgroupBarrier();
    if lane < 64u && col < p.cols {
        sums[chunk * p.cols + col] =
            (quarter[lane] + quarter[lane + 64u]) + (quarter[lane + 128u] + quarter[lane + 192u]);
    }
}
