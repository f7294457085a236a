//! A weight matrix as its nonzeros, by row (CSR) and by column (CSC), made on the device.
//!
//! The product with the input uses CSR, the product with the output's gradient CSC
//! ([`super::sparse_linear`]). Both are made again whenever the surviving weights change. Nothing
//! is read back to the host: the caller knows how many survive. Not differentiable: gradients of
//! weights are dense.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::elementwise::Rows;
use super::pack;
use crate::device::cpu::arch;
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

/// Rows that a thread packs at once.
const ROWS: usize = 16;

/// CSR in one pass over the matrix.
fn native_rows(weight: &[f32], inputs: usize, nonzeros: &mut Nonzeros) -> Result<()> {
    let (offsets, capacity) = (nonzeros.offsets.as_mut_slice()?, nonzeros.values.len());
    offsets.fill(0);
    let blocks = offsets[1..].par_chunks_mut(ROWS).zip(weight.par_chunks(ROWS * inputs));
    let packed: Vec<(Vec<u32>, Vec<f32>)> = blocks.map(|(counts, rows)| pack_rows(rows, inputs, counts)).collect();
    let mut total = 0;
    for offset in offsets.iter_mut() {
        total += *offset;
        *offset = total;
    }
    if total as usize > capacity {
        return Err(Error::shape("compress", format!("{total} nonzeros do not fit into a capacity of {capacity}")));
    }
    let (mut indices, mut values) = (nonzeros.indices.as_mut_slice()?, nonzeros.values.as_mut_slice()?);
    for (block_indices, block_values) in &packed {
        indices.split_off_mut(..block_indices.len()).into_iter().for_each(|part| part.copy_from_slice(block_indices));
        values.split_off_mut(..block_values.len()).into_iter().for_each(|part| part.copy_from_slice(block_values));
    }
    Ok(())
}

/// The nonzeros of consecutive rows, and how many each has.
fn pack_rows(rows: &[f32], inputs: usize, counts: &mut [u32]) -> (Vec<u32>, Vec<f32>) {
    let (mut indices, mut values) = (Vec::new(), Vec::new());
    arch().dispatch(PackRows { rows, inputs, counts, indices: &mut indices, values: &mut values });
    (indices, values)
}

struct PackRows<'a> {
    rows: &'a [f32],
    inputs: usize,
    counts: &'a mut [u32],
    indices: &'a mut Vec<u32>,
    values: &'a mut Vec<f32>,
}

impl WithSimd for PackRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { rows, inputs, counts, indices, values } = self;
        let mut filled = 0;
        for (count, row) in counts.iter_mut().zip(rows.chunks_exact(inputs)) {
            // Most rows are shorter than the room for a full one.
            if indices.len() < filled + inputs + pack::SLACK {
                indices.resize(2 * (filled + inputs + pack::SLACK), 0);
                values.resize(indices.len(), 0.0);
            }
            let found = pack::nonzeros::<S>(row, &mut indices[filled..], &mut values[filled..]);
            *count = found as u32;
            filled += found;
        }
        indices.truncate(filled);
        values.truncate(filled);
    }
}

/// CSC from CSR. Every thread makes the segments of some columns, which it finds by bisection in
/// the rows.
fn native_columns(rows: &Nonzeros, columns: &mut Nonzeros) -> Result<()> {
    let (row_offsets, row_indices, row_values) =
        (rows.offsets.as_slice()?, rows.indices.as_slice()?, rows.values.as_slice()?);
    let (offsets, mut indices) = (columns.offsets.as_mut_slice()?, columns.indices.as_mut_slice()?);
    let mut values = columns.values.as_mut_slice()?;
    // The entries of the columns from `first` on, `count` of them, row by row.
    let entries = |first: usize, count: usize| {
        row_offsets.windows(2).enumerate().flat_map(move |(row, segment)| {
            let start = segment[0] as usize;
            let columns = &row_indices[start..segment[1] as usize];
            let at = |bound: usize| start + columns.partition_point(|&i| (i as usize) < bound);
            (at(first)..at(first + count)).map(move |entry| (row, entry))
        })
    };
    offsets.fill(0);
    let width = (offsets.len() - 1).div_ceil(rayon::current_num_threads()).max(1);
    offsets[1..].par_chunks_mut(width).enumerate().for_each(|(part, counts)| {
        let first = part * width;
        entries(first, counts.len()).for_each(|(_, entry)| counts[row_indices[entry] as usize - first] += 1);
    });
    let mut sum = 0;
    for offset in offsets.iter_mut() {
        sum += *offset;
        *offset = sum;
    }
    let mut parts = Vec::new();
    for (part, ends) in offsets[1..].chunks(width).enumerate() {
        let first = part * width;
        let starts = &offsets[first..first + ends.len()];
        let len = (offsets[first + ends.len()] - starts[0]) as usize;
        if let (Some(indices), Some(values)) = (indices.split_off_mut(..len), values.split_off_mut(..len)) {
            parts.push((first, starts, indices, values));
        }
    }
    parts.into_par_iter().for_each(|(first, starts, indices, values)| {
        let mut next: Vec<u32> = starts.iter().map(|start| start - starts[0]).collect();
        for (row, entry) in entries(first, starts.len()) {
            let slot = &mut next[row_indices[entry] as usize - first];
            (indices[*slot as usize], values[*slot as usize]) = (row as u32, row_values[entry]);
            *slot += 1;
        }
    });
    Ok(())
}
