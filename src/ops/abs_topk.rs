//! AbsTopK: the `k` entries of largest magnitude in each row stay, the others become zero.
//!
//! Magnitudes are ordered as `bits & 0x7fff_ffff`, which agrees with `|x|`, gives -0.0 magnitude
//! zero and puts NaN above all numbers. Equal magnitudes: the lowest index stays. So exactly
//! `min(k, C)` entries stay in every row, on every device the same ones.
//!
//! Gradient: `dx = dout` at kept entries, 0 elsewhere. What was kept is read off `y`, helped by one
//! word a row. If the smallest kept magnitude of a row is not zero, exactly its nonzero `y` were
//! kept, and `zeros[row] = 0`. If it is zero, all nonzero `x` were kept (they are larger) and of
//! the zeros the first few by index; `zeros[row]` is one past the last of them. All zeros before it
//! were kept, all from it on were dropped. So entry `i` was kept if and only if `y[i]` has nonzero
//! magnitude or `i < zeros[row]`.

use std::cell::RefCell;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::elementwise::Rows;
use super::math::LANES;
use super::pack;
use super::{expect_same, expect_shape};
use crate::Result;
use crate::device::cpu::{arch, for_row_blocks, inlined, rows_per_block};
use crate::device::{Backend, Launch, Shader, Tensor, params};
use crate::tape::{Tape, Var};

params! {
    struct KeepParams { rows: u32, width: u32, k: u32 }
}

pub(super) const SHADER: Shader = Shader::new("abs_topk", include_str!("../../shaders/abs_topk.wgsl"));

/// All bits of an `f32` but its sign.
pub(super) const MAGNITUDE: u32 = 0x7fff_ffff;

/// What [`forward`] returns.
#[derive(Clone, Debug)]
pub struct Forward {
    /// `x` with all but the kept entries zeroed, in the shape of `x`.
    pub y: Tensor,
    /// (rows): one past the last kept zero of a row, or 0 where no zero was kept. For [`backward`].
    pub zeros: Tensor<u32>,
}

/// Keeps the `k` largest magnitudes in each row of `x: (.., C)`. `k >= C` keeps all, `k = 0` none.
///
/// # Errors
/// [`crate::Error::Limit`] and [`crate::Error::Memory`] if the device has not enough memory for the
/// result.
pub fn forward(x: &Tensor, k: usize) -> Result<Forward> {
    let (rows, cols) = x.rows_cols();
    let k = k.min(cols);
    let mut y = x.device().empty("abs_topk", x.shape())?;
    let mut zeros = x.device().empty("abs_topk zeros", &[rows])?;
    if k == 0 || x.is_empty() {
        y.clear()?;
        zeros.clear()?;
        return Ok(Forward { y, zeros });
    }
    match x.backend() {
        Backend::Gpu(queue) => {
            Launch::new(&SHADER, "forward", KeepParams { rows: rows as u32, width: cols as u32, k: k as u32 })
                .bind(&[x, &y, &zeros])
                .workgroups(rows)
                .cost(8 * x.len())
                .run(queue)?
        }
        Backend::Cpu => {
            let x = x.as_slice()?;
            let block = rows_per_block(cols);
            let blocks =
                y.as_mut_slice()?.par_chunks_mut(block * cols).zip(zeros.as_mut_slice()?.par_chunks_mut(block));
            blocks.zip(x.par_chunks(block * cols)).for_each(|((y, zeros), x)| {
                NEAR.with_borrow_mut(|near| arch().dispatch(KeepRows { x, y, zeros, cols, k, near }));
            });
        }
        Backend::Meta => {}
    }
    Ok(Forward { y, zeros })
}

/// The gradient of `x` from that of `y`, `dout: (.., C)`, and from what [`forward`] returned.
pub fn backward(dout: &Tensor, y: &Tensor, zeros: &Tensor<u32>) -> Result<Tensor> {
    expect_same("abs_topk", dout, y)?;
    let (rows, cols) = y.rows_cols();
    expect_shape("abs_topk", "zeros", zeros, &[rows])?;
    let mut dx = y.device().empty("abs_topk gradient", y.shape())?;
    match y.backend() {
        Backend::Gpu(queue) => Launch::new(&SHADER, "backward", Rows::of(y))
            .bind(&[dout, y, zeros, &dx])
            .threads(y.len(), 256)
            .cost(y.len())
            .run(queue)?,
        Backend::Cpu => {
            let (dout, y, zeros) = (dout.as_slice()?, y.as_slice()?, zeros.as_slice()?);
            inlined!(for_row_blocks(dx.as_mut_slice()?, cols, rows_per_block(cols)), |first, block| {
                for (r, dx) in block.chunks_exact_mut(cols).enumerate() {
                    let row = (first + r) * cols..(first + r + 1) * cols;
                    let (dout, y) = (&dout[row.clone()], &y[row]);
                    for ((dx, &d), &y) in dx.iter_mut().zip(dout).zip(y) {
                        *dx = if y.to_bits() & MAGNITUDE != 0 { d } else { 0.0 };
                    }
                    let zeros = cols.min(zeros[first + r] as usize);
                    dx[..zeros].copy_from_slice(&dout[..zeros]);
                }
            });
        }
        Backend::Meta => {}
    }
    Ok(dx)
}

