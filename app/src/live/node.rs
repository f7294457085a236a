//! One node in the prompt: set by hand, and what its head attends to.

use std::collections::BTreeMap;

use eframe::egui::{Rect, Role, Sense, Slider, SliderClamping, TextEdit, Ui, WidgetInfo, pos2, vec2};
use gossamer::circuits::Node;
use gossamer::circuits::labels::token;

use super::Live;
use super::choices::{Becomes, Setting};
use crate::document::Document;
use crate::item::Item;
use crate::number::finite;
use crate::view::View;

/// The node that is written; a new selection in the drawing takes its place.
pub fn chosen((text, from): &mut (String, Option<Item>), selected: Option<Item>) -> Option<Node> {
    if *from != selected {
        *from = selected;
        if let Some(Item::Node(node)) = selected {
            *text = node.to_string();
        }
    }
    text.trim().parse().ok()
}

/// Lets a node be named and set. `activations` are what it has at each token, `at` is the chosen one.
pub fn set(
    ui: &mut Ui,
    text: &mut String,
    node: Option<Node>,
    activations: Option<&[f32]>,
    at: Option<usize>,
    settings: &mut BTreeMap<Node, Setting>,
) {
    ui.horizontal(|ui| {
        let name = ui.label("node");
        let edit = TextEdit::singleline(text).hint_text("such as 0.attn.q[3]").desired_width(150.0);
        ui.add(edit).labelled_by(name.id);
        match (node, activations) {
            (None, _) if text.trim().is_empty() => drop(ui.weak("choose one in the drawing, or name one")),
            (None, _) => drop(ui.weak("is no node: one is written like 3.mlp.post_act[17]")),
            (Some(_), None) => drop(ui.weak("is not in this model")),
            (Some(_), Some(_)) => {}
        }
    });
    if let Some((node, activations)) = node.zip(activations) {
        becomes(ui, node, activations, at, settings);
    }
}

fn becomes(ui: &mut Ui, node: Node, activations: &[f32], at: Option<usize>, settings: &mut BTreeMap<Node, Setting>) {
    let before = settings.get(&node).copied();
    let mut becomes = before.map(|setting| setting.becomes);
    let mut only = before.and_then(|setting| setting.at);
    let largest = activations.iter().fold(1.0f32, |most, x| most.max(x.abs()));
    let now = at.and_then(|at| activations.get(at)).copied().unwrap_or(0.0);
    let mut value = match becomes {
        Some(Becomes::Value(value)) => value,
        _ => now,
    };
    ui.horizontal(|ui| {
        ui.selectable_value(&mut becomes, None, "as it is");
        ui.selectable_value(&mut becomes, Some(Becomes::Mean), "ablated").on_hover_text("at its mean over text");
        ui.selectable_value(&mut becomes, Some(Becomes::Value(0.0)), "zero");
        let set = finite(&mut value, |value| {
            let slider = Slider::new(value, -2.0 * largest..=2.0 * largest).clamping(SliderClamping::Never);
            ui.add(slider.text("set to").max_decimals(3))
        });
        if set {
            becomes = Some(Becomes::Value(value));
        }
    });
    if becomes.is_some() {
        ui.horizontal(|ui| {
            ui.selectable_value(&mut only, None, "at every token");
            // Where it holds now, and where it would hold instead.
            for here in only.into_iter().chain(at.filter(|at| only != Some(*at))) {
                ui.selectable_value(&mut only, Some(here), format!("at token {here} only"));
            }
        });
    }
    match becomes {
        None => drop(settings.remove(&node)),
        Some(becomes) => drop(settings.insert(node, Setting { becomes, at: only })),
    }
}

impl Live {
    /// Adds to what is told about the selected item: what it does in the prompt, and its head's attention.
    pub fn details(&self, ui: &mut Ui, document: &Document, view: &View) {
        let (Some(Item::Node(node)), Some(answer), Some(at)) = (view.selected, self.answer(), self.at()) else {
            return;
        };
        let Some(activation) = self.activation(answer, node, at) else { return };
        ui.separator();
        ui.label(activation);
        let (Some((head, _)), Some(pattern)) = (document.circuit.model.head(node), &answer.pattern) else { return };
        if answer.question.head != Some((node.layer, head)) {
            return;
        }
        let name = format!("attention of head {head} in layer {}", node.layer);
        ui.weak(&name);
        let row = pattern.get(at * answer.tokens.len()..(at + 1) * answer.tokens.len()).unwrap_or_default();
        let mut order: Vec<usize> = (0..row.len()).filter(|&j| row[j] >= 0.005).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        let shares = order.iter().take(4).map(|&j| format!("{} {:.2}", token(&answer.tokens[j]), row[j]));
        let shares = shares.collect::<Vec<_>>().join(", ");
        ui.label(format!(
            "{} takes from {}",
            token(&answer.tokens[at]),
            if shares.is_empty() { "none" } else { &shares }
        ));
        matrix(ui, &name, pattern, &answer.tokens, at);
    }
}

/// The attention pattern: a row for each token that looks, a column for each that is looked at.
fn matrix(ui: &mut Ui, name: &str, pattern: &[f32], tokens: &[String], at: usize) {
    let length = tokens.len();
    let side = ui.available_width().min(300.0);
    let (rect, response) = ui.allocate_exact_size(vec2(side, side), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, name));
    let cell = side / length.max(1) as f32;
    let place =
        |t: usize, j: usize| Rect::from_min_size(rect.min + vec2(j as f32 * cell, t as f32 * cell), vec2(cell, cell));
    let painter = ui.painter();
    let (paper, ink) = (ui.visuals().extreme_bg_color, ui.visuals().selection.bg_fill);
    painter.rect_filled(rect, 0.0, paper);
    for t in 0..length {
        for (j, &share) in pattern[t * length..(t + 1) * length].iter().enumerate().filter(|(_, share)| **share > 0.005)
        {
            painter.rect_filled(place(t, j), 0.0, paper.lerp_to_gamma(ink, share.sqrt()));
        }
    }
    let chosen = Rect::from_min_max(place(at, 0).min, pos2(rect.right(), place(at, 0).bottom()));
    let stroke = eframe::egui::Stroke::new(1.0, ui.visuals().weak_text_color());
    painter.rect_stroke(chosen, 0.0, stroke, eframe::egui::StrokeKind::Inside);
    if let Some(hover) = response.hover_pos() {
        let index = |offset: f32| ((offset / cell) as usize).min(length.saturating_sub(1));
        let (t, j) = (index(hover.y - rect.top()), index(hover.x - rect.left()));
        let said = format!("{} takes {:.3} from {}", token(&tokens[t]), pattern[t * length + j], token(&tokens[j]));
        response.on_hover_text(said);
    }
}
