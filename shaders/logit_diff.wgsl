// Differences of two logits a sequence. places: (B, 2), where the right and the wrong token's logit stand.

#include grid

struct Params { n: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> places: array<u32>;
@group(0) @binding(3) var<storage, read_write> z: array<f32>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let b = flat_group(wid, grid) * 64u + lane;
    if b < p.n {
        z[b] = logits[places[2u * b]] - logits[places[2u * b + 1u]];
    }
}

@group(0) @binding(1) var<storage, read> dz: array<f32>;
@group(0) @binding(3) var<storage, read_write> dlogits: array<f32>;

// Into zeros; a token that is right and wrong at once gets nothing.
@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let b = flat_group(wid, grid) * 64u + lane;
    if b < p.n {
        dlogits[places[2u * b]] += dz[b];
        dlogits[places[2u * b + 1u]] -= dz[b];
    }
}
