//! `gossamer steer`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use gossamer::bridges::{
    Change, Channel, Effect, MAX_DRAWS, MAX_STRENGTH, ModelName, PromptPair, Ratio, Recipe, Steering, StrengthSweep,
    residual_channels,
};
use gossamer::chart::{Axis, COLORS, Chart, Series};
use gossamer::circuits::Circuit;
use gossamer::circuits::prune::MAX_PAIRS;
use gossamer::circuits::tasks::{self, Split, Task};
use gossamer::files::{check_output, write_atomic};
use gossamer::model::{Edit, expect_model, ranked};
use gossamer::settings::{count, grouped};
use gossamer::terminal::{Progress, say, screen};
use serde_json::json;

use crate::bridged::{Bridged, BridgedArgs};
use crate::open::SourceArgs;

use crate::tasks::named;

#[derive(clap::Args)]
pub struct Args {
    /// The sparse model with its bridges: a run of `train bridges`, or one of its checkpoints
    #[command(flatten)]
    sparse: SourceArgs,
    #[command(flatten)]
    bridged: BridgedArgs,
    /// The text whose next token the dense model is asked for
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// The text that gives the channels their other values
    #[arg(long, value_name = "TEXT", requires = "prompt")]
    counterfactual: Option<String>,
    /// A channel of the sparse model that reads the residual stream, such as 3.attn.act_in[17]; may be repeated: together
    #[arg(long, value_name = "CHANNEL")]
    node: Vec<Channel>,
    /// A free edit of the sparse model's channels, in place of a node: SITE[CHANNELS]@POSITIONS=VALUE as in `gossamer run`; may be repeated
    #[arg(long, value_name = "EDIT", conflicts_with_all = ["node", "task"], requires = "prompt")]
    set: Vec<Edit>,
    /// Held-out pairs of this task (a name or a .jsonl file) in place of one prompt
    #[arg(long, value_name = "TASK", conflicts_with = "prompt")]
    task: Option<String>,
    /// Rank the residual channels of this circuit, at every sublayer, by how much each moves the dense model's answers to its task, and steer by the best
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "node"])]
    circuit: Option<PathBuf>,
    /// Pairs of the task
    #[arg(long, default_value_t = 64, conflicts_with_all = ["prompt", "recipe"], value_parser = count::<usize>(1, MAX_PAIRS))]
    pairs: usize,
    /// From the negative prompts of the pairs to the positive ones
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
    /// Which way the scale of decoders goes
    #[arg(long, value_enum, default_value = "dense-over-sparse")]
    ratio: RatioArg,
    /// How many tokens to show
    #[arg(long, default_value_t = 5, value_parser = count::<usize>(1, 1 << 24))]
    top: usize,
    /// As JSON, an object a line
    #[arg(long)]
    json: bool,
    /// Write all numbers to this file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Draw them into this file
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
}

/// [`Ratio`], as an argument.
#[derive(Clone, Copy, ValueEnum)]
enum RatioArg {
    /// The dense stream's root mean square over the sparse one's (the method)
    DenseOverSparse,
    /// The other way round: what a small change amounts to behind the dense model's norm
    SparseOverDense,
}

impl From<RatioArg> for Ratio {
    fn from(arg: RatioArg) -> Self {
        match arg {
            RatioArg::DenseOverSparse => Self::DenseOverSparse,
            RatioArg::SparseOverDense => Self::SparseOverDense,
        }
    }
}

/// Probabilities in memory at once.
const MAX_NUMBERS: u64 = 1 << 27;

/// Returns an error if that many strengths and draws would take too much memory.
fn check_size(strengths: usize, draws: usize, vocabulary: usize) -> Result<()> {
    let numbers = [strengths, draws + 1, vocabulary].into_iter().fold(1u64, |all, n| all.saturating_mul(n as u64));
    if numbers > MAX_NUMBERS {
        bail!(
            "{strengths} strengths with {draws} draws would be {} probabilities, of {} at most: lower --random, or give fewer strengths",
            grouped(numbers),
            grouped(MAX_NUMBERS)
        );
    }
    Ok(())
}

#[derive(Clone)]
struct Strengths(Vec<f64>);

impl Default for Strengths {
    fn default() -> Self {
        Self((0..=10).map(|tenth| f64::from(tenth) / 10.0).collect())
    }
}

