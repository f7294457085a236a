//! `gossamer convert`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use crate::files::{FloatType, check_output_folder};
use crate::formats::{ConvertFormat, ConvertOptions, convert};
use crate::terminal::Progress;

use super::open::SourceArgs;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// The folder to write
    out: PathBuf,
    /// Who is to read it: Hugging Face's transformers (hf), the published inference code (torch), both
    /// from one folder (all), or the training program sparse_pretrain
    #[arg(long, default_value = "all", value_parser = PossibleValuesParser::new(ConvertFormat::NAMED.map(|(name, _)| name)))]
    to: String,
    /// Store numbers as this type instead of the one they have
    #[arg(long, value_parser = ["f32", "f16", "bf16"])]
    dtype: Option<String>,
    /// Replace what is in the folder
    #[arg(long)]
    force: bool,
}

pub fn run(args: &Args) -> Result<()> {
    check_output_folder(&args.out)?;
    let progress = Progress::new();
    let files = args.source.load.files(&args.source.model)?;
    let float = args.dtype.as_deref().and_then(FloatType::named);
    progress.stage("converting");
    let to = ConvertFormat::named(&args.to)?;
    convert(&files, &args.out, ConvertOptions { to, float, force: args.force })?;
    drop(progress);
    Ok(writeln!(std::io::stdout(), "{}", args.out.display())?)
}
