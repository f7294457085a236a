//! Products on the CPU of which one factor is mostly zeros, as AbsTopK leaves activations and their
//! gradients: an entry of the result takes up only what the nonzeros of its row name.
//!
//! It sums over the inner dimension in ascending order: the result depends neither on the number of
//! threads nor on how wide the vectors are.

use std::cell::RefCell;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::Factor;
use crate::Result;
use crate::device::cpu::{arch, rows_per_block, tuned_share, vectorised};
use crate::device::{Device, Tensor};
use crate::ops::pack;
use crate::ops::transpose::transpose;

/// Up to this share of nonzeros the others are skipped. Measured with AVX2 at 1,024 rows (1,024 →
/// 1,024 and 4,096 → 1,024), as dense time over the time of an earlier, slower version: 1.8 to 2.1 at
/// 1/4, 1.2 at 1/3; the two met near 1/2.
const MAX_DENSITY: f64 = 0.4;

/// What the tuned share is called that replaces [`MAX_DENSITY`].
pub(crate) const SKIP_ZEROS: &str = "zeros of activations are skipped up to";

/// Least sides of a dense weight that activations with zeros come to this way. Measured as steps of
/// the preset `quickstart` (128 wide) and `small` (256 wide) with dense weights, with AVX-512: 1.05
/// and 1.10 times as fast as with dense products.
const MIN_SIDE: usize = 128;

/// Least rows of activations for which it pays to copy a weight into panels: that takes 0.6 ms for
/// 1,024 × 1,024, and the dense product with 64 rows would by count take 1.1 ms. Where between 64
/// and 1,024 rows the two meet was not measured.
const MIN_ROWS: usize = 256;

/// Rows of the second factor that serve all outputs of a block before the next ones come.
const GROUP_ROWS: usize = 64;

/// Outputs that are computed at a time.
const OUTPUTS: usize = 64;

/// Vectors of columns that are computed at a time: as many sums in registers. Every nonzero takes
/// two loads besides one for each of them, so that few would leave the multipliers idle. A group of
/// rows of that width is 32 KiB with sixteen lanes and 16 KiB with eight; it stays in the
/// first-level cache while all outputs take from it, and their sums pass by.
const VECTORS: usize = 8;

/// Groups of rows that serve all of a thread's outputs before the next ones come: 512 KiB with
/// sixteen lanes and 256 KiB with eight, which stay in the second-level cache.
const GROUPS: usize = 16;

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
    let skip = skips_zero_activations(n, k) && m >= MIN_ROWS && share(a.0.as_slice()?) <= max_density();
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
    if dy_share.min(x_share) > max_density() {
        return Ok(false);
    }
    if dy_share <= x_share {
        multiply(out, (outputs, inputs, n), &Factor(dy, (1, outputs)), &Factor(x, (inputs, 1)), false)?;
    } else {
        let mut turned = dy.device().empty("linear weight gradient", &[inputs, outputs])?;
        multiply(&mut turned, (inputs, outputs, n), &Factor(x, (1, inputs)), &Factor(dy, (outputs, 1)), false)?;
        transpose_matrix(turned.as_slice()?, outputs, out.as_mut_slice()?);
    }
    Ok(true)
}

fn max_density() -> f64 {
    tuned_share(SKIP_ZEROS, MAX_DENSITY)
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
    let (width, padded) = panel_sizes(k);
    let mut packed = panels(out.device(), n, k)?;
    let (source, strides) = (b.0.as_slice()?, b.1);
    packed.as_mut_slice()?.par_chunks_mut(padded).enumerate().for_each(|(p, panel)| {
        let first = p * width;
        let here = width.min(n - first);
        let (panel, padding) = panel.split_at_mut(k * width);
        padding.fill(0.0);
        let rows = rows_per_block(width);
        panel.par_chunks_mut(rows * width).enumerate().for_each(|(block, panel)| {
            let source = &source[block * rows * strides.0 + first * strides.1..];
            arch().dispatch(Pack { source, strides, here, width, panel });
        });
    });
    let (a, strides, packed) = (a.0.as_slice()?, a.1, packed.as_slice()?);
    // The more outputs a thread takes, the less often it reads `b`; but all threads shall have
    // some.
    let task = (m / (2 * rayon::current_num_threads())).next_multiple_of(OUTPUTS).clamp(OUTPUTS, 8 * OUTPUTS);
    out.as_mut_slice()?.par_chunks_mut(task * n).enumerate().for_each(|(number, out)| {
        NONZEROS.with_borrow_mut(|lists| {
            let rows = Rows { a, strides, first: number * task, inner: k };
            arch().dispatch(Outputs { rows, lists, packed, cols: n, out, accumulate });
        });
    });
    Ok(())
}

/// How many columns a panel of `k` rows has, and how many entries.
fn panel_sizes(k: usize) -> (usize, usize) {
    let width = VECTORS * arch().dispatch(Lanes);
    (width, k.next_multiple_of(GROUP_ROWS) * width)
}

