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

/// Up to this share of nonzeros the others are skipped. Not measured: a guess on the careful side.
const WORTHWHILE: f64 = 0.4;

/// Rows that are summed at a time, as many as a word has bits.
const ROWS: usize = 64;

/// Outputs that a thread computes at a time.
const OUTPUTS: usize = 64;

/// Vectors of sums that are kept in registers. A group of rows of that width, and that many columns of all outputs of a block, are 8 KiB each
/// with eight-lane vectors: both stay in the first-level cache, and the rows serve many outputs before the next ones come.
const VECTORS: usize = 4;

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
    let ((n, rows), cols, width) = (a.rows_cols(), b.rows_cols().1, panel());
    let mut packed = b.device().empty("linear panels", &[cols.div_ceil(width), n.next_multiple_of(ROWS), width])?;
    pack(b.native()?, cols, width, packed.native_mut()?);
    let (a, packed) = (a.native()?, packed.native()?);
    out.native_mut()?.par_chunks_mut(OUTPUTS * cols).enumerate().for_each_init(
        Factor::default,
        |factor, (block, out)| {
            vectorised!(factor.fill(a, rows, block * OUTPUTS, out.len() / cols));
            Arch::new().dispatch(Block { factor, packed, cols, out });
        },
    );
    Ok(())
}

/// Columns that [`VECTORS`] vectors hold.
fn panel() -> usize {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    VECTORS * Arch::new().dispatch(Lanes)
}

/// `b: (N, cols)` in panels of `width` columns, (panels, N, width), with zeros to fill up the last panel and the last group of rows.
fn pack(b: &[f32], cols: usize, width: usize, packed: &mut [f32]) {
    let n = b.len() / cols;
    let padded = n.next_multiple_of(ROWS) * width;
    let rows = rows_per_block(width);
    packed.par_chunks_mut(padded).enumerate().for_each(|(p, panel)| {
        let here = width.min(cols - p * width);
        let (panel, padding) = panel.split_at_mut(n * width);
        padding.fill(0.0);
        panel.par_chunks_mut(rows * width).enumerate().for_each(|(block, panel)| {
            for (row, source) in panel.chunks_exact_mut(width).zip(b[block * rows * cols..].chunks_exact(cols)) {
                row[..here].copy_from_slice(&source[p * width..][..here]);
                row[here..].fill(0.0);
            }
        });
    });
}

/// Some columns of the factor with zeros.
#[derive(Default)]
struct Factor {
    /// The columns: (groups · [`ROWS`], outputs), zeros after the last row.
    values: Vec<f32>,
    /// For every group of rows and every column, a bit for each row whose entry is not zero: (groups, outputs).
    masks: Vec<u64>,
}

impl Factor {
    /// Takes columns `first..first + outputs` of `a: (N, rows)`.
    #[inline(always)]
    fn fill(&mut self, a: &[f32], rows: usize, first: usize, outputs: usize) {
        let groups = (a.len() / rows).div_ceil(ROWS);
        self.values.clear();
        self.masks.clear();
        for row in a.chunks_exact(rows) {
            self.values.extend_from_slice(&row[first..first + outputs]);
        }
        self.values.resize(groups * ROWS * outputs, 0.0);
        for group in self.values.chunks_exact(ROWS * outputs) {
            // In halves, so that as many columns fit into a vector as of the values themselves.
            let mut halves = [[0u32; OUTPUTS]; 2];
            for (half, values) in halves.iter_mut().zip(group.chunks_exact(ROWS / 2 * outputs)) {
                for (r, values) in values.chunks_exact(outputs).enumerate() {
                    for (bits, value) in half.iter_mut().zip(values) {
                        *bits |= u32::from(*value != 0.0) << r;
                    }
                }
            }
            let [low, high] = halves;
            let words = low.iter().zip(&high).map(|(low, high)| u64::from(*high) << 32 | u64::from(*low));
            self.masks.extend(words.take(outputs));
        }
    }
}

/// Some rows of the result.
struct Block<'a> {
    factor: &'a Factor,
    packed: &'a [f32],
    cols: usize,
    out: &'a mut [f32],
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = VECTORS * S::F32_LANES;
        let outputs = self.out.len() / self.cols;
        let padded = self.packed.len() / self.cols.div_ceil(width);
        let mut sums = vec![0.0f32; outputs * width];
        for (p, panel) in self.packed.chunks_exact(padded).enumerate() {
            sums.fill(0.0);
            let factor = self.factor.values.chunks_exact(ROWS * outputs).zip(self.factor.masks.chunks_exact(outputs));
            for ((values, masks), rows) in factor.zip(panel.chunks_exact(ROWS * width)) {
                let (rows, _) = S::as_simd_f32s(rows);
                for (o, (&mask, sum)) in masks.iter().zip(sums.chunks_exact_mut(width)).enumerate() {
                    let mut group = [simd.splat_f32s(0.0); VECTORS];
                    let mut left = mask;
                    while left != 0 {
                        let r = left.trailing_zeros() as usize;
                        left &= left - 1;
                        let value = simd.splat_f32s(values[r * outputs + o]);
                        let row = &rows[r * VECTORS..][..VECTORS];
                        for v in 0..VECTORS {
                            group[v] = simd.mul_add_e_f32s(value, row[v], group[v]);
                        }
                    }
                    for (sum, group) in S::as_mut_simd_f32s(sum).0.iter_mut().zip(group) {
                        *sum = simd.add_f32s(*sum, group);
                    }
                }
            }
            let here = width.min(self.cols - p * width);
            for (out, sum) in self.out.chunks_exact_mut(self.cols).zip(sums.chunks_exact(width)) {
                out[p * width..][..here].copy_from_slice(&sum[..here]);
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