impl FromStr for Strengths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is neither START:END:STEP nor a list of numbers, each from -{MAX_STRENGTH} to {MAX_STRENGTH}"
            )
        };
        let numbers = |separator: char| -> Result<Vec<f64>, String> {
            let number = |part: &str| part.trim().parse().ok().filter(|v: &f64| v.abs() <= MAX_STRENGTH);
            text.split(separator).map(number).collect::<Option<_>>().ok_or_else(wrong)
        };
        if !text.contains(':') {
            return Ok(Self(numbers(',')?));
        }
        let &[start, end, step] = &numbers(':')?[..] else { return Err(wrong()) };
        // A tenth of a tenth is not exact; the end is meant to be among the strengths.
        let count = ((end - start) / step + 1e-9).floor();
        if !(0.0..10_000.0).contains(&count) {
            return Err(format!("`{text}` is no range of up to 10,000 strengths"));
        }
        // Multiples of a decimal step, rounded to what was meant.
        let at = |i: u32| ((start + f64::from(i) * step) * 1e9).round() / 1e9;
        Ok(Self((0..=count as u32).map(at).collect()))
    }
}

pub fn run(args: &Args) -> Result<()> {
    args.csv.iter().chain(&args.png).try_for_each(check_output)?;
    // Two files that are both to be standard output are refused before the work.
    screen(&[args.csv.as_deref(), args.png.as_deref()])?;
    let circuit = args.circuit.as_ref().map(Circuit::load).transpose()?;
    let task = task(args, circuit.as_ref())?;
    let progress = Progress::new();
    progress.stage("opening the models");
    let bridged = args.bridged.open(&args.sparse)?;
    if let (Some(path), Some(circuit)) = (&args.circuit, &circuit) {
        circuit.check_model(&bridged.sparse.hash()?).with_context(|| path.display().to_string())?;
    }
    let recipe = recipe(args, &bridged)?;
    let ratio = recipe.as_ref().map_or(args.ratio.into(), |recipe| recipe.ratio);
    let steering = || {
        progress.stage("measuring the streams");
        let steering = Steering::new(&bridged.dense, &bridged.sparse, &bridged.bridges, &bridged.sequences, ratio)?;
        anyhow::Ok(steering.observed(progress.observer()))
    };
    match (recipe, task) {
        (Some(recipe), _) => one_prompt(args, &bridged, (&steering()?, &progress), &recipe),
        (None, Some((task, channels))) => {
            if channels.is_none() && args.node.is_empty() {
                bail!("name the channels to steer by with --node, or let --circuit find one");
            }
            let strengths = args.strength.clone().unwrap_or_default().0.len();
            check_size(strengths, args.random, bridged.dense.config.vocab_size)?;
            // Before both models are run on text, which takes longer.
            let questions = |split| questions(args, &task, split, &bridged);
            let (ranked, asked) =
                (channels.map(|all| anyhow::Ok((all, questions(Split::Train)?))), questions(Split::Test)?);
            let ranked = ranked.transpose()?;
            let steering = steering()?;
            let node = match ranked {
                Some((channels, questions)) => rank(args, (&steering, &progress), &channels, &questions)?,
                None => args.node.clone(),
            };
            sweep(args, (&steering, &progress), &node, &asked)
        }
        (None, None) => bail!("name a --prompt, a --recipe, a --task or a --circuit"),
    }
}

/// What is done after one prompt, if it is about one.
fn recipe(args: &Args, bridged: &Bridged) -> Result<Option<Recipe>> {
    if let Some(path) = &args.recipe {
        let (recipe, hash) = (Recipe::load(path)?, bridged.sparse.hash()?);
        let what = format!("{} (for {})", path.display(), recipe.sparse.path);
        expect_model(what, "sparse model", &recipe.sparse.hash, &hash)?;
        return Ok(Some(recipe));
    }
    Ok(args.prompt.as_ref().map(|prompt| Recipe {
        version: Recipe::VERSION,
        sparse: ModelName { path: args.sparse.model.clone(), hash: String::new() },
        prompt: prompt.clone(),
        counterfactual: args.counterfactual.clone(),
        nodes: args.node.clone(),
        edits: args.set.clone(),
        strength: 1.0,
        random: args.random,
        seed: args.seed,
        ratio: args.ratio.into(),
    }))
}

