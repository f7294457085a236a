//! A weight matrix as its nonzeros, by row (CSR) and by column (CSC), made on the device.
//!
//! The product with the input uses CSR, the product with the output's gradient CSC
//! ([`super::sparse_linear`]). Both are made again whenever the surviving weights change. Nothing
//! is read back to the host: the caller knows how many survive. Not differentiable: gradients of
//! weights are dense.

use rayon::prelude::*;

use super::elementwise::Rows;
use crate::device::cpu::vectorised;
use crate::device::{Backend, Device, Launch, Queue, Shader, Tensor, params};
use crate::{Error, Result};

params! {
    struct SegmentParams {
        segments: u32,
        length: u32,
        segment_step: u32,
        entry_step: u32,
        pieces: u32,
        segments_first: u32,
        capacity: u32,
    }
    struct ScanParams { n: u32, workgroups: u32 }
}

pub(super) const SHADER: Shader = Shader::new("compress", include_str!("../../shaders/compress.wgsl"));

/// Entries of a segment that one invocation handles, as in the shader.
const SEGMENT_PIECE: usize = 64;

/// A matrix `(out, in)` as its nonzeros, in two orders. Made by [`forward`]; what uses it trusts
/// its indices.
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

    /// By output: the inputs that each reads, ascending.
    pub fn csr(&self) -> &Nonzeros {
        &self.csr
    }

    /// By input: the outputs that read each, ascending.
    pub fn csc(&self) -> &Nonzeros {
        &self.csc
    }
}

/// Nonzeros in compressed rows (CSR) or columns (CSC): one segment for each, one after the other.
#[derive(Clone, Debug)]
pub struct Nonzeros {
    pub(super) offsets: Tensor<u32>,
    pub(super) indices: Tensor<u32>,
    pub(super) values: Tensor,
}

impl Nonzeros {
    /// `(segments + 1)`: segment `i` is `offsets[i] .. offsets[i + 1]` of the other two.
    pub fn offsets(&self) -> &Tensor<u32> {
        &self.offsets
    }

    /// `(capacity)`: which input (in CSR) or output (in CSC). Unspecified past the last segment.
    pub fn indices(&self) -> &Tensor<u32> {
        &self.indices
    }

    /// `(capacity)`: the weight. Unspecified past the last segment.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    fn empty(device: &Device, segments: usize, capacity: usize) -> Result<Self> {
        Ok(Self {
            offsets: device.empty("compressed offsets", &[segments + 1])?,
            indices: device.empty("compressed indices", &[capacity])?,
            values: device.empty("compressed values", &[capacity])?,
        })
    }

    /// The same nonzeros on `device`.
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

/// Compresses `weight: (out, in)`, which has at most `capacity` nonzeros; zeros of either sign are
/// dropped.
///
/// # Errors
/// [`Error::Shape`] if `weight` is not a matrix, and, on the CPU, if there are more nonzeros than
/// `capacity`. A GPU could not report it without a readback: it drops the last ones that do not
/// fit, in each order. [`Error::Limit`] for more entries than 32 bits can count.
pub fn forward(weight: &Tensor, capacity: usize) -> Result<SparseMatrix> {
    let &[outputs, inputs] = weight.shape() else {
        return Err(Error::shape("compress", format!("weight is {:?}, expected (out, in)", weight.shape())));
    };
    if weight.len() > u32::MAX as usize {
        return Err(Error::Limit {
            tensor: format!("a sparse matrix {:?}", weight.shape()),
            needed: (weight.len() as u64).saturating_mul(4),
            limit: "the indices of its entries have 32 bits".into(),
        });
    }
    let mut csr = Nonzeros::empty(weight.device(), outputs, capacity)?;
    let mut csc = Nonzeros::empty(weight.device(), inputs, capacity)?;
    match weight.backend() {
        _ if weight.is_empty() => {
            csr.offsets.clear()?;
            csc.offsets.clear()?;
        }
        Backend::Gpu(queue) => {
            gather_nonzeros(queue, weight, &csr, (outputs, inputs), (inputs, 1))?;
            gather_nonzeros(queue, weight, &csc, (inputs, outputs), (1, inputs))?;
        }
        Backend::Cpu => {
            native_rows(weight.as_slice()?, inputs, &mut csr)?;
            native_columns(&csr, &mut csc)?;
        }
        Backend::Meta => {}
    }
    Ok(SparseMatrix { shape: (outputs, inputs), csr, csc })
}

