//! A weight matrix as the lists of its nonzeros, by row (CSR) and by column (CSC), made on the device.
//!
//! The lists by row serve the product with the input, those by column the product with the output's gradient
//! ([`super::sparse_linear`]). They are made anew whenever the surviving weights change, so that nothing here reads back
//! to the host: the caller knows how many survive. Not differentiable: gradients of weights are dense.

use rayon::prelude::*;

use crate::device::cpu::simd;
use crate::device::{Device, Gpu, Launch, Shader, Tensor};
use crate::{Error, Result};

/// The kernels.
pub const SHADER: Shader = Shader::new("compress", include_str!("../../shaders/compress.wgsl"));

/// Entries of a list that one invocation walks, as in the shader.
const PIECE: usize = 64;

/// A matrix `(out, in)` as the lists of its nonzeros, twice over. Made by [`forward`]; what uses it trusts the lists.
#[derive(Clone, Debug)]
pub struct SparseMatrix {
    pub(super) shape: (usize, usize),
    pub(super) csr: Nonzeros,
    pub(super) csc: Nonzeros,
}

impl SparseMatrix {
    /// Rows and columns: `(out, in)`.
    pub fn shape(&self) -> (usize, usize) {
        self.shape
    }

    /// For every output the inputs it reads, ascending.
    pub fn csr(&self) -> &Nonzeros {
        &self.csr
    }

    /// For every input the outputs that read it, ascending.
    pub fn csc(&self) -> &Nonzeros {
        &self.csc
    }
}

/// Nonzeros of nonzeros, one after the other.
#[derive(Clone, Debug)]
pub struct Nonzeros {
    pub(super) offsets: Tensor<u32>,
    pub(super) indices: Tensor<u32>,
    pub(super) values: Tensor,
}

impl Nonzeros {
    /// `(lists + 1)`: list `i` takes the places `offsets[i] .. offsets[i + 1]` of the other two.
    pub fn offsets(&self) -> &Tensor<u32> {
        &self.offsets
    }

    /// `(capacity)`: which input (in lists by row) or output (by column). Unspecified past the last list.
    pub fn indices(&self) -> &Tensor<u32> {
        &self.indices
    }

    /// `(capacity)`: the weight. Unspecified past the last list.
    pub fn values(&self) -> &Tensor {
        &self.values
    }
}

impl Nonzeros {
    fn empty(device: &Device, lists: usize, capacity: usize) -> Result<Self> {
        Ok(Self {
            offsets: device.empty("compressed offsets", &[lists + 1])?,
            indices: device.empty("compressed indices", &[capacity])?,
            values: device.empty("compressed values", &[capacity])?,
        })
    }
}

impl Nonzeros {
    /// The same lists on another device, or themselves.
    fn onto(self, device: &Device) -> Result<Self> {
        if self.values.device().same(device) {
            return Ok(self);
        }
        let Self { offsets, indices, values } = self;
        Ok(Self {
            offsets: device.upload("compressed offsets", offsets.shape(), offsets.as_slice()?)?,
            indices: device.upload("compressed indices", indices.shape(), indices.as_slice()?)?,
            values: device.upload("compressed values", values.shape(), values.as_slice()?)?,
        })
    }
}

/// Compresses `weight: (out, in)`, which has at most `capacity` nonzeros; zeros of either sign are dropped.
///
/// # Errors
/// [`Error::Shape`] if `weight` is not a matrix, and, on the CPU, if there are more nonzeros than `capacity`. A GPU
/// cannot say so without a readback: it drops those that no longer fit, the last ones of each kind of list.
pub fn forward(weight: &Tensor, capacity: usize) -> Result<SparseMatrix> {
    let &[outputs, inputs] = weight.shape() else {
        return Err(Error::shape("compress", format!("weight is {:?}, expected (out, in)", weight.shape())));
    };
    if weight.len() > u32::MAX as usize {
        return Err(Error::shape("compress", format!("{:?} has more entries than a 32-bit index", weight.shape())));
    }
    let mut csr = Nonzeros::empty(weight.device(), outputs, capacity)?;
    let mut csc = Nonzeros::empty(weight.device(), inputs, capacity)?;
    match weight.gpu() {
        _ if weight.is_empty() => {
            csr.offsets.clear()?;
            csc.offsets.clear()?;
        }
        Some(gpu) => {
            list_nonzeros(gpu, weight, &csr, (outputs, inputs), (inputs, 1))?;
            list_nonzeros(gpu, weight, &csc, (inputs, outputs), (1, inputs))?;
        }
        None => {
            native_rows(weight.as_slice()?, inputs, &mut csr)?;
            native_columns(&csr, &mut csc)?;
        }
    }
    Ok(SparseMatrix { shape: (outputs, inputs), csr, csc })
}

