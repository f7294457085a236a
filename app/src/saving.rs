//! The files that the menu writes: where they go, and whether an existing one is replaced.

use std::path::PathBuf;

use eframe::egui::{Context, Key, Window};
use gossamer::circuits::{Annotations, Circuit, CircuitFormat};

use crate::explorer::Explorer;

/// What is saved.
#[derive(Clone, Copy)]
pub enum Save {
    /// The visible part of the drawing as PNG.
    Picture,
    /// Labels and groups, which whoever opens the circuit sees.
    Annotations,
    /// What is visible of the circuit; all of it in formats that can be read back.
    Circuit(&'static CircuitFormat),
}

impl Explorer {
    /// Saves to a file next to the circuit's, or in the working folder; asks before it replaces one.
    pub(crate) fn save_as(&mut self, save: Save) {
        let Some(open) = &self.open else { return };
        let file = open.document.path.clone();
        let file = file.unwrap_or_else(|| PathBuf::from(format!("{}.json", open.document.file_stem())));
        let path = match save {
            Save::Picture => file.with_extension("export.png"),
            Save::Annotations => Annotations::path(&file),
            Save::Circuit(format) => file.with_extension(format!("export.{}", format.name)),
        };
        // Messages name all of it.
        let path = std::path::absolute(&path).unwrap_or(path);
        if path.exists() {
            self.replacing = Some((path, save));
        } else {
            self.write(path, save);
        }
    }

    fn write(&mut self, path: PathBuf, save: Save) {
        let Some(open) = &self.open else { return };
        let saved = match save {
            Save::Picture => return self.snapshots.request(path),
            Save::Annotations => open.view.edits.annotations().save(&path),
            Save::Circuit(format) => {
                let circuit = match format.read {
                    Some(_) => open.document.circuit.clone(),
                    None => open.scene.visible(&open.view),
                };
                let annotations = Some(open.view.edits.annotations()).filter(|written| !written.is_empty());
                format.save(&Circuit { annotations, ..circuit }, &path)
            }
        };
        match saved {
            Ok(()) => self.message = format!("saved {}", path.display()),
            Err(e) => self.error = Some(e.to_string()),
        }
    }

    /// Asks whether to replace a file.
    pub(crate) fn replace_window(&mut self, ctx: &Context) {
        let Some((path, save)) = &self.replacing else { return };
        let (mut open, mut replace, mut keep) = (true, false, false);
        Window::new("Replace the file?").collapsible(false).resizable(false).open(&mut open).show(ctx, |ui| {
            ui.label(format!("{} exists.", path.display()));
            ui.horizontal(|ui| {
                replace = ui.button("Replace it").clicked();
                keep = ui.button("Keep it").clicked() || ui.input(|input| input.key_pressed(Key::Escape));
            });
        });
        let (path, save) = (path.clone(), *save);
        if replace || keep || !open {
            self.replacing = None;
        }
        if replace {
            self.write(path, save);
        }
    }
}
