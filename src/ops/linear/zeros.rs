//! Products on the CPU of which one factor is mostly zeros, as AbsTopK leaves activations and their
//! gradients: an entry of the result takes up only what the nonzeros of its row name.
//!
//! It sums over the inner dimension in ascending order, in groups of [`GROUP_ROWS`] whose sums are
//! then added: the result depends neither on the number of threads nor on how wide the vectors are.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Factor;
use crate::Result;
use crate::device::Tensor;
use crate::device::cpu::{rows_per_block, vectorised};

/// Up to this share of nonzeros the others are skipped. Measured with AVX2 at 1,024 rows (1,024 →
/// 1,024 and 4,096 → 1,024), as dense time over this: 1.8 to 2.1 at 1/4. An earlier, slower version
/// had 1.2 at 1/3 and met the dense product near 1/2.
const MAX_DENSITY: f64 = 0.4;

/// Least sides of a dense weight that activations with zeros come to this way. Smaller ones would
/// gain too (1.4 times at 128, 1.6 at 256); they stay dense so that small models train to the bits
/// that they always had.
const MIN_SIDE: usize = 512;

/// Least rows of activations for which it pays to copy a weight into panels: that takes 0.6 ms for
/// 1,024 × 1,024, and the dense product with 64 rows would by count take 1.1 ms. Where between 64
/// and 1,024 rows the two meet was not measured.
const MIN_ROWS: usize = 256;

/// Rows of the second factor that are summed at a time, as many as a word has bits.
const GROUP_ROWS: usize = 64;

/// Outputs that are computed at a time.
const OUTPUTS: usize = 64;

/// Columns that are computed at a time, in as many vectors as they fill: with eight lanes, eight
/// sums in registers. A group of rows of that width is 16 KiB and stays in the first-level cache
/// while all outputs take from it; their sums pass by, as much again.
const WIDTH: usize = 64;

/// Groups of rows that serve all of a thread's outputs before the next ones come: 128 KiB, which
/// stay in the second-level cache.
const GROUPS: usize = 8;

/// Entries in a cache line. A vector that lies across two takes twice as long to load.
const CACHE_LINE: usize = 16;

/// Whether the zeros of activations are skipped on the way through a dense weight of these sides,
/// if they are many.
pub(in crate::ops) fn skips_zero_activations(inputs: usize, outputs: usize) -> bool {
    inputs.min(outputs) >= MIN_SIDE
}

/// `out = a b`, or `out += a b`, with `a: (m, k)` and `b: (k, n)`, if `a` has zeros enough for this
/// to be the faster way; whether it was.
pub(super) fn product(
    out: &mut Tensor,
    (m, n, k): (usize, usize, usize),
    a: &Factor,
    b: &Factor,
    accumulate: bool,
) -> Result<bool> {
    let skip = skips_zero_activations(n, k) && m >= MIN_ROWS && share(a.0.as_slice()?) <= MAX_DENSITY;
    if skip {
        multiply(out, (m, n, k), a, b, accumulate)?;
    }
    Ok(skip)
}

/// `out = dyᵀ x` with `dy: (.., outputs)`, `x: (.., inputs)`, `out: (outputs, inputs)`, if either
/// factor has zeros enough for this to be faster; whether it was.
pub(super) fn weight_gradient(dy: &Tensor, x: &Tensor, out: &mut Tensor) -> Result<bool> {
    let ((n, outputs), inputs) = (dy.rows_cols(), x.rows_cols().1);
    if dy.is_empty() || x.is_empty() {
        return Ok(false);
    }
    let (dy_share, x_share) = (share(dy.as_slice()?), share(x.as_slice()?));
    if dy_share.min(x_share) > MAX_DENSITY {
        return Ok(false);
    }
    if dy_share <= x_share {
        multiply(out, (outputs, inputs, n), &Factor(dy, (1, outputs)), &Factor(x, (inputs, 1)), false)?;
    } else {
        let mut turned = dy.device().empty("linear weight gradient", &[inputs, outputs])?;
        multiply(&mut turned, (inputs, outputs, n), &Factor(x, (1, inputs)), &Factor(dy, (outputs, 1)), false)?;
        transpose(turned.as_slice()?, outputs, out.as_mut_slice()?);
    }
    Ok(true)
}

/// The share of nonzeros.
fn share(x: &[f32]) -> f64 {
    let count = |x: &[f32]| vectorised!(x.iter().map(|v| u32::from(*v != 0.0)).sum::<u32>());
    x.par_chunks(1 << 14).map(count).sum::<u32>() as f64 / x.len() as f64
}

