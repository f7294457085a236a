//! What operations that go through tensors entry by entry share.

use super::expect_same;
use crate::Result;
use crate::device::cpu::{for_row_blocks, inlined, rows_per_block};
use crate::device::{Backend, Launch, Shader, Tensor, params};

params! {
    /// Of a kernel that handles one of `n` entries in each thread.
    struct Entries { n: u32 }
    /// Of a kernel that handles one entry of `rows` of `width` in each thread, or one row in each
    /// workgroup.
    struct Rows { rows: u32, width: u32 }
}

impl Entries {
    pub(super) fn of(x: &Tensor) -> Self {
        Self { n: x.len() as u32 }
    }
}

impl Rows {
    pub(super) fn of(x: &Tensor) -> Self {
        let (rows, width) = x.rows_cols();
        Self { rows: rows as u32, width: width as u32 }
    }
}

/// A kernel of one entry a thread, with the same computation for the CPU.
pub(super) struct EntrywiseKernel {
    pub(super) shader: &'static Shader,
    pub(super) kernel: &'static str,
    /// What to call the result.
    pub(super) name: &'static str,
    /// Arithmetic operations an entry, roughly: it bounds how many launches a GPU gets at once.
    pub(super) cost: usize,
}

impl EntrywiseKernel {
    /// `f` of the entries of `inputs`, which have equal shapes. `f` must be `#[inline(always)]`.
    #[inline(always)]
    pub(super) fn apply<const N: usize>(
        self,
        inputs: [&Tensor; N],
        f: impl Fn([f32; N]) -> f32 + Sync,
    ) -> Result<Tensor> {
        let x = inputs[0];
        inputs[1..].iter().try_for_each(|other| expect_same(self.shader.name, x, other))?;
        let mut out = x.device().empty(self.name, x.shape())?;
        match x.backend() {
            Backend::Gpu(queue) => Launch::new(self.shader, self.kernel, Entries::of(x))
                .bind_all(inputs)
                .bind(&[&out])
                .threads(x.len(), 256)
                .cost(x.len().saturating_mul(self.cost))
                .run(queue)?,
            Backend::Cpu => {
                let mut slices = [&[][..]; N];
                for (slice, input) in slices.iter_mut().zip(inputs) {
                    *slice = input.as_slice()?;
                }
                inlined!(for_row_blocks(out.as_mut_slice()?, 1, rows_per_block(1)), |start, block| {
                    let n = block.len();
                    let slices = slices.map(|slice| &slice[start..][..n]);
                    for i in 0..n {
                        let mut entries = [0.0; N];
                        for k in 0..N {
                            entries[k] = slices[k][i];
                        }
                        block[i] = f(entries);
                    }
                });
            }
            Backend::Meta => {}
        }
        Ok(out)
    }
}
