//! Dense linear maps: `y = x Wᵀ + b` with `x: (N, in)`, `W: (out, in)`, `b: (out)`, `y: (N, out)`.
//!
//! Gradients, for `dy: (N, out)`: `dx = dy W`, `dW = dyᵀ x`, `db = Σ_n dy_n`. All three products
//! are the one matrix product below, reading its factors through strides.
//!
//! On the CPU a product skips the zeros of a factor that is mostly zeros, as AbsTopK leaves them
//! (method: section 2): `x` and `dy` where the weight is large, either factor of `dW`. Zero times
//! infinity is zero there.
//!
//! Every result is the same bits for the same inputs on the same machine, whatever the number of
//! threads: on the CPU the inner dimension is cut by cache sizes and shapes alone and each entry is
//! summed by one thread in one order, on the GPU in an order that depends on the shapes alone, and
//! partial products are added in order.

mod zeros;

pub(crate) use zeros::SKIP_ZEROS;
pub(super) use zeros::skips_zero_activations;

use std::sync::Arc;

use super::{expect_shape, sparse_linear};
use crate::device::cpu::{for_row_blocks, inlined, rows_per_block};
use crate::device::{Backend, Gpu, Launch, Queue, Shader, Tensor, params};
use crate::ops::compress::SparseMatrix;
use crate::tape::{Tape, Var};
use crate::{Error, Result};
use gemm_common::Parallelism;

params! {
    struct ProductParams {
        m: u32,
        n: u32,
        k: u32,
        a_row: u32,
        a_col: u32,
        b_row: u32,
        b_col: u32,
        has_bias: u32,
        share: u32,
        workgroups: u32,
    }
    struct SumParams { rows: u32, cols: u32, workgroups: u32 }
}

/// Dense products and column sums; public for tests of the WGSL that comes of it.
pub const SHADER: Shader = Shader::new("linear", include_str!("../../shaders/linear.wgsl"));

/// Rows that one partial column sum covers, as in the shader.
const CHUNK: usize = 64;
/// With fewer tiles of the middle shape than this, a product is also cut along its inner dimension
/// to occupy the GPU. The same cut whatever the shape: with it, the order of the additions is the
/// same.
const SPLIT_K_BELOW_TILES: usize = 128;

/// What one workgroup computes of a product, see the shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tile {
    /// 32 × 32 entries.
    Small,
    /// 64 × 64 entries.
    Middle,
    /// 128 × 128 entries.
    Large,
}

impl Tile {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Small, Self::Middle, Self::Large];

    /// Rows and columns.
    pub fn shape(self) -> (usize, usize) {
        match self {
            Self::Small => (32, 32),
            Self::Middle => (64, 64),
            Self::Large => (128, 128),
        }
    }

    /// What makes the shader compute it.
    pub fn constants(self) -> [(&'static str, u32); 2] {
        let (side, each) = match self {
            Self::Small => (8, 4),
            Self::Middle => (16, 4),
            Self::Large => (16, 8),
        };
        [("SIDE", side), ("EACH", each)]
    }

    /// How many cover an output of `m` rows and `n` columns.
    fn count(self, m: usize, n: usize) -> usize {
        let (rows, columns) = self.shape();
        m.div_ceil(rows) * n.div_ceil(columns)
    }
}

/// Outputs for which different tiles may be best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputShape {
    /// At most half of a middle tile in one direction, of which the other half would be idle.
    Thin,
    /// Too few middle tiles to keep a GPU busy.
    Small,
    /// All larger ones.
    Large,
}

impl OutputShape {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Thin, Self::Small, Self::Large];

    /// The kind of an output of `m` rows and `n` columns.
    fn of(m: usize, n: usize) -> Self {
        match m.min(n) {
            ..=32 => Self::Thin,
            _ if Tile::Middle.count(m, n) < SPLIT_K_BELOW_TILES => Self::Small,
            _ => Self::Large,
        }
    }

    /// What [`Gpu::tuned`] knows it by.
    fn name(self) -> &'static str {
        match self {
            Self::Thin => "linear thin",
            Self::Small => "linear small",
            Self::Large => "linear large",
        }
    }

    /// What is right for GPUs of which nothing more is known.
    fn portable(self) -> Tile {
        match self {
            Self::Thin => Tile::Small,
            Self::Small | Self::Large => Tile::Middle,
        }
    }
}

