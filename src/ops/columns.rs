//! Parts of the last dimension: taking a range of columns out, and laying tensors side by side.
//!
//! Gradients: each part of [`concat()`] receives the [`slice()`] of the gradient that it became; [`slice()`]'s input receives
//! the gradient in the sliced columns ([`concat()`] with zeros beside it) and nothing elsewhere.

use crate::device::cpu::{for_row_blocks, rows_per_block};
use crate::device::{Launch, Shader, Tensor};
use crate::{Error, Result};

/// The kernels.
pub const SHADER: Shader = Shader::new("columns", include_str!("../../shaders/columns.wgsl"));

/// Columns `start..start + len` of `x: (.., C)`, as `(.., len)`.
///
/// # Errors
/// [`Error::Shape`] if `x` has not that many columns.
pub fn slice(x: &Tensor, start: usize, len: usize) -> Result<Tensor> {
    let width = x.rows_cols().1;
    if start.checked_add(len).is_none_or(|end| end > width) {
        return Err(Error::shape("columns", format!("{len} columns from {start} of {:?}", x.shape())));
    }
    let mut out = x.device().empty("columns", &with_width(x, len))?;
    match x.gpu() {
        Some(gpu) => Launch::new(&SHADER, "slice")
            .bind(x)
            .bind(&out)
            .word(out.len())
            .word(len)
            .word(width)
            .word(start)
            .items(out.len(), 256)
            .work(out.len())
            .run(gpu)?,
        None => {
            let x = x.native()?;
            for_row_blocks(
                out.native_mut()?,
                len,
                rows_per_block(len),
                #[inline(always)]
                |first, block| {
                    for (row, x) in block.chunks_exact_mut(len).zip(x[first * width..].chunks_exact(width)) {
                        row.copy_from_slice(&x[start..start + len]);
                    }
                },
            );
        }
    }
    Ok(out)
}

/// The `parts: (.., C_i)` side by side: `(.., ΣC_i)`, with the first part's leading dimensions.
///
/// # Errors
/// [`Error::Shape`] if there are no parts or their numbers of rows differ.
pub fn concat(parts: &[&Tensor]) -> Result<Tensor> {
    let Some(first) = parts.first() else {
        return Err(Error::shape("columns", "no parts to lay side by side"));
    };
    let rows = first.rows_cols().0;
    if parts.iter().any(|part| part.rows_cols().0 != rows) {
        let shapes: Vec<_> = parts.iter().map(|part| part.shape()).collect();
        return Err(Error::shape("columns", format!("parts {shapes:?} differ in their rows")));
    }
    let width = parts.iter().map(|part| part.rows_cols().1).sum();
    let mut out = first.device().empty("columns", &with_width(first, width))?;
    match first.gpu() {
        Some(gpu) => {
            let mut start = 0;
            for part in parts {
                let len = part.rows_cols().1;
                Launch::new(&SHADER, "place")
                    .bind(part)
                    .bind(&out)
                    .word(part.len())
                    .word(len)
                    .word(width)
                    .word(start)
                    .items(part.len(), 256)
                    .work(part.len())
                    .run(gpu)?;
                start += len;
            }
        }
        None => {
            let natives: Vec<_> =
                parts.iter().map(|part| Ok((part.native()?, part.rows_cols().1))).collect::<Result<_>>()?;
            for_row_blocks(
                out.native_mut()?,
                width,
                rows_per_block(width),
                #[inline(always)]
                |first, block| {
                    for (i, mut row) in block.chunks_exact_mut(width).enumerate() {
                        for (part, len) in &natives {
                            let (columns, rest) = row.split_at_mut(*len);
                            columns.copy_from_slice(&part[(first + i) * len..][..*len]);
                            row = rest;
                        }
                    }
                },
            );
        }
    }
    Ok(out)
}

/// `x`'s shape with another last dimension.
fn with_width(x: &Tensor, width: usize) -> Vec<usize> {
    let mut shape = x.shape().to_vec();
    shape.pop();
    shape.push(width);
    shape
}
