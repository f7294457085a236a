//! The window.

use std::path::{Path, PathBuf};
use std::pin::Pin;

use eframe::egui::{self, Button, CentralPanel, Context, Ui, Window};
use eframe::{App, Frame, Storage};
use gossamer::circuits::Annotations;
use rfd::{AsyncFileDialog, FileHandle};

use crate::commands::Command;
use crate::compared::Compared;
use crate::document::Document;
use crate::graph::{self, Camera};
use crate::help;
use crate::history::History;
use crate::item::Item;
use crate::jobs::Job;
use crate::live::Live;
use crate::panels::{self, DockedPanel, Docks, PanelContext, Search};
use crate::run_window::RunWindow;
use crate::saving::Save;
use crate::scene::{Changed, Scene, SceneKey};
use crate::session::Session;
use crate::snapshot::Snapshots;
use crate::timeline::Timeline;
use crate::tour;
use crate::view::{Edits, Sublayer, View};
use crate::widgets::path_field;

/// The application: its open document and its windows.
pub struct Explorer {
    pub(crate) session: Session,
    pub(crate) open: Option<OpenDocument>,
    pub(crate) opening: Option<Job<Result<Document, String>>>,
    pub(crate) search: Search,
    /// Whether a text, a menu or a window that Escape closes was open at the end of the last frame.
    pub(crate) focus_elsewhere: bool,
    /// The text in the window that asks for a path, if it is open.
    pub(crate) path: Option<String>,
    /// The system's dialog, if it is open; it ends with nothing if it cannot be shown.
    dialog: Option<Job<Result<Option<PathBuf>, String>>>,
    pub(crate) show_help: bool,
    /// The step of the tour that is shown.
    pub(crate) tour: Option<usize>,
    /// The last error, until it is confirmed.
    pub(crate) error: Option<String>,
    pub(crate) message: String,
    pub(crate) runs: RunWindow,
    pub(crate) snapshots: Snapshots,
    /// The file that exists, until a person says whether to replace it.
    pub(crate) replacing: Option<(PathBuf, Save)>,
}

/// The open document with its view and its panels.
pub(crate) struct OpenDocument {
    pub document: Document,
    pub view: View,
    pub history: History<Edits>,
    /// The state before an edit that has not ended.
    edit_base: Option<Edits>,
    /// Undo or redo, once this frame is done.
    pub step: Option<Command>,
    pub scene: Scene,
    /// What `scene` was made of.
    scene_key: SceneKey,
    shown_sublayer: Option<Sublayer>,
    pub camera: Camera,
    live: Live,
    timeline: Option<Result<Timeline, String>>,
    panels: Vec<DockedPanel>,
    /// Another circuit of the folder, drawn next to this one.
    pub compared: Option<Compared>,
}

impl OpenDocument {
    fn new(document: Document, view: View) -> Self {
        let mut scene_key = SceneKey::default();
        scene_key.update(&view, None);
        Self {
            scene: Scene::of_view(&document.circuit, &view),
            scene_key,
            shown_sublayer: view.sublayer,
            document,
            view,
            history: History::default(),
            edit_base: None,
            step: None,
            camera: Camera::default(),
            live: Live::default(),
            timeline: None,
            panels: panels::all(),
            compared: None,
        }
    }

    fn show(&mut self, ui: &mut Ui, docks: &mut Docks, search: &mut Search) -> Vec<Command> {
        let mut commands = Vec::new();
        self.live.update(ui.ctx(), &self.document, &self.view);
        if !self.view.timeline {
            self.timeline = None;
        }
        let mut context = PanelContext {
            document: &self.document,
            scene: &self.scene,
            view: &mut self.view,
            camera: &mut self.camera,
            live: &mut self.live,
            timeline: &mut self.timeline,
            search,
            commands: &mut commands,
        };
        panels::show(ui, &mut self.panels, docks, &mut context);
        self.update_scene();
        if let Some(compared) = &mut self.compared {
            let mut open = true;
            let half = egui::Panel::right("compared").default_size(0.5 * ui.available_width()).min_size(160.0);
            half.show_collapsible(ui, &mut open, |ui| compared.show(ui, &self.document.circuit, &mut self.view));
            self.compared.take_if(|_| !open);
        }
        let in_prompt = |item| self.live.activation_line(item);
        CentralPanel::default()
            .show(ui, |ui| graph::show(ui, graph::OPEN, &self.scene, &mut self.view, &mut self.camera, &in_prompt));
        commands
    }

