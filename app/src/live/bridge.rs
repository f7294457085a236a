//! The tab in which a dense model is steered through bridges.

use std::path::Path;

use eframe::egui::{
    Button, CentralPanel, ComboBox, DragValue, Panel, ScrollArea, Slider, SliderClamping, TextEdit, Ui,
};
use gossamer::bridges::{Channel, Ratio, Recipe};
use gossamer::model::expect_model;

use super::ask::answers;
use super::choices::{By, Steer};
use super::model::Opened;
use super::prompt::document_token;
use super::table::{self, Column};
use super::{Live, channel, channels, counterfactual, panel, recipe};
use crate::document::Document;
use crate::number::finite;
use crate::view::View;

pub fn show(ui: &mut Ui, live: &mut Live, document: &Document, view: &mut View) {
    Panel::left("what is steered").default_size(330.0).show(ui, |ui| {
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            panel::prompt_text(ui, document, view);
            choose(ui, document, view);
        });
    });
    Panel::right("what the dense model says").default_size(470.0).min_size(400.0).show(ui, |ui| {
        ScrollArea::both().auto_shrink(false).show(ui, |ui| said(ui, live, document, view));
    });
    CentralPanel::default().show(ui, |ui| {
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| how(ui, live, document, view));
    });
}

/// Which channel; those of the circuit are at hand.
fn choose(ui: &mut Ui, document: &Document, view: &mut View) {
    let mut written = channel(document, view);
    ui.horizontal(|ui| {
        let name = ui.label("channel");
        let edit = TextEdit::singleline(&mut written).hint_text("such as 3.attn.act_in[17]");
        if ui.add(edit.desired_width(f32::INFINITY)).labelled_by(name.id).changed() {
            view.edits.live.steer.channel = Some(written.clone());
        }
    });
    let [own, elsewhere] = channels(document);
    let mut offer = |ui: &mut Ui, channels: &[Channel]| {
        ui.horizontal_wrapped(|ui| {
            for name in channels.iter().map(ToString::to_string) {
                if ui.selectable_label(written == name, &name).clicked() {
                    view.edits.live.steer.channel = Some(name);
                }
            }
        });
    };
    if !own.is_empty() {
        ui.weak("where the circuit reads the residual stream");
        offer(ui, &own);
    }
    if !elsewhere.is_empty() {
        ui.collapsing("the same channels, read elsewhere", |ui| offer(ui, &elsewhere));
    }
}

/// How the channel changes, how strongly, and what becomes of the recipe.
fn how(ui: &mut Ui, live: &mut Live, document: &Document, view: &mut View) {
    let Some(Ok(opened)) = live.model.clone() else { return };
    let wanted = recipe(document, view, &opened);
    let failed = live.steering.as_ref().and_then(|steering| steering.error.clone());
    let steered = live.steered().map(|steered| steered.tokens.clone());
    // Also where it is empty: a message that comes or goes must not take the focus from what is being written.
    ui.scope(|ui| {
        if let Some(error) = wanted.as_ref().err().cloned().or(failed) {
            ui.colored_label(ui.visuals().error_fg_color, error);
        } else if steered.is_none() {
            ui.weak("opening the bridges and measuring the streams' scales …");
        }
    });
    let steer = &mut view.edits.live.steer;
    finite(&mut steer.strength, |value| {
        ui.add(Slider::new(value, 0.0..=2.0).text("strength").step_by(0.01).clamping(SliderClamping::Never))
    });
    ui.horizontal(|ui| {
        ui.selectable_value(&mut steer.by, By::Counterfactual, "towards another prompt");
        ui.selectable_value(&mut steer.by, By::Positions, "at positions");
    });
    match steer.by {
        By::Counterfactual => {
            let task = &document.circuit.task;
            let sides = [("negative", task.counterfactual.as_str()), ("positive", task.clean.as_str())];
            if let Some(text) = panel::code(ui, "counterfactual", counterfactual(document, view), &sides) {
                view.edits.live.steer.counterfactual = Some(text);
            }
        }
        By::Positions => at_positions(ui, steer, steered.as_deref()),
    }
    ui.separator();
    comparison(ui, &mut view.edits.live.steer);
    ui.separator();
    keep(ui, live, document, view, wanted.ok(), &opened);
}

fn at_positions(ui: &mut Ui, steer: &mut Steer, tokens: Option<&[String]>) {
    ui.horizontal(|ui| {
        let name = ui.label("positions");
        let hint = "all; or 3, -1, 2:5 and so on";
        ui.add(TextEdit::singleline(&mut steer.positions).hint_text(hint).desired_width(120.0)).labelled_by(name.id);
    });
    ui.horizontal(|ui| {
        for (change, name) in [("=", "set to"), ("+=", "add"), ("*=", "multiply by")] {
            if ui.selectable_label(steer.change == change, name).clicked() {
                steer.change = change.into();
            }
        }
        let name = ui.label("value");
        finite(&mut steer.value, |value| ui.add(DragValue::new(value).speed(0.02)).labelled_by(name.id));
    });
    // A click on a token takes its position.
    if let Some(at) = tokens.and_then(|tokens| panel::tokens(ui, tokens, None, steer.positions.trim().parse().ok())) {
        steer.positions = at.to_string();
    }
}

