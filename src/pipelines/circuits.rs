//! What can be measured of a circuit's nodes, and how it is shown.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::circuits::search::CircuitSearch;
use crate::circuits::statistics::{QUANTILES, Snippet};
use crate::circuits::tasks::Task;
use crate::circuits::{Binary, Circuit, Nodes, Statistics, mean_activations, stored_means};
use crate::formats::{Payload, Pretrained};
use crate::model::Site;
use crate::observer::Observer;
use crate::report::{Cell, Column, Report, Table};
use crate::text::notation::visible;
use crate::text::source::Source;
use crate::{Error, Result};

/// A circuit to measure, in its model.
pub struct CircuitRequest<'a> {
    /// The circuit.
    pub circuit: &'a Circuit,
    /// Its file, which mean activations may be next to.
    pub file: &'a Path,
    /// What its file holds besides, if it is a published one: its prompts are taken unless a task is
    /// named.
    pub payload: Option<&'a Payload>,
    /// Its task, if that is not built in.
    pub task: Option<Task>,
    /// Text to run the model on; generated Python if there is none.
    pub data: &'a Source,
    /// Tokens of text at most.
    pub max_tokens: usize,
}

/// Measures the activations of a circuit's nodes over text and over the pairs that it was chosen
/// by.
///
/// # Errors
/// Returns [`Error::OtherModel`] for another model, [`Error::Request`] for a circuit without nodes;
/// those of the pairs, the text and the forward pass.
pub fn circuit_statistics(
    model: &Pretrained,
    request: &CircuitRequest,
    seed: u64,
    observer: &Observer,
    note: &dyn Fn(String),
) -> Result<Statistics> {
    let circuit = request.check(model)?;
    let [clean, counterfactual] = request.noted_prompts(model, note)?;
    let corpus = model.sequences(request.data, request.max_tokens)?;
    Statistics::measure(&model.model, circuit, [&corpus, &clean, &counterfactual], seed, observer)
}

/// Gives every node of a circuit two states, and measures what that does to its losses.
///
/// # Errors
/// As [`circuit_statistics`], and [`Error::Mismatch`] if the mean activations are not those that it
/// was found with.
pub fn binarise_circuit(
    model: &Pretrained,
    request: &CircuitRequest,
    observer: &Observer,
    note: &dyn Fn(String),
) -> Result<Binary> {
    let (circuit, tokenizer) = (request.check(model)?, model.tokenizer()?);
    // Before the means, which take longer.
    let pairs = circuit.pairs_by_split(request.task.clone(), tokenizer, model.model.config.block_size)?;
    pairs.iter().filter_map(|pairs| pairs.notes()).for_each(note);
    let means = request.means(model, observer)?;
    let nodes = Nodes::new(circuit.layout(&model.model.config), &means, &model.model.device)?;
    CircuitSearch { model: &model.model, nodes, tokenizer }.binarise(circuit, request.task.clone())
}

impl CircuitRequest<'_> {
    pub(super) fn check(&self, model: &Pretrained) -> Result<&Circuit> {
        self.circuit.check_part_of(&model.model)?;
        if self.circuit.nodes.is_empty() {
            let message = "the circuit has no nodes, so that there is nothing to measure";
            return Err(Error::file(self.file, message));
        }
        Ok(self.circuit)
    }

    /// Clean and counterfactual prompts: those of the pairs that the circuit was chosen by, or those
    /// that a published file has.
    pub(super) fn prompts(&self, model: &Pretrained) -> Result<[Vec<Vec<u32>>; 2]> {
        self.noted_prompts(model, &|_| ())
    }

    fn noted_prompts(&self, model: &Pretrained, note: &dyn Fn(String)) -> Result<[Vec<Vec<u32>>; 2]> {
        if let Some(payload) = self.payload.filter(|payload| self.task.is_none() && !payload.prompts[0].is_empty()) {
            return Ok(payload.prompts.clone());
        }
        let pairs = self.circuit.pairs(self.task.clone(), model.tokenizer()?, model.model.config.block_size)?;
        pairs.notes().into_iter().for_each(note);
        let (clean, counterfactual) = pairs.tokens.into_iter().map(|pair| (pair.clean, pair.counterfactual)).unzip();
        Ok([clean, counterfactual])
    }

    /// By how much the circuit's task loss is higher without each sublayer.
    pub(super) fn sublayers(&self, model: &Pretrained, observer: &Observer) -> Result<BTreeMap<String, f64>> {
        let tokenizer = model.tokenizer()?;
        let nodes =
            Nodes::new(self.circuit.layout(&model.model.config), &self.means(model, observer)?, &model.model.device)?;
        CircuitSearch { model: &model.model, nodes, tokenizer }.sublayers(self.circuit, self.task.clone())
    }

    /// The nodes' mean activations: those next to the circuit if they are this model's, otherwise
    /// measured anew.
    fn means(&self, model: &Pretrained, observer: &Observer) -> Result<BTreeMap<Site, Vec<f32>>> {
        let folder = self.file.parent().unwrap_or(Path::new(""));
        let stored = if self.data.is_empty() { stored_means(folder, &self.circuit.model.hash)? } else { None };
        let means = match stored {
            Some(means) => means,
            None => mean_activations(&model.model, &model.sequences(self.data, self.max_tokens)?, observer)?,
        };
        self.circuit.check_means(&means)?;
        Ok(means)
    }
}

