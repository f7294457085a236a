// Gates over channels. x, y, dout, dx: (rows, width); tau, mean: (width).

#include grid

#kernel forward

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> tau: array<f32>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// y = x where tau >= 0, else the channel's mean.
@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.rows * p.width {
        let c = i % p.width;
        y[i] = select(mean[c], x[i], tau[c] >= 0.0);
    }
}

#kernel backward_input

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> tau: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

// dx = dout where tau >= 0, else 0.
@compute @workgroup_size(256)
fn backward_input(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.rows * p.width {
        dx[i] = select(0.0, dout[i], tau[i % p.width] >= 0.0);
    }
}

#kernel partial_sums

struct Params { rows: u32, width: u32, chunks: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> mean: array<f32>;
@group(0) @binding(3) var<storage, read> dout: array<f32>;
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;

// sums[chunk, c] = the sum over the chunk's 64 rows of dout (x - mean), an entry an invocation.
@compute @workgroup_size(64)
fn partial_sums(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 64u + lane;
    if i >= p.chunks * p.width {
        return;
    }
    let c = i % p.width;
    let first = i / p.width * 64u;
    var sum = 0.0;
    for (var r = first; r < min(first + 64u, p.rows); r++) {
        sum += dout[r * p.width + c] * (x[r * p.width + c] - mean[c]);
    }
    sums[i] = sum;
}

#kernel backward_tau

struct Params { chunks: u32, width: u32, temperature: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> sums: array<f32>;
@group(0) @binding(2) var<storage, read> tau: array<f32>;
@group(0) @binding(3) var<storage, read_write> dtau: array<f32>;

// dtau = slope of the sigmoid * the chunks' sums. The slope is even: of -|tau| it cannot overflow.
@compute @workgroup_size(64)
fn backward_tau(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
    let c = flat_group(wid, grid) * 64u + lane;
    if c >= p.width {
        return;
    }
    var sum = 0.0;
    for (var chunk = 0u; chunk < p.chunks; chunk++) {
        sum += sums[chunk * p.width + c];
    }
    let e = exp(-abs(tau[c] / p.temperature));
    dtau[c] = sum * e / ((1.0 + e) * (1.0 + e) * p.temperature);
}
