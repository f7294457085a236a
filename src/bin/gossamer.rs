//! Every command but training.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use gossamer::check;
use gossamer::device::{Device, adapters};
use gossamer::error::explain;
use gossamer::train::memory::human_bytes;

/// Weight-sparse transformers: tools beside the trainer
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the graphics adapters that `--device gpu:…` can name
    Devices {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Is this device right? Runs golden cases and compares every number
    Check {
        /// auto, cpu, gpu, gpu:INDEX or gpu:PART-OF-A-NAME
        #[arg(long, default_value = "auto")]
        device: String,
        /// More cases, each a folder in the golden format
        folders: Vec<PathBuf>,
    },
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
    let result = match Cli::parse().command {
        Command::Devices { json } => devices(json),
        Command::Check { device, folders } => run_checks(&device, &folders),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn devices(json: bool) -> Result<()> {
    let list = adapters();
    if json {
        println!("{}", serde_json::to_string_pretty(&list)?);
        return Ok(());
    }
    println!("cpu     {}", Device::cpu().describe());
    for a in &list {
        println!("gpu:{}   {} ({}, {}, {})", a.index, a.name, a.backend, a.kind, a.driver);
        if !a.computes {
            println!("        has no compute shaders, so that gossamer cannot use it");
        }
        println!(
            "        binds {} of a buffer of at most {}, {} buffers a kernel",
            human_bytes(a.largest_binding),
            human_bytes(a.largest_buffer),
            a.storage_buffers
        );
        println!(
            "        workgroups of {} with {}, subgroups of {} to {}",
            a.workgroup_invocations,
            human_bytes(a.workgroup_memory.into()),
            a.subgroup.0,
            a.subgroup.1
        );
        let features = if a.features.is_empty() { "none".into() } else { a.features.join(", ") };
        println!("        optional features: {features}");
    }
    if list.is_empty() {
        println!("no graphics adapter or driver found; everything runs on the CPU device");
    }
    Ok(())
}

fn run_checks(device: &str, folders: &[PathBuf]) -> Result<()> {
    let device = Device::open(device)?;
    println!("{}", device.describe());
    let mut cases = check::built_in();
    for folder in folders {
        cases.push(check::folder(folder)?);
    }
    let mut failures = 0;
    for case in &cases {
        println!("\n{}", case.name);
        for verdict in check::run(case, &device)? {
            failures += usize::from(!verdict.passed());
            println!(
                "  {}  {:<22} {:>9.2e} of {:.0e}  {}",
                if verdict.passed() { "ok  " } else { "FAIL" },
                verdict.quantity,
                verdict.error,
                verdict.tolerance,
                verdict.at
            );
        }
    }
    match failures {
        0 => {
            println!("\nall {} cases agree: this device computes what it should", cases.len());
            Ok(())
        }
        n => bail!("{n} quantities are off: do not trust numbers from this device"),
    }
}
