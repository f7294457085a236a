// Entries of at least a learned magnitude. z, y, dout, dz: (rows, width); log_eps: (width).

#include grid

// e^log_eps, which neither vanishes nor overflows.
fn least(log_eps: f32) -> f32 {
    return exp(clamp(log_eps, -87.0, 80.0));
}

// e^-|sharpness u|, and 0 where that is below e^-87: also times the largest float.
fn tail(u: f32, sharpness: f32) -> f32 {
    let limit = 87.0 / sharpness;
    let distance = min(abs(u), limit);
    return select(exp(-distance * sharpness), 0.0, distance >= limit);
}

#kernel hard

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read> log_eps: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// y = z where |z| >= e^log_eps, else 0.
@compute @workgroup_size(256)
fn hard(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.rows * p.width {
        // Not >=: that would hide a NaN.
        y[i] = select(z[i], 0.0, abs(z[i]) < least(log_eps[i % p.width]));
    }
}

#kernel soft

struct Params { rows: u32, width: u32, sharpness: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read> log_eps: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

// y = z sigmoid(sharpness (|z| - e^log_eps))
@compute @workgroup_size(256)
fn soft(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.rows * p.width {
        let u = abs(z[i]) - least(log_eps[i % p.width]);
        let e = tail(u, p.sharpness);
        y[i] = z[i] * select(1.0, e, u < 0.0) / (1.0 + e);
    }
}

#kernel backward_hard

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> z: array<f32>;
@group(0) @binding(3) var<storage, read> log_eps: array<f32>;
@group(0) @binding(4) var<storage, read_write> dz: array<f32>;

// dz = dout where |z| >= e^log_eps, else 0.
@compute @workgroup_size(256)
fn backward_hard(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.rows * p.width {
        dz[i] = select(dout[i], 0.0, abs(z[i]) < least(log_eps[i % p.width]));
    }
}

#kernel backward_soft

struct Params { rows: u32, width: u32, sharpness: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> z: array<f32>;
@group(0) @binding(3) var<storage, read> log_eps: array<f32>;
@group(0) @binding(4) var<storage, read_write> dz: array<f32>;

// dz = dout (s + |z| sharpness s (1 - s)) with s = sigmoid(sharpness (|z| - e^log_eps))
@compute @workgroup_size(256)
fn backward_soft(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                 @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 256u + lane;
    if i < p.rows * p.width {
        let magnitude = abs(z[i]);
        let u = magnitude - least(log_eps[i % p.width]);
        let e = tail(u, p.sharpness);
        let gate = select(1.0, e, u < 0.0) / (1.0 + e);
        let slope = e / ((1.0 + e) * (1.0 + e));
        dz[i] = dout[i] * (gate + magnitude * (p.sharpness * slope));
    }
}

#kernel partial_sums

struct Params { rows: u32, width: u32, chunks: u32, sharpness: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> z: array<f32>;
@group(0) @binding(3) var<storage, read> log_eps: array<f32>;
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;

// sums[chunk, c] = the sum over the chunk's 64 rows of dout z sharpness s (1 - s), an entry an
// invocation.
@compute @workgroup_size(64)
fn partial_sums(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(wid, grid) * 64u + lane;
    if i >= p.chunks * p.width {
        return;
    }
    let c = i % p.width;
    let eps = least(log_eps[c]);
    let first = i / p.width * 64u;
    var sum = 0.0;
    for (var r = first; r < min(first + 64u, p.rows); r++) {
        let at = r * p.width + c;
        let e = tail(abs(z[at]) - eps, p.sharpness);
        sum += dout[at] * (z[at] * (p.sharpness * (e / ((1.0 + e) * (1.0 + e)))));
    }
    sums[i] = sum;
}

#kernel backward_log_eps

struct Params { chunks: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> sums: array<f32>;
@group(0) @binding(2) var<storage, read> log_eps: array<f32>;
@group(0) @binding(3) var<storage, read_write> dlog_eps: array<f32>;

// dlog_eps = -e^log_eps * the chunks' sums.
@compute @workgroup_size(64)
fn backward_log_eps(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                    @builtin(local_invocation_index) lane: u32) {
    let c = flat_group(wid, grid) * 64u + lane;
    if c >= p.width {
        return;
    }
    var sum = 0.0;
    for (var chunk = 0u; chunk < p.chunks; chunk++) {
        sum += sums[chunk * p.width + c];
    }
    dlog_eps[c] = -least(log_eps[c]) * sum;
}
