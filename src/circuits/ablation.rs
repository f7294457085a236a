//! What nodes outside of a circuit are set to, and activations of other prompts in the place of a
//! model's own: resample ablation and interchange.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::graph::producer;
use super::tasks::TokenPair;
use super::{Edge, Layout, TaskBatch, Weighted};
use crate::files::HostTensor;
use crate::model::{Hooks, LinearLayer, Model, Recorder, Site, SiteKind};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// What nodes outside of a circuit are set to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Ablation {
    /// Their means over pretraining text: what circuits are searched with.
    #[default]
    Mean,
    /// Their means over the task's train prompts.
    TaskMean,
    /// 0.
    Zero,
    /// Their activations in a random prompt of another pair.
    Resample,
    /// Their activations in the other prompt of the pair.
    Interchange,
}

impl Ablation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Mean, Self::TaskMean, Self::Zero, Self::Resample, Self::Interchange];

    /// Its name in commands and files.
    pub fn name(self) -> &'static str {
        ["mean", "task-mean", "zero", "resample", "interchange"][self as usize]
    }
}

/// What the nodes of a batch's prompts were in a forward pass.
pub(super) struct Recording {
    /// `(B, T, width)` by site.
    values: BTreeMap<Site, HostTensor>,
    lengths: Vec<usize>,
}

impl Recording {
    /// Runs the prompts of `task_batch` with these hooks.
    pub(super) fn new(model: Weighted, layout: &Layout, task_batch: &TaskBatch, hooks: impl Hooks) -> Result<Self> {
        let mut sites = (hooks, Recorder::of(layout.blocks().iter().map(|block| block.site)));
        task_batch.logit_diffs_on_tape(model, &mut Tape::new(), &mut sites)?;
        let host = |(site, var): (Site, Var)| {
            Ok((site, HostTensor { shape: var.value().shape().to_vec(), data: var.value().read()? }))
        };
        let values = sites.1.values.into_iter().map(host).collect::<Result<_>>()?;
        Ok(Self { values, lengths: task_batch.lengths.clone() })
    }

    /// Adds the nodes' activations at all positions of all prompts to `sums`, and returns how many
    /// positions there are.
    pub(super) fn add_to(&self, layout: &Layout, sums: &mut [f64]) -> usize {
        for block in layout.blocks() {
            let Some(HostTensor { shape, data }) = self.values.get(&block.site) else { continue };
            let padded = shape.get(1).copied().unwrap_or(0);
            for (prompt, &length) in data.chunks(padded * block.width).zip(&self.lengths) {
                for row in prompt.chunks_exact(block.width).take(length) {
                    sums[block.range()].iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
                }
            }
        }
        self.lengths.iter().sum()
    }
}

/// A forward pass in which some nodes are what they were in a [`Recording`] of the same prompts,
/// each prompt's in another one. Prompts are aligned at their ends; before the start of a shorter
/// donor the nodes are at their means.
pub(super) struct Replacement<'a> {
    pub(super) layout: &'a Layout,
    /// Which nodes are replaced, by number.
    pub(super) replaced: &'a [bool],
    pub(super) recording: &'a Recording,
    /// The number of each prompt's donor.
    pub(super) donors: &'a [usize],
    /// By the nodes' numbers.
    pub(super) means: &'a [f32],
}

impl Hooks for Replacement<'_> {
    fn on_activation(&mut self, _: &mut Tape, site: Site, value: Var) -> Result<Var> {
        let block = self.layout.block(site).filter(|block| self.replaced[block.range()].contains(&true));
        let (Some(block), Some(recorded)) = (block, self.recording.values.get(&site)) else { return Ok(value) };
        let (tensor, width) = (value.value(), block.width);
        let &[_, padded, _] = tensor.shape() else { return Err(Error::shape("replacement", "not (B, T, width)")) };
        let mut values = tensor.read()?;
        let chosen: Vec<usize> = (0..width).filter(|i| self.replaced[block.start + i]).collect();
        let lengths = &self.recording.lengths;
        for (prompt, (values, &donor)) in values.chunks_mut(padded * width).zip(self.donors).enumerate() {
            for (t, row) in values.chunks_exact_mut(width).take(lengths[prompt]).enumerate() {
                match (t + lengths[donor]).checked_sub(lengths[prompt]) {
                    Some(at) => {
                        let other = &recorded.data[(donor * padded + at) * width..][..width];
                        chosen.iter().for_each(|&i| row[i] = other[i]);
                    }
                    None => chosen.iter().for_each(|&i| row[i] = self.means[block.start + i]),
                }
            }
        }
        Ok(Var::constant(tensor.device().upload("replaced activations", tensor.shape(), &values)?))
    }
}

