//! What can be measured of a circuit's nodes, and how it is shown.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::chart::{Axis, Chart, Series};
use crate::circuits::curve::{Curve, CurvePlan, CurvePoint};
use crate::circuits::evaluate::{Evaluation, EvaluationPlan, Scores};
use crate::circuits::prune::PruningStep;
use crate::circuits::search::{CircuitSearch, Ranking};
use crate::circuits::statistics::{QUANTILES, Snippet};
use crate::circuits::tasks::Task;
use crate::circuits::{
    Binary, Calibration, Circuit, Layout, Node, Nodes, Statistics, mean_activations, measured_means, stored_means,
};
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

/// Evaluates a circuit in any model that has its nodes.
///
/// # Errors
/// Those of [`CircuitSearch::evaluation`]; [`Error::Mismatch`] if the mean activations are not
/// those that it was found with.
pub fn evaluate_circuit(
    model: &Pretrained,
    request: &CircuitRequest,
    plan: &EvaluationPlan,
    observer: &Observer,
    note: &dyn Fn(String),
) -> Result<Evaluation> {
    let circuit = request.circuit;
    if circuit.check_part_of(&model.model).is_err() {
        note("this is not the model that the circuit was found in: the same nodes are taken here".into());
    }
    let search = request.search(model, observer)?;
    search.evaluation(circuit, request.task.as_ref(), plan, observer)
}

/// A circuit with some nodes removed and others added, measured anew in its model.
///
/// # Errors
/// Returns [`Error::OtherModel`] for another model; those of [`Circuit::without`],
/// [`Circuit::with`] and [`CircuitSearch::redescribe`].
pub fn edit_circuit(
    model: &Pretrained,
    request: &CircuitRequest,
    remove: &[Node],
    add: &[Node],
    observer: &Observer,
) -> Result<Circuit> {
    request.circuit.check_part_of(&model.model)?;
    let edited = request.circuit.without(remove)?.with(add)?;
    request.search(model, observer)?.redescribe(&edited, request.task.as_ref())
}

impl CircuitRequest<'_> {
    /// The model's nodes with their mean activations, without those that the circuit was to do
    /// without.
    fn search<'m>(&self, model: &'m Pretrained, observer: &Observer) -> Result<CircuitSearch<'m>> {
        let tokenizer = model.tokenizer()?;
        let layout = self.circuit.layout(&model.model.config);
        self.circuit.keep(&layout)?;
        let mut nodes = Nodes::new(layout, &self.means(model, observer)?, &model.model.device)?;
        nodes.exclude(&self.circuit.excluded);
        Ok(CircuitSearch { model: &model.model, nodes, tokenizer })
    }

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
        let hash = model.model.hash()?;
        let stored = if self.data.is_empty() { stored_means(folder, &hash)? } else { None };
        let means = match stored {
            Some(means) => means,
            None => mean_activations(&model.model, &model.sequences(self.data, self.max_tokens)?, observer)?,
        };
        if hash == self.circuit.model.hash {
            self.circuit.check_means(&means)?;
        }
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
    // Of several circuits of a task, the number.
    let number = name.rsplit_once('.').filter(|(_, number)| number.parse::<u64>().is_ok());
    let name = circuit.task.question() + &number.map_or(String::new(), |(_, number)| format!(".{number}"));
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

