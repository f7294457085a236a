//! Attention on the CPU: one head at a time in parallel, four queries at a time within it.
//!
//! Everything is made of one small product of four rows with a matrix, kept in registers. Heads are
//! first packed so that what it loads is contiguous: keys and values transposed, (D, T), where its
//! columns are keys, and as rows, (T, D), where they are channels; the contiguous dimension is
//! padded with zeros to whole vectors.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::device::cpu::{for_row_blocks, inlined, rows_per_block};
use crate::ops::math::{LANES, exp, largest};

/// The sizes of an attention.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub(super) batch: usize,
    pub(super) time: usize,
    /// H.
    pub(super) count: usize,
    /// D.
    pub(super) width: usize,
    /// What the products of queries and keys are multiplied by.
    pub(super) scale: f32,
    /// How many keys a query sees at most, its own among them: 1 to `time`.
    pub(super) window: usize,
}

impl Heads {
    /// The first key that the query at time `t` sees.
    #[inline(always)]
    fn first_key(self, t: usize) -> usize {
        (t + 1).saturating_sub(self.window)
    }

    /// Entries of one head of one batch entry.
    fn size(self) -> usize {
        self.time * self.width
    }

    /// The channels of head `at % count` of batch entry `at / count`, time by time, in `x`: (B, T,
    /// H·D).
    #[inline(always)]
    fn rows(self, x: &[f32], at: usize) -> impl Iterator<Item = &[f32]> {
        let (b, h) = (at / self.count, at % self.count);
        let entry = &x[b * self.count * self.size()..][..self.count * self.size()];
        entry.chunks_exact(self.count * self.width).map(move |row| &row[h * self.width..][..self.width])
    }
}

/// Rows that a product takes at once: four rows by two vectors of sums fit into sixteen registers.
const BLOCK_ROWS: usize = 4;

/// Columns that a product takes at once.
const fn columns<S: Simd>() -> usize {
    2 * S::F32_LANES
}

/// Four rows by [`columns`].
type Block<S> = [[<S as Simd>::f32s; 2]; BLOCK_ROWS];

/// The first [`columns`] entries of `x`.
#[inline(always)]
fn load<S: Simd>(x: &[f32]) -> [S::f32s; 2] {
    let vectors = S::as_simd_f32s(&x[..columns::<S>()]).0;
    [vectors[0], vectors[1]]
}

#[inline(always)]
fn store<S: Simd>(x: &mut [f32], block: [S::f32s; 2]) {
    S::as_mut_simd_f32s(&mut x[..columns::<S>()]).0.copy_from_slice(&block);
}

/// Rows r of `a` times `b`, whose row i is what follows `i * stride`.
#[inline(always)]
fn product<S: Simd>(simd: S, a: [&[f32]; BLOCK_ROWS], b: &[f32], stride: usize) -> Block<S> {
    let mut sums = [[simd.splat_f32s(0.0); 2]; BLOCK_ROWS];
    let n = a[0].len();
    let a = [&a[0][..n], &a[1][..n], &a[2][..n], &a[3][..n]];
    for i in 0..n {
        let b = load::<S>(&b[i * stride..]);
        for r in 0..BLOCK_ROWS {
            let factor = simd.splat_f32s(a[r][i]);
            sums[r][0] = simd.mul_add_e_f32s(factor, b[0], sums[r][0]);
            sums[r][1] = simd.mul_add_e_f32s(factor, b[1], sums[r][1]);
        }
    }
    sums
}

/// `out[j] += sum over r of a[r][j] b[r]` for all j: [`columns`] of `out`, whose rows are `stride`
/// apart.
#[inline(always)]
fn add_outer<S: Simd>(simd: S, out: &mut [f32], stride: usize, a: [&[f32]; BLOCK_ROWS], b: Block<S>) {
    let n = a[0].len();
    let a = [&a[0][..n], &a[1][..n], &a[2][..n], &a[3][..n]];
    for j in 0..n {
        let mut sums = load::<S>(&out[j * stride..]);
        for r in 0..BLOCK_ROWS {
            let factor = simd.splat_f32s(a[r][j]);
            sums[0] = simd.mul_add_e_f32s(factor, b[r][0], sums[0]);
            sums[1] = simd.mul_add_e_f32s(factor, b[r][1], sums[1]);
        }
        store::<S>(&mut out[j * stride..], sums);
    }
}