/// Records what an edge reads: of `from`, or, for values, what attention made of them.
pub(super) struct EdgeInput<H> {
    hooks: H,
    at: (usize, LinearLayer),
    column: usize,
    values: Vec<f32>,
}

impl<H: Hooks> Hooks for EdgeInput<H> {
    fn on_start(&mut self, lengths: &[usize]) {
        self.hooks.on_start(lengths);
    }

    fn on_activation(&mut self, tape: &mut Tape, site: Site, value: Var) -> Result<Var> {
        self.hooks.on_activation(tape, site, value)
    }

    fn on_topk(&mut self, tape: &mut Tape, layer: usize, kind: SiteKind, x: &Var, k: usize) -> Result<Var> {
        self.hooks.on_topk(tape, layer, kind, x, k)
    }

    fn on_linear(&mut self, tape: &mut Tape, at: (usize, LinearLayer), input: &Var, output: Var) -> Result<Var> {
        if at == self.at {
            let width = input.value().rows_cols().1;
            self.values = input.value().read()?.into_iter().skip(self.column).step_by(width).collect();
        }
        self.hooks.on_linear(tape, at, input, output)
    }
}

/// What `edge` reads at each position `(B · T)`, where each prompt has the activations of its
/// donor, and where that has none, its own. Nothing for an edge that no weight makes.
pub(super) fn edge_inputs(
    model: Weighted,
    task_batch: &TaskBatch,
    hooks: impl Hooks,
    edge: &Edge,
    donors: &[usize],
) -> Result<Option<Vec<f32>>> {
    let Some(producer) = producer(edge.to, model.0.config.attention_width()) else { return Ok(None) };
    let at = (producer.layer, producer.linear);
    let mut input = EdgeInput { hooks, at, column: edge.from.index, values: Vec::new() };
    task_batch.logit_diffs_on_tape(model, &mut Tape::new(), &mut input)?;
    let (own, lengths) = (input.values, &task_batch.lengths);
    let padded = own.len() / lengths.len().max(1);
    let mut values = own.clone();
    for (prompt, &donor) in donors.iter().enumerate() {
        for t in 0..lengths[prompt] {
            if let Some(at) = (t + lengths[donor]).checked_sub(lengths[prompt]) {
                values[prompt * padded + t] = own[donor * padded + at];
            }
        }
    }
    Ok(Some(values))
}

/// Tokens of a batch whose activations are recorded, about: they are kept in memory.
const RECORDED: usize = 2048;

/// The pairs in parts whose activations fit in memory. Each part has two pairs at least, where there
/// are as many, so that each prompt has another pair's.
pub(super) fn parts<'a>(model: &Model, pairs: &'a [TokenPair]) -> Result<Vec<(&'a [TokenPair], TaskBatch)>> {
    let longest = pairs.iter().map(|pair| pair.clean.len().max(pair.counterfactual.len())).max().unwrap_or(1);
    let size = (RECORDED / (2 * longest).max(1)).max(2);
    // The last part may not be a single pair.
    let count = (pairs.len() / size).max(1);
    let mut parts = Vec::with_capacity(count);
    for part in 0..count {
        let pairs = &pairs[pairs.len() * part / count..pairs.len() * (part + 1) / count];
        parts.push((pairs, TaskBatch::new(model, pairs)?));
    }
    Ok(parts)
}
