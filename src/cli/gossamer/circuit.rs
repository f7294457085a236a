//! `gossamer circuit`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail};
use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use crate::chart::picture_file;
use crate::cli::{ContextArgs, FieldArgs};
use crate::circuits::tasks;
use crate::circuits::pipeline::SearchRequest;
use crate::circuits::evaluate::EvaluationPlan;
use crate::circuits::curve::CurvePlan;
use crate::circuits::prune::{MAX_PAIRS, PruningStep, SearchSettings};
use crate::circuits::search::Ranking;
use crate::circuits::{Ablation, CalibrationKind, Circuit, CircuitFormat, FORMATS, Node, show};
use crate::files::check_output;
use crate::formats::{OpenedCircuit, Pretrained};
use crate::pipelines::{
    CIRCUIT_EXPORTS, CircuitRequest, ExportRequest, binarise_circuit, circuit_curve, circuit_statistics, edit_circuit,
    evaluate_circuit, one_circuit, statistics_report,
};
use crate::report::Report;
use crate::settings::{count, number, split, within};
use crate::text::source::Source;
use crate::terminal::{Progress, say};

use super::open::{DeviceArgs, JsonArgs, LoadArgs, MAX_TOKENS, ModelArgs, report};

#[derive(Subcommand)]
pub enum Args {
    /// Print a circuit as text, node by node and edge by edge
    Show {
        /// A circuit file, or a published viz_data.pt
        file: PathBuf,
        #[command(flatten)]
        threshold: ThresholdArgs,
    },
    /// Evaluate a circuit: losses with any ablation, faithfulness, completeness, minimality,
    /// interchange interventions, and controls that a wrong circuit fails
    Eval(EvalArgs),
    /// Circuits of every size by one ranking of a model's nodes: loss against nodes and edges
    Curve(CurveArgs),
    /// Remove nodes from a circuit or add some, and measure it anew; without either, only measure it
    Edit(EditArgs),
    /// Draw a circuit, or write it for other programs
    Export(ExportArgs),
    /// Statistics of the nodes' activations in text: moments, histograms, snippets; written as
    /// FILE's .statistics.json
    Stats(StatsArgs),
    /// The losses of the circuit with two states a node; written as FILE's .binary.json
    Binarise(BinariseArgs),
}

/// How much of a circuit to show.
#[derive(Clone, Copy, clap::Args)]
pub struct ThresholdArgs {
    /// Leave out nodes and edges whose ablation changes the task loss by less [default: show all]
    #[arg(long, value_name = "NATS", value_parser = number(within(0.0, 1e6)))]
    threshold: Option<f64>,
}

impl ThresholdArgs {
    /// The part of a circuit to show.
    fn part(self, circuit: &Circuit) -> crate::Result<Circuit> {
        self.threshold.map_or_else(|| Ok(circuit.clone()), |least| circuit.above_threshold(least))
    }
}

