//! Reverse-mode differentiation: which operations ran, and the backward pass through them.
//!
//! A [`Var`] is a tensor and, if it needs a gradient, its number on the [`Tape`]. Operations on
//! constants are not recorded, so that inference keeps no activations. The backward pass consumes
//! the recorded operations, and frees what each saved as soon as its gradient is done. Each
//! operation adds its own method to [`Tape`], in its file in [`crate::ops`].

use std::collections::{HashMap, HashSet};

use crate::device::Tensor;
use crate::{Error, Result};

/// Gradients of one value, summed.
pub(crate) trait Accumulate: Sized {
    /// The sum, in place where nothing else reads `self`.
    fn accumulate(self, other: &Self) -> Result<Self>;
}

/// A value in a computation. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Var {
    value: Tensor,
    id: Option<usize>,
}

impl Var {
    /// A value that needs no gradient.
    pub fn constant(value: Tensor) -> Self {
        Self { value, id: None }
    }

    /// The numbers.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Whether gradients flow to it.
    pub(crate) fn needs_gradient(&self) -> bool {
        self.id.is_some()
    }
}

type Gradients = Vec<Option<Tensor>>;
type Backward = Box<dyn FnOnce(Vec<Option<Tensor>>, &[bool]) -> Result<Gradients>>;

struct Operation {
    outputs: Vec<usize>,
    inputs: Vec<Option<usize>>,
    backward: Backward,
}

/// The record of a computation. Its methods return the errors of the operations and of their gradient
/// rules.
#[derive(Default)]
pub struct Tape {
    operations: Vec<Operation>,
    ids: usize,
    gradients: HashMap<usize, Tensor>,
    keep: HashSet<usize>,
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value whose gradient [`Tape::take_gradient`] will hold after [`Tape::backward`].
    pub fn leaf(&mut self, value: Tensor) -> Var {
        let id = self.new_id();
        self.keep.insert(id);
        Var { value, id: Some(id) }
    }

    /// Keeps the gradient of a value that is not a leaf, too.
    pub(crate) fn keep_gradient(&mut self, var: &Var) {
        self.keep.extend(var.id);
    }

    /// Takes the gradient of `var` that the backward pass computed, if there is one: a second call
    /// returns nothing.
    pub fn take_gradient(&mut self, var: &Var) -> Option<Tensor> {
        self.gradients.remove(&var.id?)
    }

    fn new_id(&mut self) -> usize {
        self.ids += 1;
        self.ids - 1
    }

    /// Records that `outputs` were computed from `inputs`. `backward` gets the gradients of the
    /// outputs (of at least one) and which inputs need one, and returns the gradients of the inputs
    /// in order.
    pub fn record(
        &mut self,
        inputs: &[&Var],
        outputs: Vec<Tensor>,
        backward: impl FnOnce(Vec<Option<Tensor>>, &[bool]) -> Result<Gradients> + 'static,
    ) -> Vec<Var> {
        if inputs.iter().all(|v| v.id.is_none()) {
            return outputs.into_iter().map(Var::constant).collect();
        }
        let vars: Vec<_> = outputs.into_iter().map(|value| Var { value, id: Some(self.new_id()) }).collect();
        self.operations.push(Operation {
            outputs: vars.iter().filter_map(|v| v.id).collect(),
            inputs: inputs.iter().map(|v| v.id).collect(),
            backward: Box::new(backward),
        });
        vars
    }

    /// As [`Tape::record`], for an operation of one output.
    pub(crate) fn record_one(
        &mut self,
        inputs: &[&Var],
        output: Tensor,
        backward: impl FnOnce(Tensor, &[bool]) -> Result<Gradients> + 'static,
    ) -> Result<Var> {
        let backward = |mut dout: Vec<Option<Tensor>>, needs: &[bool]| match dout.pop().flatten() {
            Some(dout) => backward(dout, needs),
            None => Ok(vec![None; needs.len()]),
        };
        let mut vars = self.record(inputs, vec![output], backward);
        vars.pop().ok_or_else(|| Error::Device("an operation without an output".into()))
    }

