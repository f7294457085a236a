//! `train circuit`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use gossamer::circuits::find::{Finder, Found, Ranking};
use gossamer::circuits::prune::{Progress, Settings};
use gossamer::circuits::tasks::{self, Task};
use gossamer::circuits::tune::tune;
use gossamer::circuits::{Circuit, Layout, Nodes};
use gossamer::device::Device;
use gossamer::files::{HostTensor, create_folder, load_metadata, load_tensors, save_tensors};
use gossamer::formats::{FindOptions, ModelFiles};
use gossamer::model::{Batch, Hold, Model, Weights, means, site_pattern};
use gossamer::text::corpus::Source;
use gossamer::text::sequences::sequences;
use gossamer::text::tokenizer::Tokenizer;
use indicatif::{ProgressBar, ProgressStyle};

#[derive(clap::Args)]
pub struct Args {
    /// A run, a checkpoint, a Hugging Face folder, a published folder, or a Hub id
    model: String,
    /// A task by name (`gossamer tasks list`), a .jsonl file of pairs, or `all`; may be repeated
    #[arg(long, value_name = "TASK", required = true, num_args = 1..)]
    task: Vec<String>,
    /// Where circuits go, as TASK.json [default: MODEL/circuits]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// One setting of pruning, such as k_coef=1e-3; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The task loss that a circuit must reach
    #[arg(long)]
    target_loss: Option<f64>,
    /// Try N random settings around the given ones and keep the smallest circuit
    #[arg(long, value_name = "N", default_value_t = 0)]
    tune: u64,
    /// How nodes are ranked: `learned` gates, or the `attribution` baseline
    #[arg(long, value_enum, default_value = "learned")]
    ranking: RankingArg,
    /// Keep nodes that the loss would not miss
    #[arg(long)]
    no_clean_up: bool,
    /// Text that mean activations are taken over [default: generated Python]; may be repeated
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<PathBuf>,
    /// Tokens that mean activations are taken over
    #[arg(long, default_value_t = 65_536)]
    mean_tokens: usize,
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

#[derive(Clone, Copy, clap::ValueEnum)]
enum RankingArg {
    Learned,
    Attribution,
}

impl Args {
    fn settings(&self) -> Result<Settings> {
        let mut fields = serde_json::to_value(Settings::default())?;
        for assignment in &self.set {
            let (key, value) = assignment.split_once('=').context(format!("`{assignment}` is not KEY=VALUE"))?;
            let known = fields.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
            let Some(field) = fields.get_mut(key.trim()) else {
                bail!("no setting `{key}`; there are {}", known.join(", "));
            };
            *field = serde_json::from_str(value.trim()).with_context(|| format!("setting `{key}`: `{value}`"))?;
        }
        let mut settings: Settings = serde_json::from_value(fields)?;
        settings.target_loss = self.target_loss.unwrap_or(settings.target_loss);
        settings.validate()?;
        Ok(settings)
    }

    fn tasks(&self) -> Result<Vec<Task>> {
        let mut list = Vec::new();
        for name in &self.task {
            match name.as_str() {
                "all" => list.extend(tasks::all()),
                file if file.ends_with(".jsonl") => list.push(Task::from_file(Path::new(file))?),
                name => list.push(tasks::find(name)?),
            }
        }
        Ok(list)
    }

