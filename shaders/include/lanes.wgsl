// Sums and maxima over a workgroup of LANES invocations, a power of two that the shader defines.
// All of them must call; each receives the result.

var<workgroup> shared_lanes: array<f32, LANES>;

// By halves: always in the same order.
fn sum_lanes(lane: u32, value: f32) -> f32 {
    shared_lanes[lane] = value;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane < half {
            shared_lanes[lane] += shared_lanes[lane + half];
        }
        workgroupBarrier();
    }
    let total = shared_lanes[0];
    workgroupBarrier();
    return total;
}

fn max_lanes(lane: u32, value: f32) -> f32 {
    shared_lanes[lane] = value;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if lane < half {
            shared_lanes[lane] = max(shared_lanes[lane], shared_lanes[lane + half]);
        }
        workgroupBarrier();
    }
    let top = shared_lanes[0];
    workgroupBarrier();
    return top;
}
