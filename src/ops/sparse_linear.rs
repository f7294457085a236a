//! Linear maps with compressed weights: `y = x Wᵀ + b` with `x: (N, in)`, `W: (out, in)` as lists of nonzeros.
//!
//! Gradient of the input, for `dy: (N, out)`: `dx = dy W`, the same product with the lists by column. The gradients of
//! weight and bias are dense: [`super::linear::backward_weight`] and [`super::linear::backward_bias`].
//!
//! Every entry of a result starts as its bias and takes up its list's entries in ascending order, so that it does not
//! depend on the number of threads, nor, on the CPU, on the other rows beside it. (Where a single row skips the zeros of `x`, a sum
//! can only differ in the sign of a zero, or where zero meets an infinite weight.)

use rayon::prelude::*;

use super::compress::{Nonzeros, SparseMatrix};
use super::expect_shape;
use super::linear::{self, with_last};
use crate::device::{Device, Launch, Shader, Tensor};
use crate::{Error, Result};

/// The kernels.
pub const SHADER: Shader = Shader::new("sparse_linear", include_str!("../../shaders/sparse_linear.wgsl"));

/// Up to this share of nonzeros the compressed product is clearly faster than the dense one on the CPU. Measured with
/// AVX2 at 2,048 rows, compression included, as dense time over compressed time (256 → 256, 1024 → 1024): 1.5 and 1.1
/// at 1/4, 2.5 and 2.3 at 1/8, 3.5 and 3.7 at 1/16, 7 and 11 at 1/64; the two meet near 0.3.
const MAX_DENSITY_CPU: f64 = 0.25;
/// The same where the dense product skips the zeros of activations: with the quarter that AbsTopK leaves it takes half of its
/// time. Read off the numbers above, between 1/4 and 1/8.
const MAX_DENSITY_AFTER_TOPK: f64 = 0.14;
/// The same for a GPU, where the dense product's tiles leave less to win. Not measured on hardware: a guess on the
/// careful side.
const MAX_DENSITY_GPU: f64 = 1.0 / 16.0;

/// Whether a weight with this share of nonzeros is multiplied faster compressed than dense. Coarse: it ignores shapes.
pub fn prefer_sparse(device: &Device, density: f64) -> bool {
    density <= if device.is_cpu() { MAX_DENSITY_CPU } else { MAX_DENSITY_GPU }
}

/// The same for a weight of shape (out, in) in training, where AbsTopK leaves mostly zeros in what it multiplies.
pub fn prefer_sparse_after_topk(device: &Device, (outputs, inputs): (usize, usize), density: f64) -> bool {
    let skips = device.is_cpu() && linear::skips_zero_activations(inputs, outputs);
    prefer_sparse(device, density) && (!skips || density <= MAX_DENSITY_AFTER_TOPK)
}

/// The largest share of nonzeros at which training multiplies by lists, on the CPU device or a GPU: by [`prefer_sparse_after_topk`] for a
/// weight of that shape, otherwise by [`prefer_sparse`].
pub(crate) fn max_sparse_density(cpu: bool, shape: Option<(usize, usize)>) -> f64 {
    match shape {
        _ if !cpu => MAX_DENSITY_GPU,
        Some((outputs, inputs)) if linear::skips_zero_activations(inputs, outputs) => MAX_DENSITY_AFTER_TOPK,
        _ => MAX_DENSITY_CPU,
    }
}

/// `x Wᵀ + b`: `x: (.., in)`, `weight: (out, in)`, `bias: (out)`, result `(.., out)`.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit.
pub fn forward(x: &Tensor, weight: &SparseMatrix, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.shape;
    if let Some(bias) = bias {
        expect_shape("sparse_linear", "bias", bias, &[outputs])?;
    }
    product("x", x, [&weight.csr, &weight.csc], (inputs, outputs), bias)
}

/// The gradient of `x`: `dout W`, with `dout: (.., out)`, `weight: (out, in)`, result `(.., in)`.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit.
pub fn backward_input(dout: &Tensor, weight: &SparseMatrix) -> Result<Tensor> {
    product("dout", dout, [&weight.csc, &weight.csr], weight.shape, None)
}

/// `y[n, l] = bias[l] + Σ_j values_j x[n, indices_j]` over list `l`; `x: (N, width)`, `y: (N, count)`. `across` are the same nonzeros in
/// lists by the other index.
fn product(
    name: &str,
    x: &Tensor,
    [lists, across]: [&Nonzeros; 2],
    (width, count): (usize, usize),
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (rows, cols) = x.rows_cols();
    if cols != width {
        let message = format!("{name} {:?} does not fit a weight that takes {width}", x.shape());
        return Err(Error::shape("sparse_linear", message));
    }
    expect_shape("sparse_linear", "offsets", &lists.offsets, &[count + 1])?;
    expect_shape("sparse_linear", "offsets", &across.offsets, &[width + 1])?;
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
            let weight = Native {
                lists: HostNonzeros::new(lists)?,
                across: HostNonzeros::new(across)?,
                bias: bias.map(Tensor::as_slice).transpose()?,
            };
            multiply(x.as_slice()?, width, &weight, out.as_mut_slice()?);
        }
    }
    Ok(out)
}

/// Rows of `x` that a thread takes at a time.
const ROWS: usize = 64;
/// Nonzeros whose results are gathered before they are turned back into rows of the output.
const LISTS: usize = 16;

struct Native<'a> {
    lists: HostNonzeros<'a>,
    across: HostNonzeros<'a>,
    bias: Option<&'a [f32]>,
}

