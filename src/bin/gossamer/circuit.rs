//! `gossamer circuit`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use gossamer::Error;
use gossamer::circuits::{Circuit, dot, json, show, svg};
use gossamer::files::{check_output, write_atomic};

use crate::measure::{self, BinariseArgs, StatsArgs};

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
        /// A picture, a Graphviz graph, or JSON with the residual paths spelled out
        #[arg(long)]
        format: Format,
        /// The file to write, in place of standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// What the nodes' activations are like in text: moments, histograms, snippets; written as FILE's .statistics.json
    Stats(StatsArgs),
    /// How well the circuit does with two states a node; written as FILE's .binary.json
    Binarise(BinariseArgs),
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Svg,
    Dot,
    Json,
}

pub fn run(args: &Args) -> Result<()> {
    let (text, out) = match &args.command {
        Command::Show { file } => (show(&Circuit::load(file)?), None),
        Command::Export { file, format, out } => {
            out.as_ref().map_or(Ok(()), check_output)?;
            let circuit = Circuit::load(file)?;
            let text = match format {
                Format::Svg => svg(&circuit),
                Format::Dot => dot(&circuit),
                Format::Json => json(&circuit),
            };
            (text, out.as_ref())
        }
        Command::Stats(args) => return measure::stats(args),
        Command::Binarise(args) => return measure::binarise(args),
    };
    match out {
        Some(path) => write_atomic(path, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io(path, e)))?,
        None => std::io::stdout().lock().write_all(text.as_bytes())?,
    }
    Ok(())
}
