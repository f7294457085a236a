// Products of a dense matrix with a sparse one (CSR or CSC).

#include grid

struct Params { rows: u32, width: u32, segments: u32, has_bias: u32, workgroups: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> offsets: array<u32>;
@group(0) @binding(3) var<storage, read> indices: array<u32>;
@group(0) @binding(4) var<storage, read> values: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;

// 16 rows of x by 256 of its columns, four rows to a vector: exactly the 16 KiB that every device
// has. With 16 rows each nonzero that is fetched serves 16 multiply-adds; vectors of the same rows
// lie together, so that neighbouring invocations that fill the tile write neighbouring memory.
var<workgroup> tile: array<vec4<f32>, 1024>;

fn x_at(row: u32, col: u32) -> f32 {
    if row < p.rows && col < p.width {
        return x[row * p.width + col];
    }
    return 0.0;
}

fn store(row: u32, segment: u32, value: f32) {
    if row < p.rows {
        out[row * p.segments + segment] = value;
    }
}

fn store_four(row: u32, segment: u32, value: vec4<f32>) {
    store(row, segment, value.x);
    store(row + 1u, segment, value.y);
    store(row + 2u, segment, value.z);
    store(row + 3u, segment, value.w);
}

// out[r, s] = bias[s] + the sum over segment s of value * x[r, index], for x: (rows, width), out:
// (rows, segments). A workgroup takes 16 rows and 256 segments, one an invocation; as indices
// ascend, a segment can be followed through one tile of x after the other.
@compute @workgroup_size(256)
fn product(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    let group = flat_group(wid, grid);
    if group >= p.workgroups {
        return;
    }
    let across = (p.segments + 255u) / 256u;
    let row = (group / across) * 16u;
    let segment = (group % across) * 256u + lane;
    var at = 0u;
    var end = 0u;
    var start = 0.0;
    if segment < p.segments {
        at = offsets[segment];
        end = offsets[segment + 1u];
        if p.has_bias != 0u {
            start = bias[segment];
        }
    }
    var y0 = vec4<f32>(start);
    var y1 = y0;
    var y2 = y0;
    var y3 = y0;
    for (var first = 0u; first < p.width; first += 256u) {
        for (var q = 0u; q < 4u; q++) {
            let r = row + 4u * q;
            let col = first + lane;
            tile[q * 256u + lane] = vec4<f32>(x_at(r, col), x_at(r + 1u, col), x_at(r + 2u, col), x_at(r + 3u, col));
        }
        workgroupBarrier();
        while at < end {
            let i = indices[at] - first;
            if i >= 256u {
                break;
            }
            let w = values[at];
            y0 += w * tile[i];
            y1 += w * tile[256u + i];
            y2 += w * tile[512u + i];
            y3 += w * tile[768u + i];
            at++;
        }
        workgroupBarrier();
    }
    if segment < p.segments {
        store_four(row, segment, y0);
        store_four(row + 4u, segment, y1);
        store_four(row + 8u, segment, y2);
        store_four(row + 12u, segment, y3);
    }
}
