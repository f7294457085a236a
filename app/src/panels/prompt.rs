//! The tab with a prompt in the circuit's model.

use std::sync::Arc;
use std::time::Duration;

use eframe::egui::{self, CentralPanel, ComboBox, ScrollArea, Ui};
use gossamer::circuits::Node;
use gossamer::circuits::labels::{signed, token};
use gossamer::model::Site;

use super::continuation::Continuing;
use super::node::{self, NodeName};
use super::table::{self, Column};
use super::{Panel, PanelContext, side_columns};
use crate::document::Document;
use crate::item::Item;
use crate::live::ask::Answer;
use crate::live::model::Opened;
use crate::live::{Problem, prompt};
use crate::view::View;
use crate::widgets::{code_field, path_field, token_row};

/// How many channels of a site are listed.
const CHANNELS: usize = 12;

#[derive(Default)]
pub struct PromptPanel {
    site: Option<Site>,
    node: NodeName,
    /// Whether tokens show the attention of the node's head instead of the node's activations.
    attention: bool,
    continuing: Continuing,
}

impl Panel for PromptPanel {
    fn status(&self, ui: &mut Ui, PanelContext { document, view, live, .. }: &PanelContext) {
        let problem = live.problem(document, view);
        status(ui, live.answering(), problem.as_ref(), live.answer().map(|answer| answer.took));
    }

    fn ui(&mut self, ui: &mut Ui, context: &mut PanelContext) {
        let Some(opened) = opened_model(ui, context) else { return };
        let [left, right] = side_columns(ui);
        egui::Panel::left("prompt and settings").default_size(left).show(ui, |ui| {
            ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
                prompt_field(ui, context.document, context.view);
                self.continuing.show(ui, context);
                ui.separator();
                settings(ui, context.view);
            });
        });
        egui::Panel::right("next tokens").default_size(right).show(ui, |ui| {
            ScrollArea::both().auto_shrink(false).show(ui, |ui| next_tokens(ui, context, &opened));
        });
        CentralPanel::default().show(ui, |ui| {
            ScrollArea::vertical().auto_shrink(false).show(ui, |ui| self.activations(ui, context, &opened));
        });
    }
}

/// The circuit's model. Until it is open, shows that it is being opened, or the error and a field
/// for another path.
pub fn opened_model(ui: &mut Ui, context: &mut PanelContext) -> Option<Arc<Opened>> {
    let ctx = ui.ctx().clone();
    let live = &mut *context.live;
    match &live.model {
        Some(Ok(opened)) => return Some(opened.clone()),
        Some(Err(error)) => {
            ui.label(error);
            let row = ui.horizontal(|ui| path_field(ui, "model", &mut live.path, "Open model", false));
            if let Some(path) = row.inner {
                live.open(&ctx, context.document, Some(path));
            }
        }
        None => {
            live.open_once(&ctx, context.document);
            ui.weak("opening the circuit's model …");
        }
    }
    None
}

/// Whether the answer on the screen, which `took` so long, is to the present request.
pub fn status(ui: &mut Ui, pending: bool, problem: Option<&Problem>, took: Option<Duration>) {
    match (problem, took) {
        _ if pending => drop(ui.weak("computing …")),
        (Some(_), Some(_)) => drop(ui.label("the numbers are those of an earlier request")),
        (Some(Problem::Error(_)), None) => drop(ui.label("no answer")),
        (None, Some(took)) => {
            ui.weak("up to date").on_hover_text(format!("computed in {:.1} ms", took.as_secs_f64() * 1e3));
        }
        (_, None) => {}
    }
}

/// Shows why there is no answer. Takes a place even when there is no problem: a message that comes
/// or goes must not take the focus from a text field.
pub fn show_problem(ui: &mut Ui, problem: Option<&Problem>) {
    ui.scope(|ui| match problem {
        Some(Problem::Missing(what)) => drop(ui.weak(*what)),
        Some(Problem::Error(error)) => drop(ui.colored_label(ui.visuals().error_fg_color, error)),
        None => {}
    });
}

/// The prompt, which both tabs have.
pub fn prompt_field(ui: &mut Ui, document: &Document, view: &mut View) {
    if let Some(text) = code_field(ui, "prompt", prompt(document, view), &task_prompts(document)) {
        view.edits.live.prompt = Some(text);
    }
}

