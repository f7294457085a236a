//! Which operations ran, for the way back: reverse-mode differentiation.
//!
//! A [`Var`] is a tensor and, if gradients are wanted for it, its number on the [`Tape`]. Operations on constants leave
//! no trace, so that inference holds nothing but what the caller holds. Going back, the tape consumes its steps: every
//! saved activation is freed as soon as it was used.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use crate::device::Tensor;
use crate::ops::compress::SparseMatrix;
use crate::ops::embedding::Index;
use crate::ops::{
    abs_topk, add, affine, attention, concat, cross_entropy, embedding, gate, gelu, kl, layer_norm, linear, logit_diff,
    nmse, relu, rms_norm, sparse_linear,
};
use crate::{Error, Result};

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
    pub fn needs_gradient(&self) -> bool {
        self.id.is_some()
    }
}

type Gradients = Vec<Option<Tensor>>;
type Backward = Box<dyn FnOnce(Vec<Option<Tensor>>, &[bool]) -> Result<Gradients>>;

struct Step {
    outputs: Vec<usize>,
    inputs: Vec<Option<usize>>,
    backward: Backward,
}

/// The record of a computation.
#[derive(Default)]
pub struct Tape {
    steps: Vec<Step>,
    ids: usize,
    gradients: HashMap<usize, Tensor>,
    keep: HashSet<usize>,
}

/// How a linear layer holds its matrix `(out, in)`.
#[derive(Clone)]
pub enum Weight {
    /// As it is.
    Dense(Var),
    /// As the lists of its nonzeros, which forward and input gradient use. The matrix's own gradient is dense all the
    /// same: it goes to `dense`, the same numbers, where there is one.
    Sparse {
        /// The nonzeros.
        matrix: Arc<SparseMatrix>,
        /// The matrix that is trained.
        dense: Option<Var>,
    },
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

    /// Keeps the gradient of an inner value too.
    pub fn keep_gradient(&mut self, var: &Var) {
        self.keep.extend(var.id);
    }

    /// The gradient of `var` that the way back left, if there is one. It is taken: a second call finds nothing.
    pub fn take_gradient(&mut self, var: &Var) -> Option<Tensor> {
        self.gradients.remove(&var.id?)
    }

    fn new_id(&mut self) -> usize {
        self.ids += 1;
        self.ids - 1
    }

