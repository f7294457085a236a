//! Every command but training.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod bridge;
mod check;
mod circuit;
mod convert;
mod devices;
mod eval;
mod generate;
mod inspect;
mod measure;
mod open;
mod output;
mod record;
mod run;
mod steer;
mod sweep;
mod tasks;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gossamer::device::on_worker;
use gossamer::terminal::{self, signals};

/// Weight-sparse transformers: run them, look inside, intervene
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Continue a prompt
    Generate(generate::Args),
    /// Next-token probabilities of a prompt, before and after interventions
    Run(run::Args),
    /// Write logits and activations to a safetensors file
    Record(record::Args),
    /// What a model is made of: shapes, nonzeros, dead ends, largest weights
    Inspect(inspect::Args),
    /// Loss on text or tokens
    Eval(eval::Args),
    /// Circuits: show them, draw them, measure them
    Circuit(circuit::Args),
    /// Bridges between a dense and a sparse model: measure them
    Bridge(bridge::Args),
    /// Make a dense model do what a channel of the sparse one says, through bridges
    Steer(steer::Args),
    /// Write any model as a folder in Hugging Face's layout, under the published names
    Convert(convert::Args),
    /// The twenty tasks: what they ask, and how well a model does them
    Tasks(tasks::Args),
    /// Is this device right? Runs golden cases and compares every number
    Check(check::Args),
    /// How fast is this device? Numbers to compare with other machines'
    Bench(bench::Args),
    /// One command with many settings, whole or a part of an array job; `sweep collect`: what came out
    Sweep(sweep::Args),
    /// List the graphics adapters that `--device gpu:…` can name
    Devices(devices::Args),
}

fn main() -> ExitCode {
    terminal::without_desktop();
    let cli: Cli = match terminal::parse(|_| None) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    terminal::start_log("warn,gossamer=info");
    let result = on_worker(|| match cli.command {
        Command::Generate(args) => generate::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Record(args) => record::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Circuit(args) => circuit::run(&args),
        Command::Bridge(args) => bridge::run(&args),
        Command::Steer(args) => steer::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Tasks(args) => tasks::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Devices(args) => devices::run(&args),
    });
    match signals::exit_code() {
        Some(code) => {
            let stopped = |error: &anyhow::Error| matches!(error.downcast_ref(), Some(gossamer::Error::Stopped));
            if let Some(error) = result.err().filter(|error| !stopped(error)) {
                terminal::say(format_args!("error: {}", gossamer::error::explain(error.as_ref())));
            }
            ExitCode::from(code)
        }
        None => terminal::finish(result),
    }
}