#[derive(clap::Args)]
pub struct ExportArgs {
    /// A circuit file, or a published viz_data.pt; several for a page of HTML
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[arg(long, value_parser = format_names(), help = formats_help())]
    format: String,
    /// The file to write, in place of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    threshold: ThresholdArgs,
    /// The model that the circuit is a part of: viz has more with it, neuronpedia needs it [html:
    /// the one that the circuit names]
    #[arg(long)]
    model: Option<String>,
    /// The circuit's task (a name, or a .toml or .jsonl file), if it is not the built-in one that
    /// the circuit names
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// A circuit, and the model it is a part of.
#[derive(clap::Args)]
struct CircuitArgs {
    /// A circuit file, or a published viz_data.pt
    file: PathBuf,
    /// The model that it is a part of: a run, a checkpoint, a Hugging Face folder, a published
    /// folder, or a Hub id
    #[arg(long)]
    model: String,
    /// The circuit's task (a name, or a .toml or .jsonl file), if it is not the built-in one that
    /// the circuit names
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(clap::Args)]
pub struct StatsArgs {
    #[command(flatten)]
    circuit: CircuitArgs,
    /// Files and folders of text to run the model on [default: generated Python]; may be repeated
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    field: FieldArgs,
    /// Tokens of text to read at most
    #[arg(long, default_value_t = 65_536, value_parser = count::<usize>(1, MAX_TOKENS))]
    max_tokens: usize,
    /// Decides which of equal activations are shown
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(clap::Args)]
pub struct EvalArgs {
    /// A circuit file, or a published viz_data.pt
    file: PathBuf,
    /// Another model that has its nodes [default: the one that it was found in]
    #[arg(long)]
    model: Option<String>,
    /// Another task: a name, or a .toml or .jsonl file [default: the circuit's]
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    #[command(flatten)]
    context: ContextArgs,
    /// What nodes outside of the circuit are set to: means over text or over the task's prompts, 0,
    /// their activations in another pair's prompt (resample) or in the pair's other prompt
    /// (interchange)
    #[arg(long, value_enum, default_value = "mean")]
    ablation: Ablation,
    /// What is fitted to the logit differences, on train pairs: nothing, a positive scale, or scale
    /// and shift
    #[arg(long, value_enum, default_value = "scale")]
    calibration: CalibrationKind,
    /// Pairs of each split [default: as many as it was found with]
    #[arg(long, value_parser = count::<usize>(1, MAX_PAIRS))]
    pairs: Option<usize>,
    /// Random circuits of its size to compare it with; 0 leaves out random weights, too
    #[arg(long, default_value_t = 10, value_parser = count::<usize>(0, 10_000))]
    controls: usize,
    /// Do not examine every node and edge
    #[arg(long)]
    no_parts: bool,
    /// Decides random circuits, weights and donors
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    means: MeansArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    output: JsonArgs,
}

#[derive(clap::Args)]
pub struct CurveArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A task's name, or a .toml or .jsonl file
    #[arg(long, value_name = "TASK")]
    task: String,
    #[command(flatten)]
    context: ContextArgs,
    /// Rankings, each with another seed
    #[arg(long, default_value_t = 3, value_parser = count::<u64>(1, 1000))]
    seeds: u64,
    /// Losses on the train pairs whose smallest circuits are shown; may be repeated
    #[arg(long, value_name = "LOSS", num_args = 1.., default_values_t = [0.3, 0.15, 0.05])]
    target_loss: Vec<f64>,
    /// Settings of the ranking, such as k_coef=1e-3 (`train --settings`); may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// How nodes are ranked: `learned` gates, or the baselines `attribution` and
    /// `integrated-gradients`
    #[arg(long, value_enum, default_value = "learned")]
    ranking: Ranking,
    #[command(flatten)]
    means: MeansArgs,
    /// Write every point of every seed into this file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw loss against nodes into this file (.png, .svg or .pdf)
    #[arg(long, alias = "png", value_name = "FILE", value_parser = picture_file)]
    chart: Option<PathBuf>,
    #[command(flatten)]
    output: JsonArgs,
}

#[derive(clap::Args)]
pub struct EditArgs {
    #[command(flatten)]
    circuit: CircuitArgs,
    /// A node to remove, such as 0.attn.v[5]; may be repeated
    #[arg(long, value_name = "NODE", num_args = 1..)]
    remove: Vec<Node>,
    /// A node to add; may be repeated
    #[arg(long, value_name = "NODE", num_args = 1..)]
    add: Vec<Node>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    means: MeansArgs,
}

/// Where mean activations come from.
#[derive(clap::Args)]
struct MeansArgs {
    /// Text to take mean activations over, if they are not next to the circuit [default: generated
    /// Python]
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    field: FieldArgs,
    /// Tokens that mean activations are taken over
    #[arg(long, default_value_t = 65_536, value_parser = count::<usize>(1, MAX_TOKENS))]
    mean_tokens: usize,
}

#[derive(clap::Args)]
pub struct BinariseArgs {
    #[command(flatten)]
    circuit: CircuitArgs,
    #[command(flatten)]
    means: MeansArgs,
}

pub fn run(args: &Args) -> Result<()> {
    match args {
        Args::Show { file, threshold } => print(&show(&threshold.part(&open(file, &say)?.circuit)?)),
        Args::Export(args) => args.run(),
        Args::Stats(StatsArgs { circuit, data, field, max_tokens, seed }) => {
            circuit.measure("statistics.json", (data, field), *max_tokens, |model, request, path, progress| {
                let note = |note| progress.say(format!("note: {note}"));
                let statistics = circuit_statistics(model, request, *seed, &progress.observer(), &note)?;
                statistics.save(path)?;
                Ok(statistics_report(&statistics, model))
            })
        }
        Args::Eval(args) => args.run(),
        Args::Curve(args) => args.run(),
        Args::Edit(args) => args.run(),
        Args::Binarise(BinariseArgs { circuit, means: MeansArgs { data, field, mean_tokens } }) => {
            circuit.measure("binary.json", (data, field), *mean_tokens, |model, request, path, progress| {
                let note = |note| progress.say(format!("note: {note}"));
                let binary = binarise_circuit(model, request, &progress.observer(), &note)?;
                binary.save(path)?;
                Ok(binary.report())
            })
        }
    }
}

