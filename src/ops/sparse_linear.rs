//! Linear maps with compressed weights: `y = x Wᵀ + b` with `x: (N, in)`, `W: (out, in)` as lists of nonzeros.
//!
//! Gradient of the input, for `dy: (N, out)`: `dx = dy W`, the same product with the lists by column. The gradients of
//! weight and bias are dense: [`super::linear::backward_weight`] and [`super::linear::backward_bias`].
//!
//! Every entry of a result starts as its bias and takes up its list's entries in ascending order, so that it does not
//! depend on the number of threads, nor, on the CPU, on the other rows beside it.

use rayon::prelude::*;

use super::compress::{Compressed, Lists};
use super::expect_shape;
use super::linear::with_last;
use crate::device::{Device, Launch, Shader, Tensor};
use crate::{Error, Result};

/// The kernels.
pub const SHADER: Shader = Shader::new("sparse_linear", include_str!("../../shaders/sparse_linear.wgsl"));

/// Below this share of nonzeros the compressed product is faster than the dense one, compression included.
const WORTHWHILE_CPU: f64 = 0.1;
/// The same for a GPU.
const WORTHWHILE_GPU: f64 = 1.0 / 16.0;

/// Whether a weight with this share of nonzeros is multiplied faster compressed than dense.
pub fn worthwhile(device: &Device, density: f64) -> bool {
    density <= if device.is_cpu() { WORTHWHILE_CPU } else { WORTHWHILE_GPU }
}

/// `x Wᵀ + b`: `x: (.., in)`, `weight: (out, in)`, `bias: (out)`, result `(.., out)`.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit.
pub fn forward(x: &Tensor, weight: &Compressed, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.shape;
    if let Some(bias) = bias {
        expect_shape("sparse_linear", "bias", bias, &[outputs])?;
    }
    product("x", x, &weight.rows, (inputs, outputs), bias)
}

/// The gradient of `x`: `dout W`, with `dout: (.., out)`, `weight: (out, in)`, result `(.., in)`.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit.
pub fn backward_input(dout: &Tensor, weight: &Compressed) -> Result<Tensor> {
    product("dout", dout, &weight.columns, weight.shape, None)
}

/// `y[n, l] = bias[l] + Σ_j values_j x[n, indices_j]` over list `l`; `x: (N, width)`, `y: (N, count)`.
fn product(
    name: &str,
    x: &Tensor,
    lists: &Lists,
    (width, count): (usize, usize),
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (rows, cols) = x.rows_cols();
    if cols != width {
        let message = format!("{name} {:?} does not fit a weight that takes {width}", x.shape());
        return Err(Error::shape("sparse_linear", message));
    }
    expect_shape("sparse_linear", "offsets", &lists.offsets, &[count + 1])?;
    let mut out = x.device().empty("sparse linear", &with_last(x, count))?;
    match x.gpu() {
        Some(gpu) => {
            let groups = rows.div_ceil(16) * count.div_ceil(256);
            Launch::new(&SHADER, "product")
                .bind(x)
                .bind(&lists.offsets)
                .bind(&lists.indices)
                .bind(&lists.values)
                // A kernel's bindings are fixed: without a bias, something readable takes its place.
                .bind(bias.unwrap_or(&lists.values))
                .bind(&out)
                .word(rows)
                .word(width)
                .word(count)
                .word(usize::from(bias.is_some()))
                .word(groups)
                .groups(groups)
                .work(2 * rows * lists.values.len())
                .run(gpu)?;
        }
        None => {
            let lists = Native {
                offsets: lists.offsets.native()?,
                indices: lists.indices.native()?,
                values: lists.values.native()?,
                bias: bias.map(Tensor::native).transpose()?,
            };
            multiply(x.native()?, width, &lists, out.native_mut()?);
        }
    }
    Ok(out)
}

/// Rows of `x` that a thread takes at a time.
const ROWS: usize = 64;
/// Lists whose results are gathered before they are turned back into rows of the output.
const LISTS: usize = 16;

struct Native<'a> {
    offsets: &'a [u32],
    indices: &'a [u32],
    values: &'a [f32],
    bias: Option<&'a [f32]>,
}

fn multiply(x: &[f32], width: usize, lists: &Native, out: &mut [f32]) {
    let count = lists.offsets.len() - 1;
    if out.is_empty() {
        return;
    }
    let rows = out.len() / count;
    out.par_chunks_mut(ROWS * count).enumerate().for_each_init(Vec::new, |turned, (block, out)| {
        let first = block * ROWS;
        let x = &x[first * width..rows.min(first + ROWS) * width];
        pulp::Arch::new().dispatch(Block { x, width, lists, out, turned });
    });
}

/// A block of rows to multiply. A type of its own rather than a closure, because a closure of this size is not
/// inlined into the function that may use vectors, and then has none.
struct Block<'a> {
    x: &'a [f32],
    width: usize,
    lists: &'a Native<'a>,
    out: &'a mut [f32],
    /// Room for the transpose of `x`.
    turned: &'a mut Vec<f32>,
}

impl pulp::WithSimd for Block<'_> {
    type Output = ();

    /// Goes through the rows in the widest groups that they fill: a vector holds the same column of many rows, so that
    /// one weight multiplies them all. A few left-over rows are cheaper one by one than as a vector that is mostly empty.
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _simd: S) {
        while !self.out.is_empty() {
            match self.out.len() / (self.lists.offsets.len() - 1) {
                ROWS.. => self.group::<S, ROWS>(),
                4.. => self.group::<S, 16>(),
                _ => self.group::<S, 1>(),
            }
        }
    }
}

impl Block<'_> {
    /// Does the next `R` rows, or as many as there are, and leaves the others.
    #[inline(always)]
    fn group<S: pulp::Simd, const R: usize>(&mut self) {
        let (lists, width) = (self.lists, self.width);
        let count = lists.offsets.len() - 1;
        let rows = R.min(self.out.len() / count);
        let (x, x_left) = self.x.split_at(rows * width);
        let (out, out_left) = std::mem::take(&mut self.out).split_at_mut(rows * count);
        (self.x, self.out) = (x_left, out_left);

        self.turned.resize(width * R, 0.0);
        let (turned, _) = self.turned.as_chunks_mut::<R>();
        // Sixteen columns at a time: a cache line of every row, and sixteen rows of the transpose, stay at hand.
        for (c, columns) in turned.chunks_mut(16).enumerate() {
            for r in 0..rows {
                let source = &x[r * width + c * 16..][..columns.len()];
                columns.iter_mut().zip(source).for_each(|(column, v)| column[r] = *v);
            }
        }
        let mut results = [[0.0f32; R]; LISTS];
        for first in (0..count).step_by(LISTS) {
            let here = LISTS.min(count - first);
            for (l, result) in results[..here].iter_mut().enumerate() {
                let list = lists.offsets[first + l] as usize..lists.offsets[first + l + 1] as usize;
                let mut sum = [lists.bias.map_or(0.0, |bias| bias[first + l]); R];
                for (&i, &value) in lists.indices[list.clone()].iter().zip(&lists.values[list]) {
                    let column = &turned[i as usize];
                    for r in 0..R {
                        // Without vectors there is no fused instruction either, only a slow function.
                        sum[r] = if S::IS_SCALAR { value * column[r] + sum[r] } else { value.mul_add(column[r], sum[r]) };
                    }
                }
                *result = sum;
            }
            for r in 0..rows {
                let target = &mut out[r * count + first..][..here];
                target.iter_mut().zip(&results).for_each(|(v, result)| *v = result[r]);
            }
        }
    }
}
