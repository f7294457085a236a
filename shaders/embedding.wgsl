// Rows of a table, and the gradient that gathers what each row received.

#include grid

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
#kernel forward

@group(0) @binding(1) var<storage, read> table: array<f32>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

// table: (vocab, width), ids: (rows), out: (rows, width); one entry of out an invocation.
@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.rows * p.width {
        out[i] = table[ids[i / p.width] * p.width + i % p.width];
    }
}

#kernel backward

@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> offsets: array<u32>;
@group(0) @binding(3) var<storage, read> order: array<u32>;
@group(0) @binding(4) var<storage, read_write> dtable: array<f32>;

// dout: (positions, width), offsets: (vocab + 1), order: (positions), dtable: (rows, width). One
// entry of dtable an invocation: neighbours read neighbouring columns of the same positions, in
// ascending order of position.
@compute @workgroup_size(256)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.rows * p.width {
        let id = i / p.width;
        let end = offsets[id + 1u];
        var sum = 0.0;
        for (var k = offsets[id]; k < end; k += 1u) {
            sum += dout[order[k] * p.width + i % p.width];
        }
        dtable[i] = sum;
    }
}
