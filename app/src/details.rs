//! What there is to know about the selected item, and what can be done with it.

use eframe::egui::text::{LayoutJob, TextFormat};
use eframe::egui::{Color32, FontId, Rect, RichText, Role, Sense, Slider, TextEdit, Ui, WidgetInfo, pos2, vec2};
use gossamer::circuits::color::sign;
use gossamer::circuits::labels::{signed, token, visible};
use gossamer::circuits::layout::LineKind;
use gossamer::circuits::statistics::{Activations, NodeStatistics, Snippet};

use crate::about;
use crate::document::Document;
use crate::item::Item;
use crate::scene::Scene;
use crate::text;
use crate::view::View;

/// Which texts a node's activations are shown in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Set {
    /// Pretraining text.
    #[default]
    Corpus,
    /// Positive prompts of the task.
    Positive,
    /// Negative prompts.
    Negative,
    /// Positive prompts less the negative ones.
    Difference,
}

impl Set {
    const ALL: [(Self, &str); 4] = [
        (Self::Corpus, "text"),
        (Self::Positive, "positive"),
        (Self::Negative, "negative"),
        (Self::Difference, "difference"),
    ];

    fn of(self, node: &NodeStatistics) -> Option<&Activations> {
        match self {
            Self::Corpus => Some(&node.corpus),
            Self::Positive => Some(&node.clean),
            Self::Negative => Some(&node.counterfactual),
            Self::Difference => node.difference.as_ref(),
        }
    }

    /// From where to where colours and the histogram go.
    fn range(self, node: &NodeStatistics, set: &Activations) -> [f32; 2] {
        if self == Self::Difference { [set.min, set.max] } else { [node.low, node.high] }
    }
}

/// What the panel remembers that is not worth saving.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shelf {
    /// Which texts.
    set: Set,
    /// Which of the quantiles, by number.
    quantile: usize,
    /// Whether the way to find a circuit was asked for.
    pub find: bool,
}

/// Shows the selected item, or the circuit as a whole.
pub fn show(ui: &mut Ui, document: &Document, scene: &Scene, view: &mut View, shelf: &mut Shelf) {
    match view.selected {
        None => shelf.find |= about::show(ui, document),
        Some(item) => {
            // In the drawing it may be as it was at another time.
            let circuit = if scene.spot(item).is_some() { &scene.circuit } else { &document.circuit };
            ui.heading(text::title(circuit, item));
            handle(ui, item, view);
            ui.separator();
            text::summary(circuit, item).into_iter().for_each(|line| drop(ui.label(line)));
            if let Some(tokens) = text::tokens(circuit, item).filter(|tokens| tokens.tokens.len() > 8) {
                ui.collapsing("all tokens", |ui| {
                    for t in &tokens.tokens {
                        ui.label(format!("{} {}", token(&t.text), signed(t.weight)));
                    }
                });
            }
            connections(ui, scene, item, view);
            if let Item::Node(node) = item {
                ui.separator();
                match &document.statistics {
                    Ok(statistics) => match statistics.nodes.iter().find(|known| known.node == node) {
                        Some(known) => activations(ui, document, known, shelf),
                        None => drop(ui.weak("its activations were not measured")),
                    },
                    Err(why) => drop(ui.weak(format!("activations: {why}"))),
                }
            }
        }
    }
}

/// What can be done with the item.
fn handle(ui: &mut Ui, item: Item, view: &mut View) {
    ui.horizontal_wrapped(|ui| {
        let mut pinned = view.edits.pinned.contains(&item);
        if ui.checkbox(&mut pinned, "pin").changed() {
            view.edits.pin(item, pinned);
        }
        let mut hidden = view.edits.hidden.contains(&item);
        if ui.checkbox(&mut hidden, "hide").changed() {
            view.edits.hide(item, hidden);
        }
        if ui.button("copy name").clicked() {
            ui.ctx().copy_text(item.to_string());
        }
    });
    ui.horizontal(|ui| {
        let name = ui.label("label");
        let mut label = view.edits.labels.get(&item).cloned().unwrap_or_default();
        let edit = TextEdit::singleline(&mut label).hint_text("a name for it").desired_width(f32::INFINITY);
        if ui.add(edit).labelled_by(name.id).changed() {
            view.edits.label(item, &label);
        }
    });
    ui.horizontal(|ui| {
        let name = ui.label("group");
        let mut group = view.edits.group_of(item).map(|(_, group)| group.to_string()).unwrap_or_default();
        let edit = TextEdit::singleline(&mut group).hint_text("what it belongs to").desired_width(f32::INFINITY);
        if ui.add(edit).labelled_by(name.id).changed() {
            view.edits.group(item, &group);
        }
    });
}

