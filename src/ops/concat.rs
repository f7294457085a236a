//! Joining tensors along a dimension, and taking a range of one out.
//!
//! Gradients: each part of [`forward()`] receives the [`narrow()`] of the gradient that it became.

use crate::device::cpu::{for_row_blocks, rows_per_block};
use crate::device::{Launch, Shader, Tensor};
use crate::{Error, Result};

/// The kernels.
pub const SHADER: Shader = Shader::new("concat", include_str!("../../shaders/concat.wgsl"));

/// Positions `start..start + len` of dimension `dim` of `x`.
///
/// # Errors
/// [`Error::Shape`] if `x` has no such dimension or not that many positions.
pub fn narrow(x: &Tensor, dim: usize, start: usize, len: usize) -> Result<Tensor> {
    let (extent, inner) = (extent(x, dim)?, inner(x, dim));
    if start.checked_add(len).is_none_or(|end| end > extent) {
        return Err(Error::shape(
            "concat",
            format!("{len} positions from {start} of dimension {dim} of {:?}", x.shape()),
        ));
    }
    let mut shape = x.shape().to_vec();
    shape[dim] = len;
    let mut out = x.device().empty("narrow", &shape)?;
    copy("narrow", x, &mut out, Runs { part: len * inner, whole: extent * inner, start: start * inner })?;
    Ok(out)
}

/// The `parts` one after the other along dimension `dim`; they differ in nothing else.
///
/// # Errors
/// [`Error::Shape`] if there are no parts or they do not fit together.
pub fn forward(parts: &[&Tensor], dim: usize) -> Result<Tensor> {
    let Some(first) = parts.first() else {
        return Err(Error::shape("concat", "no parts to join"));
    };
    let mut shape = first.shape().to_vec();
    let mut total = 0;
    for part in parts {
        total += extent(part, dim)?;
        let (before, after) = (&part.shape()[..dim], &part.shape()[dim + 1..]);
        if *before != shape[..dim] || *after != shape[dim + 1..] {
            let shapes: Vec<_> = parts.iter().map(|part| part.shape()).collect();
            return Err(Error::shape("concat", format!("parts {shapes:?} differ in more than dimension {dim}")));
        }
    }
    shape[dim] = total;
    let mut out = first.device().empty("concat", &shape)?;
    let mut start = 0;
    for part in parts {
        write(part, &mut out, dim, start)?;
        start += part.shape()[dim];
    }
    Ok(out)
}

/// Writes `part` over positions `start..` of dimension `dim` of `out`. The caller has checked that it fits.
pub(super) fn write(part: &Tensor, out: &mut Tensor, dim: usize, start: usize) -> Result<()> {
    let inner = inner(out, dim);
    let runs = Runs { part: part.shape()[dim] * inner, whole: out.shape()[dim] * inner, start: start * inner };
    copy("write", part, out, runs)
}

/// A part of `part` consecutive entries from `start` on in each run of `whole`.
struct Runs {
    part: usize,
    whole: usize,
    start: usize,
}

/// Copies the part of every run, out of (`narrow`) or into (`write`) the whole.
fn copy(entry: &'static str, source: &Tensor, dest: &mut Tensor, runs: Runs) -> Result<()> {
    let Runs { part, whole, start } = runs;
    let n = if entry == "narrow" { dest.len() } else { source.len() };
    if n == 0 {
        return Ok(());
    }
    match source.gpu() {
        Some(gpu) => Launch::new(&SHADER, entry)
            .bind(source)
            .bind(dest)
            .word(n)
            .word(part)
            .word(whole)
            .word(start)
            .items(n, 256)
            .work(n)
            .run(gpu),
        None => {
            let (source, dest) = (source.as_slice()?, dest.as_mut_slice()?);
            let width = if entry == "narrow" { part } else { whole };
            for_row_blocks(
                dest,
                width,
                rows_per_block(width),
                #[inline(always)]
                |first, block| {
                    for (run, dest) in block.chunks_exact_mut(width).enumerate() {
                        match entry {
                            "narrow" => dest.copy_from_slice(&source[(first + run) * whole + start..][..part]),
                            _ => dest[start..start + part].copy_from_slice(&source[(first + run) * part..][..part]),
                        }
                    }
                },
            );
            Ok(())
        }
    }
}

fn extent(x: &Tensor, dim: usize) -> Result<usize> {
    x.shape().get(dim).copied().ok_or_else(|| Error::shape("concat", format!("{:?} has no dimension {dim}", x.shape())))
}

/// Entries under one position of dimension `dim`.
fn inner(x: &Tensor, dim: usize) -> usize {
    x.shape()[dim + 1..].iter().product()
}
