//! What a computation will allocate, found by walking through its allocations without doing it.
//!
//! [`Memory`] keeps count as a device does, recycling by the same rule; [`Tape`] frees what the backward pass no longer needs when
//! [`crate::tape::Tape`] does; [`Plan`] is [`crate::model::Pass`] without its numbers. A test compares the outcome with what devices
//! allocate: what changes in one of these changes here.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use crate::model::{Activation, Kind, ModelConfig, Parameters, ResidualActivation, SiteKind};
use crate::ops::sparse_linear;
use crate::sparsity::Schedule;

/// Numbers of four bytes that a device has allocated, those in use and those kept for reuse.
#[derive(Clone)]
pub(crate) struct Memory(Rc<RefCell<Pools>>);

#[derive(Default)]
struct Pools {
    cpu: bool,
    /// Free buffers of floats and, where they are kept apart, of words: how many of each size.
    free: [BTreeMap<u64, u64>; 2],
    allocated: u64,
}

/// A buffer on loan from its memory.
pub(crate) struct Block {
    len: u64,
    size: u64,
    pool: usize,
    home: Memory,
}

pub(crate) type Tensor = Rc<Block>;

impl Block {
    /// Numbers in it.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        *self.home.0.borrow_mut().free[self.pool].entry(self.size).or_default() += 1;
    }
}

impl Memory {
    /// That of the CPU device or of a GPU, with nothing in it.
    pub(crate) fn new(cpu: bool) -> Self {
        Self(Rc::new(RefCell::new(Pools { cpu, ..Pools::default() })))
    }

    fn is_cpu(&self) -> bool {
        self.0.borrow().cpu
    }

    /// Bytes allocated so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.borrow().allocated.saturating_mul(4)
    }

    /// A tensor of `len` floats.
    pub(crate) fn floats(&self, len: u64) -> Tensor {
        self.take(0, len)
    }

    /// A tensor of `len` words.
    pub(crate) fn words(&self, len: u64) -> Tensor {
        self.take(1, len)
    }

    fn take(&self, pool: usize, len: u64) -> Tensor {
        let mut pools = self.0.borrow_mut();
        let pool = if pools.cpu { pool } else { 0 };
        let fitting = pools.free[pool].range(len..=len.saturating_mul(2)).next().map(|(&size, _)| size);
        match fitting {
            Some(size) => {
                let count = pools.free[pool].entry(size).or_default();
                *count -= 1;
                if *count == 0 {
                    pools.free[pool].remove(&size);
                }
            }
            None => pools.allocated = pools.allocated.saturating_add(len),
        }
        Rc::new(Block { len, size: fitting.unwrap_or(len), pool, home: self.clone() })
    }
}

/// A tensor and, if gradients are wanted for it, its number on the tape.
#[derive(Clone)]
pub(crate) struct Var {
    pub(crate) tensor: Tensor,
    id: Option<usize>,
}

impl Var {
    pub(crate) fn constant(tensor: Tensor) -> Self {
        Self { tensor, id: None }
    }

    fn len(&self) -> u64 {
        self.tensor.len
    }
}

type Backward = Box<dyn FnOnce(&Memory, Vec<Option<Tensor>>, &[bool]) -> Vec<Option<Tensor>>>;

struct Step {
    outputs: Vec<usize>,
    inputs: Vec<Option<usize>>,
    backward: Backward,
}

pub(crate) struct Tape {
    memory: Memory,
    steps: Vec<Step>,
    ids: usize,
    gradients: HashMap<usize, Tensor>,
    keep: HashSet<usize>,
}

impl Tape {
    pub(crate) fn new(memory: &Memory) -> Self {
        let (gradients, keep) = Default::default();
        Self { memory: memory.clone(), steps: Vec::new(), ids: 0, gradients, keep }
    }

    pub(crate) fn leaf(&mut self, tensor: &Tensor) -> Var {
        self.ids += 1;
        self.keep.insert(self.ids);
        Var { tensor: tensor.clone(), id: Some(self.ids) }
    }