/// `n` entries of each of four consecutive rows of `x`.
#[inline(always)]
fn four(x: &[f32], stride: usize, n: usize) -> [&[f32]; BLOCK_ROWS] {
    [&x[..n], &x[stride..][..n], &x[2 * stride..][..n], &x[3 * stride..][..n]]
}

/// The first [`columns`] of each of four consecutive rows of `x`.
#[inline(always)]
fn load_four<S: Simd>(x: &[f32], stride: usize) -> Block<S> {
    [load::<S>(x), load::<S>(&x[stride..]), load::<S>(&x[2 * stride..]), load::<S>(&x[3 * stride..])]
}

/// Writes the first entries of four rows of sums, times a factor each, into consecutive rows of
/// `out` from `column` on. Rows that `out` does not have and columns past its `width` are padding.
#[inline(always)]
fn store_part<S: Simd>(out: &mut [f32], width: usize, column: usize, sums: Block<S>, factors: [f32; BLOCK_ROWS]) {
    for (r, out) in out.chunks_exact_mut(width).take(BLOCK_ROWS).enumerate() {
        let out = &mut out[column..width.min(column + columns::<S>())];
        for (out, sum) in out.iter_mut().zip(pulp::bytemuck::cast_slice::<_, f32>(&sums[r])) {
            *out = sum * factors[r];
        }
    }
}

/// What a thread holds of the head at hand, in memory that serves it for the next one too.
#[derive(Default)]
struct Scratch {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
    k_columns: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
    p: Vec<f32>,
    ds: Vec<f32>,
}

/// Makes `out` the given number of zeros.
#[inline(always)]
fn clear(out: &mut Vec<f32>, len: usize) {
    out.clear();
    out.resize(len, 0.0);
}

/// Makes `out` the rows times `factor`, padded to (`count`, `width`).
#[inline(always)]
fn pad<'a>(out: &mut Vec<f32>, rows: impl Iterator<Item = &'a [f32]>, count: usize, width: usize, factor: f32) {
    clear(out, count * width);
    for (to, from) in out.chunks_exact_mut(width).zip(rows) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = from * factor);
    }
}

/// Makes `out` a matrix whose rows are `time` wide and whose columns are the rows.
#[inline(always)]
fn transpose<'a>(out: &mut Vec<f32>, rows: impl Iterator<Item = &'a [f32]>, width: usize, time: usize) {
    clear(out, width * time);
    for (t, row) in rows.enumerate() {
        for (c, &v) in row.iter().enumerate() {
            out[c * time + t] = v;
        }
    }
}

/// One head's extents, padded: queries to whole blocks, channels and keys to whole products and
/// vectors.
struct Padded {
    queries: usize,
    channels: usize,
    keys: usize,
    unit: usize,
}

impl Padded {
    #[inline(always)]
    fn new<S: Simd>(heads: Heads) -> Self {
        let unit = columns::<S>().max(LANES);
        Self {
            queries: heads.time.next_multiple_of(BLOCK_ROWS),
            channels: heads.width.next_multiple_of(unit),
            keys: heads.time.next_multiple_of(unit),
            unit,
        }
    }
}

/// Writes the outputs of every head, packed as (B, H, T, D), and lse: (B, H, T).
pub(super) fn forward(heads: Heads, qkv: [&[f32]; 3], sink: Option<&[f32]>, packed: &mut [f32], lse: &mut [f32]) {
    if packed.is_empty() {
        return;
    }
    let outputs = packed.par_chunks_mut(heads.size()).zip(lse.par_chunks_mut(heads.time));
    outputs.enumerate().for_each_init(Scratch::default, |scratch, (at, (y, lse))| {
        let sink = sink.map(|s| s[at % heads.count]);
        Arch::new().dispatch(HeadForward { heads, at, qkv, sink, y, lse, scratch });
    });
}

