// RMSNorm over the last dimension: y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + eps).
// x, y, dout, dx: (rows, width), weight: (width), rstd: (rows).

#include grid

alias Value = f32;

#kernel forward

#include norm

struct Params { rows: u32, width: u32, eps: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> rstd: array<f32>;

@compute @workgroup_size(256)
fn forward(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let first = flat_group(wid, grid) * (256u / LANES);
    if first >= p.rows { return; }
    let row = first + lane / LANES;
    let base = row * p.width;
    let end = select(0u, p.width, row < p.rows);
    var squares = 0.0;
    for (var i = lane % LANES; i < end; i += LANES) {
        let v = x[base + i];
        squares += v * v;
    }
    let r = scale_of(row_sum(squares, lane), p.width, p.eps);
    for (var i = lane % LANES; i < end; i += LANES) {
        y[base + i] = x[base + i] * r * weight[i];
    }
    if lane % LANES == 0u && row < p.rows {
        rstd[row] = r;
    }
}

#kernel backward_input

#include norm

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read> rstd: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(256)
fn backward_input(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let first = flat_group(wid, grid) * (256u / LANES);
    if first >= p.rows { return; }
    let row = first + lane / LANES;
    let base = row * p.width;
    let end = select(0u, p.width, row < p.rows);
    var product = 0.0;
    for (var i = lane % LANES; i < end; i += LANES) {
        product += dout[base + i] * weight[i] * x[base + i];
    }
    let r = rstd[min(row, p.rows - 1u)];
    let along = row_sum(product, lane) * r * r / f32(p.width);
    for (var i = lane % LANES; i < end; i += LANES) {
        dx[base + i] = r * (dout[base + i] * weight[i] - x[base + i] * along);
    }
}

#kernel backward_weight

@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> rstd: array<f32>;
@group(0) @binding(4) var<storage, read_write> partials: array<f32>;

fn term(i: u32, row: u32) -> f32 {
    return dout[i] * x[i] * rstd[row];
}

#include norm_weight

#kernel sum_partials

struct Params { rows: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read_write> total: array<f32>;

// total: (width) = the column sums of partials: (rows, width), one column an invocation.
@compute @workgroup_size(256)
fn sum_partials(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
    let column = flat_group(wid, grid) * 256u + lane;
    if column < p.width {
        var sum = 0.0;
        for (var block = 0u; block < p.rows; block += 1u) {
            sum += partials[block * p.width + column];
        }
        total[column] = sum;
    }
}