    /// Records that `outputs` came from `inputs`. `backward` gets the gradients of the outputs (at least one is there)
    /// and which inputs want one, and returns the gradients of the inputs in order.
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
        self.steps.push(Step {
            outputs: vars.iter().filter_map(|v| v.id).collect(),
            inputs: inputs.iter().map(|v| v.id).collect(),
            backward: Box::new(backward),
        });
        vars
    }

    fn record_one(
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

    /// Walks back from `from`, whose gradient is `seed` (same shape), and leaves the gradients of leaves and kept values.
    ///
    /// # Errors
    /// Those of the operations' gradient rules.
    pub fn backward(&mut self, from: &Var, seed: Tensor) -> Result<()> {
        self.backward_from([(from.clone(), seed)])
    }

    /// As [`Tape::backward`], from several values at once.
    ///
    /// # Errors
    /// Those of the operations' gradient rules.
    pub fn backward_from(&mut self, seeds: impl IntoIterator<Item = (Var, Tensor)>) -> Result<()> {
        self.backward_while(seeds, || Ok(()))
    }

    /// As [`Tape::backward_from`], given up with the error of `check`, which is called before every operation.
    ///
    /// # Errors
    /// Those of the operations' gradient rules, and of `check`.
    pub fn backward_while(
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

    /// As [`Tape::backward`], and hands over the gradient of each of `leaves` as soon as nothing further back adds to it, with
    /// the leaf's index: those used last come first. Leaves that nothing depends on come at the end, without a gradient.
    ///
    /// # Errors
    /// Those of the operations' gradient rules, and of `done`.
    pub fn backward_to(
        &mut self,
        from: &Var,
        seed: Tensor,
        leaves: &[Option<Var>],
        mut done: impl FnMut(usize, Option<Tensor>) -> Result<()>,
    ) -> Result<()> {
        let ids = leaves.iter().enumerate().filter_map(|(leaf, var)| Some((var.as_ref()?.id?, leaf)));
        let mut waiting: HashMap<usize, usize> = ids.collect();
        let mut finished: Vec<Vec<(usize, usize)>> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let first_used = step.inputs.iter().flatten().filter_map(|id| waiting.remove_entry(id));
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

    /// Undoes the last step that is left; false if there is none.
    fn step_back(&mut self) -> Result<bool> {
        let Some(step) = self.steps.pop() else { return Ok(false) };
        let mut dout: Vec<Option<Tensor>> = Vec::with_capacity(step.outputs.len());
        for id in &step.outputs {
            dout.push(match self.keep.contains(id) {
                true => self.gradients.get(id).cloned(),
                false => self.gradients.remove(id),
            });
        }
        if dout.iter().all(Option::is_none) {
            return Ok(true);
        }
        let needs: Vec<_> = step.inputs.iter().map(Option::is_some).collect();
        let gradients = (step.backward)(dout, &needs)?;
        for (id, gradient) in step.inputs.iter().zip(gradients) {
            if let (Some(id), Some(gradient)) = (id, gradient) {
                self.add_gradient(*id, gradient)?;
            }
        }
        Ok(true)
    }

    fn add_gradient(&mut self, id: usize, gradient: Tensor) -> Result<()> {
        let total = match self.gradients.remove(&id) {
            None => gradient,
            Some(mut total) if total.is_unique() => {
                add::accumulate(&mut total, &gradient)?;
                total
            }
            Some(total) => add::forward(&total, &gradient)?,
        };
        self.gradients.insert(id, total);
        Ok(())
    }

    /// Rows of `table: (V, C)` at the indexed ids: `(n, C)`.
    pub fn embedding(&mut self, table: &Var, index: &Rc<Index>) -> Result<Var> {
        let out = embedding::forward(&table.value, index)?;
        let index = index.clone();
        self.record_one(&[table], out, move |dout, _| Ok(vec![Some(embedding::backward(&dout, &index)?)]))
    }

    /// `a + b`, equal shapes.
    pub fn add(&mut self, a: &Var, b: &Var) -> Result<Var> {
        let out = add::forward(&a.value, &b.value)?;
        self.record_one(&[a, b], out, |dout, needs| Ok(vec![needs[0].then(|| dout.clone()), needs[1].then_some(dout)]))
    }

    /// RMSNorm over the last dimension.
    pub fn rms_norm(&mut self, x: &Var, weight: &Var, eps: f32) -> Result<Var> {
        let rms_norm::Forward { y, rstd } = rms_norm::forward(&x.value, &weight.value, eps)?;
        let (xv, wv) = (x.value.clone(), weight.value.clone());
        self.record_one(&[x, weight], y, move |dout, needs| {
            Ok(vec![
                needs[0].then(|| rms_norm::backward_input(&dout, &xv, &wv, &rstd)).transpose()?,
                needs[1].then(|| rms_norm::backward_weight(&dout, &xv, &rstd)).transpose()?,
            ])
        })
    }

    /// LayerNorm over the last dimension.
    pub fn layer_norm(&mut self, x: &Var, weight: &Var, bias: Option<&Var>, eps: f32) -> Result<Var> {
        let layer_norm::Forward { y, mean, rstd } =
            layer_norm::forward(&x.value, &weight.value, bias.map(Var::value), eps)?;
        let (xv, wv) = (x.value.clone(), weight.value.clone());
        let inputs: Vec<_> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
        self.record_one(&inputs, y, move |dout, needs| {
            let mut gradients = vec![
                needs[0].then(|| layer_norm::backward_input(&dout, &xv, &wv, &mean, &rstd)).transpose()?,
                needs[1].then(|| layer_norm::backward_weight(&dout, &xv, &mean, &rstd)).transpose()?,
            ];
            if let Some(&needed) = needs.get(2) {
                gradients.push(needed.then(|| linear::backward_bias(&dout)).transpose()?);
            }
            Ok(gradients)
        })
    }

    /// `x Wᵀ + b`, with `x: (.., in)`, `W: (out, in)`, `b: (out)`.
    pub fn linear(&mut self, x: &Var, weight: &Weight, bias: Option<&Var>) -> Result<Var> {
        let b = bias.map(Var::value);
        let (out, dense) = match weight {
            Weight::Dense(dense) => (linear::forward(&x.value, &dense.value, b)?, Some(dense)),
            Weight::Sparse { matrix, dense } => (sparse_linear::forward(&x.value, matrix, b)?, dense.as_ref()),
        };
        // Only a matrix that learns needs to see its input again; a frozen model's activations are freed.
        let xv = dense.filter(|dense| dense.needs_gradient()).map(|_| x.value.clone());
        let weight = weight.clone();
        let inputs: Vec<_> = [Some(x), dense, bias].into_iter().flatten().collect();
        let (has_dense, has_bias) = (dense.is_some(), bias.is_some());
        self.record_one(&inputs, out, move |dout, needs| {
            let mut needs = needs.iter().copied();
            let mut gradients = Vec::new();
            let input = || match &weight {
                Weight::Dense(dense) => linear::backward_input(&dout, &dense.value),
                Weight::Sparse { matrix, .. } => sparse_linear::backward_input(&dout, matrix),
            };
            let mut next = || needs.next().unwrap_or(false);
            gradients.push(next().then(input).transpose()?);
            if has_dense {
                next();
                gradients.push(xv.map(|xv| linear::backward_weight(&dout, &xv)).transpose()?);
            }
            if has_bias {
                gradients.push(next().then(|| linear::backward_bias(&dout)).transpose()?);
            }
            Ok(gradients)
        })
    }

    /// Keeps the `k` entries of largest magnitude in each row.
    pub fn abs_topk(&mut self, x: &Var, k: usize) -> Result<Var> {
        let abs_topk::Forward { y, zeros } = abs_topk::forward(&x.value, k)?;
        let yv = y.clone();
        self.record_one(&[x], y, move |dout, _| Ok(vec![Some(abs_topk::backward(&dout, &yv, &zeros)?)]))
    }

    /// Causal attention of `n_head` heads; `q`, `k`, `v`: `(B, T, H·dh)`, `sink`: `(H)`.
    pub fn attention(&mut self, q: &Var, k: &Var, v: &Var, sink: Option<&Var>, n_head: usize) -> Result<Var> {
        let forward = attention::forward(&q.value, &k.value, &v.value, sink.map(Var::value), n_head)?;
        let (qv, kv, vv) = (q.value.clone(), k.value.clone(), v.value.clone());
        let sv = sink.map(|s| s.value.clone());
        let inputs: Vec<_> = [Some(q), Some(k), Some(v), sink].into_iter().flatten().collect();
        let y = forward.y.clone();
        self.record_one(&inputs, y, move |dout, needs| {
            let g = attention::backward(&dout, &qv, &kv, &vv, sv.as_ref(), &forward, n_head)?;
            let mut gradients = vec![Some(g.q), Some(g.k), Some(g.v)];
            gradients.extend((needs.len() > 3).then_some(g.sink));
            Ok(gradients)
        })
    }

    /// `scale ⊙ x + shift`; the latter two are constants.
    pub fn affine(&mut self, x: &Var, scale: Tensor, shift: &Tensor) -> Result<Var> {
        let out = affine::forward(&x.value, &scale, shift)?;
        self.record_one(&[x], out, move |dout, _| Ok(vec![Some(affine::backward(&dout, &scale)?)]))
    }

    /// Gates over channels: x where `tau ≥ 0`, `mean` elsewhere; tau learns through a sigmoid of `temperature`.
    pub fn gate(&mut self, x: &Var, tau: &Var, mean: &Tensor, temperature: f32) -> Result<Var> {
        let out = gate::forward(&x.value, &tau.value, mean)?;
        let (xv, tv, mean) = (x.value.clone(), tau.value.clone(), mean.clone());
        self.record_one(&[x, tau], out, move |dout, needs| {
            Ok(vec![
                needs[0].then(|| gate::backward_input(&dout, &tv)).transpose()?,
                needs[1].then(|| gate::backward_tau(&dout, &xv, &tv, &mean, temperature)).transpose()?,
            ])
        })
    }

    /// The differences `(B)` between the logits of two tokens.
    pub fn logit_diff(&mut self, logits: &Var, choices: &logit_diff::TokenPairs) -> Result<Var> {
        let out = logit_diff::forward(&logits.value, choices)?;
        let choices = choices.clone();
        self.record_one(&[logits], out, move |dz, _| Ok(vec![Some(logit_diff::backward(&dz, &choices)?)]))
    }

    /// Exact GELU.
    pub fn gelu(&mut self, x: &Var) -> Result<Var> {
        let xv = x.value.clone();
        let out = gelu::forward(&xv)?;
        self.record_one(&[x], out, move |dout, _| Ok(vec![Some(gelu::backward(&dout, &xv)?)]))
    }

    /// ReLU. Its output serves the gradient as well as its input, so that the input can be freed.
    pub fn relu(&mut self, x: &Var) -> Result<Var> {
        let out = relu::forward(&x.value)?;
        let y = out.clone();
        self.record_one(&[x], out, move |dout, _| Ok(vec![Some(relu::backward(&dout, &y)?)]))
    }

    /// Cuts the last dimension into parts of the given widths, which must add up to it.
    pub fn split(&mut self, x: &Var, widths: &[usize]) -> Result<Vec<Var>> {
        let Some(last) = x.value.shape().len().checked_sub(1) else {
            return Err(Error::shape("concat", "a single number cannot be split"));
        };
        let mut outputs = Vec::with_capacity(widths.len());
        let mut start = 0;
        for &width in widths {
            outputs.push(concat::narrow(&x.value, last, start, width)?);
            start += width;
        }
        if start != x.value.shape()[last] {
            return Err(Error::shape("concat", format!("parts {widths:?} of {:?}", x.value.shape())));
        }
        let shapes: Vec<_> = outputs.iter().map(|o| o.shape().to_vec()).collect();
        let device = x.value.device().clone();
        Ok(self.record(&[x], outputs, move |dout, _| {
            let parts = dout
                .into_iter()
                .zip(&shapes)
                .map(|(part, shape)| part.map_or_else(|| device.zeros("gradient", shape), Ok))
                .collect::<Result<Vec<_>>>()?;
            Ok(vec![Some(concat::forward(&parts.iter().collect::<Vec<_>>(), last)?)])
        }))
    }

    /// Joins `parts` along dimension `dim`. A part may occur repeatedly.
    pub fn concat(&mut self, parts: &[&Var], dim: usize) -> Result<Var> {
        let out = concat::forward(&parts.iter().map(|part| &part.value).collect::<Vec<_>>(), dim)?;
        let lengths: Vec<_> = parts.iter().map(|part| part.value.shape()[dim]).collect();
        self.record_one(parts, out, move |dout, needs| {
            let mut start = 0;
            let slices = lengths.iter().zip(needs).map(|(&len, &needed)| {
                start += len;
                needed.then(|| concat::narrow(&dout, dim, start - len, len)).transpose()
            });
            slices.collect()
        })
    }

    /// The same numbers in another shape.
    pub fn reshape(&mut self, x: &Var, shape: &[usize]) -> Result<Var> {
        let out = x.value.reshape(shape)?;
        let before = x.value.shape().to_vec();
        self.record_one(&[x], out, move |dout, _| Ok(vec![Some(dout.reshape(&before)?)]))
    }

    /// Mean cross-entropy over the `count` rows that have a target; `logits: (.., V)`. The result has shape `(1)`;
    /// beside it come the losses of the rows, without a gradient.
    pub fn cross_entropy(&mut self, logits: &Var, targets: &Tensor<u32>, count: usize) -> Result<(Var, Tensor)> {
        let forward = cross_entropy::forward(&logits.value, targets, count)?;
        let (loss, losses) = (forward.loss.clone(), forward.losses.clone());
        let (lv, targets) = (logits.value.clone(), targets.clone());
        let loss = self.record_one(&[logits], loss, move |dloss, _| {
            Ok(vec![Some(cross_entropy::backward(&dloss, &lv, &targets, &forward)?)])
        })?;
        Ok((loss, losses))
    }

    /// Mean divergence from the constant `target: (.., V)` of each block of `logits` with as many rows: `(n)`.
    pub fn kl(&mut self, logits: &Var, target: &Tensor) -> Result<Var> {
        let forward = kl::forward(&logits.value, target)?;
        let (loss, lv, target) = (forward.loss.clone(), logits.value.clone(), target.clone());
        self.record_one(&[logits], loss, move |dloss, _| Ok(vec![Some(kl::backward(&dloss, &lv, &target, &forward)?)]))
    }

    /// Normalised mean squared error of `x` against `target`, both `(.., C)`: `(1)`. The scale that normalises it is a constant.
    pub fn nmse(&mut self, x: &Var, target: &Var) -> Result<Var> {
        let nmse::Forward { loss, weights } = nmse::forward(&x.value, &target.value)?;
        let (xv, tv) = (x.value.clone(), target.value.clone());
        self.record_one(&[x, target], loss, move |dloss, needs| {
            Ok(vec![
                needs[0].then(|| nmse::backward(&dloss, &xv, &tv, &weights)).transpose()?,
                needs[1].then(|| nmse::backward(&dloss, &tv, &xv, &weights)).transpose()?,
            ])
        })
    }
}
