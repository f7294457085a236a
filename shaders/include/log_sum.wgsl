// Of the row x[start], ..., x[start + v - 1]: its largest entry, and the logarithm of the sum of
// e^(x - largest). All invocations of a workgroup must call; each receives the result. Needs
// `lanes`.
fn row_log_sum(lane: u32, start: u32, v: u32) -> vec2<f32> {
    // Lanes without an entry hold the first one: no infinities needed.
    var best = x[start];
    for (var c = lane; c < v; c += LANES) {
        best = max(best, x[start + c]);
    }
    let top = max_lanes(lane, best);
    var part = 0.0;
    for (var c = lane; c < v; c += LANES) {
        part += exp(x[start + c] - top);
    }
    return vec2(top, log(sum_lanes(lane, part)));
}