/// Compresses the matrix `data: (out, in)`, which is in main memory, onto `device`, without ever holding it there whole.
///
/// # Errors
/// [`Error::Shape`] if `data` has not `out · in` entries; otherwise as [`Device::empty`].
pub fn from_host(device: &Device, (outputs, inputs): (usize, usize), data: &[f32]) -> Result<SparseMatrix> {
    if data.len() != outputs * inputs || data.len() > u32::MAX as usize {
        return Err(Error::shape("compress", format!("{} numbers as a matrix ({outputs}, {inputs})", data.len())));
    }
    let nonzeros = data.par_iter().filter(|v| **v != 0.0).count();
    let host = if device.is_cpu() { device.clone() } else { Device::cpu() };
    let mut csr = Nonzeros::empty(&host, outputs, nonzeros)?;
    let mut csc = Nonzeros::empty(&host, inputs, nonzeros)?;
    csr.offsets.clear()?;
    csc.offsets.clear()?;
    if !data.is_empty() {
        native_rows(data, inputs, &mut csr)?;
        native_columns(&csr, &mut csc)?;
    }
    Ok(SparseMatrix { shape: (outputs, inputs), csr: csr.onto(device)?, csc: csc.onto(device)? })
}

impl SparseMatrix {
    /// The share of entries that there is room for, of all `out · in`: the density if the capacity was exact.
    pub fn density(&self) -> f64 {
        self.csr.values.len() as f64 / (self.shape.0 * self.shape.1).max(1) as f64
    }

    /// The device that holds it.
    pub fn device(&self) -> &Device {
        self.csr.values.device()
    }

    /// The dense matrix `(out, in)` again.
    ///
    /// # Errors
    /// As [`Device::empty`].
    pub fn to_dense(&self) -> Result<Tensor> {
        let (outputs, inputs) = self.shape;
        let Nonzeros { offsets, indices, values } = &self.csr;
        let mut dense: Tensor = self.device().zeros("decompressed", &[outputs, inputs])?;
        match dense.gpu() {
            Some(gpu) => Launch::new(&SHADER, "decompress")
                .bind(offsets)
                .bind(indices)
                .bind(values)
                .bind(&dense)
                .word(outputs)
                .word(inputs)
                .word(outputs)
                .groups(outputs)
                .work(values.len())
                .run(gpu)?,
            None => {
                let (offsets, indices, values) = (offsets.as_slice()?, indices.as_slice()?, values.as_slice()?);
                let rows = dense.as_mut_slice()?.chunks_exact_mut(inputs.max(1));
                for (row, list) in rows.zip(offsets.windows(2)) {
                    let list = list[0] as usize..list[1] as usize;
                    for (&i, &value) in indices[list.clone()].iter().zip(&values[list]) {
                        row[i as usize] = value;
                    }
                }
            }
        }
        Ok(dense)
    }
}

/// Fills `lists` from `weight`: `count` lists of `length` entries, with the given distances between neighbouring lists
/// and between neighbouring entries of a list.
fn list_nonzeros(
    gpu: &Gpu,
    weight: &Tensor,
    lists: &Nonzeros,
    (count, length): (usize, usize),
    (list_step, entry_step): (usize, usize),
) -> Result<()> {
    let pieces = length.div_ceil(PIECE);
    let starts: Tensor<u32> = weight.device().empty("compressed starts", &[count * pieces + 1])?;
    let groups = starts.len().div_ceil(64);
    let launch = |entry| {
        Launch::new(&SHADER, entry)
            .word(count)
            .word(length)
            .word(list_step)
            .word(entry_step)
            .word(pieces)
            .word(usize::from(list_step == 1))
            .word(lists.values.len())
            .groups(groups)
            .work(weight.len())
            .bind(weight)
            .bind(&starts)
    };
    launch("count").run(gpu)?;
    exclusive_sums(gpu, &starts)?;
    launch("fill").bind(&lists.offsets).bind(&lists.indices).bind(&lists.values).run(gpu)
}

/// Replaces each entry by the sum of those before it.
fn exclusive_sums(gpu: &Gpu, sums: &Tensor<u32>) -> Result<()> {
    let blocks = sums.len().div_ceil(1024);
    let totals: Tensor<u32> = sums.device().empty("prefix totals", &[blocks])?;
    let launch = Launch::new(&SHADER, "scan").bind(sums).bind(&totals).word(sums.len()).word(blocks);
    launch.groups(blocks).work(sums.len()).run(gpu)?;
    if blocks == 1 {
        return Ok(());
    }
    exclusive_sums(gpu, &totals)?;
    let launch = Launch::new(&SHADER, "shift").bind(sums).bind(&totals).word(sums.len()).word(blocks);
    launch.items(sums.len(), 256).work(sums.len()).run(gpu)
}

