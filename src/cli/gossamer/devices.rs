//! `gossamer devices`.

use anyhow::Result;
use crate::pipelines::devices;

use super::open::JsonArgs;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    output: JsonArgs,
}

pub fn run(args: &Args) -> Result<()> {
    Ok(devices()?.write(&mut std::io::stdout(), args.output.json)?)
}
