//! The selected item: its numbers, its connections, and what can be done with it.

use eframe::egui::text::{LayoutJob, TextFormat};
use eframe::egui::{Button, FontId, Rect, RichText, Role, Sense, Stroke, Ui, WidgetInfo, pos2, vec2};
use gossamer::circuits::color::sign;
use gossamer::circuits::labels::{bundle_text, count, signed, token, visible};
use gossamer::circuits::layout::LineKind;
use gossamer::circuits::statistics::{Activations, NodeStatistics, Snippet};

use super::{Panel, PanelContext, about};
use crate::commands::Command;
use crate::document::Document;
use crate::item::Item;
use crate::scene::Scene;
use crate::text;
use crate::view::View;
use crate::widgets::{heat, on_background, trimmed_field};

/// The texts whose activations are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum TextSet {
    #[default]
    Corpus,
    Clean,
    Counterfactual,
    /// Clean prompts minus counterfactual ones.
    Difference,
}

impl TextSet {
    const ALL: [(Self, &str); 4] = [
        (Self::Corpus, "text"),
        (Self::Clean, "clean"),
        (Self::Counterfactual, "counterfactual"),
        (Self::Difference, "difference"),
    ];

    fn of(self, node: &NodeStatistics) -> Option<&Activations> {
        match self {
            Self::Corpus => Some(&node.corpus),
            Self::Clean => Some(&node.clean),
            Self::Counterfactual => Some(&node.counterfactual),
            Self::Difference => node.difference.as_ref(),
        }
    }

    /// The range of the histogram and of the colors.
    fn range(self, node: &NodeStatistics, activations: &Activations) -> [f32; 2] {
        if self == Self::Difference { [activations.min, activations.max] } else { [node.low, node.high] }
    }
}

/// The order of a node's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Order {
    #[default]
    Effect,
    Weight,
    Name,
}

impl Order {
    const ALL: [(Self, &str); 3] = [(Self::Effect, "effect"), (Self::Weight, "weight"), (Self::Name, "name")];

    /// Sorts lines and the items at their other ends: the largest first, after residual channels,
    /// which have no numbers.
    fn sort(self, scene: &Scene, lines: &mut [(usize, Item)]) {
        let size = |line: usize| match scene.layout.lines[line].kind {
            LineKind::Edge(i) if self == Self::Effect => scene.circuit.edges[i].effect.abs(),
            LineKind::Edge(i) if self == Self::Weight => scene.circuit.edges[i].weight.abs(),
            LineKind::Bundle(i) if self == Self::Effect => scene.layout.bundles[i].sum.effect.abs(),
            LineKind::Bundle(i) if self == Self::Weight => scene.layout.bundles[i].sum.weight.abs(),
            LineKind::Edge(_) | LineKind::Bundle(_) => 0.0,
            LineKind::Channel(_) => f64::INFINITY,
        };
        lines.sort_by(|a, b| size(b.0).total_cmp(&size(a.0)).then(a.1.cmp(&b.1)));
    }
}

#[derive(Default)]
pub struct DetailsPanel {
    order: Order,
    set: TextSet,
}

impl Panel for DetailsPanel {
    fn ui(&mut self, ui: &mut Ui, context: &mut PanelContext) {
        let (document, scene) = (context.document, context.scene);
        let Some(item) = context.view.selected else {
            if about::show(ui, document) {
                context.commands.push(Command::FindCircuit);
            }
            return;
        };
        // The drawing may show another checkpoint.
        let circuit = if scene.place(item).is_some() { &scene.circuit } else { &document.circuit };
        ui.heading(text::title(circuit, item));
        match item {
            Item::Group(number) => group(ui, scene, number, context.view),
            item => edit(ui, item, context.view),
        }
        ui.separator();
        text::summary(circuit, item).into_iter().for_each(|line| drop(ui.label(line)));
        if let Some(tokens) = text::tokens(circuit, item).filter(|tokens| tokens.tokens.len() > 8) {
            ui.collapsing("all tokens", |ui| {
                for t in &tokens.tokens {
                    ui.label(format!("{} {}", token(&t.text), signed(t.weight)));
                }
            });
        }
        connections(ui, scene, item, context.view, &mut self.order);
        if let Item::Node(node) = item {
            ui.separator();
            match &document.statistics {
                Ok(statistics) => match statistics.nodes.iter().find(|known| known.node == node) {
                    Some(known) => self.activations(ui, document, known),
                    None => drop(ui.weak("its activations were not measured")),
                },
                Err(error) => drop(ui.weak(format!("activations: {error}"))),
            }
        }
    }
}

