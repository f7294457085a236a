//! The tab in which a dense model is steered through bridges.

use std::path::{Path, PathBuf};

use eframe::egui::{self, Button, CentralPanel, ComboBox, ScrollArea, Slider, SliderClamping, Ui};
use gossamer::bridges::{Channel, Ratio, Recipe};
use gossamer::model::expect_model;

use super::prompt::{opened_model, prompt_field, show_problem, status, task_prompts};
use super::table::{self, Column};
use super::{Panel, PanelContext, side_columns};
use crate::live::choices::{By, Steer};
use crate::live::model::Opened;
use crate::live::{Live, Problem, channel, channels, counterfactual, recipe};
use crate::view::View;
use crate::widgets::{code_field, finite, number_field, text_field, token_row};

#[derive(Default)]
pub struct BridgePanel {
    /// The recipe's file.
    file: Option<String>,
    /// The existing file that a click replaces.
    replaced: Option<PathBuf>,
    message: String,
}

impl Panel for BridgePanel {
    fn status(&self, ui: &mut Ui, PanelContext { document, view, live, .. }: &PanelContext) {
        let Some(opened) = live.opened().filter(|opened| opened.bridged) else { return };
        let problem = live.steering_problem(&recipe(document, view, opened));
        status(ui, live.pending(), problem.as_ref(), live.steered().map(|steered| steered.took));
        ui.weak(&self.message);
    }

    fn ui(&mut self, ui: &mut Ui, context: &mut PanelContext) {
        let Some(opened) = opened_model(ui, context) else { return };
        if !opened.bridged {
            ui.label(format!(
                "{} has no bridges next to it. A model that `train bridges --dense MODEL --sparse {0} --out RUN` trains has.",
                opened.path.display()
            ));
            return;
        }
        let [left, right] = side_columns(ui);
        egui::Panel::left("prompt and channel").default_size(left).show(ui, |ui| {
            ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
                prompt_field(ui, context.document, context.view);
                choose_channel(ui, context);
            });
        });
        let recipe = recipe(context.document, context.view, &opened);
        egui::Panel::right("next tokens of the dense model").default_size(right).min_size(right.min(400.0)).show(
            ui,
            |ui| {
                ScrollArea::both().auto_shrink(false).show(ui, |ui| next_tokens(ui, context.live, &opened, &recipe));
            },
        );
        CentralPanel::default().show(ui, |ui| {
            ScrollArea::vertical().auto_shrink(false).show(ui, |ui| self.change(ui, context, &opened, &recipe));
        });
        if let Ok(recipe) = recipe {
            context.live.steer(ui.ctx(), recipe);
        }
    }
}

/// The channel to steer by; the circuit's channels are buttons.
fn choose_channel(ui: &mut Ui, context: &mut PanelContext) {
    let PanelContext { document, view, .. } = context;
    let mut name = channel(document, view);
    if text_field(ui, "channel", &mut name, "such as 3.attn.act_in[17]", f32::INFINITY).changed() {
        view.edits.live.steer.channel = Some(name.clone());
    }
    let channels = channels(document);
    let mut offer = |ui: &mut Ui, channels: &[Channel]| {
        ui.horizontal_wrapped(|ui| {
            for channel in channels.iter().map(ToString::to_string) {
                if ui.selectable_label(name == channel, &channel).clicked() {
                    view.edits.live.steer.channel = Some(channel);
                }
            }
        });
    };
    if !channels.nodes.is_empty() {
        ui.weak("where the circuit reads the residual stream");
        offer(ui, &channels.nodes);
    }
    if !channels.other_sublayers.is_empty() {
        ui.collapsing("the same channels in other sublayers", |ui| offer(ui, &channels.other_sublayers));
    }
}

impl BridgePanel {
    /// How the channel changes and how strongly, and the recipe's file.
    fn change(&mut self, ui: &mut Ui, context: &mut PanelContext, opened: &Opened, recipe: &Result<Recipe, Problem>) {
        let tokens = context.live.steered().map(|steered| steered.tokens.clone());
        let problem = context.live.steering_problem(recipe);
        show_problem(ui, problem.as_ref());
        if problem.is_none() && tokens.is_none() {
            ui.weak("opening the bridges and measuring the streams' scales …");
        }
        let steer = &mut context.view.edits.live.steer;
        finite(&mut steer.strength, |value| {
            ui.add(Slider::new(value, 0.0..=2.0).text("strength").step_by(0.01).clamping(SliderClamping::Never))
        });
        ui.horizontal(|ui| {
            ui.selectable_value(&mut steer.by, By::Counterfactual, "towards another prompt");
            ui.selectable_value(&mut steer.by, By::Positions, "at positions");
        });
        match steer.by {
            By::Counterfactual => {
                let text = counterfactual(context.document, context.view);
                if let Some(text) = code_field(ui, "counterfactual", text, &task_prompts(context.document)) {
                    context.view.edits.live.steer.counterfactual = Some(text);
                }
            }
            By::Positions => at_positions(ui, steer, tokens.as_deref()),
        }
        ui.separator();
        comparison(ui, &mut context.view.edits.live.steer);
        ui.separator();
        self.recipe_file(ui, context, opened, recipe.as_ref().ok());
    }

