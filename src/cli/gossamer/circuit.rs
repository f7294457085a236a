//! `gossamer circuit`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use crate::cli::FieldArgs;
use crate::circuits::tasks;
use crate::circuits::{Circuit, CircuitFormat, FORMATS, show};
use crate::files::check_output;
use crate::formats::Pretrained;
use crate::pipelines::{CircuitRequest, binarise_circuit, circuit_statistics, statistics_report};
use crate::report::Report;
use crate::settings::count;
use crate::terminal::Progress;

use super::open::{DeviceArgs, LoadArgs, MAX_TOKENS, report};

#[derive(Subcommand)]
pub enum Args {
    /// Print a circuit file as text, node by node and edge by edge
    Show {
        /// The circuit file
        file: PathBuf,
    },
    /// Draw a circuit file, or write it for other programs
    Export {
        /// The circuit file
        file: PathBuf,
        /// A picture, a Graphviz graph, JSON with the residual paths spelled out, or text
        #[arg(long, value_parser = PossibleValuesParser::new(FORMATS.iter().map(|format| format.name)))]
        format: String,
        /// The file to write, in place of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Statistics of the nodes' activations in text: moments, histograms, snippets; written as
    /// FILE's .statistics.json
    Stats(StatsArgs),
    /// The losses of the circuit with two states a node; written as FILE's .binary.json
    Binarise(BinariseArgs),
}

/// A circuit file, and the model it is a part of.
#[derive(clap::Args)]
struct CircuitArgs {
    /// The circuit file
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
        Args::Show { file } => print(&show(&Circuit::load(file)?)),
        Args::Export { file, format, out } => {
            out.as_ref().map_or(Ok(()), check_output)?;
            let (circuit, format) = (Circuit::load(file)?, CircuitFormat::named(format)?);
            if let Some(path) = out { Ok(format.save(&circuit, path)?) } else { print(&(format.write)(&circuit)) }
        }
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
            let circuit = Circuit::load(&self.file)?;
            let task = self.task.as_deref().map(tasks::open).transpose()?;
            let model = self.load.open(&self.model, &self.device, progress)?;
            let data = &field.source(data, self.load.offline);
            let request = CircuitRequest { circuit: &circuit, file: &self.file, task, data, max_tokens };
            progress.stage("measuring");
            Ok(work(&model, &request, &path, progress)?.paragraph(path.display().to_string()))
        })
    }
}

fn print(text: &str) -> Result<()> {
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}
