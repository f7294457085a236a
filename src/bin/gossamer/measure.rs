//! `gossamer circuit stats` and `gossamer circuit binarise`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use gossamer::circuits::search::CircuitSearch;
use gossamer::circuits::statistics::{QUANTILES, Snippet};
use gossamer::circuits::tasks::Task;
use gossamer::circuits::{Circuit, Layout, Nodes, Statistics, mean_activations, stored_means};
use gossamer::files::check_output;
use gossamer::formats::Pretrained;
use gossamer::model::Site;
use gossamer::settings::count;
use gossamer::terminal::Progress;
use gossamer::text::notation::visible;

use crate::open::{MAX_TOKENS, ModelArgs, SourceArgs};

/// Snippets printed for a node.
const SHOWN: usize = 3;
/// Tokens printed on either side of a snippet's position.
const AROUND: usize = 10;

/// A circuit file, and the model it is a part of.
#[derive(clap::Args)]
pub struct CircuitArgs {
    /// The circuit file
    file: PathBuf,
    /// The model that it is a part of: a run, a checkpoint, a Hugging Face folder, a published folder, or a Hub id
    #[arg(long)]
    model: String,
    /// The circuit's task as a .jsonl file, where it is not one of the twenty
    #[arg(long, value_name = "FILE")]
    task: Option<PathBuf>,
    /// A tokenizer.json, if the model comes without one
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// auto, cpu, gpu, gpu:INDEX or gpu:PART-OF-A-NAME (see `gossamer devices`)
    #[arg(long, default_value = "auto")]
    device: String,
    /// Do not go to the network
    #[arg(long)]
    offline: bool,
}

#[derive(clap::Args)]
pub struct StatsArgs {
    #[command(flatten)]
    circuit: CircuitArgs,
    /// Files and folders of text to run the model on [default: generated Python]; may be repeated
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    /// Tokens of text to read at most
    #[arg(long, default_value_t = 65_536, value_parser = count::<usize>(1, MAX_TOKENS))]
    max_tokens: usize,
    /// Decides which of equal activations are shown
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(clap::Args)]
pub struct BinariseArgs {
    #[command(flatten)]
    circuit: CircuitArgs,
    /// Text that mean activations are taken over, where they are not beside the circuit [default: generated Python]
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    /// Tokens that mean activations are taken over
    #[arg(long, default_value_t = 65_536, value_parser = count::<usize>(1, MAX_TOKENS))]
    mean_tokens: usize,
}

impl CircuitArgs {
    /// The circuit and its model, which is checked to be the circuit's.
    fn open(&self, progress: &Progress) -> Result<(Circuit, Pretrained, Option<Task>)> {
        progress.stage("opening the model");
        let circuit = Circuit::load(&self.file)?;
        let task = self.task.as_deref().map(Task::from_file).transpose()?;
        let (model, tokenizer) = (self.model.clone(), self.tokenizer.clone());
        let source = SourceArgs { model, tokenizer, offline: self.offline };
        let opened = ModelArgs { source, device: self.device.clone() }.open()?;
        circuit.check_model(&opened.model.hash()?)?;
        Ok((circuit, opened, task))
    }

    /// The name of a file beside the circuit's.
    fn beside(&self, what: &str) -> PathBuf {
        self.file.with_extension(format!("{what}.json"))
    }
}

/// `gossamer circuit stats`.
pub fn stats(args: &StatsArgs) -> Result<()> {
    let path = args.circuit.beside("statistics");
    check_output(&path)?;
    let progress = Progress::new();
    let (circuit, opened, task) = args.circuit.open(&progress)?;
    if circuit.nodes.is_empty() {
        bail!("{}: the circuit has no nodes, so that there is nothing to measure", args.circuit.file.display());
    }
    progress.stage("reading text");
    let pairs = circuit.pairs(task, opened.tokenizer()?, opened.model.config.block_size)?;
    if let Some(notes) = pairs.notes() {
        progress.say(format!("note: {notes}"));
    }
    let corpus = opened.sequences(&args.data, args.max_tokens)?;
    let clean: Vec<_> = pairs.tokens.iter().map(|pair| pair.clean.clone()).collect();
    let counterfactual: Vec<_> = pairs.tokens.iter().map(|pair| pair.counterfactual.clone()).collect();
    let sets = [&corpus[..], &clean, &counterfactual];
    let statistics = Statistics::measure(&opened.model, &circuit, sets, args.seed, &progress.observer())?;
    drop(progress);
    statistics.save(&path)?;

    let mut out = std::io::stdout().lock();
    writeln!(out, "node                        mean      std      min      max    active     clean  counterfactual")?;
    for node in &statistics.nodes {
        let set = &node.corpus;
        write!(
            out,
            "{:24} {:>7.3}  {:>7.3}  {:>7.3}  {:>7.3}",
            node.node.to_string(),
            set.mean,
            set.std,
            set.min,
            set.max
        )?;
        let [active, clean, counterfactual] = [set, &node.clean, &node.counterfactual].map(|set| 100.0 * set.active());
        writeln!(out, "  {active:6.1} %  {clean:6.1} %  {counterfactual:14.1} %")?;
        for snippet in set.quantiles.iter().take(1).flat_map(|q| q.top.snippets.iter().take(SHOWN)) {
            writeln!(out, "    {:+8.3}  {}", snippet.activations[snippet.position], marked(snippet, &opened))?;
        }
    }
    writeln!(out, "\nsnippets are from the top {} %; everything is in {}", 100.0 * QUANTILES[0], path.display())?;
    Ok(())
}

