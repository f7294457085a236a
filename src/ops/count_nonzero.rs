//! How many entries are not zero. -0.0 is zero; NaN is not.
//!
//! No gradient: it counts.

use rayon::prelude::*;

use super::abs_topk::MAGNITUDE;
use super::elementwise::Entries;
use crate::Result;
use crate::device::cpu::{rows_per_block, vectorised};
use crate::device::{Backend, Launch, Shader, Tensor};

pub(super) const SHADER: Shader = Shader::new("count_nonzero", include_str!("../../shaders/count_nonzero.wgsl"));

/// Entries that one workgroup counts: 16 an invocation, so that few workgroups meet at the one
/// result.
const BLOCK: usize = 4096;

/// The number of nonzero entries of `x`, as a tensor of shape (1).
pub fn forward(x: &Tensor) -> Result<Tensor<u32>> {
    let mut out = x.device().zeros("count_nonzero", &[1])?;
    match x.backend() {
        Backend::Gpu(queue) => Launch::new(&SHADER, "forward", Entries::of(x))
            .bind(&[x, &out])
            .threads(x.len(), BLOCK)
            .cost(x.len())
            .run(queue)?,
        Backend::Cpu => {
            out.as_mut_slice()?[0] = x.as_slice()?.par_chunks(rows_per_block(1)).map(|b| vectorised!(count(b))).sum()
        }
        Backend::Meta => {}
    }
    Ok(out)
}

#[inline(always)]
fn count(block: &[f32]) -> u32 {
    block.iter().map(|x| u32::from(x.to_bits() & MAGNITUDE != 0)).sum()
}