    pub(crate) fn take_gradient(&mut self, var: &Var) -> Option<Tensor> {
        self.gradients.remove(&var.id?)
    }

    fn record(
        &mut self,
        inputs: &[&Var],
        outputs: Vec<Tensor>,
        backward: impl FnOnce(&Memory, Vec<Option<Tensor>>, &[bool]) -> Vec<Option<Tensor>> + 'static,
    ) -> Vec<Var> {
        if inputs.iter().all(|var| var.id.is_none()) {
            return outputs.into_iter().map(Var::constant).collect();
        }
        let mut new = |tensor| {
            self.ids += 1;
            Var { tensor, id: Some(self.ids) }
        };
        let vars: Vec<_> = outputs.into_iter().map(&mut new).collect();
        self.steps.push(Step {
            outputs: vars.iter().filter_map(|var| var.id).collect(),
            inputs: inputs.iter().map(|var| var.id).collect(),
            backward: Box::new(backward),
        });
        vars
    }

    /// An operation of one output of `len` numbers, whose gradient needs `saved`; the inputs' gradients are made in order, each in
    /// its input's size.
    fn operation(&mut self, inputs: &[&Var], output: Tensor, saved: Vec<Tensor>) -> Var {
        let sizes: Vec<u64> = inputs.iter().map(|var| var.len()).collect();
        let mut vars = self.record(inputs, vec![output], move |memory, dout, needs| {
            let gradients = sizes.iter().zip(needs).map(|(&len, &needed)| needed.then(|| memory.floats(len))).collect();
            drop((dout, saved));
            gradients
        });
        vars.remove(0)
    }

    pub(crate) fn backward_from(&mut self, seeds: Vec<(Var, Tensor)>) {
        for (var, seed) in seeds {
            if let Some(id) = var.id {
                self.add_gradient(id, seed);
            }
        }
        while self.step_back() {}
    }

