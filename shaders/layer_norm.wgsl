// LayerNorm over the last dimension: y = (x - mean) * rstd * weight (+ bias), rstd = 1 / sqrt(variance + eps).

#include grid

// Invocations that share a row: a power of two, few for narrow rows so that none idle. A workgroup takes 256 / LANES rows.
override LANES: u32 = 64u;

struct Params { rows: u32, width: u32, eps: f32 }

@group(0) @binding(0) var<uniform> p: Params;

var<workgroup> scratch: array<vec2<f32>, 256>;

// The sum of `value` over the LANES invocations of a row, in a tree.
fn row_sum(value: vec2<f32>, lane: u32) -> vec2<f32> {
    let sub = lane % LANES;
    workgroupBarrier();
    scratch[lane] = value;
    workgroupBarrier();
    for (var stride = LANES / 2u; stride > 0u; stride /= 2u) {
        if sub < stride {
            scratch[lane] += scratch[lane + stride];
        }
        workgroupBarrier();
    }
    return scratch[lane - sub];
}

@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> mean: array<f32>;
@group(0) @binding(5) var<storage, read_write> rstd: array<f32>;
@group(0) @binding(6) var<storage, read> bias: array<f32>;

// Mean and rstd of a row, written by its first invocation. The variance takes a second pass over the row: the
// difference of mean(x^2) and mean(x)^2 would cancel.
fn statistics(row: u32, lane: u32) -> vec2<f32> {
    let base = row * p.width;
    let end = select(0u, p.width, row < p.rows);
    var sum = 0.0;
    for (var i = lane % LANES; i < end; i += LANES) {
        sum += x[base + i];
    }
    let m = row_sum(vec2<f32>(sum, 0.0), lane).x / f32(p.width);
    var squares = 0.0;
    for (var i = lane % LANES; i < end; i += LANES) {
        let v = x[base + i] - m;
        squares += v * v;
    }
    let spread = row_sum(vec2<f32>(squares, 0.0), lane).x;
    let scale = 1.0 / sqrt(spread / f32(p.width) + p.eps);
    // Where the squares overflow, a scale of 0 would make zeros of large numbers; the infinite sum makes them infinite.
    let r = select(scale, spread, scale == 0.0);
    if lane % LANES == 0u && row < p.rows {
        mean[row] = m;
        rstd[row] = r;
    }
    return vec2<f32>(m, r);
}

// x, y: (rows, width), weight: (width), mean, rstd: (rows)
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

// As forward, plus bias: (width).
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

@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> x_in: array<f32>;
@group(0) @binding(3) var<storage, read> weight_in: array<f32>;
@group(0) @binding(4) var<storage, read> mean_in: array<f32>;
@group(0) @binding(5) var<storage, read> rstd_in: array<f32>;
@group(0) @binding(6) var<storage, read_write> dx: array<f32>;

// dout, x, dx: (rows, width), weight: (width), mean, rstd: (rows)
@compute @workgroup_size(256)
fn backward_input(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                  @builtin(local_invocation_index) lane: u32) {
    let first = flat_group(wid, grid) * (256u / LANES);
    if first >= p.rows { return; }
    let row = first + lane / LANES;
    let base = row * p.width;
    let end = select(0u, p.width, row < p.rows);
    let m = mean_in[min(row, p.rows - 1u)];
    let r = rstd_in[min(row, p.rows - 1u)];
    var sum = vec2<f32>(0.0, 0.0);
    for (var i = lane % LANES; i < end; i += LANES) {
        let g = dout[base + i] * weight_in[i];
        sum += vec2<f32>(g, g * (x_in[base + i] - m) * r);
    }
    let means = row_sum(sum, lane) / f32(p.width);
    for (var i = lane % LANES; i < end; i += LANES) {
        let g = dout[base + i] * weight_in[i];
        dx[base + i] = r * (g - means.x - (x_in[base + i] - m) * r * means.y);
    }
}

struct BlockParams { rows: u32, width: u32, block: u32 }

@group(0) @binding(0) var<uniform> b: BlockParams;
@group(0) @binding(3) var<storage, read> row_mean: array<f32>;
@group(0) @binding(4) var<storage, read> row_scale: array<f32>;
@group(0) @binding(5) var<storage, read_write> partials: array<f32>;

// Column sums of dout * (x - mean) * rstd over blocks of `block` rows; partials: (blocks, width). A workgroup takes 64
// columns, neighbours in memory, and 4 interleaved shares of the block's rows.
@compute @workgroup_size(256)
fn backward_weight(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                   @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    let tiles = (b.width + 63u) / 64u;
    let block = group / tiles;
    if block * b.block >= b.rows { return; }
    let column = group % tiles * 64u + lane % 64u;
    var end = min((block + 1u) * b.block, b.rows);
    if column >= b.width { end = 0u; }
    var sum = 0.0;
    for (var row = block * b.block + lane / 64u; row < end; row += 4u) {
        let i = row * b.width + column;
        sum += dout[i] * (x_in[i] - row_mean[row]) * row_scale[row];
    }
    scratch[lane] = vec2<f32>(sum, 0.0);
    workgroupBarrier();
    if lane < 64u && column < b.width {
        partials[block * b.width + column] =
            (scratch[lane].x + scratch[lane + 64u].x) + (scratch[lane + 128u].x + scratch[lane + 192u].x);
    }
}
