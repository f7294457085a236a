// The keys of weight_topk, of entry i of a matrix. A neuron's cut tells its protected entries.
@group(0) @binding(2) var<storage, read> cuts: array<u32>;

fn key(m: Matrix, i: u32, bits: u32) -> u32 {
    let magnitude = bits & MAGNITUDE;
    if m.neurons == 0u {
        return magnitude;
    }
    let r = i / m.cols;
    let c = i - r * m.cols;
    let neuron = select(c, r, m.neurons == 1u);
    let position = select(r, c, m.neurons == 1u);
    let cut = cuts[m.cuts + 2u * neuron];
    let safe = magnitude > cut || (magnitude == cut && position < cuts[m.cuts + 2u * neuron + 1u]);
    return select(magnitude, magnitude | PROTECTED, safe);
}
