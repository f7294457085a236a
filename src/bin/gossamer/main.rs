//! Every command but training.

mod bench;
mod bridge;
mod bridged;
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

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gossamer::device::on_worker;
use gossamer::error::explain;
use gossamer::files::is_stdout;

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
    /// Write any model as a folder that the published code and Hugging Face conventions read
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
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn,gossamer=info".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
    let cli = Cli::parse();
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
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Whoever read the output has seen enough, as `head` does.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = match error.downcast_ref::<gossamer::Error>() {
        Some(gossamer::Error::Io { path, source }) if is_stdout(path) => Some(source),
        _ => error.downcast_ref::<std::io::Error>(),
    };
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