/// Keeps `k` entries of each of some rows.
struct KeepRows<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    zeros: &'a mut [u32],
    cols: usize,
    k: usize,
    /// Memory for magnitudes near a cut.
    near: &'a mut Vec<u32>,
}

impl WithSimd for KeepRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { x, y, zeros, cols, k, near } = self;
        let mut guess = 0;
        near.resize(near.len().max(cols + pack::SLACK), 0);
        for ((x, y), zeros) in x.chunks_exact(cols).zip(y.chunks_exact_mut(cols)).zip(zeros) {
            let cut = match Cut::near::<S>(x, k, guess, near) {
                Some(cut) => cut,
                None => Cut::find(x, k, guess),
            };
            guess = cut.magnitude;
            let (ties, rest) = y.split_at_mut(cut.bound as usize);
            cut.keep(&x[..ties.len()], ties, true);
            cut.keep(&x[ties.len()..], rest, false);
            *zeros = if cut.magnitude == 0 { cut.bound } else { 0 };
        }
    }
}

thread_local! {
    static NEAR: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Where a row's kept entries part from the dropped ones: kept are the magnitudes above
/// `magnitude`, and those equal to it at an index below `bound`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) magnitude: u32,
    pub(super) bound: u32,
}

impl Cut {
    /// The cut that keeps exactly `k` entries of `row` (1 <= k <= its length). A search on the
    /// magnitude bits in which each step is one vectorised count over a row that stays in the
    /// first-level cache; it ends as soon as a cut between two neighbouring magnitudes is found.
    /// `guess` is where it begins: any magnitude does, a near one (that of the row before) saves
    /// half of the steps. Which entries stay does not depend on it.
    #[inline(always)]
    pub(super) fn find(row: &[f32], k: usize, guess: u32) -> Self {
        let k = k as u32;
        let nonzero = count_at_least(row, 1);
        if nonzero <= k {
            return Self { magnitude: 0, bound: nth_equal(row, 0, k - nonzero) };
        }
        // At least `low`: `many` entries, more than k. At least `high`: `few`, less than k.
        let (mut low, mut many) = (1u32, nonzero);
        let (mut high, mut few) = (MAGNITUDE + 1, 0);
        let mut middle = if guess > 1 && guess <= MAGNITUDE { guess } else { largest(row) };
        // Away from the guess in growing strides until the cut is between two counts.
        let mut stride = 1u32 << 20;
        let mut steps = 0;
        while high - low > 1 {
            middle = middle.clamp(low + 1, high - 1);
            let count = count_at_least(row, middle);
            if count == k {
                return Self { magnitude: middle - 1, bound: 0 };
            }
            if count < k {
                (high, few) = (middle, count);
            } else {
                (low, many) = (middle, count);
            }
            middle = if low == 1 {
                high.saturating_sub(stride)
            } else if high > MAGNITUDE {
                low.saturating_add(stride)
            } else {
                // Where a straight line between both counts would have it, and every third time
                // half-way: lines can deceive.
                steps += 1;
                let line = u64::from(high - low) * u64::from(many - k) / u64::from(many - few);
                low + if steps % 3 == 0 { (high - low) / 2 } else { line as u32 }
            };
            stride = stride.saturating_mul(2);
        }
        Self { magnitude: low, bound: nth_equal(row, low, k - few) }
    }