    /// Lays the drawing out again if another sublayer or checkpoint is shown, or if groups changed.
    fn update_scene(&mut self) {
        let timeline = self.timeline.as_ref().and_then(|timeline| timeline.as_ref().ok());
        let revision = timeline.and_then(Timeline::revision);
        if let Some(Item::Group(number)) = self.view.selected {
            self.view.selected = self.scene_key.renumbered(number, &self.view).map(Item::Group);
        }
        let (sublayer, changed) = (self.shown_sublayer, self.scene_key.update(&self.view, revision));
        match changed {
            Changed::Nothing => return,
            Changed::Offsets => return self.scene.move_groups(self.view.edits.annotations()),
            Changed::Groups | Changed::Part => {}
        }
        let place = |scene: &Scene, view: &View| view.selected.and_then(|item| scene.place(item)).map(|at| at.center());
        let (bounds, old) = (self.scene.bounds(), place(&self.scene, &self.view));
        self.scene = match timeline.and_then(|timeline| Some((timeline.circuit()?, timeline.widths()))) {
            Some((circuit, widths)) => Scene::of_view(&circuit, &self.view).with_widths(widths),
            None => Scene::of_view(&self.document.circuit, &self.view),
        };
        self.shown_sublayer = self.view.sublayer;
        match (changed, old.zip(place(&self.scene, &self.view))) {
            (Changed::Groups, Some((old, new))) => self.camera.follow(old, new),
            _ if (sublayer, bounds) != (self.shown_sublayer, self.scene.bounds()) => self.camera.fit(),
            _ => {}
        }
    }

    /// Records the frame's edits; dragging and typing are one edit, however many frames they take.
    fn record(&mut self, ctx: &Context, edit_base: Edits) {
        let continues = ctx.text_edit_focused() || ctx.input(|input| input.pointer.any_down());
        if continues && self.step.is_none() {
            self.edit_base = Some(edit_base);
            return;
        }
        self.history.record(&edit_base, &self.view.edits);
        match self.step.take() {
            Some(Command::Undo) => self.history.undo(&mut self.view.edits),
            Some(Command::Redo) => self.history.redo(&mut self.view.edits),
            _ => return,
        }
        ctx.request_repaint();
    }
}

/// The circuit of the built-in example that is opened first, next to its model; nothing if they
/// cannot be written.
pub fn example() -> Option<PathBuf> {
    gossamer::example::cached().ok().map(|folder| folder.join(gossamer::example::CIRCUIT))
}

impl Explorer {
    /// Opens the file or folder at `path`, or else the example. `storage` has the last session.
    pub fn new(ctx: &Context, storage: Option<&dyn Storage>, path: Option<&Path>) -> Self {
        let session = Session::load(storage);
        let mut explorer = Self {
            runs: RunWindow::new(session.runs.clone()),
            session,
            open: None,
            opening: None,
            search: Search::default(),
            focus_elsewhere: false,
            path: None,
            dialog: None,
            show_help: false,
            // Of a first session, nothing is stored yet.
            tour: storage.filter(|storage| !Session::is_in(*storage)).map(|_| 0),
            error: None,
            message: String::new(),
            snapshots: Snapshots::default(),
            replacing: None,
        };
        if let Some(path) = path {
            explorer.start_opening(ctx, Some(path))
        } else {
            explorer.show_example()
        }
        explorer
    }

