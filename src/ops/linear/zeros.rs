//! The weight's gradient on the CPU where one of its factors is mostly zeros, as AbsTopK leaves them: `dW = dyᵀ x` takes from row n only
//! the nonzero entries of `dy`.
//!
//! An entry of `dW` sums over the rows in ascending order, in groups of [`ROWS`] whose sums are then added: the result depends neither on the
//! number of threads nor on how wide the vectors are.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::Result;
use crate::device::Tensor;
use crate::device::cpu::{rows_per_block, vectorised};

/// Up to this share of nonzeros the others are skipped. Measured with AVX2 at 1,024 rows (1,024 → 1,024 and 4,096 → 1,024), as dense time over
/// this: 1.6 to 2.0 at 1/4. An earlier, slower version had 1.2 at 1/3 and met the dense product near 1/2.
const WORTHWHILE: f64 = 0.4;

/// Rows that are summed at a time, as many as a word has bits.
const ROWS: usize = 64;

/// Outputs that are computed at a time.
const OUTPUTS: usize = 64;

/// Columns that are computed at a time, in as many vectors as they fill: with eight lanes, eight sums in registers. A group of rows of that
/// width is 16 KiB and stays in the first-level cache while all outputs take from it; their sums pass by, as much again.
const WIDTH: usize = 64;

/// Groups of rows that serve all of a thread's outputs before the next ones come: 128 KiB, which stay in the second-level cache.
const GROUPS: usize = 8;

/// `dyᵀ x` with `dy: (.., outputs)`, `x: (.., inputs)`, result `(outputs, inputs)`, if either factor has zeros enough for this to be the
/// faster way.
pub(super) fn weight_gradient(dy: &Tensor, x: &Tensor) -> Result<Option<Tensor>> {
    let (outputs, inputs) = (dy.rows_cols().1, x.rows_cols().1);
    if dy.is_empty() || x.is_empty() {
        return Ok(None);
    }
    let (dy_share, x_share) = (share(dy.native()?), share(x.native()?));
    if dy_share.min(x_share) > WORTHWHILE {
        return Ok(None);
    }
    let mut out = dy.device().empty("linear weight gradient", &[outputs, inputs])?;
    if dy_share <= x_share {
        product(dy, x, &mut out)?;
    } else {
        let mut turned = dy.device().empty("linear weight gradient", &[inputs, outputs])?;
        product(x, dy, &mut turned)?;
        transpose(turned.native()?, outputs, out.native_mut()?);
    }
    Ok(Some(out))
}

/// The share of nonzeros.
fn share(x: &[f32]) -> f64 {
    let count = |x: &[f32]| vectorised!(x.iter().map(|v| u32::from(*v != 0.0)).sum::<u32>());
    x.par_chunks(1 << 14).map(count).sum::<u32>() as f64 / x.len() as f64
}

/// `out = aᵀ b` with `a: (N, rows)` mostly zeros and `b: (N, cols)`.
fn product(a: &Tensor, b: &Tensor, out: &mut Tensor) -> Result<()> {
    let ((n, rows), cols) = (a.rows_cols(), b.rows_cols().1);
    let mut packed = b.device().empty("linear panels", &[cols.div_ceil(WIDTH), n.next_multiple_of(ROWS), WIDTH])?;
    pack(b.native()?, cols, packed.native_mut()?);
    let (a, packed) = (a.native()?, packed.native()?);
    // The more outputs a thread takes, the less often it reads `b`; but all threads shall have some.
    let task = (rows / (2 * rayon::current_num_threads())).next_multiple_of(OUTPUTS).clamp(OUTPUTS, 8 * OUTPUTS);
    out.native_mut()?.par_chunks_mut(task * cols).enumerate().for_each(|(number, out)| {
        let blocks = (0..out.len() / cols).step_by(OUTPUTS);
        let factor = |first| {
            let mut factor = Factor::default();
            let outputs = OUTPUTS.min(rows - first);
            vectorised!(factor.fill(a, rows, first, outputs));
            factor
        };
        let factors: Vec<_> = blocks.map(|block| factor(number * task + block)).collect();
        Arch::new().dispatch(Outputs { factors: &factors, packed, cols, out });
    });
    Ok(())
}

/// `b: (N, cols)` in panels of [`WIDTH`] columns, (panels, N, WIDTH), with zeros to fill up the last panel and the last group of rows.
fn pack(b: &[f32], cols: usize, packed: &mut [f32]) {
    let n = b.len() / cols;
    let padded = n.next_multiple_of(ROWS) * WIDTH;
    let rows = rows_per_block(WIDTH);
    packed.par_chunks_mut(padded).enumerate().for_each(|(p, panel)| {
        let here = WIDTH.min(cols - p * WIDTH);
        let (panel, padding) = panel.split_at_mut(n * WIDTH);
        padding.fill(0.0);
        panel.par_chunks_mut(rows * WIDTH).enumerate().for_each(|(block, panel)| {
            for (row, source) in panel.chunks_exact_mut(WIDTH).zip(b[block * rows * cols..].chunks_exact(cols)) {
                row[..here].copy_from_slice(&source[p * WIDTH..][..here]);
                row[here..].fill(0.0);
            }
        });
    });
}

