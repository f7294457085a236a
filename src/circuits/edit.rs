//! Circuits that someone changed: with more nodes or fewer, evaluated and described anew.

use std::collections::BTreeMap;

use super::search::{CircuitSearch, SearchResult};
use super::tasks::{Split, Task};
use super::{Circuit, Counts, Node, NodeEntry};
use crate::{Error, Result};

impl Circuit {
    /// The circuit without some of its nodes, their edges and biases. What it records of the other
    /// nodes and of losses is still that of the whole circuit, until [`CircuitSearch::redescribe`].
    ///
    /// # Errors
    /// [`Error::Unknown`] naming a node that it does not have.
    pub fn without(&self, nodes: &[Node]) -> Result<Self> {
        let mut circuit = self.clone();
        for node in nodes {
            let before = circuit.nodes.len();
            circuit.nodes.retain(|entry| entry.node() != *node);
            if circuit.nodes.len() == before {
                let known = circuit.nodes.iter().map(|entry| entry.node().to_string()).collect::<Vec<_>>().join(", ");
                return Err(Error::Unknown { kind: "node of the circuit", name: node.to_string(), known });
            }
            circuit.edges.retain(|edge| edge.from != *node && edge.to != *node);
            circuit.pruned_edges.retain(|edge| edge.from != *node && edge.to != *node);
            circuit.biases.retain(|bias| bias.node != *node);
        }
        circuit.counts = Counts::of(circuit.model.n_layer, &circuit.nodes, &circuit.edges, &circuit.biases);
        Ok(circuit)
    }
}

impl Circuit {
    /// The circuit with more nodes. Their edges and biases, and all that is measured, come with
    /// [`CircuitSearch::redescribe`].
    ///
    /// # Errors
    /// [`Error::Mismatch`] naming a node that the circuit's model does not have; [`Error::Request`]
    /// naming one that the circuit has already, or that it was to do without.
    pub fn with(&self, nodes: &[Node]) -> Result<Self> {
        let mut circuit = self.clone();
        for &node in nodes {
            if !self.model.has_layer(&node) || node.index >= self.model.width(node.kind) {
                return Err(Error::Mismatch(format!("the model has no node {node}")));
            }
            if self.excluded.contains(&node) {
                let message = format!("the circuit was to do without {node}, a node of a circuit before it");
                return Err(Error::Request(message));
            }
            if circuit.nodes.iter().any(|entry| entry.node() == node) {
                return Err(Error::Request(format!("the circuit has {node} already")));
            }
            circuit.nodes.push(NodeEntry::new(node, &self.model));
        }
        circuit.version = self.version.max(Self::version_for(&circuit.nodes, &circuit.pruned_edges));
        circuit.counts = Counts::of(circuit.model.n_layer, &circuit.nodes, &circuit.edges, &circuit.biases);
        Ok(circuit.normalised())
    }
}

impl CircuitSearch<'_> {
    /// The circuit with everything measured anew: activations, edges, effects, calibration, losses.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the circuit does not fit the model, the task or the tokenizer; those
    /// of the pairs and of the forward pass.
    pub fn redescribe(&self, circuit: &Circuit, task: Option<&Task>) -> Result<Circuit> {
        let (task, result) = self.evaluated(circuit, task)?;
        let described = self.describe(&task, &result, &circuit.model.path, &circuit.model.hash)?;
        let (excluded, annotations) = (circuit.excluded.clone(), circuit.annotations.clone());
        Ok(Circuit { excluded, annotations, ..described })
    }

    /// By how much the task loss is higher without the circuit's nodes of a sublayer, `3.attn` or
    /// `3.mlp`, on the train pairs. `task` is the circuit's task, if that is not built in.
    pub(crate) fn sublayers(&self, circuit: &Circuit, task: Option<Task>) -> Result<BTreeMap<String, f64>> {
        let (task, settings) = (circuit.resolve_task(task, self.tokenizer)?, circuit.search_settings()?);
        let (_, train) = self.eval_pairs(&task, Split::Train, &settings)?;
        let (weights, layout) = (self.weights(), &self.nodes.layout);
        let search = self.pruning(&circuit.pruned_edges)?;
        let (scorer, keep) = (search.scorer(&weights, &train, &settings), circuit.keep(layout)?);
        let whole = scorer.logit_diffs(&keep)?.loss(circuit.calibration);
        let mut sublayers = BTreeMap::new();
        for layer in 0..circuit.model.n_layer {
            for part in ["attn", "mlp"] {
                let name = format!("{layer}.{part}");
                let prefix = format!("{name}.");
                let mut ablated = keep.clone();
                let within = layout.blocks().iter().filter(|block| block.site.to_string().starts_with(&prefix));
                within.for_each(|block| ablated[block.range()].fill(false));
                let loss =
                    if ablated == keep { whole } else { scorer.logit_diffs(&ablated)?.loss(circuit.calibration) };
                sublayers.insert(name, loss - whole);
            }
        }
        Ok(sublayers)
    }

    fn evaluated(&self, circuit: &Circuit, task: Option<&Task>) -> Result<(Task, SearchResult)> {
        let settings = circuit.search_settings()?;
        let task = match task {
            Some(task) => task.clone().for_tokenizer(self.tokenizer)?,
            None => circuit.resolve_task(None, self.tokenizer)?,
        };
        let layout = &self.nodes.layout;
        let keep = circuit.keep(layout)?;
        let mut scores = vec![0.0; layout.len()];
        for entry in &circuit.nodes {
            if let Some(number) = layout.number(entry.node()) {
                scores[number] = entry.tau as f32;
            }
        }
        let (_, train) = self.eval_pairs(&task, Split::Train, &settings)?;
        let pruned_edges = circuit.pruned_edges.clone();
        let result = SearchResult { settings, scores, keep, pruned_edges, ..SearchResult::default() };
        let result = self.evaluate(&task, &train, result)?;
        Ok((task, result))
    }
}
