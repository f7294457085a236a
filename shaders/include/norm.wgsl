// What normalising rows shares. The shader defines `Value`, and `p` with rows, width and eps.

// Invocations that share a row: a power of two, few for narrow rows so that none idle. A workgroup
// takes 256 / LANES rows.
override LANES: u32 = 64u;

var<workgroup> scratch: array<Value, 256>;

// The sum of `value` over the LANES invocations of a row, in a tree.
fn row_sum(value: Value, lane: u32) -> Value {
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

// 1 / sqrt(squares / width + eps). Where the squares overflow, a scale of 0 would make zeros of
// large numbers; the infinite sum makes them infinite.
fn scale_of(squares: f32, width: u32, eps: f32) -> f32 {
    let scale = 1.0 / sqrt(squares / f32(width) + eps);
    return select(scale, squares, scale == 0.0);
}
