//! From a set of nodes to the circuit file: what each node and edge does, and which tokens are
//! involved.

use std::collections::BTreeMap;

use super::file::{
    ActivationRange, BiasEntry, Circuit, Counts, EdgeEntry, Losses, ModelRef, NodeEntry, PairDifference, TaskRef,
    TokenRef, TokenWeight, TokenWeights,
};
use super::prune::CircuitScorer;
use super::search::{CircuitSearch, SearchResult};
use super::tasks::{self, Split, Task};
use super::{Edge, EdgeAblation, NodeKind, TaskBatch};
use crate::files::HostTensor;
use crate::model::Recorder;
use crate::tape::Tape;
use crate::{Error, Result};

/// Tokens listed for a channel at most.
const TOKENS: usize = 12;

impl CircuitSearch<'_> {
    /// Describes a circuit on the train pairs. `path` and `hash` say which model it is a part of.
    ///
    /// # Errors
    /// Those of the pairs and of the forward pass; [`Error::NonFiniteSite`] where an activation is
    /// not finite.
    pub fn describe(&self, task: &Task, result: &SearchResult, path: &str, hash: &str) -> Result<Circuit> {
        self.pruning(&result.pruned_edges)?.describe_pruned(task, result, (path, hash))
    }

    fn describe_pruned(&self, task: &Task, result: &SearchResult, (path, hash): (&str, &str)) -> Result<Circuit> {
        let task = &task.clone().for_tokenizer(self.tokenizer)?;
        let (pairs, task_batch) = self.eval_pairs(task, Split::Train, &result.settings)?;
        let layout = &self.nodes.layout;
        let graph = self.nodes.graph(self.model, &result.keep)?;
        let model = ModelRef::new(path, hash, &self.model.config);
        let weights = self.weights();
        let scorer = self.scorer(&weights, &task_batch, &result.settings);
        let loss = scorer.logit_diffs(&result.keep)?.loss(result.calibration);
        let nodes = self.node_entries(result, &scorer, loss, &model)?;
        let edges = self.edge_entries(result, &scorer, loss, &graph.edges)?;
        let biases: Vec<_> =
            graph.biases.iter().map(|&(node, value)| BiasEntry { node, value: value.into() }).collect();
        let (embeddings, unembeddings) = self.vocabulary(&nodes, &pairs)?;
        let circuit = Circuit {
            version: Circuit::version_for(&nodes, &result.pruned_edges),
            counts: Counts::of(model.n_layer, &nodes, &edges, &biases),
            model,
            task: self.task(task, &pairs)?,
            settings: serde_json::to_value(&result.settings).map_err(|e| Error::Data(e.to_string()))?,
            nodes,
            excluded: (0..layout.len()).filter(|&n| self.nodes.excluded[n]).filter_map(|n| layout.node(n)).collect(),
            edges,
            pruned_edges: result.pruned_edges.clone(),
            biases,
            embeddings,
            unembeddings,
            losses: Losses { train: result.train, test: result.test },
            calibration: result.calibration,
            annotations: None,
        };
        Ok(circuit.normalised())
    }

    fn node_entries(
        &self,
        result: &SearchResult,
        scorer: &CircuitScorer,
        loss: f64,
        model: &ModelRef,
    ) -> Result<Vec<NodeEntry>> {
        let activations = self.activations(scorer.task_batch, &result.keep)?;
        let mut entries = Vec::new();
        for (n, [clean, counterfactual]) in activations {
            let Some(node) = self.nodes.layout.node(n) else { continue };
            let mut ablated = result.keep.clone();
            ablated[n] = false;
            entries.push(NodeEntry {
                mean: self.nodes.means[n].into(),
                tau: result.scores[n].into(),
                ablation_delta: scorer.logit_diffs(&ablated)?.loss(result.calibration) - loss,
                clean: range(clean.iter().flatten().copied()),
                counterfactual: range(counterfactual.iter().flatten().copied()),
                difference: Some(pair_difference(&clean, &counterfactual)),
                ..NodeEntry::new(node, model)
            });
        }
        Ok(entries)
    }

    fn edge_entries(
        &self,
        result: &SearchResult,
        scorer: &CircuitScorer,
        loss: f64,
        edges: &[Edge],
    ) -> Result<Vec<EdgeEntry>> {
        let entry = |edge: &Edge| {
            let gates = self.nodes.keep(&result.keep)?;
            let effect = match EdgeAblation::new(self.model, gates, *edge) {
                Some(mut ablation) => {
                    let diffs = scorer.task_batch.logit_diffs_at_once(scorer.model, &mut ablation)?;
                    diffs.loss(result.calibration) - loss
                }
                None => 0.0,
            };
            Ok(EdgeEntry { from: edge.from, to: edge.to, weight: edge.weight.into(), effect })
        };
        edges.iter().map(entry).collect()
    }

    fn task(&self, task: &Task, batch: &tasks::PairBatch) -> Result<TaskRef> {
        let nothing = || Error::Data(format!("{}: no pairs", task.name));
        let (pair, tokens) = batch.pairs.first().zip(batch.tokens.first()).ok_or_else(nothing)?;
        let token = |id: u32| TokenRef { id, text: self.tokenizer.token_text(id) };
        Ok(TaskRef {
            name: task.name.clone(),
            description: task.description.clone(),
            version: task.version,
            hash: task.hash.clone(),
            clean: pair.clean.clone(),
            counterfactual: pair.counterfactual.clone(),
            target: token(tokens.target),
            alternative: token(tokens.alternative),
            variant: batch.variant,
            context: task.context,
        })
    }

    /// The activations of kept nodes within the circuit, in the clean and in the counterfactual
    /// prompts, by node, prompt and position.
    fn activations(&self, task_batch: &TaskBatch, keep: &[bool]) -> Result<BTreeMap<usize, [Vec<Vec<f32>>; 2]>> {
        let model = (self.model, &self.weights());
        let mut sites = (self.nodes.keep(keep)?, Recorder::default());
        task_batch.logit_diffs_on_tape(model, &mut Tape::new(), &mut sites)?;
        let mut activations = BTreeMap::new();
        for (&site, value) in &sites.1.values {
            let Some(block) = self.nodes.layout.block(site).filter(|block| keep[block.range()].contains(&true)) else {
                continue;
            };
            let values = value.value().read()?;
            task_batch.check_finite((&site.to_string(), &values), model, &mut self.nodes.keep(keep)?)?;
            let padded = values.len() / (task_batch.lengths.len() * block.width).max(1);
            for n in block.range().filter(|&n| keep[n]) {
                let of = |first: usize| {
                    let prompts = task_batch.lengths.iter().enumerate().skip(first).take(task_batch.pairs);
                    let at = |row: usize| values[row * block.width + n - block.start];
                    prompts.map(|(b, &length)| (0..length).map(|t| at(b * padded + t)).collect()).collect()
                };
                activations.insert(n, [of(0), of(task_batch.pairs)]);
            }
        }
        Ok(activations)
    }

    /// The embedding weights into channels that the circuit reads, of tokens that occur in the
    /// pairs, and the unembedding weights out of channels that it writes, of the answers and of the
    /// tokens they favour most.
    fn vocabulary(
        &self,
        nodes: &[NodeEntry],
        batch: &tasks::PairBatch,
    ) -> Result<(Vec<TokenWeights>, Vec<TokenWeights>)> {
        let d = self.model.config.d_model;
        let channels = |kinds: [NodeKind; 2]| {
            let mut list: Vec<usize> =
                nodes.iter().filter(|n| kinds.contains(&n.kind) && n.index < d).map(|n| n.index).collect();
            list.sort_unstable();
            list.dedup();
            list
        };
        let mut seen: Vec<u32> = Vec::new();
        batch.tokens.iter().for_each(|pair| seen.extend(pair.clean.iter().chain(&pair.counterfactual)));
        seen.sort_unstable();
        seen.dedup();
        let all: Vec<u32> = (0..self.model.config.vocab_size as u32).collect();
        let read = |name: &str| -> Result<HostTensor> {
            let parameter = self.model.parameters.get(name);
            parameter.ok_or_else(|| Error::MissingTensor { holder: "the model".into(), name: name.into() })?.read()
        };
        let list = |table: &HostTensor, channels: &[usize], tokens: &[u32], always: &[u32]| -> Vec<TokenWeights> {
            let entry = |&channel: &usize| {
                let weight = |id: u32| table.data[id as usize * d + channel];
                let mut ids: Vec<u32> = tokens.iter().copied().filter(|&id| weight(id) != 0.0).collect();
                let first = |id: &u32| !always.contains(id);
                ids.sort_by(|a, b| {
                    let size = weight(*b).abs().total_cmp(&weight(*a).abs());
                    first(a).cmp(&first(b)).then(size).then(a.cmp(b))
                });
                ids.truncate(TOKENS);
                let token =
                    |id: u32| TokenWeight { id, text: self.tokenizer.token_text(id), weight: weight(id).into() };
                TokenWeights { channel, tokens: ids.into_iter().map(token).collect() }
            };
            channels.iter().map(entry).filter(|entry| !entry.tokens.is_empty()).collect()
        };
        let embedding = read("transformer.wte.weight")?;
        let embeddings = list(&embedding, &channels([NodeKind::AttnIn, NodeKind::MlpIn]), &seen, &[]);
        let unembedding = if self.model.config.tied_unembed { embedding } else { read("lm_head.weight")? };
        let answers: Vec<u32> = batch.tokens.first().map(|p| vec![p.target, p.alternative]).unwrap_or_default();
        let written = channels([NodeKind::AttnOut, NodeKind::MlpOut]);
        Ok((embeddings, list(&unembedding, &written, &all, &answers)))
    }
}

