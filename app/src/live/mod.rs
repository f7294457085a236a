//! Prompts, run live: in the circuit's model, and through bridges in a dense one.
//!
//! * [`choices`]: what a person chose, which can be undone;
//! * [`model`] is opened once, and [`worker`]s keep it at hand: [`ask`] for prompts, [`steer`] for bridges;
//! * [`panel`] is the lower part of the window, with `prompt` and `bridge` as its tabs; `table` shows probabilities, [`node`] tells
//!   of a node and of its head's attention.

pub mod ask;
mod bridge;
pub mod choices;
pub mod model;
pub mod node;
pub mod panel;
mod prompt;
pub mod steer;
mod table;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use eframe::egui::Context;
use gossamer::bridges::{Channel, ModelName, Recipe, residual_channels};
use gossamer::circuits::wording::signed;
use gossamer::circuits::{Node, NodeEntry};

use crate::document::Document;
use crate::item::Item;
use crate::jobs::{Job, Request};
use crate::view::View;
use ask::{Answer, Question};
use choices::Steer;
use model::Opened;
use steer::Steered;

/// What is shown below the drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tab {
    /// A prompt in the circuit's model.
    Prompt,
    /// The same prompt in the dense model beyond the bridges.
    Bridge,
}

/// The open model and what it says.
#[derive(Default)]
pub struct Live {
    tab: Option<Tab>,
    opening: Option<Job<Result<Opened, String>>>,
    /// The model, or why it is not there; nothing before it was asked for.
    model: Option<Result<Arc<Opened>, String>>,
    /// What is written where a model can be named.
    named: String,
    asking: Option<Request<Question, Answer>>,
    steering: Option<Request<Recipe, Steered>>,
    shelf: Shelf,
}

/// What the tabs remember that is not worth saving.
#[derive(Default)]
struct Shelf {
    /// The chosen token; the last if none.
    at: Option<usize>,
    /// The chosen site.
    site: String,
    /// The node that is set by hand, as it is written, and the selection that it was taken from.
    node: (String, Option<Item>),
    /// Where the recipe is kept.
    file: Option<String>,
    /// What was done last.
    said: String,
}

impl Live {
    /// Nothing open yet but the tab, if it was open before.
    pub fn new(tab: Option<Tab>) -> Self {
        Self { tab, ..Self::default() }
    }

    /// The open tab.
    pub fn tab(&self) -> Option<Tab> {
        self.tab
    }

    /// Opens the model at `named`, or the one that belongs to the document.
    fn open(&mut self, ctx: &Context, document: &Document, named: Option<PathBuf>) {
        let (file, circuit, ctx) = (document.path.clone(), document.circuit.clone(), ctx.clone());
        (self.model, self.asking, self.steering) = (None, None, None);
        let known = document.model_path();
        let find = move |_: &_| {
            let found = Opened::find(file.as_deref(), &circuit, known.as_deref(), named.as_deref());
            found.map_err(|e| format!("{e:#}"))
        };
        self.opening = Some(Job::run(move || ctx.request_repaint(), find));
    }

    /// Takes what has come from the workers, and asks them what is to be known now.
    fn update(&mut self, ctx: &Context, document: &Document, view: &View) {
        if let Some(found) = Job::take_result(&mut self.opening) {
            self.model = Some(found.map(Arc::new));
        }
        if self.tab.is_some() && self.model.is_none() && self.opening.is_none() {
            self.open(ctx, document, None);
        }
        let Some(Ok(opened)) = &self.model else { return };
        let wake = || {
            let ctx = ctx.clone();
            move || ctx.request_repaint()
        };
        let choices = &view.edits.live;
        let asking = self.asking.get_or_insert_with(|| {
            let opened = opened.clone();
            Request::new(Job::serve(wake(), move |inbox| ask::serve(&opened, inbox)))
        });
        let head = match view.selected {
            Some(Item::Node(node)) => document.circuit.model.head(node).map(|(head, _)| (node.layer, head)),
            _ => None,
        };
        asking.poll();
        asking.send(Question { prompt: prompt(document, view).into(), edits: choices.edits(), head });
        // Also while what is written now cannot be asked.
        self.steering.iter_mut().for_each(|steering| _ = steering.poll());
        let recipe = recipe(document, view, opened);
        if let (Some(Tab::Bridge), Ok(recipe)) = (self.tab, recipe) {
            let steering = self.steering.get_or_insert_with(|| {
                let opened = opened.clone();
                Request::new(Job::serve(wake(), move |inbox| steer::serve(&opened, inbox)))
            });
            steering.send(recipe);
        }
    }

