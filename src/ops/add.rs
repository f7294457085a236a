//! Sums of tensors of equal shape: the residual stream's additions, and the sums of gradients.
//!
//! Gradient: both summands receive the sum's gradient unchanged.

use super::elementwise::{Entries, EntrywiseKernel};
use super::expect_same;
use crate::device::cpu::{for_row_blocks, inlined, rows_per_block};
use crate::device::{Backend, Launch, Shader, Tensor};
use crate::tape::{Accumulate, Tape, Var};
use crate::{Error, Result};

pub(super) const SHADER: Shader = Shader::new("add", include_str!("../../shaders/add.wgsl"));

/// `a + b`.
pub fn forward(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let kernel = EntrywiseKernel { shader: &SHADER, kernel: "forward", name: "add", cost: 1 };
    inlined!(kernel.apply([a, b]), |[a, b]| a + b)
}

/// `sum += a`, in place.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ; [`Error::Device`] if `sum` has clones.
pub fn accumulate(sum: &mut Tensor, a: &Tensor) -> Result<()> {
    expect_same("add", sum, a)?;
    if !sum.is_unique() {
        return Err(Error::Device("nothing can be added to a tensor that has clones".into()));
    }
    match a.backend() {
        Backend::Gpu(queue) => Launch::new(&SHADER, "accumulate", Entries::of(a))
            .bind(&[a, sum])
            .threads(a.len(), 256)
            .cost(a.len())
            .run(queue),
        Backend::Cpu => {
            let a = a.as_slice()?;
            inlined!(for_row_blocks(sum.as_mut_slice()?, 1, rows_per_block(1)), |start, block| {
                let a = &a[start..start + block.len()];
                block.iter_mut().zip(a).for_each(|(s, a)| *s += a);
            });
            Ok(())
        }
        Backend::Meta => Ok(()),
    }
}

impl Accumulate for Tensor {
    fn accumulate(mut self, other: &Self) -> Result<Self> {
        if !self.is_unique() {
            return forward(&self, other);
        }
        accumulate(&mut self, other)?;
        Ok(self)
    }
}

impl Tape {
    /// `a + b`, equal shapes.
    pub fn add(&mut self, a: &Var, b: &Var) -> Result<Var> {
        let out = forward(a.value(), b.value())?;
        self.record_one(&[a, b], out, |dout, needs| Ok(vec![needs[0].then(|| dout.clone()), needs[1].then_some(dout)]))
    }
}
