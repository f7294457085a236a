// How many entries are not zero: of a tensor, of each of its rows, of each of its columns.

#include grid

#kernel forward

struct Params { n: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> total: atomic<u32>;

var<workgroup> count: atomic<u32>;

// Integer atomics: the order of the additions does not matter. 4096 entries a workgroup; `total`
// starts at 0.
@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    // The fold's excess workgroups see only entries past the end, and their first index may wrap.
    if group >= (p.n + 4095u) / 4096u {
        return;
    }
    if lane == 0u {
        atomicStore(&count, 0u);
    }
    workgroupBarrier();
    var mine = 0u;
    for (var k = 0u; k < 16u; k++) {
        let i = group * 4096u + k * 256u + lane;
        if i < p.n {
            mine += select(0u, 1u, (x[i] & 0x7fffffffu) != 0u);
        }
    }
    atomicAdd(&count, mine);
    workgroupBarrier();
    if lane == 0u {
        atomicAdd(&total, atomicLoad(&count));
    }
}

#kernel by_row

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;

var<workgroup> count: atomic<u32>;

// One row a workgroup.
@compute @workgroup_size(256)
fn by_row(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
          @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(wid, grid);
    if row >= p.rows {
        return;
    }
    if lane == 0u {
        atomicStore(&count, 0u);
    }
    workgroupBarrier();
    var mine = 0u;
    for (var column = lane; column < p.width; column += 256u) {
        mine += select(0u, 1u, (x[row * p.width + column] & 0x7fffffffu) != 0u);
    }
    atomicAdd(&count, mine);
    workgroupBarrier();
    if lane == 0u {
        counts[row] = atomicLoad(&count);
    }
}

#kernel by_column

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;

// One column an invocation, so that neighbours read neighbouring entries.
@compute @workgroup_size(256)
fn by_column(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
             @builtin(local_invocation_index) lane: u32) {
    let column = flat_group(wid, grid) * 256u + lane;
    if column >= p.width {
        return;
    }
    var mine = 0u;
    for (var row = 0u; row < p.rows; row++) {
        mine += select(0u, 1u, (x[row * p.width + column] & 0x7fffffffu) != 0u);
    }
    counts[column] = mine;
}
