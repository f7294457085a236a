//! A table of the probabilities of next tokens.

use eframe::egui::{Align2, Color32, FontId, Grid, Rect, RichText, Role, Sense, StrokeKind, Ui, WidgetInfo, vec2};
use gossamer::circuits::labels::{clipped, token};

use crate::live::ask::task_answers;
use crate::live::model::Opened;

/// Probabilities by token id; with edits, if there are any.
pub struct Column<'a> {
    pub name: &'a str,
    pub plain: &'a [f64],
    pub edited: Option<&'a [f64]>,
}

/// Shows the probabilities of `tokens`, the task's answers first.
pub fn show(ui: &mut Ui, id: &str, tokens: &[u32], columns: &[Column], opened: &Opened) {
    let answers = task_answers(&opened.circuit).len();
    Grid::new(id).striped(true).spacing(vec2(10.0, 2.0)).show(ui, |ui| {
        ui.weak("next token");
        columns.iter().for_each(|column| drop(ui.weak(column.name)));
        ui.end_row();
        for (number, &id) in tokens.iter().enumerate() {
            let name = token(&opened.tokenizer.token_text(id));
            let shown = RichText::new(clipped(&name, 16)).monospace();
            ui.label(if number < answers { shown.strong() } else { shown });
            for column in columns {
                let of = |p: &[f64]| p.get(id as usize).copied().unwrap_or(0.0);
                cell(ui, &format!("{name}, {}", column.name), of(column.plain), column.edited.map(of));
            }
            ui.end_row();
        }
    });
    if answers > 0 {
        ui.weak("The task's two answers come first.");
    }
}

/// A probability as a bar with its number; an edited one with the outline of the plain one.
fn cell(ui: &mut Ui, name: &str, plain: f64, edited: Option<f64>) {
    let (rect, response) = ui.allocate_exact_size(vec2(104.0, 17.0), Sense::hover());
    let now = edited.unwrap_or(plain);
    let text = match edited {
        Some(edited) => format!("{name}: {edited:.4}, unedited {plain:.4}"),
        None => format!("{name}: {plain:.4}"),
    };
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, &text));
    let (visuals, painter) = (ui.visuals(), ui.painter());
    let bar = |p: f64| Rect::from_min_size(rect.min, vec2(rect.width() * p.clamp(0.0, 1.0) as f32, rect.height()));
    let fill = visuals.selection.bg_fill.gamma_multiply(if visuals.dark_mode { 0.8 } else { 0.7 });
    painter.rect_filled(bar(now), 2.0, fill);
    if edited.is_some() {
        let outline = visuals.widgets.inactive.fg_stroke;
        painter.rect(bar(plain), 2.0, Color32::TRANSPARENT, outline, StrokeKind::Inside);
    }
    let number = match edited {
        Some(edited) => format!("{plain:.3} to {edited:.3}"),
        None => format!("{plain:.4}"),
    };
    painter.text(rect.right_center(), Align2::RIGHT_CENTER, number, FontId::proportional(11.5), visuals.text_color());
    response.on_hover_text(text);
}