/// The task, and the channels to rank if it came with a circuit.
fn task(args: &Args, circuit: Option<&Circuit>) -> Result<Option<(Task, Option<Vec<Channel>>)>> {
    let (Some(path), Some(circuit)) = (&args.circuit, circuit) else {
        return args.task.as_deref().map(|name| Ok((named(name)?, None))).transpose();
    };
    let task = named(args.task.as_deref().unwrap_or(&circuit.task.name))?;
    let channels = residual_channels(circuit);
    if channels.is_empty() {
        bail!("{}: no node of the circuit reads or writes the residual stream", path.display());
    }
    Ok(Some((task, Some(channels))))
}

fn questions(args: &Args, task: &Task, split: Split, bridged: &Bridged) -> Result<Vec<PromptPair>> {
    let longest = bridged.sparse.config.block_size.min(bridged.dense.config.block_size);
    let batch = tasks::batch(task, split, args.seed, 0, args.pairs, &bridged.tokenizer, longest)?;
    if let Some(notes) = batch.notes() {
        say(format_args!("note: {notes}"));
    }
    // Few pairs have answers of their own, and all of the vocabulary is looked through for each.
    let mut known = BTreeMap::new();
    let question = |pair: tasks::TokenPair| {
        let key = [pair.target, pair.alternative];
        let [target, alternative] =
            known.entry(key).or_insert_with(|| tasks::tokens_sharing_prefix(&bridged.tokenizer, key)).clone();
        let mut sides = [(pair.clean, target), (pair.counterfactual, alternative)];
        if args.reverse {
            sides.reverse();
        }
        let [(prompt, answer), (counterfactual, other)] = sides;
        PromptPair { prompt, counterfactual, answer, other }
    };
    Ok(batch.tokens.into_iter().map(question).collect())
}

/// Shows what each channel does by itself, and gives the one that moves the answers most.
fn rank(
    args: &Args,
    (steering, progress): (&Steering, &Progress),
    channels: &[Channel],
    questions: &[PromptPair],
) -> Result<Vec<Channel>> {
    progress.stage("trying channels");
    let (before, ranked) = steering.candidates(channels, questions)?;
    progress.clear();
    let best = ranked.first().map(|candidate| candidate.channel).into_iter().collect();
    let mut out = screen(&[args.csv.as_deref(), args.png.as_deref()])?;
    if args.json {
        let all = json!({ "prompts": questions.len(), "before": before, "candidates": ranked });
        writeln!(out, "{}", serde_json::to_string(&all)?)?;
        return Ok(best);
    }
    writeln!(out, "the circuit's channels, on {} prompts that it was found with\n", questions.len())?;
    writeln!(out, "steered by               own   other   log odds of the other (mean)")?;
    let row = |name: &str, e: &Effect| format!("{name:20} {:>7.4} {:>7.4}   {:>8.2}", e.answer, e.other, e.log_odds);
    writeln!(out, "{}", row("nothing", &before))?;
    for candidate in ranked.iter().take(args.top.max(1)) {
        writeln!(out, "{}", row(&candidate.channel.to_string(), &candidate.effect))?;
    }
    writeln!(out)?;
    Ok(best)
}