    /// Hands over each leaf's gradient once nothing adds to it.
    pub(crate) fn backward_to(
        &mut self,
        from: &Var,
        seed: Tensor,
        leaves: &[Var],
        mut done: impl FnMut(usize, Tensor),
    ) {
        let mut waiting: HashMap<usize, usize> =
            leaves.iter().enumerate().filter_map(|(leaf, var)| Some((var.id?, leaf))).collect();
        let mut finished: Vec<Vec<(usize, usize)>> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            finished.push(step.inputs.iter().flatten().filter_map(|id| waiting.remove_entry(id)).collect());
        }
        if let Some(id) = from.id {
            self.add_gradient(id, seed);
        }
        while self.step_back() {
            for (id, leaf) in finished.pop().into_iter().flatten() {
                let gradient = self.gradients.remove(&id);
                done(leaf, gradient.unwrap_or_else(|| self.memory.floats(leaves[leaf].len())));
            }
        }
        for leaf in waiting.into_values() {
            done(leaf, self.memory.floats(leaves[leaf].len()));
        }
    }

    fn step_back(&mut self) -> bool {
        let Some(step) = self.steps.pop() else { return false };
        let dout: Vec<_> = step
            .outputs
            .iter()
            .map(|id| match self.keep.contains(id) {
                true => self.gradients.get(id).cloned(),
                false => self.gradients.remove(id),
            })
            .collect();
        if dout.iter().all(Option::is_none) {
            return true;
        }
        let needs: Vec<_> = step.inputs.iter().map(Option::is_some).collect();
        let gradients = (step.backward)(&self.memory, dout, &needs);
        for (id, gradient) in step.inputs.iter().zip(gradients) {
            if let (Some(id), Some(gradient)) = (id, gradient) {
                self.add_gradient(*id, gradient);
            }
        }
        true
    }

    fn add_gradient(&mut self, id: usize, gradient: Tensor) {
        let total = match self.gradients.remove(&id) {
            None => gradient,
            Some(total) if Rc::strong_count(&total) == 1 => total,
            Some(total) => self.memory.floats(total.len),
        };
        self.gradients.insert(id, total);
    }

    fn embedding(&mut self, table: &Var, len: u64) -> Var {
        let out = self.memory.floats(len);
        self.operation(&[table], out, vec![])
    }

    fn add(&mut self, a: &Var, b: &Var) -> Var {
        let out = self.memory.floats(a.len());
        let mut vars = self.record(&[a, b], vec![out], |_, mut dout, needs| {
            let dout = dout.remove(0);
            needs.iter().map(|&needed| dout.clone().filter(|_| needed)).collect()
        });
        vars.remove(0)
    }

    fn norm(&mut self, x: &Var, weights: &[&Var], centred: bool) -> Var {
        let width = weights.first().map_or(1, |weight| weight.len()).max(1);
        let rows = x.len() / width;
        let out = self.memory.floats(x.len());
        let saved =
            vec![x.tensor.clone(), self.memory.floats(rows), self.memory.floats(if centred { rows } else { 0 })];
        let (len, inputs) = (x.len(), [&[x], weights].concat());
        let partials = rows.div_ceil(rows.div_ceil(128).max(64)).saturating_mul(width);
        let mut vars = self.record(&inputs, vec![out], move |memory, dout, needs| {
            let mut gradients = vec![needs[0].then(|| memory.floats(len))];
            for (i, needed) in needs.iter().enumerate().skip(1) {
                let partials = (i == 1 && *needed).then(|| memory.floats(partials));
                gradients.push(needed.then(|| memory.floats(width)));
                drop(partials);
            }
            drop((dout, saved));
            gradients
        });
        vars.remove(0)
    }

    pub(crate) fn linear(&mut self, x: &Var, weight: &Var, bias: Option<&Var>, len: u64) -> Var {
        let out = self.memory.floats(len);
        let saved = weight.id.map(|_| x.tensor.clone()).into_iter().collect();
        let inputs: Vec<_> = [Some(x), Some(weight), bias].into_iter().flatten().collect();
        self.operation(&inputs, out, saved)
    }

    /// Rows of `width` numbers.
    pub(crate) fn abs_topk(&mut self, x: &Var, width: u64) -> Var {
        let out = self.memory.floats(x.len());
        let zeros = self.memory.words(x.len() / width.max(1));
        self.operation(&[x], out.clone(), vec![out, zeros])
    }

    fn attention(&mut self, [q, k, v]: [&Var; 3], sink: Option<&Var>, statistics: u64) -> Var {
        let out = self.memory.floats(q.len());
        let lse = self.memory.floats(statistics);
        // By heads.
        if self.memory.is_cpu() {
            drop(self.memory.floats(q.len()));
        }
        let saved = vec![q.tensor.clone(), k.tensor.clone(), v.tensor.clone(), out.clone(), lse];
        let inputs: Vec<_> = [Some(q), Some(k), Some(v), sink].into_iter().flatten().collect();
        let sizes: Vec<_> = inputs.iter().map(|var| var.len()).collect();
        let mut vars = self.record(&inputs, vec![out], move |memory, dout, _| {
            let gradients = sizes.iter().map(|&len| Some(memory.floats(len))).collect();
            drop(memory.floats(if memory.is_cpu() { sizes[0].saturating_mul(3) } else { statistics }));
            drop((dout, saved));
            gradients
        });
        vars.remove(0)
    }

    fn gelu(&mut self, x: &Var) -> Var {
        let out = self.memory.floats(x.len());
        self.operation(&[x], out, vec![x.tensor.clone()])
    }

    fn relu(&mut self, x: &Var) -> Var {
        let out = self.memory.floats(x.len());
        self.operation(&[x], out.clone(), vec![out])
    }

    fn split(&mut self, x: &Var, len: u64, parts: usize) -> Vec<Var> {
        let outputs = (0..parts).map(|_| self.memory.floats(len)).collect();
        let total = x.len();
        self.record(&[x], outputs, move |memory, dout, _| {
            let gradient = memory.floats(total);
            drop(dout);
            vec![Some(gradient)]
        })
    }

    /// Side by side, or one after the other.
    pub(crate) fn join(&mut self, parts: &[&Var]) -> Var {
        let out = self.memory.floats(parts.iter().fold(0, |sum, part| sum.saturating_add(part.len())));
        self.operation(parts, out, vec![])
    }

    pub(crate) fn cross_entropy(&mut self, logits: &Var, rows: u64) -> Var {
        let loss = self.memory.floats(1);
        let saved = vec![logits.tensor.clone(), loss.clone(), self.memory.floats(rows), self.memory.floats(rows)];
        self.operation(&[logits], loss, saved)
    }

    pub(crate) fn kl(&mut self, logits: &Var, target: &Tensor, rows: u64, block: u64) -> Var {
        let statistics = [self.memory.floats(rows), self.memory.floats(block)];
        drop(self.memory.floats(rows));
        let loss = self.memory.floats(rows / block.max(1));
        let saved = [vec![logits.tensor.clone(), target.clone(), loss.clone()], statistics.to_vec()].concat();
        self.operation(&[logits], loss, saved)
    }

    pub(crate) fn nmse(&mut self, x: &Var, target: &Var, rows: u64) -> Var {
        drop(self.memory.floats(x.len() / rows.max(1)));
        let loss = self.memory.floats(1);
        let saved = vec![x.tensor.clone(), target.tensor.clone(), self.memory.floats(rows)];
        self.operation(&[x, target], loss, saved)
    }
}