/// Adapters, by a part of their name, that measurements have shown to do better with other tiles
/// for some outputs.
const TILE_OVERRIDES: &[(&str, OutputShape, Tile)] =
    &[("llvmpipe", OutputShape::Small, Tile::Large), ("llvmpipe", OutputShape::Large, Tile::Large)];

/// The tile for such an output: the one set on this GPU, or found by an earlier `gossamer bench
/// --autotune`, or known from measurements, or else a portable one.
///
/// # Errors
/// [`Error::Device`] if another thread failed while using the GPU.
pub fn tile(gpu: &Gpu, output: OutputShape) -> Result<Tile> {
    if let Some(&tile) = gpu.tuned(output.name())?.and_then(|chosen| Tile::ALL.get(chosen as usize)) {
        return Ok(tile);
    }
    let known = TILE_OVERRIDES.iter().find(|(name, of, _)| *of == output && gpu.info().name.contains(name));
    Ok(known.map_or(output.portable(), |(_, _, tile)| *tile))
}

/// Sets the tile for such outputs, on this GPU until it is closed. Results differ at most in the
/// last bits, where a driver contracts multiplications and additions in one shape and not in
/// another.
///
/// # Errors
/// As [`tile`].
pub fn set_tile(gpu: &Gpu, output: OutputShape, tile: Tile) -> Result<()> {
    gpu.set_tuned(output.name(), tile as u32)
}

/// `x Wᵀ + b`: `x: (.., in)`, `weight: (out, in)`, `bias: (out)`, result `(.., out)`.
pub fn forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let ((n, inputs), (outputs, columns)) = (x.rows_cols(), matrix(weight)?);
    if inputs != columns {
        return Err(misfit("x", x, "weight", weight));
    }
    if let Some(bias) = bias {
        expect_shape("linear", "bias", bias, &[outputs])?;
    }
    let (x_factor, weight_factor) = (Factor(x, (inputs, 1)), Factor(weight, (1, inputs)));
    product(&with_last(x, outputs), (n, outputs, inputs), x_factor, weight_factor, bias)
}

/// The gradient of `x`: `dout W`, with `dout: (.., out)`, `weight: (out, in)`, result `(.., in)`.
pub fn backward_input(dout: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let ((n, outputs), (rows, inputs)) = (dout.rows_cols(), matrix(weight)?);
    if outputs != rows {
        return Err(misfit("dout", dout, "weight", weight));
    }
    let (dout, weight) = (Factor(dout, (outputs, 1)), Factor(weight, (inputs, 1)));
    product(&with_last(dout.0, inputs), (n, inputs, outputs), dout, weight, None)
}

/// The gradient of the weight: `doutᵀ x`, with `dout: (.., out)`, `x: (.., in)`, result `(out,
/// in)`.
///
/// # Errors
/// [`Error::Shape`] if `dout` and `x` have not the same rows.
pub fn backward_weight(dout: &Tensor, x: &Tensor) -> Result<Tensor> {
    let ((n, outputs), (rows, inputs)) = (dout.rows_cols(), x.rows_cols());
    if n != rows {
        return Err(misfit("dout", dout, "x", x));
    }
    let (sizes, strides) = ((outputs, inputs, n), [(1, outputs), (inputs, 1)]);
    if !dout.device().is_cpu() {
        return product(&[outputs, inputs], sizes, Factor(dout, strides[0]), Factor(x, strides[1]), None);
    }
    let mut gradient = dout.device().empty("linear weight gradient", &[outputs, inputs])?;
    if matches!(dout.backend(), Backend::Meta) {
        zeros::rehearse_weight_gradient(n, inputs, dout.device())?;
        return Ok(gradient);
    }
    if zeros::weight_gradient(dout, x, &mut gradient)? {
        return Ok(gradient);
    }
    matmul(gradient.as_mut_slice()?, sizes, dout.as_slice()?, strides[0], x.as_slice()?, strides[1], false)?;
    Ok(gradient)
}

