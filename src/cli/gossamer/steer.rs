//! `gossamer steer`.

use std::path::PathBuf;

use anyhow::Result;
use crate::bridges::{
    Channel, MAX_DRAWS, ModelName, Ratio, Recipe, SteerRequest, SteerTarget, Strengths, TaskSteering,
};
use crate::chart::picture_file;
use crate::circuits::prune::MAX_PAIRS;
use crate::files::check_output;
use crate::model::Edit;
use crate::settings::count;
use crate::terminal::{Progress, screen};

use super::bridge::PairArgs;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pair: PairArgs,
    /// The text whose next token the dense model is asked for
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// The text that gives the channels their other values
    #[arg(long, value_name = "TEXT", requires = "prompt")]
    counterfactual: Option<String>,
    /// A channel of the sparse model that reads the residual stream, such as 3.attn.act_in[17]; may
    /// be repeated: together
    #[arg(long, value_name = "CHANNEL")]
    node: Vec<Channel>,
    /// An edit of the sparse model's channels, in place of a node: SITE[CHANNELS]@POSITIONS=VALUE
    /// as in `gossamer run`; may be repeated
    #[arg(long, value_name = "EDIT", conflicts_with_all = ["node", "task"], requires = "prompt")]
    set: Vec<Edit>,
    /// Held-out pairs of this task (a name, or a .toml or .jsonl file) in place of one prompt
    #[arg(long, value_name = "TASK", conflicts_with = "prompt")]
    task: Option<String>,
    /// Rank the residual channels of this circuit, at every sublayer, by how much each moves the
    /// dense model's answers to its task, and steer by the best
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "node"])]
    circuit: Option<PathBuf>,
    /// Pairs of the task
    #[arg(long, default_value_t = 64, conflicts_with_all = ["prompt", "recipe"], value_parser = count::<usize>(1, MAX_PAIRS))]
    pairs: usize,
    /// From the counterfactual prompts of the pairs to the clean ones
    #[arg(long, conflicts_with_all = ["prompt", "recipe"])]
    reverse: bool,
    /// What the explorer saved: prompt, channels, strength, draws and ratio
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "node", "task", "circuit", "random", "seed", "ratio"])]
    recipe: Option<PathBuf>,
    /// Strengths START:END:STEP, or some with commas [default: 0:1:0.1, or 0 and the recipe's]
    #[arg(long, allow_hyphen_values = true)]
    strength: Option<Strengths>,
    /// Draws of random channels to compare with: the same amounts through other channels
    #[arg(long, default_value_t = 8, value_parser = count::<usize>(0, MAX_DRAWS))]
    random: usize,
    /// Seeds the draws and the pairs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The scale of decoders
    #[arg(long, value_enum, default_value = "sparse-over-dense")]
    ratio: Ratio,
    /// How many tokens to show
    #[arg(long, default_value_t = 5, value_parser = count::<usize>(1, 1 << 24))]
    top: usize,
    /// As JSON, an object a line
    #[arg(long)]
    json: bool,
    /// Write all numbers to this file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw them into this file (.png, .svg or .pdf)
    #[arg(long, alias = "png", value_name = "FILE", value_parser = picture_file)]
    chart: Option<PathBuf>,
}

impl Args {
    fn target(&self) -> Result<SteerTarget> {
        let (random, seed, ratio) = (self.random, self.seed, self.ratio);
        if let Some(path) = &self.recipe {
            return Ok(SteerTarget::File(path.clone()));
        }
        if let Some(prompt) = &self.prompt {
            return Ok(SteerTarget::Prompt(Recipe {
                version: Recipe::VERSION,
                sparse: ModelName { path: self.pair.sparse.model.clone(), hash: String::new() },
                prompt: prompt.clone(),
                counterfactual: self.counterfactual.clone(),
                nodes: self.node.clone(),
                edits: self.set.clone(),
                strength: 1.0,
                random,
                seed,
                ratio,
            }));
        }
        anyhow::ensure!(
            self.task.is_some() || self.circuit.is_some(),
            "name a --prompt, a --recipe, a --task or a --circuit"
        );
        Ok(SteerTarget::Task(TaskSteering {
            task: self.task.clone(),
            circuit: self.circuit.clone(),
            channels: self.node.clone(),
            pairs: self.pairs,
            reverse: self.reverse,
            random,
            seed,
            ratio,
        }))
    }
}

pub fn run(args: &Args) -> Result<()> {
    let (csv, chart) = (args.csv.as_deref(), args.chart.as_deref());
    csv.into_iter().chain(chart).try_for_each(check_output)?;
    // Before the work: two files cannot both be standard output.
    let mut out = screen(&[csv, chart])?;
    let request = SteerRequest { target: args.target()?, strengths: args.strength.clone() };
    let progress = Progress::new();
    progress.stage("steering");
    let result = request.run(&args.pair.request(), progress.observer())?;
    drop(progress);
    csv.map_or(Ok(()), |path| result.save_csv(args.top, path))?;
    chart.map_or(Ok(()), |path| result.chart(args.top)?.save(path))?;
    if args.json {
        writeln!(out, "{}", result.json(args.top)?)?
    } else {
        result.report(args.top).write(&mut out, false)?
    }
    Ok(())
}
