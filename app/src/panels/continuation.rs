//! The prompt continued by the whole model.

use eframe::egui::{Button, RichText, Ui};
use gossamer::circuits::labels::{count, visible};

use super::PanelContext;
use crate::live::continuation::Continue;
use crate::live::prompt;
use crate::widgets::{finite, number_field};

/// How prompts are continued.
pub struct Continuing {
    tokens: usize,
    temperature: f32,
    seed: u64,
}

impl Default for Continuing {
    fn default() -> Self {
        Self { tokens: 32, temperature: 0.0, seed: 0 }
    }
}

impl Continuing {
    /// Lets the model continue the prompt, and shows what it writes.
    pub fn show(&mut self, ui: &mut Ui, context: &mut PanelContext) {
        let prompt = prompt(context.document, context.view).to_string();
        ui.horizontal_wrapped(|ui| {
            if ui.add_enabled(!prompt.is_empty(), Button::new("Continue")).clicked() {
                let request = Continue {
                    prompt: prompt.clone(),
                    max_new_tokens: self.tokens,
                    temperature: self.temperature,
                    seed: self.seed,
                };
                context.live.continue_prompt(ui.ctx(), request);
            }
            number_field(ui, "tokens", &mut self.tokens, |number| number.range(1..=1000));
            finite(&mut self.temperature, |value| {
                number_field(ui, "temperature", value, |number| number.speed(0.01).range(0.0..=10.0))
            });
            number_field(ui, "seed", &mut self.seed, |number| number);
        });
        ui.scope(|ui| match context.live.continuation() {
            Some(Ok(written)) if written.request.prompt == prompt => {
                ui.label(RichText::new(visible(&written.text)).monospace());
                ui.weak(format!(
                    "{} by the whole model, without what nodes are set to",
                    count(written.tokens, "token")
                ));
                if ui.small_button("Append it to the prompt").clicked() {
                    context.view.edits.live.prompt = Some(format!("{prompt}{}", written.text));
                }
            }
            Some(Err(error)) => drop(ui.colored_label(ui.visuals().error_fg_color, error)),
            _ => {}
        });
    }
}
