// As lanes.wgsl, with two barriers instead of ten: one subgroup, that of lane 0, does all of it.
// Nothing is assumed of how the driver cuts the workgroup into subgroups, which need not even be of
// one size. The other subgroups run the same operations on nothing: WGSL has these only where all
// invocations of a workgroup arrive, and nothing promises that lanes meet again within a branch.

var<workgroup> shared_lanes: array<f32, LANES>;
// Apart from the lanes, so that the next call may begin while this one is still read.
var<workgroup> over_lanes: f32;

// In the driver's order, which is always the same.
fn sum_lanes(lane: u32, value: f32) -> f32 {
    shared_lanes[lane] = value;
    workgroupBarrier();
    let end = select(0u, LANES, subgroupAny(lane == 0u));
    let size = subgroupAdd(1u);
    var sum = 0.0;
    for (var i = subgroupExclusiveAdd(1u); i < end; i += size) {
        sum += shared_lanes[i];
    }
    let total = subgroupAdd(sum);
    if lane == 0u {
        over_lanes = total;
    }
    workgroupBarrier();
    return over_lanes;
}

fn max_lanes(lane: u32, value: f32) -> f32 {
    shared_lanes[lane] = value;
    workgroupBarrier();
    let end = select(0u, LANES, subgroupAny(lane == 0u));
    let size = subgroupAdd(1u);
    var top = value;
    for (var i = subgroupExclusiveAdd(1u); i < end; i += size) {
        top = max(top, shared_lanes[i]);
    }
    let best = subgroupMax(top);
    if lane == 0u {
        over_lanes = best;
    }
    workgroupBarrier();
    return over_lanes;
}
