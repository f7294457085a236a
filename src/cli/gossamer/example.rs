//! `gossamer example`.

use std::path::PathBuf;

use anyhow::Result;

use crate::example;
use crate::terminal::print;

#[derive(clap::Args)]
pub struct Args {
    /// The folder to write
    #[arg(long, value_name = "FOLDER", default_value = example::FOLDER)]
    out: PathBuf,
}

pub fn run(args: &Args) -> Result<()> {
    example::unpack(&args.out)?;
    let folder = args.out.display();
    print(format!(
        "{folder}: a sparse model, a dense one in {folder}/dense with bridges between them, and circuits

gossamer run {folder} --prompt \"print('egg\"
gossamer circuit show {folder}/circuits/single_double_quote.json
gossamer circuit eval {folder}/circuits/single_double_quote.json --model {folder}
gossamer circuit export {folder}/circuits/*.json --format html --out circuits.html
gossamer bridge eval {folder}
explorer {folder}"
    ));
    Ok(())
}