/// A model's parameters, in order.
pub(crate) struct Weights {
    list: Vec<(String, Kind, u64)>,
    tensors: Vec<Tensor>,
}

impl Weights {
    pub(crate) fn new(memory: &Memory, config: &ModelConfig) -> Self {
        let size = |shape: &[usize]| shape.iter().fold(1u64, |product, &d| product.saturating_mul(d as u64));
        let list: Vec<_> =
            Parameters::shapes(config).into_iter().map(|(name, kind, shape)| (name, kind, size(&shape))).collect();
        let tensors = list.iter().map(|&(_, _, len)| memory.floats(len)).collect();
        Self { list, tensors }
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Tensor> {
        self.tensors.iter()
    }

    /// The sizes of those that are `trained`.
    pub(crate) fn trained(&self, trained: impl Fn(Kind) -> bool) -> Vec<u64> {
        self.list.iter().filter(|(_, kind, _)| trained(*kind)).map(|&(_, _, len)| len).collect()
    }

    pub(crate) fn vars(&self, tape: &mut Tape, trained: impl Fn(Kind) -> bool) -> Vec<Var> {
        let var = |((_, kind, _), tensor): (&(_, Kind, _), &Tensor)| match trained(*kind) {
            true => tape.leaf(tensor),
            false => Var::constant(tensor.clone()),
        };
        self.list.iter().zip(&self.tensors).map(var).collect()
    }

    /// The lists of the matrices' nonzeros, at the largest density at which products use them.
    pub(crate) fn lists(&self, memory: &Memory, config: &ModelConfig, schedule: &Schedule) -> Vec<Tensor> {
        let mut lists = Vec::new();
        for (_, kind, shape) in Parameters::shapes(config).iter().filter(|(_, kind, _)| kind.is_matrix()) {
            let &[rows, columns] = &shape[..] else { continue };
            let hidden = matches!(kind, Kind::Hidden(_));
            let target = if hidden { schedule.target_density } else { schedule.embed_target_density };
            let largest = sparse_linear::max_sparse_density(memory.is_cpu(), hidden.then_some((rows, columns)));
            if target <= largest {
                let kept = (largest * rows as f64 * columns as f64) as u64;
                for count in [rows, columns] {
                    lists.extend([memory.words(count as u64 + 1), memory.words(kept), memory.floats(kept)]);
                }
            }
        }
        lists
    }
}

/// The words of a batch: ids and positions with what gathers their gradients, and targets.
pub(crate) fn batch(memory: &Memory, config: &ModelConfig, tokens: u64) -> Vec<Tensor> {
    let sizes = [tokens, config.vocab_size as u64 + 1, tokens, tokens, config.block_size as u64 + 1, tokens, tokens];
    sizes.map(|len| memory.words(len)).into()
}

/// A forward pass under way.
pub(crate) struct Plan<'a> {
    config: &'a ModelConfig,
    names: HashMap<&'a str, usize>,
    vars: &'a [Var],
    /// Tokens of the batch.
    tokens: u64,
    positions: Option<Var>,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(config: &'a ModelConfig, weights: &'a Weights, vars: &'a [Var], tokens: u64) -> Self {
        let names = weights.list.iter().enumerate().map(|(i, (name, _, _))| (name.as_str(), i)).collect();
        Self { config, names, vars, tokens, positions: None }
    }

