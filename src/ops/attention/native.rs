//! Attention on the CPU: one head at a time in parallel, a vector of queries at a time within it.
//!
//! Every lane is a query of its own. What all of them take from a key, they take as one number for
//! all lanes, so that nothing is ever summed across lanes, and the channels of queries and the sums
//! stay in registers. Heads are first packed: rows of keys and values next to each other, padded
//! with zeros to whole groups of channels.
//!
//! Sums are in ascending order of channels, keys, or queries.

use std::cell::RefCell;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::device::cpu::{Scratch, arch, for_row_blocks, inlined, rows_per_block};
use crate::ops::math::{LANES, exp};
use crate::ops::transpose::transpose;

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

/// What a thread holds of the head at hand, in memory that serves it for the next one too.
#[derive(Default)]
struct Held {
    k: Scratch,
    v: Scratch,
    dk: Scratch,
    dv: Scratch,
    /// A block's queries as rows, and with a vector for every channel.
    rows: Scratch,
    lanes: Scratch,
    /// The same of the gradient of the output.
    dout_rows: Scratch,
    dout_lanes: Scratch,
    /// The output, or the gradient of the queries, with a vector for every channel.
    sums: Scratch,
    /// A vector of numbers for every key.
    p: Scratch,
    ds: Scratch,
}

thread_local! {
    static HELD: RefCell<Held> = RefCell::default();
}

/// The rows of a head, padded to `channels`.
#[inline(always)]
fn pad<'a, 'b>(
    out: &'b mut Scratch,
    rows: impl Iterator<Item = &'a [f32]>,
    count: usize,
    channels: usize,
) -> &'b mut [f32] {
    let out = out.zeros(count * channels);
    for (to, from) in out.chunks_exact_mut(channels).zip(rows) {
        copy(from, &mut to[..from.len()]);
    }
    out
}

/// Copies a few numbers, of which there are often sixteen, without a call.
#[inline(always)]
fn copy(from: &[f32], to: &mut [f32]) {
    let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<LANES>(), to.as_chunks_mut::<LANES>());
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    to_rest.iter_mut().zip(from_rest).for_each(|(to, from)| *to = *from);
}

/// A block of queries: the first of them, how many they are, and the keys that any of them sees.
struct Block {
    first: usize,
    count: usize,
    start: usize,
    end: usize,
}

impl Heads {
    /// The blocks of `lanes` queries.
    #[inline(always)]
    fn blocks(self, lanes: usize) -> impl Iterator<Item = Block> {
        (0..self.time).step_by(lanes).map(move |first| {
            let count = lanes.min(self.time - first);
            Block { first, count, start: self.first_key(first), end: first + count }
        })
    }

    /// Makes minus infinity what queries do not see among a block's scores: (keys, lanes).
    #[inline(always)]
    fn hide(self, block: &Block, lanes: usize, scores: &mut [f32]) {
        for i in 0..block.count {
            let t = block.first + i;
            let before = block.start..self.first_key(t).clamp(block.start, block.end);
            let after = (t + 1).clamp(block.start, block.end)..block.end;
            for j in before.chain(after) {
                scores[(j - block.start) * lanes + i] = f32::NEG_INFINITY;
            }
        }
    }

    /// Puts the channels of a block's queries into `lanes`, (channels, lanes), times `factor`.
    #[inline(always)]
    fn turn<S: Simd>(self, x: &[f32], at: usize, block: &Block, factor: f32, lanes: &mut [f32]) {
        let stride = self.count * self.width;
        let (b, h) = (at / self.count, at % self.count);
        let from = &x[(b * self.time + block.first) * stride + h * self.width..];
        if block.count < S::F32_LANES {
            lanes.fill(0.0);
        }
        transpose::<S>((from, stride), (lanes, S::F32_LANES), (block.count, self.width));
        lanes.iter_mut().for_each(|x| *x *= factor);
    }
}

/// `out[j] = sum over channels c of rows[j][c] lanes[c]` for rows `channels` wide, a vector each.
#[inline(always)]
fn dot_rows<S: Simd, const C: usize>(simd: S, rows: &[f32], channels: usize, lanes: &[f32], out: &mut [f32]) {
    let out = S::as_mut_simd_f32s(out).0;
    for (group, lanes) in S::as_simd_f32s(lanes).0.as_chunks::<C>().0.iter().enumerate() {
        let lanes = *lanes;
        for (row, out) in rows.chunks_exact(channels).zip(&mut *out) {
            let mut sum = if group == 0 { simd.splat_f32s(0.0) } else { *out };
            if let Some(row) = row[group * C..].first_chunk::<C>() {
                for c in 0..C {
                    sum = simd.mul_add_e_f32s(simd.splat_f32s(row[c]), lanes[c], sum);
                }
            }
            *out = sum;
        }
    }
}

