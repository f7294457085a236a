// What the kernels over blocks of queries or keys share.

// Fours of a head's channels, and rows of a tile. TILE * QUADS is at most 480.
override QUADS: u32 = 4u;
override TILE: u32 = 64u;

struct Params {
    t: u32,
    heads: u32,
    workgroups: u32,
    // Blocks of 64 queries or keys in t.
    blocks: u32,
    // What products of queries and keys are multiplied by.
    scale: f32,
    has_sink: u32,
    // How many keys a query sees at most, its own among them: 1 to t.
    window: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;

// 15 KiB: D = 16 gives tiles of 64 rows, D = 128 still 15 rows.
var<workgroup> tile_a: array<vec4<f32>, 480>;
var<workgroup> tile_b: array<vec4<f32>, 480>;
var<workgroup> tile_lse: array<f32, 64>;
var<workgroup> tile_delta: array<f32, 64>;

// The block of a workgroup.
struct Block {
    // Where the head's first row begins, and from row to row.
    base: u32,
    stride: u32,
    // Where the head's statistics begin.
    stats: u32,
    head: u32,
    // The first query or key of the block.
    first: u32,
}

fn block_of(group: u32) -> Block {
    let at = group / p.blocks;
    let head = at % p.heads;
    let stride = p.heads * D;
    return Block(at / p.heads * p.t * stride + head * D, stride, at * p.t, head, group % p.blocks * 64u);
}

// The first key that query t sees.
fn first_key(t: u32) -> u32 {
    return t + 1u - min(t + 1u, p.window);
}

// Which of the channels 4c .. 4c + 3 exist.
fn exists(c: u32) -> vec4<bool> {
    return vec4<u32>(4u * c, 4u * c + 1u, 4u * c + 2u, 4u * c + 3u) < vec4<u32>(D);
}

// Where those channels are in the row that begins at `row`, the last one standing in for those that
// do not exist.
fn indices(row: u32, c: u32) -> vec4<u32> {
    return min(row + vec4<u32>(4u * c, 4u * c + 1u, 4u * c + 2u, 4u * c + 3u), vec4<u32>(row + D - 1u));
}

fn load_q(row: u32, c: u32) -> vec4<f32> {
    let i = indices(row, c);
    return select(vec4<f32>(), vec4<f32>(q[i.x], q[i.y], q[i.z], q[i.w]), exists(c));
}

fn load_k(row: u32, c: u32) -> vec4<f32> {
    let i = indices(row, c);
    return select(vec4<f32>(), vec4<f32>(k[i.x], k[i.y], k[i.z], k[i.w]), exists(c));
}

fn load_v(row: u32, c: u32) -> vec4<f32> {
    let i = indices(row, c);
    return select(vec4<f32>(), vec4<f32>(v[i.x], v[i.y], v[i.z], v[i.w]), exists(c));
}

// Stages `n` rows of keys and values, from `start` on.
fn stage_keys(at: Block, lane: u32, start: u32, n: u32) {
    for (var i = lane; i < n * QUADS; i += 64u) {
        let row = at.base + (start + i / QUADS) * at.stride;
        tile_a[i] = load_k(row, i % QUADS);
        tile_b[i] = load_v(row, i % QUADS);
    }
}
