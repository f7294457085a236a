//! The window.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use eframe::egui::{
    CentralPanel, ComboBox, Context, Key, KeyboardShortcut, MenuBar, Modifiers, Panel, RichText, ScrollArea, Slider,
    TextEdit, ThemePreference, Ui, ViewportCommand, Window,
};
use eframe::{App, Frame, Storage};
use gossamer::circuits::svg;
use gossamer::files::write_atomic;
use serde::{Deserialize, Serialize};

use crate::details::{self, Shelf};
use crate::document::Document;
use crate::film::Film;
use crate::graph::{self, Camera, group_colour};
use crate::history::History;
use crate::item::Item;
use crate::jobs::Jobs;
use crate::live::Live;
use crate::run_window::{Choices, Runs};
use crate::scene::Scene;
use crate::snapshot::Snapshots;
use crate::text;
use crate::view::{Edits, Sublayer, Trace, View};
use crate::vocabulary::Vocabulary;

const OPEN: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::O);
const FIND: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::F);
const QUIT: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::Q);
const REDO: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND.plus(Modifiers::SHIFT), Key::Z);
const UNDO: KeyboardShortcut = KeyboardShortcut::new(Modifiers::COMMAND, Key::Z);

/// What is kept from one session to the next.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Session {
    /// The files that were open, the latest first.
    recent: Vec<PathBuf>,
    /// What was chosen about them, the example's under an empty name.
    views: BTreeMap<String, View>,
    /// How models were trained and circuits sought last.
    runs: Choices,
}

/// The explorer.
pub struct Explorer {
    session: Session,
    open: Option<Open>,
    opening: Jobs<Result<Document, String>>,
    search: String,
    find: bool,
    /// What is being written into the window that asks for a path.
    path: Option<String>,
    /// What went wrong, until it was read.
    error: Option<String>,
    said: String,
    runs: Runs,
    snapshots: Snapshots,
}

/// The open document with its view.
struct Open {
    document: Document,
    view: View,
    history: History<Edits>,
    /// What there was before an edit that is still going on.
    before: Option<Edits>,
    live: Live,
    /// What was asked for in this frame.
    step: Option<Step>,
    /// Of the sublayer that was shown last.
    scene: (Option<Sublayer>, Scene),
    camera: Camera,
    shelf: Shelf,
    film: Film,
    vocabulary: Vocabulary,
}

/// A step through the history.
enum Step {
    Undo,
    Redo,
}

impl Open {
    fn new(document: Document, view: View) -> Self {
        let scene = (view.sublayer, Scene::new(&document.circuit, view.sublayer));
        let (history, camera, shelf) = (History::default(), Camera::default(), Shelf::default());
        let (live, film, vocabulary) = (Live::default(), Film::default(), Vocabulary::default());
        Self { document, view, history, before: None, live, step: None, scene, camera, shelf, film, vocabulary }
    }
}

impl Explorer {
    /// A window with the file or folder at `path`, or else the example. `storage` has what the last session left.
    pub fn new(ctx: &Context, storage: Option<&dyn Storage>, path: Option<&Path>) -> Self {
        let saved = storage.and_then(|storage| storage.get_string("session"));
        let session: Session = saved.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let runs = Runs::new(session.runs.clone());
        let mut explorer = Self {
            session,
            open: None,
            opening: Jobs::default(),
            search: String::new(),
            find: false,
            path: None,
            error: None,
            said: String::new(),
            runs,
            snapshots: Snapshots::default(),
        };
        match path {
            Some(path) => explorer.start_opening(ctx, path),
            None => match Document::example() {
                Ok(example) => explorer.show_document(example),
                Err(e) => explorer.error = Some(format!("{e:#}")),
            },
        }
        explorer
    }

    fn start_opening(&mut self, ctx: &Context, path: &Path) {
        let (path, ctx) = (path.to_path_buf(), ctx.clone());
        self.opening.start(move || Document::open(&path).map_err(|e| format!("{e:#}")), move || ctx.request_repaint());
    }

    fn show_document(&mut self, document: Document) {
        self.keep_view();
        if let Some(path) = &document.path {
            const RECENT: usize = 12;
            self.session.recent.retain(|other| other != path);
            self.session.recent.insert(0, path.clone());
            self.session.recent.truncate(RECENT);
        }
        let view = self.session.views.get(&key(&document)).cloned().unwrap_or_default();
        let tab = self.live().and_then(Live::tab);
        self.open = Some(Open { live: Live::new(tab), ..Open::new(document, view) });
    }

    /// Notes the choices about the open document.
    fn keep_view(&mut self) {
        if let Some(open) = &self.open {
            self.session.views.insert(key(&open.document), open.view.clone());
        }
    }

    /// The choices about the open document.
    pub fn view(&self) -> Option<&View> {
        self.open.as_ref().map(|open| &open.view)
    }

    /// The prompt of the open document and what models say to it.
    pub fn live(&self) -> Option<&Live> {
        self.open.as_ref().map(|open| &open.live)
    }