    /// As [`Cut::find`], if the cut is within an eighth of an octave of `guess`: what is there is
    /// gathered in passing, and searched. Most rows are much like the one before.
    #[inline(always)]
    fn near<S: Simd>(row: &[f32], k: usize, guess: u32, near: &mut [u32]) -> Option<Self> {
        const SPREAD: u32 = 1 << 20;
        if guess <= SPREAD || guess >= MAGNITUDE - SPREAD {
            return None;
        }
        let range = (guess - SPREAD, guess + SPREAD);
        let (above, count) = pack::between::<S>(bytemuck::cast_slice(row), MAGNITUDE, range, near);
        // One more than must be found: the next one below tells whether there are equals.
        if above >= k || above + count <= k {
            return None;
        }
        // Zeros are below all of them, and whole vectors are counted fastest.
        let padded = count.next_multiple_of(LANES);
        near[count..padded].fill(0);
        let near = bytemuck::cast_slice(&near[..padded]);
        let cut = Self::find(near, k - above, guess);
        if cut.bound == 0 {
            return Some(cut);
        }
        let larger = above + count_at_least(near, cut.magnitude + 1) as usize;
        Some(Self { bound: nth_equal(row, cut.magnitude, (k - larger) as u32), ..cut })
    }

    /// As [`Cut::find`], faster for few entries.
    pub(super) fn of_few(row: &[f32], k: usize) -> Self {
        arch().dispatch(FewLargest { row, k })
    }

    /// Copies what stays of `x` to `y`, where entries equal to the cut's magnitude stay if `ties`.
    #[inline(always)]
    fn keep(self, x: &[f32], y: &mut [f32], ties: bool) {
        let below = self.magnitude as i32 - i32::from(ties);
        for (y, &x) in y.iter_mut().zip(x) {
            *y = if (x.to_bits() & MAGNITUDE) as i32 > below { x } else { 0.0 };
        }
    }
}

/// Most entries that [`FewLargest`] finds in passing.
const FEW: usize = 8;

/// Finds the cut that keeps `k` entries of a row (1 <= k < its length).
struct FewLargest<'a> {
    row: &'a [f32],
    k: usize,
}

impl WithSimd for FewLargest<'_> {
    type Output = Cut;

    /// Every lane collects the `k + 1` largest magnitudes that pass it; then lanes are merged.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Cut {
        let Self { row, k } = self;
        if k > FEW {
            return Cut::find(row, k, 0);
        }
        let mut best = [[-1i32; LANES]; FEW + 1];
        let best = &mut best[..=k];
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            insert(best, chunk.map(|x| (x.to_bits() & MAGNITUDE) as i32));
        }
        let mut last = [-1i32; LANES];
        last.iter_mut().zip(rest).for_each(|(last, x)| *last = (x.to_bits() & MAGNITUDE) as i32);
        insert(best, last);
        for half in [8, 4, 2, 1] {
            for level in 0..best.len() {
                let mut other = [-1i32; LANES];
                other[..half].copy_from_slice(&best[level][half..2 * half]);
                best[level][half..].fill(-1);
                insert(best, other);
            }
        }
        let (cut, next) = (best[k - 1][0], best[k][0]);
        if cut > next {
            return Cut { magnitude: cut as u32 - 1, bound: 0 };
        }
        let above = best.iter().filter(|lanes| lanes[0] > cut).count();
        Cut { magnitude: cut as u32, bound: nth_equal(row, cut as u32, (k - above) as u32) }
    }
}

/// Puts a number into every lane's list, which is in descending order; its last one falls out.
#[inline(always)]
fn insert(best: &mut [[i32; LANES]], mut new: [i32; LANES]) {
    for held in best {
        for (held, new) in held.iter_mut().zip(&mut new) {
            (*held, *new) = ((*held).max(*new), (*held).min(*new));
        }
    }
}

/// How many magnitudes are at least `least`, which is 1 or more.
#[inline(always)]
fn count_at_least(row: &[f32], least: u32) -> u32 {
    // Signed: the vector units of older processors compare no others.
    let below = (least - 1) as i32;
    row.iter().map(|x| u32::from((x.to_bits() & MAGNITUDE) as i32 > below)).sum()
}

#[inline(always)]
fn largest(row: &[f32]) -> u32 {
    row.iter().map(|x| (x.to_bits() & MAGNITUDE) as i32).fold(0, i32::max) as u32
}

/// One past the index of the `n`-th magnitude equal to `magnitude`; 0 if `n` is 0.
#[inline(always)]
fn nth_equal(row: &[f32], magnitude: u32, n: u32) -> u32 {
    let mut remaining = n;
    let mut i = 0;
    while remaining > 0 && i < row.len() {
        remaining -= u32::from(row[i].to_bits() & MAGNITUDE == magnitude);
        i += 1;
    }
    i as u32
}

impl Tape {
    /// Keeps the `k` entries of largest magnitude in each row. Saves its output and one word a row.
    pub fn abs_topk(&mut self, x: &Var, k: usize) -> Result<Var> {
        let Forward { y, zeros } = forward(x.value(), k)?;
        self.record_one(&[x], y.clone(), move |dout, _| Ok(vec![Some(backward(&dout, &y, &zeros)?)]))
    }
}
