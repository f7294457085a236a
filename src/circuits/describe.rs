//! From a set of nodes to the circuit file: what each node and edge does, and which tokens are involved.

use std::collections::BTreeMap;

use super::file::{
    BiasEntry, Circuit, Counts, EdgeEntry, Losses, ModelRef, NodeEntry, Range, TaskRef, TokenRef, TokenWeight,
    TokenWeights, VERSION,
};
use super::find::{Finder, Found};
use super::prune::{Judge, Settings};
use super::tasks::{self, Split, Task};
use super::{Cut, NodeKind, Questions, graph};
use crate::files::HostTensor;
use crate::model::Recorder;
use crate::tape::Tape;
use crate::{Error, Result};

/// Tokens listed for a channel at most.
const TOKENS: usize = 12;

impl Finder<'_> {
    /// Describes a circuit on the pairs that it was chosen by. `path` and `hash` say which model it is a part of.
    ///
    /// # Errors
    /// Those of the pairs and of the forward pass; [`Error::NonFiniteSite`] where an activation is not finite.
    pub fn describe(&self, task: &Task, found: &Found, settings: &Settings, path: &str, hash: &str) -> Result<Circuit> {
        let task = &task.clone().fitted(self.tokenizer)?;
        let (batch, questions) = self.choosing(task, settings)?;
        let weights = self.weights();
        let judge = Judge { model: (self.model, &weights), nodes: &self.nodes, questions: &questions };
        let loss = judge.answers(&found.keep)?.loss(found.calibration);
        let layout = &self.nodes.layout;
        let graph = graph(self.model, layout, &found.keep)?;

        let ranges = self.ranges(&questions, &found.keep)?;
        let mut nodes = Vec::new();
        for n in (0..layout.len()).filter(|&n| found.keep[n]) {
            let Some(node) = layout.node(n) else { continue };
            let mut without = found.keep.clone();
            without[n] = false;
            let delta = judge.answers(&without)?.loss(found.calibration) - loss;
            let head = node.kind.has_heads().then(|| self.model.config.head_width());
            let [positive, negative] = ranges[&n];
            nodes.push(NodeEntry {
                site: node.site().to_string(),
                layer: node.layer,
                kind: node.kind,
                index: node.index,
                head: head.map(|width| node.index / width),
                channel: head.map(|width| node.index % width),
                mean: self.nodes.means[n].into(),
                tau: found.scores[n].into(),
                ablation_delta: delta,
                positive,
                negative,
            });
        }
        let mut edges = Vec::new();
        for edge in &graph.edges {
            let gates = self.nodes.keep(&found.keep)?;
            let effect = match Cut::new(self.model, gates, *edge) {
                Some(mut cut) => {
                    questions.answers_at_once(self.model, &weights, &mut cut)?.loss(found.calibration) - loss
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
            absent: (0..layout.len()).filter(|&n| self.nodes.absent[n]).filter_map(|n| layout.node(n)).collect(),
            edges,
            biases,
            embeddings,
            unembeddings,
            losses: Losses { train: found.train, test: found.test },
            calibration: found.calibration,
            counts,
        };
        Ok(circuit.normalised())
    }

    fn task(&self, task: &Task, batch: &tasks::Batch) -> Result<TaskRef> {
        let nothing = || Error::Text(format!("{}: no pairs", task.name));
        let (pair, tokens) = batch.pairs.first().zip(batch.tokens.first()).ok_or_else(nothing)?;
        let token = |id: u32| TokenRef { id, text: self.tokenizer.token_text(id) };
        Ok(TaskRef {
            name: task.name.clone(),
            description: task.description.clone(),
            version: tasks::VERSION,
            positive: pair.positive.clone(),
            negative: pair.negative.clone(),
            target: token(tokens.target),
            alternative: token(tokens.alternative),
            variant: batch.variant,
        })
    }

    /// The activations of kept nodes within the circuit, over all positions of positive and of negative prompts.
    fn ranges(&self, questions: &Questions, keep: &[bool]) -> Result<BTreeMap<usize, [Range; 2]>> {
        let mut sites = (self.nodes.keep(keep)?, Recorder::default());
        questions.ask(self.model, &self.weights(), &mut Tape::new(), &mut sites)?;
        let mut ranges = BTreeMap::new();
        for (&site, value) in &sites.1.values {
            let Some(slot) = self.nodes.layout.slot(site).filter(|slot| keep[slot.range()].contains(&true)) else {
                continue;
            };
            let values = value.value().read()?;
            questions.check_finite(
                (&site.to_string(), &values),
                self.model,
                &self.weights(),
                &mut self.nodes.keep(keep)?,
            )?;
            let padded = values.len() / (questions.lengths().len() * slot.width).max(1);
            for n in slot.range().filter(|&n| keep[n]) {
                let of = |first: usize| {
                    let prompts = questions.lengths().iter().enumerate().skip(first).take(questions.pairs());
                    let rows = prompts.flat_map(|(b, &length)| (0..length).map(move |t| b * padded + t));
                    range(rows.map(|row| values[row * slot.width + n - slot.start]))
                };
                ranges.insert(n, [of(0), of(questions.pairs())]);
            }
        }
        Ok(ranges)
    }

    /// The embedding weights into channels that the circuit reads, of tokens that occur in the pairs, and the unembedding
    /// weights out of channels that it writes, of the answers and of the tokens they favour most.
    fn vocabulary(&self, nodes: &[NodeEntry], batch: &tasks::Batch) -> Result<(Vec<TokenWeights>, Vec<TokenWeights>)> {
        let d = self.model.config.d_model;
        let channels = |kinds: [NodeKind; 2]| {
            let mut list: Vec<usize> =
                nodes.iter().filter(|n| kinds.contains(&n.kind) && n.index < d).map(|n| n.index).collect();
            list.sort_unstable();
            list.dedup();
            list
        };
        let mut seen: Vec<u32> = Vec::new();
        batch.tokens.iter().for_each(|pair| seen.extend(pair.positive.iter().chain(&pair.negative)));
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
    pub(super) fn choosing(&self, task: &Task, settings: &Settings) -> Result<(tasks::Batch, Questions)> {
        let seed = settings.seed ^ super::find::CHOOSING;
        self.pairs(task, Split::Train, (seed, 0), settings.eval_pairs, settings.max_length)
    }
}

fn range(values: impl Iterator<Item = f32>) -> Range {
    let mut range = Range { min: f64::INFINITY, mean: 0.0, max: f64::NEG_INFINITY };
    let mut count = 0.0;
    for value in values.map(f64::from) {
        count += 1.0;
        range.min = range.min.min(value);
        range.max = range.max.max(value);
        range.mean += value;
    }
    match count {
        0.0 => Range::default(),
        count => Range { mean: range.mean / count, ..range },
    }
}