/// The gradient of the bias: the column sums of `dout: (.., out)`, result `(out)`.
pub fn backward_bias(dout: &Tensor) -> Result<Tensor> {
    let (n, outputs) = dout.rows_cols();
    let mut sum = dout.device().empty("linear bias gradient", &[outputs])?;
    match dout.backend() {
        Backend::Gpu(queue) => column_sums(queue, dout, n, &sum)?,
        Backend::Cpu => native_column_sums(dout.as_slice()?, outputs, sum.as_mut_slice()?),
        Backend::Meta => {}
    }
    Ok(sum)
}

/// A matrix factor: the tensor, and how far apart neighbours are along its rows' and its columns'
/// index.
struct Factor<'a>(&'a Tensor, (usize, usize));

/// `a b + bias` as a tensor of `shape`; `a: (m, k)`, `b: (k, n)`, `bias: (n)`.
fn product(
    shape: &[usize],
    (m, n, k): (usize, usize, usize),
    a: Factor,
    b: Factor,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let mut out = a.0.device().empty("linear", shape)?;
    match a.0.backend() {
        Backend::Gpu(queue) => gpu_product(queue, &out, (m, n, k), a, b, bias)?,
        Backend::Cpu => {
            if let Some(bias) = bias {
                let bias = bias.as_slice()?;
                inlined!(for_row_blocks(out.as_mut_slice()?, n, rows_per_block(n)), |_, rows| rows
                    .chunks_exact_mut(n)
                    .for_each(|row| row.copy_from_slice(bias)));
            }
            if !zeros::product(&mut out, (m, n, k), &a, &b, bias.is_some())? {
                matmul(out.as_mut_slice()?, (m, n, k), a.0.as_slice()?, a.1, b.0.as_slice()?, b.1, bias.is_some())?;
            }
        }
        Backend::Meta => zeros::rehearse_product((m, n, k), a.0.device())?,
    }
    Ok(out)
}

fn gpu_product(
    queue: Queue,
    out: &Tensor,
    (m, n, k): (usize, usize, usize),
    a: Factor,
    b: Factor,
    bias: Option<&Tensor>,
) -> Result<()> {
    let splits = (SPLIT_K_BELOW_TILES / Tile::Middle.count(m, n).max(1)).min(k / 256).max(1);
    let shape = OutputShape::of(m, n);
    let tile = queue.gpu().map_or(Ok(shape.portable()), |gpu| tile(gpu, shape))?;
    let workgroups = tile.count(m, n) * splits;
    let partial = match splits {
        1 => None,
        _ => Some(out.device().empty("linear partial products", &[splits, m, n])?),
    };
    let params = ProductParams {
        m: m as u32,
        n: n as u32,
        k: k as u32,
        a_row: a.1.0 as u32,
        a_col: a.1.1 as u32,
        b_row: b.1.0 as u32,
        b_col: b.1.1 as u32,
        has_bias: u32::from(bias.is_some()),
        share: k.div_ceil(splits) as u32,
        workgroups: workgroups as u32,
    };
    tile.constants()
        .into_iter()
        .fold(Launch::new(&SHADER, "product", params), |launch, (name, value)| launch.constant(name, value))
        // A kernel's bindings are fixed: without a bias, something readable takes its place.
        .bind(&[a.0, b.0, bias.unwrap_or(b.0), partial.as_ref().unwrap_or(out)])
        .workgroups(workgroups)
        .cost(m.saturating_mul(n).saturating_mul(2 * k))
        .run(queue)?;
    match partial {
        Some(partial) => column_sums(queue, &partial.reshape(&[splits, m * n])?, splits, out),
        None => Ok(()),
    }
}

/// `sum = Σ_r x_r` for `x: (rows, sum.len())`, by partial sums of up to [`CHUNK`] rows until one
/// row remains.
fn column_sums(queue: Queue, x: &Tensor, rows: usize, sum: &Tensor) -> Result<()> {
    let cols = sum.len();
    let chunks = rows.div_ceil(CHUNK);
    let partial = match chunks {
        0 | 1 => None,
        _ => Some(x.device().empty("linear partial sums", &[chunks, cols])?),
    };
    let workgroups = chunks.max(1) * cols.div_ceil(64);
    Launch::new(
        &SHADER,
        "column_sums",
        SumParams { rows: rows as u32, cols: cols as u32, workgroups: workgroups as u32 },
    )
    .bind(&[x, partial.as_ref().unwrap_or(sum)])
    .workgroups(workgroups)
    .cost(rows * cols)
    .run(queue)?;
    if let Some(partial) = partial { column_sums(queue, &partial, chunks, sum) } else { Ok(()) }
}

