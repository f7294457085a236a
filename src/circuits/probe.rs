//! Single prompts, run through a model, a circuit alone and its complement, with edits of any node.

use std::collections::BTreeMap;

use super::{Circuit, Nodes};
use crate::files::HostTensor;
use crate::model::{Batch, Edit, Hooks, Interventions, Model, QueryPositions, Recorder, Site, Weights, probabilities};
use crate::tape::{Tape, Var};
use crate::{Error, Result};

/// A model with a circuit in it, ready for prompts.
pub struct Probe<'a> {
    model: &'a Model,
    weights: Weights,
    nodes: Nodes,
    keep: Vec<bool>,
    means: BTreeMap<Site, Vec<f32>>,
}

/// The probabilities of the next token by id, uncalibrated.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Of the whole model.
    pub model: Vec<f64>,
    /// Of the circuit alone: every other node is mean-ablated.
    pub circuit: Vec<f64>,
    /// Of the complement, without the circuit's nodes. Nodes that the circuit was not allowed to
    /// keep are ablated in both.
    pub complement: Vec<f64>,
    /// The activations in the whole model, `(1, T, width)` each, by site.
    pub sites: BTreeMap<Site, HostTensor>,
}

impl<'a> Probe<'a> {
    /// `means`: the mean activations of every channel that is a node, by site.
    ///
    /// # Errors
    /// [`Error::OtherModel`] if the circuit is a part of another model, [`Error::Mismatch`] if the
    /// model lacks a node of the circuit, or `means` the mean of a node; otherwise the device's.
    pub fn new(model: &'a Model, circuit: &Circuit, means: BTreeMap<Site, Vec<f32>>) -> Result<Self> {
        circuit.check_part_of(model)?;
        let layout = circuit.layout(&model.config);
        let keep = circuit.keep(&layout)?;
        let mut nodes = Nodes::new(layout, &means, &model.device)?;
        nodes.exclude(&circuit.excluded);
        nodes.prune_edges(model, &circuit.pruned_edges)?;
        Ok(Self { model, weights: Weights::constant(model, &[]), nodes, keep, means })
    }

    /// Runs a prompt. `edits` hold in the whole model and, over the gates, in the circuit and its
    /// complement. `=mean` is the mean of a node; there is nothing to `=patch` from.
    ///
    /// # Errors
    /// [`Error::Config`] for an edit that cannot be made, [`Error::Shape`] for a prompt that the
    /// model cannot read, [`Error::NonFiniteSite`] where a number is not finite; otherwise the
    /// device's.
    pub fn run(&self, prompt: &[u32], edits: &[Edit]) -> Result<Response> {
        self.run_at(prompt, edits, prompt.len().saturating_sub(1))
    }

    /// The same, with the probabilities of the token after position `at` of the prompt. Edits hold at
    /// the whole prompt's positions.
    ///
    /// # Errors
    /// Those of [`Probe::run`]; [`Error::Shape`] for a position that the prompt does not have.
    pub fn run_at(&self, prompt: &[u32], edits: &[Edit], at: usize) -> Result<Response> {
        let config = &self.model.config;
        let mut edits = Interventions::new(config, edits, self.means.clone(), BTreeMap::new())?;
        let batch = Batch::new(&self.model.device, config, prompt, 1)?;
        let positions = QueryPositions::new(&self.model.device, &batch, &[at])?;
        let run = |sites: &mut dyn Hooks| {
            let logits =
                self.model.forward_at(&mut Tape::new(), &self.weights, &batch, &positions, sites)?.value().read()?;
            self.model.check_finite("logits", &logits, &self.weights, &batch, sites)?;
            Ok::<_, Error>(probabilities(&logits))
        };
        let mut recorder = Recorder::default();
        let model = run(&mut (&mut edits, &mut recorder))?;
        let complement: Vec<bool> = self.keep.iter().map(|kept| !kept).collect();
        let circuit = run(&mut (self.nodes.keep(&self.keep)?, &mut edits))?;
        let complement = run(&mut (self.nodes.keep(&complement)?, &mut edits))?;
        let mut host = |(site, var): (Site, Var)| {
            let data = var.value().read()?;
            self.model.check_finite(site, &data, &self.weights, &batch, &mut edits)?;
            Ok((site, HostTensor { shape: var.value().shape().to_vec(), data }))
        };
        let sites = recorder.values.into_iter().map(&mut host).collect::<Result<_>>()?;
        Ok(Response { model, circuit, complement, sites })
    }
}
