//! `gossamer convert`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use gossamer::files::{FloatType, check_output_folder};
use gossamer::formats::{ConvertOptions, convert};
use gossamer::terminal::Progress;

use crate::open::SourceArgs;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// The folder to write
    out: PathBuf,
    /// Store numbers as this type instead of the one they have
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Replace what is in the folder
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Dtype {
    F32,
    F16,
    Bf16,
}

pub fn run(args: &Args) -> Result<()> {
    check_output_folder(&args.out)?;
    let progress = Progress::new();
    progress.stage("opening the model");
    let files = args.source.files()?;
    let float = args.dtype.map(|dtype| match dtype {
        Dtype::F32 => FloatType::F32,
        Dtype::F16 => FloatType::F16,
        Dtype::Bf16 => FloatType::BF16,
    });
    progress.stage("converting");
    convert(&files, &args.out, ConvertOptions { float, force: args.force })?;
    drop(progress);
    writeln!(std::io::stdout(), "{}", args.out.display())?;
    Ok(())
}
