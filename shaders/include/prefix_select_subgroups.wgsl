// As prefix_select.wgsl with a barrier less: the subgroup of lane 0 does the whole search. It
// assumes nothing about how the driver cuts the workgroup into subgroups; they may differ in size.
// The other subgroups run the same operations on nothing, as in lanes_subgroups.wgsl.

var<workgroup> counts: array<atomic<u32>, 256>;
var<workgroup> bin: u32;
var<workgroup> remainder: u32;
var<workgroup> bin_count: u32;

fn prefix_select(lane: u32, number: u32) {
    workgroupBarrier();
    let extent = select(0u, 256u, subgroupAny(lane == 0u));
    let size = subgroupAdd(1u);
    let share = (256u + size - 1u) / size;
    let first = min(subgroupExclusiveAdd(1u) * share, extent);
    let end = min(first + share, extent);
    var sum = 0u;
    for (var i = first; i < end; i++) {
        sum += atomicLoad(&counts[i]);
    }
    let before = subgroupExclusiveAdd(sum);
    // Never where the sum is 0.
    if before < number && number <= before + sum {
        var remaining = number - before;
        var i = first;
        while i + 1u < end && remaining > atomicLoad(&counts[i]) {
            remaining -= atomicLoad(&counts[i]);
            i++;
        }
        bin = i;
        remainder = remaining;
        bin_count = atomicLoad(&counts[i]);
    }
    workgroupBarrier();
}