/// What the steered model is compared with.
fn comparison(ui: &mut Ui, steer: &mut Steer) {
    ui.horizontal_wrapped(|ui| {
        let name = ui.label("random draws");
        ui.add(DragValue::new(&mut steer.random).range(0..=64)).labelled_by(name.id);
        let name = ui.label("seed");
        ui.add(DragValue::new(&mut steer.seed)).labelled_by(name.id);
        let ratios = [(Ratio::DenseOverSparse, "dense over sparse"), (Ratio::SparseOverDense, "sparse over dense")];
        let shown = ratios.iter().find(|(ratio, _)| *ratio == steer.ratio).map_or("", |(_, name)| name);
        ComboBox::from_label("ratio").selected_text(shown).show_ui(ui, |ui| {
            for (ratio, name) in ratios {
                ui.selectable_value(&mut steer.ratio, ratio, name);
            }
        });
    });
}

/// Saving, opening and copying what is done. Files are named from the circuit's folder on.
fn keep(ui: &mut Ui, live: &mut Live, document: &Document, view: &mut View, wanted: Option<Recipe>, opened: &Opened) {
    ui.horizontal(|ui| {
        let name = ui.label("recipe");
        let file = live.shelf.file.get_or_insert_with(|| format!("{}.recipe.json", document.file_stem()));
        if ui.add(TextEdit::singleline(file).desired_width(f32::INFINITY)).labelled_by(name.id).changed() {
            live.shelf.said.clear();
        }
    });
    let folder = document.path.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    let file = folder.join(live.shelf.file.as_deref().unwrap_or_default().trim());
    ui.horizontal_wrapped(|ui| {
        let copy = ui.add_enabled(wanted.is_some(), Button::new("Copy as command")).clicked();
        let save = ui.add_enabled(wanted.is_some(), Button::new("Save recipe")).clicked();
        if let Some(recipe) = wanted.as_ref().filter(|_| copy) {
            ui.ctx().copy_text(recipe.command());
            live.shelf.said = "copied a `gossamer steer` command".into();
        }
        if let Some(recipe) = wanted.as_ref().filter(|_| save) {
            live.shelf.said = match recipe.save(&file) {
                Ok(()) => format!("saved {}", file.display()),
                Err(e) => format!("not saved: {e}"),
            };
        }
        if ui.button("Open recipe").clicked() {
            live.shelf.said = match take(&file, opened, view) {
                Ok(()) => format!("opened {}", file.display()),
                Err(why) => format!("not opened: {why}"),
            };
        }
    });
}

/// Takes the choices from a recipe.
fn take(file: &Path, opened: &Opened, view: &mut View) -> Result<(), String> {
    let recipe = Recipe::load(file).map_err(|e| e.to_string())?;
    let what = format!("{} (for {})", file.display(), recipe.sparse.path);
    expect_model(what, "sparse model", &recipe.sparse.hash, &opened.hash).map_err(|e| e.to_string())?;
    let (prompt, steer) = Steer::of(&recipe)
        .ok_or("it steers by several channels at once; `gossamer steer --recipe` can do that, this window cannot")?;
    (view.edits.live.prompt, view.edits.live.steer) = (Some(prompt), steer);
    Ok(())
}

/// Next tokens of the dense model: as it is, steered, and with random channels in place of the chosen one.
fn said(ui: &mut Ui, live: &Live, document: &Document, view: &View) {
    let Some(steered) = live.steered() else { return };
    let said = &steered.said;
    let first = answers(&document.circuit);
    let tokens: Vec<_> = steered.shown.iter().map(|&id| (id, document_token(live, document, id))).collect();
    // What is told beside an error is of what was asked before.
    let failed = live.steering.as_ref().is_some_and(|steering| steering.error.is_some());
    if failed || live.opened().is_some_and(|opened| recipe(document, view, opened).is_err()) {
        ui.multiply_opacity(0.4);
    }
    let mut columns = vec![
        Column { name: "dense model", plain: &said.plain, edited: None },
        Column { name: "steered", plain: &said.steered, edited: None },
    ];
    columns.extend(said.random.as_ref().map(|random| Column { name: "random channels", plain: random, edited: None }));
    table::show(ui, "what the dense model says", &tokens, first.len(), &columns);
    if !first.is_empty() {
        ui.weak("The task's two answers come first.");
    }
    ui.weak("Random channels: the mean over the draws, with the same amounts.");
}
