//! Gates at the nodes while a model runs: kept nodes pass, all others become their means (method:
//! section 4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Layout, Node, SiteBlock};
use crate::device::{Device, Tensor};
use crate::model::{Hooks, Site, first_not_finite};
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
        Ok(Self { layout, means: flat, excluded, stop: Arc::default(), tensors, device: device.clone() })
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
        Ok(Gates { nodes: self, gates, temperature })
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
        Ok(Gates { nodes: self, gates, temperature: 1.0 })
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
}
