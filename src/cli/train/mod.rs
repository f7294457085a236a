//! The command `train`: trains models, tokenizers and bridges, and finds circuits.

mod circuit;
mod list;
mod next_steps;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::bridges::{BridgeRequest, train_bridges};
use crate::device::{on_worker, use_threads};
use crate::error::explain;
use crate::files::is_stdout;
use crate::settings::count;
use crate::terminal::signals::{self, Saving};
use crate::terminal::{self, Progress, print, say};
use crate::train::communicator::{Communication, Communicator, start};
use crate::train::config::RunConfig;
use crate::train::memory::human_bytes;
use crate::train::request::{TokenizerRequest, TrainRequest};
use crate::train::run::{Event, Run, StepProgress, TrainResult, samples};
use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};
use indicatif::{HumanCount, HumanDuration};

/// Train a weight-sparse transformer. Without arguments: a small one on generated Python, in about
/// three minutes.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Train a byte-level BPE tokenizer on files and folders
    Tokenizer(TokenizerRequest),
    /// Train a sparse model together with bridges to a dense one, which stays unchanged
    Bridges(BridgeArgs),
    /// Find the circuits of a trained model: the fewest channels that do a task
    Circuit(circuit::Args),
}

#[derive(Args)]
struct RunArgs {
    #[arg(long, default_value = "quickstart", help = format!("Where the settings start from: {}", list::presets()))]
    preset: String,
    /// A TOML file whose settings replace the preset's
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, such as train.lr=0.02 or lr=0.02, or several with spaces between them; may be
    /// repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// List all settings with the preset's values and what each may be, and exit
    #[arg(long)]
    settings: bool,
    /// A file or folder to train on (.py, .txt, .jsonl, .csv, .tsv, .parquet; also .gz, .zst, .xz), -
    /// for standard input, or hub:OWNER/NAME; may be repeated
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    /// The field or column that has the text, in .jsonl, .csv, .tsv and .parquet files [default:
    /// text]
    #[arg(long, value_name = "NAME")]
    text_field: Option<String>,
    /// Start training when the first shard of the data is tokenized, and tokenize the rest meanwhile
    #[arg(long)]
    stream: bool,
    /// A tokenizer.json to use instead of training one
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// The run's folder [default: runs/PRESET, numbered if taken]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Start from this model instead of random weights: a run, a checkpoint, a Hugging Face folder, a
    /// published folder, or a Hub id
    #[arg(long, value_name = "MODEL")]
    init: Option<String>,
    /// Continue the run in this folder, or from a checkpoint's folder (RUN/checkpoints/step-N):
    /// later checkpoints are set aside. With --steps or --tokens, a new run continues it to that
    /// many [default: RUN-STEPS]
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["preset", "config", "set", "data", "text_field", "stream", "tokenizer", "init", "seed"])]
    resume: Option<PathBuf>,
    /// Optimizer steps
    #[arg(long, conflicts_with = "tokens")]
    steps: Option<u64>,
    /// Tokens to train on, instead of steps
    #[arg(long, value_parser = count::<u64>(1, u64::MAX))]
    tokens: Option<u64>,
    /// auto, cpu, gpu, gpu:INDEX or gpu:PART-OF-A-NAME (see `gossamer devices`)
    #[arg(long)]
    device: Option<String>,
    /// Seed of everything random
    #[arg(long)]
    seed: Option<u64>,
    /// Do not go to the network; take from the Hub's cache what is there
    #[arg(long)]
    offline: bool,
    /// Log more, such as the steps at which products become sparse
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Args)]
struct BridgeArgs {
    /// The dense model: a run, a checkpoint, a Hugging Face folder, a published folder, or a Hub id
    #[arg(long, value_name = "MODEL", required_unless_present = "resume", conflicts_with = "resume")]
    dense: Option<String>,
    /// Start from this sparse model, at its density, instead of from a new one
    #[arg(long, value_name = "MODEL", conflicts_with = "resume")]
    sparse: Option<String>,
    #[command(flatten)]
    run: RunArgs,
}

/// Runs the command with the arguments `args`, the first of which is its name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli: Cli = match terminal::parse(args, list::advice) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    // First of all, while there is no other thread.
    let communicator = match &cli.command {
        Some(Command::Circuit(args)) if args.is_part() => Ok(Communicator::single()),
        _ => start(),
    };
    let communicator = match communicator {
        Ok(communicator) => communicator,
        Err(error) => return fail(&Communicator::single(), &error.into()),
    };
    terminal::start_log(match (communicator.is_root(), cli.run.verbose) {
        (false, _) => "warn",
        (true, true) => "warn,gossamer=debug",
        (true, false) => "warn,gossamer=info",
    });
    let root = communicator.is_root();
    let message = move |saving| {
        if root && saving {
            say("\nstopping after this step at the latest; the run can be resumed (a second signal exits at once)");
        }
    };
    if let Err(error) = signals::listen(message) {
        return fail(&communicator, &anyhow::Error::new(error).context("signals cannot be heard"));
    }
    match (run(&cli, &communicator), signals::exit_code()) {
        (Ok(()), None) => ExitCode::SUCCESS,
        (Ok(()), Some(code)) => ExitCode::from(code),
        (Err(error), Some(code)) if matches!(error.downcast_ref(), Some(crate::Error::Stopped)) => {
            if root {
                say("stopped");
            }
            // The others may be waiting for this one.
            communicator.abort();
            ExitCode::from(code)
        }
        (Err(error), _) => fail(&communicator, &error),
    }
}