/// One head of one batch entry: y: (T, D), lse: (T).
struct HeadForward<'a> {
    heads: Heads,
    at: usize,
    qkv: [&'a [f32]; 3],
    sink: Option<f32>,
    y: &'a mut [f32],
    lse: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for HeadForward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { heads, at, qkv, sink, y, lse, scratch: Scratch { q, k_columns: k, v, p, .. } } = self;
        let (time, width) = (heads.time, heads.width);
        let Padded { queries, channels, keys, unit } = Padded::new::<S>(heads);
        pad(q, heads.rows(qkv[0], at), queries, width, heads.scale);
        transpose(k, heads.rows(qkv[1], at), width, keys);
        pad(v, heads.rows(qkv[2], at), time, channels, 1.0);
        clear(p, BLOCK_ROWS * keys);
        for first in (0..time).step_by(BLOCK_ROWS) {
            let n = time.min(first + BLOCK_ROWS);
            let (start, seen) = (heads.first_key(first) / unit * unit, n.next_multiple_of(unit));
            for j in (start..seen).step_by(columns::<S>()) {
                let scores = product(simd, four(&q[first * width..], width, width), &k[j..], keys);
                for (r, scores) in scores.into_iter().enumerate() {
                    store::<S>(&mut p[r * keys + j..], scores);
                }
            }
            let mut inverse = [0.0; BLOCK_ROWS];
            for t in first..n {
                let p = &mut p[(t - first) * keys..][start..seen];
                p[..heads.first_key(t) - start].fill(f32::NEG_INFINITY);
                p[t + 1 - start..].fill(f32::NEG_INFINITY);
                let top = largest(p).max(sink.unwrap_or(f32::NEG_INFINITY));
                let sum = exp_in_place(p, top) + sink.map_or(0.0, |s| exp(s - top));
                lse[t] = top + sum.ln();
                inverse[t - first] = 1.0 / sum;
            }
            for c in (0..width).step_by(columns::<S>()) {
                let sums = product(simd, four(&p[start..], keys, n - start), &v[start * channels + c..], channels);
                store_part::<S>(&mut y[first * width..], width, c, sums, inverse);
            }
        }
    }
}

/// `x = e^(x - top)`, whole vectors of it; returns the sum.
#[inline(always)]
fn exp_in_place(x: &mut [f32], top: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for block in x.as_chunks_mut::<LANES>().0 {
        for (lane, v) in lanes.iter_mut().zip(block) {
            *v = exp(*v - top);
            *lane += *v;
        }
    }
    lanes.iter().sum()
}

/// Writes the gradients of q, k and v of every head, packed as (B, H, 3, T, D), and returns the
/// sink's: (H).
///
/// The inputs are q, k, v, dout and y.
pub(super) fn backward(
    heads: Heads,
    inputs: [&[f32]; 5],
    sink: Option<&[f32]>,
    lse: &[f32],
    packed: &mut [f32],
) -> Vec<f32> {
    let mut dsink = vec![0.0f32; heads.count];
    if packed.is_empty() {
        return dsink;
    }
    let mut deltas = vec![0.0; lse.len()];
    let outputs = packed.par_chunks_mut(3 * heads.size()).zip(deltas.par_chunks_mut(heads.time));
    outputs.enumerate().for_each_init(Scratch::default, |scratch, (at, (grads, delta))| {
        let lse = &lse[at * heads.time..][..heads.time];
        Arch::new().dispatch(HeadBackward { heads, at, inputs, lse, grads, delta, scratch });
    });
    for (h, dsink) in dsink.iter_mut().enumerate() {
        let Some(sink) = sink.map(|s| f64::from(s[h])) else { break };
        let terms = (0..heads.batch).flat_map(|b| {
            let head = (b * heads.count + h) * heads.time;
            (head..head + heads.time).map(|i| (sink - f64::from(lse[i])).exp() * f64::from(deltas[i]))
        });
        *dsink = -terms.sum::<f64>() as f32;
    }
    dsink
}

