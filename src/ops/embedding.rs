//! Rows of a table, picked by id: token embeddings, positions, and the bigram table.
//!
//! Gradient: row `v` of the table receives the sum of `dy` over the positions where `id = v`, in
//! ascending order. The inverse index that lists those positions is made on the host together with
//! the ids, so that the scatter needs no atomics and always gives the same bits.

use std::rc::Rc;

use super::elementwise::Rows;
use super::expect_shape;
use crate::device::cpu::{for_row_blocks, inlined, rows_per_block};
use crate::device::{Backend, Device, Launch, Shader, Tensor};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

pub(super) const SHADER: Shader = Shader::new("embedding", include_str!("../../shaders/embedding.wgsl"));

/// Ids on a device, each below the vocabulary's size, with the positions of every id.
#[derive(Clone, Debug)]
pub struct Index {
    vocab: usize,
    /// `(n)`
    ids: Tensor<u32>,
    /// `(vocab + 1)`: the positions of id `v` are `order[offsets[v]..offsets[v + 1]]`.
    offsets: Tensor<u32>,
    /// `(n)`
    order: Tensor<u32>,
}

impl Index {
    /// Uploads `ids`.
    ///
    /// # Errors
    /// [`Error::Shape`] if an id is not below `vocab`; otherwise as `Device::empty`.
    pub fn new(device: &Device, ids: &[u32], vocab: usize) -> Result<Self> {
        let mut offsets = vec![0u32; vocab + 1];
        for (position, &id) in ids.iter().enumerate() {
            match offsets.get_mut(id as usize + 1) {
                Some(count) => *count += 1,
                None => {
                    let message = format!("id {id} at position {position} is not below the vocabulary's {vocab}");
                    return Err(Error::shape("embedding", message));
                }
            }
        }
        for v in 0..vocab {
            offsets[v + 1] += offsets[v];
        }
        let (mut next, mut order) = (offsets.clone(), vec![0u32; ids.len()]);
        for (position, &id) in ids.iter().enumerate() {
            let slot = &mut next[id as usize];
            order[*slot as usize] = position as u32;
            *slot += 1;
        }
        Ok(Self {
            vocab,
            ids: device.upload("embedding ids", &[ids.len()], ids)?,
            offsets: device.upload("embedding offsets", &[vocab + 1], &offsets)?,
            order: device.upload("embedding order", &[ids.len()], &order)?,
        })
    }

    /// The ids, `(n)`.
    pub fn ids(&self) -> &Tensor<u32> {
        &self.ids
    }

    /// How many ids there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no ids.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// How many rows the table has.
    pub fn vocab(&self) -> usize {
        self.vocab
    }
}

/// The rows `(n, C)` of `table: (V, C)` that `index` names.
///
/// # Errors
/// [`Error::Shape`] if the table's rows are not the index's vocabulary.
pub fn forward(table: &Tensor, index: &Index) -> Result<Tensor> {
    let width = table.rows_cols().1;
    expect_shape("embedding", "table", table, &[index.vocab, width])?;
    let mut out = table.device().empty("embedding", &[index.len(), width])?;
    match table.backend() {
        Backend::Gpu(queue) => Launch::new(&SHADER, "forward", Rows::of(&out))
            .bind(&[table, &index.ids, &out])
            .threads(out.len(), 256)
            .cost(out.len())
            .run(queue)?,
        Backend::Cpu => {
            let (table, ids) = (table.as_slice()?, index.ids.as_slice()?);
            inlined!(for_row_blocks(out.as_mut_slice()?, width, rows_per_block(width)), |start, block| {
                for (row, &id) in block.chunks_exact_mut(width).zip(&ids[start..]) {
                    row.copy_from_slice(&table[id as usize * width..][..width]);
                }
            });
        }
        Backend::Meta => {}
    }
    Ok(out)
}

/// The gradient `(V, C)` of the table for `dout: (n, C)`; rows that no id named are zero.
///
/// # Errors
/// [`Error::Shape`] if `dout` has not a row for each id.
pub fn backward(dout: &Tensor, index: &Index) -> Result<Tensor> {
    let width = dout.rows_cols().1;
    expect_shape("embedding", "dout", dout, &[index.len(), width])?;
    let mut dtable = dout.device().empty("embedding gradient", &[index.vocab, width])?;
    match dout.backend() {
        Backend::Gpu(queue) => Launch::new(&SHADER, "backward", Rows::of(&dtable))
            .bind(&[dout, &index.offsets, &index.order, &dtable])
            .threads(dtable.len(), 256)
            .cost(dtable.len() + dout.len())
            .run(queue)?,
        Backend::Cpu => {
            let (dout, offsets, order) = (dout.as_slice()?, index.offsets.as_slice()?, index.order.as_slice()?);
            inlined!(for_row_blocks(dtable.as_mut_slice()?, width, rows_per_block(4 * width)), |start, block| {
                for (row, span) in block.chunks_exact_mut(width).zip(offsets[start..].windows(2)) {
                    sum_positions(row, &order[span[0] as usize..span[1] as usize], dout);
                }
            });
        }
        Backend::Meta => {}
    }
    Ok(dtable)
}

/// `row` = the sum of `dout`'s rows at `positions`.
#[inline(always)]
fn sum_positions(row: &mut [f32], positions: &[u32], dout: &[f32]) {
    let width = row.len();
    let at = |position: u32| &dout[position as usize * width..][..width];
    let Some((&first, rest)) = positions.split_first() else {
        row.fill(0.0);
        return;
    };
    row.copy_from_slice(at(first));
    for &position in rest {
        row.iter_mut().zip(at(position)).for_each(|(r, d)| *r += d);
    }
}

impl Tape {
    /// Rows of `table: (V, C)` at the indexed ids: `(n, C)`. Saves the index.
    pub fn embedding(&mut self, table: &Var, index: &Rc<Index>) -> Result<Var> {
        let out = forward(table.value(), index)?;
        let index = index.clone();
        self.record_one(&[table], out, move |dout, _| Ok(vec![Some(backward(&dout, &index)?)]))
    }
}