impl Evaluation {
    /// Describes all that was measured; as JSON, all of it.
    ///
    /// # Errors
    /// Returns [`Error::Data`] if a number has no JSON form.
    pub fn report(&self) -> Result<Report> {
        let Self { task, nodes, edges, pairs: [train, test], .. } = self;
        let scores = ["model", "circuit", "complement"].iter().flat_map(|name| {
            let accuracy = Column::percent(format!("accuracy_{name}")).title("accuracy");
            [Column::decimals(*name, 4), accuracy]
        });
        let mut losses =
            Table::new("losses", [Column::text("logits"), Column::text("pairs")].into_iter().chain(scores));
        for (logits, set) in [("uncalibrated", &self.uncalibrated), ("calibrated", &self.calibrated)] {
            for (pairs, Scores { model, circuit, complement }) in [("train", &set.train), ("held-out", &set.test)] {
                let scores = [model, circuit, complement].into_iter().flat_map(|s| [s.loss.into(), s.accuracy.into()]);
                losses.push([logits.into(), pairs.into()].into_iter().chain(scores));
            }
        }
        let share = |share: Option<f64>| share.map_or("undefined".into(), |share| format!("{share:.3}"));
        let scale = |c: Calibration| match c.shift {
            0.0 => format!("× {:.3}", c.scale),
            shift => format!("× {:.3} {shift:+.3}", c.scale),
        };
        let means = &self.mean_logit_diffs;
        let mut report = Report::of(self)?
            .note(format!("{task}: {nodes} nodes, {edges} edges"))
            .note(format!(
                "{} ablation; {} calibration, fitted on the train pairs: circuit {}, complement {}; {train} train and \
                 {test} held-out pairs",
                self.ablation.name(),
                self.calibration,
                scale(self.circuit_calibration),
                scale(self.complement_calibration),
            ))
            .table(losses)
            .paragraph(format!(
                "mean logit difference on held-out pairs: model {:.3}, circuit {:.3}, complement {:.3}, no nodes {:.3}",
                means.model, means.circuit, means.complement, means.empty
            ))
            .note(format!(
                "faithfulness {}, completeness {}, interchange accuracy {:.1} %",
                share(self.faithfulness),
                share(self.completeness),
                100.0 * self.interchange_accuracy
            ));
        let accuracies = ["in_circuit", "in_model"].map(|name| Column::percent(name).title(name.replace('_', " ")));
        if !self.minimality.nodes.is_empty() {
            let columns = [Column::text("node").width(24), Column::decimals("delta", 4).title("loss without it")];
            let mut table = Table::new("nodes", columns.into_iter().chain(accuracies.clone()));
            for node in &self.minimality.nodes {
                let numbers = [node.delta, node.interchange_in_circuit, node.interchange_in_model];
                table.push([node.node.to_string().into()].into_iter().chain(numbers.map(Into::into)));
            }
            report = report.table(table);
        }
        if !self.minimality.edges.is_empty() {
            let [in_circuit, _] = accuracies;
            let columns = [Column::text("edge").width(46), Column::decimals("delta", 4).title("loss without it")];
            let mut table = Table::new("edges", columns.into_iter().chain([in_circuit]));
            for edge in &self.minimality.edges {
                let name = format!("{} → {}", edge.source, edge.target);
                table.push([name.into(), edge.delta.into(), edge.interchange_in_circuit.into()]);
            }
            report = report.table(table);
        }
        let columns = [Column::text("control").width(34), Column::decimals("loss", 4), Column::percent("accuracy")];
        let mut controls = Table::new("controls", columns);
        let random = &self.controls.random_circuits;
        let named = random.iter().enumerate().map(|(at, score)| (format!("random circuit {}", at + 1), score));
        let weights = self.controls.random_weights.iter().map(|score| ("its nodes, random weights".into(), score));
        let nonsense = [("the circuit, random answers".to_string(), &self.controls.nonsense_task)];
        for (name, score) in named.chain(weights).chain(nonsense) {
            controls.push([name.into(), score.loss.into(), score.accuracy.into()]);
        }
        let names = [Column::text("check").width(16), Column::text("holds"), Column::text("claim")];
        let numbers = ["value", "limit"].map(|name| Column::decimals(name, 3));
        let mut checks = Table::new("checks", names.into_iter().chain(numbers));
        for check in &self.checks {
            let holds = if check.holds { "yes" } else { "NO" };
            let claim = check.claim.as_str();
            checks.push([check.name.into(), holds.into(), claim.into(), check.value.into(), check.limit.into()]);
        }
        Ok(report.table(controls).table(checks))
    }
}

/// Ranks a model's nodes for a task, and measures circuits of every size. Mean activations are
/// taken over `tokens` tokens of `data`, or of generated Python.
///
/// # Errors
/// Those of [`CircuitSearch::curve`] and of the mean activations.
pub fn circuit_curve(
    model: &Pretrained,
    task: &Task,
    plan: &CurvePlan,
    (data, tokens): (&Source, usize),
    on_step: &(dyn Fn(PruningStep) + Sync),
    observer: &Observer,
) -> Result<Curve> {
    let (model, tokenizer) = (&model.model, model.tokenizer()?);
    let means = measured_means(model, tokenizer, data, tokens, observer)?;
    let nodes = Nodes::new(Layout::new(&model.config), &means, &model.device)?;
    CircuitSearch { model, nodes, tokenizer }.curve(task, plan, on_step, observer)
}

/// Ranks the nodes of a circuit's model for its task, with its settings and mean activations, and
/// measures circuits of every size; the curve that the circuit is one point of, or near. Ends with
/// [`Error::Stopped`] once `stop` is set.
///
/// # Errors
/// As [`evaluate_circuit`], and [`Error::Mismatch`] if the task is not known.
pub fn size_curve(
    model: &Pretrained,
    request: &CircuitRequest,
    ranking: Ranking,
    on_step: &(dyn Fn(PruningStep) + Sync),
    (stop, observer): (&Arc<AtomicBool>, &Observer),
) -> Result<Curve> {
    let circuit = request.circuit;
    let mut search = request.search(model, observer)?;
    search.nodes.stop = stop.clone();
    let task = circuit.resolve_task(request.task.clone(), search.tokenizer)?;
    let plan = CurvePlan { settings: circuit.search_settings()?, ranking, seeds: 1, targets: Vec::new() };
    search.curve(&task, &plan, on_step, observer)
}

