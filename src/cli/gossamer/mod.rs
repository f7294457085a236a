//! The command `gossamer`: everything but training.

mod open;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::device::on_worker;
use crate::terminal;
use clap::{Parser, Subcommand};

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
    /// A trained model with a dense partner, bridges and circuits, to try everything on
    Example: example,
    /// Continue a prompt
    Generate: generate,
    /// Next-token probabilities of a prompt, before and after interventions
    Run: run,
    /// The tokens of a text
    Tokenize: tokenize,
    /// Write logits and activations to a safetensors file
    Record: record,
    /// Shapes, nonzeros, dead ends and largest weights of a model
    Inspect: inspect,
    /// Loss on text or tokens
    Eval: eval,
    /// A run as one page of HTML: curves, densities, tasks, circuits and bridges
    Report: report,
    /// Circuits: show, draw and measure them
    #[command(subcommand)]
    Circuit: circuit,
    /// Bridges between a dense and a sparse model: evaluate them
    #[command(subcommand)]
    Bridge: bridge,
    /// Steer a dense model by channels of a sparse one, through bridges
    Steer: steer,
    /// Write any model as a folder that Hugging Face's and the published code load
    Convert: convert,
    /// Push any model to the Hugging Face Hub, with a model card made from its run
    Push: push,
    /// Tasks: their pairs, and how well a model does them
    #[command(subcommand)]
    Tasks: tasks,
    /// Draw the curves of runs over each other
    Plot: plot,
    /// Check that a device computes correctly, by golden cases and operations
    Check: check,
    /// Measure the speed of a device, and compare it with others
    Bench: bench,
    /// One command with many settings, whole or a part of an array job, and its results
    Sweep: sweep,
    /// List the graphics adapters that `--device gpu:…` can name
    Devices: devices,
}

/// Runs the command with the arguments `args`, the first of which is its name. `programs` is the
/// folder with the programs that a sweep starts.
pub fn main(args: impl IntoIterator<Item = OsString>, programs: PathBuf) -> ExitCode {
    match terminal::parse::<Cli>(args, |_| None) {
        Ok(mut cli) => {
            if let Command::Sweep(args) = &mut cli.command {
                args.programs = programs;
            }
            terminal::start_log("warn,gossamer=info");
            terminal::finish(on_worker(|| run(&cli.command)))
        }
        Err(code) => code,
    }
}
