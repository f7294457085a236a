//! Linear maps with sparse weights: `y = x Wᵀ + b` with `x: (N, in)`, `W: (out, in)` as a
//! [`SparseMatrix`].
//!
//! Gradient of the input, for `dy: (N, out)`: `dx = dy W`, the same product with CSC. The gradients
//! of weight and bias are dense: [`super::linear::backward_weight`] and
//! [`super::linear::backward_bias`].
//!
//! Every entry of a result starts as its bias and adds its nonzeros in ascending order, so that it
//! depends neither on the number of threads nor, on the CPU, on the other rows. (A single row skips
//! the zeros of `x`: its sum can only differ in the sign of a zero, or where zero meets an infinite
//! weight.)

use std::cell::RefCell;

use rayon::prelude::*;

use super::compress::{Nonzeros, SparseMatrix};
use super::expect_shape;
use super::linear::{self, with_last};
use super::transpose::transpose;
use crate::device::cpu::{Scratch, arch, tuned_share};
use crate::device::{Backend, Device, Launch, Shader, Tensor, params};
use crate::{Error, Result};

params! {
    struct ProductParams { rows: u32, width: u32, segments: u32, has_bias: u32, workgroups: u32 }
}

pub(super) const SHADER: Shader = Shader::new("sparse_linear", include_str!("../../shaders/sparse_linear.wgsl"));

/// Up to this density the sparse product is clearly faster than the dense one on the CPU. Measured
/// with AVX2 at 2,048 rows, compression included, as dense time over sparse time (256 → 256, 1024 →
/// 1024): 1.5 and 1.1 at 1/4, 2.5 and 2.3 at 1/8, 3.5 and 3.7 at 1/16, 7 and 11 at 1/64; the two
/// meet near 0.3.
const MAX_DENSITY_CPU: f64 = 0.25;
/// The same where the dense product skips the zeros of activations, which halves its time where
/// AbsTopK keeps a quarter. Read off the numbers above, between 1/4 and 1/8.
const MAX_DENSITY_AFTER_TOPK: f64 = 0.14;
/// The same for a GPU, where the dense product is faster. Not measured on hardware: a careful
/// guess.
const MAX_DENSITY_GPU: f64 = 1.0 / 16.0;

/// What the tuned shares are called that replace the CPU's.
pub(crate) const SPARSE: &str = "weights are multiplied by their nonzeros up to";
pub(crate) const SPARSE_AFTER_TOPK: &str = "and after AbsTopK up to";

/// Whether products with a weight of this density are faster sparse than dense. Coarse: it ignores
/// shapes.
pub fn prefer_sparse(device: &Device, density: f64) -> bool {
    density <= sparse_densities(device.is_cpu())[0]
}

/// The same for a weight of shape (out, in) that multiplies the output of AbsTopK, which is mostly
/// zeros.
pub fn prefer_sparse_after_topk(device: &Device, (outputs, inputs): (usize, usize), density: f64) -> bool {
    let skip_zeros = device.is_cpu() && linear::skips_zero_activations(inputs, outputs);
    density <= sparse_densities(device.is_cpu())[usize::from(skip_zeros)]
}

/// The densities below which training uses sparse matrices on the CPU, or else on a GPU: of all
/// weights, and of those that multiply the output of AbsTopK.
pub(crate) fn sparse_densities(cpu: bool) -> [f64; 2] {
    if !cpu {
        return [MAX_DENSITY_GPU; 2];
    }
    let all = tuned_share(SPARSE, MAX_DENSITY_CPU);
    [all, tuned_share(SPARSE_AFTER_TOPK, MAX_DENSITY_AFTER_TOPK).min(all)]
}

/// `x Wᵀ + b`: `x: (.., in)`, `weight: (out, in)`, `bias: (out)`, result `(.., out)`.
pub fn forward(x: &Tensor, weight: &SparseMatrix, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.shape;
    if let Some(bias) = bias {
        expect_shape("sparse_linear", "bias", bias, &[outputs])?;
    }
    product("x", x, [&weight.csr, &weight.csc], (inputs, outputs), bias)
}

