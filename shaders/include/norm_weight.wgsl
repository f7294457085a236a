// The gradient of a norm's weight by blocks of rows. The shader defines `term(i, row)`, the
// gradient's share of entry i in that row.

struct Params { rows: u32, width: u32, block: u32 }

@group(0) @binding(0) var<uniform> p: Params;

var<workgroup> quarters: array<f32, 256>;

// Column sums of the terms over blocks of `block` rows; partials: (blocks, width). A workgroup
// takes 64 columns, neighbours in memory, and 4 interleaved shares of the block's rows.
@compute @workgroup_size(256)
fn backward_weight(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
                   @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    let tiles = (p.width + 63u) / 64u;
    let block = group / tiles;
    if block * p.block >= p.rows { return; }
    let column = group % tiles * 64u + lane % 64u;
    var end = min((block + 1u) * p.block, p.rows);
    if column >= p.width { end = 0u; }
    var sum = 0.0;
    for (var row = block * p.block + lane / 64u; row < end; row += 4u) {
        sum += term(row * p.width + column, row);
    }
    quarters[lane] = sum;
    workgroupBarrier();
    if lane < 64u && column < p.width {
        partials[block * p.width + column] =
            (quarters[lane] + quarters[lane + 64u]) + (quarters[lane + 128u] + quarters[lane + 192u]);
    }
}
