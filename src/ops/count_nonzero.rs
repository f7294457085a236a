//! How many entries are not zero: of a tensor, of each of its rows, of each of its columns. -0.0 is
//! zero; NaN is not.
//!
//! No gradient: it counts.

use rayon::prelude::*;

use super::abs_topk::MAGNITUDE;
use super::elementwise::{Entries, Rows};
use crate::Result;
use crate::device::cpu::{rows_per_block, vectorised};
use crate::device::{Backend, Launch, Shader, Tensor};

pub(super) const SHADER: Shader = Shader::new("count_nonzero", include_str!("../../shaders/count_nonzero.wgsl"));

/// Entries that one workgroup counts: 16 an invocation, so that few workgroups meet at the one
/// result.
const BLOCK: usize = 4096;

/// The number of nonzero entries of `x`, as a tensor of shape (1).
pub fn forward(x: &Tensor) -> Result<Tensor<u32>> {
    let mut out = x.device().zeros("count_nonzero", &[1])?;
    match x.backend() {
        Backend::Gpu(queue) => Launch::new(&SHADER, "forward", Entries::of(x))
            .bind(&[x, &out])
            .threads(x.len(), BLOCK)
            .cost(x.len())
            .run(queue)?,
        Backend::Cpu => {
            out.as_mut_slice()?[0] = x.as_slice()?.par_chunks(rows_per_block(1)).map(|b| vectorised!(count(b))).sum()
        }
        Backend::Meta => {}
    }
    Ok(out)
}

/// The number of nonzero entries in each row of `x: (rows, cols)`: (rows).
///
/// # Errors
/// Those of the device.
pub fn by_row(x: &Tensor) -> Result<Tensor<u32>> {
    let (rows, cols) = x.rows_cols();
    let mut out = x.device().zeros("nonzeros of rows", &[rows])?;
    match x.backend() {
        Backend::Gpu(queue) => {
            Launch::new(&SHADER, "by_row", Rows::of(x)).bind(&[x, &out]).workgroups(rows).cost(x.len()).run(queue)?
        }
        Backend::Cpu if cols > 0 => {
            let counts = out.as_mut_slice()?.par_iter_mut().zip(x.as_slice()?.par_chunks(cols));
            counts.for_each(|(total, row)| *total = vectorised!(count(row)));
        }
        Backend::Cpu | Backend::Meta => {}
    }
    Ok(out)
}

/// The number of nonzero entries in each column of `x: (rows, cols)`: (cols).
///
/// # Errors
/// Those of the device.
pub fn by_column(x: &Tensor) -> Result<Tensor<u32>> {
    let cols = x.rows_cols().1;
    let mut out = x.device().zeros("nonzeros of columns", &[cols])?;
    match x.backend() {
        Backend::Gpu(queue) => Launch::new(&SHADER, "by_column", Rows::of(x))
            .bind(&[x, &out])
            .threads(cols, 256)
            .cost(x.len())
            .run(queue)?,
        Backend::Cpu if cols > 0 => {
            let counts = out.as_mut_slice()?;
            for row in x.as_slice()?.chunks_exact(cols) {
                vectorised!(count_into(counts, row));
            }
        }
        Backend::Cpu | Backend::Meta => {}
    }
    Ok(out)
}

#[inline(always)]
fn count_into(counts: &mut [u32], row: &[f32]) {
    for (count, x) in counts.iter_mut().zip(row) {
        *count += u32::from(x.to_bits() & MAGNITUDE != 0);
    }
}

#[inline(always)]
fn count(block: &[f32]) -> u32 {
    block.iter().map(|x| u32::from(x.to_bits() & MAGNITUDE != 0)).sum()
}
