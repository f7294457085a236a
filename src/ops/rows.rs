//! Parts of the first dimension: taking a range out, and laying tensors one after the other, as batches of sequences are.
//!
//! Gradients: each part of [`concat()`] receives the [`slice()`] of the gradient that it became.

use crate::device::{Launch, Shader, Tensor};
use crate::{Error, Result};

/// The kernels.
pub const SHADER: Shader = Shader::new("rows", include_str!("../../shaders/rows.wgsl"));

/// Entries `start..start + len` of the first dimension of `x: (N, ..)`, as `(len, ..)`.
///
/// # Errors
/// [`Error::Shape`] if `x` has not that many.
pub fn slice(x: &Tensor, start: usize, len: usize) -> Result<Tensor> {
    let (count, inner) = first_dimension(x)?;
    if start.checked_add(len).is_none_or(|end| end > count) {
        return Err(Error::shape("rows", format!("{len} rows from {start} of {:?}", x.shape())));
    }
    let mut out = x.device().empty("rows", &with_count(x, len))?;
    copy(x, start * inner, &mut out, 0, len * inner)?;
    Ok(out)
}

/// The `parts: (N_i, ..)` one after the other: `(ΣN_i, ..)`. They differ in nothing but the first dimension.
///
/// # Errors
/// [`Error::Shape`] if there are no parts or they do not fit together.
pub fn concat(parts: &[&Tensor]) -> Result<Tensor> {
    let Some(first) = parts.first() else {
        return Err(Error::shape("rows", "no parts to lay one after the other"));
    };
    let mut total = 0;
    for part in parts {
        total += first_dimension(part)?.0;
        if part.shape()[1..] != first.shape()[1..] {
            let shapes: Vec<_> = parts.iter().map(|part| part.shape()).collect();
            return Err(Error::shape("rows", format!("parts {shapes:?} differ in more than their first dimension")));
        }
    }
    let mut out = first.device().empty("rows", &with_count(first, total))?;
    let mut to = 0;
    for part in parts {
        copy(part, 0, &mut out, to, part.len())?;
        to += part.len();
    }
    Ok(out)
}

/// Copies `n` entries of `source` from `start` on to `dest` from `to` on.
fn copy(source: &Tensor, start: usize, dest: &mut Tensor, to: usize, n: usize) -> Result<()> {
    match source.gpu() {
        Some(gpu) => Launch::new(&SHADER, "copy")
            .bind(source)
            .bind(dest)
            .word(n)
            .word(start)
            .word(to)
            .items(n, 256)
            .work(n)
            .run(gpu),
        None => {
            dest.native_mut()?[to..to + n].copy_from_slice(&source.native()?[start..start + n]);
            Ok(())
        }
    }
}

/// The extent of the first dimension, and how many entries lie under one of its places.
fn first_dimension(x: &Tensor) -> Result<(usize, usize)> {
    match x.shape() {
        [count, inner @ ..] => Ok((*count, inner.iter().product())),
        [] => Err(Error::shape("rows", "a single number has no first dimension")),
    }
}

fn with_count(x: &Tensor, count: usize) -> Vec<usize> {
    let mut shape = x.shape().to_vec();
    shape[0] = count;
    shape
}
