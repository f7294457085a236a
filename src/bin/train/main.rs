//! The headless trainer: `train` learns a weight-sparse transformer, `train tokenizer` a tokenizer.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod bridges;
mod circuit;
mod finished;
mod list;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use gossamer::device::{Device, on_worker, use_threads};
use gossamer::error::explain;
use gossamer::files::{check_output, is_stdout};
use gossamer::settings::count;
use gossamer::terminal::signals::{self, Saving};
use gossamer::terminal::{self, Progress, print, say};
use gossamer::text::corpus::Source;
use gossamer::text::tokenizer::{MIN_VOCAB, Tokenizer};
use gossamer::train::checkpoint;
use gossamer::train::communicator::{Communication, Communicator, start};
use gossamer::train::config::RunConfig;
use gossamer::train::data::sample;
use gossamer::train::lock::claim;
use gossamer::train::memory::human_bytes;
use gossamer::train::run::{Event, Run, StartFrom, StepProgress, TrainResult, samples};
use indicatif::{HumanCount, HumanDuration};

/// Train a weight-sparse transformer. Without arguments: a small one on generated Python, in about three minutes.
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
    Tokenizer(TokenizerArgs),
    /// Train a sparse model together with bridges to a dense one, which is left as it is
    Bridges(bridges::Args),
    /// Find the circuits of a trained model: the fewest channels that do a task
    Circuit(circuit::Args),
}

#[derive(Args)]
struct RunArgs {
    /// Where the settings start from: quickstart, circuits, small or paper
    #[arg(long, default_value = "quickstart")]
    preset: String,
    /// A TOML file whose settings replace the preset's
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, such as train.lr=0.02 or lr=0.02, or several with spaces between them; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// List all settings with the preset's values and what each may be, and exit
    #[arg(long)]
    settings: bool,
    /// A file or folder to learn from (.py, .txt, .jsonl with a field `text`); may be repeated
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    /// A tokenizer.json to use instead of training one
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// The run's folder [default: runs/PRESET, numbered if taken]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Go on with the run in this folder; of a checkpoint's folder (RUN/checkpoints/step-N), from there: later checkpoints
    /// are set aside
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["preset", "config", "set", "data", "tokenizer", "out", "steps", "tokens", "seed"])]
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
    /// Tell more, such as when which kind of product takes over
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Args)]
struct TokenizerArgs {
    /// A file or folder to learn from; may be repeated
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// Entries, `<|endoftext|>` included
    #[arg(long, default_value_t = 2048, value_parser = count::<usize>(MIN_VOCAB as u64, 1 << 24))]
    vocab_size: usize,
    /// Bytes of the data to read at most
    #[arg(long, default_value_t = 50_000_000, value_parser = count::<u64>(1, 1 << 30))]
    max_bytes: u64,
    /// The file to write, - for standard output
    #[arg(long, value_name = "FILE", default_value = "tokenizer.json")]
    out: PathBuf,
}

