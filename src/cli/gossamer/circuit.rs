//! `gossamer circuit`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use crate::cli::FieldArgs;
use crate::circuits::tasks;
use crate::circuits::pipeline::SearchRequest;
use crate::circuits::{CircuitFormat, FORMATS, show};
use crate::files::check_output;
use crate::formats::{OpenedCircuit, Pretrained};
use crate::pipelines::{
    CIRCUIT_EXPORTS, CircuitRequest, ExportRequest, binarise_circuit, circuit_statistics, statistics_report,
};
use crate::report::Report;
use crate::settings::count;
use crate::text::source::Source;
use crate::terminal::{Progress, say};

use super::open::{DeviceArgs, LoadArgs, MAX_TOKENS, report};

#[derive(Subcommand)]
pub enum Args {
    /// Print a circuit as text, node by node and edge by edge
    Show {
        /// A circuit file, or a published viz_data.pt
        file: PathBuf,
    },
    /// Draw a circuit, or write it for other programs
    Export(ExportArgs),
    /// Statistics of the nodes' activations in text: moments, histograms, snippets; written as
    /// FILE's .statistics.json
    Stats(StatsArgs),
    /// The losses of the circuit with two states a node; written as FILE's .binary.json
    Binarise(BinariseArgs),
}

#[derive(clap::Args)]
pub struct ExportArgs {
    /// A circuit file, or a published viz_data.pt
    file: PathBuf,
    #[arg(long, value_parser = format_names(), help = formats_help())]
    format: String,
    /// The file to write, in place of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The model that the circuit is a part of: viz has more with it, neuronpedia needs it
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
pub struct BinariseArgs {
    #[command(flatten)]
    circuit: CircuitArgs,
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

pub fn run(args: &Args) -> Result<()> {
    match args {
        Args::Show { file } => print(&show(&open(file, &say)?.circuit)),
        Args::Export(args) => args.run(),
        Args::Stats(StatsArgs { circuit, data, field, max_tokens, seed }) => {
            circuit.measure("statistics.json", (data, field), *max_tokens, |model, request, path, progress| {
                let note = |note| progress.say(format!("note: {note}"));
                let statistics = circuit_statistics(model, request, *seed, &progress.observer(), &note)?;
                statistics.save(path)?;
                Ok(statistics_report(&statistics, model))
            })
        }
        Args::Binarise(BinariseArgs { circuit, data, field, mean_tokens }) => {
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
    let opened = OpenedCircuit::open(file)?;
    opened.missing().iter().for_each(|what| say(format!("note: {what}")));
    Ok(opened)
}

impl ExportArgs {
    fn run(&self) -> Result<()> {
        self.out.as_ref().map_or(Ok(()), check_output)?;
        let Some(export) = CIRCUIT_EXPORTS.iter().find(|export| export.name == self.format) else {
            let (opened, format) = (open(&self.file, &say)?, CircuitFormat::named(&self.format)?);
            return match &self.out {
                Some(path) => Ok(format.save(&opened.circuit, path)?),
                None => print(&(format.write)(&opened.circuit)),
            };
        };
        let progress = Progress::new();
        let opened = open(&self.file, &|note| progress.say(note))?;
        let task = self.task.as_deref().map(tasks::open).transpose()?;
        let model = self.model.as_ref().map(|model| self.load.open(model, &self.device, &progress)).transpose()?;
        let (circuit, payload) = (&opened.circuit, opened.payload.as_deref());
        let (data, max_tokens) = (&Source::default(), SearchRequest::MEAN_TOKENS);
        let circuit = CircuitRequest { circuit, file: &self.file, payload, task, data, max_tokens };
        let note = |note| progress.say(format!("note: {note}"));
        let request = ExportRequest { circuit, model: model.as_ref(), observer: &progress.observer(), note: &note };
        progress.stage("writing");
        Ok(export.save(&request, self.out.as_deref().unwrap_or(Path::new("-")))?)
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