/// `out[c] += sum over j of rows[j][c] factors[j]`, a vector for every channel.
#[inline(always)]
fn sum_rows<S: Simd, const C: usize>(simd: S, rows: &[f32], channels: usize, factors: &[f32], out: &mut [f32]) {
    let factors = S::as_simd_f32s(factors).0;
    for (group, out) in S::as_mut_simd_f32s(out).0.as_chunks_mut::<C>().0.iter_mut().enumerate() {
        let mut sums = *out;
        for (row, &factor) in rows.chunks_exact(channels).zip(factors) {
            if let Some(row) = row[group * C..].first_chunk::<C>() {
                for c in 0..C {
                    sums[c] = simd.mul_add_e_f32s(simd.splat_f32s(row[c]), factor, sums[c]);
                }
            }
        }
        *out = sums;
    }
}

/// `out[j] += sum over the L lanes i of factors[j][i] rows[i]`, for rows of `channels`, whole
/// vectors.
#[inline(always)]
fn add_rows<S: Simd, const L: usize>(simd: S, rows: &[f32], channels: usize, factors: &[f32], out: &mut [f32]) {
    for c in (0..channels).step_by(S::F32_LANES) {
        let mut vectors = [simd.splat_f32s(0.0); L];
        for (vector, row) in vectors.iter_mut().zip(rows.chunks_exact(channels)) {
            *vector = S::as_simd_f32s(&row[c..][..S::F32_LANES]).0[0];
        }
        for (factors, out) in factors.as_chunks::<L>().0.iter().zip(out.chunks_exact_mut(channels)) {
            let out = &mut S::as_mut_simd_f32s(&mut out[c..][..S::F32_LANES]).0[0];
            let mut sum = *out;
            for i in 0..L {
                sum = simd.mul_add_e_f32s(simd.splat_f32s(factors[i]), vectors[i], sum);
            }
            *out = sum;
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
        HELD.with_borrow_mut(|held| arch().dispatch(HeadForward { heads, at, qkv, sink, y, lse, held }));
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
    held: &'a mut Held,
}

impl WithSimd for HeadForward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // With thirty-two registers half of them hold sixteen channels; of sixteen, eight hold as
        // many.
        match S::F32_LANES {
            4 | 16 => self.blocks::<S, 16>(simd),
            _ => self.blocks::<S, 8>(simd),
        }
    }
}

impl HeadForward<'_> {
    #[inline(always)]
    fn blocks<S: Simd, const C: usize>(self, simd: S) {
        let Self { heads, at, qkv, sink, y, lse, held: Held { k, v, lanes: q, sums, p, .. } } = self;
        let (time, width, lanes) = (heads.time, heads.width, S::F32_LANES);
        let channels = width.next_multiple_of(C);
        let k = pad(k, heads.rows(qkv[1], at), time, channels);
        let v = pad(v, heads.rows(qkv[2], at), time, channels);
        let q = q.zeros(channels * lanes);
        let p = p.numbers((time * lanes).next_multiple_of(LANES));
        for block in heads.blocks(lanes) {
            heads.turn::<S>(qkv[0], at, &block, heads.scale, q);
            let keys = block.start * channels..block.end * channels;
            let seen = (block.end - block.start) * lanes;
            let p = &mut p[..seen.next_multiple_of(LANES)];
            dot_rows::<S, C>(simd, &k[keys.clone()], channels, q, &mut p[..seen]);
            heads.hide(&block, lanes, &mut p[..seen]);
            p[seen..].fill(f32::NEG_INFINITY);
            let mut top = [sink.unwrap_or(f32::NEG_INFINITY); LANES];
            for scores in p.as_chunks::<LANES>().0 {
                top.iter_mut().zip(scores).for_each(|(top, &s)| *top = if s > *top { s } else { *top });
            }
            // A vector of several keys has several numbers for the same query.
            for i in 0..LANES {
                top[i % lanes] = top[i % lanes].max(top[i]);
            }
            for i in 0..LANES {
                top[i] = top[i % lanes];
            }
            let mut total = [0.0f32; LANES];
            for p in p.as_chunks_mut::<LANES>().0 {
                for i in 0..LANES {
                    p[i] = exp(p[i] - top[i]);
                    total[i] += p[i];
                }
            }
            for i in lanes..LANES {
                total[i % lanes] += total[i];
            }
            for i in 0..block.count {
                let total = &mut total[i];
                *total += sink.map_or(0.0, |sink| exp(sink - top[i]));
                lse[block.first + i] = top[i] + total.ln();
                *total = 1.0 / *total;
            }
            let sums = sums.zeros(channels * lanes);
            sum_rows::<S, C>(simd, &v[keys], channels, &p[..seen], sums);
            for sums in sums.chunks_exact_mut(lanes) {
                sums.iter_mut().zip(&total).for_each(|(sum, factor)| *sum *= factor);
            }
            transpose::<S>((sums, lanes), (&mut y[block.first * width..], width), (width, block.count));
        }
    }
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
    outputs.enumerate().for_each(|(at, (grads, delta))| {
        let lse = &lse[at * heads.time..][..heads.time];
        HELD.with_borrow_mut(|held| arch().dispatch(HeadBackward { heads, at, inputs, lse, grads, delta, held }));
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
    held: &'a mut Held,
}

impl WithSimd for HeadBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.blocks::<S, 16, 16>(simd),
            8 => self.blocks::<S, 8, 8>(simd),
            4 => self.blocks::<S, 4, 16>(simd),
            _ => self.blocks::<S, 1, 8>(simd),
        }
    }
}

