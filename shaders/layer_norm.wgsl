// LayerNorm over the last dimension: y = (x - mean) * rstd * weight (+ bias), rstd = 1 /
// sqrt(variance + eps). x, y, dout, dx: (rows, width), weight, bias: (width), mean, rstd: (rows).

#include grid

alias Value = vec2<f32>;

#kernel forward forward_bias

#include norm

struct Params { rows: u32, width: u32, eps: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> mean: array<f32>;
@group(0) @binding(5) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(6) var<storage, read> bias: array<f32>;

// Mean and rstd of a row, written by its first invocation. The variance takes a second pass over
// the row: the difference of mean(x^2) and mean(x)^2 would cancel.
fn statistics(row: u32, lane: u32) -> vec2<f32> {
    let base = row * p.width;
    let end = select(0u, p.width, row < p.rows);
    var sum = 0.0;
    for (var i = lane % LANES; i < end; i += LANES) {
        sum += x[base + i];
    }
    let m = row_sum(vec2<f32>(sum, 0.0), lane).x / f32(p.width);
    workgroupBarrier();
    var squares = 0.0;
    for (var i = lane % LANES; i < end; i += LANES) {
        let v = x[base + i] - m;
        squares += v * v;
    }
    let r = scale_of(row_sum(vec2<f32>(squares, 0.0), lane).x, p.width, p.eps);
    if lane % LANES == 0u && row < p.rows {
        mean[row] = m;
        rstd[row] = r;
    }
    return vec2<f32>(m, r);
}

@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let first = flat_group(wid, grid) * (256u / LANES);
    if first >= p.rows { return; }
    let row = first + lane / LANES;
    let stats = statistics(row, lane);
    let end = select(0u, p.width, row < p.rows);
    for (var i = lane % LANES; i < end; i += LANES) {
        let k = row * p.width + i;
        y[k] = (x[k] - stats.x) * stats.y * weight[i];
    }
}

@compute @workgroup_size(256)
fn forward_bias(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
    let first = flat_group(wid, grid) * (256u / LANES);
    if first >= p.rows { return; }
    let row = first + lane / LANES;
    let stats = statistics(row, lane);
    let end = select(0u, p.width, row < p.rows);
    for (var i = lane % LANES; i < end; i += LANES) {
        let k = row * p.width + i;
        y[k] = (x[k] - stats.x) * stats.y * weight[i] + bias[i];
    }
}

#kernel backward_input

#include norm

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read> mean: array<f32>;
@group(0) @binding(5) var<storage, read> rstd: array<f32>;
@group(0) @binding(6) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(256)
fn backward_input(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let first = flat_group(wid, grid) * (256u / LANES);
    if first >= p.rows { return; }
    let row = first + lane / LANES;
    let base = row * p.width;
    let end = select(0u, p.width, row < p.rows);
    let m = mean[min(row, p.rows - 1u)];
    let r = rstd[min(row, p.rows - 1u)];
    var sum = vec2<f32>(0.0, 0.0);
    for (var i = lane % LANES; i < end; i += LANES) {
        let g = dout[base + i] * weight[i];
        sum += vec2<f32>(g, g * (x[base + i] - m) * r);
    }
    let means = row_sum(sum, lane) / f32(p.width);
    for (var i = lane % LANES; i < end; i += LANES) {
        let g = dout[base + i] * weight[i];
        dx[base + i] = r * (g - means.x - (x[base + i] - m) * r * means.y);
    }
}

#kernel backward_weight

@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> mean: array<f32>;
@group(0) @binding(4) var<storage, read> rstd: array<f32>;
@group(0) @binding(5) var<storage, read_write> partials: array<f32>;

fn term(i: u32, row: u32) -> f32 {
    return dout[i] * (x[i] - mean[row]) * rstd[row];
}

#include norm_weight
