//! Tensors that were saved as lists of their nonzeros: COO, CSR and CSC.

use super::numbers::{self, EXPANDED};
use super::value::TensorRef;
use crate::files::HostTensor;

/// How many numbers a dense tensor may have for every nonzero of the file; without a limit, a file
/// of a kilobyte could fill any memory.
const PER_NONZERO: usize = 1024;

/// How the nonzeros are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SparseLayout {
    /// Coordinates, `(axes, nonzeros)`. Nonzeros with the same coordinates are added up.
    Coo,
    /// Rows one after the other: where each begins, and every nonzero's column.
    Csr,
    /// Columns one after the other: where each begins, and every nonzero's row.
    Csc,
}

/// A sparse tensor as the file describes it. Nothing here is checked against the storages until it
/// is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseRef {
    /// How the nonzeros are listed.
    pub layout: SparseLayout,
    /// The size along each axis.
    pub shape: Vec<usize>,
    /// The coordinates; of CSR and CSC, where each row or column begins, and then the positions in
    /// it.
    pub indices: Vec<TensorRef>,
    /// The nonzeros.
    pub values: TensorRef,
}

impl SparseRef {
    /// All numbers, row-major. `storage` returns a tensor's bytes.
    pub(super) fn dense<'file>(
        &self,
        storage: impl Fn(&TensorRef) -> Result<&'file [u8], String>,
    ) -> Result<HostTensor, String> {
        let Self { layout, shape, values, .. } = self;
        let lists = self.indices.iter().map(|list| numbers::integers(list, storage(list)?));
        let lists = lists.collect::<Result<Vec<_>, _>>()?;
        let values = numbers::floats(values, storage(values)?)?;
        let (&nonzeros, inside) = values.shape.split_first().ok_or("its nonzeros are one number, not a list")?;
        let most = nonzeros.saturating_mul(PER_NONZERO).max(EXPANDED);
        let count = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        let count = count
            .filter(|&count| count <= most)
            .ok_or_else(|| format!("shape {shape:?} is of more numbers than {nonzeros} nonzeros can stand for"))?;
        let offsets = match (layout, &lists[..]) {
            (SparseLayout::Coo, [coordinates]) => {
                let axes = self.indices[0].shape.first().copied().unwrap_or(0);
                coordinate_offsets(shape, (axes, nonzeros), coordinates, inside)?
            }
            (SparseLayout::Csr, [starts, columns]) => compressed_offsets(shape, nonzeros, (starts, columns), false)?,
            (SparseLayout::Csc, [starts, rows]) => compressed_offsets(shape, nonzeros, (starts, rows), true)?,
            _ => return Err("has too few or too many lists of indices".into()),
        };
        let width = if *layout == SparseLayout::Coo {
            inside.iter().fold(1usize, |n, &size| n.saturating_mul(size))
        } else {
            1
        };
        if *layout != SparseLayout::Coo && !inside.is_empty() {
            return Err(format!("its nonzeros have shape {:?}; a list was expected", values.shape));
        }
        let mut data = Vec::new();
        data.try_reserve_exact(count).map_err(|_| format!("{count} numbers, for which there is too little memory"))?;
        data.resize(count, 0.0f32);
        if width > 0 {
            for (offset, numbers) in offsets.into_iter().zip(values.data.chunks(width)) {
                let whole = data.get_mut(offset * width..(offset + 1) * width).ok_or("a nonzero lies outside")?;
                whole.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
            }
        }
        Ok(HostTensor { shape: shape.clone(), data })
    }
}

/// The offset of each nonzero, in units of the product of `inside`.
fn coordinate_offsets(
    shape: &[usize],
    (axes, nonzeros): (usize, usize),
    coordinates: &[i64],
    inside: &[usize],
) -> Result<Vec<usize>, String> {
    if axes > shape.len() || shape[axes..] != *inside || coordinates.len() != axes * nonzeros {
        return Err(format!(
            "{nonzeros} nonzeros of shape {inside:?} with {} coordinates along {axes} axes are no tensor of shape {shape:?}",
            coordinates.len()
        ));
    }
    let offset = |at: usize| {
        (0..axes).try_fold(0usize, |offset, axis| {
            let index = inside_of(coordinates[axis * nonzeros + at], shape[axis])?;
            Ok(offset * shape[axis] + index)
        })
    };
    (0..nonzeros).map(offset).collect()
}

/// The offset of each nonzero of a matrix whose rows, or `by_columns` columns, are listed one after
/// the other.
fn compressed_offsets(
    shape: &[usize],
    nonzeros: usize,
    (starts, positions): (&[i64], &[i64]),
    by_columns: bool,
) -> Result<Vec<usize>, String> {
    let &[rows, columns] = shape else {
        return Err(format!("shape {shape:?} with compressed indices; matrices are understood"));
    };
    let (lists, length) = if by_columns { (columns, rows) } else { (rows, columns) };
    if lists.checked_add(1) != Some(starts.len()) || positions.len() != nonzeros {
        let (starts, positions) = (starts.len(), positions.len());
        return Err(format!("{starts} starts and {positions} positions of {nonzeros} nonzeros do not fit {shape:?}"));
    }
    let mut offsets = Vec::with_capacity(nonzeros);
    for (list, ends) in starts.windows(2).enumerate() {
        let (begin, end) = (usize::try_from(ends[0]).ok(), usize::try_from(ends[1]).ok());
        let (Some(begin), Some(end)) = (begin, end) else { return Err("a start is negative".into()) };
        if begin != offsets.len() || end < begin || end > nonzeros {
            return Err(format!(
                "list {list} goes from {begin} to {end}: lists follow each other and hold all nonzeros"
            ));
        }
        for &position in &positions[begin..end] {
            let at = inside_of(position, length)?;
            offsets.push(if by_columns { at * columns + list } else { list * columns + at });
        }
    }
    if offsets.len() != nonzeros {
        return Err(format!("its lists hold {} of {nonzeros} nonzeros", offsets.len()));
    }
    Ok(offsets)
}

fn inside_of(index: i64, size: usize) -> Result<usize, String> {
    let inside = usize::try_from(index).ok().filter(|&index| index < size);
    inside.ok_or_else(|| format!("index {index} lies outside of an axis of {size}"))
}
