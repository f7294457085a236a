//! The tab with a prompt in the circuit's model.

use eframe::egui::{CentralPanel, ComboBox, Panel, ScrollArea, Ui};
use gossamer::circuits::Node;
use gossamer::circuits::labels::signed;
use gossamer::model::Site;

use super::ask::{Answer, answers};
use super::table::{self, Column};
use super::{Live, node, panel};
use crate::document::Document;
use crate::item::Item;
use crate::view::View;

/// Channels listed of a site.
const CHANNELS: usize = 12;

pub fn show(ui: &mut Ui, live: &mut Live, document: &Document, view: &mut View) {
    Panel::left("what is asked").default_size(330.0).show(ui, |ui| {
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            panel::prompt_text(ui, document, view);
            settings(ui, view);
        });
    });
    Panel::right("what is said").default_size(470.0).show(ui, |ui| {
        ScrollArea::both().auto_shrink(false).show(ui, |ui| said(ui, live, document));
    });
    CentralPanel::default().show(ui, |ui| {
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| seen(ui, live, document, view));
    });
}

/// What is done to nodes, and the way back.
fn settings(ui: &mut Ui, view: &mut View) {
    let settings = &mut view.edits.live.settings;
    if settings.is_empty() {
        ui.weak("No node is set: choose one in the drawing, or name it, and set it at the middle.");
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

/// Tokens, the chosen node, and the activations of a site.
fn seen(ui: &mut Ui, live: &mut Live, document: &Document, view: &mut View) {
    let error = live.asking.as_ref().and_then(|asking| asking.error.clone());
    let failed = error.is_some();
    // Also where it is empty: a message that comes or goes must not take the focus from what is being written.
    ui.scope(|ui| error.into_iter().for_each(|error| drop(ui.colored_label(ui.visuals().error_fg_color, error))));
    let Some(answer) = live.asking.as_ref().and_then(|asking| asking.answer.clone()) else {
        if !failed {
            ui.weak("the first run, with the means of all nodes, takes a moment …");
        }
        return;
    };
    let at = live.at();
    let chosen = node::chosen(&mut live.shelf.node, view.selected);
    let activations = chosen.and_then(|node| answer.activations(node));
    let shown = activations.as_ref().map(|(plain, edited)| edited.as_ref().unwrap_or(plain).as_slice());
    if let Some(at) = panel::tokens(ui, &answer.tokens, shown, at) {
        live.shelf.at = Some(at);
    }
    ui.separator();
    node::set(ui, &mut live.shelf.node.0, chosen, shown, at, &mut view.edits.live.settings);
    ui.separator();
    let Some(at) = at else { return };
    let sites = live.opened().map(|opened| opened.model.config.sites()).unwrap_or_default();
    let first = || document.circuit.nodes.first().map_or(Site::FinalResid, |entry| entry.node().site());
    let mut site = live.shelf.site.filter(|site| answer.plain.sites.contains_key(site)).unwrap_or_else(first);
    ui.horizontal(|ui| {
        ComboBox::from_label("site").selected_text(site.to_string()).show_ui(ui, |ui| {
            for other in sites {
                ui.selectable_value(&mut site, other, other.to_string());
            }
        });
        ui.weak(format!("the largest activations at token {at}"));
    });
    live.shelf.site = Some(site);
    channels(ui, &answer, site, at, view);
}

/// The largest activations of a site; a click on one that is a node chooses it.
fn channels(ui: &mut Ui, answer: &Answer, site: Site, at: usize, view: &mut View) {
    ui.horizontal_wrapped(|ui| {
        for (channel, now, before) in answer.largest(site, at, CHANNELS) {
            let before = before.map(|before| format!(" (was {})", signed(before.into()))).unwrap_or_default();
            let said = format!("{channel}: {}{before}", signed(now.into()));
            let item = format!("{site}[{channel}]").parse::<Node>().ok().map(Item::Node);
            let selected = item.is_some() && view.selected == item;
            if ui.selectable_label(selected, said).clicked() && item.is_some() {
                view.selected = item;
            }
        }
    });
}

/// Next tokens of the whole model, the circuit alone, and the rest.
fn said(ui: &mut Ui, live: &Live, document: &Document) {
    let Some(answer) = live.answer() else { return };
    let (plain, edited) = (&*answer.plain, answer.edited.as_ref());
    let first = answers(&document.circuit);
    let tokens: Vec<_> = answer.shown.iter().map(|&id| (id, document_token(live, document, id))).collect();
    let mut columns = vec![
        Column { name: "whole model", plain: &plain.model, edited: edited.map(|e| &e.model[..]) },
        Column { name: "circuit alone", plain: &plain.circuit, edited: edited.map(|e| &e.circuit[..]) },
        Column { name: "all but circuit", plain: &plain.complement, edited: edited.map(|e| &e.complement[..]) },
    ];
    if document.circuit.nodes.is_empty() {
        columns.truncate(1);
    }
    // What is told below an error is of what was asked before.
    if live.asking.as_ref().is_some_and(|asking| asking.error.is_some()) {
        ui.multiply_opacity(0.4);
    }
    table::show(ui, "what follows the prompt", &tokens, first.len(), &columns);
    if !first.is_empty() {
        ui.weak("The task's two answers come first.");
    }
    ui.weak("Where nodes are set, bars are with that, outlines without.");
}

/// A token as text, by the open model's own tokenizer.
pub fn document_token(live: &Live, document: &Document, id: u32) -> String {
    live.opened().map_or_else(|| document.token(id), |opened| opened.tokenizer.token_text(id))
}
