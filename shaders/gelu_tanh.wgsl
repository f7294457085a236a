// The tanh form of the Gaussian error linear unit, one entry an invocation.

#include grid

struct Params { n: u32 }

@group(0) @binding(0) var<uniform> p: Params;

// S(x) = 1 / (1 + e^(-2u)), where u = sqrt(2/pi) (x + 0.044715 x^3), and x S'(x). Both from e^(-2|u|),
// which cannot overflow; at |x| = 10 it is below what a float can tell from 0.
fn sigmoid_of(x: f32) -> vec2<f32> {
    let a = min(abs(x), 10.0);
    let square = 0.044715 * a * a;
    let e = select(exp(-1.5957692 * a * (1.0 + square)), 0.0, a >= 10.0);
    let tail = e / (1.0 + e);
    let slope = 1.5957692 * a * (1.0 + 3.0 * square) * tail / (1.0 + e);
    return vec2<f32>(select(1.0 - tail, tail, x < 0.0), select(slope, -slope, x < 0.0));
}

#kernel forward

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

// y = x S(x)
@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.n {
        y[i] = x[i] * sigmoid_of(x[i]).x;
    }
}

#kernel backward

@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

// dx = dout (S(x) + x S'(x))
@compute @workgroup_size(256)
fn backward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
            @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.n {
        let s = sigmoid_of(x[i]);
        dx[i] = dout[i] * (s.x + s.y);
    }
}