fn run(cli: &Cli, communicator: &Communicator) -> Result<()> {
    if communicator.size() > 1 {
        use_threads(communicator.topology()?.threads);
    }
    on_worker(|| match &cli.command {
        Some(Command::Tokenizer(args)) => single(communicator).and_then(|()| tokenizer(args)),
        Some(Command::Circuit(args)) => single(communicator).and_then(|()| circuit::run(args)),
        Some(Command::Bridges(BridgeArgs { dense, sparse, run })) => {
            let (dense, sparse) = (dense.clone(), sparse.clone());
            let config = BridgeRequest { dense, sparse, run: run.request() }.settings()?;
            ensure!(config.bridge.is_some(), "that run trains no bridges: continue it with `train --resume`");
            train(run, config, communicator)
        }
        None => {
            let config = cli.run.request().settings(|_| ())?;
            if cli.run.settings { list::print(&config) } else { train(&cli.run, config, communicator) }
        }
    })
}

/// Says what went wrong, and ends the other ranks, which would wait for this one.
fn fail(communicator: &Communicator, error: &anyhow::Error) -> ExitCode {
    let who = if communicator.size() > 1 { format!("rank {}: ", communicator.rank()) } else { String::new() };
    say(format_args!("error: {who}{}", explain(error.as_ref())));
    communicator.abort();
    ExitCode::FAILURE
}

fn single(communicator: &Communicator) -> Result<()> {
    ensure!(
        communicator.size() == 1,
        "this command does not divide its work among ranks; `train circuit` has --shard for that"
    );
    Ok(())
}

fn tokenizer(request: &TokenizerRequest) -> Result<()> {
    let progress = Progress::new();
    progress.stage("training the tokenizer");
    let result = request.run(&progress.observer())?;
    drop(progress);
    let message = format!(
        "{} entries from {} documents ({}) in {}",
        result.vocab_size,
        result.documents,
        human_bytes(result.bytes),
        request.out.display()
    );
    // Standard output may hold the tokenizer.
    if is_stdout(&request.out) {
        say(message)
    } else {
        print(message)
    }
    Ok(())
}

impl RunArgs {
    fn request(&self) -> TrainRequest {
        TrainRequest {
            preset: self.preset.clone(),
            config: self.config.clone(),
            set: self.set.clone(),
            data: self.data.clone(),
            text_field: self.text_field.clone(),
            stream: self.stream,
            offline: self.offline,
            tokenizer: self.tokenizer.clone(),
            out: self.out.clone(),
            init: self.init.clone(),
            resume: self.resume.clone(),
            steps: self.steps,
            tokens: self.tokens,
            device: self.device.clone(),
            seed: self.seed,
        }
    }
}

fn train(args: &RunArgs, config: RunConfig, communicator: &Communicator) -> Result<()> {
    let request = args.request();
    let bridges = config.bridge.is_some();
    let progress = if communicator.is_root() { Progress::new() } else { Progress::hidden() };
    let name = if bridges { "bridges" } else { &args.preset };
    let prepared = request.prepare(config, name, communicator, progress.observer())?;
    let run = &prepared.run;
    let mut screen = Screen::new(&progress);
    let mut watch = |event: Event<'_>| screen.show(run, event);
    let result = if bridges {
        train_bridges(run, request.start(), &mut watch)?
    } else {
        run.execute(request.start(), &mut watch)?
    };
    drop(screen);
    if communicator.is_root() {
        report(run, &progress, &result)?;
    }
    Ok(())
}

/// Shows a run: a bar on a terminal, elsewhere a line for each evaluation.
struct Screen<'a> {
    progress: &'a Progress,
    terminal: bool,
    last: Option<f64>,
    /// From the first step to the last checkpoint.
    saving: Option<Saving>,
}

impl<'a> Screen<'a> {
    fn new(progress: &'a Progress) -> Self {
        Self { progress, terminal: std::io::stderr().is_terminal(), last: None, saving: None }
    }

    fn show(&mut self, run: &Run<'_>, event: Event<'_>) {
        match event {
            Event::Data(_) => self.saving = Some(Saving::begin()),
            Event::Trained => self.saving = None,
            _ => {}
        }
        if run.communicator.is_root() {
            self.print(run, event);
        }
    }