fn main() -> ExitCode {
    terminal::without_desktop();
    let cli: Cli = match terminal::parse(list::advice) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    // First of all, while there is no other thread.
    let begun = match &cli.command {
        Some(Command::Circuit(args)) if args.is_part() => Ok(Communicator::single()),
        _ => start(),
    };
    let communicator = match begun {
        Ok(communicator) => communicator,
        Err(error) => return fail(&Communicator::single(), &error.into()),
    };
    terminal::start_log(match (communicator.is_root(), cli.run.verbose) {
        (false, _) => "warn",
        (true, true) => "warn,gossamer=debug",
        (true, false) => "warn,gossamer=info",
    });
    let first = communicator.is_root();
    let told = move |saving| {
        if first && saving {
            say("\nstopping after this step at the latest; the run can be resumed (a second signal exits at once)");
        }
    };
    if let Err(error) = signals::listen(told) {
        return fail(&communicator, &anyhow::Error::new(error).context("signals cannot be heard"));
    }
    match (run(&cli, &communicator), signals::exit_code()) {
        (Ok(()), None) => ExitCode::SUCCESS,
        (Ok(()), Some(code)) => ExitCode::from(code),
        (Err(error), Some(code)) if matches!(error.downcast_ref(), Some(gossamer::Error::Stopped)) => {
            if first {
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
        Some(Command::Tokenizer(args)) => by_itself(communicator).and_then(|()| tokenizer(args)),
        Some(Command::Circuit(args)) => by_itself(communicator).and_then(|()| circuit::run(args)),
        Some(Command::Bridges(args)) => bridges::run(args, communicator),
        None => train(&cli.run, communicator),
    })
}

/// Says what went wrong, and ends the other ranks, which would wait for this one.
fn fail(communicator: &Communicator, error: &anyhow::Error) -> ExitCode {
    let who = if communicator.size() > 1 { format!("rank {}: ", communicator.rank()) } else { String::new() };
    say(format_args!("error: {who}{}", explain(error.as_ref())));
    communicator.abort();
    ExitCode::FAILURE
}

fn by_itself(communicator: &Communicator) -> Result<()> {
    if communicator.size() > 1 {
        bail!("this command does not divide its work among ranks; `train circuit` has --shard for that");
    }
    Ok(())
}

fn tokenizer(args: &TokenizerArgs) -> Result<()> {
    check_output(&args.out)?;
    let progress = Progress::new();
    progress.stage("reading text");
    let documents = sample(&Source::new(&args.data), args.max_bytes, &progress.observer())?;
    let bytes: usize = documents.iter().map(String::len).sum();
    let count = documents.len();
    progress.stage("training the tokenizer");
    let tokenizer = Tokenizer::train(documents.into_iter(), args.vocab_size, &progress.observer())?;
    tokenizer.save(&args.out)?;
    drop(progress);
    let said = format!(
        "{} entries from {count} documents ({}) in {}",
        tokenizer.vocab_size(),
        human_bytes(bytes as u64),
        args.out.display()
    );
    // Standard output may have the tokenizer itself.
    if is_stdout(&args.out) {
        say(said)
    } else {
        print(said)
    }
    Ok(())
}

impl RunArgs {
    /// The settings; `adapt` changes what the preset says before anything that is asked for does.
    fn config(&self, adapt: impl FnOnce(&mut RunConfig)) -> Result<RunConfig> {
        if let Some((folder, _)) = self.resumed() {
            let path = folder.join("config.toml");
            return RunConfig::load(&path).with_context(|| format!("{} holds no run to resume", folder.display()));
        }
        let mut config = RunConfig::preset(&self.preset)?;
        adapt(&mut config);
        let mut named = match &self.config {
            Some(path) => config.overlay_file(path)?,
            None => Vec::new(),
        };
        named.extend(config.set_all(&self.set)?);
        if named.iter().any(|key| key == "data.paths") {
            config.data.paths = config.data.paths.iter().map(|path| absolute(path)).collect::<Result<_>>()?;
        }
        if named.iter().any(|key| key == "data.tokenizer") {
            config.data.tokenizer = config.data.tokenizer.as_deref().map(absolute).transpose()?;
        }
        if !self.data.is_empty() {
            config.data.paths = self.data.iter().map(|p| absolute(p)).collect::<Result<_>>()?;
        }
        if let Some(path) = &self.tokenizer {
            config.data.tokenizer = Some(absolute(path)?);
        }
        // Bridges join two models of one vocabulary, which is compared later.
        if config.bridge.is_none() {
            config.fit_vocabulary(named.iter().any(|key| key == "model.vocab_size"))?;
        }
        config.run.seed = self.seed.unwrap_or(config.run.seed);
        config.train.steps = self.steps.unwrap_or(config.train.steps);
        if let Some(tokens) = self.tokens {
            config.train.steps = tokens.div_ceil(config.tokens_per_step().max(1));
        }
        Ok(config)
    }

    /// The folder of the run to go on with, and where it goes on.
    fn resumed(&self) -> Option<(PathBuf, StartFrom)> {
        let path = self.resume.as_ref()?;
        Some(match checkpoint::run_and_step(path) {
            Some((run, step)) if !path.join("config.toml").exists() => (run, StartFrom::Step(step)),
            _ => (path.clone(), StartFrom::Newest),
        })
    }

    /// Where the run begins.
    fn start(&self) -> StartFrom {
        self.resumed().map_or(StartFrom::New, |(_, start)| start)
    }

    /// The run's folder, by default one called `name`, and where corpora are kept. All ranks have the same.
    fn places(&self, name: &str, communicator: &Communicator) -> Result<Places> {
        let named = self.resumed().map(|(run, _)| run).or(self.out.clone());
        let claimed = named.is_none();
        let folder = match named {
            Some(folder) => folder,
            None if communicator.is_root() => claim(&Path::new("runs").join(name))?,
            // The first rank's is taken.
            None => PathBuf::new(),
        };
        let folder = match (communicator.size(), folder.to_str()) {
            (1, _) => folder,
            (_, Some(text)) => PathBuf::from(communicator.broadcast(text)?),
            (_, None) => bail!("{}: ranks can only agree on a folder whose name is UTF-8", folder.display()),
        };
        let above = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let cache = above.join("cache");
        Ok(Places { folder, cache, claimed: claimed && communicator.is_root() })
    }
}

/// Where a run and its corpus are.
struct Places {
    folder: PathBuf,
    cache: PathBuf,
    /// Whether the folder was created for this run.
    claimed: bool,
}

impl Drop for Places {
    /// A run that failed before it wrote anything leaves no folder behind.
    fn drop(&mut self) {
        if self.claimed {
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}

/// The full path of existing data, so that a run can be resumed from anywhere. Links stay: each host of a cluster may have
/// its own behind one name.
fn absolute(path: &Path) -> Result<PathBuf> {
    path.metadata().and_then(|_| std::path::absolute(path)).with_context(|| path.display().to_string())
}

fn train(args: &RunArgs, communicator: &Communicator) -> Result<()> {
    if args.settings {
        return list::print(&args.config(|_| ())?);
    }
    let mut config = args.config(|_| ())?;
    if config.bridge.is_some() {
        return bridges::execute(args, config, communicator);
    }
    if let Some(device) = &args.device {
        config.run.device = device.clone();
    }
    config.validate()?;
    let device = Device::open_nth(&config.run.device, communicator.topology()?.local)?;
    let places = args.places(&args.preset, communicator)?;
    let (folder, cache) = (places.folder.clone(), places.cache.clone());
    let progress = progress(communicator);
    let run = Run { config, folder, cache, device, observer: progress.observer(), communicator: communicator.clone() };
    let mut screen = Screen::new(&progress);
    let outcome = run.execute(args.start(), &mut |event| screen.show(&run, event))?;
    drop(screen);
    report(&run, &progress, &outcome)
}

/// Rank 0 shows how far they are.
fn progress(communicator: &Communicator) -> Progress {
    if communicator.is_root() { Progress::new() } else { Progress::hidden() }
}

/// What the user sees while it trains: a bar on a terminal, a line an evaluation elsewhere.
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
            self.tell(run, event);
        }
    }

    fn tell(&mut self, run: &Run<'_>, event: Event<'_>) {
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

fn report(run: &Run<'_>, progress: &Progress, outcome: &TrainResult) -> Result<()> {
    if !run.communicator.is_root() {
        return Ok(());
    }
    let print = |line: String| progress.aside(|| print(line));
    let folder = run.folder.display();
    if let Some(Communication { ranks, busy, waited }) = outcome.communication {
        let share = |time: Duration| 100.0 * time.as_secs_f64() / outcome.spent.as_secs_f64().max(1e-9);
        print(format!(
            "ranks       {ranks}; sums were under way {:.1} % of the time, rank 0 waited {:.1} % of it for others",
            share(busy),
            share(waited)
        ));
    }
    if !outcome.finished {
        print(format!("stopped at step {}; go on with: train --resume {folder}", outcome.step));
        return Ok(());
    }
    let (Some(validation), Some(bigram)) = (outcome.validation, outcome.bigram) else {
        print(format!("all steps are done and saved; stopped before they were measured: train --resume {folder}"));
        return Ok(());
    };
    print(format!("validation  {validation:.3} nats per token (a smoothed bigram model: {bigram:.3})"));
    print(format!("weights     {} of {} are not zero", HumanCount(outcome.nonzeros.0), HumanCount(outcome.nonzeros.1)));
    print(format!("speed       {:.0} tokens/s", outcome.tokens_per_second));
    for text in samples(&outcome.model, &outcome.tokenizer, run.config.run.samples, run.config.run.seed)? {
        print(format!("\n--- it writes ---\n{}", text.trim_end()));
    }
    print("\nwhat to try next:".into());
    print(format!("  the model             {}", outcome.checkpoint.display()));
    print(format!("  its loss over time    {folder}/metrics.jsonl, or: tensorboard --logdir {folder}"));
    print("  real code             train --preset small --data PATH".into());
    print(format!("  is the device right?  gossamer check --device {}", run.config.run.device));
    Ok(())
}
