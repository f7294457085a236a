//! `gossamer bridge`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use gossamer::bridges::{BridgeEvaluation, Hybrid, Objective, SiteEvaluation, evaluate};
use gossamer::chart::{Axis, COLORS, Chart, Series};
use gossamer::files::check_output;
use gossamer::model::Weights;
use gossamer::settings::count;
use gossamer::terminal::{Progress, screen};

use crate::bridged::{Bridged, BridgedArgs};
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
    #[command(flatten)]
    bridged: BridgedArgs,
    /// Sequences that run at once; each goes through a model once for every site
    #[arg(long, default_value_t = 8, value_parser = count::<usize>(1, 65_536))]
    batch_size: usize,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Draw the divergences of all hybrids into this file
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Eval(args) => eval(args),
    }
}

fn eval(args: &EvalArgs) -> Result<()> {
    args.png.as_ref().map_or(Ok(()), check_output)?;
    let progress = Progress::new();
    progress.stage("opening the models");
    let Bridged { dense, sparse, bridges, sequences, .. } = args.bridged.open(&args.sparse)?;
    let dense_weights = Weights::constant(&dense, &[]);
    let observer = progress.observer();
    let objective = Objective { observer, ..Objective::new(&dense, &dense_weights, &sparse, &bridges) };
    progress.stage("measuring means");
    let result = evaluate(&objective, &sequences, args.batch_size)?;
    drop(progress);
    if let Some(path) = &args.png {
        picture(&result).save(path)?;
    }
    let mut out = screen(&[args.png.as_deref()])?;
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
    for at in sites {
        let hybrid = |h: &Hybrid| format!("{:7.3} {:6.3}  ({:8.3})", h.kl, h.loss, h.mean_kl);
        let (d2s, s2d) = (hybrid(&at.d2s), hybrid(&at.s2d));
        text += &format!("{:13} {:8.3}  {:8.3} {d2s}   {s2d}\n", at.name, at.nmse_enc, at.nmse_dec);
    }
    text
}

/// Divergences of the hybrids over the sites, beside those without a bridge.
fn picture(result: &BridgeEvaluation) -> Chart {
    let series = |name: &str, color, value: &dyn Fn(&SiteEvaluation) -> f64| {
        let points = result.sites.iter().map(|at| (at.site as f64, value(at))).collect();
        Series { name: name.into(), color, line: true, points }
    };
    Chart {
        title: "Divergence from the dense model, continued across a bridge".into(),
        x: Axis { label: "site".into(), log: false },
        y: Axis::log("nats a token"),
        series: vec![
            series("sparse, from the mean", (200, 210, 225), &|at| at.d2s.mean_kl),
            series("dense, from the mean", (240, 215, 200), &|at| at.s2d.mean_kl),
            series("sparse model itself", COLORS[4], &|_| result.sparse_kl),
            series("dense, continued sparse", COLORS[0], &|at| at.d2s.kl),
            series("sparse, continued dense", COLORS[1], &|at| at.s2d.kl),
        ],
    }
}
