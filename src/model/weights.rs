//! A model's parameters as a forward pass takes them.

use std::sync::Arc;

use super::{Kind, Model, ParameterValue};
use crate::ops::compress::SparseMatrix;
use crate::tape::{Tape, Var};

/// A model's parameters as values on a tape, in the order of [`super::Parameters`].
pub struct Weights {
    pub(super) dense: Vec<Option<Var>>,
    pub(super) sparse: Vec<Option<Arc<SparseMatrix>>>,
}

impl Weights {
    /// Parameters for which `trained` returns true get gradients, if they are held dense.
    /// `compressed` holds, per parameter, its nonzeros where linear layers shall use them; it may
    /// be empty.
    pub fn new(
        model: &Model,
        tape: &mut Tape,
        trained: impl Fn(Kind) -> bool,
        compressed: &[Option<Arc<SparseMatrix>>],
    ) -> Self {
        let mut lists = compressed.to_vec();
        lists.resize(model.parameters.len(), None);
        let mut dense = Vec::with_capacity(lists.len());
        for (p, lists) in model.parameters.iter().zip(&mut lists) {
            dense.push(match &p.value {
                ParameterValue::Dense(value) if trained(p.kind) => Some(tape.leaf(value.clone())),
                ParameterValue::Dense(value) => Some(Var::constant(value.clone())),
                ParameterValue::Sparse(held) => {
                    *lists = Some(held.clone());
                    None
                }
            });
        }
        Self { dense, sparse: lists }
    }

    /// All parameters as constants: for inference.
    pub fn constant(model: &Model, compressed: &[Option<Arc<SparseMatrix>>]) -> Self {
        Self::new(model, &mut Tape::new(), |_| false, compressed)
    }

    /// The parameters' values on the tape, in order; nothing for those that are held compressed.
    pub fn vars(&self) -> &[Option<Var>] {
        &self.dense
    }
}
