//! `gossamer check`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use crate::device::Device;
use crate::pipelines::check;
use crate::terminal::{Lines, Progress};

use super::open::DeviceArgs;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    /// Only these operations, and no golden cases
    #[arg(long, value_name = "OPERATION", value_delimiter = ',', conflicts_with = "folders")]
    only: Vec<String>,
    /// More cases, each a folder in the golden format
    folders: Vec<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let device = Device::open(&args.device.device)?;
    let progress = Progress::new();
    let mut lines = Lines::new(&progress, Box::new(std::io::stdout()));
    lines.print(&device.describe());
    let result = check(&device, &args.only, &args.folders, &progress.observer(), &mut |line| lines.print(line))?;
    if result.failures > 0 {
        bail!("{} quantities are off: do not trust numbers from this device", result.failures);
    }
    let agree = match (result.operations, result.cases) {
        (1, 0) => "1 operation agrees".into(),
        (operations, 0) => format!("all {operations} operations agree"),
        (operations, cases) => format!("all {operations} operations and {cases} cases agree"),
    };
    lines.print(&format!("\n{agree}: this device computes what it should"));
    Ok(lines.finish()?)
}
