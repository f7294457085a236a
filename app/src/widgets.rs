//! Widgets that several panels share.

use std::path::PathBuf;

use eframe::egui::{
    Button, Color32, DragValue, Id, Key, Response, RichText, Role, TextEdit, TextStyle, Ui, WidgetInfo, emath::Numeric,
};
use gossamer::circuits::color::sign;
use gossamer::circuits::labels::{token, visible};

use crate::item::Item;

/// Lets a finite number be chosen with the widget that `show` makes. Returns whether it was: text
/// such as "nan" or "1e400" changes nothing.
pub fn finite<T: Copy + Into<f64>>(value: &mut T, show: impl FnOnce(&mut T) -> Response) -> bool {
    let mut new = *value;
    let chosen = show(&mut new).changed() && new.into().is_finite();
    if chosen {
        *value = new;
    }
    chosen
}

/// A labelled line of text.
pub fn text_field(ui: &mut Ui, name: &str, text: &mut String, hint: &str, width: f32) -> Response {
    let row = ui.horizontal(|ui| {
        let name = ui.label(name);
        ui.add(TextEdit::singleline(text).hint_text(hint).desired_width(width)).labelled_by(name.id)
    });
    row.inner
}

/// A labelled line of text about `subject`. Returns the new text without spaces at its ends, if any.
/// While it is written the field keeps those spaces: after the next letter they are between words.
pub fn trimmed_field(ui: &mut Ui, name: &str, subject: Item, text: &str, hint: &str) -> Option<String> {
    let id = trimmed_field_id(name, subject);
    let written = ui.data(|data| data.get_temp::<String>(id));
    // Undo, for one, changes the text elsewhere.
    let mut written = written.filter(|written| written.trim() == text).unwrap_or_else(|| text.to_string());
    let row = ui.horizontal(|ui| {
        let name = ui.label(name);
        let edit = TextEdit::singleline(&mut written).id(id).hint_text(hint);
        ui.add(edit.desired_width(f32::INFINITY)).labelled_by(name.id)
    });
    let field = row.inner;
    let new = field.changed().then(|| written.trim().to_string());
    if field.has_focus() {
        ui.data_mut(|data| data.insert_temp(id, written));
    } else {
        ui.data_mut(|data| data.remove::<String>(id));
    }
    new
}

/// What gives a [`trimmed_field`] the focus.
pub fn trimmed_field_id(name: &str, subject: Item) -> Id {
    Id::unique((name, subject))
}

/// A labelled number.
pub fn number_field<T: Numeric>(
    ui: &mut Ui,
    name: &str,
    value: &mut T,
    format: impl FnOnce(DragValue<'_>) -> DragValue<'_>,
) -> Response {
    let name = ui.label(name);
    ui.add(format(DragValue::new(value))).labelled_by(name.id)
}

/// A labelled path with a button. Returns the path once it is confirmed by the button or Enter.
pub fn path_field(ui: &mut Ui, name: &str, text: &mut String, button: &str, focus: bool) -> Option<PathBuf> {
    let edit = text_field(ui, name, text, "", 420.0);
    if focus {
        edit.request_focus();
    }
    let entered = edit.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
    let confirmed = ui.add(Button::new(button)).clicked() || entered;
    (confirmed && !text.trim().is_empty()).then(|| PathBuf::from(text.trim()))
}

/// Lets code be written, or taken from one of the `buttons` of a name and a text. Returns the new
/// code, if any. The tab key moves to the next widget.
pub fn code_field(ui: &mut Ui, name: &str, text: &str, buttons: &[(&str, &str)]) -> Option<String> {
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
    if ui.add(edit.desired_width(f32::INFINITY).id(code_field_id(name))).labelled_by(label.inner).changed() {
        new = Some(written);
    }
    new
}

/// What gives a [`code_field`] the focus.
pub fn code_field_id(name: &str) -> Id {
    Id::unique(("code", name))
}

/// A row of tokens, one of them selected, with a node's activations as their background. Returns
/// the clicked one.
pub fn token_row(
    ui: &mut Ui,
    tokens: &[String],
    activations: Option<&[f32]>,
    selected: Option<usize>,
) -> Option<usize> {
    let largest = activations.into_iter().flatten().fold(0.0f32, |most, x| most.max(x.abs()));
    let (ink, paper) = (ui.visuals().text_color(), ui.visuals().panel_fill);
    let mut clicked = None;
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 2.0;
        for (at, text) in tokens.iter().enumerate() {
            let activation = activations.and_then(|values| values.get(at)).copied().unwrap_or(0.0);
            let background = heat(paper, activation, largest);
            let shown = RichText::new(visible(text).replace(' ', "·")).monospace().color(ink);
            let shown = shown.background_color(background);
            let button = ui.selectable_label(selected == Some(at), shown);
            let button = button.on_hover_text(format!("token {at}, {activation:+.3}"));
            let name = format!("token {at}, {}", token(text));
            button.widget_info(|| WidgetInfo::selected(Role::Button, true, selected == Some(at), &name));
            if button.clicked() {
                clicked = Some(at);
            }
        }
    });
    clicked
}

/// The background of a token with an activation.
pub fn heat(paper: Color32, activation: f32, largest: f32) -> Color32 {
    if activation == 0.0 || largest <= 0.0 {
        return Color32::TRANSPARENT;
    }
    let [r, g, b] = sign(activation.into());
    paper.lerp_to_gamma(Color32::from_rgb(r, g, b), 0.15 + 0.6 * (activation / largest).abs().min(1.0))
}

/// A color of the library, legible on the background.
pub fn on_background(ui: &Ui, [r, g, b]: [u8; 3]) -> Color32 {
    let share = if ui.visuals().dark_mode { 0.35 } else { 0.0 };
    Color32::from_rgb(r, g, b).lerp_to_gamma(ui.visuals().text_color(), share)
}
