// As reach.wgsl, with a barrier less and most of the walk side by side: one subgroup, that of lane 0, does all of it. Nothing is assumed
// of how the driver cuts the workgroup into subgroups, which need not even be of one size.

var<workgroup> counts: array<atomic<u32>, 256>;
var<workgroup> place: u32;
var<workgroup> missing: u32;
var<workgroup> reached: u32;

fn reach(lane: u32, number: u32) {
    workgroupBarrier();
    if subgroupAny(lane == 0u) {
        let size = subgroupAdd(1u);
        let share = (256u + size - 1u) / size;
        let first = min(subgroupExclusiveAdd(1u) * share, 256u);
        let end = min(first + share, 256u);
        var sum = 0u;
        for (var i = first; i < end; i++) {
            sum += atomicLoad(&counts[i]);
        }
        let before = subgroupExclusiveAdd(sum);
        if before < number && number <= before + sum {
            var left = number - before;
            var i = first;
            while i + 1u < end && left > atomicLoad(&counts[i]) {
                left -= atomicLoad(&counts[i]);
                i++;
            }
            place = i;
            missing = left;
            reached = atomicLoad(&counts[i]);
        }
    }
    workgroupBarrier();
}