/// One head of one batch entry: grads: (3, T, D), delta: (T).
struct HeadBackward<'a> {
    heads: Heads,
    at: usize,
    inputs: [&'a [f32]; 5],
    lse: &'a [f32],
    grads: &'a mut [f32],
    delta: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl WithSimd for HeadBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { heads, at, inputs: [q_in, k_in, v_in, dout_in, y], lse, grads, delta, scratch } = self;
        let Scratch { q, k, v: v_columns, dout, k_columns, dk, dv, p, ds } = scratch;
        let (time, width) = (heads.time, heads.width);
        let Padded { queries, channels, keys, unit } = Padded::new::<S>(heads);
        for (delta, (dout, y)) in delta.iter_mut().zip(heads.rows(dout_in, at).zip(heads.rows(y, at))) {
            *delta = dout.iter().zip(y).map(|(d, y)| d * y).sum();
        }
        pad(q, heads.rows(q_in, at), queries, channels, heads.scale);
        pad(dout, heads.rows(dout_in, at), queries, channels, 1.0);
        transpose(k_columns, heads.rows(k_in, at), width, keys);
        transpose(v_columns, heads.rows(v_in, at), width, keys);
        pad(k, heads.rows(k_in, at), time, channels, 1.0);
        [&mut *dk, &mut *dv].into_iter().for_each(|sums| clear(sums, time * channels));
        [&mut *p, &mut *ds].into_iter().for_each(|rows| clear(rows, BLOCK_ROWS * keys));
        let (dq, dkv) = grads.split_at_mut(heads.size());
        for first in (0..time).step_by(BLOCK_ROWS) {
            let n = time.min(first + BLOCK_ROWS);
            let (start, seen) = (heads.first_key(first) / unit * unit, n.next_multiple_of(unit));
            let (q, dout) = (&q[first * channels..], &dout[first * channels..]);
            for j in (start..seen).step_by(columns::<S>()) {
                let scores = product(simd, four(q, channels, width), &k_columns[j..], keys);
                let slopes = product(simd, four(dout, channels, width), &v_columns[j..], keys);
                for r in 0..BLOCK_ROWS {
                    store::<S>(&mut p[r * keys + j..], scores[r]);
                    store::<S>(&mut ds[r * keys + j..], slopes[r]);
                }
            }
            for (r, (p, ds)) in p.chunks_exact_mut(keys).zip(ds.chunks_exact_mut(keys)).enumerate() {
                let (p, ds) = (&mut p[start..seen], &mut ds[start..seen]);
                let t = first + r;
                if t >= time {
                    p.fill(0.0);
                    ds.fill(0.0);
                    continue;
                }
                p[..heads.first_key(t) - start].fill(f32::NEG_INFINITY);
                p[t + 1 - start..].fill(f32::NEG_INFINITY);
                let (lse, delta) = (lse[t], delta[t]);
                for (p, ds) in p.iter_mut().zip(ds) {
                    *p = exp(*p - lse);
                    *ds = *p * (*ds - delta);
                }
            }
            let (p, ds) = (four(&p[start..], keys, n - start), four(&ds[start..], keys, n - start));
            for c in (0..width).step_by(columns::<S>()) {
                let from = start * channels + c;
                let sums = product(simd, ds, &k[from..], channels);
                store_part::<S>(&mut dq[first * width..], width, c, sums, [heads.scale; BLOCK_ROWS]);
                add_outer(simd, &mut dk[from..], channels, ds, load_four::<S>(&q[c..], channels));
                add_outer(simd, &mut dv[from..], channels, p, load_four::<S>(&dout[c..], channels));
            }
        }
        for (out, sums) in dkv.chunks_exact_mut(heads.size()).zip([&*dk, &*dv]) {
            for (out, sums) in out.chunks_exact_mut(width).zip(sums.chunks_exact(channels)) {
                out.copy_from_slice(&sums[..width]);
            }
        }
    }
}

/// Puts part `part` of `parts` of every head, packed as (B, H, parts, T, D), into `out`: (B, T,
/// H·D).
pub(super) fn unpack(heads: Heads, packed: &[f32], parts: usize, part: usize, out: &mut [f32]) {
    let Heads { time, count, width, .. } = heads;
    let row = count * width;
    inlined!(for_row_blocks(out, row, rows_per_block(row)), |start, block| {
        for (i, out) in block.chunks_exact_mut(row).enumerate() {
            let (b, t) = ((start + i) / time, (start + i) % time);
            for (h, out) in out.chunks_exact_mut(width).enumerate() {
                let head = (b * count + h) * parts + part;
                out.copy_from_slice(&packed[(head * time + t) * width..][..width]);
            }
        }
    });
}