/// Which of up to 32 numbers are not zero, a bit each.
#[inline(always)]
fn nonzero_bits(numbers: &[f32]) -> u32 {
    numbers.iter().enumerate().fold(0, |bits, (i, v)| bits | (u32::from(v.to_bits() << 1 != 0) << i))
}

fn native_rows(weight: &[f32], inputs: usize, lists: &mut Nonzeros) -> Result<()> {
    const BLOCK: usize = 16;
    let (offsets, capacity) = (lists.offsets.as_mut_slice()?, lists.values.len());
    offsets.fill(0);
    let counts = &mut offsets[1..];
    counts.par_chunks_mut(BLOCK).zip(weight.par_chunks(BLOCK * inputs)).for_each(|(counts, rows)| {
        simd(
            #[inline(always)]
            || {
                for (count, row) in counts.iter_mut().zip(rows.chunks_exact(inputs)) {
                    *count = row.iter().map(|v| u32::from(v.to_bits() << 1 != 0)).sum();
                }
            },
        );
    });
    let mut total = 0;
    for offset in offsets.iter_mut() {
        total += *offset;
        *offset = total;
    }
    if total as usize > capacity {
        return Err(Error::shape("compress", format!("{total} nonzeros do not fit into a capacity of {capacity}")));
    }
    let (mut indices, mut values) = (lists.indices.as_mut_slice()?, lists.values.as_mut_slice()?);
    let mut blocks = Vec::new();
    for (b, rows) in weight.chunks(BLOCK * inputs).enumerate() {
        let (first, end) = (b * BLOCK, b * BLOCK + rows.len() / inputs);
        let places = (offsets[end] - offsets[first]) as usize;
        let (block_indices, other_indices) = indices.split_at_mut(places);
        let (block_values, other_values) = values.split_at_mut(places);
        (indices, values) = (other_indices, other_values);
        blocks.push((rows, block_indices, block_values));
    }
    blocks.into_par_iter().for_each(|(rows, indices, values)| {
        simd(
            #[inline(always)]
            || fill_rows(rows, inputs, indices, values),
        )
    });
    Ok(())
}

/// Nonzeros the nonzeros of consecutive rows; there are exactly as many as `indices` has places.
#[inline(always)]
fn fill_rows(rows: &[f32], inputs: usize, indices: &mut [u32], values: &mut [f32]) {
    let mut slots = indices.iter_mut().zip(values);
    for row in rows.chunks_exact(inputs) {
        for (c, chunk) in row.chunks(32).enumerate() {
            let mut bits = nonzero_bits(chunk);
            while bits != 0 {
                let i = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if let Some((index, value)) = slots.next() {
                    (*index, *value) = ((c * 32 + i) as u32, chunk[i]);
                }
            }
        }
    }
}

/// The lists by column from those by row. In one thread: it touches the nonzeros only.
fn native_columns(rows: &Nonzeros, columns: &mut Nonzeros) -> Result<()> {
    let (row_offsets, row_indices, row_values) =
        (rows.offsets.as_slice()?, rows.indices.as_slice()?, rows.values.as_slice()?);
    let (offsets, indices) = (columns.offsets.as_mut_slice()?, columns.indices.as_mut_slice()?);
    let values = columns.values.as_mut_slice()?;
    let total = row_offsets.last().map_or(0, |&n| n as usize);
    offsets.fill(0);
    // Counts go one place further than their sums: after the prefix sum `offsets[i + 1]` is where list `i` starts, and
    // after every entry has moved its list's start on by one, where it ends.
    for &i in &row_indices[..total] {
        if let Some(count) = offsets.get_mut(i as usize + 2) {
            *count += 1;
        }
    }
    let mut sum = 0;
    for offset in offsets.iter_mut() {
        sum += *offset;
        *offset = sum;
    }
    for (row, list) in row_offsets.windows(2).enumerate() {
        let list = list[0] as usize..list[1] as usize;
        for (&i, &value) in row_indices[list.clone()].iter().zip(&row_values[list]) {
            let slot = &mut offsets[i as usize + 1];
            (indices[*slot as usize], values[*slot as usize]) = (row as u32, value);
            *slot += 1;
        }
    }
    Ok(())
}