/// Memory for a factor of `k` rows and `n` columns.
fn panels(device: &Device, n: usize, k: usize) -> Result<Tensor> {
    let (width, padded) = panel_sizes(k);
    device.empty("linear panels", &[n.div_ceil(width) * padded])
}

/// Takes the memory that [`product`] would, if it skips zeros.
pub(super) fn rehearse_product((m, n, k): (usize, usize, usize), device: &Device) -> Result<()> {
    if skips_zero_activations(n, k) && m >= MIN_ROWS {
        drop(panels(device, n, k)?);
    }
    Ok(())
}

/// Takes the memory that [`weight_gradient`] would.
pub(super) fn rehearse_weight_gradient(rows: usize, inputs: usize, device: &Device) -> Result<()> {
    panels(device, inputs, rows).map(drop)
}

thread_local! {
    /// Memory for lists of nonzeros, kept so that no step asks the system for it.
    static NONZEROS: RefCell<Vec<RowNonzeros>> = const { RefCell::new(Vec::new()) };
}

/// How many numbers a vector has.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// Copies `here` columns of `source`, whose neighbouring rows and columns have the given distances,
/// into the rows of a panel `width` wide, and fills it up with zeros.
struct Pack<'a> {
    source: &'a [f32],
    strides: (usize, usize),
    here: usize,
    width: usize,
    panel: &'a mut [f32],
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { source, strides: (down, right), here, width, panel } = self;
        if right == 1 {
            for (row, source) in panel.chunks_exact_mut(width).zip(source.chunks(down)) {
                row[..here].copy_from_slice(&source[..here]);
                row[here..].fill(0.0);
            }
        } else {
            if here < width {
                panel.fill(0.0);
            }
            let rows = panel.len() / width;
            transpose::<S>((source, right), (panel, width), (here, rows));
        }
    }
}

/// Some rows of the factor with zeros: those from `first` on of `a: (m, inner)`, with the given
/// distances between rows and columns.
#[derive(Clone, Copy)]
struct Rows<'a> {
    a: &'a [f32],
    strides: (usize, usize),
    first: usize,
    inner: usize,
}

/// The nonzeros of up to [`OUTPUTS`] rows.
#[derive(Default)]
struct RowNonzeros {
    /// How many rows.
    outputs: usize,
    /// For every group of columns and every row, columns within the group, ascending. What follows
    /// the last end is unspecified.
    indices: Vec<u32>,
    /// Their values.
    values: Vec<f32>,
    /// The lists: (groups, outputs). Within a group the short ones come first: how often a loop
    /// runs is then mostly what it was the last time, as processors expect.
    lists: Vec<List>,
}

/// Where the nonzeros are that a row has in a group of columns.
#[derive(Clone, Copy, Default)]
struct List {
    start: u32,
    len: u16,
    /// Which row.
    output: u16,
}

impl RowNonzeros {
    /// Takes the first `outputs` rows.
    #[inline(always)]
    fn fill<S: Simd>(&mut self, Rows { a, strides: (down, right), first, inner }: Rows, outputs: usize) {
        self.outputs = outputs;
        self.lists.clear();
        let mut count = 0;
        for start in (0..inner).step_by(GROUP_ROWS) {
            let needed = count + (outputs + 1) * GROUP_ROWS;
            if self.indices.len() < needed {
                self.indices.resize(needed, 0);
                self.values.resize(needed, 0.0);
            }
            let columns = GROUP_ROWS.min(inner - start);
            let group = &a[first * down + start * right..];
            let mut tile = [0.0; OUTPUTS * GROUP_ROWS];
            // A single column lies both ways, and its rows are shorter than a group.
            if right == 1 && down > 1 {
                for (row, source) in tile.chunks_exact_mut(GROUP_ROWS).zip(group.chunks(down)).take(outputs) {
                    row[..columns].copy_from_slice(&source[..columns]);
                }
            } else {
                transpose::<S>((group, right), (&mut tile, GROUP_ROWS), (columns, outputs));
            }
            let mut found = [List::default(); OUTPUTS];
            let mut places = [0u32; GROUP_ROWS + 2];
            for (o, (row, found)) in tile.as_chunks::<GROUP_ROWS>().0.iter().zip(&mut found).take(outputs).enumerate() {
                let space = count..count + GROUP_ROWS + pack::SLACK;
                let len = pack::nonzeros::<S>(row, &mut self.indices[space.clone()], &mut self.values[space]);
                *found = List { start: count as u32, len: len as u16, output: o as u16 };
                count += len;
                places[len + 1] += 1;
            }
            let mut sum = 0;
            for place in &mut places {
                sum += *place;
                *place = sum;
            }
            let first = self.lists.len();
            self.lists.resize(first + outputs, List::default());
            for list in found.iter().take(outputs) {
                let place = &mut places[list.len as usize];
                self.lists[first + *place as usize] = *list;
                *place += 1;
            }
        }
    }
}

