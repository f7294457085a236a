//! The menu bar and the keys.

use std::path::PathBuf;

use eframe::egui::{ComboBox, Key, KeyboardShortcut, MenuBar, Modifiers, ThemePreference, Ui, ViewportCommand};
use gossamer::circuits::svg;
use gossamer::files::write_atomic;

use super::{Explorer, Step};

const OPEN: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::O);
const FIND: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::F);
const QUIT: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::Q);
const REDO: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND.plus(Modifiers::SHIFT), Key::Z);
const UNDO: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::Z);

impl Explorer {
    pub(super) fn shortcuts(&mut self, ui: &Ui) {
        let pressed = |shortcut| ui.ctx().input_mut(|input| input.consume_shortcut(shortcut));
        if self.error.is_some() {
            let edited = ui.ctx().text_edit_focused();
            let read = |key| ui.ctx().input_mut(|input| input.consume_key(Modifiers::NONE, key));
            if read(Key::Escape) || (!edited && read(Key::Enter)) {
                self.error = None;
            }
        }
        if pressed(&OPEN) {
            self.path = Some(String::new());
        }
        self.find |= pressed(&FIND);
        if pressed(&QUIT) {
            ui.ctx().send_viewport_cmd(ViewportCommand::Close);
        }
        // What is being written has an undo and an escape of its own.
        if ui.ctx().text_edit_focused() {
            return;
        }
        let (redo, undo) = (pressed(&REDO), pressed(&UNDO));
        let Some(open) = &mut self.open else { return };
        if redo || undo {
            open.step = Some(if redo { Step::Redo } else { Step::Undo });
        }
        if !self.elsewhere && ui.ctx().input(|input| input.key_pressed(Key::Escape)) {
            open.view.selected = None;
        }
    }

    pub(super) fn menus(&mut self, ui: &mut Ui) {
        MenuBar::new().ui(ui, |ui| {
            ui.menu_button("File", |ui| {
                if ui.button("Open…").clicked() {
                    self.path = Some(String::new());
                    ui.close();
                }
                ui.menu_button("Recent", |ui| {
                    for path in self.session.recent.clone() {
                        if ui.button(path.display().to_string()).clicked() {
                            self.start_opening(&ui.ctx().clone(), Some(&path));
                            ui.close();
                        }
                    }
                });
                if ui.button("Example").clicked() {
                    self.start_opening(&ui.ctx().clone(), None);
                    ui.close();
                }
                ui.separator();
                for (name, extension) in
                    [("Save drawing as SVG", "svg"), ("Save view as PNG", "png"), ("Save circuit as JSON", "json")]
                {
                    if ui.button(name).clicked() {
                        self.export(extension);
                        ui.close();
                    }
                }
                ui.separator();
                if ui.button("Quit").clicked() {
                    ui.ctx().send_viewport_cmd(ViewportCommand::Close);
                }
            });
            ui.menu_button("Edit", |ui| {
                let Some(open) = &mut self.open else { return };
                ui.add_enabled_ui(open.history.can_undo(), |ui| {
                    if ui.button("Undo").clicked() {
                        open.step = Some(Step::Undo);
                    }
                });
                ui.add_enabled_ui(open.history.can_redo(), |ui| {
                    if ui.button("Redo").clicked() {
                        open.step = Some(Step::Redo);
                    }
                });
                if ui.button("Show all that is hidden").clicked() {
                    open.view.edits.hidden.clear();
                }
            });
            ui.menu_button("View", |ui| {
                if ui.button("Fit").clicked() {
                    self.open.iter_mut().for_each(|open| open.camera.fit());
                    ui.close();
                }
                if let Some(open) = &mut self.open {
                    ui.checkbox(&mut open.view.timeline, "Timeline");
                }
                // The toolkit's own buttons have emoji for names, which the fonts that come with it lack.
                let themes = [
                    (ThemePreference::System, "as the system"),
                    (ThemePreference::Light, "light"),
                    (ThemePreference::Dark, "dark"),
                ];
                for (theme, name) in themes {
                    if ui.radio(ui.ctx().options(|options| options.theme_preference) == theme, name).clicked() {
                        ui.ctx().set_theme(theme);
                    }
                }
            });
            self.runs.menu(ui, || self.open.as_ref().and_then(|open| open.document.model_path()));
            self.choose_circuit(ui);
            if self.opening.is_some() {
                ui.weak("opening …");
            }
            ui.weak(&self.said);
        });
    }

    /// The circuits of the same folder.
    fn choose_circuit(&mut self, ui: &mut Ui) {
        let Some(open) = &self.open else { return };
        let mut chosen = None;
        ComboBox::from_label("circuit").selected_text(open.document.name()).show_ui(ui, |ui| {
            for path in &open.document.siblings {
                let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
                if ui.selectable_label(open.document.path.as_ref() == Some(path), name).clicked() {
                    chosen = Some(path.clone());
                }
            }
        });
        if let Some(path) = chosen {
            self.start_opening(&ui.ctx().clone(), Some(&path));
        }
    }

    /// Saves the circuit beside its file, or in the working folder.
    fn export(&mut self, extension: &str) {
        let Some(open) = &self.open else { return };
        let path = match &open.document.path {
            Some(path) => path.with_extension(format!("export.{extension}")),
            None => PathBuf::from(format!("{}.export.{extension}", open.document.file_stem())),
        };
        let text = match extension {
            "png" => return self.snapshots.request(path),
            "svg" => svg(&open.scene.1.seen(&open.view)),
            _ => open.document.circuit.to_json(),
        };
        let written =
            write_atomic(&path, |out| out.write_all(text.as_bytes()).map_err(|e| gossamer::Error::io(&path, e)));
        match written {
            Ok(()) => self.said = format!("saved {}", path.display()),
            Err(e) => self.error = Some(e.to_string()),
        }
    }
}
