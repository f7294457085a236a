//! The panel on the left: what to find, to show and to follow.

use std::collections::BTreeSet;

use eframe::egui::text::{CCursor, CCursorRange};
use eframe::egui::{Key, RichText, Slider, TextEdit, Ui};

use super::{Panel, PanelContext};
use crate::graph::group_color;
use crate::item::Item;
use crate::text;
use crate::view::{Sublayer, Trace, View};
use crate::widgets::finite;

/// The text that items are found by.
#[derive(Default)]
pub struct Search {
    text: String,
    /// Whether its field gets the focus in this frame.
    pub focus: bool,
}

pub struct ControlsPanel;

impl Panel for ControlsPanel {
    fn ui(&mut self, ui: &mut Ui, context: &mut PanelContext) {
        let found = search(ui, context);
        ui.separator();
        choose_sublayer(ui, context);
        ui.separator();
        ui.weak("at least this share of the largest");
        let View { threshold, node_threshold, .. } = context.view;
        for (name, value, what) in [
            ("edges", threshold, "edges by their effect; 0 shows all"),
            ("nodes", node_threshold, "nodes by how much the task loss changes when one is ablated; 0 shows all"),
        ] {
            finite(value, |value| {
                let slider = Slider::new(value, 0.0..=1.0).logarithmic(true).smallest_positive(1e-3);
                ui.add(slider.text(name).fixed_decimals(3)).on_hover_text(what)
            });
        }
        ui.separator();
        ui.weak("follow the selection to");
        for (trace, name) in Trace::ALL {
            ui.radio_value(&mut context.view.trace, trace, name);
        }
        let listed = lists(ui, context.view);
        if let Some(item) = found.or(listed) {
            context.go_to(item);
        }
    }
}

/// How many found items are listed.
const LISTED: usize = 12;

/// Returns the chosen item. Enter chooses the first, and then the next one each time.
fn search(ui: &mut Ui, context: &mut PanelContext) -> Option<Item> {
    let name = ui.label("Find");
    let edit = TextEdit::singleline(&mut context.search.text).hint_text("a name, label or token");
    let mut field = edit.desired_width(f32::INFINITY).show(ui);
    let response = field.response.response.labelled_by(name.id);
    if std::mem::take(&mut context.search.focus) {
        response.request_focus();
        let end = CCursor::new(context.search.text.chars().count());
        field.state.cursor.set_char_range(Some(CCursorRange::two(CCursor::default(), end)));
        field.state.store(ui.ctx(), response.id);
    }
    let (view, circuit, text) = (&context.view, &context.scene.circuit, &context.search.text);
    if text.trim().is_empty() {
        return None;
    }
    let label = |item: Item| match item {
        Item::Group(number) => view.edits.group_name(number),
        item => view.edits.labels.get(&item).map(String::as_str),
    };
    let found: Vec<_> = context.scene.all().filter(|&item| text::matches(circuit, item, label(item), text)).collect();
    ui.weak(match found.len() {
        0 => "nothing found".into(),
        count if count <= LISTED => format!("{count} found"),
        count => format!("{count} found, the first {LISTED} listed"),
    });
    let entered = response.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
    let now = found.iter().position(|&item| view.selected == Some(item));
    let next = now.map_or(0, |now| (now + 1) % found.len());
    let mut chosen = found.get(next).copied().filter(|_| entered);
    let name = |item: Item| match item {
        Item::Group(_) => text::title(&context.scene.circuit, item),
        item => item.to_string(),
    };
    for &item in found.iter().take(LISTED) {
        if ui.selectable_label(view.selected == Some(item), name(item)).clicked() {
            chosen = Some(item);
        }
    }
    chosen
}

fn choose_sublayer(ui: &mut Ui, context: &mut PanelContext) {
    ui.weak("show").on_hover_text("Δ: the sum, over the nodes, of the increase of the task loss when one is ablated");
    ui.selectable_value(&mut context.view.sublayer, None, "the whole circuit");
    let circuit = &context.document.circuit;
    for layer in 0..circuit.model.n_layer {
        for mlp in [false, true] {
            let sublayer = Sublayer { layer, mlp };
            let nodes = circuit.nodes.iter().filter(|entry| Sublayer::of(entry.node()) == Some(sublayer));
            let (count, delta) = nodes.fold((0, 0.0), |(count, sum), entry| (count + 1, sum + entry.ablation_delta));
            if count > 0 {
                let text = format!("{}: {count} nodes, Δ {delta:.3}", sublayer.name());
                ui.selectable_value(&mut context.view.sublayer, Some(sublayer), text);
            }
        }
    }
}

/// Lists pinned, grouped and hidden items. Returns the clicked one.
fn lists(ui: &mut Ui, view: &View) -> Option<Item> {
    let mut chosen = None;
    let edits = &view.edits;
    let mut list = |ui: &mut Ui, name: RichText, group: Option<usize>, items: &BTreeSet<Item>| {
        if !items.is_empty() {
            ui.separator();
        }
        if let Some(group) = group.map(Item::Group) {
            if ui.selectable_label(view.selected == Some(group), name).clicked() {
                chosen = Some(group);
            }
        } else if !items.is_empty() {
            ui.label(name);
        }
        for &item in items {
            let label = edits.labels.get(&item).map(|label| format!(", {label}")).unwrap_or_default();
            if ui.selectable_label(false, format!("{item}{label}")).clicked() {
                chosen = Some(item);
            }
        }
    };
    list(ui, RichText::new("pinned").weak(), None, &edits.pinned);
    for (number, (name, items)) in edits.groups.iter().enumerate() {
        let name = RichText::new(name);
        // On the color of the selection, the text's own can be read.
        let selected = view.selected == Some(Item::Group(number));
        list(ui, if selected { name } else { name.color(group_color(number)) }, Some(number), items);
    }
    list(ui, RichText::new("hidden").weak(), None, &edits.hidden);
    chosen
}
