//! `gossamer record`.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use gossamer::files::{HostIds, HostTensor, check_output, save_arrays};
use gossamer::model::{Batch, NotFinite, Pass, Recorder, Site, Weights, means_unchecked};
use gossamer::settings::count;
use gossamer::tape::Tape;
use gossamer::terminal::Progress;

use crate::open::{MAX_TOKENS, ModelArgs, Opened, token_file};
use crate::output::screen;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to run the model on
    #[arg(long, required_unless_present_any = ["tokens", "data", "mean"], conflicts_with_all = ["tokens", "data"])]
    prompt: Option<String>,
    /// Read special tokens in the prompt, such as <|endoftext|>, as those tokens, not as text
    #[arg(long, requires = "prompt")]
    special: bool,
    /// A safetensors file with a tensor `tokens`, (T) or (B, T)
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    tokens: Option<PathBuf>,
    /// Which sites: a regular expression over names such as 3.mlp.post_act or final_resid
    #[arg(long, value_name = "REGEX", default_value = ".")]
    sites: String,
    /// The safetensors file to write: `tokens`, `logits` (B, T, V), and each site (B, T, width) under its name
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write instead the mean of every channel over all positions, (width) for each site
    #[arg(long)]
    mean: bool,
    /// Files and folders of text to take means over [default: generated Python]; may be repeated
    #[arg(long, value_name = "PATH", num_args = 1.., requires = "mean")]
    data: Vec<PathBuf>,
    /// Tokens of --data to read at most
    #[arg(long, default_value_t = 65_536, conflicts_with_all = ["prompt", "tokens"], value_parser = count::<usize>(1, MAX_TOKENS))]
    max_tokens: usize,
}

pub fn run(args: &Args) -> Result<()> {
    check_output(&args.out)?;
    let progress = Progress::new();
    progress.stage("opening the model");
    let opened = args.model.open()?;
    progress.stage("reading text");
    let sequences = match (&args.prompt, &args.tokens) {
        (Some(prompt), _) => vec![opened.encode(prompt, args.special)?],
        (None, Some(path)) => token_file(path)?,
        (None, None) => opened.sequences(&args.data, args.max_tokens)?,
    };
    let sites = opened.model.config.sites_matching(&args.sites)?;
    let matching = sites.len();
    // Whoever takes means must know of which model they are.
    let about = match args.mean {
        true => Some(HashMap::from([("model".to_string(), opened.model.hash()?)])),
        false => None,
    };
    progress.stage("recording");
    let (floats, ids) = match args.mean {
        true => {
            let Opened { model, .. } = &opened;
            let batches = sequences.iter().enumerate().map(|(done, sequence)| {
                progress.at(done as u64, sequences.len() as u64, "sequences".into());
                Batch::new(&model.device, &model.config, sequence, 1)
            });
            let means = means_unchecked(model, batches, &sites)?;
            let tensor = |data: Vec<f32>| HostTensor { shape: vec![data.len()], data };
            (means.into_iter().map(|(site, mean)| (site.to_string(), tensor(mean))).collect(), BTreeMap::new())
        }
        false => record(&opened, &sequences, &sites)?,
    };
    save_arrays(&args.out, &floats, &ids, about)?;
    drop(progress);
    let mut out = screen(&[Some(&args.out)])?;
    writeln!(out, "{matching} sites in {}", args.out.display())?;
    let names: Vec<String> = sites.iter().map(Site::to_string).collect();
    say_not_finite(names.iter().map(String::as_str).chain(["logits"]), &floats, &mut out)
}

/// Says which of the recorded sites are not finite, in the order of the forward pass.
fn say_not_finite<'a>(
    sites: impl Iterator<Item = &'a str>,
    recorded: &BTreeMap<String, HostTensor>,
    out: &mut impl Write,
) -> Result<()> {
    let of = |site| recorded.get(site).and_then(|tensor| NotFinite::find(site, &tensor.shape, &tensor.data));
    let found: Vec<NotFinite> = sites.filter_map(of).collect();
    if let Some(first) = found.first() {
        writeln!(out, "\nnot finite: {} of {} tensors, the first of them {}", found.len(), recorded.len(), first.name)?;
    }
    found.iter().try_for_each(|found| writeln!(out, "  {found}"))?;
    Ok(())
}

type Arrays = (BTreeMap<String, HostTensor>, BTreeMap<String, HostIds>);

fn record(opened: &Opened, sequences: &[Vec<u32>], sites: &[Site]) -> Result<Arrays> {
    let model = &opened.model;
    let tokens = sequences.concat();
    let batch = Batch::new(&model.device, &model.config, &tokens, sequences.len())?;
    let mut recorder = Recorder::of(sites.iter().copied());
    let weights = Weights::constant(model, &[]);
    let logits = Pass::new(model, &weights, &batch, &mut Tape::new(), &mut recorder).unchecked().logits()?;
    let mut floats = BTreeMap::new();
    let recorded = recorder.values.into_iter().map(|(site, var)| (site.to_string(), var));
    for (name, var) in recorded.chain([("logits".to_string(), logits)]) {
        let (shape, data) = (var.value().shape().to_vec(), var.value().read()?);
        floats.insert(name, HostTensor { shape, data });
    }
    let ids = HostIds { shape: vec![sequences.len(), tokens.len() / sequences.len()], data: tokens };
    Ok((floats, BTreeMap::from([("tokens".to_string(), ids)])))
}