/// The nonzeros of some columns of the factor with zeros.
#[derive(Default)]
struct Factor {
    /// How many columns.
    outputs: usize,
    /// For every group of rows and every column, rows within the group, ascending, and values.
    entries: Vec<(u32, f32)>,
    /// Where the list of a group and column ends: (groups, outputs).
    ends: Vec<u32>,
}

impl Factor {
    /// Takes columns `first..first + outputs` of `a: (N, rows)`.
    #[inline(always)]
    fn fill(&mut self, a: &[f32], rows: usize, first: usize, outputs: usize) {
        self.outputs = outputs;
        for group in a.chunks(ROWS * rows) {
            let mut masks = [[0u32; OUTPUTS]; 2];
            for (r, row) in group.chunks_exact(rows).enumerate() {
                let half = &mut masks[r / 32];
                for (bits, value) in half.iter_mut().zip(&row[first..first + outputs]) {
                    *bits |= u32::from(*value != 0.0) << (r % 32);
                }
            }
            let [low, high] = masks;
            for (o, (low, high)) in low.into_iter().zip(high).take(outputs).enumerate() {
                let mut left = u64::from(high) << 32 | u64::from(low);
                while left != 0 {
                    let r = left.trailing_zeros();
                    left &= left - 1;
                    self.entries.push((r, group[r as usize * rows + first + o]));
                }
                self.ends.push(self.entries.len() as u32);
            }
        }
    }
}

/// Some rows of the result.
struct Outputs<'a> {
    /// For [`OUTPUTS`] rows each.
    factors: &'a [Factor],
    packed: &'a [f32],
    cols: usize,
    out: &'a mut [f32],
}

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
    #[inline(always)]
    fn panels<S: Simd, const V: usize>(self, simd: S) {
        let Self { factors, packed, cols, out } = self;
        let padded = packed.len() / cols.div_ceil(WIDTH);
        let mut sums = [0.0f32; OUTPUTS * WIDTH];
        for (p, panel) in packed.chunks_exact(padded).enumerate() {
            let here = p * WIDTH..cols.min((p + 1) * WIDTH);
            for (c, rows) in panel.chunks(GROUPS * ROWS * WIDTH).enumerate() {
                for (factor, out) in factors.iter().zip(out.chunks_mut(OUTPUTS * cols)) {
                    sums.fill(0.0);
                    if c > 0 {
                        for (sum, out) in sums.chunks_exact_mut(WIDTH).zip(out.chunks_exact(cols)) {
                            sum[..here.len()].copy_from_slice(&out[here.clone()]);
                        }
                    }
                    factor.multiply::<S, V>(simd, c * GROUPS, rows, &mut sums);
                    for (sum, out) in sums.chunks_exact(WIDTH).zip(out.chunks_exact_mut(cols)) {
                        out[here.clone()].copy_from_slice(&sum[..here.len()]);
                    }
                }
            }
        }
    }
}

impl Factor {
    /// Adds to `sums`, (outputs, [`WIDTH`]), what comes of some groups of rows, (groups · [`ROWS`], WIDTH), the first of which is number `first`.
    #[inline(always)]
    fn multiply<S: Simd, const V: usize>(&self, simd: S, first: usize, rows: &[f32], sums: &mut [f32]) {
        let outputs = self.outputs;
        let mut start = (first * outputs).checked_sub(1).map_or(0, |last| self.ends[last] as usize);
        for (ends, rows) in self.ends[first * outputs..].chunks_exact(outputs).zip(rows.chunks_exact(ROWS * WIDTH)) {
            let rows = S::as_simd_f32s(rows).0.as_chunks::<V>().0;
            for (&end, sum) in ends.iter().zip(sums.chunks_exact_mut(WIDTH)) {
                let mut group = [simd.splat_f32s(0.0); V];
                for &(r, value) in &self.entries[start..end as usize] {
                    let value = simd.splat_f32s(value);
                    let row = &rows[r as usize];
                    for v in 0..V {
                        group[v] = simd.mul_add_e_f32s(value, row[v], group[v]);
                    }
                }
                start = end as usize;
                for (sum, group) in S::as_mut_simd_f32s(sum).0.iter_mut().zip(group) {
                    *sum = simd.add_f32s(*sum, group);
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