/// A snippet in a line, its token in brackets.
fn marked(snippet: &Snippet, opened: &Pretrained) -> String {
    let (first, last) = (snippet.position.saturating_sub(AROUND), snippet.position + AROUND);
    let mut line = String::new();
    for (t, &id) in snippet.tokens.iter().enumerate().take(last + 1).skip(first) {
        let text = visible(&opened.token_text(id));
        line += &if t == snippet.position { format!("[{text}]") } else { text };
    }
    line
}

/// `gossamer circuit binarise`.
pub fn binarise(args: &BinariseArgs) -> Result<()> {
    let path = args.circuit.beside("binary");
    check_output(&path)?;
    let progress = Progress::new();
    let (circuit, opened, task) = args.circuit.open(&progress)?;
    if circuit.nodes.is_empty() {
        bail!("{}: the circuit has no nodes, so that there is nothing to binarise", args.circuit.file.display());
    }
    // Before the means, which take longer.
    for pairs in circuit.pairs_by_split(task.clone(), opened.tokenizer()?, opened.model.config.block_size)? {
        if let Some(notes) = pairs.notes() {
            progress.say(format!("note: {notes}"));
        }
    }
    let means = means_of(args, &circuit, &opened, &progress)?;
    let model = &opened.model;
    let nodes = Nodes::new(Layout::new(&model.config), &means, &model.device)?;
    let finder = CircuitSearch { model, nodes, tokenizer: opened.tokenizer()? };
    progress.stage("choosing two states for every node");
    let binary = finder.binarise(&circuit, task)?;
    drop(progress);
    binary.save(&path)?;

    let mut out = std::io::stdout().lock();
    writeln!(out, "node                          low  threshold     high   at   loss when it alone is binary")?;
    for (step, alone) in binary.steps.iter().zip(&binary.alone) {
        let (node, [low, threshold, high]) = (step.node.to_string(), [step.low, step.threshold, step.high]);
        writeln!(out, "{node:24} {low:>8.3}   {threshold:>8.3} {high:>8.3}  {:.2}  {alone:.4}", step.fraction)?;
    }
    writeln!(out)?;
    for (name, set) in [("train", binary.train), ("test", binary.test)] {
        let (circuit, accuracy) = (set.circuit, 100.0 * set.accuracy_circuit);
        write!(out, "{name:5} loss {circuit:.4} ({accuracy:.1} % right)")?;
        writeln!(out, "; all nodes binary: {:.4} ({:.1} % right)", set.binary, 100.0 * set.accuracy_binary)?;
    }
    writeln!(out, "\n{}", path.display())?;
    Ok(())
}

/// The nodes' mean activations: those beside the circuit if they are this model's, otherwise taken anew.
fn means_of(
    args: &BinariseArgs,
    circuit: &Circuit,
    opened: &Pretrained,
    progress: &Progress,
) -> Result<BTreeMap<Site, Vec<f32>>> {
    let model = &opened.model;
    let folder = args.circuit.file.parent().unwrap_or(Path::new(""));
    let stored = if args.data.is_empty() { stored_means(folder, &circuit.model.hash)? } else { None };
    let means = match stored {
        Some(means) => means,
        None => mean_activations(model, &opened.sequences(&args.data, args.mean_tokens)?, &progress.observer())?,
    };
    circuit
        .check_means(&means)
        .context("name the same text with --data and --mean-tokens, or keep means.safetensors beside the circuit")?;
    Ok(means)
}
