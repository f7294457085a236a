//! Probabilities of next tokens, side by side.

use eframe::egui::{Align2, Color32, FontId, Grid, Rect, RichText, Role, Sense, StrokeKind, Ui, WidgetInfo, vec2};
use gossamer::circuits::labels::{clipped, token};

/// A column: its name, and probabilities by token id; where something was edited, before it too.
pub struct Column<'a> {
    /// Its name.
    pub name: &'a str,
    /// Without edits.
    pub plain: &'a [f64],
    /// With them.
    pub edited: Option<&'a [f64]>,
}

/// Shows the probabilities of some tokens, `(id, text)`. The first `marked` of them are the task's answers.
pub fn show(ui: &mut Ui, id: &str, tokens: &[(u32, String)], marked: usize, columns: &[Column]) {
    Grid::new(id).striped(true).spacing(vec2(10.0, 2.0)).show(ui, |ui| {
        ui.weak("next token");
        columns.iter().for_each(|column| drop(ui.weak(column.name)));
        ui.end_row();
        for (number, (id, text)) in tokens.iter().enumerate() {
            let name = token(text);
            let shown = RichText::new(clipped(&name, 16)).monospace();
            ui.label(if number < marked { shown.strong() } else { shown });
            for column in columns {
                let of = |p: &[f64]| p.get(*id as usize).copied().unwrap_or(0.0);
                cell(ui, &format!("{name}, {}", column.name), of(column.plain), column.edited.map(of));
            }
            ui.end_row();
        }
    });
}

/// One probability as a bar with its number; an edited one in front of what it was.
fn cell(ui: &mut Ui, name: &str, before: f64, after: Option<f64>) {
    let (rect, response) = ui.allocate_exact_size(vec2(104.0, 17.0), Sense::hover());
    let now = after.unwrap_or(before);
    let said = match after {
        Some(after) => format!("{name}: {after:.4}, unedited {before:.4}"),
        None => format!("{name}: {before:.4}"),
    };
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, &said));
    let (visuals, painter) = (ui.visuals(), ui.painter());
    let bar = |p: f64| Rect::from_min_size(rect.min, vec2(rect.width() * p.clamp(0.0, 1.0) as f32, rect.height()));
    let fill = visuals.selection.bg_fill.gamma_multiply(if visuals.dark_mode { 0.8 } else { 0.7 });
    painter.rect_filled(bar(now), 2.0, fill);
    if after.is_some() {
        let outline = visuals.widgets.inactive.fg_stroke;
        painter.rect(bar(before), 2.0, Color32::TRANSPARENT, outline, StrokeKind::Inside);
    }
    let number = match after {
        Some(after) => format!("{before:.3} to {after:.3}"),
        None => format!("{before:.4}"),
    };
    painter.text(rect.right_center(), Align2::RIGHT_CENTER, number, FontId::proportional(11.5), visuals.text_color());
    response.on_hover_text(said);
}
