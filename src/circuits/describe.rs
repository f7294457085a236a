//! From a set of nodes to the circuit file: what each node and edge does, and which tokens are involved.

use std::collections::BTreeMap;

use super::file::{
    ActivationRange, BiasEntry, Circuit, Counts, EdgeEntry, Losses, ModelRef, NodeEntry, TaskRef, TokenRef,
    TokenWeight, TokenWeights, VERSION,
};
use super::prune::{CircuitScorer, SearchSettings};
use super::search::{CircuitSearch, SearchResult};
use super::tasks::{self, Split, Task};
use super::{EdgeAblation, NodeKind, TaskBatch, graph};
use crate::files::HostTensor;
use crate::model::Recorder;
use crate::tape::Tape;
use crate::{Error, Result};

/// Tokens listed for a channel at most.
const TOKENS: usize = 12;

impl CircuitSearch<'_> {
    /// Describes a circuit on the pairs that it was chosen by. `path` and `hash` say which model it is a part of.
    ///
    /// # Errors
    /// Those of the pairs and of the forward pass; [`Error::NonFiniteSite`] where an activation is not finite.
    pub fn describe(
        &self,
        task: &Task,
        result: &SearchResult,
        settings: &SearchSettings,
        path: &str,
        hash: &str,
    ) -> Result<Circuit> {
        let task = &task.clone().for_tokenizer(self.tokenizer)?;
        let (batch, task_batch) = self.train_pairs(task, settings)?;
        let weights = self.weights();
        let scorer = CircuitScorer { model: (self.model, &weights), nodes: &self.nodes, task_batch: &task_batch };
        let loss = scorer.logit_diffs(&result.keep)?.loss(result.calibration);
        let layout = &self.nodes.layout;
        let graph = graph(self.model, layout, &result.keep)?;

        let ranges = self.ranges(&task_batch, &result.keep)?;
        let mut nodes = Vec::new();
        for n in (0..layout.len()).filter(|&n| result.keep[n]) {
            let Some(node) = layout.node(n) else { continue };
            let mut without = result.keep.clone();
            without[n] = false;
            let delta = scorer.logit_diffs(&without)?.loss(result.calibration) - loss;
            let head = node.kind.has_heads().then(|| self.model.config.head_width());
            let [clean, counterfactual] = ranges[&n];
            nodes.push(NodeEntry {
                site: node.site().to_string(),
                layer: node.layer,
                kind: node.kind,
                index: node.index,
                head: head.map(|width| node.index / width),
                channel: head.map(|width| node.index % width),
                mean: self.nodes.means[n].into(),
                tau: result.scores[n].into(),
                ablation_delta: delta,
                clean,
                counterfactual,
            });
        }
        let mut edges = Vec::new();
        for edge in &graph.edges {
            let gates = self.nodes.keep(&result.keep)?;
            let effect = match EdgeAblation::new(self.model, gates, *edge) {
                Some(mut cut) => {
                    task_batch.logit_diffs_at_once(self.model, &weights, &mut cut)?.loss(result.calibration) - loss
                }
                None => 0.0,
            };
            edges.push(EdgeEntry { from: edge.from, to: edge.to, weight: edge.weight.into(), effect });
        }
        let biases: Vec<_> =
            graph.biases.iter().map(|&(node, value)| BiasEntry { node, value: value.into() }).collect();
        let (embeddings, unembeddings) = self.vocabulary(&nodes, &batch)?;
        let counts = Counts::of(self.model.config.n_layer, &nodes, &edges, &biases);
        let circuit = Circuit {
            version: VERSION,
            model: ModelRef::new(path, hash, &self.model.config),
            task: self.task(task, &batch)?,
            settings: serde_json::to_value(settings).map_err(|e| Error::Text(e.to_string()))?,
            nodes,
            excluded: (0..layout.len()).filter(|&n| self.nodes.excluded[n]).filter_map(|n| layout.node(n)).collect(),
            edges,
            biases,
            embeddings,
            unembeddings,
            losses: Losses { train: result.train, test: result.test },
            calibration: result.calibration,
            counts,
        };
        Ok(circuit.normalised())
    }

    fn task(&self, task: &Task, batch: &tasks::PairBatch) -> Result<TaskRef> {
        let nothing = || Error::Text(format!("{}: no pairs", task.name));
        let (pair, tokens) = batch.pairs.first().zip(batch.tokens.first()).ok_or_else(nothing)?;
        let token = |id: u32| TokenRef { id, text: self.tokenizer.token_text(id) };
        Ok(TaskRef {
            name: task.name.clone(),
            description: task.description.clone(),
            version: tasks::VERSION,
            clean: pair.clean.clone(),
            counterfactual: pair.counterfactual.clone(),
            target: token(tokens.target),
            alternative: token(tokens.alternative),
            variant: batch.variant,
        })
    }

    /// The activations of kept nodes within the circuit, over all positions of positive and of negative prompts.
    fn ranges(&self, task_batch: &TaskBatch, keep: &[bool]) -> Result<BTreeMap<usize, [ActivationRange; 2]>> {
        let mut sites = (self.nodes.keep(keep)?, Recorder::default());
        task_batch.logit_diffs_on_tape(self.model, &self.weights(), &mut Tape::new(), &mut sites)?;
        let mut ranges = BTreeMap::new();
        for (&site, value) in &sites.1.values {
            let Some(block) = self.nodes.layout.block(site).filter(|block| keep[block.range()].contains(&true)) else {
                continue;
            };
            let values = value.value().read()?;
            task_batch.check_finite(
                (&site.to_string(), &values),
                self.model,
                &self.weights(),
                &mut self.nodes.keep(keep)?,
            )?;
            let padded = values.len() / (task_batch.lengths().len() * block.width).max(1);
            for n in block.range().filter(|&n| keep[n]) {
                let of = |first: usize| {
                    let prompts = task_batch.lengths().iter().enumerate().skip(first).take(task_batch.pairs());
                    let rows = prompts.flat_map(|(b, &length)| (0..length).map(move |t| b * padded + t));
                    range(rows.map(|row| values[row * block.width + n - block.start]))
                };
                ranges.insert(n, [of(0), of(task_batch.pairs())]);
            }
        }
        Ok(ranges)
    }

    /// The embedding weights into channels that the circuit reads, of tokens that occur in the pairs, and the unembedding
    /// weights out of channels that it writes, of the answers and of the tokens they favour most.
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
            parameter.ok_or_else(|| Error::Text(format!("the model lacks {name}")))?.read()
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
        let unembedding = match self.model.config.tied_unembed {
            true => embedding,
            false => read("lm_head.weight")?,
        };
        let answers: Vec<u32> = batch.tokens.first().map(|p| vec![p.target, p.alternative]).unwrap_or_default();
        let written = channels([NodeKind::AttnOut, NodeKind::MlpOut]);
        Ok((embeddings, list(&unembedding, &written, &all, &answers)))
    }

    /// The pairs that circuits of a task are chosen by.
    pub(super) fn train_pairs(&self, task: &Task, settings: &SearchSettings) -> Result<(tasks::PairBatch, TaskBatch)> {
        let seed = settings.seed ^ super::search::TRAIN_STREAM;
        self.pairs(task, Split::Train, (seed, 0), settings.eval_pairs, settings.max_length)
    }
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
