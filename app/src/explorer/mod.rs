//! The window.

mod controls;
mod menus;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use eframe::egui::{CentralPanel, Context, Key, Panel, ScrollArea, TextEdit, Ui, Window};
use eframe::{App, Frame, Storage};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::details::{self, Shelf};
use crate::document::Document;
use crate::film::Film;
use crate::graph::{self, Camera};
use crate::history::History;
use crate::item::Item;
use crate::jobs::Job;
use crate::live::Live;
use crate::run_window::{RunChoices, RunWindow};
use crate::scene::Scene;
use crate::snapshot::Snapshots;
use crate::view::{Edits, Sublayer, View};
use crate::vocabulary::Vocabulary;

/// What is kept from one session to the next.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Session {
    /// The files that were open, the latest first.
    #[serde(deserialize_with = "readable")]
    recent: Vec<PathBuf>,
    /// What was chosen about files, those and others, the example's under an empty name.
    #[serde(deserialize_with = "each_readable")]
    views: BTreeMap<String, View>,
    /// The names under which something was chosen, the one that was open last at the end.
    #[serde(deserialize_with = "readable")]
    order: Vec<String>,
    /// How models were trained and circuits sought last.
    #[serde(deserialize_with = "readable")]
    runs: RunChoices,
}

/// What can be read of a part of the session: what cannot must not cost the rest.
fn readable<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(from: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(from)?).unwrap_or_default())
}

/// Those of many things that can be read.
fn each_readable<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, View>, D::Error> {
    let all: BTreeMap<String, Value> = readable(from)?;
    Ok(all.into_iter().filter_map(|(name, view)| Some((name, serde_json::from_value(view).ok()?))).collect())
}

/// The explorer.
pub struct Explorer {
    session: Session,
    open: Option<Open>,
    opening: Option<Job<Result<Document, String>>>,
    search: String,
    find: bool,
    /// Whether keys went to a text, a menu or the window that asks for a path when the frame before this one ended.
    elsewhere: bool,
    /// What is being written into the window that asks for a path.
    path: Option<String>,
    /// What went wrong, until it was read.
    error: Option<String>,
    said: String,
    runs: RunWindow,
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
        let runs = RunWindow::new(session.runs.clone());
        let mut explorer = Self {
            session,
            open: None,
            opening: None,
            search: String::new(),
            find: false,
            elsewhere: false,
            path: None,
            error: None,
            said: String::new(),
            runs,
            snapshots: Snapshots::default(),
        };
        match path {
            Some(path) => explorer.start_opening(ctx, Some(path)),
            None => explorer.show_example(),
        }
        explorer
    }

    /// Opens what is at `path`, or else the example, to be shown when a later frame begins.
    fn start_opening(&mut self, ctx: &Context, path: Option<&Path>) {
        // So that it is known again from wherever the program is started next.
        let path = path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.into()));
        let ctx = ctx.clone();
        let open = move || path.map_or_else(Document::example, |path| Document::open(&path));
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
        // The session is text, which other paths have no place in.
        if let Some(path) = document.path.as_ref().filter(|path| path.to_str().is_some()) {
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
            let name = key(&open.document);
            self.session.order.retain(|other| *other != name);
            self.session.order.push(name.clone());
            self.session.views.insert(name, open.view.clone());
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
            self.start_opening(ctx, Some(&path));
        }
        self.error = self.error.take().or(self.runs.error());
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

/// What a document's choices are kept under.
fn key(document: &Document) -> String {
    document.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
}

impl App for Explorer {
    fn ui(&mut self, ui: &mut Ui, _: &mut Frame) {
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
        self.snapshots.update(ui.ctx(), self.open.as_ref().and_then(|open| open.camera.window()));
        self.elsewhere = ui.ctx().text_edit_focused() || ui.ctx().any_popup_open() || self.path.is_some();
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
        let Session { views, order, .. } = &mut self.session;
        /// So many files' choices are kept.
        const VIEWS: usize = 500;
        views.retain(|_, view| *view != View::default());
        order.retain(|name| views.contains_key(name));
        // Those of earlier versions have no place in the order: they are older.
        let without: Vec<String> = views.keys().filter(|name| !order.contains(name)).cloned().collect();
        order.splice(0..0, without);
        for name in order.drain(..views.len().saturating_sub(VIEWS)) {
            views.remove(&name);
        }
        if let Ok(text) = serde_json::to_string(&self.session) {
            storage.set_string("session", text);
        }
    }
}
