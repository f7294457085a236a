//! Attention on the CPU: one head at a time in parallel, four queries at a time within it.
//!
//! Everything is made of one small product of four rows with a matrix, kept in registers. Heads are first packed so that its
//! inner loop is contiguous: keys and values transposed, (D, T), where the loop runs over keys, and as rows, (T, D), where it
//! runs over channels; the contiguous dimension is padded with zeros to whole vectors.

use rayon::prelude::*;

use crate::device::cpu::{for_row_blocks, rows_per_block, simd};
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
}

impl Heads {
    /// What the products of queries and keys are multiplied by.
    pub(super) fn scale(self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// Entries of one head of one batch entry.
    fn size(self) -> usize {
        self.time * self.width
    }

    /// The channels of head `at % count` of batch entry `at / count`, time by time, in `x`: (B, T, H·D).
    #[inline(always)]
    fn rows(self, x: &[f32], at: usize) -> impl Iterator<Item = &[f32]> {
        let (b, h) = (at / self.count, at % self.count);
        let entry = &x[b * self.count * self.size()..][..self.count * self.size()];
        entry.chunks_exact(self.count * self.width).map(move |row| &row[h * self.width..][..self.width])
    }
}

/// Rows that a product takes at once: four by sixteen sums fit into the registers of AVX2.
const ROWS: usize = 4;

type Sums = [[f32; LANES]; ROWS];

/// `sums[r] += sum over i of a[r][i] b[i]`, where row i of `b` is the first sixteen entries after `i * stride`.
#[inline(always)]
fn product(sums: &mut Sums, a: [&[f32]; ROWS], b: &[f32], stride: usize) {
    let n = a[0].len();
    let a = a.map(|row| &row[..n]);
    for i in 0..n {
        let b = &b[i * stride..][..LANES];
        for (sums, a) in sums.iter_mut().zip(&a) {
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum = a[i].mul_add(b, *sum);
            }
        }
    }
}

/// `out[j] += sum over r of a[r][j] b[r]` for all j: sixteen columns of `out`, whose rows are `stride` apart.
#[inline(always)]
fn add_outer(out: &mut [f32], stride: usize, a: [&[f32]; ROWS], b: &Sums) {
    let n = a[0].len();
    let a = a.map(|row| &row[..n]);
    for j in 0..n {
        let out = &mut out[j * stride..][..LANES];
        for (l, out) in out.iter_mut().enumerate() {
            let mut sum = *out;
            for r in 0..ROWS {
                sum = a[r][j].mul_add(b[r][l], sum);
            }
            *out = sum;
        }
    }
}

/// `n` entries of each of four consecutive rows of `x`.
#[inline(always)]
fn four(x: &[f32], stride: usize, n: usize) -> [&[f32]; ROWS] {
    std::array::from_fn(|r| &x[r * stride..][..n])
}

/// Sixteen entries of each of four consecutive rows of `x`.
#[inline(always)]
fn four_lanes(x: &[f32], stride: usize) -> Sums {
    let mut lanes = [[0.0; LANES]; ROWS];
    for (r, lanes) in lanes.iter_mut().enumerate() {
        lanes.copy_from_slice(&x[r * stride..][..LANES]);
    }
    lanes
}

/// The rows times `factor`, padded to (`count`, `width`).
#[inline(always)]
fn pad<'a>(rows: impl Iterator<Item = &'a [f32]>, count: usize, width: usize, factor: f32) -> Vec<f32> {
    let mut out = vec![0.0; count * width];
    for (to, from) in out.chunks_exact_mut(width).zip(rows) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = from * factor);
    }
    out
}

/// The rows as columns of a matrix whose rows are `time` wide.
#[inline(always)]
fn transpose<'a>(rows: impl Iterator<Item = &'a [f32]>, width: usize, time: usize) -> Vec<f32> {
    let mut out = vec![0.0; width * time];
    for (t, row) in rows.enumerate() {
        for (c, &v) in row.iter().enumerate() {
            out[c * time + t] = v;
        }
    }
    out
}

