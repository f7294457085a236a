//! `gossamer run`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use gossamer::files::{HostTensor, load_metadata, load_tensors};
use gossamer::model::{
    Action, Batch, Edit, Interventions, Model, NoHooks, Recorder, Weights, expect_model, means, ranked, site_pattern,
};
use gossamer::settings::count;
use gossamer::tape::Tape;
use gossamer::terminal::Progress;
use serde_json::json;

use crate::open::{ModelArgs, Opened};

/// Tokens of generated text that means are taken over where nothing else is named.
const MEAN_TOKENS: usize = 16_384;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The text whose next token is asked for
    #[arg(long)]
    prompt: String,
    /// Read special tokens in prompts, such as <|endoftext|>, as those tokens, not as text
    #[arg(long)]
    special: bool,
    /// An intervention: SITE[CHANNELS]@POSITIONS=VALUE, also += and *=, =mean and =patch; may be repeated. Channels are
    /// numbers, ranges a:b, heads h2 and their channels h2.5; positions count from 0, or from the end below 0; without
    /// either, all of them. `*.` in front stands for every layer
    #[arg(long = "set", value_name = "EDIT")]
    set: Vec<Edit>,
    /// The prompt whose run =patch takes from
    #[arg(long, value_name = "PROMPT")]
    patch_from: Option<String>,
    /// Means for =mean, as `gossamer record --mean` writes them [default: those over generated Python]
    #[arg(long, value_name = "FILE")]
    means: Option<PathBuf>,
    /// How many tokens to show
    #[arg(long, default_value_t = 10, value_parser = count::<usize>(1, 1 << 24))]
    top: usize,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let takes = |action: Action| args.set.iter().any(|edit| edit.action == action);
    if args.patch_from.is_some() && !takes(Action::Patch) {
        bail!("--patch-from changes nothing, since no --set takes from it: give one with =patch");
    }
    if args.means.is_some() && !takes(Action::Mean) {
        bail!("--means changes nothing, since no --set takes a mean: give one with =mean");
    }
    let progress = Progress::new();
    progress.stage("opening the model");
    let opened = args.model.open()?;
    progress.stage("running the prompt");
    let prompt = opened.encode(&args.prompt, args.special)?;
    let before = opened.model.next_token(&prompt, &mut NoHooks)?;
    let after = match args.set.is_empty() {
        true => None,
        false => Some(opened.model.next_token(&prompt, &mut interventions(args, &opened)?)?),
    };
    drop(progress);
    let shown = shown(&before, after.as_deref(), args.top);
    let mut out = std::io::stdout().lock();
    if args.json {
        let row = |&id: &u32| {
            json!({ "token": id, "text": opened.token_text(id), "before": before[id as usize],
                    "after": after.as_ref().map(|after| after[id as usize]) })
        };
        let all = json!({ "tokens": prompt, "texts": prompt.iter().map(|&id| opened.token_text(id)).collect::<Vec<_>>(), "next": shown.iter().map(row).collect::<Vec<_>>() });
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(());
    }
    let tokens: Vec<_> = prompt.iter().map(|&id| opened.show(id)).collect();
    writeln!(out, "{} tokens: {}\n", prompt.len(), tokens.join(" "))?;
    writeln!(out, "{}  next token", if after.is_some() { "  before    after" } else { "probability" })?;
    for id in shown {
        let p = before[id as usize];
        match &after {
            Some(after) => write!(out, "{p:>8.4} {:>8.4}", after[id as usize])?,
            None => write!(out, "{p:>11.4}")?,
        }
        writeln!(out, "  {}", opened.show(id))?;
    }
    Ok(())
}

/// The `top` tokens of both runs, the most probable before the interventions first.
fn shown(before: &[f64], after: Option<&[f64]>, top: usize) -> Vec<u32> {
    let mut ids = ranked(before);
    let others = after.map(|after| ranked(after).into_iter().take(top).collect::<Vec<_>>()).unwrap_or_default();
    let late: Vec<u32> = ids.iter().skip(top).copied().filter(|id| others.contains(id)).collect();
    ids.truncate(top);
    ids.extend(late);
    ids
}

/// The means in a file, which is checked to be of this model.
fn means_of(path: &Path, model: &Model) -> Result<BTreeMap<String, Vec<f32>>> {
    match load_metadata(path)?.get("model") {
        Some(hash) => expect_model(path.display().to_string(), "model", hash, &model.hash()?)?,
        None => tracing::warn!("{} does not say which model its means are of", path.display()),
    }
    Ok(load_tensors(path)?.into_iter().map(|(site, tensor)| (site, tensor.data)).collect())
}

fn interventions(args: &Args, opened: &Opened) -> Result<Interventions> {
    let model = &opened.model;
    let donor = match &args.patch_from {
        None => BTreeMap::new(),
        Some(prompt) => {
            let tokens = opened.encode(prompt, args.special)?;
            let batch = Batch::new(&model.device, &model.config, &tokens, 1)?;
            let mut recorder = Recorder::default();
            model.forward(&mut Tape::new(), &Weights::constant(model, &[]), &batch, &mut recorder)?;
            let host = |value: &gossamer::device::Tensor| -> Result<HostTensor> {
                Ok(HostTensor { shape: value.shape().to_vec(), data: value.read()? })
            };
            recorder.sites.into_iter().map(|(site, var)| Ok((site, host(var.value())?))).collect::<Result<_>>()?
        }
    };
    let wanted = args.set.iter().any(|edit| edit.action == Action::Mean);
    let means = match &args.means {
        _ if !wanted => BTreeMap::new(),
        Some(path) => means_of(path, model)?,
        None => {
            tracing::info!("means are taken over {MEAN_TOKENS} tokens of generated Python; --means names others");
            let sequences = opened.sequences(&[], MEAN_TOKENS)?;
            let batches = sequences.iter().map(|s| Batch::new(&model.device, &model.config, s, 1));
            means(model, batches, &site_pattern(".")?)?
        }
    };
    Ok(Interventions::new(&model.config, &args.set, means, donor)?)
}