    /// What went wrong last.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    fn shortcuts(&mut self, ui: &Ui) {
        let pressed = |shortcut| ui.ctx().input_mut(|input| input.consume_shortcut(shortcut));
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
        if ui.ctx().input(|input| input.key_pressed(Key::Escape)) {
            open.view.selected = None;
        }
    }

    fn menus(&mut self, ui: &mut Ui) {
        MenuBar::new().ui(ui, |ui| {
            ui.menu_button("File", |ui| {
                if ui.button("Open…").clicked() {
                    self.path = Some(String::new());
                    ui.close();
                }
                ui.menu_button("Recent", |ui| {
                    for path in self.session.recent.clone() {
                        if ui.button(path.display().to_string()).clicked() {
                            self.start_opening(&ui.ctx().clone(), &path);
                            ui.close();
                        }
                    }
                });
                if ui.button("Example").clicked() {
                    match Document::example() {
                        Ok(example) => self.show_document(example),
                        Err(e) => self.error = Some(format!("{e:#}")),
                    }
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
            if self.opening.pending() {
                ui.spinner();
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
            self.start_opening(&ui.ctx().clone(), &path);
        }
    }

    /// Saves the circuit beside its file, or in the working folder.
    fn export(&mut self, extension: &str) {
        let Some(open) = &self.open else { return };
        let path = match &open.document.path {
            Some(path) => path.with_extension(format!("export.{extension}")),
            None => PathBuf::from(format!("{}.{extension}", open.document.circuit.task.name)),
        };
        let text = match extension {
            "png" => return self.snapshots.ask(path),
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

    fn controls(&mut self, ui: &mut Ui) {
        let find = std::mem::take(&mut self.find);
        let Some(open) = &mut self.open else { return };
        let name = ui.label("Find");
        let search = ui
            .add(
                TextEdit::singleline(&mut self.search).hint_text("a name, label or token").desired_width(f32::INFINITY),
            )
            .labelled_by(name.id);
        if find {
            search.request_focus();
        }
        let label = |item: Item| open.view.edits.labels.get(&item).map(String::as_str);
        let circuit = &open.document.circuit;
        let found: Vec<_> =
            open.scene.1.all().filter(|&item| text::matches(circuit, item, label(item), &self.search)).collect();
        let entered = search.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
        let mut chosen = found.first().copied().filter(|_| entered);
        for &item in found.iter().take(12) {
            if ui.selectable_label(open.view.selected == Some(item), item.to_string()).clicked() {
                chosen = Some(item);
            }
        }
        if let Some(item) = chosen {
            open.go_to(item);
        }
        ui.separator();
        ui.weak("show").on_hover_text("Δ: how much the task loss rises without each of the nodes, added up");
        ui.selectable_value(&mut open.view.sublayer, None, "the whole circuit");
        for layer in 0..open.document.circuit.model.n_layer {
            for mlp in [false, true] {
                let half = Sublayer { layer, mlp };
                let nodes = open.document.circuit.nodes.iter().filter(|entry| Sublayer::of(entry.node()) == half);
                let (count, delta) =
                    nodes.fold((0, 0.0), |(count, sum), entry| (count + 1, sum + entry.ablation_delta));
                let said = match count {
                    0 => format!("{}: nothing", half.name()),
                    _ => format!("{}: {count} nodes, Δ {delta:.3}", half.name()),
                };
                ui.add_enabled_ui(count > 0, |ui| ui.selectable_value(&mut open.view.sublayer, Some(half), said));
            }
        }
        ui.separator();
        ui.weak("edges with at least this share of the largest effect");
        ui.add(
            Slider::new(&mut open.view.threshold, 0.0..=1.0)
                .text("threshold")
                .fixed_decimals(3)
                .logarithmic(true)
                .smallest_positive(1e-3),
        );
        ui.separator();
        ui.weak("follow the selection to");
        for (trace, name) in Trace::ALL {
            ui.radio_value(&mut open.view.trace, trace, name);
        }
        lists(ui, open);
    }

    fn windows(&mut self, ctx: &Context) {
        let mut wanted = None;
        if let Some(path) = &mut self.path {
            let mut keep = true;
            Window::new("Open").collapsible(false).resizable(false).open(&mut keep).show(ctx, |ui| {
                ui.label(
                    "A run, a model's folder, a folder with circuits, a circuit file, or a published viz_data.pt.",
                );
                ui.weak("Dropping one on the window does the same.");
                let name = ui.label("path");
                let edit = ui.add(TextEdit::singleline(path).desired_width(420.0)).labelled_by(name.id);
                if path.is_empty() {
                    edit.request_focus();
                }
                let entered = edit.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
                if ui.button("Open it").clicked() || entered {
                    wanted = Some(PathBuf::from(path.trim()));
                }
            });
            if !keep || wanted.is_some() || ctx.input(|input| input.key_pressed(Key::Escape)) {
                self.path = None;
            }
        }
        let dropped = ctx.input(|input| input.raw.dropped_files.first().map(|file| file.path().to_path_buf()));
        if let Some(path) = wanted.or(dropped).or(self.runs.show(ctx)) {
            self.start_opening(ctx, &path);
        }
        self.error = self.error.take().or(self.runs.trouble());
        match self.snapshots.finished() {
            Some(Ok(path)) => self.said = format!("saved {}", path.display()),
            Some(Err(error)) => self.error = Some(error),
            None => {}
        }
        if let Some(error) = self.error.clone() {
            let mut keep = true;
            Window::new("That did not work").collapsible(false).open(&mut keep).show(ctx, |ui| {
                ui.label(error);
                if ui.button("All right").clicked() {
                    self.error = None;
                }
            });
            if !keep {
                self.error = None;
            }
        }
    }
}

impl Open {
    fn go_to(&mut self, item: Item) {
        self.view.selected = Some(item);
        if let Some(spot) = self.scene.1.spot(item) {
            self.camera.centre(self.scene.1.rect(spot).center());
        }
    }
}

/// What is pinned, grouped and hidden.
fn lists(ui: &mut Ui, open: &mut Open) {
    let mut chosen = None;
    let edits = &open.view.edits;
    let mut list = |ui: &mut Ui, name: RichText, items: &BTreeSet<Item>| {
        if !items.is_empty() {
            ui.separator();
            ui.label(name);
        }
        for &item in items {
            let label = edits.labels.get(&item).map(|label| format!(", {label}")).unwrap_or_default();
            if ui.selectable_label(false, format!("{item}{label}")).clicked() {
                chosen = Some(item);
            }
        }
    };
    list(ui, RichText::new("pinned").weak(), &edits.pinned);
    for (number, (name, items)) in edits.groups.iter().enumerate() {
        list(ui, RichText::new(name).color(group_colour(number)), items);
    }
    list(ui, RichText::new("hidden").weak(), &edits.hidden);
    if let Some(item) = chosen {
        open.go_to(item);
    }
}

/// What a document's choices are kept under.
fn key(document: &Document) -> String {
    document.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
}

impl App for Explorer {
    fn ui(&mut self, ui: &mut Ui, _: &mut Frame) {
        match self.opening.finished() {
            Some(Ok(document)) => self.show_document(document),
            Some(Err(error)) => self.error = Some(error),
            None => {}
        }
        let before = self.open.as_mut().map(|open| open.before.take().unwrap_or_else(|| open.view.edits.clone()));
        self.shortcuts(ui);
        Panel::top("menus").show(ui, |ui| self.menus(ui));
        if let Some(open) = &mut self.open {
            open.live.panel(ui, &open.document, &mut open.view);
        }
        Panel::left("controls").default_size(230.0).show(ui, |ui| {
            ScrollArea::vertical().show(ui, |ui| self.controls(ui));
        });
        if let Some(open) = &mut self.open {
            open.film.panel(ui, &open.document, &open.view);
            Panel::right("details").default_size(330.0).show(ui, |ui| {
                ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
                    details::show(ui, &open.document, &open.scene.1, &mut open.view, &mut open.shelf);
                    open.live.details(ui, &open.document, &open.view);
                    open.vocabulary.show(ui, &open.document, open.view.selected);
                });
            });
            if std::mem::take(&mut open.shelf.find) {
                self.runs.find(open.document.model_path());
            }
            if open.scene.0 != open.view.sublayer || open.film.turned() {
                let before = (open.scene.0, open.scene.1.bounds());
                open.scene = (open.view.sublayer, open.film.scene(&open.document, open.view.sublayer));
                if before != (open.scene.0, open.scene.1.bounds()) {
                    open.camera.fit();
                }
            }
            let more = |item| open.live.about(item);
            CentralPanel::default()
                .show(ui, |ui| graph::show(ui, &open.scene.1, &mut open.view, &mut open.camera, &more));
        } else {
            CentralPanel::default().show(ui, |ui| ui.centered_and_justified(|ui| ui.weak("opening …")));
        }
        self.windows(&ui.ctx().clone());
        self.snapshots.take(ui.ctx(), self.open.as_ref().and_then(|open| open.camera.window()));
        if let (Some(before), Some(open)) = (before, &mut self.open) {
            // Dragging and writing are one edit each, however many frames they take.
            let going_on = ui.ctx().text_edit_focused() || ui.ctx().input(|input| input.pointer.any_down());
            if going_on && open.step.is_none() {
                open.before = Some(before);
                return;
            }
            open.history.record(&before, &open.view.edits);
            match open.step.take() {
                Some(Step::Undo) => open.history.undo(&mut open.view.edits),
                Some(Step::Redo) => open.history.redo(&mut open.view.edits),
                None => return,
            }
            ui.ctx().request_repaint();
        }
    }

    fn save(&mut self, storage: &mut dyn Storage) {
        self.keep_view();
        self.session.runs = self.runs.choices.clone();
        let Session { recent, views, .. } = &mut self.session;
        views.retain(|name, _| name.is_empty() || recent.iter().any(|path| path.display().to_string() == *name));
        if let Ok(text) = serde_json::to_string(&self.session) {
            storage.set_string("session", text);
        }
    }
}
