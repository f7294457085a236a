// The keys of weight_topk. A neuron's cut tells its protected entries.
@group(0) @binding(2) var<storage, read> cuts: array<u32>;

fn key(i: u32, bits: u32) -> u32 {
    let magnitude = bits & MAGNITUDE;
    if p.neurons == 0u {
        return magnitude;
    }
    let r = i / p.cols;
    let c = i - r * p.cols;
    let neuron = select(c, r, p.neurons == 1u);
    let position = select(r, c, p.neurons == 1u);
    let cut = cuts[2u * neuron];
    let safe = magnitude > cut || (magnitude == cut && position < cuts[2u * neuron + 1u]);
    return select(magnitude, magnitude | PROTECTED, safe);
}