/// What joins the item to others; a click goes there.
fn connections(ui: &mut Ui, scene: &Scene, item: Item, view: &mut View) {
    for (name, lines) in ["reads", "is read by"].into_iter().zip(scene.neighbours(item)) {
        if lines.is_empty() {
            continue;
        }
        ui.separator();
        ui.weak(name);
        for (line, other) in lines {
            let said = match scene.picture.lines[line].kind {
                LineKind::Channel(channel) => RichText::new(format!("{other}   along residual channel {channel}")),
                LineKind::Edge(i) => {
                    let edge = &scene.circuit.edges[i];
                    let said = format!("{other}   {}", text::numbers(edge));
                    RichText::new(said).color(on_background(ui, edge.weight))
                }
            };
            if ui.selectable_label(false, said).clicked() {
                view.selected = Some(other);
            }
        }
    }
}

fn on_background(ui: &Ui, value: f64) -> Color32 {
    let [r, g, b] = sign(value);
    Color32::from_rgb(r, g, b).lerp_to_gamma(ui.visuals().text_color(), if ui.visuals().dark_mode { 0.35 } else { 0.0 })
}

/// Histogram and snippets.
fn activations(ui: &mut Ui, document: &Document, node: &NodeStatistics, shelf: &mut Shelf) {
    ui.horizontal_wrapped(|ui| {
        ui.weak("activations in");
        for (set, name) in Set::ALL {
            ui.selectable_value(&mut shelf.set, set, name);
        }
    });
    let Some(set) = shelf.set.of(node) else {
        ui.weak("differences are not known; of a circuit file, `gossamer circuit stats` measures them");
        return;
    };
    let [low, high] = shelf.set.range(node, set);
    if shelf.set == Set::Difference {
        ui.weak("positive prompt less the negative one, written as the positive");
    }
    // Of published circuits, only some texts are known.
    if set.count > 0 {
        let share = 100.0 * set.active();
        ui.label(format!(
            "not zero at {share:.2} % of {} positions; {} to {}",
            set.count,
            signed(set.min.into()),
            signed(set.max.into())
        ));
        histogram(ui, set, [low, high]);
    }
    if set.quantiles.iter().all(|q| q.top.snippets.is_empty() && q.bottom.snippets.is_empty()) {
        ui.weak("no texts are known");
        return;
    }
    let last = set.quantiles.len().saturating_sub(1);
    shelf.quantile = shelf.quantile.min(last);
    let names: Vec<String> = set.quantiles.iter().map(|q| format!("{} %", q.quantile * 100.0)).collect();
    let shown = names.clone();
    ui.add(
        Slider::new(&mut shelf.quantile, 0..=last)
            .text("from the ends")
            .custom_formatter(move |number, _| shown.get(number as usize).cloned().unwrap_or_default()),
    );
    let Some(quantile) = set.quantiles.get(shelf.quantile) else { return };
    let largest = low.abs().max(high.abs());
    for (name, end) in [("top", &quantile.top), ("bottom", &quantile.bottom)] {
        ui.weak(format!("{name} {}: {}", names[shelf.quantile], signed(end.value.into())));
        for snippet in &end.snippets {
            ui.label(heat(ui, document, snippet, largest));
        }
    }
}

/// A snippet with its activations behind it; the position that it was chosen for is underlined.
fn heat(ui: &Ui, document: &Document, snippet: &Snippet, largest: f32) -> LayoutJob {
    let mut job = LayoutJob::default();
    let (text, paper) = (ui.visuals().text_color(), ui.visuals().panel_fill);
    for (i, (&id, &activation)) in snippet.tokens.iter().zip(&snippet.activations).enumerate() {
        let share = if largest > 0.0 { activation / largest } else { 0.0 };
        let [r, g, b] = sign(share.into());
        let background = match share {
            0.0 => Color32::TRANSPARENT,
            share => paper.lerp_to_gamma(Color32::from_rgb(r, g, b), 0.15 + 0.6 * share.abs().min(1.0)),
        };
        let mut format = TextFormat { font_id: FontId::monospace(11.0), color: text, background, ..Default::default() };
        if i == snippet.position {
            format.underline = eframe::egui::Stroke::new(1.5, text);
        }
        job.append(&visible(&document.token(id)), 0.0, format);
    }
    job
}

fn histogram(ui: &mut Ui, set: &Activations, [low, high]: [f32; 2]) {
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 56.0), Sense::hover());
    let most = set.histogram.iter().copied().max().unwrap_or(0).max(1) as f32;
    let width = rect.width() / set.histogram.len().max(1) as f32;
    let colour = ui.visuals().selection.bg_fill;
    for (bin, &count) in set.histogram.iter().enumerate() {
        // Square roots: the tails are what one looks for.
        let height = rect.height() * (count as f32 / most).sqrt();
        let left = rect.left() + width * bin as f32;
        let bar = Rect::from_min_max(pos2(left, rect.bottom() - height), pos2(left + width * 0.9, rect.bottom()));
        ui.painter().rect_filled(bar, 0.0, colour);
    }
    let said = format!(
        "histogram of activations: {} bins from {} to {}, zeros left out; heights are square roots of counts",
        set.histogram.len(),
        signed(low.into()),
        signed(high.into())
    );
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, &said));
    response.on_hover_text(said);
}