pub fn task_prompts(document: &Document) -> [(&'static str, &str); 2] {
    let task = &document.circuit.task;
    [("clean prompt", task.clean.as_str()), ("counterfactual prompt", task.counterfactual.as_str())]
}

/// The interventions on nodes.
fn settings(ui: &mut Ui, view: &mut View) {
    let settings = &mut view.edits.live.settings;
    if settings.is_empty() {
        ui.weak("No node is set: select one in the drawing, or name it, and set it in the middle.");
        return;
    }
    let edits: Vec<(Node, String)> = settings.iter().map(|(node, s)| (*node, s.edit(*node).to_string())).collect();
    for (node, edit) in edits {
        ui.horizontal(|ui| {
            if ui.small_button(format!("undo {node}")).clicked() {
                settings.remove(&node);
            }
            ui.monospace(edit);
        });
    }
    if ui.button("undo all of these").clicked() {
        settings.clear();
    }
}

impl PromptPanel {
    /// Tokens, the named node, and the activations of a site.
    fn activations(&mut self, ui: &mut Ui, context: &mut PanelContext, opened: &Opened) {
        let problem = context.live.problem(context.document, context.view);
        show_problem(ui, problem.as_ref());
        let Some(answer) = context.live.shared_answer() else {
            if problem.is_none() {
                ui.weak("the first run, with the means of all nodes, takes a moment …");
            }
            return;
        };
        let token = context.live.token();
        let node = self.node.node(context.view.selected);
        let activations = node.and_then(|node| answer.activations(node));
        let shown = activations.as_ref().map(|(plain, edited)| edited.as_ref().unwrap_or(plain).as_slice());
        let attention = token.and_then(|token| answer.attention(token));
        let row = attention.filter(|_| self.attention).or(shown);
        if let Some(clicked) = token_row(ui, &answer.tokens, row, token) {
            context.live.select_token(clicked);
        }
        if let Some((layer, head)) = answer.question.head.filter(|_| attention.is_some()) {
            ui.horizontal_wrapped(|ui| {
                ui.weak("tokens show");
                ui.selectable_value(&mut self.attention, false, "the node's activations");
                let name = format!("where head {head} of layer {layer} attends to from the selected token");
                ui.selectable_value(&mut self.attention, true, name);
            });
        }
        ui.separator();
        node::settings(ui, &mut self.node, shown, token, &mut context.view.edits.live.settings);
        ui.separator();
        let Some(token) = token else { return };
        let first = || context.document.circuit.nodes.first().map_or(Site::FinalResid, |entry| entry.node().site());
        let mut site = self.site.filter(|site| answer.plain.sites.contains_key(site)).unwrap_or_else(first);
        ui.horizontal(|ui| {
            ComboBox::from_label("site").selected_text(site.to_string()).show_ui(ui, |ui| {
                for other in opened.model.config.sites() {
                    ui.selectable_value(&mut site, other, other.to_string());
                }
            });
            ui.weak(format!("the largest activations at token {token}"));
        });
        channels(ui, &answer, site, token, context.view);
        self.site = Some(site);
    }
}

/// The largest activations of a site; a click on a node selects it.
fn channels(ui: &mut Ui, answer: &Answer, site: Site, at: usize, view: &mut View) {
    ui.horizontal_wrapped(|ui| {
        for activation in answer.largest(site, at, CHANNELS) {
            let plain = activation.plain.map(|plain| format!(" (was {})", signed(plain.into()))).unwrap_or_default();
            let text = format!("{}: {}{plain}", activation.channel, signed(activation.value.into()));
            let item = format!("{site}[{}]", activation.channel).parse::<Node>().ok().map(Item::Node);
            let selected = item.is_some() && view.selected == item;
            if ui.selectable_label(selected, text).clicked() && item.is_some() {
                view.selected = item;
            }
        }
    });
}

/// The next tokens of the whole model, the circuit and its complement.
fn next_tokens(ui: &mut Ui, context: &PanelContext, opened: &Opened) {
    let Some(answer) = context.live.answer() else { return };
    let (plain, edited) = (&*answer.plain, answer.edited.as_ref());
    let mut columns = vec![
        Column { name: "whole model", plain: &plain.model, edited: edited.map(|e| &e.model[..]) },
        Column { name: "circuit alone", plain: &plain.circuit, edited: edited.map(|e| &e.circuit[..]) },
        Column { name: "complement", plain: &plain.complement, edited: edited.map(|e| &e.complement[..]) },
    ];
    if context.document.circuit.nodes.is_empty() {
        columns.truncate(1);
    }
    // The answer is to an earlier request.
    if context.live.problem(context.document, context.view).is_some() {
        ui.multiply_opacity(0.4);
    }
    ui.weak(match answer.tokens.get(answer.at) {
        Some(text) if answer.at + 1 < answer.tokens.len() => format!("after token {}, {}", answer.at, token(text)),
        _ => "after the prompt".into(),
    });
    table::show(ui, "probabilities after the prompt", &answer.shown, &columns, opened);
    ui.weak("Where nodes are set, bars are with the settings, outlines without.");
    if columns.len() > 1 {
        ui.weak("Probabilities are uncalibrated: only losses and accuracies are calibrated.");
    }
}
