//! `gossamer inspect`.

use anyhow::Result;
use crate::pipelines::inspect;
use crate::settings::count;

use super::open::SourceArgs;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// How many of the largest weights of each matrix to list
    #[arg(long, default_value_t = 3, value_parser = count::<usize>(0, 65_536))]
    largest: usize,
    /// Load the model onto this device, too, and print its memory there: auto, cpu, gpu, gpu:INDEX
    /// or gpu:PART-OF-A-NAME
    #[arg(long)]
    device: Option<String>,
    /// As JSON, with everything
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let files = args.source.load.files(&args.source.model)?;
    let vocabulary = files.load_tokenizer()?.map(|tokenizer| tokenizer.vocab_size());
    let inspection = inspect(&files, vocabulary, args.largest, args.device.as_deref())?;
    Ok(inspection.report()?.write(&mut std::io::stdout(), args.json)?)
}