/// The answers to held-out prompts at every strength.
fn sweep(
    args: &Args,
    (steering, progress): (&Steering, &Progress),
    node: &[Channel],
    questions: &[PromptPair],
) -> Result<()> {
    progress.stage("steering");
    let strengths = args.strength.clone().unwrap_or_default().0;
    let sweep = steering.sweep(node, questions, &strengths, args.random, args.seed)?;
    progress.clear();
    let by = node.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if let Some(path) = &args.csv {
        let mut text = String::from("kind,draw,strength,other,own,log_odds\n");
        for (draw, effects) in std::iter::once(&sweep.steered).chain(&sweep.random).enumerate() {
            let kind = if draw == 0 { "steered" } else { "random" };
            for (strength, e) in sweep.strengths.iter().zip(effects) {
                writeln!(text, "{kind},{draw},{strength},{},{},{}", e.other, e.answer, e.log_odds)?;
            }
        }
        save(path, &text)?;
    }
    if let Some(path) = &args.png {
        sweep_picture(&by, &sweep).save(path)?;
    }
    let mut out = screen(&[args.csv.as_deref(), args.png.as_deref()])?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&sweep)?)?;
        return Ok(());
    }
    writeln!(out, "the dense model on {} held-out prompts, steered by {by}: median probabilities\n", questions.len())?;
    writeln!(out, "strength     own   other   the other through {} random channels: mean, most", sweep.random.len())?;
    for (i, (strength, e)) in sweep.strengths.iter().zip(&sweep.steered).enumerate() {
        let random: Vec<f64> = sweep.random.iter().map(|effects| effects[i].other).collect();
        let mean = random.iter().sum::<f64>() / random.len().max(1) as f64;
        let most = random.iter().copied().fold(0.0, f64::max);
        writeln!(out, "{strength:>8} {:>7.4} {:>7.4}   {mean:>7.4} {most:>7.4}", e.answer, e.other)?;
    }
    Ok(())
}

fn sweep_picture(by: &str, sweep: &StrengthSweep) -> Chart {
    let points = |effects: &[Effect], value: fn(&Effect) -> f64| {
        sweep.strengths.iter().copied().zip(effects.iter().map(value)).collect::<Vec<_>>()
    };
    let series = |name: &str, color, points| Series { name: name.into(), color, line: true, points };
    let mut all: Vec<Series> = sweep
        .random
        .iter()
        .enumerate()
        .map(|(draw, effects)| {
            let name = if draw == 0 { "the other answer, random channels" } else { "" };
            series(name, (190, 190, 190), points(effects, |e| e.other))
        })
        .collect();
    all.push(series("the own answer", COLORS[1], points(&sweep.steered, |e| e.answer)));
    all.push(series("the other answer", COLORS[0], points(&sweep.steered, |e| e.other)));
    chart(format!("The dense model's answer, steered by {by}"), all)
}

fn chart(title: String, series: Vec<Series>) -> Chart {
    let axis = |label: &str| Axis { label: label.into(), log: false };
    Chart { title, x: axis("strength"), y: axis("probability"), series }
}

/// The dense model's next token after one prompt.
fn one_prompt(
    args: &Args,
    bridged: &Bridged,
    (steering, progress): (&Steering, &Progress),
    recipe: &Recipe,
) -> Result<()> {
    progress.stage("steering");
    let change = recipe.change(steering, &bridged.tokenizer)?;
    let tokens = bridged.tokenizer.encode(&recipe.prompt)?;
    let by = match recipe.edits.is_empty() {
        true => recipe.nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        false => "the edits".to_string(),
    };
    let channels: Vec<Channel> = change.amounts().map(|(channel, _)| channel).collect();
    let draws = steering.controls(&channels, recipe.random, recipe.seed);
    let strengths = match &args.strength {
        Some(strengths) => strengths.clone(),
        None if args.recipe.is_some() => Strengths(vec![0.0, recipe.strength]),
        None => Strengths::default(),
    };
    let strengths = &strengths.0;
    check_size(strengths.len(), draws.len(), bridged.dense.config.vocab_size)?;
    let all = std::iter::once(change.clone()).chain(draws.iter().map(|draw| draw.apply(&change)));
    let changes: Vec<Change> =
        all.flat_map(|change| strengths.iter().map(move |&strength| change.scaled(strength))).collect();
    let probabilities = steering.probabilities(&tokens, &changes)?;
    progress.clear();
    let mut lists = probabilities.chunks(strengths.len());
    let steered = lists.next().context("there are no strengths")?;
    let random: Vec<&[Vec<f64>]> = lists.collect();
    let found = Answers { strengths, steered, random: &random, shown: shown(steered, args.top) };
    let (text, show) = (|id| bridged.tokenizer.token_text(id), |id| bridged.tokenizer.show(id));
    if let Some(path) = &args.csv {
        save(path, &found.csv(&text)?)?;
    }
    if let Some(path) = &args.png {
        found.picture(&show, &by).save(path)?;
    }
    let mut out = screen(&[args.csv.as_deref(), args.png.as_deref()])?;
    match args.json {
        true => writeln!(out, "{}", found.json(&text))?,
        false => write!(out, "{}", found.table(&show, &by)?)?,
    }
    Ok(())
}