struct HostNonzeros<'a> {
    offsets: &'a [u32],
    indices: &'a [u32],
    values: &'a [f32],
}

impl<'a> HostNonzeros<'a> {
    fn new(lists: &'a Nonzeros) -> Result<Self> {
        Ok(Self {
            offsets: lists.offsets.as_slice()?,
            indices: lists.indices.as_slice()?,
            values: lists.values.as_slice()?,
        })
    }

    fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Indices and values of a list.
    #[inline(always)]
    fn entries(&self, list: usize) -> impl Iterator<Item = (&u32, &f32)> {
        let places = self.offsets[list] as usize..self.offsets[list + 1] as usize;
        self.indices[places.clone()].iter().zip(&self.values[places])
    }
}

fn multiply(x: &[f32], width: usize, weight: &Native, out: &mut [f32]) {
    let count = weight.lists.len();
    if out.is_empty() {
        return;
    }
    let rows = out.len() / count;
    out.par_chunks_mut(ROWS * count).enumerate().for_each_init(Vec::new, |scratch, (block, out)| {
        let first = block * ROWS;
        let x = &x[first * width..rows.min(first + ROWS) * width];
        pulp::Arch::new().dispatch(Block { x, width, weight, out, scratch });
    });
}

/// A block of rows to multiply. A type of its own rather than a closure, because a closure of this size is not
/// inlined into the function that may use vectors, and then has none.
struct Block<'a> {
    x: &'a [f32],
    width: usize,
    weight: &'a Native<'a>,
    out: &'a mut [f32],
    scratch: &'a mut Vec<f32>,
}

impl pulp::WithSimd for Block<'_> {
    type Output = ();

    /// Goes through the rows in the widest groups that they fill. A vector holds the same column of several rows, so that
    /// one weight multiplies them all. A few left-over rows are cheaper one by one than as a vector that is mostly empty.
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, simd: S) {
        let count = self.weight.lists.len();
        while !self.out.is_empty() {
            let left = self.out.len() / count;
            // With 32 rows of eight-lane vectors, 256 columns stay in a first-level cache of 32 KiB.
            match left / S::F32_LANES {
                4.. => self.group::<S, 4>(simd),
                0 if left < 4 => self.row::<S>(),
                _ => self.group::<S, 1>(simd),
            }
        }
    }
}

impl<'a> Block<'a> {
    /// Takes the next `rows` rows, as many as there are: those of `x` and those of the output.
    #[inline(always)]
    fn next(&mut self, rows: usize) -> (&'a [f32], &'a mut [f32]) {
        let count = self.weight.lists.len();
        let rows = rows.min(self.out.len() / count);
        let (x, x_left) = self.x.split_at(rows * self.width);
        let (out, out_left) = std::mem::take(&mut self.out).split_at_mut(rows * count);
        (self.x, self.out) = (x_left, out_left);
        (x, out)
    }

    /// The next `V` vectors' worth of rows.
    #[inline(always)]
    fn group<S: pulp::Simd, const V: usize>(&mut self, simd: S) {
        let size = V * S::F32_LANES;
        let (x, out) = self.next(size);
        let (Native { lists, bias, .. }, width) = (self.weight, self.width);
        let count = lists.len();
        let rows = out.len() / count;
        self.scratch.resize((width + LISTS) * size, 0.0);
        let (turned, results) = self.scratch.split_at_mut(width * size);
        // Sixteen columns at a time: a cache line of every row, and sixteen rows of the transpose, stay at hand.
        for (c, columns) in turned.chunks_mut(16 * size).enumerate() {
            for r in 0..rows {
                let source = &x[r * width + c * 16..][..columns.len() / size];
                columns.chunks_exact_mut(size).zip(source).for_each(|(column, v)| column[r] = *v);
            }
        }
        let (turned, _) = S::as_simd_f32s(turned);
        for first in (0..count).step_by(LISTS) {
            let here = LISTS.min(count - first);
            for (l, result) in results.chunks_exact_mut(size).take(here).enumerate() {
                let mut sums = [simd.splat_f32s(bias.map_or(0.0, |bias| bias[first + l])); V];
                for (&i, &value) in lists.entries(first + l) {
                    let column = &turned[i as usize * V..][..V];
                    let value = simd.splat_f32s(value);
                    for v in 0..V {
                        sums[v] = simd.mul_add_e_f32s(value, column[v], sums[v]);
                    }
                }
                S::as_mut_simd_f32s(result).0.copy_from_slice(&sums);
            }
            for (r, row) in out.chunks_exact_mut(count).enumerate() {
                let columns = results.chunks_exact(size);
                row[first..first + here].iter_mut().zip(columns).for_each(|(y, result)| *y = result[r]);
            }
        }
    }

    /// The next row: of its inputs only those that are not zero, each given to the outputs that read it.
    #[inline(always)]
    fn row<S: pulp::Simd>(&mut self) {
        let (x, out) = self.next(1);
        match self.weight.bias {
            Some(bias) => out.copy_from_slice(bias),
            None => out.fill(0.0),
        }
        for (i, &x) in x.iter().enumerate().filter(|(_, x)| **x != 0.0) {
            for (&o, &value) in self.weight.across.entries(i) {
                let y = &mut out[o as usize];
                // As vectors do it: without them there is no fused instruction either, only a slow function.
                *y = if S::IS_SCALAR { value * x + *y } else { value.mul_add(x, *y) };
            }
        }
    }
}