    /// Saves the recipe, unless another file would be lost that is not to be replaced.
    fn save(&mut self, recipe: &Recipe, file: &Path, replace: bool) {
        if file.exists() && !replace {
            self.message = format!("{} exists", file.display());
            self.replaced = Some(file.into());
            return;
        }
        self.replaced = None;
        self.message = match recipe.save(file) {
            Ok(()) => format!("saved {}", file.display()),
            Err(e) => format!("not saved: {e}"),
        };
    }

    /// Saves, opens and copies the recipe. Its path is relative to the circuit's folder.
    fn recipe_file(&mut self, ui: &mut Ui, context: &mut PanelContext, opened: &Opened, recipe: Option<&Recipe>) {
        let document = context.document;
        let file = self.file.get_or_insert_with(|| format!("{}.recipe.json", document.file_stem()));
        if text_field(ui, "recipe", file, "", f32::INFINITY).changed() {
            self.message.clear();
        }
        let folder = document.path.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let file = folder.join(file.trim());
        let file = std::path::absolute(&file).unwrap_or(file);
        ui.horizontal_wrapped(|ui| {
            let copy = ui.add_enabled(recipe.is_some(), Button::new("Copy as command")).clicked();
            let save = ui.add_enabled(recipe.is_some(), Button::new("Save recipe")).clicked();
            if let Some(recipe) = recipe.filter(|_| copy) {
                ui.ctx().copy_text(recipe.command());
                self.message = "copied a `gossamer steer` command".into();
            }
            self.replaced.take_if(|replaced| *replaced != file);
            let replace = self.replaced.is_some() && ui.button("Replace it").clicked();
            if let Some(recipe) = recipe.filter(|_| save || replace) {
                self.save(recipe, &file, replace);
            }
            if ui.button("Open recipe").clicked() {
                self.message = match open_recipe(&file, opened, context.view) {
                    Ok(()) => format!("opened {}", file.display()),
                    Err(error) => format!("not opened: {error}"),
                };
            }
        });
    }
}

fn at_positions(ui: &mut Ui, steer: &mut Steer, tokens: Option<&[String]>) {
    text_field(ui, "positions", &mut steer.positions, "all; or 3, -1, 2:5 and so on", 120.0);
    ui.horizontal(|ui| {
        for (change, name) in [("=", "set to"), ("+=", "add"), ("*=", "multiply by")] {
            if ui.selectable_label(steer.change == change, name).clicked() {
                steer.change = change.into();
            }
        }
        finite(&mut steer.value, |value| number_field(ui, "value", value, |number| number.speed(0.02)));
    });
    // A click on a token takes its position.
    if let Some(at) = tokens.and_then(|tokens| token_row(ui, tokens, None, steer.positions.trim().parse().ok())) {
        steer.positions = at.to_string();
    }
}

/// What the steered model is compared with.
fn comparison(ui: &mut Ui, steer: &mut Steer) {
    ui.horizontal_wrapped(|ui| {
        number_field(ui, "random draws", &mut steer.random, |number| number.range(0..=64));
        number_field(ui, "seed", &mut steer.seed, |number| number);
        let ratios = [(Ratio::DenseOverSparse, "dense over sparse"), (Ratio::SparseOverDense, "sparse over dense")];
        let shown = ratios.iter().find(|(ratio, _)| *ratio == steer.ratio).map_or("", |(_, name)| name);
        ComboBox::from_label("ratio").selected_text(shown).show_ui(ui, |ui| {
            for (ratio, name) in ratios {
                ui.selectable_value(&mut steer.ratio, ratio, name);
            }
        });
    });
}

fn open_recipe(file: &Path, opened: &Opened, view: &mut View) -> Result<(), String> {
    let recipe = Recipe::load(file).map_err(|e| e.to_string())?;
    let name = format!("{} (for {})", file.display(), recipe.sparse.path);
    expect_model(name, "sparse model", &recipe.sparse.hash, &opened.hash).map_err(|e| e.to_string())?;
    let (prompt, steer) = Steer::of(&recipe)
        .ok_or("it steers by several channels at once; `gossamer steer --recipe` can do that, this window cannot")?;
    (view.edits.live.prompt, view.edits.live.steer) = (Some(prompt), steer);
    Ok(())
}

/// The next tokens of the dense model: unchanged, steered, and with random channels in place of the
/// chosen one.
fn next_tokens(ui: &mut Ui, live: &Live, opened: &Opened, recipe: &Result<Recipe, Problem>) {
    let Some(steered) = live.steered() else { return };
    let comparison = &steered.comparison;
    // The answer is to an earlier request.
    if live.steering_problem(recipe).is_some() {
        ui.multiply_opacity(0.4);
    }
    let mut columns = vec![
        Column { name: "dense model", plain: &comparison.plain, edited: None },
        Column { name: "steered", plain: &comparison.steered, edited: None },
    ];
    let random = comparison.random.as_ref();
    columns.extend(random.map(|random| Column { name: "random channels", plain: random, edited: None }));
    table::show(ui, "next tokens of the dense model", &steered.shown, &columns, opened);
    ui.weak("Random channels: the mean over the draws, with the same amounts.");
}
