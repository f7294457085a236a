//! The panel at the left: what to find, to show, and to follow.

use std::collections::BTreeSet;

use eframe::egui::{Key, RichText, Slider, TextEdit, Ui};

use super::{Explorer, Open};
use crate::graph::group_colour;
use crate::item::Item;
use crate::number::finite;
use crate::text;
use crate::view::{Sublayer, Trace};

impl Explorer {
    pub(super) fn controls(&mut self, ui: &mut Ui) {
        let find = std::mem::take(&mut self.find);
        let Some(open) = &mut self.open else { return };
        let name = ui.label("Find");
        let search = ui
            .add(
                TextEdit::singleline(&mut self.search).hint_text("a name, label or token").desired_width(f32::INFINITY),
            )
            .labelled_by(name.id);
        if find {
            search.request_focus();
        }
        let label = |item: Item| open.view.edits.labels.get(&item).map(String::as_str);
        let circuit = &open.document.circuit;
        let found: Vec<_> =
            open.scene.1.all().filter(|&item| text::matches(circuit, item, label(item), &self.search)).collect();
        let entered = search.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
        let mut chosen = found.first().copied().filter(|_| entered);
        for &item in found.iter().take(12) {
            if ui.selectable_label(open.view.selected == Some(item), item.to_string()).clicked() {
                chosen = Some(item);
            }
        }
        if let Some(item) = chosen {
            open.go_to(item);
        }
        ui.separator();
        ui.weak("show").on_hover_text("Δ: how much the task loss rises without each of the nodes, added up");
        ui.selectable_value(&mut open.view.sublayer, None, "the whole circuit");
        for layer in 0..open.document.circuit.model.n_layer {
            for mlp in [false, true] {
                let half = Sublayer { layer, mlp };
                let nodes = open.document.circuit.nodes.iter().filter(|entry| Sublayer::of(entry.node()) == half);
                let (count, delta) =
                    nodes.fold((0, 0.0), |(count, sum), entry| (count + 1, sum + entry.ablation_delta));
                if count > 0 {
                    let said = format!("{}: {count} nodes, Δ {delta:.3}", half.name());
                    ui.selectable_value(&mut open.view.sublayer, Some(half), said);
                }
            }
        }
        ui.separator();
        ui.weak("edges with at least this share of the largest effect");
        finite(&mut open.view.threshold, |value| {
            let slider = Slider::new(value, 0.0..=1.0).logarithmic(true).smallest_positive(1e-3);
            ui.add(slider.text("threshold").fixed_decimals(3))
        });
        ui.separator();
        ui.weak("follow the selection to");
        for (trace, name) in Trace::ALL {
            ui.radio_value(&mut open.view.trace, trace, name);
        }
        lists(ui, open);
    }
}

/// What is pinned, grouped and hidden.
fn lists(ui: &mut Ui, open: &mut Open) {
    let mut chosen = None;
    let edits = &open.view.edits;
    let mut list = |ui: &mut Ui, name: RichText, items: &BTreeSet<Item>| {
        if !items.is_empty() {
            ui.separator();
            ui.label(name);
        }
        for &item in items {
            let label = edits.labels.get(&item).map(|label| format!(", {label}")).unwrap_or_default();
            if ui.selectable_label(false, format!("{item}{label}")).clicked() {
                chosen = Some(item);
            }
        }
    };
    list(ui, RichText::new("pinned").weak(), &edits.pinned);
    for (number, (name, items)) in edits.groups.iter().enumerate() {
        list(ui, RichText::new(name).color(group_colour(number)), items);
    }
    list(ui, RichText::new("hidden").weak(), &edits.hidden);
    if let Some(item) = chosen {
        open.go_to(item);
    }
}