/// The gradient of `x`: `dout W`, with `dout: (.., out)`, `weight: (out, in)`, result `(.., in)`.
pub fn backward_input(dout: &Tensor, weight: &SparseMatrix) -> Result<Tensor> {
    product("dout", dout, [&weight.csc, &weight.csr], weight.shape, None)
}

/// `y[n, s] = bias[s] + Σ_j values_j x[n, indices_j]` over segment `s`; `x: (N, width)`, `y: (N,
/// count)`. `transposed` are the same nonzeros in the other order.
fn product(
    name: &str,
    x: &Tensor,
    [nonzeros, transposed]: [&Nonzeros; 2],
    (width, count): (usize, usize),
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (rows, cols) = x.rows_cols();
    if cols != width {
        let message = format!("{name} {:?} does not fit a weight that takes {width}", x.shape());
        return Err(Error::shape("sparse_linear", message));
    }
    expect_shape("sparse_linear", "offsets", &nonzeros.offsets, &[count + 1])?;
    expect_shape("sparse_linear", "offsets", &transposed.offsets, &[width + 1])?;
    let mut out = x.device().empty("sparse linear", &with_last(x, count))?;
    match x.backend() {
        Backend::Gpu(queue) => {
            let workgroups = rows.div_ceil(16) * count.div_ceil(256);
            let params = ProductParams {
                rows: rows as u32,
                width: width as u32,
                segments: count as u32,
                has_bias: u32::from(bias.is_some()),
                workgroups: workgroups as u32,
            };
            Launch::new(&SHADER, "product", params)
                // A kernel's bindings are fixed: without a bias, something readable takes its
                // place.
                .bind(&[
                    x,
                    &nonzeros.offsets,
                    &nonzeros.indices,
                    &nonzeros.values,
                    bias.unwrap_or(&nonzeros.values),
                    &out,
                ])
                .workgroups(workgroups)
                .cost(2 * rows * nonzeros.values.len())
                .run(queue)?;
        }
        Backend::Cpu => {
            let weight = Native {
                nonzeros: HostNonzeros::new(nonzeros)?,
                transposed: HostNonzeros::new(transposed)?,
                bias: bias.map(Tensor::as_slice).transpose()?,
            };
            multiply(x.as_slice()?, width, &weight, out.as_mut_slice()?);
        }
        Backend::Meta => {}
    }
    Ok(out)
}

/// Rows of `x` that a thread takes at a time.
const ROWS: usize = 64;
/// Nonzeros whose results are gathered before they are turned back into rows of the output.
const SEGMENTS: usize = 16;

/// Entries of a block of turned rows that are read at random and shall stay in the second-level
/// cache.
const NEAR: usize = 1 << 15;

struct Native<'a> {
    nonzeros: HostNonzeros<'a>,
    transposed: HostNonzeros<'a>,
    bias: Option<&'a [f32]>,
}

struct HostNonzeros<'a> {
    offsets: &'a [u32],
    indices: &'a [u32],
    values: &'a [f32],
}

impl<'a> HostNonzeros<'a> {
    fn new(n: &'a Nonzeros) -> Result<Self> {
        Ok(Self { offsets: n.offsets.as_slice()?, indices: n.indices.as_slice()?, values: n.values.as_slice()? })
    }

    fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Indices and values of a segment.
    #[inline(always)]
    fn entries(&self, segment: usize) -> impl Iterator<Item = (&u32, &f32)> {
        let range = self.offsets[segment] as usize..self.offsets[segment + 1] as usize;
        self.indices[range.clone()].iter().zip(&self.values[range])
    }
}

