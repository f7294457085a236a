// Parts of the last dimension, taken out and put together.

#include grid

// A part of `n` entries, `part` wide, beside the columns start.. of rows that are `width` wide.
struct Params { n: u32, part: u32, width: u32, start: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> dest: array<f32>;

// source: (rows, width), dest: (rows, part)
@compute @workgroup_size(256)
fn slice(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
         @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.n {
        dest[i] = source[i / p.part * p.width + p.start + i % p.part];
    }
}

// source: (rows, part), dest: (rows, width), of which only the part's columns are written
@compute @workgroup_size(256)
fn place(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
         @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.n {
        dest[i / p.part * p.width + p.start + i % p.part] = source[i];
    }
}
