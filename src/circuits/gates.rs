//! Gates at the nodes while a model runs: kept nodes pass, all others become their means (method:
//! section 4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::graph::ConstantEdge;
use super::{Layout, Node, PrunedEdge, SiteBlock};
use crate::device::{Device, Tensor};
use crate::model::{Hooks, LinearLayer, Model, Site, first_not_finite};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// The nodes of a model with their mean activations, ready to be gated. Holds no copy of the model.
#[derive(Clone)]
pub struct Nodes {
    /// The nodes' numbering.
    pub layout: Layout,
    /// Their mean activations, by number.
    pub means: Vec<f32>,
    /// Nodes that are never kept, by number: none at first. A circuit found without the nodes of
    /// another one shares none with it.
    pub excluded: Vec<bool>,
    /// Once set, the next forward pass with gates returns [`Error::Stopped`].
    pub stop: Arc<AtomicBool>,
    /// Edges that carry constants wherever both of their nodes are kept.
    pub(super) pruned: Vec<ConstantEdge>,
    tensors: Vec<Tensor>,
    device: Device,
}

impl Nodes {
    /// `means`: for every site with nodes, the mean of each of its channels.
    ///
    /// # Errors
    /// [`Error::Mismatch`] naming a site whose means are missing, of another width or not finite.
    pub fn new(layout: Layout, means: &BTreeMap<Site, Vec<f32>>, device: &Device) -> Result<Self> {
        let (mut flat, mut tensors) = (Vec::with_capacity(layout.len()), Vec::new());
        for SiteBlock { site, width, .. } in layout.blocks() {
            let Some(mean) = means.get(site).filter(|mean| mean.len() == *width) else {
                return Err(Error::Mismatch(format!("the mean activations of {site} ({width}) are missing")));
            };
            if let Some((index, value)) = first_not_finite(mean) {
                return Err(Error::Mismatch(format!("the mean activation of {site}[{index}] is {value}")));
            }
            tensors.push(device.upload("means", &[*width], mean)?);
            flat.extend_from_slice(mean);
        }
        let excluded = vec![false; flat.len()];
        Ok(Self {
            layout,
            means: flat,
            excluded,
            stop: Arc::default(),
            pruned: Vec::new(),
            tensors,
            device: device.clone(),
        })
    }

    /// [Excludes](Nodes::excluded) those of `nodes` that the model has.
    pub fn exclude(&mut self, nodes: &[Node]) {
        for number in nodes.iter().filter_map(|&node| self.layout.number(node)) {
            self.excluded[number] = true;
        }
    }

    /// The same nodes, those in `keep` [excluded](Nodes::excluded).
    pub fn excluding(&self, keep: &[bool]) -> Self {
        let excluded = self.excluded.iter().zip(keep).map(|(excluded, kept)| *excluded || *kept).collect();
        Self { excluded, ..self.clone() }
    }

    /// Lets `edges` carry their constants wherever both of their nodes are kept, with the weights of
    /// `model`; edges that it does not have are left out.
    ///
    /// # Errors
    /// Those of the device.
    pub fn prune_edges(&mut self, model: &Model, edges: &[PrunedEdge]) -> Result<()> {
        self.pruned = ConstantEdge::of(model, &self.layout, edges)?;
        Ok(())
    }

