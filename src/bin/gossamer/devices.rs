//! `gossamer devices`.

use anyhow::Result;
use gossamer::pipelines::devices;

#[derive(clap::Args)]
pub struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    Ok(devices()?.write(&mut std::io::stdout(), args.json)?)
}