impl Curve {
    /// All points as one table, those of targets last.
    pub fn table(&self) -> Table {
        let numbers = ["train_loss", "loss", "uncalibrated"].map(|name| Column::decimals(name, 4));
        let names = ["seed", "target", "nodes", "edges"].map(Column::number);
        let rest = [Column::percent("accuracy"), Column::decimals("ablated", 4), Column::decimals("faithfulness", 3)];
        let [train, loss, plain] = numbers;
        let numbers = [train.title("train loss"), loss.title("held-out loss"), plain.title("uncalibrated")];
        let mut table = Table::new("points", names.into_iter().chain(numbers).chain(rest));
        for point in self.points.iter().chain(&self.targets) {
            let target = point.target.map_or(Cell::Empty, Cell::Number);
            let counts = [(point.seed as usize).into(), target, point.nodes.into(), point.edges.into()];
            let losses = [point.train_loss, point.loss, point.uncalibrated, point.accuracy, point.ablated];
            let faithfulness = point.faithfulness.map_or(Cell::Empty, Cell::Number);
            table.push(counts.into_iter().chain(losses.map(Into::into)).chain([faithfulness]));
        }
        table
    }

    /// Describes the mean over seeds and the smallest and largest value, by size and by target; as
    /// JSON, everything.
    ///
    /// # Errors
    /// Returns [`Error::Data`] if a number has no JSON form.
    pub fn report(&self) -> Result<Report> {
        let Self { task, model_loss, points, targets, .. } = self;
        let losses = model_loss.iter().map(|loss| format!("{loss:.4}")).collect::<Vec<_>>().join(", ");
        let columns = ["edges", "loss", "faithfulness"].into_iter().flat_map(|name| {
            let decimals = if name == "edges" { 0 } else { 3 };
            ["", " min", " max"].map(|part| Column::decimals(format!("{name}{part}"), decimals))
        });
        let mut sizes = Table::new("sizes", [Column::number("nodes")].into_iter().chain(columns.clone()));
        for same in groups(points, |point| point.nodes as f64) {
            sizes.push([same[0].nodes.into()].into_iter().chain(spread(&same)));
        }
        let names = [Column::number("target"), Column::number("seeds")];
        let nodes = ["nodes", "nodes min", "nodes max"].map(|name| Column::decimals(name, 0));
        let mut chosen = Table::new("targets", names.into_iter().chain(nodes).chain(columns));
        for same in groups(targets, |point| -point.target.unwrap_or_default()) {
            let nodes = extent(same.iter().map(|point| point.nodes as f64));
            let first = [same[0].target.map_or(Cell::Empty, Cell::Number), same.len().into()];
            chosen.push(first.into_iter().chain(nodes).chain(spread(&same)));
        }
        let report = Report::of(self)?
            .note(format!("{task}; held-out loss of the model by seed: {losses}"))
            .note("edges, held-out loss and faithfulness of the first nodes of each ranking: mean, least and most over seeds")
            .table(sizes);
        let report = if targets.is_empty() {
            report
        } else {
            report.paragraph("the fewest first nodes that reach a target on the train pairs").table(chosen)
        };
        Ok(report)
    }

    /// Held-out loss over nodes: the mean over seeds, and the least and most of them.
    pub fn chart(&self) -> Chart {
        let seeds = groups(&self.points, |point| point.seed as f64);
        let points = |same: &Vec<&CurvePoint>| same.iter().map(|point| (point.nodes as f64, point.loss)).collect();
        let seeds: Vec<Vec<(f64, f64)>> = seeds.iter().map(points).collect();
        let name = match seeds.len() {
            0 | 1 => String::new(),
            many => format!("mean of {many} seeds, least to most"),
        };
        Chart {
            title: format!("{}: the first nodes of a ranking", self.task),
            x: Axis::log("nodes"),
            y: Axis::linear("held-out task loss (nats)"),
            series: vec![Series::spread(name, 0, &seeds)],
        }
    }
}

/// The points with the same key together, keys ascending.
fn groups(points: &[CurvePoint], key: impl Fn(&CurvePoint) -> f64) -> Vec<Vec<&CurvePoint>> {
    let mut sorted: Vec<&CurvePoint> = points.iter().collect();
    sorted.sort_by(|a, b| key(a).total_cmp(&key(b)));
    sorted.chunk_by(|a, b| key(a) == key(b)).map(<[_]>::to_vec).collect()
}

/// Mean, least and most.
fn extent(values: impl Iterator<Item = f64>) -> [Cell; 3] {
    let values: Vec<f64> = values.collect();
    let fold = |f: fn(f64, f64) -> f64| values.iter().copied().reduce(f).map_or(Cell::Empty, Cell::Number);
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let mean = if values.is_empty() { Cell::Empty } else { Cell::Number(mean) };
    [mean, fold(f64::min), fold(f64::max)]
}

/// The extents of edges, held-out loss and faithfulness.
fn spread(points: &[&CurvePoint]) -> impl Iterator<Item = Cell> {
    let edges = extent(points.iter().map(|point| point.edges as f64));
    let loss = extent(points.iter().map(|point| point.loss));
    let faithfulness = extent(points.iter().filter_map(|point| point.faithfulness));
    edges.into_iter().chain(loss).chain(faithfulness)
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
