//! `gossamer circuit`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use gossamer::circuits::tasks::Task;
use gossamer::circuits::{Circuit, CircuitFormat, FORMATS, show};
use gossamer::files::check_output;
use gossamer::formats::Pretrained;
use gossamer::pipelines::{CircuitRequest, binarise_circuit, circuit_statistics, statistics_report};
use gossamer::settings::count;
use gossamer::terminal::Progress;

use crate::open::{MAX_TOKENS, ModelArgs, SourceArgs};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
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
    /// The circuit's task as a .toml or .jsonl file, if it is not built in
    #[arg(long, value_name = "FILE")]
    task: Option<PathBuf>,
    /// A tokenizer.json, if the model comes without one
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// auto, cpu, gpu, gpu:INDEX or gpu:PART-OF-A-NAME (see `gossamer devices`)
    #[arg(long, default_value = "auto")]
    device: String,
    /// Do not go to the network
    #[arg(long)]
    offline: bool,
}

#[derive(clap::Args)]
struct StatsArgs {
    #[command(flatten)]
    circuit: CircuitArgs,
    /// Files and folders of text to run the model on [default: generated Python]; may be repeated
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    /// Tokens of text to read at most
    #[arg(long, default_value_t = 65_536, value_parser = count::<usize>(1, MAX_TOKENS))]
    max_tokens: usize,
    /// Decides which of equal activations are shown
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(clap::Args)]
struct BinariseArgs {
    #[command(flatten)]
    circuit: CircuitArgs,
    /// Text to take mean activations over, if they are not next to the circuit [default: generated
    /// Python]
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    /// Tokens that mean activations are taken over
    #[arg(long, default_value_t = 65_536, value_parser = count::<usize>(1, MAX_TOKENS))]
    mean_tokens: usize,
}

pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Show { file } => print(&show(&Circuit::load(file)?)),
        Command::Export { file, format, out } => {
            out.as_ref().map_or(Ok(()), check_output)?;
            let (circuit, format) = (Circuit::load(file)?, CircuitFormat::named(format)?);
            match out {
                Some(path) => Ok(format.save(&circuit, path)?),
                None => print(&(format.write)(&circuit)),
            }
        }
        Command::Stats(StatsArgs { circuit, data, max_tokens, seed }) => {
            let path = circuit.file.with_extension("statistics.json");
            circuit.measure(&path, data, *max_tokens, |model, request, progress| {
                let note = |note| progress.say(format!("note: {note}"));
                let statistics = circuit_statistics(model, request, *seed, &progress.observer(), &note)?;
                statistics.save(&path)?;
                Ok(statistics_report(&statistics, model).text())
            })
        }
        Command::Binarise(BinariseArgs { circuit, data, mean_tokens }) => {
            let path = circuit.file.with_extension("binary.json");
            circuit.measure(&path, data, *mean_tokens, |model, request, progress| {
                let note = |note| progress.say(format!("note: {note}"));
                let binary = binarise_circuit(model, request, &progress.observer(), &note)?;
                binary.save(&path)?;
                Ok(binary.report().text())
            })
        }
    }
}

impl CircuitArgs {
    /// Opens the circuit and its model, and prints what `work` returns and writes to `path`.
    fn measure(
        &self,
        path: &std::path::Path,
        data: &[PathBuf],
        max_tokens: usize,
        work: impl FnOnce(&Pretrained, &CircuitRequest, &Progress) -> Result<String>,
    ) -> Result<()> {
        check_output(path)?;
        let progress = Progress::new();
        progress.stage("opening the model");
        let circuit = Circuit::load(&self.file)?;
        let task = self.task.as_deref().map(Task::from_file).transpose()?;
        let source = SourceArgs { model: self.model.clone(), tokenizer: self.tokenizer.clone(), offline: self.offline };
        let model = ModelArgs { source, device: self.device.clone() }.open()?;
        let request = CircuitRequest { circuit: &circuit, file: &self.file, task, data, max_tokens };
        progress.stage("measuring");
        let text = work(&model, &request, &progress)?;
        drop(progress);
        print(&format!("{text}\n{}\n", path.display()))
    }
}

fn print(text: &str) -> Result<()> {
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}
