//! Joining tensors along a dimension, and taking a range of one out.
//!
//! Gradients: each part of [`forward()`] receives the [`narrow()`] of the gradient that it became.

use crate::device::cpu::{for_row_blocks, inlined, rows_per_block};
use crate::device::{Backend, Launch, Shader, Tensor, params};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

params! {
    struct CopyParams { n: u32, part: u32, whole: u32, start: u32 }
}

pub(super) const SHADER: Shader = Shader::new("concat", include_str!("../../shaders/concat.wgsl"));

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

/// Writes `part` over positions `start..` of dimension `dim` of `out`. The caller has checked that
/// it fits.
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
fn copy(kernel: &'static str, source: &Tensor, dest: &mut Tensor, runs: Runs) -> Result<()> {
    let Runs { part, whole, start } = runs;
    let n = if kernel == "narrow" { dest.len() } else { source.len() };
    if n == 0 {
        return Ok(());
    }
    match source.backend() {
        Backend::Gpu(queue) => Launch::new(
            &SHADER,
            kernel,
            CopyParams { n: n as u32, part: part as u32, whole: whole as u32, start: start as u32 },
        )
        .bind(&[source, dest])
        .threads(n, 256)
        .cost(n)
        .run(queue),
        Backend::Cpu => {
            let (source, dest) = (source.as_slice()?, dest.as_mut_slice()?);
            let width = if kernel == "narrow" { part } else { whole };
            inlined!(for_row_blocks(dest, width, rows_per_block(width)), |first, block| {
                for (run, dest) in block.chunks_exact_mut(width).enumerate() {
                    match kernel {
                        "narrow" => dest.copy_from_slice(&source[(first + run) * whole + start..][..part]),
                        _ => dest[start..start + part].copy_from_slice(&source[(first + run) * part..][..part]),
                    }
                }
            });
            Ok(())
        }
        Backend::Meta => Ok(()),
    }
}

fn extent(x: &Tensor, dim: usize) -> Result<usize> {
    x.shape().get(dim).copied().ok_or_else(|| Error::shape("concat", format!("{:?} has no dimension {dim}", x.shape())))
}

/// Entries under one position of dimension `dim`.
fn inner(x: &Tensor, dim: usize) -> usize {
    x.shape()[dim + 1..].iter().product()
}

impl Tape {
    /// Joins `parts` along dimension `dim`. A part may occur repeatedly.
    pub fn concat(&mut self, parts: &[&Var], dim: usize) -> Result<Var> {
        let out = forward(&parts.iter().map(|part| part.value()).collect::<Vec<_>>(), dim)?;
        let lengths: Vec<_> = parts.iter().map(|part| part.value().shape()[dim]).collect();
        self.record_one(parts, out, move |dout, needs| {
            let mut start = 0;
            let parts = lengths.iter().zip(needs).map(|(&len, &needed)| {
                start += len;
                needed.then(|| narrow(&dout, dim, start - len, len)).transpose()
            });
            parts.collect()
        })
    }

    /// Cuts the last dimension into parts of the given widths, which must add up to it.
    pub fn split(&mut self, x: &Var, widths: &[usize]) -> Result<Vec<Var>> {
        let x_value = x.value();
        let total = x_value.shape().last().copied();
        if total != Some(widths.iter().sum()) {
            return Err(Error::shape("concat", format!("parts {widths:?} of {:?}", x_value.shape())));
        }
        let (dim, mut start) = (x_value.shape().len() - 1, 0);
        let mut outputs = Vec::with_capacity(widths.len());
        for &width in widths {
            outputs.push(narrow(x_value, dim, start, width)?);
            start += width;
        }
        let shapes: Vec<_> = outputs.iter().map(|o| o.shape().to_vec()).collect();
        let device = x_value.device().clone();
        Ok(self.record(&[x], outputs, move |dout, _| {
            let parts = dout.into_iter().zip(&shapes);
            let parts = parts.map(|(part, shape)| part.map_or_else(|| device.zeros("gradient", shape), Ok));
            let parts = parts.collect::<Result<Vec<_>>>()?;
            Ok(vec![Some(forward(&parts.iter().collect::<Vec<_>>(), dim)?)])
        }))
    }
}