    /// Opens what is at `path`, or else the example, in the background.
    pub(crate) fn start_opening(&mut self, ctx: &Context, path: Option<&Path>) {
        // The session keeps the path, and the next one may start in another folder.
        let path = path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.into()));
        let ctx = ctx.clone();
        let open = move || path.or_else(example).map_or_else(Document::example, |path| Document::open(&path));
        let open = move |_: &_| open().map_err(|e| format!("{e:#}"));
        self.opening = Some(Job::run(move || ctx.request_repaint(), open));
    }

    fn show_example(&mut self) {
        match Document::example() {
            Ok(example) => self.show_document(example),
            Err(e) => self.error = Some(format!("{e:#}")),
        }
    }

    fn show_document(&mut self, document: Document) {
        self.keep_view();
        let mut view = self.session.open(&document);
        let own = document.circuit.annotations.clone();
        match document.path.as_deref().map_or(Ok(None), Annotations::of_file) {
            Ok(annotations) => view.edits.fill(annotations.or(own)),
            Err(error) => self.error = Some(error.to_string()),
        }
        self.open = Some(OpenDocument::new(document, view));
    }

    fn keep_view(&mut self) {
        if let Some(open) = &self.open {
            self.session.keep(&open.document, &open.view);
        }
    }

    /// The view of the open document.
    pub fn view(&self) -> Option<&View> {
        self.open.as_ref().map(|open| &open.view)
    }

    /// The prompts of the open document and the models' answers.
    pub fn live(&self) -> Option<&Live> {
        self.open.as_ref().map(|open| &open.live)
    }

    /// The error that is shown.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Receives the document that was being opened.
    fn poll(&mut self) {
        match Job::take_result(&mut self.opening) {
            Some(Ok(document)) => self.show_document(document),
            Some(Err(error)) => {
                self.error = Some(error);
                // The first screen is never empty.
                if self.open.is_none() {
                    self.show_example();
                }
            }
            None => {}
        }
    }

    fn windows(&mut self, ctx: &Context) {
        let chosen = self.path_window(ctx);
        let dropped = ctx.input(|input| input.raw.dropped_files.first().map(|file| file.path().to_path_buf()));
        if let Some(path) = chosen.or(dropped).or_else(|| self.runs.show(ctx)) {
            self.start_opening(ctx, Some(&path));
        }
        help::show(ctx, &mut self.show_help);
        tour::show(ctx, &mut self.tour);
        self.replace_window(ctx);
        self.error = self.error.take().or(self.runs.error());
        match self.snapshots.finished() {
            Some(Ok(path)) => self.message = format!("saved {}", path.display()),
            Some(Err(error)) => self.error = Some(error),
            None => {}
        }
        if let Some(error) = &self.error {
            let (mut open, mut confirmed) = (true, false);
            Window::new("That did not work").collapsible(false).open(&mut open).show(ctx, |ui| {
                ui.label(error);
                confirmed = ui.button("All right").clicked();
            });
            if !open || confirmed {
                self.error = None;
            }
        }
    }

    fn path_window(&mut self, ctx: &Context) -> Option<PathBuf> {
        let path = self.path.as_mut()?;
        let (mut open, mut chosen) = (true, Job::take_result(&mut self.dialog).and_then(Result::ok).flatten());
        Window::new("Open").collapsible(false).resizable(false).open(&mut open).show(ctx, |ui| {
            ui.label("A run, a model's folder, a folder with circuits, a circuit file, or a published viz_data.pt.");
            ui.weak("Dropping one on the window does the same.");
            let empty = path.is_empty();
            let written = path_field(ui, "path", path, "Open it", empty);
            chosen = chosen.take().or(written);
            ui.horizontal(|ui| {
                for (name, folder) in [("Choose a file…", false), ("Choose a folder…", true)] {
                    if ui.add_enabled(self.dialog.is_none(), Button::new(name)).clicked() {
                        self.dialog = Some(start_dialog(ctx, folder));
                    }
                }
            });
        });
        if !open || chosen.is_some() || ctx.input(|input| input.key_pressed(egui::Key::Escape)) {
            (self.path, self.dialog) = (None, None);
        }
        chosen
    }
}

/// Lets a person choose a file or a folder in the system's dialog.
fn start_dialog(ctx: &Context, folder: bool) -> Job<Result<Option<PathBuf>, String>> {
    let dialog = AsyncFileDialog::new().set_title("Open");
    let ctx = ctx.clone();
    let job = |chosen: Pin<Box<dyn Future<Output = Option<FileHandle>> + Send>>| {
        let wait = move |_: &_| Ok(pollster::block_on(chosen).map(|chosen| chosen.path().to_path_buf()));
        Job::run(move || ctx.request_repaint(), wait)
    };
    // macOS wants it made on this thread. Any may wait for it.
    if folder { job(Box::pin(dialog.pick_folder())) } else { job(Box::pin(dialog.pick_file())) }
}

impl App for Explorer {
    fn ui(&mut self, ui: &mut Ui, _: &mut Frame) {
        self.poll();
        let edit_base = self.open.as_mut().map(|open| open.edit_base.take().unwrap_or_else(|| open.view.edits.clone()));
        let ctx = ui.ctx().clone();
        self.keys(&ctx);
        egui::Panel::top("menus").show(ui, |ui| self.menus(ui));
        let commands = if let Some(open) = &mut self.open {
            open.show(ui, &mut self.session.docks, &mut self.search)
        } else {
            CentralPanel::default().show(ui, |ui| ui.centered_and_justified(|ui| ui.weak("opening …")));
            Vec::new()
        };
        for command in commands {
            self.run(&ctx, command);
        }
        self.windows(&ctx);
        self.snapshots.update(&ctx, self.open.as_ref().and_then(|open| open.camera.window()));
        self.focus_elsewhere = ctx.text_edit_focused()
            || ctx.any_popup_open()
            || self.path.is_some()
            || self.show_help
            || self.tour.is_some()
            || self.replacing.is_some();
        if let (Some(edit_base), Some(open)) = (edit_base, &mut self.open) {
            open.record(&ctx, edit_base);
        }
    }

    fn save(&mut self, storage: &mut dyn Storage) {
        self.keep_view();
        self.session.runs = self.runs.choices.clone();
        self.session.save(storage);
    }
}
