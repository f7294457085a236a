// Where the running sum of 256 counts reaches a number. For workgroups of 256.

var<workgroup> counts: array<atomic<u32>, 256>;
// The first bin with which the running sum reaches the number; what the bins before it lack of the number (from 1 to the
// bin's count); the bin's count.
var<workgroup> bin: u32;
var<workgroup> remainder: u32;
var<workgroup> bin_count: u32;

var<workgroup> sums: array<u32, 16>;

// All invocations call it, after each has stored its count or added to others, with the same number, from 1 to the sum of all (with
// another, what is found means nothing). What is found stays until the next call.
fn prefix_select(lane: u32, number: u32) {
    workgroupBarrier();
    if lane < 16u {
        var sum = 0u;
        for (var i = 0u; i < 16u; i++) {
            sum += atomicLoad(&counts[lane * 16u + i]);
        }
        sums[lane] = sum;
    }
    workgroupBarrier();
    if lane == 0u {
        var remaining = number;
        var g = 0u;
        while g < 15u && remaining > sums[g] {
            remaining -= sums[g];
            g++;
        }
        var i = g * 16u;
        while i < g * 16u + 15u && remaining > atomicLoad(&counts[i]) {
            remaining -= atomicLoad(&counts[i]);
            i++;
        }
        bin = i;
        remainder = remaining;
        bin_count = atomicLoad(&counts[i]);
    }
    workgroupBarrier();
}
