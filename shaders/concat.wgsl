// Parts of one dimension, taken out and put together.

#include grid

// A part of `part` consecutive entries, from `start` on in each run of `whole`. `n` entries in all parts.
struct Params { n: u32, part: u32, whole: u32, start: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> dest: array<f32>;

// source: (runs, whole), dest: (runs, part)
@compute @workgroup_size(256)
fn narrow(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
          @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.n {
        dest[i] = source[i / p.part * p.whole + p.start + i % p.part];
    }
}

// source: (runs, part), dest: (runs, whole), of which the other entries stay
@compute @workgroup_size(256)
fn write(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
         @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.n {
        dest[i / p.part * p.whole + p.start + i % p.part] = source[i];
    }
}
