// Parts of the first dimension, taken out and put one after the other: runs of entries.

#include grid

// `n` entries from source[start..] to dest[to..].
struct Params { n: u32, start: u32, to: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> dest: array<f32>;

@compute @workgroup_size(256)
fn copy(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.n {
        dest[p.to + i] = source[p.start + i];
    }
}