/// `out = a b`, or `out += a b`, with `a: (m, k)` mostly zeros and `b: (k, n)`. Each lies in its
/// tensor by rows or by columns, without gaps.
fn multiply(
    out: &mut Tensor,
    (m, n, k): (usize, usize, usize),
    a: &Factor,
    b: &Factor,
    accumulate: bool,
) -> Result<()> {
    let padded = k.next_multiple_of(GROUP_ROWS) * WIDTH;
    let len = n.div_ceil(WIDTH) * padded;
    let mut packed: Tensor = out.device().empty("linear panels", &[len + CACHE_LINE])?;
    let start = packed.as_slice()?.as_ptr().align_offset(CACHE_LINE * size_of::<f32>()).min(CACHE_LINE);
    pack(b.0.as_slice()?, b.1, (k, n), &mut packed.as_mut_slice()?[start..start + len]);
    let (a, strides, packed) = (a.0.as_slice()?, a.1, &packed.as_slice()?[start..start + len]);
    // The more outputs a thread takes, the less often it reads `b`; but all threads shall have
    // some.
    let task = (m / (2 * rayon::current_num_threads())).next_multiple_of(OUTPUTS).clamp(OUTPUTS, 8 * OUTPUTS);
    out.as_mut_slice()?.par_chunks_mut(task * n).enumerate().for_each(|(number, out)| {
        let blocks = (0..out.len() / n).step_by(OUTPUTS).map(|block| number * task + block);
        let list = |first| {
            let mut nonzeros = RowNonzeros::default();
            let outputs = OUTPUTS.min(m - first);
            vectorised!(nonzeros.fill(a, strides, k, first, outputs));
            nonzeros
        };
        let blocks: Vec<_> = blocks.map(list).collect();
        Arch::new().dispatch(Outputs { blocks: &blocks, packed, cols: n, out, accumulate });
    });
    Ok(())
}

/// `b: (k, n)`, with the given distances between rows and columns, in panels of [`WIDTH`] columns,
/// (panels, k, WIDTH), with zeros to fill up the last panel and the last group of rows.
fn pack(b: &[f32], (down, right): (usize, usize), (k, n): (usize, usize), packed: &mut [f32]) {
    let padded = k.next_multiple_of(GROUP_ROWS) * WIDTH;
    let rows = rows_per_block(WIDTH);
    packed.par_chunks_mut(padded).enumerate().for_each(|(p, panel)| {
        let here = WIDTH.min(n - p * WIDTH);
        let (panel, padding) = panel.split_at_mut(k * WIDTH);
        padding.fill(0.0);
        panel.par_chunks_mut(rows * WIDTH).enumerate().for_each(|(block, panel)| {
            let b = &b[block * rows * down + p * WIDTH * right..];
            if right == 1 {
                for (row, source) in panel.chunks_exact_mut(WIDTH).zip(b.chunks(down)) {
                    row[..here].copy_from_slice(&source[..here]);
                    row[here..].fill(0.0);
                }
            } else {
                if here < WIDTH {
                    panel.fill(0.0);
                }
                // A cache line of every column at a time.
                for (line, panel) in panel.chunks_mut(CACHE_LINE * WIDTH).enumerate() {
                    for (c, source) in b[line * CACHE_LINE..].chunks(right).take(here).enumerate() {
                        panel[c..].iter_mut().step_by(WIDTH).zip(source).for_each(|(to, from)| *to = *from);
                    }
                }
            }
        });
    });
}

/// The nonzeros of some rows of the factor with zeros.
#[derive(Default)]
struct RowNonzeros {
    /// How many rows.
    outputs: usize,
    /// For every group of columns and every row, columns within the group, ascending, and values.
    entries: Vec<(u32, f32)>,
    /// Where the list of a group and row ends: (groups, outputs).
    ends: Vec<u32>,
}

impl RowNonzeros {
    /// Takes rows `first..first + outputs` of `a: (m, k)`, with the given distances between rows
    /// and columns.
    #[inline(always)]
    fn fill(&mut self, a: &[f32], (down, right): (usize, usize), k: usize, first: usize, outputs: usize) {
        self.outputs = outputs;
        for start in (0..k).step_by(GROUP_ROWS) {
            let group = &a[first * down + start * right..];
            let mut masks = [[0u32; OUTPUTS]; 2];
            // A single column lies both ways, and its rows are shorter than a group.
            if right == 1 && down > 1 {
                for (o, row) in group.chunks(down).take(outputs).enumerate() {
                    for (half, row) in masks.iter_mut().zip(row[..GROUP_ROWS.min(k - start)].chunks(32)) {
                        half[o] = (0..32).zip(row).map(|(c, value)| u32::from(*value != 0.0) << c).sum();
                    }
                }
            } else {
                for (c, column) in group.chunks(right).take(GROUP_ROWS.min(k - start)).enumerate() {
                    for (bits, value) in masks[c / 32].iter_mut().zip(&column[..outputs]) {
                        *bits |= u32::from(*value != 0.0) << (c % 32);
                    }
                }
            }
            let [low, high] = masks;
            for (o, (low, high)) in low.into_iter().zip(high).take(outputs).enumerate() {
                let mut bits = u64::from(high) << 32 | u64::from(low);
                while bits != 0 {
                    let c = bits.trailing_zeros();
                    bits &= bits - 1;
                    self.entries.push((c, group[c as usize * right + o * down]));
                }
                self.ends.push(self.entries.len() as u32);
            }
        }
    }
}

