//! Numbers that people choose.

use eframe::egui::Response;

/// Lets a number be chosen with the widget that `show` makes; gives whether it was. What is typed can be no number ("nan"), or too large for
/// one: that changes nothing.
pub fn finite<T: Copy + Into<f64>>(value: &mut T, show: impl FnOnce(&mut T) -> Response) -> bool {
    let mut new = *value;
    let chosen = show(&mut new).changed() && new.into().is_finite();
    if chosen {
        *value = new;
    }
    chosen
}
