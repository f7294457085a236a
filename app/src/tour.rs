//! The first steps: what is where, one thing after the other.

use eframe::egui::{Align2, Context, Key, Vec2, Window, vec2};

struct Step {
    title: &'static str,
    text: &'static str,
    /// Where the window is, next to what it describes.
    at: (Align2, Vec2),
}

const STEPS: &[Step] = &[
    Step {
        title: "The drawing",
        text: "A circuit: the few parts of a model that do one task, and what joins them. Information flows upwards. \
               Click a box to select it, right-click it for a menu; the wheel and dragging move the drawing.",
        at: (Align2::CENTER_BOTTOM, vec2(0.0, -60.0)),
    },
    Step {
        title: "On the left",
        text: "Find a box by its name, label or token. Show one half of a layer, hide small edges and nodes, and \
               choose how far the connections of the selected box are followed.",
        at: (Align2::LEFT_TOP, vec2(260.0, 60.0)),
    },
    Step {
        title: "On the right",
        text: "The circuit's prompts and losses. Once a box is selected: its numbers, what it reads and what reads \
               it. Name it and put it into a group here.",
        at: (Align2::RIGHT_TOP, vec2(-360.0, 60.0)),
    },
    Step {
        title: "At the lower edge",
        text: "Prompt runs a text of yours in the model, in the circuit alone and in the model without it, and lets \
               you set nodes. Bridge steers a dense model by a node of this sparse one.",
        at: (Align2::LEFT_BOTTOM, vec2(20.0, -60.0)),
    },
    Step {
        title: "The menus",
        text: "File opens runs, models and circuits. Run trains a model, finds its circuits and evaluates them. Help \
               has the legend and all keys, and these first steps.",
        at: (Align2::LEFT_TOP, vec2(20.0, 40.0)),
    },
];

/// Shows a step, until the last one was seen or the window closed.
pub fn show(ctx: &Context, step: &mut Option<usize>) {
    let Some(number) = *step else { return };
    let Some(Step { title, text, at: (align, offset) }) = STEPS.get(number) else {
        *step = None;
        return;
    };
    let mut open = true;
    let window = Window::new("First steps").collapsible(false).resizable(false).default_width(340.0);
    window.anchor(*align, *offset).open(&mut open).show(ctx, |ui| {
        ui.strong(*title);
        ui.label(*text);
        ui.horizontal(|ui| {
            if number > 0 && ui.button("Back").clicked() {
                *step = Some(number - 1);
            }
            if ui.button(if number + 1 < STEPS.len() { "Next" } else { "Done" }).clicked() {
                *step = Some(number + 1);
            }
            ui.weak(format!("{} of {}", number + 1, STEPS.len()));
        });
        if ui.input(|input| input.key_pressed(Key::Escape)) {
            *step = None;
        }
    });
    if !open || step.is_some_and(|step| step >= STEPS.len()) {
        *step = None;
    }
}
