//! `gossamer check`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use gossamer::check::{self, Verdict};
use gossamer::device::Device;
use gossamer::terminal::Progress;

#[derive(clap::Args)]
pub struct Args {
    /// auto, cpu, gpu, gpu:INDEX or gpu:PART-OF-A-NAME
    #[arg(long, default_value = "auto")]
    device: String,
    /// Only these operations, and no golden cases
    #[arg(long, value_name = "OPERATION", value_delimiter = ',', conflicts_with = "folders")]
    only: Vec<String>,
    /// More cases, each a folder in the golden format
    folders: Vec<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let device = Device::open(&args.device)?;
    let progress = Progress::new();
    let mut out = std::io::stdout();
    writeln!(out, "{}", device.describe())?;
    let mut cases = if args.only.is_empty() { check::built_in() } else { Vec::new() };
    for folder in &args.folders {
        cases.push(check::folder(folder)?);
    }
    writeln!(out, "\noperations")?;
    let operations = check::operations(&device, &args.only)?;
    let mut failures = report(&mut out, &operations)?;
    for case in &cases {
        progress.aside(|| writeln!(out, "\n{}", case.name))?;
        progress.stage(&format!("checking {}", case.name));
        let verdicts = check::run(case, &device)?;
        progress.clear();
        failures += report(&mut out, &verdicts)?;
    }
    match failures {
        0 => {
            writeln!(
                out,
                "\nall {} operations and {} cases agree: this device computes what it should",
                operations.len(),
                cases.len()
            )?;
            Ok(())
        }
        n => bail!("{n} quantities are off: do not trust numbers from this device"),
    }
}

/// Prints the verdicts, a line each, and says how many failed.
fn report(out: &mut impl Write, verdicts: &[Verdict]) -> Result<usize> {
    for verdict in verdicts {
        writeln!(
            out,
            "  {}  {:<28} {:>9.2e} of {:.0e}  {}",
            if verdict.passed() { "ok  " } else { "FAIL" },
            verdict.quantity,
            verdict.error,
            verdict.tolerance,
            verdict.at
        )?;
    }
    Ok(verdicts.iter().filter(|verdict| !verdict.passed()).count())
}