/// Clean minus counterfactual at the ends of prompts, and where each pair differs most.
fn pair_difference(clean: &[Vec<f32>], counterfactual: &[Vec<f32>]) -> PairDifference {
    let mut sums = PairDifference::default();
    for (clean, counterfactual) in clean.iter().zip(counterfactual) {
        let from_the_end = clean.iter().rev().zip(counterfactual.iter().rev());
        let differences = from_the_end.map(|(&a, &b)| f64::from(a) - f64::from(b));
        // Of equal ones, that which is nearest to the end.
        let largest = differences.clone().reduce(|most, d| if d.abs() > most.abs() { d } else { most });
        sums.last += differences.clone().next().unwrap_or_default();
        sums.largest += largest.unwrap_or_default();
    }
    let pairs = clean.len().min(counterfactual.len()).max(1) as f64;
    PairDifference { last: sums.last / pairs, largest: sums.largest / pairs }
}

fn range(values: impl Iterator<Item = f32>) -> ActivationRange {
    let mut range = ActivationRange { min: f64::INFINITY, mean: 0.0, max: f64::NEG_INFINITY };
    let mut count = 0.0;
    for value in values.map(f64::from) {
        count += 1.0;
        range.min = range.min.min(value);
        range.max = range.max.max(value);
        range.mean += value;
    }
    match count {
        0.0 => ActivationRange::default(),
        count => ActivationRange { mean: range.mean / count, ..range },
    }
}

#[cfg(test)]
mod tests {
    use super::{PairDifference, pair_difference};

    #[test]
    fn pairs_differ_at_their_ends_and_where_they_differ_most() {
        // Aligned at their ends, the first pair differs by 4, -2 and 1; the second by 3 alone.
        let clean = [vec![9.0, 5.0, 0.0, 2.0], vec![3.5]];
        let counterfactual = [vec![1.0, 2.0, 1.0], vec![-7.0, 0.5]];
        let expected = PairDifference { last: 2.0, largest: 3.5 };
        assert_eq!(pair_difference(&clean, &counterfactual), expected);
        assert_eq!(pair_difference(&[], &[]), PairDifference::default());
    }
}
