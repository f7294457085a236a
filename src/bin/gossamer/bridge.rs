//! `gossamer bridge`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use gossamer::bridges::{BridgeEvaluation, BridgeFile, Hybrid, Objective, evaluate};
use gossamer::device::Device;
use gossamer::formats::{FindOptions, ModelFiles};
use gossamer::model::{Hold, Weights};
use gossamer::text::corpus::Source;
use gossamer::text::python;
use gossamer::text::sequences::sequences;
use gossamer::train::bridge::Coefficients;

use crate::open::SourceArgs;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Errors of the bridges at every site, and how far models that go on across them stray from the dense model
    Eval(EvalArgs),
}

#[derive(clap::Args)]
struct EvalArgs {
    /// The sparse model: a run of `train bridges`, or one of its checkpoints
    #[command(flatten)]
    sparse: SourceArgs,
    /// The dense model, if it is no longer where it was
    #[arg(long, value_name = "MODEL")]
    dense: Option<String>,
    /// Files and folders of text (.py, .txt, .jsonl with a field `text`) [default: generated Python that no run trains on]
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    /// Tokens of text to read at most, but at least a sequence
    #[arg(long, default_value_t = 16_384)]
    max_tokens: usize,
    /// Sequences that run at once; each goes through a model once for every site
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// auto, cpu, gpu, gpu:INDEX or gpu:PART-OF-A-NAME (see `gossamer devices`)
    #[arg(long, default_value = "auto")]
    device: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Eval(args) => eval(args),
    }
}

fn eval(args: &EvalArgs) -> Result<()> {
    let files = args.sparse.files()?;
    let folder = files.weights_path.parent().context("a model without a folder")?;
    let about = BridgeFile::load(folder)?;
    let name = match &args.dense {
        Some(name) => PathBuf::from(name),
        None if folder.join(&about.dense.path).exists() => folder.join(&about.dense.path),
        None => PathBuf::from(&about.dense.path),
    };
    let options = FindOptions { offline: args.sparse.offline, progress: true, ..FindOptions::default() };
    let dense = ModelFiles::find(name, &options).context("the dense model (name another place with --dense)")?;
    let tokenizer = args.sparse.tokenizer_of(&files)?;
    let tokenizer = tokenizer.context("the model comes without a tokenizer.json: name one with --tokenizer")?;
    let device = Device::open(&args.device)?;
    let (sparse, dense) = (files.load(Hold::Compressed, &device)?, dense.load(Hold::Compressed, &device)?);
    let hash = dense.hash()?;
    let bridges = about.open(folder, (&dense, hash.as_str()), &sparse)?;
    let length = sparse.config.block_size.min(dense.config.block_size);
    let sequences = match args.data.is_empty() {
        true => sequences(python::documents(u64::MAX).map(Ok), &tokenizer, length, args.max_tokens)?,
        false => sequences(Source::new(&args.data).documents()?, &tokenizer, length, args.max_tokens)?,
    };
    let dense_weights = Weights::constant(&dense, &[]);
    let objective = Objective {
        dense: &dense,
        dense_weights: &dense_weights,
        sparse: &sparse,
        compressed: &[],
        bridges: &bridges,
        coefficients: Coefficients::default(),
        draw_sparse: false,
    };
    let result = evaluate(&objective, &sequences, args.batch_size)?;
    let mut out = std::io::stdout().lock();
    match args.json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&result)?)?,
        false => out.write_all(table(&result).as_bytes())?,
    }
    Ok(())
}

/// The evaluation for people.
fn table(result: &BridgeEvaluation) -> String {
    let BridgeEvaluation { tokens, dense_loss, sparse_loss, sparse_kl, sites } = result;
    let mut text = format!(
        "over {tokens} tokens, in nats a token\n\
         dense model   loss {dense_loss:.3}\n\
         sparse model  loss {sparse_loss:.3}, {sparse_kl:.3} from the dense one\n\n\
         \x20                                   dense, continued sparse       sparse, continued dense\n\
         site          nmse enc  nmse dec      kl   loss  (mean: kl)       kl   loss  (mean: kl)\n"
    );
    let last = sites.len().saturating_sub(1);
    for at in sites {
        let name = match at.site {
            site if site == last => "final_resid".to_string(),
            site => format!("{}.{}", site / 2, if site % 2 == 0 { "resid_in" } else { "resid_mid" }),
        };
        let hybrid = |h: &Hybrid| format!("{:7.3} {:6.3}  ({:8.3})", h.kl, h.loss, h.mean_kl);
        let (d2s, s2d) = (hybrid(&at.d2s), hybrid(&at.s2d));
        text += &format!("{name:13} {:8.3}  {:8.3} {d2s}   {s2d}\n", at.nmse_enc, at.nmse_dec);
    }
    text
}
