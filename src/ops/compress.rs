//! A weight matrix as its nonzeros, by row (CSR) and by column (CSC), made on the device.
//!
//! The product with the input uses CSR, the product with the output's gradient CSC
//! ([`super::sparse_linear`]). Both are made again whenever the surviving weights change. Nothing
//! is read back to the host: the caller knows how many survive. Not differentiable: gradients of
//! weights are dense.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::elementwise::Rows;
use super::{pack, together};
use crate::device::cpu::arch;
use crate::device::{Backend, Device, Launch, Queue, Shader, Tensor, Together, params};
use crate::{Error, Result};

params! {
    struct ListParams {
        weight: u32,
        segments: u32,
        length: u32,
        segment_step: u32,
        entry_step: u32,
        pieces: u32,
        segments_first: u32,
        capacity: u32,
        starts: u32,
        offsets: u32,
        indices: u32,
        values: u32,
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

    /// Several, each with its segments and capacity. On a GPU one launch can fill them.
    fn empty_together(device: &Device, sizes: &[(usize, usize)]) -> Result<Vec<Self>> {
        let offsets: Vec<_> = sizes.iter().map(|(segments, _)| [segments + 1]).collect();
        let entries: Vec<_> = sizes.iter().map(|(_, capacity)| [*capacity]).collect();
        fn named<'a>(name: &'static str, shapes: &'a [[usize; 1]]) -> Vec<(&'static str, &'a [usize])> {
            shapes.iter().map(|shape| (name, &shape[..])).collect()
        }
        let offsets = device.empty_together(&named("compressed offsets", &offsets))?;
        let indices = device.empty_together(&named("compressed indices", &entries))?;
        let values = device.empty_together(&named("compressed values", &entries))?;
        let lists = offsets.into_iter().zip(indices).zip(values);
        Ok(lists.map(|((offsets, indices), values)| Self { offsets, indices, values }).collect())
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
    let made = forward_all(&[(weight, capacity)])?.into_iter().next();
    made.ok_or_else(|| Error::shape("compress", "no matrix"))
}

/// As [`forward`], each with its own capacity. On a GPU, matrices that were allocated together take
/// as many launches as one does.
///
/// # Errors
/// Those of [`forward`].
pub fn forward_all(weights: &[(&Tensor, usize)]) -> Result<Vec<SparseMatrix>> {
    for (weight, _) in weights {
        if weight.shape().len() != 2 {
            return Err(Error::shape("compress", format!("weight is {:?}, expected (out, in)", weight.shape())));
        }
        if weight.len() > u32::MAX as usize {
            return Err(Error::Limit {
                tensor: format!("a sparse matrix {:?}", weight.shape()),
                needed: (weight.len() as u64).saturating_mul(4),
                limit: "the indices of its entries have 32 bits".into(),
            });
        }
    }
    let Some(device) = weights.first().map(|(weight, _)| weight.device()) else { return Ok(Vec::new()) };
    let sizes: Vec<_> = weights
        .iter()
        .flat_map(|(weight, capacity)| {
            let (outputs, inputs) = weight.rows_cols();
            [(outputs, *capacity), (inputs, *capacity)]
        })
        .collect();
    let mut lists = Nonzeros::empty_together(device, &sizes)?.into_iter();
    let mut made = Vec::with_capacity(weights.len());
    for (weight, _) in weights {
        let (Some(mut csr), Some(mut csc)) = (lists.next(), lists.next()) else { break };
        let shape = weight.rows_cols();
        match weight.backend() {
            _ if weight.is_empty() => {
                csr.offsets.clear()?;
                csc.offsets.clear()?;
            }
            Backend::Cpu => {
                native_rows(weight.as_slice()?, shape.1, &mut csr)?;
                native_columns(&csr, &mut csc)?;
            }
            Backend::Gpu(_) | Backend::Meta => {}
        }
        made.push(SparseMatrix { shape, csr, csc });
    }
    if let Backend::Gpu(queue) = device.backend() {
        let mut lists = Vec::new();
        for ((weight, _), SparseMatrix { shape: (outputs, inputs), csr, csc }) in weights.iter().zip(&made) {
            if !weight.is_empty() {
                let (outputs, inputs) = (*outputs, *inputs);
                lists.push(List { weight, nonzeros: csr, count: outputs, length: inputs, steps: (inputs, 1) });
                lists.push(List { weight, nonzeros: csc, count: inputs, length: outputs, steps: (1, inputs) });
            }
        }
        for group in together::groups(&lists, LISTS, |list| list.weight, |list| list.items().div_ceil(64)) {
            gather_nonzeros(queue, &group)?;
        }
    }
    Ok(made)
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

/// Lists that one launch can handle, as in the shader.
const LISTS: usize = 64;

/// One order of a matrix on a GPU: `count` segments from `length` entries each, with the given
/// steps between segments and between entries of a segment.
struct List<'a> {
    weight: &'a Tensor,
    nonzeros: &'a Nonzeros,
    count: usize,
    length: usize,
    steps: (usize, usize),
}

impl List<'_> {
    fn pieces(&self) -> usize {
        self.length.div_ceil(SEGMENT_PIECE)
    }

    /// Invocations that it takes: one a piece, and one for the end.
    fn items(&self) -> usize {
        self.count * self.pieces() + 1
    }
}

/// Fills the lists of a group.
fn gather_nonzeros(queue: Queue, group: &[&List]) -> Result<()> {
    let device = group[0].weight.device();
    let items = group.iter().map(|list| list.items());
    let starts: Tensor<u32> = device.empty("compressed starts", &[items.clone().sum()])?;
    let mut first = 0;
    let rows: Vec<ListParams> = group
        .iter()
        .map(|list| {
            let row = ListParams {
                weight: list.weight.offset() as u32,
                segments: list.count as u32,
                length: list.length as u32,
                segment_step: list.steps.0 as u32,
                entry_step: list.steps.1 as u32,
                pieces: list.pieces() as u32,
                segments_first: u32::from(list.steps.0 == 1),
                capacity: list.nonzeros.values.len() as u32,
                starts: first as u32,
                offsets: list.nonzeros.offsets.offset() as u32,
                indices: list.nonzeros.indices.offset() as u32,
                values: list.nonzeros.values.offset() as u32,
            };
            first += list.items();
            row
        })
        .collect();
    let weights: Vec<_> = group.iter().map(|list| list.weight).collect();
    let cost = weights.iter().map(|weight| weight.len()).sum();
    let launch = |kernel| {
        let launch = Launch::table::<ListParams, LISTS>(&SHADER, kernel, rows.iter().copied());
        launch.threads(items.clone().max().unwrap_or_default(), 64).cost(cost).bind(&[&Together(&weights), &starts])
    };
    launch("count").run(queue)?;
    exclusive_sums(queue, &starts)?;
    let offsets: Vec<_> = group.iter().map(|list| &list.nonzeros.offsets).collect();
    let indices: Vec<_> = group.iter().map(|list| &list.nonzeros.indices).collect();
    let values: Vec<_> = group.iter().map(|list| &list.nonzeros.values).collect();
    launch("fill").bind(&[&Together(&offsets), &Together(&indices), &Together(&values)]).run(queue)
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