/// Some rows of the result.
struct Outputs<'a> {
    /// For [`OUTPUTS`] rows each.
    blocks: &'a [RowNonzeros],
    packed: &'a [f32],
    cols: usize,
    out: &'a mut [f32],
    accumulate: bool,
}

/// Some results under way.
#[repr(align(64))]
struct Sums([f32; OUTPUTS * WIDTH]);

impl WithSimd for Outputs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.panels::<S, 4>(simd),
            8 => self.panels::<S, 8>(simd),
            4 => self.panels::<S, 16>(simd),
            _ => self.panels::<S, WIDTH>(simd),
        }
    }
}

impl Outputs<'_> {
    /// `V` vectors are [`WIDTH`] entries.
    ///
    /// ```text
    ///   a, its nonzeros         b, packed                  out
    ///   ┌─────────────┐     ┌───────┬───────┐      ┌───────┬───────┐
    ///   │ block       │     │ group │       │      │ sums  │       │ OUTPUTS rows
    ///   ├─────────────┤  ×  ├───────┤ panel │   =  ├───────┤       │
    ///   │ block       │     │ group │       │      │       │       │
    ///   └─────────────┘     └───────┴───────┘      └───────┴───────┘
    ///          k              WIDTH columns          WIDTH columns
    /// ```
    ///
    /// Panel by panel, [`GROUPS`] groups of it at a time serve every block of `a` in turn, so that
    /// they stay in the cache; `sums` waits in `out` between one such chunk and the next.
    #[inline(always)]
    fn panels<S: Simd, const V: usize>(self, simd: S) {
        let Self { blocks, packed, cols, out, accumulate } = self;
        let padded = packed.len() / cols.div_ceil(WIDTH);
        let Sums(sums) = &mut Sums([0.0; OUTPUTS * WIDTH]);
        for (p, panel) in packed.chunks_exact(padded).enumerate() {
            let here = p * WIDTH..cols.min((p + 1) * WIDTH);
            for (c, panel_rows) in panel.chunks(GROUPS * GROUP_ROWS * WIDTH).enumerate() {
                for (nonzeros, out_block) in blocks.iter().zip(out.chunks_mut(OUTPUTS * cols)) {
                    sums.fill(0.0);
                    if c > 0 || accumulate {
                        for (sum, out_row) in sums.chunks_exact_mut(WIDTH).zip(out_block.chunks_exact(cols)) {
                            sum[..here.len()].copy_from_slice(&out_row[here.clone()]);
                        }
                    }
                    nonzeros.multiply::<S, V>(simd, c * GROUPS, panel_rows, sums);
                    for (sum, out_row) in sums.chunks_exact(WIDTH).zip(out_block.chunks_exact_mut(cols)) {
                        out_row[here.clone()].copy_from_slice(&sum[..here.len()]);
                    }
                }
            }
        }
    }
}

impl RowNonzeros {
    /// Adds to `sums`, (outputs, [`WIDTH`]), what comes of some groups of rows, (groups ·
    /// [`GROUP_ROWS`], WIDTH), the first of which is number `first`.
    #[inline(always)]
    fn multiply<S: Simd, const V: usize>(&self, simd: S, first: usize, rows: &[f32], sums: &mut [f32]) {
        let outputs = self.outputs;
        let mut start = (first * outputs).checked_sub(1).map_or(0, |last| self.ends[last] as usize);
        let groups = self.ends[first * outputs..].chunks_exact(outputs);
        for (ends, group) in groups.zip(rows.chunks_exact(GROUP_ROWS * WIDTH)) {
            let group_rows = S::as_simd_f32s(group).0.as_chunks::<V>().0;
            for (&end, output_sums) in ends.iter().zip(sums.chunks_exact_mut(WIDTH)) {
                let mut group_sums = [simd.splat_f32s(0.0); V];
                for &(r, value) in &self.entries[start..end as usize] {
                    let value = simd.splat_f32s(value);
                    let row = &group_rows[r as usize];
                    for v in 0..V {
                        group_sums[v] = simd.mul_add_e_f32s(value, row[v], group_sums[v]);
                    }
                }
                start = end as usize;
                for (sum, group_sum) in S::as_mut_simd_f32s(output_sums).0.iter_mut().zip(group_sums) {
                    *sum = simd.add_f32s(*sum, group_sum);
                }
            }
        }
    }
}

/// `out: (rows, cols)` from `x: (cols, rows)`.
fn transpose(x: &[f32], rows: usize, out: &mut [f32]) {
    let cols = out.len() / rows;
    // Sixteen rows at a time: a cache line of every row of `x`.
    out.par_chunks_mut(16 * cols).enumerate().for_each(|(block, out)| {
        for (c, x) in x.chunks_exact(rows).enumerate() {
            for (out, x) in out.chunks_exact_mut(cols).zip(&x[block * 16..]) {
                out[c] = *x;
            }
        }
    });
}