/// Keys that a block of queries goes through at a time in the backward pass: with sixteen lanes and
/// channels their scores and rows take 24 KiB, which stay in the first-level cache.
const TILE: usize = 64;

impl HeadBackward<'_> {
    /// `L` lanes, `C` channels in registers.
    #[inline(always)]
    fn blocks<S: Simd, const L: usize, const C: usize>(self, simd: S) {
        let Self { heads, at, inputs: [q_in, k_in, v_in, dout_in, y], lse, grads, delta, held } = self;
        let Held { k, v, dk, dv, rows: q_rows, lanes: q, dout_rows, dout_lanes: dout, sums, p, ds } = held;
        let (time, width) = (heads.time, heads.width);
        let channels = width.next_multiple_of(C.max(L));
        let k = pad(k, heads.rows(k_in, at), time, channels);
        let v = pad(v, heads.rows(v_in, at), time, channels);
        let (dk, dv) = (dk.zeros(time * channels), dv.zeros(time * channels));
        let [q, dout, q_rows, dout_rows, sums] =
            [q, dout, q_rows, dout_rows, sums].map(|block| block.zeros(channels * L));
        let [p, ds] = [p, ds].map(|scores| scores.zeros((TILE * L).next_multiple_of(LANES)));
        let (dq, dkv) = grads.split_at_mut(heads.size());
        for block in heads.blocks(L) {
            // How much the output's gradient has of the output, for each query.
            heads.turn::<S>(y, at, &block, 1.0, q);
            heads.turn::<S>(dout_in, at, &block, 1.0, dout);
            let mut slope = [0.0f32; LANES];
            for (y, dout) in q.chunks_exact(L).zip(dout.chunks_exact(L)) {
                slope.iter_mut().zip(y.iter().zip(dout)).for_each(|(slope, (y, dout))| *slope += y * dout);
            }
            delta[block.first..][..block.count].copy_from_slice(&slope[..block.count]);
            // Lanes without a query have no probability.
            let mut top = [f32::INFINITY; LANES];
            top[..block.count].copy_from_slice(&lse[block.first..][..block.count]);
            for i in L..LANES {
                (top[i], slope[i]) = (top[i % L], slope[i % L]);
            }
            heads.turn::<S>(q_in, at, &block, heads.scale, q);
            transpose::<S>((q, L), (q_rows, channels), (width, L));
            transpose::<S>((dout, L), (dout_rows, channels), (width, L));
            sums.fill(0.0);
            for start in (block.start..block.end).step_by(TILE) {
                let tile = Block { start, end: block.end.min(start + TILE), ..block };
                let (keys, seen) = (tile.start * channels..tile.end * channels, (tile.end - tile.start) * L);
                dot_rows::<S, C>(simd, &k[keys.clone()], channels, q, &mut p[..seen]);
                dot_rows::<S, C>(simd, &v[keys.clone()], channels, dout, &mut ds[..seen]);
                heads.hide(&tile, L, &mut p[..seen]);
                let padded = seen.next_multiple_of(LANES);
                let (p_chunks, ds_chunks) =
                    (p[..padded].as_chunks_mut::<LANES>().0, ds[..padded].as_chunks_mut::<LANES>().0);
                for (p, ds) in p_chunks.iter_mut().zip(ds_chunks) {
                    for i in 0..LANES {
                        p[i] = exp(p[i] - top[i]);
                        ds[i] = p[i] * (ds[i] - slope[i]);
                    }
                }
                sum_rows::<S, C>(simd, &k[keys.clone()], channels, &ds[..seen], sums);
                add_rows::<S, L>(simd, q_rows, channels, &ds[..seen], &mut dk[keys.clone()]);
                add_rows::<S, L>(simd, dout_rows, channels, &p[..seen], &mut dv[keys]);
            }
            sums.iter_mut().for_each(|sum| *sum *= heads.scale);
            transpose::<S>((sums, L), (&mut dq[block.first * width..], width), (width, block.count));
        }
        for (out, sums) in dkv.chunks_exact_mut(heads.size()).zip([&*dk, &*dv]) {
            for (out, sums) in out.chunks_exact_mut(width).zip(sums.chunks_exact(channels)) {
                copy(&sums[..width], out);
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
                copy(&packed[(head * time + t) * width..][..width], out);
            }
        }
    });
}