/// The names of all formats.
fn format_names() -> PossibleValuesParser {
    let measured = CIRCUIT_EXPORTS.iter().map(|export| export.name);
    PossibleValuesParser::new(FORMATS.iter().map(|format| format.name).chain(measured))
}

fn formats_help() -> String {
    let plain = FORMATS.iter().map(|format| (format.name, format.about));
    let measured = CIRCUIT_EXPORTS.iter().map(|export| (export.name, export.about));
    let all: Vec<_> = plain.chain(measured).map(|(name, about)| format!("{name}: {about}")).collect();
    all.join("; ")
}

/// Opens a circuit, and says what of its file was not understood.
fn open(file: &Path, say: &dyn Fn(String)) -> Result<OpenedCircuit> {
    let mut opened = OpenedCircuit::open(file)?;
    match opened.circuit.clone().with_annotations_of(file) {
        Ok(circuit) => opened.circuit = circuit,
        Err(error) => say(format!("note: {error}")),
    }
    opened.missing().iter().for_each(|what| say(format!("note: {what}")));
    Ok(opened)
}

impl ExportArgs {
    fn run(&self) -> Result<()> {
        self.out.as_ref().map_or(Ok(()), check_output)?;
        let Some(export) = CIRCUIT_EXPORTS.iter().find(|export| export.name == self.format) else {
            let [file] = &self.files[..] else { return Err(one_circuit(&self.format).into()) };
            let format = CircuitFormat::named(&self.format)?;
            if format.read.is_some() {
                self.whole()?;
            }
            let circuit = self.threshold.part(&open(file, &say)?.circuit)?;
            return match &self.out {
                Some(path) => Ok(format.save(&circuit, path)?),
                None => print(&(format.write)(&circuit)),
            };
        };
        if !export.shows_part {
            self.whole()?;
        }
        let progress = Progress::new();
        let opened: Vec<_> =
            self.files.iter().map(|file| open(file, &|note| progress.say(note))).collect::<Result<_>>()?;
        let task = self.task.as_deref().map(tasks::open).transpose()?;
        let own = || {
            let named = opened.iter().zip(&self.files).filter_map(|(opened, file)| opened.model_path(file));
            named.filter(|path| export.opens_model && path.exists()).map(|path| path.display().to_string()).next()
        };
        let name = self.model.clone().or_else(own);
        let model = name.map(|model| self.load.open(&model, &self.device, &progress)).transpose()?;
        let (data, max_tokens) = (&Source::default(), SearchRequest::MEAN_TOKENS);
        let (note, observer) = (|note| progress.say(format!("note: {note}")), progress.observer());
        let requests: Vec<_> = opened
            .iter()
            .zip(&self.files)
            .map(|(opened, file)| {
                let (circuit, payload, task) = (&opened.circuit, opened.payload.as_deref(), task.clone());
                let circuit = CircuitRequest { circuit, file, payload, task, data, max_tokens };
                let (model, threshold) = (model.as_ref(), self.threshold.threshold);
                ExportRequest { circuit, model, threshold, measure: true, observer: &observer, note: &note }
            })
            .collect();
        progress.stage("writing");
        Ok(export.save(&requests, self.out.as_deref().unwrap_or(Path::new("-")))?)
    }

    /// Returns an error if only a part of the circuit is asked for.
    fn whole(&self) -> Result<()> {
        match self.threshold.threshold {
            Some(_) => bail!("{} holds whole circuits: leave --threshold out", self.format),
            None => Ok(()),
        }
    }
}

