// Where the running sum of 256 counts reaches a number. For workgroups of 256.

var<workgroup> counts: array<atomic<u32>, 256>;
// The first count with which the sum reaches the number; what is missing without it, from 1 to the count; the count.
var<workgroup> place: u32;
var<workgroup> missing: u32;
var<workgroup> reached: u32;

var<workgroup> sums: array<u32, 16>;

// All invocations call it, after each has stored its count or added to others, with the same number, from 1 to the sum of all (with
// another, what is found means nothing). What is found stays until the next call.
fn reach(lane: u32, number: u32) {
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
        var left = number;
        var g = 0u;
        while g < 15u && left > sums[g] {
            left -= sums[g];
            g++;
        }
        var i = g * 16u;
        while i < g * 16u + 15u && left > atomicLoad(&counts[i]) {
            left -= atomicLoad(&counts[i]);
            i++;
        }
        place = i;
        missing = left;
        reached = atomicLoad(&counts[i]);
    }
    workgroupBarrier();
}
