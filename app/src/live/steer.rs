//! What the bridge's tab asks for, and what it is told.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gossamer::bridges::{BridgeFile, Bridges, Change, Comparison, Ratio, Recipe, Steering};
use gossamer::device::on_worker;
use gossamer::formats::ModelFiles;
use gossamer::model::{Hold, Model};
use gossamer::text::python;
use gossamer::text::sequences::sequences;

use super::ask::{encode, shown};
use super::model::Opened;
use crate::jobs::Inbox;

/// Tokens of generated text that the streams' scales are measured on: as many as `gossamer steer` takes unless told otherwise.
const REFERENCE_TOKENS: usize = 16_384;

/// What the dense model says to a recipe.
#[derive(Clone)]
pub struct Steered {
    /// What was done.
    pub recipe: Recipe,
    /// The probabilities; those of random channels may be of the change before, until they are computed.
    pub said: Comparison,
    /// The prompt's tokens.
    pub ids: Vec<u32>,
    /// The same as text.
    pub tokens: Vec<String>,
    /// The tokens that are worth showing, the task's answers first.
    pub shown: Vec<u32>,
    /// How long it took to know what the steered model says.
    pub took: Duration,
}

/// What lies beyond a sparse model.
struct Bridged {
    dense: Model,
    bridges: Bridges,
    /// Text that both models can read.
    reference: Vec<Vec<u32>>,
}

impl Bridged {
    fn open(opened: &Opened) -> Result<Self> {
        let folder = &opened.folder;
        let about = BridgeFile::load(folder).context(
            "this model has no bridges beside it. Steer one that `train bridges --dense MODEL --sparse THIS --out RUN` has made",
        )?;
        let dense = ModelFiles::open(about.dense_path(folder))
            .context("the dense model that the bridges lead to is no longer where it was: put it there again")?;
        let dense = dense.load(Hold::Compressed, &opened.model.device)?;
        let bridges = about.open(folder, (&dense, dense.hash()?.as_str()), &opened.model)?;
        let length = opened.model.config.block_size.min(dense.config.block_size);
        let documents = python::documents(u64::MAX).map(Ok);
        let reference = sequences(documents, &opened.tokenizer, length, REFERENCE_TOKENS)?;
        Ok(Self { dense, bridges, reference })
    }
}

/// Answers recipes with the bridges beside a sparse model: soon with what the steered model says, and with the random channels, which take
/// longer, unless something newer is wanted by then.
pub fn serve(opened: &Opened, mut inbox: Inbox<Result<Steered, String>, Recipe>) {
    let bridged = Bridged::open(opened).map_err(|e| format!("{e:#}"));
    let mut desk = Desk::default();
    while let Some(recipe) = inbox.next() {
        let bridged = bridged.as_ref().map_err(Clone::clone);
        let said = bridged.and_then(|bridged| desk.steered(opened, bridged, &recipe).map_err(|e| format!("{e:#}")));
        match said {
            Ok(said) if recipe.random > 0 => {
                inbox.reporter.update(Ok(said));
                if !inbox.outdated() {
                    inbox.reporter.finish(desk.compared(&recipe).map_err(|e| format!("{e:#}")));
                }
            }
            other => inbox.reporter.finish(other),
        }
    }
}

/// What is at hand from the requests before.
#[derive(Default)]
struct Desk<'a> {
    steering: Option<(Ratio, Steering<'a>)>,
    /// What a recipe changes; its strength does not matter.
    change: Option<(Recipe, Change)>,
    said: Option<Steered>,
}

impl<'a> Desk<'a> {
    /// What the dense model says without and with the change. Of the random channels, what was known before of the same prompt.
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
        let mut said = on_worker(|| alone.compare(steering, &ids, change))?;
        let before = self.said.take().filter(|before| before.ids == ids);
        said.random = before.and_then(|before| before.said.random).filter(|_| recipe.random > 0);
        let text = |&id: &u32| opened.tokenizer.token_text(id);
        let tokens = ids.iter().map(text).collect();
        let shown = shown(opened, &[&said.plain, &said.steered]);
        let steered = Steered { recipe: recipe.clone(), said, ids, tokens, shown, took: start.elapsed() };
        self.said = Some(steered.clone());
        Ok(steered)
    }

    /// What was said last, with the random channels.
    fn compared(&mut self, recipe: &Recipe) -> Result<Steered> {
        let (Some((_, steering)), Some((_, change)), Some(before)) = (&self.steering, &self.change, &mut self.said)
        else {
            anyhow::bail!("there is nothing to steer by");
        };
        before.said = on_worker(|| recipe.compare(steering, &before.ids, change))?;
        Ok(before.clone())
    }
}