/// The table of circuits that a search finds, without rows.
pub fn search_table() -> Table {
    let losses = ["loss", "circuit", "ablated"].map(|name| Column::decimals(name, 4).width(8));
    let sizes = ["nodes", "edges"].map(|name| Column::number(name).width(6));
    let (first, last) = ([Column::text("task").width(28)], [Column::decimals("seconds", 1).width(8)]);
    Table::new("circuits", first.into_iter().chain(losses).chain(sizes).chain(last))
}

/// The row of [`search_table`] of a circuit.
pub fn search_row(name: &str, circuit: &Circuit, took: Duration) -> Vec<Cell> {
    let (test, counts) = (&circuit.losses.test, &circuit.counts);
    let losses = [test.model, test.circuit, test.ablated].map(Into::into);
    let sizes = [counts.nodes.into(), counts.edges.into(), took.as_secs_f64().into()];
    [&[name.into()], &losses[..], &sizes[..]].concat()
}

/// Snippets shown for a node.
const SHOWN: usize = 3;
/// Tokens shown on either side of a snippet's position.
const AROUND: usize = 10;

/// Describes the statistics: a row for each node, with snippets from the top of its activations.
pub fn statistics_report(statistics: &Statistics, model: &Pretrained) -> Report {
    let moments = ["mean", "std", "min", "max"].map(|name| Column::decimals(name, 3).width(7));
    let shares = ["active", "clean", "counterfactual"].map(|name| Column::percent(name).width(8));
    let table = Table::new("nodes", [Column::text("node").width(24)].into_iter().chain(moments).chain(shares));
    let mut report = Report::new().note(table.heading());
    for node in &statistics.nodes {
        let set = &node.corpus;
        let moments = [set.mean, set.std, set.min.into(), set.max.into()];
        let shares = [set.active(), node.clean.active(), node.counterfactual.active()];
        let numbers = moments.into_iter().chain(shares).map(Into::into);
        report =
            report.note(table.line(&[node.node.to_string().into()].into_iter().chain(numbers).collect::<Vec<_>>()));
        for snippet in set.quantiles.iter().take(1).flat_map(|q| q.top.snippets.iter().take(SHOWN)) {
            let activation = snippet.activations[snippet.position];
            report = report.note(format!("    {activation:+8.3}  {}", marked(snippet, model)));
        }
    }
    report.paragraph(format!("snippets are from the top {} %", 100.0 * QUANTILES[0]))
}

/// A snippet in a line, its token in brackets.
fn marked(snippet: &Snippet, model: &Pretrained) -> String {
    let (first, last) = (snippet.position.saturating_sub(AROUND), snippet.position + AROUND);
    let token = |(t, &id): (usize, &u32)| {
        let text = visible(&model.token_text(id));
        if t == snippet.position { format!("[{text}]") } else { text }
    };
    snippet.tokens.iter().enumerate().take(last + 1).skip(first).map(token).collect()
}

impl Binary {
    /// Describes the steps of all nodes and the losses.
    pub fn report(&self) -> Report {
        let numbers = ["low", "threshold", "high"].map(|name| Column::decimals(name, 3));
        let rest = [Column::decimals("at", 2), Column::decimals("alone", 4).title("loss when it alone is binary")];
        let mut steps = Table::new("steps", [Column::text("node")].into_iter().chain(numbers).chain(rest));
        for (step, &alone) in self.steps.iter().zip(&self.alone) {
            let levels = [step.low, step.threshold, step.high].map(Into::into);
            let row = [step.node.to_string().into()].into_iter().chain(levels);
            steps.push(row.chain([step.fraction.into(), alone.into()]));
        }
        let set = |name: &str, title: &str| {
            let accuracy = Column::percent(format!("accuracy_{name}")).title("accuracy");
            [Column::decimals(name, 4).title(title), accuracy]
        };
        let columns = [Column::text("pairs")].into_iter().chain(set("circuit", "circuit"));
        let mut losses = Table::new("losses", columns.chain(set("binary", "all nodes binary")));
        for (name, set) in [("train", self.train), ("test", self.test)] {
            let numbers = [set.circuit, set.accuracy_circuit, set.binary, set.accuracy_binary];
            losses.push([name.into()].into_iter().chain(numbers.map(Into::into)));
        }
        Report::new().table(steps).table(losses)
    }
}
