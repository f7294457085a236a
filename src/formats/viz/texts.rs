//! Texts with activations: snippets of pretraining text, and the task's prompts.

use std::collections::HashMap;

use super::read::{PayloadReader, location, node, shown};
use crate::Result;
use crate::circuits::Node;
use crate::circuits::collect::{SequenceSet, Visit, gather, snippet};
use crate::circuits::statistics::{Activations, End, NodeStatistics, Quantile, Snippet};
use crate::formats::torch::Value;

/// Clean and counterfactual prompts.
type Prompts = [Vec<Vec<u32>>; 2];

impl PayloadReader<'_> {
    /// Everything about the activations of `nodes`, in their order, and the prompts.
    pub(super) fn texts(
        &mut self,
        payload: &Value,
        importances: &Value,
        nodes: &[Node],
    ) -> Result<(Prompts, Vec<NodeStatistics>)> {
        let mut samples = self.samples(payload.get("samples"))?;
        let (prompts, activations) = self.prompts(importances.get("task_samples"))?;
        // For a node's range, which its colours depend on, its snippets count, too.
        let mut corpus: Vec<Vec<u32>> = Vec::new();
        let mut ranges: Vec<(usize, usize, &[f32])> = Vec::new();
        for (n, node) in nodes.iter().enumerate() {
            for quantile in samples.get(node).into_iter().flatten() {
                for snippet in quantile.bottom.snippets.iter().chain(&quantile.top.snippets) {
                    ranges.push((n, corpus.len(), &snippet.activations));
                    corpus.push(snippet.tokens.clone());
                }
            }
        }
        let show = |set: SequenceSet, see: &mut Visit| -> Result<()> {
            let (prompts, first) = match set {
                SequenceSet::Corpus => {
                    ranges.iter().for_each(|&(n, sequence, values)| see(n, sequence, values));
                    return Ok(());
                }
                SequenceSet::Clean => (&prompts[0], 0),
                SequenceSet::Counterfactual => (&prompts[1], prompts[0].len()),
            };
            let width = activations.width;
            for (n, node) in nodes.iter().enumerate() {
                let Some(values) = activations.of.get(node) else { continue };
                for (i, prompt) in prompts.iter().enumerate() {
                    see(n, i, &values[(first + i) * width..][..prompt.len()]);
                }
            }
            Ok(())
        };
        let mut statistics = gather(nodes, [&corpus, &prompts[0], &prompts[1]], 0, &show)?;
        for entry in &mut statistics {
            // The snippets are no sample of the corpus: all that is known of it are their
            // quantiles.
            entry.corpus =
                Activations { quantiles: samples.remove(&entry.node).unwrap_or_default(), ..Activations::default() };
        }
        Ok((prompts, statistics))
    }

    /// `samples`: location → channel → quantile → [bottom, top].
    fn samples(&mut self, data: Option<&Value>) -> Result<HashMap<Node, Vec<Quantile>>> {
        let mut samples = HashMap::new();
        let Some(locations) = data.and_then(Value::pairs) else {
            self.miss("There are no samples: activations in text are not known.");
            return Ok(samples);
        };
        for (name, channels) in locations {
            let (Some(location), Some(channels)) = (name.text().and_then(location), channels.pairs()) else {
                self.skip("samples", shown(name));
                continue;
            };
            for (channel, quantiles) in channels {
                let Some(node) = self.int(channel)?.and_then(|index| node(location, index)) else {
                    self.skip("samples", format!("{location}[{}]", shown(channel)));
                    continue;
                };
                let mut read = Vec::new();
                for (quantile, ends) in quantiles.pairs().unwrap_or_default() {
                    let (Some(quantile), Some([bottom, top])) = (self.number(quantile)?, ends.items()) else {
                        self.skip("samples", format!("{node} at {}", shown(quantile)));
                        continue;
                    };
                    let [bottom, top] = [self.end(node, bottom)?, self.end(node, top)?];
                    read.push(Quantile { quantile, bottom, top });
                }
                read.sort_by(|a, b| a.quantile.total_cmp(&b.quantile));
                samples.insert(node, read);
            }
        }
        Ok(samples)
    }

    /// A list of (tokens, activations, position).
    fn end(&mut self, node: Node, items: &Value) -> Result<End> {
        let mut end = End::default();
        for item in items.items().unwrap_or_default() {
            let read = match item.items() {
                Some([tokens, activations, position]) => self.snippet(tokens, activations, position)?,
                _ => None,
            };
            match read {
                Some(snippet) => end.snippets.push(Snippet { sequence: end.snippets.len(), ..snippet }),
                None => self.skip("samples", format!("a text of {node}")),
            }
        }
        // The quantile's own value is not saved; the first snippet is the nearest to it.
        end.value = end.snippets.first().map_or(0.0, |first| first.activations[first.position]);
        Ok(end)
    }

    fn snippet(&self, tokens: &Value, activations: &Value, position: &Value) -> Result<Option<Snippet>> {
        let (Some(tokens), Some(values)) = (self.tokens(tokens)?, self.numbers(activations)?) else { return Ok(None) };
        let position = self.int(position)?.and_then(|p| usize::try_from(p).ok()).filter(|&p| p < tokens.len());
        let sound = tokens.len() == values.len() && values.iter().all(|v| v.is_finite());
        Ok(position.filter(|_| sound).map(|position| snippet(&tokens, 0, position, &values)))
    }

    /// `task_samples`: (tokens, location → channel → activations), a row a prompt, padded on the
    /// right with token 0.
    fn prompts(&mut self, data: Option<&Value>) -> Result<(Prompts, PromptActivations)> {
        let nothing = (Prompts::default(), PromptActivations::default());
        let Some([tokens, activations]) = data.and_then(Value::items) else {
            self.miss("There are no task_samples: prompts and activations in them are not known.");
            return Ok(nothing);
        };
        let shape = tokens.tensor().map(|tensor| tensor.shape.clone()).unwrap_or_default();
        let (&[count, width], Some(ids)) = (shape.as_slice(), self.tokens(tokens)?) else {
            self.miss("The tokens of task_samples were not understood; prompts are omitted.");
            return Ok(nothing);
        };
        let prompt = |row: &[u32]| row[..row.iter().rposition(|&id| id != 0).map_or(1, |last| last + 1)].to_vec();
        let mut clean: Vec<Vec<u32>> = ids.chunks_exact(width.max(1)).map(prompt).collect();
        let counterfactual = clean.split_off((count / 2).min(clean.len()));
        let mut rows = PromptActivations { width, of: HashMap::new() };
        for (name, channels) in activations.pairs().unwrap_or_default() {
            let (Some(location), Some(channels)) = (name.text().and_then(location), channels.pairs()) else {
                self.skip("task_samples", shown(name));
                continue;
            };
            for (channel, values) in channels {
                let values = self.numbers(values)?.filter(|v| v.len() == ids.len() && v.iter().all(|v| v.is_finite()));
                match (self.int(channel)?.and_then(|index| node(location, index)), values) {
                    (Some(node), Some(values)) => drop(rows.of.insert(node, values)),
                    _ => self.skip("task_samples", format!("{location}[{}]", shown(channel))),
                }
            }
        }
        Ok(([clean, counterfactual], rows))
    }
}

/// Activations in all prompts, one after the other, each `width` long.
#[derive(Default)]
struct PromptActivations {
    width: usize,
    of: HashMap<Node, Vec<f32>>,
}
