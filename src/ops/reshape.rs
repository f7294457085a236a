//! The same numbers in another shape. Nothing is computed: both share their storage.

use crate::Result;
use crate::tape::{Tape, Var};

impl Tape {
    /// The numbers of `x` in `shape`, of equal length.
    pub fn reshape(&mut self, x: &Var, shape: &[usize]) -> Result<Var> {
        let out = x.value().reshape(shape)?;
        let before = x.value().shape().to_vec();
        self.record_one(&[x], out, move |dout, _| Ok(vec![Some(dout.reshape(&before)?)]))
    }
}