    fn find(&self, name: &str) -> Option<Var> {
        self.names.get(name).map(|&i| self.vars[i].clone())
    }

    fn numbers(&self, width: usize) -> u64 {
        self.tokens.saturating_mul(width as u64)
    }

    /// How many numbers of `width` there are where the stream `x` has its `d_model`.
    fn beside(&self, x: &Var, width: usize) -> u64 {
        (x.len() / (self.config.d_model as u64).max(1)).saturating_mul(width as u64)
    }

    pub(crate) fn embed(&mut self, tape: &mut Tape) -> Option<Var> {
        let wte = self.find("transformer.wte.weight")?;
        let x = tape.embedding(&wte, self.numbers(self.config.d_model));
        match self.config.d_pos_emb {
            Some(_) => Some(x),
            None => {
                let positions = self.positions(tape)?;
                Some(tape.add(&x, &positions))
            }
        }
    }

    fn positions(&mut self, tape: &mut Tape) -> Option<Var> {
        if self.positions.is_none() {
            let wpe = self.find("transformer.wpe.weight")?;
            let width = self.config.d_pos_emb.unwrap_or(self.config.d_model);
            self.positions = Some(tape.embedding(&wpe, self.numbers(width)));
        }
        self.positions.clone()
    }

    fn norm(&self, tape: &mut Tape, name: &str, x: &Var) -> Var {
        let weights = [self.find(&format!("{name}.weight")), self.find(&format!("{name}.bias"))];
        let weights: Vec<_> = weights.iter().flatten().collect();
        tape.norm(x, &weights, !self.config.rms_norm)
    }

    fn sparse(&self, tape: &mut Tape, site: SiteKind, x: Var) -> Var {
        match self.config.topk(site) {
            Some(_) => tape.abs_topk(&x, site.width(self.config) as u64),
            None => x,
        }
    }

    fn linear(&self, tape: &mut Tape, name: &str, x: &Var, len: u64) -> Option<Var> {
        let weight = self.find(&format!("{name}.weight"))?;
        Some(tape.linear(x, &weight, self.find(&format!("{name}.bias")).as_ref(), len))
    }

    /// From the residual stream's site of that number to the next one.
    pub(crate) fn sublayer(&mut self, tape: &mut Tape, number: usize, x: Var) -> Option<Var> {
        let (i, norm) = (number / 2, number % 2 + 1);
        let input = self.input(tape, i, norm, &x)?;
        let (delta, next) = match norm {
            1 => (self.attention(tape, i, &x, &input)?, SiteKind::ResidMid),
            _ => (self.mlp(tape, i, &x, &input)?, SiteKind::ResidIn),
        };
        let mut out = tape.add(&x, &delta);
        if self.config.residual_activation_type == ResidualActivation::Relu {
            out = tape.relu(&out);
        }
        Some(self.sparse(tape, next, out))
    }

