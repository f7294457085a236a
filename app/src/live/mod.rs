//! Prompts in the circuit's model and, through bridges, in a dense one: the state without its
//! panels.
//!
//! * [`choices`]: a person's choices, which can be undone;
//! * [`model`] is opened once; jobs answer requests about it: [`ask`] for prompts,
//!   [`continuation`] for what follows them, [`steer`] for bridges.

pub mod ask;
pub mod choices;
pub mod continuation;
pub mod model;
pub mod steer;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use eframe::egui::Context;
use gossamer::bridges::{Channel, ModelName, Recipe, residual_channels};
use gossamer::circuits::NodeEntry;
use gossamer::circuits::labels::{signed, token};

use crate::document::Document;
use crate::item::Item;
use crate::jobs::{Job, Request};
use crate::view::View;
use ask::{Answer, Question};
use choices::{By, Steer};
use continuation::{Continuation, Continue};
use model::Opened;
use steer::Steered;

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// What is still to be chosen or written.
    Missing(&'static str),
    Error(String),
}

/// The circuit's model and its answers.
#[derive(Default)]
pub struct Live {
    opening: Option<Job<Result<Opened, String>>>,
    /// The model or the error; `None` before it is requested.
    pub model: Option<Result<Arc<Opened>, String>>,
    /// The text of the field that names a model.
    pub path: String,
    asking: Option<Request<Question, Answer>>,
    continuing: Option<Request<Continue, Continuation>>,
    steering: Option<Request<Recipe, Steered>>,
    /// The prompt and its selected token; the last if `None`.
    selected_token: Option<(String, usize)>,
}

impl Live {
    /// Opens the model at `named`, or the one that belongs to the document.
    pub fn open(&mut self, ctx: &Context, document: &Document, named: Option<PathBuf>) {
        let (file, circuit, ctx) = (document.path.clone(), document.circuit.clone(), ctx.clone());
        (self.model, self.asking, self.continuing, self.steering) = (None, None, None, None);
        let known = document.model_path();
        let find = move |_: &_| {
            let opened = Opened::find(file.as_deref(), &circuit, known.as_deref(), named.as_deref());
            opened.map_err(|e| format!("{e:#}"))
        };
        self.opening = Some(Job::run(move || ctx.request_repaint(), find));
    }

    /// Opens the document's model, unless it is being opened.
    pub fn open_once(&mut self, ctx: &Context, document: &Document) {
        if self.opening.is_none() {
            self.open(ctx, document, None);
        }
    }

    /// Lets a model that could not be opened be opened again.
    pub fn retry(&mut self) {
        self.model.take_if(|model| model.is_err());
    }

    /// Receives answers and requests the one to the present prompt.
    pub fn update(&mut self, ctx: &Context, document: &Document, view: &View) {
        if let Some(opened) = Job::take_result(&mut self.opening) {
            self.model = Some(opened.map(Arc::new));
        }
        let Some(Ok(opened)) = &self.model else { return };
        let asking = self.asking.get_or_insert_with(|| {
            let (opened, ctx) = (opened.clone(), ctx.clone());
            Request::new(Job::serve(move || ctx.request_repaint(), move |inbox| ask::serve(&opened, inbox)))
        });
        let head = match view.selected {
            Some(Item::Node(node)) => {
                let head = document.circuit.model.head(node).map(|(head, _)| head);
                node.layer.zip(head)
            }
            _ => None,
        };
        asking.poll();
        let prompt = prompt(document, view);
        // Of another prompt, the last token is asked about again.
        self.selected_token.take_if(|(of, _)| of != prompt);
        let at = self.selected_token.as_ref().map(|(_, at)| *at);
        asking.send(Question { prompt: prompt.into(), edits: view.edits.live.edits(), at, head });
        self.continuing.as_mut().map(Request::poll);
        self.steering.as_mut().map(Request::poll);
    }

    /// Lets the model continue a prompt.
    pub fn continue_prompt(&mut self, ctx: &Context, request: Continue) {
        let Some(Ok(opened)) = &self.model else { return };
        let continuing = self.continuing.get_or_insert_with(|| {
            let (opened, ctx) = (opened.clone(), ctx.clone());
            Request::new(Job::serve(move || ctx.request_repaint(), move |inbox| continuation::serve(&opened, inbox)))
        });
        continuing.send(request);
    }

    /// The newest continuation of a prompt, as far as it is written, or the error.
    pub fn continuation(&self) -> Option<Result<&Continuation, &str>> {
        let continuing = self.continuing.as_ref()?;
        let error = continuing.error.as_deref().map(Err);
        error.or_else(|| continuing.answer.as_deref().map(Ok))
    }

    /// Requests the dense model's answer to a recipe.
    pub fn steer(&mut self, ctx: &Context, recipe: Recipe) {
        let Some(Ok(opened)) = &self.model else { return };
        let steering = self.steering.get_or_insert_with(|| {
            let (opened, ctx) = (opened.clone(), ctx.clone());
            Request::new(Job::serve(move || ctx.request_repaint(), move |inbox| steer::serve(&opened, inbox)))
        });
        steering.send(recipe);
    }

    /// The newest answer about the prompt.
    pub fn answer(&self) -> Option<&Answer> {
        self.asking.as_ref()?.answer.as_deref()
    }