/// Compresses the matrix `data: (out, in)` in host memory and puts only its nonzeros on `device`.
///
/// # Errors
/// [`Error::Shape`] if `data` has not `out · in` entries; otherwise as `Device::empty`.
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
    /// Bytes of both orders together.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = |n: &Nonzeros| 4 * (n.offsets.len() + n.indices.len() + n.values.len()) as u64;
        bytes(&self.csr) + bytes(&self.csc)
    }

    /// The device that holds it.
    pub fn device(&self) -> &Device {
        self.csr.values.device()
    }

    /// The dense matrix `(out, in)`.
    ///
    /// # Errors
    /// As `Device::empty`.
    pub fn to_dense(&self) -> Result<Tensor> {
        let (outputs, inputs) = self.shape;
        let Nonzeros { offsets, indices, values } = &self.csr;
        let mut dense: Tensor = self.device().zeros("decompressed", &[outputs, inputs])?;
        match dense.backend() {
            Backend::Gpu(queue) => Launch::new(&SHADER, "decompress", Rows::of(&dense))
                .bind(&[offsets, indices, values, &dense])
                .workgroups(outputs)
                .cost(values.len())
                .run(queue)?,
            Backend::Cpu => {
                let (offsets, indices, values) = (offsets.as_slice()?, indices.as_slice()?, values.as_slice()?);
                let rows = dense.as_mut_slice()?.chunks_exact_mut(inputs.max(1));
                for (row, segment) in rows.zip(offsets.windows(2)) {
                    let segment = segment[0] as usize..segment[1] as usize;
                    for (&i, &value) in indices[segment.clone()].iter().zip(&values[segment]) {
                        row[i as usize] = value;
                    }
                }
            }
            Backend::Meta => {}
        }
        Ok(dense)
    }
}

/// Fills `nonzeros` from `weight`: `count` segments from `length` entries each, with the given
/// strides between segments and between entries of a segment.
fn gather_nonzeros(
    queue: Queue,
    weight: &Tensor,
    nonzeros: &Nonzeros,
    (count, length): (usize, usize),
    (segment_step, entry_step): (usize, usize),
) -> Result<()> {
    let pieces = length.div_ceil(SEGMENT_PIECE);
    let starts: Tensor<u32> = weight.device().empty("compressed starts", &[count * pieces + 1])?;
    let params = SegmentParams {
        segments: count as u32,
        length: length as u32,
        segment_step: segment_step as u32,
        entry_step: entry_step as u32,
        pieces: pieces as u32,
        segments_first: u32::from(segment_step == 1),
        capacity: nonzeros.values.len() as u32,
    };
    let launch = |kernel| {
        let launch = Launch::new(&SHADER, kernel, params).threads(starts.len(), 64).cost(weight.len());
        launch.bind(&[weight, &starts])
    };
    launch("count").run(queue)?;
    exclusive_sums(queue, &starts)?;
    launch("fill").bind(&[&nonzeros.offsets, &nonzeros.indices, &nonzeros.values]).run(queue)
}

/// Replaces each entry by the sum of those before it.
fn exclusive_sums(queue: Queue, sums: &Tensor<u32>) -> Result<()> {
    let blocks = sums.len().div_ceil(1024);
    let totals: Tensor<u32> = sums.device().empty("prefix totals", &[blocks])?;
    let params = ScanParams { n: sums.len() as u32, workgroups: blocks as u32 };
    let launch = |kernel| Launch::new(&SHADER, kernel, params).bind(&[sums, &totals]).cost(sums.len());
    launch("scan").workgroups(blocks).run(queue)?;
    if blocks == 1 {
        return Ok(());
    }
    exclusive_sums(queue, &totals)?;
    launch("shift").threads(sums.len(), 256).run(queue)
}

