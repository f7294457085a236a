//! Circuits that someone changed: without some nodes, evaluated and described anew.

use std::collections::BTreeMap;

use super::search::{CircuitSearch, SearchResult};
use super::tasks::{Split, Task};
use super::{Circuit, Counts, Losses, Node};
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
            circuit.biases.retain(|bias| bias.node != *node);
        }
        circuit.counts = Counts::of(circuit.model.n_layer, &circuit.nodes, &circuit.edges, &circuit.biases);
        Ok(circuit)
    }
}

impl CircuitSearch<'_> {
    /// The losses of a circuit's nodes on `pairs` pairs of each split (none: as many as it was found
    /// with) of `task`, or of its own. They are calibrated on the train pairs.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the circuit does not fit the model, the task or the tokenizer; those
    /// of the pairs and of the forward pass.
    pub fn evaluate_circuit(&self, circuit: &Circuit, task: Option<&Task>, pairs: Option<usize>) -> Result<Losses> {
        let SearchResult { train, test, .. } = self.evaluated(circuit, task, pairs)?.1;
        Ok(Losses { train, test })
    }

    /// The circuit with everything measured anew: activations, edges, effects, calibration, losses.
    ///
    /// # Errors
    /// As [`CircuitSearch::evaluate_circuit`].
    pub fn redescribe(&self, circuit: &Circuit, task: Option<&Task>) -> Result<Circuit> {
        let (task, result) = self.evaluated(circuit, task, None)?;
        let described = self.describe(&task, &result, &circuit.model.path, &circuit.model.hash)?;
        Ok(Circuit { excluded: circuit.excluded.clone(), ..described })
    }

    /// By how much the task loss is higher without the circuit's nodes of a sublayer, `3.attn` or
    /// `3.mlp`, on the train pairs. `task` is the circuit's task, if that is not built in.
    pub(crate) fn sublayers(&self, circuit: &Circuit, task: Option<Task>) -> Result<BTreeMap<String, f64>> {
        let (task, settings) = (circuit.resolve_task(task, self.tokenizer)?, circuit.search_settings()?);
        let (_, train) = self.eval_pairs(&task, Split::Train, &settings)?;
        let (weights, layout) = (self.weights(), &self.nodes.layout);
        let (scorer, keep) = (self.scorer(&weights, &train), circuit.keep(layout)?);
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

    fn evaluated(&self, circuit: &Circuit, task: Option<&Task>, pairs: Option<usize>) -> Result<(Task, SearchResult)> {
        let mut settings = circuit.search_settings()?;
        settings.eval_pairs = pairs.unwrap_or(settings.eval_pairs);
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
        let result = SearchResult { settings, scores, keep, ..SearchResult::default() };
        let result = self.evaluate(&task, &train, result)?;
        Ok((task, result))
    }
}
