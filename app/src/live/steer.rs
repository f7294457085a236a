//! Requests to steer the dense model, and its answers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gossamer::bridges::{BridgeFile, Bridges, Change, Comparison, Ratio, Recipe, Steering};
use gossamer::device::on_worker;
use gossamer::formats::ModelFiles;
use gossamer::model::{Model, WeightFormat};
use gossamer::text::python;
use gossamer::text::sequences::sequences;

use super::ask::{encode, listed_tokens};
use super::model::Opened;
use crate::jobs::Inbox;

/// How many tokens the streams' scales are measured on: the default of `gossamer steer`.
const REFERENCE_TOKENS: usize = 16_384;

/// The dense model's answer to a recipe.
#[derive(Clone)]
pub struct Steered {
    pub recipe: Recipe,
    /// The probabilities; those of random channels are of the previous change until they are
    /// computed.
    pub comparison: Comparison,
    /// The prompt's tokens.
    pub ids: Vec<u32>,
    /// The prompt's tokens as text.
    pub tokens: Vec<String>,
    /// The next tokens to list, the task's answers first.
    pub shown: Vec<u32>,
    /// Until the steered model's answer.
    pub took: Duration,
}

/// The dense model and the bridges to it.
struct Bridged {
    dense: Model,
    bridges: Bridges,
    /// Sequences that fit both models.
    reference: Vec<Vec<u32>>,
}

impl Bridged {
    fn open(opened: &Opened) -> Result<Self> {
        let folder = &opened.folder;
        let about = BridgeFile::load(folder).context(
            "this model has no bridges next to it. Steer one that `train bridges --dense MODEL --sparse THIS --out RUN` has made",
        )?;
        let dense = ModelFiles::open(about.dense_path(folder))
            .context("the dense model that the bridges lead to is no longer where it was: put it there again")?;
        let dense = dense.load(WeightFormat::Sparse, &opened.model.device)?;
        let bridges = about.open(folder, (&dense, dense.hash()?.as_str()), &opened.model)?;
        let length = opened.model.config.block_size.min(dense.config.block_size);
        let documents = python::documents(u64::MAX).map(Ok);
        let reference = sequences(documents, &opened.tokenizer, length, REFERENCE_TOKENS)?;
        Ok(Self { dense, bridges, reference })
    }
}

/// Answers recipes with the bridges next to a sparse model: first without the random channels,
/// which take longer, then with them, unless a newer request waits by then.
pub fn serve(opened: &Opened, mut inbox: Inbox<Result<Steered, String>, Recipe>) {
    let bridged = Bridged::open(opened).map_err(|e| format!("{e:#}"));
    let mut cache = Cache::default();
    while let Some(recipe) = inbox.next_request() {
        let bridged = bridged.as_ref().map_err(Clone::clone);
        let steered = bridged.and_then(|bridged| cache.steered(opened, bridged, &recipe).map_err(|e| format!("{e:#}")));
        match steered {
            Ok(steered) if recipe.random > 0 => {
                inbox.reporter.update(Ok(steered));
                if !inbox.outdated() {
                    inbox.reporter.finish(cache.compared(&recipe).map_err(|e| format!("{e:#}")));
                }
            }
            other => inbox.reporter.finish(other),
        }
    }
}

/// Results of earlier requests.
#[derive(Default)]
struct Cache<'a> {
    steering: Option<(Ratio, Steering<'a>)>,
    /// The change of a recipe of any strength.
    change: Option<(Recipe, Change)>,
    last: Option<Steered>,
}

impl<'a> Cache<'a> {
    /// The dense model without and with the change; random channels as last computed for the
    /// prompt.
    fn steered(&mut self, opened: &'a Opened, bridged: &'a Bridged, recipe: &Recipe) -> Result<Steered> {
        let start = Instant::now();
        let longest = opened.model.config.block_size.min(bridged.dense.config.block_size);
        let ids = encode(opened, "prompt", &recipe.prompt, longest)?;
        if let Some(other) = &recipe.counterfactual {
            encode(opened, "counterfactual", other, longest)?;
        }
        let steering = match &mut self.steering {
            Some((ratio, steering)) if *ratio == recipe.ratio => steering,
            other => {
                let Bridged { dense, bridges, reference } = bridged;
                let new = || Steering::new(dense, &opened.model, bridges, reference, recipe.ratio);
                &mut other.insert((recipe.ratio, on_worker(new)?)).1
            }
        };
        let same = |other: &Recipe| Recipe { strength: recipe.strength, ..other.clone() } == *recipe;
        let change = match &mut self.change {
            Some((other, change)) if same(other) => change,
            other => {
                let new = on_worker(|| recipe.change(steering, &opened.tokenizer))?;
                &mut other.insert((recipe.clone(), new)).1
            }
        };
        let alone = Recipe { random: 0, ..recipe.clone() };
        let mut comparison = on_worker(|| alone.compare(steering, &ids, change))?;
        let last = self.last.take().filter(|last| last.ids == ids);
        comparison.random = last.and_then(|last| last.comparison.random).filter(|_| recipe.random > 0);
        let text = |&id: &u32| opened.tokenizer.token_text(id);
        let tokens = ids.iter().map(text).collect();
        let shown = listed_tokens(opened, &[&comparison.plain, &comparison.steered]);
        let steered = Steered { recipe: recipe.clone(), comparison, ids, tokens, shown, took: start.elapsed() };
        self.last = Some(steered.clone());
        Ok(steered)
    }

    /// The last answer with the random channels.
    fn compared(&mut self, recipe: &Recipe) -> Result<Steered> {
        let (Some((_, steering)), Some((_, change)), Some(last)) = (&self.steering, &self.change, &mut self.last)
        else {
            anyhow::bail!("there is nothing to steer by");
        };
        last.comparison = on_worker(|| recipe.compare(steering, &last.ids, change))?;
        Ok(last.clone())
    }
}