/// The most probable tokens at the first and at the last strength.
fn shown(steered: &[Vec<f64>], top: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = Vec::new();
    for p in [steered.first(), steered.last()].into_iter().flatten() {
        let new: Vec<u32> = ranked(p).into_iter().take(top).filter(|id| !ids.contains(id)).collect();
        ids.extend(new);
    }
    ids
}

/// Probabilities of the token after a prompt.
struct Answers<'a> {
    strengths: &'a [f64],
    /// At each strength, by id.
    steered: &'a [Vec<f64>],
    /// The same through random channels, draw by draw.
    random: &'a [&'a [Vec<f64>]],
    /// The tokens to show.
    shown: Vec<u32>,
}

impl Answers<'_> {
    /// Over the draws, the mean probability of a token at strength number `i`.
    fn mean(&self, i: usize, id: u32) -> f64 {
        self.random.iter().map(|draw| draw[i][id as usize]).sum::<f64>() / self.random.len().max(1) as f64
    }

    fn table(&self, text: &dyn Fn(u32) -> String, by: &str) -> Result<String, std::fmt::Error> {
        let mut table = format!("next token of the dense model, steered by {by}\n\n{:14}", "strength");
        self.strengths.iter().try_for_each(|strength| write!(table, " {strength:>7}"))?;
        for &id in &self.shown {
            write!(table, "\n{:14}", text(id))?;
            self.steered.iter().try_for_each(|p| write!(table, " {:>7.4}", p[id as usize]))?;
        }
        if !self.random.is_empty() {
            write!(table, "\n\nmean of {} draws of random channels", self.random.len())?;
            for &id in &self.shown {
                write!(table, "\n{:14}", text(id))?;
                (0..self.strengths.len()).try_for_each(|i| write!(table, " {:>7.4}", self.mean(i, id)))?;
            }
        }
        table.push('\n');
        Ok(table)
    }

    fn csv(&self, text: &dyn Fn(u32) -> String) -> Result<String, std::fmt::Error> {
        let mut csv = String::from("kind,draw,strength,token,text,probability\n");
        for (draw, lists) in std::iter::once(self.steered).chain(self.random.iter().copied()).enumerate() {
            let kind = if draw == 0 { "steered" } else { "random" };
            for (strength, p) in self.strengths.iter().zip(lists) {
                for &id in &self.shown {
                    let quoted = text(id).replace('"', "\"\"");
                    writeln!(csv, "{kind},{draw},{strength},{id},\"{quoted}\",{}", p[id as usize])?;
                }
            }
        }
        Ok(csv)
    }

    fn json(&self, text: &dyn Fn(u32) -> String) -> serde_json::Value {
        let row = |&id: &u32| {
            let steered: Vec<f64> = self.steered.iter().map(|p| p[id as usize]).collect();
            let random: Vec<Vec<f64>> =
                self.random.iter().map(|draw| draw.iter().map(|p| p[id as usize]).collect()).collect();
            json!({ "token": id, "text": text(id), "steered": steered, "random": random })
        };
        json!({ "strengths": self.strengths, "next": self.shown.iter().map(row).collect::<Vec<_>>() })
    }

    fn picture(&self, text: &dyn Fn(u32) -> String, by: &str) -> Chart {
        let mut all = Vec::new();
        for (&id, color) in self.shown.iter().zip(COLORS) {
            let steered = self.strengths.iter().zip(self.steered).map(|(&s, p)| (s, p[id as usize])).collect();
            let random = self.strengths.iter().enumerate().map(|(i, &s)| (s, self.mean(i, id))).collect();
            let pale = |c: u8| c / 2 + 127;
            let light = (pale(color.0), pale(color.1), pale(color.2));
            if !self.random.is_empty() {
                all.push(Series { name: format!("{}, random", text(id)), color: light, line: true, points: random });
            }
            all.push(Series { name: text(id), color, line: true, points: steered });
        }
        chart(format!("The dense model's next token, steered by {by}"), all)
    }
}

fn save(path: &Path, text: &str) -> Result<()> {
    Ok(write_atomic(path, |out| out.write_all(text.as_bytes()).map_err(|e| gossamer::Error::io(path, e)))?)
}