/// Pins, hides, labels or groups the item.
fn edit(ui: &mut Ui, item: Item, view: &mut View) {
    ui.horizontal_wrapped(|ui| {
        for (set, name) in [(&mut view.edits.pinned, "pin"), (&mut view.edits.hidden, "hide")] {
            let mut chosen = set.contains(&item);
            if ui.checkbox(&mut chosen, name).changed() {
                set.retain(|&other| other != item);
                set.extend(chosen.then_some(item));
            }
        }
        if ui.button("copy name").clicked() {
            ui.ctx().copy_text(item.to_string());
        }
    });
    let label = view.edits.labels.get(&item).map_or("", String::as_str);
    if let Some(label) = trimmed_field(ui, "label", item, label, "a name for it") {
        view.edits.label(item, &label);
    }
    let group = view.edits.group_of(item).map_or("", |(_, group)| group);
    if let Some(group) = trimmed_field(ui, "group", item, group, "what it belongs to") {
        view.edits.group(item, &group);
    }
}

/// Collapses, hides, puts back or dissolves a group, and lists its members; a click selects one.
fn group(ui: &mut Ui, scene: &Scene, number: usize, view: &mut View) {
    ui.horizontal_wrapped(|ui| {
        let (mut collapsed, mut hidden) =
            (view.edits.is_collapsed(number), view.edits.has_all(number, &view.edits.hidden));
        if ui.checkbox(&mut collapsed, "collapse").on_hover_text("draws the group as one box").changed() {
            view.edits.collapse(number);
        }
        if ui.checkbox(&mut hidden, "hide all").changed() {
            view.edits.hide_group(number);
        }
        let moved = view.edits.group_name(number).is_some_and(|name| view.edits.offsets.contains_key(name));
        if ui.add_enabled(moved, Button::new("back to its place")).clicked() {
            view.edits.put_back(number);
        }
        if ui.button("dissolve").on_hover_text("its members stay, without a group").clicked() {
            view.edits.dissolve(number);
        }
    });
    let members = scene.members(number);
    ui.separator();
    ui.weak(count(members.len(), "member"));
    for &member in members {
        let label = view.edits.labels.get(&member).map(|label| format!(", {label}")).unwrap_or_default();
        if ui.selectable_label(false, format!("{member}{label}")).clicked() {
            view.selected = Some(member);
        }
    }
}

/// The item's neighbors; a click selects one.
fn connections(ui: &mut Ui, scene: &Scene, item: Item, view: &mut View, order: &mut Order) {
    let neighbors = scene.neighbors(item);
    if neighbors.iter().any(|lines| lines.len() > 1) {
        ui.separator();
        ui.horizontal_wrapped(|ui| {
            ui.weak("connections by");
            for (by, name) in Order::ALL {
                ui.selectable_value(order, by, name);
            }
        });
    }
    for (name, mut lines) in ["reads", "is read by"].into_iter().zip(neighbors) {
        if lines.is_empty() {
            continue;
        }
        order.sort(scene, &mut lines);
        ui.separator();
        ui.weak(format!("{name} {}", lines.len()));
        for (line, other) in lines {
            let other_name = match other {
                Item::Group(_) => text::title(&scene.circuit, other),
                other => other.to_string(),
            };
            let text = match scene.layout.lines[line].kind {
                LineKind::Bundle(i) => {
                    let bundle = &scene.layout.bundles[i];
                    let numbers = format!("{other_name}   {}", bundle_text(bundle));
                    RichText::new(numbers).color(on_background(ui, sign(bundle.sum.weight)))
                }
                LineKind::Channel(channel) => RichText::new(format!("{other_name}   along residual channel {channel}")),
                LineKind::Edge(i) => {
                    let edge = &scene.circuit.edges[i];
                    let numbers = format!("{other}   {}", text::numbers(edge));
                    RichText::new(numbers).color(on_background(ui, sign(edge.weight)))
                }
            };
            if ui.selectable_label(false, text).clicked() {
                view.selected = Some(other);
            }
        }
    }
}