/// Some rows of the result, and what they are computed from.
struct Outputs<'a> {
    rows: Rows<'a>,
    lists: &'a mut Vec<RowNonzeros>,
    packed: &'a [f32],
    cols: usize,
    out: &'a mut [f32],
    accumulate: bool,
}

/// Results under way, enough for the widest vectors.
#[repr(align(64))]
struct Sums([f32; OUTPUTS * VECTORS * 16]);

impl WithSimd for Outputs<'_> {
    type Output = ();

    /// ```text
    ///   a, its nonzeros         b, packed                  out
    ///   ┌─────────────┐     ┌───────┬───────┐      ┌───────┬───────┐
    ///   │ block       │     │ group │       │      │ sums  │       │ OUTPUTS rows
    ///   ├─────────────┤  ×  ├───────┤ panel │   =  ├───────┤       │
    ///   │ block       │     │ group │       │      │       │       │
    ///   └─────────────┘     └───────┴───────┘      └───────┴───────┘
    ///          k             VECTORS of columns
    /// ```
    ///
    /// Panel by panel, [`GROUPS`] groups of it at a time serve every block of `a` in turn, so that
    /// they stay in the cache; `sums` waits in `out` between one such chunk and the next.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rows, lists, packed, cols, out, accumulate } = self;
        let count = out.len() / cols;
        lists.resize_with(lists.len().max(count.div_ceil(OUTPUTS)), RowNonzeros::default);
        let lists = &mut lists[..count.div_ceil(OUTPUTS)];
        for (block, list) in lists.iter_mut().enumerate() {
            let at = block * OUTPUTS;
            list.fill::<S>(Rows { first: rows.first + at, ..rows }, OUTPUTS.min(count - at));
        }
        let width = VECTORS * S::F32_LANES;
        let padded = rows.inner.next_multiple_of(GROUP_ROWS) * width;
        let Sums(sums) = &mut Sums([0.0; OUTPUTS * VECTORS * 16]);
        for (p, panel) in packed.chunks_exact(padded).enumerate() {
            let here = p * width..cols.min((p + 1) * width);
            for (c, panel_rows) in panel.chunks(GROUPS * GROUP_ROWS * width).enumerate() {
                for (nonzeros, out_block) in lists.iter().zip(out.chunks_mut(OUTPUTS * cols)) {
                    if c > 0 || accumulate {
                        for (sum, out_row) in sums.chunks_exact_mut(width).zip(out_block.chunks_exact(cols)) {
                            sum[..here.len()].copy_from_slice(&out_row[here.clone()]);
                        }
                    } else {
                        sums.fill(0.0);
                    }
                    nonzeros.multiply(simd, c * GROUPS, panel_rows, sums);
                    for (sum, out_row) in sums.chunks_exact(width).zip(out_block.chunks_exact_mut(cols)) {
                        out_row[here.clone()].copy_from_slice(&sum[..here.len()]);
                    }
                }
            }
        }
    }
}

impl RowNonzeros {
    /// Adds to `sums`, (outputs, width), what comes of some groups of rows, (groups ·
    /// [`GROUP_ROWS`], width), the first of which is number `first`.
    #[inline(always)]
    fn multiply<S: Simd>(&self, simd: S, first: usize, rows: &[f32], sums: &mut [f32]) {
        let (outputs, width) = (self.outputs, VECTORS * S::F32_LANES);
        let groups = self.lists[first * outputs..].chunks_exact(outputs);
        for (lists, group) in groups.zip(rows.chunks_exact(GROUP_ROWS * width)) {
            let group_rows = S::as_simd_f32s(group).0.as_chunks::<VECTORS>().0;
            let sums = S::as_mut_simd_f32s(sums).0.as_chunks_mut::<VECTORS>().0;
            for list in lists {
                let (start, output_sums) = (list.start as usize, &mut sums[list.output as usize]);
                let entries = start..start + list.len as usize;
                let mut sums = *output_sums;
                for (&r, &value) in self.indices[entries.clone()].iter().zip(&self.values[entries]) {
                    let value = simd.splat_f32s(value);
                    let row = &group_rows[r as usize];
                    for v in 0..VECTORS {
                        sums[v] = simd.mul_add_e_f32s(value, row[v], sums[v]);
                    }
                }
                *output_sums = sums;
            }
        }
    }
}

/// `out: (rows, cols)` from `x: (cols, rows)`.
fn transpose_matrix(x: &[f32], rows: usize, out: &mut [f32]) {
    let cols = out.len() / rows;
    out.par_chunks_mut(16 * cols).enumerate().for_each(|(block, out)| {
        arch().dispatch(Turn { x: &x[block * 16..], x_stride: rows, out, cols });
    });
}

/// Writes some rows of a transpose.
struct Turn<'a> {
    x: &'a [f32],
    x_stride: usize,
    out: &'a mut [f32],
    cols: usize,
}

impl WithSimd for Turn<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rows = self.out.len() / self.cols;
        transpose::<S>((self.x, self.x_stride), (self.out, self.cols), (self.cols, rows));
    }
}