/// One head's extents, padded: queries to whole blocks, channels and keys to whole vectors.
struct Padded {
    queries: usize,
    channels: usize,
    keys: usize,
}

impl Padded {
    fn new(heads: Heads) -> Self {
        Self {
            queries: heads.time.next_multiple_of(ROWS),
            channels: heads.width.next_multiple_of(LANES),
            keys: heads.time.next_multiple_of(LANES),
        }
    }
}

/// Writes the outputs of every head, packed as (B, H, T, D), and lse: (B, H, T).
pub(super) fn forward(heads: Heads, qkv: [&[f32]; 3], sink: Option<&[f32]>, packed: &mut [f32], lse: &mut [f32]) {
    if packed.is_empty() {
        return;
    }
    let outputs = packed.par_chunks_mut(heads.size()).zip(lse.par_chunks_mut(heads.time));
    outputs.enumerate().for_each(|(at, (y, lse))| {
        let sink = sink.map(|s| s[at % heads.count]);
        simd(|| head_forward(heads, at, qkv, sink, y, lse));
    });
}

#[inline(always)]
fn head_forward(heads: Heads, at: usize, [q, k, v]: [&[f32]; 3], sink: Option<f32>, y: &mut [f32], lse: &mut [f32]) {
    let (time, width) = (heads.time, heads.width);
    let padded = Padded::new(heads);
    let q = pad(heads.rows(q, at), padded.queries, width, heads.scale());
    let k = transpose(heads.rows(k, at), width, padded.keys);
    let v = pad(heads.rows(v, at), time, padded.channels, 1.0);
    let mut p = vec![0.0; ROWS * padded.keys];
    for first in (0..time).step_by(ROWS) {
        let live = ROWS.min(time - first);
        let seen = (first + ROWS).next_multiple_of(LANES);
        for j in (0..seen).step_by(LANES) {
            let mut scores = [[0.0; LANES]; ROWS];
            product(&mut scores, four(&q[first * width..], width, width), &k[j..], padded.keys);
            for (p, scores) in p.chunks_exact_mut(padded.keys).zip(&scores) {
                p[j..j + LANES].copy_from_slice(scores);
            }
        }
        let mut inverse = [0.0; ROWS];
        for (r, p) in p.chunks_exact_mut(padded.keys).take(live).enumerate() {
            let p = &mut p[..seen];
            p[first + r + 1..].fill(f32::NEG_INFINITY);
            let top = largest(p).max(sink.unwrap_or(f32::NEG_INFINITY));
            let sum = exp_in_place(p, top) + sink.map_or(0.0, |s| exp(s - top));
            lse[first + r] = top + sum.ln();
            inverse[r] = 1.0 / sum;
        }
        let n = time.min(first + ROWS);
        for c in (0..width).step_by(LANES) {
            let mut sums = [[0.0; LANES]; ROWS];
            product(&mut sums, four(&p, padded.keys, n), &v[c..], padded.channels);
            for r in 0..live {
                let y = &mut y[(first + r) * width..][c..width.min(c + LANES)];
                y.iter_mut().zip(&sums[r]).for_each(|(y, sum)| *y = sum * inverse[r]);
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

/// Writes the gradients of q, k and v of every head, packed as (B, H, 3, T, D), and returns the sink's: (H).
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
    outputs.enumerate().for_each(|(at, (grads, delta))| {
        let lse = &lse[at * heads.time..][..heads.time];
        simd(|| head_backward(heads, at, inputs, lse, grads, delta));
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

#[inline(always)]
fn head_backward(heads: Heads, at: usize, inputs: [&[f32]; 5], lse: &[f32], grads: &mut [f32], delta: &mut [f32]) {
    let [q, k, v, dout, y] = inputs;
    let (time, width, scale) = (heads.time, heads.width, heads.scale());
    let Padded { queries, channels, keys } = Padded::new(heads);
    for (delta, (dout, y)) in delta.iter_mut().zip(heads.rows(dout, at).zip(heads.rows(y, at))) {
        *delta = dout.iter().zip(y).map(|(d, y)| d * y).sum();
    }
    let q = pad(heads.rows(q, at), queries, channels, scale);
    let dout = pad(heads.rows(dout, at), queries, channels, 1.0);
    let k_columns = transpose(heads.rows(k, at), width, keys);
    let v_columns = transpose(heads.rows(v, at), width, keys);
    let k = pad(heads.rows(k, at), time, channels, 1.0);
    let (mut dk, mut dv) = (vec![0.0; keys * channels], vec![0.0; keys * channels]);
    let (mut p, mut ds) = (vec![0.0; ROWS * keys], vec![0.0; ROWS * keys]);
    let (dq, dkv) = grads.split_at_mut(heads.size());
    for first in (0..time).step_by(ROWS) {
        let live = ROWS.min(time - first);
        let (q, dout) = (&q[first * channels..], &dout[first * channels..]);
        for j in (0..first + ROWS).step_by(LANES) {
            let mut scores = [[0.0; LANES]; ROWS];
            product(&mut scores, four(q, channels, width), &k_columns[j..], keys);
            let mut slopes = [[0.0; LANES]; ROWS];
            product(&mut slopes, four(dout, channels, width), &v_columns[j..], keys);
            for r in 0..ROWS {
                let p = &mut p[r * keys + j..][..LANES];
                let ds = &mut ds[r * keys + j..][..LANES];
                if r >= live {
                    p.fill(0.0);
                    ds.fill(0.0);
                    continue;
                }
                let (lse, delta) = (lse[first + r], delta[first + r]);
                p.iter_mut().zip(&scores[r]).for_each(|(p, s)| *p = exp(s - lse));
                if first + r + 1 < j + LANES {
                    p[first + r + 1 - j..].fill(0.0);
                }
                for l in 0..LANES {
                    ds[l] = p[l] * (slopes[r][l] - delta);
                }
            }
        }
        let n = time.min(first + ROWS);
        let (p, ds) = (four(&p, keys, n), four(&ds, keys, n));
        for c in (0..width).step_by(LANES) {
            let mut sums = [[0.0; LANES]; ROWS];
            product(&mut sums, ds, &k[c..], channels);
            for r in 0..live {
                let dq = &mut dq[(first + r) * width..][c..width.min(c + LANES)];
                dq.iter_mut().zip(&sums[r]).for_each(|(dq, sum)| *dq = sum * scale);
            }
            add_outer(&mut dk[c..], channels, ds, &four_lanes(&q[c..], channels));
            add_outer(&mut dv[c..], channels, p, &four_lanes(&dout[c..], channels));
        }
    }
    for (out, sums) in dkv.chunks_exact_mut(heads.size()).zip([&dk, &dv]) {
        for (out, sums) in out.chunks_exact_mut(width).zip(sums.chunks_exact(channels)) {
            out.copy_from_slice(&sums[..width]);
        }
    }
}

/// Puts part `part` of `parts` of every head, packed as (B, H, parts, T, D), into `out`: (B, T, H·D).
pub(super) fn unpack(heads: Heads, packed: &[f32], parts: usize, part: usize, out: &mut [f32]) {
    let Heads { time, count, width, .. } = heads;
    let row = count * width;
    for_row_blocks(out, row, rows_per_block(row), |start, block| {
        for (i, out) in block.chunks_exact_mut(row).enumerate() {
            let (b, t) = ((start + i) / time, (start + i) % time);
            for (h, out) in out.chunks_exact_mut(width).enumerate() {
                let head = (b * count + h) * parts + part;
                out.copy_from_slice(&packed[(head * time + t) * width..][..width]);
            }
        }
    });
}
