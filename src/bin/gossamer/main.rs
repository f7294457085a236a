//! Every command but training.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod bridged;
mod measure;
mod open;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gossamer::device::on_worker;
use gossamer::terminal;

/// Weight-sparse transformers: run them, look inside, intervene
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// A command for each row: its help, its name, and its module with `Args` and `run`.
macro_rules! commands {
    ($($(#[$help:meta])+ $name:ident: $module:ident,)+) => {
        $(mod $module;)+

        #[derive(Subcommand)]
        enum Command {
            $($(#[$help])+ $name($module::Args),)+
        }

        fn run(command: &Command) -> anyhow::Result<()> {
            match command {
                $(Command::$name(args) => $module::run(args),)+
            }
        }
    };
}

commands! {
    /// Continue a prompt
    Generate: generate,
    /// Next-token probabilities of a prompt, before and after interventions
    Run: run,
    /// Write logits and activations to a safetensors file
    Record: record,
    /// What a model is made of: shapes, nonzeros, dead ends, largest weights
    Inspect: inspect,
    /// Loss on text or tokens
    Eval: eval,
    /// Circuits: show them, draw them, measure them
    Circuit: circuit,
    /// Bridges between a dense and a sparse model: measure them
    Bridge: bridge,
    /// Make a dense model do what a channel of the sparse one says, through bridges
    Steer: steer,
    /// Write any model as a folder in Hugging Face's layout, under the published names
    Convert: convert,
    /// The twenty tasks: what they ask, and how well a model does them
    Tasks: tasks,
    /// Is this device right? Runs golden cases and compares every number
    Check: check,
    /// How fast is this device? Numbers to compare with other machines'
    Bench: bench,
    /// One command with many settings, whole or a part of an array job; `sweep collect`: the results
    Sweep: sweep,
    /// List the graphics adapters that `--device gpu:…` can name
    Devices: devices,
}

fn main() -> ExitCode {
    terminal::without_desktop();
    match terminal::parse::<Cli>(|_| None) {
        Ok(cli) => {
            terminal::start_log("warn,gossamer=info");
            terminal::finish(on_worker(|| run(&cli.command)))
        }
        Err(code) => code,
    }
}
