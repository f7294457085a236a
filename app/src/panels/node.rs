//! One node in the prompt: its intervention, and the attention of its head.

use std::collections::BTreeMap;

use eframe::egui::{Rect, Role, Sense, Slider, SliderClamping, Stroke, StrokeKind, Ui, WidgetInfo, pos2, vec2};
use gossamer::circuits::Node;
use gossamer::circuits::labels::token;

use super::{Panel, PanelContext};
use crate::item::Item;
use crate::live::choices::{Becomes, Setting};
use crate::widgets::{finite, text_field};

/// The name of a node, which a new selection in the drawing replaces.
#[derive(Default)]
pub struct NodeName {
    text: String,
    selected: Option<Item>,
}

impl NodeName {
    /// The named node, if the name is valid.
    pub fn node(&mut self, selected: Option<Item>) -> Option<Node> {
        if self.selected != selected {
            self.selected = selected;
            if let Some(Item::Node(node)) = selected {
                self.text = node.to_string();
            }
        }
        self.text.trim().parse().ok()
    }
}

/// Shows the name and, of a node with `activations` at the tokens, its setting. `token` is the
/// selected one.
pub fn settings(
    ui: &mut Ui,
    name: &mut NodeName,
    activations: Option<&[f32]>,
    token: Option<usize>,
    settings: &mut BTreeMap<Node, Setting>,
) {
    let node = name.node(name.selected);
    ui.horizontal(|ui| {
        text_field(ui, "node", &mut name.text, "such as 0.attn.q[3]", 150.0);
        match (node, activations) {
            (None, _) if name.text.trim().is_empty() => drop(ui.weak("select one in the drawing, or name one")),
            (None, _) => drop(ui.weak("is no node: one is written like 3.mlp.post_act[17]")),
            (Some(_), None) => drop(ui.weak("is not in this model")),
            (Some(_), Some(_)) => {}
        }
    });
    if let Some((node, activations)) = node.zip(activations) {
        setting(ui, node, activations, token, settings);
    }
}

fn setting(ui: &mut Ui, node: Node, activations: &[f32], token: Option<usize>, settings: &mut BTreeMap<Node, Setting>) {
    let old = settings.get(&node).copied();
    let mut becomes = old.map(|setting| setting.becomes);
    let mut only = old.and_then(|setting| setting.at);
    let largest = activations.iter().fold(1.0f32, |most, x| most.max(x.abs()));
    let now = token.and_then(|token| activations.get(token)).copied().unwrap_or(0.0);
    let mut value = if let Some(Becomes::Value(value)) = becomes { value } else { now };
    ui.horizontal(|ui| {
        ui.selectable_value(&mut becomes, None, "unchanged");
        ui.selectable_value(&mut becomes, Some(Becomes::Mean), "ablated").on_hover_text("at its mean over text");
        ui.selectable_value(&mut becomes, Some(Becomes::Value(0.0)), "zero");
        let moved = finite(&mut value, |value| {
            let slider = Slider::new(value, -2.0 * largest..=2.0 * largest).clamping(SliderClamping::Never);
            ui.add(slider.text("set to").max_decimals(3))
        });
        if moved {
            becomes = Some(Becomes::Value(value));
        }
    });
    if becomes.is_some() {
        ui.horizontal(|ui| {
            ui.selectable_value(&mut only, None, "at every token");
            // The token of the setting, and the selected one.
            for at in only.into_iter().chain(token.filter(|token| only != Some(*token))) {
                ui.selectable_value(&mut only, Some(at), format!("at token {at} only"));
            }
        });
    }
    match becomes {
        None => drop(settings.remove(&node)),
        Some(becomes) => drop(settings.insert(node, Setting { becomes, at: only })),
    }
}

/// The selected node in the prompt: its activation and the attention of its head.
pub struct NodePanel;

impl Panel for NodePanel {
    fn ui(&mut self, ui: &mut Ui, context: &mut PanelContext) {
        let (live, selected) = (&*context.live, context.view.selected);
        let (Some(Item::Node(node)), Some(answer), Some(at)) = (selected, live.answer(), live.token()) else { return };
        let Some(activation) = live.activation_line(Item::Node(node)) else { return };
        ui.separator();
        ui.label(activation);
        let head = context.document.circuit.model.head(node).map(|(head, _)| head);
        let Some((layer, head)) = node.layer.zip(head) else { return };
        let Some(pattern) = answer.pattern.as_ref().filter(|_| answer.question.head == Some((layer, head))) else {
            return;
        };
        let name = format!("attention of head {head} in layer {layer}");
        ui.weak(&name);
        let row = answer.attention(at).unwrap_or_default();
        let mut order: Vec<usize> = (0..row.len()).filter(|&j| row[j] >= 0.005).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        let shares = order.iter().take(4).map(|&j| format!("{} {:.2}", token(&answer.tokens[j]), row[j]));
        let shares = shares.collect::<Vec<_>>().join(", ");
        let shares = if shares.is_empty() { "none" } else { &shares };
        ui.label(format!("{} attends to {shares}", token(&answer.tokens[at])));
        matrix(ui, &name, pattern, &answer.tokens, at);
    }
}

/// The attention pattern: a row for each query, a column for each key.
fn matrix(ui: &mut Ui, name: &str, pattern: &[f32], tokens: &[String], at: usize) {
    let length = tokens.len();
    let side = ui.available_width().min(300.0);
    let (rect, response) = ui.allocate_exact_size(vec2(side, side), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, name));
    let cell = side / length.max(1) as f32;
    let square =
        |t: usize, j: usize| Rect::from_min_size(rect.min + vec2(j as f32 * cell, t as f32 * cell), vec2(cell, cell));
    let painter = ui.painter();
    let (paper, ink) = (ui.visuals().extreme_bg_color, ui.visuals().selection.bg_fill);
    painter.rect_filled(rect, 0.0, paper);
    for t in 0..length {
        for (j, &share) in pattern[t * length..(t + 1) * length].iter().enumerate().filter(|(_, share)| **share > 0.005)
        {
            painter.rect_filled(square(t, j), 0.0, paper.lerp_to_gamma(ink, share.sqrt()));
        }
    }
    let selected = Rect::from_min_max(square(at, 0).min, pos2(rect.right(), square(at, 0).bottom()));
    let stroke = Stroke::new(1.0, ui.visuals().weak_text_color());
    painter.rect_stroke(selected, 0.0, stroke, StrokeKind::Inside);
    if let Some(hover) = response.hover_pos() {
        let index = |offset: f32| ((offset / cell) as usize).min(length.saturating_sub(1));
        let (t, j) = (index(hover.y - rect.top()), index(hover.x - rect.left()));
        let share = pattern[t * length + j];
        response.on_hover_text(format!("{} attends to {}: {share:.3}", token(&tokens[t]), token(&tokens[j])));
    }
}