impl DetailsPanel {
    /// Histogram and snippets.
    fn activations(&mut self, ui: &mut Ui, document: &Document, node: &NodeStatistics) {
        ui.horizontal_wrapped(|ui| {
            ui.weak("activations in");
            for (set, name) in TextSet::ALL {
                ui.selectable_value(&mut self.set, set, name);
            }
        });
        let Some(activations) = self.set.of(node) else {
            ui.weak("differences are not known; of a circuit file, `gossamer circuit stats` measures them");
            return;
        };
        let [low, high] = self.set.range(node, activations);
        if self.set == TextSet::Difference {
            ui.weak("clean prompt minus counterfactual, written as the clean one");
        }
        // Published circuits have statistics of some texts only.
        if activations.count > 0 {
            let share = 100.0 * activations.active();
            let [min, max] = [activations.min, activations.max].map(|value| signed(value.into()));
            ui.label(format!("nonzero at {share:.2} % of {} positions; {min} to {max}", activations.count));
            histogram(ui, activations, [low, high]);
        }
        let quantiles = &activations.quantiles;
        if quantiles.iter().all(|q| q.top.snippets.is_empty() && q.bottom.snippets.is_empty()) {
            ui.weak("no texts are known");
            return;
        }
        let largest = low.abs().max(high.abs());
        for quantile in quantiles {
            let name = format!("{} %", quantile.quantile * 100.0);
            for (end, snippets) in [("top", &quantile.top), ("bottom", &quantile.bottom)] {
                ui.weak(format!("{end} {name}: {}", signed(snippets.value.into())));
                for snippet in &snippets.snippets {
                    ui.label(colored(ui, document, snippet, largest));
                }
            }
        }
    }
}

/// A snippet with its activations as background; the position that it was chosen for is underlined.
fn colored(ui: &Ui, document: &Document, snippet: &Snippet, largest: f32) -> LayoutJob {
    let mut job = LayoutJob::default();
    let (color, paper) = (ui.visuals().text_color(), ui.visuals().panel_fill);
    for (i, (&id, &activation)) in snippet.tokens.iter().zip(&snippet.activations).enumerate() {
        let background = heat(paper, activation, largest);
        let mut format = TextFormat { font_id: FontId::monospace(11.0), color, background, ..Default::default() };
        if i == snippet.position {
            format.underline = Stroke::new(1.5, color);
        }
        job.append(&visible(&document.token(id)), 0.0, format);
    }
    job
}

fn histogram(ui: &mut Ui, activations: &Activations, [low, high]: [f32; 2]) {
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 56.0), Sense::hover());
    let most = activations.histogram.iter().copied().max().unwrap_or(0).max(1) as f32;
    let width = rect.width() / activations.histogram.len().max(1) as f32;
    let color = ui.visuals().selection.bg_fill;
    for (bin, &count) in activations.histogram.iter().enumerate() {
        // Square roots show the tails.
        let height = rect.height() * (count as f32 / most).sqrt();
        let left = rect.left() + width * bin as f32;
        let bar = Rect::from_min_max(pos2(left, rect.bottom() - height), pos2(left + width * 0.9, rect.bottom()));
        ui.painter().rect_filled(bar, 0.0, color);
    }
    let text = format!(
        "histogram of activations: {} bins from {} to {}, zeros left out; heights are square roots of counts",
        activations.histogram.len(),
        signed(low.into()),
        signed(high.into())
    );
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, &text));
    response.on_hover_text(text);
}