fn native_column_sums(x: &[f32], cols: usize, sum: &mut [f32]) {
    let rows = x.len() / cols.max(1);
    let mut partial = vec![0.0f32; rows.div_ceil(CHUNK) * cols];
    inlined!(for_row_blocks(&mut partial, cols, 1), |chunk, total| {
        let end = rows.min((chunk + 1) * CHUNK);
        for row in x[chunk * CHUNK * cols..end * cols].chunks_exact(cols) {
            total.iter_mut().zip(row).for_each(|(t, v)| *t += v);
        }
    });
    sum.fill(0.0);
    for chunk in partial.chunks_exact(cols.max(1)) {
        sum.iter_mut().zip(chunk).for_each(|(s, v)| *s += v);
    }
}

/// `out = a b`, or `out += a b`: `out: (m, n)` row-major, `a: (m, k)` and `b: (k, n)` with the
/// given distances between neighbouring rows and columns.
fn matmul(
    out: &mut [f32],
    (m, n, k): (usize, usize, usize),
    a: &[f32],
    a_strides: (usize, usize),
    b: &[f32],
    b_strides: (usize, usize),
    accumulate: bool,
) -> Result<()> {
    let fits = |len: usize, rows: usize, cols: usize, (down, right): (usize, usize)| {
        if rows == 0 || cols == 0 {
            return true;
        }
        let last = (rows - 1).checked_mul(down).zip((cols - 1).checked_mul(right)).and_then(|(d, r)| d.checked_add(r));
        last.is_some_and(|last| last < len)
    };
    if !fits(out.len(), m, n, (n, 1)) || !fits(a.len(), m, k, a_strides) || !fits(b.len(), k, n, b_strides) {
        let message = format!("({m}, {k}) by ({k}, {n}) in slices of {} and {}", a.len(), b.len());
        return Err(Error::shape("linear", message));
    }
    // A slice has at most isize::MAX bytes and the strides lie within it, unless there is no second
    // row or column to step to; then their value is irrelevant.
    let step = |stride: usize| isize::try_from(stride).unwrap_or(0);
    // Of each matrix the strides between columns and between rows.
    let a = (a.as_ptr(), step(a_strides.1), step(a_strides.0));
    let b = (b.as_ptr(), step(b_strides.1), step(b_strides.0));
    let transposed = |(data, columns, rows)| (data, rows, columns);
    // The kernels prefer a result whose columns are contiguous: outᵀ = bᵀ aᵀ.
    let ((m, n), (columns, rows), lhs, rhs) =
        if n > 1 { ((n, m), (step(n), 1), transposed(b), transposed(a)) } else { ((m, n), (1, step(n)), a, b) };
    let multiply = gemm_f32::gemm::f32::get_gemm_fn();
    let (out, threads) = (out.as_mut_ptr(), Parallelism::Rayon(0));
    // SAFETY: `fits` has shown that every entry (i, j) of each matrix, i * down + j * right at most
    // `last`, lies within its slice; `out` is borrowed exclusively, so that it overlaps neither
    // factor; all entries are initialised.
    unsafe {
        multiply(
            m, n, k, out, columns, rows, accumulate, lhs.0, lhs.1, lhs.2, rhs.0, rhs.1, rhs.2, 1.0, 1.0, false, false,
            false, threads,
        );
    }
    Ok(())
}

fn matrix(weight: &Tensor) -> Result<(usize, usize)> {
    match *weight.shape() {
        [rows, cols] => Ok((rows, cols)),
        _ => Err(Error::shape("linear", format!("weight is {:?}, expected (out, in)", weight.shape()))),
    }
}

fn misfit(a_name: &str, a: &Tensor, b_name: &str, b: &Tensor) -> Error {
    Error::shape("linear", format!("{a_name} {:?} does not fit {b_name} {:?}", a.shape(), b.shape()))
}

