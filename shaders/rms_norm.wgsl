// RMSNorm over the last dimension: y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + eps).

#include grid

// Invocations that share a row: a power of two, few for narrow rows so that none idle. A workgroup takes 256 / LANES rows.
override LANES: u32 = 64u;

struct Params { rows: u32, width: u32, eps: f32 }

@group(0) @binding(0) var<uniform> p: Params;

var<workgroup> scratch: array<f32, 256>;

// The sum of `value` over the LANES invocations of a row, in a tree.
fn row_sum(value: f32, lane: u32) -> f32 {
    let sub = lane % LANES;
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
@group(0) @binding(4) var<storage, read_write> rstd: array<f32>;

// x: (rows, width), weight: (width), y: (rows, width), rstd: (rows)
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
    let sum = row_sum(squares, lane);
    let scale = 1.0 / sqrt(sum / f32(p.width) + p.eps);
    // Where the squares overflow, a scale of 0 would make zeros of large numbers; the infinite sum makes them infinite.
    let r = select(scale, sum, scale == 0.0);
    for (var i = lane % LANES; i < end; i += LANES) {
        y[base + i] = x[base + i] * r * weight[i];
    }
    if lane % LANES == 0u && row < p.rows {
        rstd[row] = r;
    }
}

@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> x_in: array<f32>;
@group(0) @binding(3) var<storage, read> weight_in: array<f32>;
@group(0) @binding(4) var<storage, read> rstd_in: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;

// dout, x, dx: (rows, width), weight: (width), rstd: (rows)
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
        product += dout[base + i] * weight_in[i] * x_in[base + i];
    }
    let r = rstd_in[min(row, p.rows - 1u)];
    let along = row_sum(product, lane) * r * r / f32(p.width);
    for (var i = lane % LANES; i < end; i += LANES) {
        dx[base + i] = r * (dout[base + i] * weight_in[i] - x_in[base + i] * along);
    }
}

struct BlockParams { rows: u32, width: u32, block: u32 }

@group(0) @binding(0) var<uniform> b: BlockParams;
@group(0) @binding(3) var<storage, read> row_scale: array<f32>;
@group(0) @binding(4) var<storage, read_write> partials: array<f32>;

// Column sums of dout * x * rstd over blocks of `block` rows; partials: (blocks, width). A workgroup takes 64 columns,
// neighbours in memory, and 4 interleaved shares of the block's rows.
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
        sum += dout[i] * x_in[i] * row_scale[row];
    }
    scratch[lane] = sum;
    workgroupBarrier();
    if lane < 64u && column < b.width {
        partials[block * b.width + column] =
            (scratch[lane] + scratch[lane + 64u]) + (scratch[lane + 128u] + scratch[lane + 192u]);
    }
}

struct SumParams { blocks: u32, width: u32 }

@group(0) @binding(0) var<uniform> s: SumParams;
@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> total: array<f32>;

// total: (width) = the column sums of parts: (blocks, width), one column an invocation.
@compute @workgroup_size(256)
fn sum_partials(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                @builtin(local_invocation_index) lane: u32) {
    let column = flat_group(wid, grid) * 256u + lane;
    if column < s.width {
        var sum = 0.0;
        for (var block = 0u; block < s.blocks; block += 1u) {
            sum += parts[block * s.width + column];
        }
        total[column] = sum;
    }
}
