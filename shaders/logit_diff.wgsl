// Differences of two logits a sequence. positions: (B, 2), where the logits of the right and the
// wrong token are.

#include grid

struct Params { n: u32 }

@group(0) @binding(0) var<uniform> p: Params;
#kernel forward

@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read_write> z: array<f32>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let b = flat_group(wid, grid) * 64u + lane;
    if b < p.n {
        z[b] = logits[positions[2u * b]] - logits[positions[2u * b + 1u]];
    }
}

#kernel backward

@group(0) @binding(1) var<storage, read> dz: array<f32>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read_write> dlogits: array<f32>;

// Into zeros; a token that is right and wrong at once gets nothing.
@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let b = flat_group(wid, grid) * 64u + lane;
    if b < p.n {
        dlogits[positions[2u * b]] += dz[b];
        dlogits[positions[2u * b + 1u]] -= dz[b];
    }
}