    /// Computes the gradients of leaves and kept values, given that of `from`: `seed`, of the same
    /// shape.
    pub fn backward(&mut self, from: &Var, seed: Tensor) -> Result<()> {
        self.backward_from([(from.clone(), seed)])
    }

    /// As [`Tape::backward`], from several values at once.
    pub(crate) fn backward_from(&mut self, seeds: impl IntoIterator<Item = (Var, Tensor)>) -> Result<()> {
        self.backward_while(seeds, || Ok(()))
    }

    /// As [`Tape::backward_from`], with a call of `check` before every operation; its first error
    /// ends the pass.
    pub(crate) fn backward_while(
        &mut self,
        seeds: impl IntoIterator<Item = (Var, Tensor)>,
        check: impl Fn() -> Result<()>,
    ) -> Result<()> {
        for (var, seed) in seeds {
            if let Some(id) = var.id {
                self.add_gradient(id, seed)?;
            }
        }
        check()?;
        while self.step_back()? {
            check()?;
        }
        Ok(())
    }

    /// As [`Tape::backward`], and calls `done` with the index and the gradient of each of `leaves`
    /// as soon as the gradient is complete: those used last come first. Leaves that nothing depends
    /// on come at the end, without a gradient.
    pub(crate) fn backward_to(
        &mut self,
        from: &Var,
        seed: Tensor,
        leaves: &[Option<Var>],
        mut done: impl FnMut(usize, Option<Tensor>) -> Result<()>,
    ) -> Result<()> {
        let ids = leaves.iter().enumerate().filter_map(|(leaf, var)| Some((var.as_ref()?.id?, leaf)));
        let mut waiting: HashMap<usize, usize> = ids.collect();
        let mut finished: Vec<Vec<(usize, usize)>> = Vec::with_capacity(self.operations.len());
        for operation in &self.operations {
            let first_used = operation.inputs.iter().flatten().filter_map(|id| waiting.remove_entry(id));
            finished.push(first_used.collect());
        }
        if let Some(id) = from.id {
            self.add_gradient(id, seed)?;
        }
        while self.step_back()? {
            for (id, leaf) in finished.pop().into_iter().flatten() {
                done(leaf, self.gradients.remove(&id))?;
            }
        }
        let mut unused: Vec<_> = waiting.into_iter().map(|(id, leaf)| (leaf, id)).collect();
        unused.sort_unstable();
        unused.into_iter().try_for_each(|(leaf, id)| done(leaf, self.gradients.remove(&id)))
    }

    /// Goes back through the last of the remaining operations; false if there is none.
    fn step_back(&mut self) -> Result<bool> {
        let Some(operation) = self.operations.pop() else { return Ok(false) };
        let mut dout: Vec<Option<Tensor>> = Vec::with_capacity(operation.outputs.len());
        for id in &operation.outputs {
            let kept = self.keep.contains(id);
            dout.push(if kept { self.gradients.get(id).cloned() } else { self.gradients.remove(id) });
        }
        if dout.iter().all(Option::is_none) {
            return Ok(true);
        }
        let needs: Vec<_> = operation.inputs.iter().map(Option::is_some).collect();
        let gradients = (operation.backward)(dout, &needs)?;
        for (id, gradient) in operation.inputs.iter().zip(gradients) {
            if let (Some(id), Some(gradient)) = (id, gradient) {
                self.add_gradient(*id, gradient)?;
            }
        }
        Ok(true)
    }

    fn add_gradient(&mut self, id: usize, gradient: Tensor) -> Result<()> {
        let total = if let Some(total) = self.gradients.remove(&id) { total.accumulate(&gradient)? } else { gradient };
        self.gradients.insert(id, total);
        Ok(())
    }
}
