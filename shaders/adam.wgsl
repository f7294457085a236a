// One step of Adam, in place.

#include grid

// rate = lr / (1 - beta1^step), correction = 1 / (1 - beta2^step), keep = 1 - decay: from the
// host's float64.
struct Params {
    n: u32,
    scaled: u32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    rate: f32,
    correction: f32,
    eps: f32,
    keep: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> grad: array<f32>;
@group(0) @binding(2) var<storage, read> factor: array<f32>;
@group(0) @binding(3) var<storage, read_write> weight: array<f32>;
@group(0) @binding(4) var<storage, read_write> m: array<f32>;
@group(0) @binding(5) var<storage, read_write> v: array<f32>;

// One entry an invocation. `factor` counts only if `scaled` is set.
@compute @workgroup_size(256)
fn apply(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
         @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.n {
        var g = grad[i];
        if p.scaled != 0u {
            g *= factor[0];
        }
        let first = p.beta1 * m[i] + p.rest1 * g;
        let second = p.beta2 * v[i] + p.rest2 * (g * g);
        m[i] = first;
        v[i] = second;
        weight[i] = (weight[i] - p.rate * first / (sqrt(second * p.correction) + p.eps)) * p.keep;
    }
}