    pub fn shared_answer(&self) -> Option<Arc<Answer>> {
        self.asking.as_ref()?.answer.clone()
    }

    /// Why the present prompt has no answer.
    pub fn problem(&self, document: &Document, view: &View) -> Option<Problem> {
        if prompt(document, view).is_empty() {
            return Some(WRITE_A_PROMPT);
        }
        self.asking.as_ref()?.error.clone().map(Problem::Error)
    }

    /// Whether the model is being opened or the answer about the prompt computed.
    pub fn answering(&self) -> bool {
        self.opening.is_some() || self.asking.as_ref().is_some_and(Request::pending)
    }

    /// The circuit's model, if it is open.
    pub fn opened(&self) -> Option<&Opened> {
        self.model.as_ref()?.as_ref().ok().map(|opened| &**opened)
    }

    /// The newest answer of the dense model.
    pub fn steered(&self) -> Option<&Steered> {
        self.steering.as_ref()?.answer.as_deref()
    }

    /// Why the dense model's answer is not to this recipe.
    pub fn steering_problem(&self, recipe: &Result<Recipe, Problem>) -> Option<Problem> {
        let error = || self.steering.as_ref()?.error.clone().map(Problem::Error);
        recipe.as_ref().err().cloned().or_else(error)
    }

    /// Whether a model is being opened or an answer computed.
    pub fn pending(&self) -> bool {
        self.answering()
            || self.continuing.as_ref().is_some_and(Request::pending)
            || self.steering.as_ref().is_some_and(Request::pending)
    }

    /// The number of the selected token of the newest answer.
    pub fn token(&self) -> Option<usize> {
        let answer = self.answer()?;
        let last = answer.tokens.len().checked_sub(1)?;
        let selected = self.selected_token.as_ref().filter(|(prompt, _)| *prompt == answer.question.prompt);
        Some(selected.map_or(last, |(_, at)| *at).min(last))
    }

    /// Selects a token of the newest answer, after which the next one is asked for.
    pub fn select_token(&mut self, number: usize) {
        let prompt = self.answer().map(|answer| answer.question.prompt.clone());
        self.selected_token = prompt.map(|prompt| (prompt, number));
    }

    /// A node's activation at the selected token, as a line of text.
    pub fn activation_line(&self, item: Item) -> Option<String> {
        let Item::Node(node) = item else { return None };
        let (answer, number) = (self.answer()?, self.token()?);
        let (plain, edited) = answer.activations(node)?;
        let token = token(answer.tokens.get(number)?);
        let plain = *plain.get(number)?;
        let edited = edited.and_then(|edited| edited.get(number).copied()).filter(|&edited| edited != plain);
        let unedited = edited.map(|_| format!(" (unedited {})", signed(plain.into()))).unwrap_or_default();
        Some(format!("in the prompt, at {token}: {}{unedited}", signed(edited.unwrap_or(plain).into())))
    }
}

const WRITE_A_PROMPT: Problem = Problem::Missing("write a prompt");

/// The prompt of both tabs.
pub fn prompt<'a>(document: &'a Document, view: &'a View) -> &'a str {
    view.edits.live.prompt.as_deref().unwrap_or(&document.circuit.task.clean)
}

/// The prompt that steering goes towards.
pub fn counterfactual<'a>(document: &'a Document, view: &'a View) -> &'a str {
    view.edits.live.steer.counterfactual.as_deref().unwrap_or(&document.circuit.task.counterfactual)
}

/// The channels that the circuit offers for steering.
pub struct OfferedChannels {
    /// The circuit's own nodes that read the residual stream.
    pub nodes: Vec<Channel>,
    /// The same channels of the stream where other sublayers read them.
    pub other_sublayers: Vec<Channel>,
}

pub fn channels(document: &Document) -> OfferedChannels {
    let channel = |entry: &NodeEntry| entry.node().to_string().parse::<Channel>().ok();
    let known: BTreeSet<Channel> = document.circuit.nodes.iter().filter_map(channel).collect();
    let all = residual_channels(&document.circuit).into_iter();
    let (nodes, other_sublayers) = all.partition(|channel| known.contains(channel));
    OfferedChannels { nodes, other_sublayers }
}

/// The written channel to steer by.
pub fn channel(document: &Document, view: &View) -> String {
    let OfferedChannels { nodes, other_sublayers } = channels(document);
    let first = || nodes.iter().chain(&other_sublayers).next().map(ToString::to_string);
    view.edits.live.steer.channel.clone().or_else(first).unwrap_or_default()
}

/// The recipe of the present choices.
pub fn recipe(document: &Document, view: &View, opened: &Opened) -> Result<Recipe, Problem> {
    let sparse = ModelName { path: opened.path.display().to_string(), hash: opened.hash.clone() };
    let (channel, other) = (channel(document, view), counterfactual(document, view).to_string());
    let steer =
        Steer { channel: Some(channel.clone()), counterfactual: Some(other.clone()), ..view.edits.live.steer.clone() };
    match prompt(document, view) {
        "" => Err(WRITE_A_PROMPT),
        _ if channel.trim().is_empty() => Err(Problem::Missing("choose a channel")),
        _ if steer.by == By::Counterfactual && other.is_empty() => Err(Problem::Missing("write a counterfactual")),
        prompt => steer.recipe(prompt, &sparse).map_err(Problem::Error),
    }
}