    fn opened(&self) -> Option<&Opened> {
        self.model.as_ref()?.as_deref().ok()
    }

    /// The newest answer about the prompt.
    pub fn answer(&self) -> Option<&Answer> {
        self.asking.as_ref()?.answer.as_deref()
    }

    /// The newest answer of the dense model.
    pub fn steered(&self) -> Option<&Steered> {
        self.steering.as_ref()?.answer.as_deref()
    }

    /// Whether something is still being opened or computed.
    pub fn pending(&self) -> bool {
        self.opening.is_some()
            || self.asking.as_ref().is_some_and(|asking| asking.pending())
            || self.steering.as_ref().is_some_and(|steering| steering.pending())
    }

    /// The chosen token, by number, of the newest answer.
    fn at(&self) -> Option<usize> {
        let last = self.answer()?.tokens.len().checked_sub(1)?;
        Some(self.shelf.at.unwrap_or(last).min(last))
    }

    /// What an item does in the prompt, in a line or none.
    pub fn about(&self, item: Item) -> Vec<String> {
        let (Item::Node(node), Some(answer), Some(at)) = (item, self.answer(), self.at()) else { return Vec::new() };
        self.activation(answer, node, at).into_iter().collect()
    }

    fn activation(&self, answer: &Answer, node: Node, at: usize) -> Option<String> {
        let (plain, edited) = answer.activations(node)?;
        let token = gossamer::circuits::wording::token(answer.tokens.get(at)?);
        let before = *plain.get(at)?;
        Some(match edited.and_then(|edited| edited.get(at).copied()).filter(|&now| now != before) {
            Some(now) => {
                format!("in the prompt, at {token}: {} (unedited {})", signed(now.into()), signed(before.into()))
            }
            None => format!("in the prompt, at {token}: {}", signed(before.into())),
        })
    }
}

/// The prompt of both tabs.
fn prompt<'a>(document: &'a Document, view: &'a View) -> &'a str {
    view.edits.live.prompt.as_deref().unwrap_or(&document.circuit.task.positive)
}

/// The prompt that steering goes towards.
fn counterfactual<'a>(document: &'a Document, view: &'a View) -> &'a str {
    view.edits.live.steer.counterfactual.as_deref().unwrap_or(&document.circuit.task.negative)
}

/// The channels that may steer by what the circuit says: those that it reads itself, and where else its channels of the stream are read.
fn channels(document: &Document) -> [Vec<Channel>; 2] {
    let read = |entry: &NodeEntry| entry.node().to_string().parse::<Channel>().ok();
    let read: BTreeSet<Channel> = document.circuit.nodes.iter().filter_map(read).collect();
    let (own, elsewhere) = residual_channels(&document.circuit).into_iter().partition(|channel| read.contains(channel));
    [own, elsewhere]
}

/// The channel to steer by, as it is written.
fn channel(document: &Document, view: &View) -> String {
    let first = || channels(document).iter().flatten().next().map(ToString::to_string);
    view.edits.live.steer.channel.clone().or_else(first).unwrap_or_default()
}

/// What is to be done through the bridge.
fn recipe(document: &Document, view: &View, opened: &Opened) -> Result<Recipe, String> {
    let sparse = ModelName { path: opened.path.display().to_string(), hash: opened.hash.clone() };
    let (channel, other) = (channel(document, view), counterfactual(document, view).to_string());
    let steer = &view.edits.live.steer;
    let steer = Steer { channel: Some(channel), counterfactual: Some(other), ..steer.clone() };
    steer.recipe(prompt(document, view), &sparse)
}