/// Which of 32 numbers are not zero, a bit each.
#[inline(always)]
fn nonzero_bits(numbers: &[f32; 32]) -> u32 {
    (0..32).zip(numbers).map(|(i, v)| u32::from(v.to_bits() << 1 != 0) << i).sum()
}

fn native_rows(weight: &[f32], inputs: usize, nonzeros: &mut Nonzeros) -> Result<()> {
    const BLOCK: usize = 16;
    let (offsets, capacity) = (nonzeros.offsets.as_mut_slice()?, nonzeros.values.len());
    offsets.fill(0);
    let counts = &mut offsets[1..];
    counts.par_chunks_mut(BLOCK).zip(weight.par_chunks(BLOCK * inputs)).for_each(|(counts, rows)| {
        vectorised!({
            for (count, row) in counts.iter_mut().zip(rows.chunks_exact(inputs)) {
                *count = row.iter().map(|v| u32::from(v.to_bits() << 1 != 0)).sum();
            }
        });
    });
    let mut total = 0;
    for offset in offsets.iter_mut() {
        total += *offset;
        *offset = total;
    }
    if total as usize > capacity {
        return Err(Error::shape("compress", format!("{total} nonzeros do not fit into a capacity of {capacity}")));
    }
    let (mut indices, mut values) = (nonzeros.indices.as_mut_slice()?, nonzeros.values.as_mut_slice()?);
    let mut blocks = Vec::new();
    for (b, rows) in weight.chunks(BLOCK * inputs).enumerate() {
        let (first, end) = (b * BLOCK, b * BLOCK + rows.len() / inputs);
        let len = (offsets[end] - offsets[first]) as usize;
        let (block_indices, other_indices) = indices.split_at_mut(len);
        let (block_values, other_values) = values.split_at_mut(len);
        (indices, values) = (other_indices, other_values);
        blocks.push((rows, block_indices, block_values));
    }
    blocks.into_par_iter().for_each(|(rows, indices, values)| vectorised!(fill_rows(rows, inputs, indices, values)));
    Ok(())
}

/// Writes the nonzeros of consecutive rows; `indices` is exactly as long as there are nonzeros.
#[inline(always)]
fn fill_rows(rows: &[f32], inputs: usize, indices: &mut [u32], values: &mut [f32]) {
    let mut slots = indices.iter_mut().zip(values);
    for row in rows.chunks_exact(inputs) {
        let (chunks, rest) = row.as_chunks::<32>();
        let mut last = [0.0; 32];
        last[..rest.len()].copy_from_slice(rest);
        for (c, chunk) in chunks.iter().chain([&last]).enumerate() {
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

/// CSC from CSR. In one thread: it touches the nonzeros only.
fn native_columns(rows: &Nonzeros, columns: &mut Nonzeros) -> Result<()> {
    let (row_offsets, row_indices, row_values) =
        (rows.offsets.as_slice()?, rows.indices.as_slice()?, rows.values.as_slice()?);
    let (offsets, indices) = (columns.offsets.as_mut_slice()?, columns.indices.as_mut_slice()?);
    let values = columns.values.as_mut_slice()?;
    let total = row_offsets.last().map_or(0, |&n| n as usize);
    offsets.fill(0);
    // Counts are shifted by one: after the prefix sum `offsets[i + 1]` is the start of segment `i`.
    // Every entry then advances it by one, so that it is the end.
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
    for (row, segment) in row_offsets.windows(2).enumerate() {
        let segment = segment[0] as usize..segment[1] as usize;
        for (&i, &value) in row_indices[segment.clone()].iter().zip(&row_values[segment]) {
            let slot = &mut offsets[i as usize + 1];
            (indices[*slot as usize], values[*slot as usize]) = (row as u32, value);
            *slot += 1;
        }
    }
    Ok(())
}