    fn print(&mut self, run: &Run<'_>, event: Event<'_>) {
        let say = |line: String| self.progress.say(line);
        match event {
            Event::Planned(estimate, device) => {
                let each = match run.communicator.size() {
                    1 => String::new(),
                    n => format!(" on each of {n} ranks, {} of them on this machine", estimate.on_host),
                };
                say(format!("device      {}{each}", device.describe()));
                say(format!("run         {}", run.folder.display()));
                say(format!(
                    "model       {} parameters, {} nonzero at the end",
                    HumanCount(estimate.parameters),
                    HumanCount(estimate.nonzeros)
                ));
                say(format!(
                    "memory      about {} on the device, {} on the host{}",
                    human_bytes(estimate.device_bytes()),
                    human_bytes(estimate.host_bytes),
                    if estimate.on_host > 1 { ", for each rank" } else { "" }
                ));
                run.config.notes().into_iter().for_each(|note| say(format!("note        {note}")));
                self.progress.stage("preparing the data");
            }
            Event::Data(data) => {
                let s = &data.corpus.statistics;
                let divided = match s.separators {
                    0 => String::new(),
                    n => format!(" ({} <|endoftext|> between them)", HumanCount(n)),
                };
                let skipped = match s.skipped.listed() {
                    none if none.is_empty() => none,
                    some => format!(", {some}"),
                };
                say(format!(
                    "data        {} documents{divided}, {}, {} tokens{skipped}{}",
                    HumanCount(s.documents),
                    human_bytes(s.bytes),
                    HumanCount(s.tokens),
                    if data.corpus.cached { " (cached)" } else { "" }
                ));
                self.progress.stage("training");
            }
            Event::Resumed(step) => say(format!("resumed     at step {step}")),
            Event::Step(step) => {
                self.progress.at(step.step, step.steps, describe(step));
                if !self.terminal && step.validation != self.last {
                    say(format!("step {}/{}  {}", step.step, step.steps, describe(step)));
                }
                self.last = step.validation;
            }
            Event::Saved(_) => {}
            Event::Trained => self.progress.stage("measuring"),
        }
    }
}

fn describe(p: &StepProgress) -> String {
    let validation = p.validation.map_or(String::new(), |v| format!("  val {v:.3}"));
    format!(
        "loss {:.3}{validation}  density {:.4}  nonzeros {}  {:.0} tok/s  {} left",
        p.numbers.loss,
        p.numbers.density,
        HumanCount(p.nonzeros),
        p.tokens_per_second,
        HumanDuration(Duration::from_secs(p.left.as_secs()))
    )
}

fn report(run: &Run<'_>, progress: &Progress, result: &TrainResult) -> Result<()> {
    let print = |line: String| progress.aside(|| print(line));
    let folder = run.folder.display();
    if let Some(Communication { ranks, busy, waited }) = result.communication {
        let share = |time: Duration| 100.0 * time.as_secs_f64() / result.spent.as_secs_f64().max(1e-9);
        print(format!(
            "ranks       {ranks}; sums were under way {:.1} % of the time, rank 0 waited {:.1} % of it for others",
            share(busy),
            share(waited)
        ));
    }
    if !result.finished {
        print(format!("stopped at step {}; continue with: train --resume {folder}", result.step));
        return Ok(());
    }
    let (Some(validation), Some(bigram)) = (result.validation, result.bigram) else {
        print(format!("all steps are done and saved; stopped before they were measured: train --resume {folder}"));
        return Ok(());
    };
    print(format!("validation  {validation:.3} nats per token (a smoothed bigram model: {bigram:.3})"));
    print(format!("weights     {} of {} are not zero", HumanCount(result.nonzeros.0), HumanCount(result.nonzeros.1)));
    print(format!("speed       {:.0} tokens/s", result.tokens_per_second));
    for text in samples(&result.model, &result.tokenizer, run.config.run.samples, run.config.run.seed)? {
        print(format!("\n--- sample ---\n{}", text.trim_end()));
    }
    let (generated, bridged) = (run.config.data.paths.is_empty(), run.config.bridge.is_some());
    let circuit = match run.config.run.tasks && generated && !bridged {
        true => {
            let model = (&result.model, &result.tokenizer);
            next_steps::demonstrate(model, &run.folder, &result.checkpoint, progress, &print)?
        }
        false => None,
    };
    let (train, gossamer) = (next_steps::program("train"), next_steps::program("gossamer"));
    print("\nwhat to try next:".into());
    print(format!("  {gossamer} run {folder} --prompt \"print('egg\""));
    if let Some(file) = circuit.as_ref().map(|file| file.display()) {
        print(format!("  {gossamer} circuit eval {file}    # what could refute it"));
        print(format!("  {gossamer} circuit export {file} --format html --out circuit.html"));
    }
    if bridged {
        print(format!("  {gossamer} bridge eval {}", result.checkpoint.display()));
    }
    if generated && !bridged {
        print(format!("  {train} circuit {folder} --task all    # the circuits of all tasks it does"));
    }
    print(format!("  {gossamer} example    # a trained model with a dense partner, bridges and circuits"));
    print(format!("  {train} --preset small --data PATH    # real code"));
    print(format!("  {gossamer} check --device {}    # is the device right?", run.config.run.device));
    print(format!("  tensorboard --logdir {folder}    # its loss over time, also in {folder}/metrics.jsonl"));
    Ok(())
}
