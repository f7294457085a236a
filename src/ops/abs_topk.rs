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

use rayon::prelude::*;

use super::elementwise::Rows;
use super::{expect_same, expect_shape};
use crate::Result;
use crate::device::cpu::{for_row_blocks, inlined, rows_per_block, vectorised};
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
            blocks
                .zip(x.par_chunks(block * cols))
                .for_each(|((y, zeros), x)| vectorised!(keep_rows(x, y, zeros, cols, k)));
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

#[inline(always)]
fn keep_rows(x: &[f32], y: &mut [f32], zeros: &mut [u32], cols: usize, k: usize) {
    let mut guess = 0;
    for ((x, y), zeros) in x.chunks_exact(cols).zip(y.chunks_exact_mut(cols)).zip(zeros) {
        let cut = Cut::find(x, k, guess);
        guess = cut.magnitude;
        let (ties, rest) = y.split_at_mut(cut.bound as usize);
        cut.keep(&x[..ties.len()], ties, true);
        cut.keep(&x[ties.len()..], rest, false);
        *zeros = if cut.magnitude == 0 { cut.bound } else { 0 };
    }
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

    /// Copies what stays of `x` to `y`, where entries equal to the cut's magnitude stay if `ties`.
    #[inline(always)]
    fn keep(self, x: &[f32], y: &mut [f32], ties: bool) {
        let below = self.magnitude as i32 - i32::from(ties);
        for (y, &x) in y.iter_mut().zip(x) {
            *y = if (x.to_bits() & MAGNITUDE) as i32 > below { x } else { 0.0 };
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
