//! The lower part of the window: its tabs, and what they share.

use std::path::PathBuf;

use eframe::egui::{Color32, Panel, RichText, Role, TextEdit, TextStyle, Ui, WidgetInfo};
use gossamer::circuits::color::sign;
use gossamer::circuits::labels::{self, visible};

use super::{Live, Tab, bridge, prompt};
use crate::document::Document;
use crate::view::View;

impl Live {
    /// Draws the tabs at the lower edge and, above them, the one that is open.
    pub fn panel(&mut self, ui: &mut Ui, document: &Document, view: &mut View) {
        self.update(&ui.ctx().clone(), document, view);
        Panel::bottom("tabs").show(ui, |ui| ui.horizontal(|ui| self.tabs(ui)));
        let Some(tab) = self.tab else { return };
        Panel::bottom("live").resizable(true).default_size(290.0).min_size(160.0).show(ui, |ui| {
            ui.set_min_height(ui.available_height());
            match &self.model {
                Some(Ok(_)) if tab == Tab::Prompt => prompt::show(ui, self, document, view),
                Some(Ok(_)) => bridge::show(ui, self, document, view),
                Some(Err(why)) => {
                    let why = why.clone();
                    self.name_model(ui, document, &why);
                }
                None => drop(ui.weak("opening the circuit's model …")),
            }
        });
    }

    fn tabs(&mut self, ui: &mut Ui) {
        for (tab, name, what) in [
            (
                Tab::Prompt,
                "Prompt",
                "Run a prompt in the whole model, in the circuit alone and without it; set nodes by hand",
            ),
            (Tab::Bridge, "Bridge", "Steer a dense model through the bridges beside this sparse one"),
        ] {
            let open = self.tab == Some(tab);
            if ui.selectable_label(open, name).on_hover_text(what).clicked() {
                self.tab = if open { None } else { Some(tab) };
                // What could not be opened may be there by now.
                self.model.take_if(|model| model.is_err());
                self.shelf.said.clear();
            }
        }
        if self.tab.is_some() {
            match (self.pending(), self.took()) {
                (true, _) => drop(ui.weak("computing …")),
                (false, Some(took)) => {
                    let took = format!("computed in {:.1} ms", took.as_secs_f64() * 1e3);
                    ui.weak("up to date").on_hover_text(took);
                }
                (false, None) => {}
            }
            ui.weak(&self.shelf.said);
        }
    }

    fn took(&self) -> Option<std::time::Duration> {
        match self.tab? {
            Tab::Prompt => self.answer().map(|answer| answer.took),
            Tab::Bridge => self.steered().map(|steered| steered.took),
        }
    }

    /// Says why there is no model, and asks for one.
    fn name_model(&mut self, ui: &mut Ui, document: &Document, why: &str) {
        ui.label(why);
        ui.horizontal(|ui| {
            let name = ui.label("model");
            let edit = TextEdit::singleline(&mut self.named).hint_text("a run, a checkpoint or a model's folder");
            let edit = ui.add(edit.desired_width(420.0)).labelled_by(name.id);
            let entered = edit.lost_focus() && ui.input(|input| input.key_pressed(eframe::egui::Key::Enter));
            if (ui.button("Open model").clicked() || entered) && !self.named.trim().is_empty() {
                self.open(&ui.ctx().clone(), document, Some(PathBuf::from(self.named.trim())));
            }
        });
    }
}

/// The prompt, which both tabs have.
pub fn prompt_text(ui: &mut Ui, document: &Document, view: &mut View) {
    let task = &document.circuit.task;
    let sides = [("positive", task.clean.as_str()), ("negative", task.counterfactual.as_str())];
    if let Some(text) = code(ui, "prompt", super::prompt(document, view), &sides) {
        view.edits.live.prompt = Some(text);
    }
}

/// Lets code be written, or taken from a button; gives the new code where there is some. The tab key goes on to the next widget.
pub fn code(ui: &mut Ui, name: &str, text: &str, buttons: &[(&str, &str)]) -> Option<String> {
    let mut new = None;
    let label = ui.horizontal(|ui| {
        let label = ui.label(name);
        for (button, text) in buttons.iter().filter(|(_, text)| !text.is_empty()) {
            if ui.small_button(*button).on_hover_text(format!("a {button} prompt of the circuit's task")).clicked() {
                new = Some((*text).to_string());
            }
        }
        label.id
    });
    let mut written = text.to_string();
    let edit = TextEdit::multiline(&mut written).font(TextStyle::Monospace).desired_rows(3);
    if ui.add(edit.desired_width(f32::INFINITY).id_salt(name)).labelled_by(label.inner).changed() {
        new = Some(written);
    }
    new
}

/// The tokens in a row, of which one is chosen, with a node's activations behind them. Gives the one that was clicked.
pub fn tokens(ui: &mut Ui, tokens: &[String], activations: Option<&[f32]>, chosen: Option<usize>) -> Option<usize> {
    let largest = activations.into_iter().flatten().fold(0.0f32, |most, x| most.max(x.abs()));
    let (ink, paper) = (ui.visuals().text_color(), ui.visuals().panel_fill);
    let mut clicked = None;
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 2.0;
        for (at, token) in tokens.iter().enumerate() {
            let activation = activations.and_then(|values| values.get(at)).copied().unwrap_or(0.0);
            let mut text = RichText::new(visible(token).replace(' ', "·")).monospace().color(ink);
            if activation != 0.0 {
                let [r, g, b] = sign(activation.into());
                let share = 0.15 + 0.6 * (activation / largest).abs();
                text = text.background_color(paper.lerp_to_gamma(Color32::from_rgb(r, g, b), share));
            }
            let said = format!("token {at}, {activation:+.3}");
            let button = ui.selectable_label(chosen == Some(at), text).on_hover_text(said);
            let name = format!("token {at}, {}", labels::token(token));
            button.widget_info(|| WidgetInfo::selected(Role::Button, true, chosen == Some(at), &name));
            if button.clicked() {
                clicked = Some(at);
            }
        }
    });
    clicked
}