    /// Gates that learn: node n is kept where `tau[n] ≥ 0`. Their gradients are in
    /// [`Gates::gradient`] after the backward pass.
    pub(crate) fn learn(&self, tape: &mut Tape, tau: &[f32], temperature: f32) -> Result<Gates<'_>> {
        self.check_stop()?;
        let mut gates = Vec::with_capacity(self.tensors.len());
        let tau: Vec<f32> =
            tau.iter().zip(&self.excluded).map(|(&tau, excluded)| if *excluded { -1.0 } else { tau }).collect();
        for block in self.layout.blocks() {
            gates.push(Some(tape.leaf(self.device.upload("tau", &[block.width], &tau[block.range()])?)));
        }
        Ok(Gates { nodes: self, gates, pruned: Vec::new(), temperature })
    }

    /// Gates that keep some nodes and put all others at their means.
    ///
    /// # Errors
    /// Those of the device, and [`Error::Stopped`].
    pub fn keep(&self, keep: &[bool]) -> Result<Gates<'_>> {
        self.check_stop()?;
        let mut gates = Vec::with_capacity(self.tensors.len());
        for block in self.layout.blocks() {
            let kept: Vec<bool> = block.range().map(|n| keep[n] && !self.excluded[n]).collect();
            gates.push(match kept.iter().all(|kept| *kept) {
                true => None,
                false => {
                    let tau: Vec<f32> = kept.iter().map(|kept| if *kept { 1.0 } else { -1.0 }).collect();
                    Some(Var::constant(self.device.upload("tau", &[block.width], &tau)?))
                }
            });
        }
        let pruned = self.pruned.iter().filter(|edge| edge.joins(keep)).collect();
        Ok(Gates { nodes: self, gates, pruned, temperature: 1.0 })
    }

    /// Gates that keep all nodes, but for [excluded](Nodes::excluded) ones, and prune edges among
    /// those in `circuit`.
    ///
    /// # Errors
    /// Those of [`Nodes::keep`].
    pub(super) fn keep_all(&self, circuit: &[bool]) -> Result<Gates<'_>> {
        let all = self.keep(&vec![true; self.layout.len()])?;
        let pruned = all.pruned.into_iter().filter(|edge| edge.joins(circuit)).collect();
        Ok(Gates { pruned, ..all })
    }

    fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
    }
}

/// Gates of one forward pass.
pub struct Gates<'a> {
    nodes: &'a Nodes,
    /// For each block its taus; nothing where all nodes are kept.
    gates: Vec<Option<Var>>,
    pruned: Vec<&'a ConstantEdge>,
    temperature: f32,
}

impl Gates<'_> {
    /// The gradient of every tau, by the nodes' numbers. It can be taken once.
    pub(crate) fn gradient(&self, tape: &mut Tape) -> Result<Vec<f32>> {
        let mut gradient = vec![0.0; self.nodes.layout.len()];
        for (block, tau) in self.nodes.layout.blocks().iter().zip(&self.gates) {
            if let Some(part) = tau.as_ref().and_then(|tau| tape.take_gradient(tau)) {
                gradient[block.range()].copy_from_slice(&part.read()?);
            }
        }
        Ok(gradient)
    }
}

impl Hooks for Gates<'_> {
    fn on_activation(&mut self, tape: &mut Tape, site: Site, value: Var) -> Result<Var> {
        let block = self.nodes.layout.blocks().iter().position(|block| block.site == site);
        match block.and_then(|at| Some((self.gates[at].as_ref()?, &self.nodes.tensors[at]))) {
            Some((tau, mean)) => tape.gate(&value, tau, mean, self.temperature),
            None => Ok(value),
        }
    }

    /// What edges carry goes through the host, without gradients.
    fn on_linear(&mut self, _: &mut Tape, at: (usize, LinearLayer), input: &Var, output: Var) -> Result<Var> {
        if self.pruned.iter().all(|edge| edge.at != at) {
            return Ok(output);
        }
        let (x, mut y) = (input.value().read()?, output.value().read()?);
        let (inputs, outputs) = (input.value().rows_cols().1, output.value().rows_cols().1);
        for edge in self.pruned.iter().filter(|edge| edge.at == at) {
            let carried = x.iter().skip(edge.column).step_by(inputs);
            for (y, own) in y.iter_mut().skip(edge.row).step_by(outputs).zip(carried) {
                *y += edge.weight * (edge.value - own);
            }
        }
        let device = output.value().device();
        Ok(Var::constant(device.upload("pruned edges", output.value().shape(), &y)?))
    }
}