impl EvalArgs {
    fn run(&self) -> Result<()> {
        report(&[], self.output.json, |progress| {
            let opened = open(&self.file, &|note| progress.say(note))?;
            let own = self.context.context.map(|_| opened.circuit.task.question());
            let task = self.task.clone().or(own).map(|name| self.context.of(tasks::open(&name)?)).transpose()?;
            let own = || opened.model_path(&self.file).map(|path| path.display().to_string());
            let Some(model) = self.model.clone().or_else(own) else {
                bail!("{} does not say which model it is of: name one with --model", self.file.display());
            };
            let model = self.load.open(&model, &self.device, progress)?;
            let data = &self.means.field.source(&self.means.data, self.load.offline);
            let request = CircuitRequest {
                circuit: &opened.circuit,
                file: &self.file,
                payload: None,
                task,
                data,
                max_tokens: self.means.mean_tokens,
            };
            let plan = EvaluationPlan {
                ablation: self.ablation,
                calibration: self.calibration,
                pairs: self.pairs,
                controls: self.controls,
                parts: !self.no_parts,
                seed: self.seed,
            };
            progress.stage("evaluating the circuit");
            let note = |note| progress.say(format!("note: {note}"));
            Ok(evaluate_circuit(&model, &request, &plan, &progress.observer(), &note)?.report()?)
        })
    }
}

impl CurveArgs {
    fn run(&self) -> Result<()> {
        let mut settings = SearchSettings::default();
        self.set.iter().flat_map(|text| split(text)).try_for_each(|assignment| settings.set(&assignment))?;
        for &target_loss in &self.target_loss {
            SearchSettings { target_loss, ..settings.clone() }.validate()?;
        }
        let (ranking, targets) = (self.ranking, self.target_loss.clone());
        let plan = CurvePlan { settings, ranking, seeds: self.seeds, targets };
        report(&[self.csv.as_deref(), self.chart.as_deref()], self.output.json, |progress| {
            let task = self.context.of(tasks::open(&self.task)?)?;
            let model = self.model.open(progress)?;
            let data = &self.means.field.source(&self.means.data, self.model.source.load.offline);
            let steps = AtomicU64::new(0);
            let total = plan.settings.steps.saturating_mul(plan.seeds);
            let part = progress.part("learning gates");
            let on_step = |step: PruningStep| {
                let done = steps.fetch_add(1, Ordering::Relaxed) + 1;
                part.at(done, total, format!("loss {:.3}, {} nodes", step.loss, step.kept));
            };
            progress.stage("measuring mean activations");
            let means = (data, self.means.mean_tokens);
            let curve = circuit_curve(&model, &task, &plan, means, &on_step, &progress.observer())?;
            self.csv.as_deref().map_or(Ok(()), |path| curve.table().save_csv(path))?;
            self.chart.as_deref().map_or(Ok(()), |path| curve.chart().save(path))?;
            Ok(curve.report()?)
        })
    }
}

impl EditArgs {
    fn run(&self) -> Result<()> {
        check_output(&self.out)?;
        let Self { circuit: CircuitArgs { file, model, task, load, device }, means, .. } = self;
        report(&[], false, |progress| {
            let opened = open(file, &|note| progress.say(note))?;
            let task = task.as_deref().map(tasks::open).transpose()?;
            let model = load.open(model, device, progress)?;
            let data = &means.field.source(&means.data, load.offline);
            let max_tokens = means.mean_tokens;
            let request = CircuitRequest { circuit: &opened.circuit, file, payload: None, task, data, max_tokens };
            progress.stage("measuring");
            let circuit = edit_circuit(&model, &request, &self.remove, &self.add, &progress.observer())?;
            circuit.save(&self.out)?;
            Ok(Report::new().note(show(&circuit)).paragraph(self.out.display().to_string()))
        })
    }
}

impl CircuitArgs {
    /// Opens the circuit and its model, and prints the report of `work`, which writes a file next
    /// to the circuit's.
    fn measure(
        &self,
        extension: &str,
        (data, field): (&[PathBuf], &FieldArgs),
        max_tokens: usize,
        work: impl FnOnce(&Pretrained, &CircuitRequest, &Path, &Progress) -> Result<Report>,
    ) -> Result<()> {
        let path = self.file.with_extension(extension);
        check_output(&path)?;
        report(&[], false, |progress| {
            let opened = open(&self.file, &|note| progress.say(note))?;
            let task = self.task.as_deref().map(tasks::open).transpose()?;
            let model = self.load.open(&self.model, &self.device, progress)?;
            let data = &field.source(data, self.load.offline);
            let request = CircuitRequest {
                circuit: &opened.circuit,
                file: &self.file,
                payload: opened.payload.as_deref(),
                task,
                data,
                max_tokens,
            };
            progress.stage("measuring");
            Ok(work(&model, &request, &path, progress)?.paragraph(path.display().to_string()))
        })
    }
}

fn print(text: &str) -> Result<()> {
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}