/// The shape of `x` with another last dimension.
pub(super) fn with_last(x: &Tensor, last: usize) -> Vec<usize> {
    let mut shape = x.shape().to_vec();
    shape.pop();
    shape.push(last);
    shape
}

/// How a linear layer holds its matrix `(out, in)`.
#[derive(Clone)]
pub(crate) enum Weight {
    /// Dense.
    Dense(Var),
    /// As its nonzeros, which the forward pass and the gradient of the input use. The gradient of
    /// the matrix is dense; it goes to `dense`, the same numbers, where there is one.
    Sparse {
        /// The nonzeros.
        matrix: Arc<SparseMatrix>,
        /// The matrix that is trained.
        dense: Option<Var>,
    },
}

impl Tape {
    /// `x Wᵀ + b`, with `x: (.., in)`, `W: (out, in)`, `b: (out)`. Saves `x` if the matrix is
    /// trained.
    pub(crate) fn linear(&mut self, x: &Var, weight: &Weight, bias: Option<&Var>) -> Result<Var> {
        let b = bias.map(Var::value);
        let (out, dense) = match weight {
            Weight::Dense(dense) => (forward(x.value(), dense.value(), b)?, Some(dense)),
            Weight::Sparse { matrix, dense } => (sparse_linear::forward(x.value(), matrix, b)?, dense.as_ref()),
        };
        let xv = dense.filter(|dense| dense.needs_gradient()).map(|_| x.value().clone());
        let weight = weight.clone();
        let inputs: Vec<_> = [Some(x), dense, bias].into_iter().flatten().collect();
        let (has_dense, has_bias) = (dense.is_some(), bias.is_some());
        let (needs_dx, needs_db) = (x.needs_gradient(), bias.is_some_and(Var::needs_gradient));
        self.record_one(&inputs, out, move |dout, _| {
            let input = || match &weight {
                Weight::Dense(dense) => backward_input(&dout, dense.value()),
                Weight::Sparse { matrix, .. } => sparse_linear::backward_input(&dout, matrix),
            };
            let dx = needs_dx.then(input).transpose()?;
            let dw = xv.map(|xv| backward_weight(&dout, &xv)).transpose()?;
            let db = needs_db.then(|| backward_bias(&dout)).transpose()?;
            // One for each of `inputs`, whether or not it needs a gradient.
            Ok([Some(dx), has_dense.then_some(dw), has_bias.then_some(db)].into_iter().flatten().collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::matmul;

    #[test]
    fn products_through_strides() {
        // a = [1 2 3; 4 5 6] held transposed, b = [1 0; 0 1; 2 2] row-major.
        let (a, b) = ([1.0, 4.0, 2.0, 5.0, 3.0, 6.0], [1.0, 0.0, 0.0, 1.0, 2.0, 2.0]);
        let mut out = [0.0; 4];
        matmul(&mut out, (2, 2, 3), &a, (1, 2), &b, (2, 1), false).unwrap();
        assert_eq!(out, [7.0, 8.0, 16.0, 17.0]);
        matmul(&mut out, (2, 2, 3), &a, (1, 2), &b, (2, 1), true).unwrap();
        assert_eq!(out, [14.0, 16.0, 32.0, 34.0]);
        matmul(&mut out, (2, 2, 0), &[], (1, 2), &[], (2, 1), false).unwrap();
        assert_eq!(out, [0.0; 4]);
    }

    #[test]
    fn a_matrix_past_its_slice_is_refused() {
        let (six, five) = ([1.0; 6], [1.0; 5]);
        let mut out = [0.0; 4];
        assert!(matmul(&mut out[..3], (2, 2, 3), &six, (3, 1), &six, (2, 1), false).is_err());
        assert!(matmul(&mut out, (2, 2, 3), &five, (3, 1), &six, (2, 1), false).is_err());
        assert!(matmul(&mut out, (2, 2, 3), &six, (1, 2), &five, (2, 1), false).is_err());
        assert!(matmul(&mut out, (2, 2, 3), &six, (usize::MAX, 1), &six, (2, 1), false).is_err());
        assert!(matmul(&mut out, (2, 2, 3), &six, (usize::MAX, usize::MAX), &six, (2, 1), false).is_err());
        assert_eq!(out, [0.0; 4], "nothing was written");
    }
}