    fn folder(&self) -> PathBuf {
        match (&self.out, Path::new(&self.model)) {
            (Some(out), _) => out.clone(),
            (None, model) if model.is_dir() => model.join("circuits"),
            (None, _) => PathBuf::from("circuits"),
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let (settings, tasks, folder) = (args.settings()?, args.tasks()?, args.folder());
    let files = ModelFiles::find(&args.model, &FindOptions { offline: args.offline, ..FindOptions::default() })?;
    let tokenizer = args.tokenizer.as_ref().or(files.tokenizer.as_ref());
    let tokenizer = tokenizer.context("the model comes without a tokenizer.json: name one with --tokenizer")?;
    let tokenizer = Tokenizer::load(tokenizer)?;
    let device = Device::open(&args.device)?;
    let model = files.load(Hold::Compressed, &device)?;
    create_folder(&folder)?;
    let hash = model.hash()?;
    let means = mean_activations(args, &model, &tokenizer, &hash, &folder)?;
    let nodes = Nodes::new(Layout::new(&model.config), &means, &device)?;
    let finder = Finder { weights: Weights::constant(&model, &[]), model: &model, nodes, tokenizer: &tokenizer };

    println!("task                          loss    →  circuit  ablated   nodes  edges   seconds");
    let mut failed = 0;
    for task in &tasks {
        let start = Instant::now();
        match one(args, &finder, task, &settings, &hash, &folder) {
            Ok(circuit) => {
                let (test, counts) = (&circuit.losses.test, &circuit.counts);
                println!(
                    "{:28} {:7.4} → {:8.4} {:8.4} {:7} {:6} {:9.1}",
                    task.name,
                    test.model,
                    test.circuit,
                    test.ablated,
                    counts.nodes,
                    counts.edges,
                    start.elapsed().as_secs_f64()
                );
            }
            Err(error) => {
                failed += 1;
                eprintln!("{}: {error:#}", task.name);
            }
        }
    }
    println!("\ncircuits are in {}; losses are those on held-out pairs", folder.display());
    match failed {
        0 => Ok(()),
        n if n == tasks.len() => bail!("no circuit was found"),
        n => {
            eprintln!("{n} of {} tasks have no circuit", tasks.len());
            Ok(())
        }
    }
}

fn one(args: &Args, finder: &Finder, task: &Task, settings: &Settings, hash: &str, folder: &Path) -> Result<Circuit> {
    let ranking = match args.ranking {
        RankingArg::Learned => Ranking::Learned,
        RankingArg::Attribution => Ranking::Attribution,
    };
    let bar = progress(settings.steps * (args.tune + 1), &task.name);
    let mut watch = |progress: Progress| {
        bar.inc(1);
        bar.set_message(format!("loss {:.3}  {} nodes", progress.loss, progress.kept));
    };
    let clean = !args.no_clean_up;
    let (found, settings): (Found, Settings) = match args.tune {
        0 => (finder.find(task, settings, ranking, clean, &mut watch)?, settings.clone()),
        trials => tune(finder, task, settings, trials, clean, &mut watch)?,
    };
    bar.finish_and_clear();
    let circuit = finder.describe(task, &found, &settings, &args.model, hash)?;
    circuit.save(folder.join(format!("{}.json", task.name)))?;
    Ok(circuit)
}

fn progress(steps: u64, name: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(steps);
    if let Ok(style) = ProgressStyle::with_template("{prefix:28} {bar:30} {pos}/{len}  {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(name.to_string());
    bar
}

/// The nodes' mean activations, from the file of an earlier call for the same model and text if there is one.
fn mean_activations(
    args: &Args,
    model: &Model,
    tokenizer: &Tokenizer,
    hash: &str,
    folder: &Path,
) -> Result<BTreeMap<String, Vec<f32>>> {
    let path = folder.join("means.safetensors");
    let data: Vec<_> = args.data.iter().map(|path| path.display().to_string()).collect();
    let about = std::collections::HashMap::from([
        ("model".to_string(), hash.to_string()),
        ("data".to_string(), if data.is_empty() { "generated Python".into() } else { data.join(" ") }),
        ("tokens".to_string(), args.mean_tokens.to_string()),
    ]);
    let same = load_metadata(&path).is_ok_and(|found| about.iter().all(|(key, value)| found.get(key) == Some(value)));
    if same {
        return Ok(load_tensors(&path)?.into_iter().map(|(site, tensor)| (site, tensor.data)).collect());
    }
    let length = model.config.block_size;
    let sequences = match data.is_empty() {
        true => sequences(gossamer::text::python::documents(0).map(Ok), tokenizer, length, args.mean_tokens)?,
        false => sequences(Source::new(&args.data).documents()?, tokenizer, length, args.mean_tokens)?,
    };
    let batches =
        sequences.chunks(8).map(|chunk| Batch::new(&model.device, &model.config, &chunk.concat(), chunk.len()));
    let means = means(model, batches, &site_pattern(r"\.(act_in|q|k|v|resid_delta|post_act)$")?)?;
    let tensor = |data: &Vec<f32>| HostTensor { shape: vec![data.len()], data: data.clone() };
    let tensors = means.iter().map(|(site, mean)| (site.clone(), tensor(mean))).collect();
    save_tensors(&path, &tensors, Some(about))?;
    Ok(means)
}