fn multiply(x: &[f32], width: usize, weight: &Native, out: &mut [f32]) {
    let count = weight.nonzeros.len();
    if out.is_empty() {
        return;
    }
    let rows = out.len() / count;
    out.par_chunks_mut(ROWS * count).enumerate().for_each(|(block, out)| {
        let first = block * ROWS;
        let x = &x[first * width..rows.min(first + ROWS) * width];
        SCRATCH.with_borrow_mut(|scratch| arch().dispatch(Block { x, width, weight, out, scratch }));
    });
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A block of rows to multiply. A type of its own rather than a closure, because a closure of this
/// size is not inlined into the function that may use vectors, and then has none.
struct Block<'a> {
    x: &'a [f32],
    width: usize,
    weight: &'a Native<'a>,
    out: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl pulp::WithSimd for Block<'_> {
    type Output = ();

    /// Goes through the rows in the widest groups that they fill. A vector holds the same column of
    /// several rows, so that one weight multiplies them all. A few remaining rows are cheaper one
    /// by one than as a vector that is mostly empty.
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, simd: S) {
        let count = self.weight.nonzeros.len();
        while !self.out.is_empty() {
            let remaining = self.out.len() / count;
            match remaining / S::F32_LANES {
                4.. if 4 * S::F32_LANES * self.width <= NEAR => self.group::<S, 4>(simd),
                2.. => self.group::<S, 2>(simd),
                0 if remaining < 4 => self.row::<S>(),
                _ => self.group::<S, 1>(simd),
            }
        }
    }
}

impl<'a> Block<'a> {
    /// Takes the next `rows` rows, as many as there are: those of `x` and those of the output.
    #[inline(always)]
    fn next(&mut self, rows: usize) -> (&'a [f32], &'a mut [f32]) {
        let count = self.weight.nonzeros.len();
        let rows = rows.min(self.out.len() / count);
        let (x, x_remaining) = self.x.split_at(rows * self.width);
        let (out, out_remaining) = std::mem::take(&mut self.out).split_at_mut(rows * count);
        (self.x, self.out) = (x_remaining, out_remaining);
        (x, out)
    }

    /// The next `V` vectors' worth of rows.
    #[inline(always)]
    fn group<S: pulp::Simd, const V: usize>(&mut self, simd: S) {
        let size = V * S::F32_LANES;
        let (x, out) = self.next(size);
        let (Native { nonzeros, bias, .. }, width) = (self.weight, self.width);
        let count = nonzeros.len();
        let rows = out.len() / count;
        let (turned, results) = self.scratch.numbers((width + SEGMENTS) * size).split_at_mut(width * size);
        transpose::<S>((x, width), (turned, size), (rows, width));
        let turned = S::as_simd_f32s(turned).0.as_chunks::<V>().0;
        for first in (0..count).step_by(SEGMENTS) {
            let len = SEGMENTS.min(count - first);
            for (l, result) in results.chunks_exact_mut(size).take(len).enumerate() {
                let mut sums = [simd.splat_f32s(bias.map_or(0.0, |bias| bias[first + l])); V];
                for (&i, &value) in nonzeros.entries(first + l) {
                    let column = &turned[i as usize];
                    let value = simd.splat_f32s(value);
                    for v in 0..V {
                        sums[v] = simd.mul_add_e_f32s(value, column[v], sums[v]);
                    }
                }
                S::as_mut_simd_f32s(result).0.copy_from_slice(&sums);
            }
            transpose::<S>((results, size), (&mut out[first..], count), (len, rows));
        }
    }

    /// The next row: of its inputs only those that are not zero, each given to the outputs that
    /// read it.
    #[inline(always)]
    fn row<S: pulp::Simd>(&mut self) {
        let (x, out) = self.next(1);
        if let Some(bias) = self.weight.bias {
            out.copy_from_slice(bias)
        } else {
            out.fill(0.0)
        }
        for (i, &x) in x.iter().enumerate().filter(|(_, x)| **x != 0.0) {
            for (&o, &value) in self.weight.transposed.entries(i) {
                let y = &mut out[o as usize];
                // As vectors do it: without them there is no fused instruction either, only a slow
                // function.
                *y = if S::IS_SCALAR { value * x + *y } else { value.mul_add(x, *y) };
            }
        }
    }
}