    fn input(&mut self, tape: &mut Tape, i: usize, norm: usize, x: &Var) -> Option<Var> {
        let mut h = self.norm(tape, &format!("transformer.h.{i}.ln_{norm}"), x);
        if let Some(width) = self.config.d_pos_emb {
            let positions = self.positions(tape)?;
            let mut p = self.norm(tape, &format!("transformer.h.{i}.ln_p{norm}"), &positions);
            let copies = self.beside(x, width) / p.len().max(1);
            if copies > 1 {
                p = tape.join(&vec![&p; copies as usize]);
            }
            h = tape.join(&[&h, &p]);
        }
        Some(self.sparse(tape, if norm == 1 { SiteKind::AttnIn } else { SiteKind::MlpIn }, h))
    }

    fn attention(&mut self, tape: &mut Tape, i: usize, x: &Var, input: &Var) -> Option<Var> {
        let (layer, width) = (format!("transformer.h.{i}.attn"), self.config.attention_width());
        let len = self.beside(x, width);
        let qkv = self.linear(tape, &format!("{layer}.c_attn"), input, len.saturating_mul(3))?;
        let parts = tape.split(&qkv, len, 3);
        drop(qkv);
        let mut sparse = Vec::with_capacity(3);
        for (part, site) in parts.into_iter().zip([SiteKind::AttnQ, SiteKind::AttnK, SiteKind::AttnV]) {
            sparse.push(self.sparse(tape, site, part));
        }
        let sink = self.find(&format!("{layer}.attn_imp.sink_logit"));
        let statistics = self.beside(x, self.config.n_head);
        let y = tape.attention([&sparse[0], &sparse[1], &sparse[2]], sink.as_ref(), statistics);
        let out = self.linear(tape, &format!("{layer}.c_proj"), &y, x.len())?;
        Some(self.sparse(tape, SiteKind::AttnOut, out))
    }

    fn mlp(&mut self, tape: &mut Tape, i: usize, x: &Var, input: &Var) -> Option<Var> {
        let (layer, width) = (format!("transformer.h.{i}.mlp"), self.config.mlp_width());
        let h = self.linear(tape, &format!("{layer}.c_fc"), input, self.beside(x, width))?;
        let h = match self.config.activation_type {
            Activation::Gelu => tape.gelu(&h),
            Activation::Relu => tape.relu(&h),
        };
        let h = self.sparse(tape, SiteKind::MlpNeuron, h);
        let out = self.linear(tape, &format!("{layer}.c_proj"), &h, x.len())?;
        Some(self.sparse(tape, SiteKind::MlpOut, out))
    }

    /// The logits of the stream at its last site.
    pub(crate) fn unembed(&mut self, tape: &mut Tape, x: Var) -> Option<Var> {
        let len = self.beside(&x, self.config.vocab_size);
        let rows = self.find("bigram_table").map(|table| {
            let rows = tape.embedding(&table, self.numbers(self.config.vocab_size));
            let copies = len / rows.len().max(1);
            if copies > 1 { tape.join(&vec![&rows; copies as usize]) } else { rows }
        });
        let x = self.norm(tape, "transformer.ln_f", &x);
        let head = if self.config.tied_unembed { "transformer.wte.weight" } else { "lm_head.weight" };
        let logits = tape.linear(&x, &self.find(head)?, self.find("final_logits_bias").as_ref(), len);
        Some(match rows {
            Some(rows) => tape.add(&logits, &rows),
            None => logits,
        })
    }

    /// The logits.
    pub(crate) fn logits(&mut self, tape: &mut Tape) -> Option<Var> {
        let mut x = self.embed(tape)?;
        for number in 0..2 * self.config.n_layer {
            x = self.sublayer(tape, number, x)?;
        }
        self.unembed(tape, x)
    }

    /// The stream at every site, and the logits.
    pub(crate) fn run(&mut self, tape: &mut Tape) -> Option<(Vec<Var>, Var)> {
        let mut x = self.embed(tape)?;
        let mut sites = vec![x.clone()];
        for number in 0..2 * self.config.n_layer {
            x = self.sublayer(tape, number, x)?;
            sites.push(x.clone());
        }
        Some((sites, self.unembed(tape, x)?))
    }
}
