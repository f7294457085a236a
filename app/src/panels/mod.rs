//! The panels around the drawing. A new panel is a file here, with its module and its row in
//! [`all`].

mod about;
mod bridge;
mod continuation;
mod controls;
mod curves;
mod details;
mod node;
mod prompt;
mod sizes;
mod table;
mod timeline;
mod vocabulary;

use eframe::egui::{self, ScrollArea, Ui};
use serde::{Deserialize, Serialize};

pub use controls::Search;
pub use curves::{Series, chart};

use crate::commands::Command;
use crate::document::Document;
use crate::graph::Camera;
use crate::item::Item;
use crate::live::Live;
use crate::scene::Scene;
use crate::timeline::Timeline;
use crate::view::View;

/// Where a panel is. The panels on one side share it, from top to bottom; one tab is open at a
/// time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dock {
    Left,
    Right,
    Bottom,
    Tab,
}

/// Which docks are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Docks {
    pub left: bool,
    pub right: bool,
    /// The title of the open tab.
    #[serde(skip)]
    pub tab: Option<&'static str>,
}

impl Default for Docks {
    fn default() -> Self {
        Self { left: true, right: true, tab: None }
    }
}

/// What panels show and change.
pub struct PanelContext<'a> {
    pub document: &'a Document,
    pub scene: &'a Scene,
    pub view: &'a mut View,
    pub camera: &'a mut Camera,
    pub live: &'a mut Live,
    /// The run's timeline, or why there is none; `None` until the panel is shown.
    pub timeline: &'a mut Option<Result<Timeline, String>>,
    pub search: &'a mut Search,
    /// Commands to run after this frame.
    pub commands: &'a mut Vec<Command>,
}

impl PanelContext<'_> {
    /// Selects an item and moves it into the middle.
    pub fn go_to(&mut self, item: Item) {
        self.view.selected = Some(item);
        if let Some(place) = self.scene.place(item) {
            self.camera.center(place.center());
        }
    }
}

/// A panel of an open document. Its fields are the state that is not saved.
pub trait Panel {
    fn is_open(&self, _: &View) -> bool {
        true
    }

    /// Closes it, if it is one that can be closed.
    fn close(&mut self, _: &mut View) {}

    /// A line next to the tabs while this one is open.
    fn status(&self, _: &mut Ui, _: &PanelContext) {}

    fn ui(&mut self, ui: &mut Ui, context: &mut PanelContext);
}

/// A panel and where it is.
pub struct DockedPanel {
    dock: Dock,
    /// Its name: of a tab, the text on it.
    title: &'static str,
    /// What the panel is for, shown when a tab is pointed at.
    hint: &'static str,
    panel: Box<dyn Panel>,
}

/// All panels, in the order in which they are placed.
pub fn all() -> Vec<DockedPanel> {
    let row = |dock, title, panel: Box<dyn Panel>, hint| DockedPanel { dock, title, hint, panel };
    let prompt = "Run a prompt in the whole model, in the circuit and in its complement; set nodes by hand";
    let size = "The task loss of circuits of every size, of which this one is a point";
    let bridge = "Steer a dense model through the bridges next to this sparse one";
    vec![
        row(Dock::Tab, "Prompt", Box::<prompt::PromptPanel>::default(), prompt),
        row(Dock::Tab, "Bridge", Box::<bridge::BridgePanel>::default(), bridge),
        row(Dock::Tab, "Size", Box::<sizes::SizesPanel>::default(), size),
        row(Dock::Left, "controls", Box::new(controls::ControlsPanel), ""),
        row(Dock::Bottom, "timeline", Box::<timeline::TimelinePanel>::default(), ""),
        row(Dock::Right, "details", Box::<details::DetailsPanel>::default(), ""),
        row(Dock::Right, "node in the prompt", Box::new(node::NodePanel), ""),
        row(Dock::Right, "vocabulary", Box::<vocabulary::VocabularyPanel>::default(), ""),
    ]
}

/// Shows all open panels. Dragging a panel's edge past its smallest size closes it.
pub fn show(ui: &mut Ui, panels: &mut [DockedPanel], docks: &mut Docks, context: &mut PanelContext) {
    egui::Panel::bottom("tabs").show(ui, |ui| ui.horizontal(|ui| tabs(ui, panels, &mut docks.tab, context)));
    if let Some(panel) = panels.iter_mut().find(|panel| panel.dock == Dock::Tab && docks.tab == Some(panel.title)) {
        let mut open = true;
        egui::Panel::bottom("live").default_size(290.0).min_size(160.0).show_collapsible(ui, &mut open, |ui| {
            ui.set_min_height(ui.available_height());
            panel.panel.ui(ui, context);
        });
        docks.tab.take_if(|_| !open);
    }
    let left = egui::Panel::left("controls").default_size(230.0).min_size(160.0);
    left.show_collapsible(ui, &mut docks.left, |ui| {
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| stack(ui, panels, Dock::Left, context));
    });
    for panel in panels.iter_mut().filter(|panel| panel.dock == Dock::Bottom) {
        if panel.panel.is_open(context.view) {
            let mut open = true;
            let bottom = egui::Panel::bottom(panel.title).default_size(190.0).min_size(150.0);
            bottom.show_collapsible(ui, &mut open, |ui| {
                ui.set_min_height(ui.available_height());
                panel.panel.ui(ui, context);
            });
            if !open {
                panel.panel.close(context.view);
            }
        }
    }
    let right = egui::Panel::right("details").default_size(330.0).min_size(200.0);
    right.show_collapsible(ui, &mut docks.right, |ui| {
        ScrollArea::vertical().auto_shrink(false).show(ui, |ui| stack(ui, panels, Dock::Right, context));
    });
}

/// The widths of the left and the right column of a tab: those of a wide window, or shares of a narrow
/// one, so that the middle keeps a third.
fn side_columns(ui: &Ui) -> [f32; 2] {
    let width = ui.available_width();
    [330_f32.min(0.28 * width), 470_f32.min(0.39 * width)]
}

fn stack(ui: &mut Ui, panels: &mut [DockedPanel], dock: Dock, context: &mut PanelContext) {
    for panel in panels.iter_mut().filter(|panel| panel.dock == dock) {
        if panel.panel.is_open(context.view) {
            panel.panel.ui(ui, context);
        }
    }
}

fn tabs(ui: &mut Ui, panels: &[DockedPanel], tab: &mut Option<&'static str>, context: &mut PanelContext) {
    for panel in panels.iter().filter(|panel| panel.dock == Dock::Tab) {
        let open = *tab == Some(panel.title);
        if ui.selectable_label(open, panel.title).on_hover_text(panel.hint).clicked() {
            *tab = if open { None } else { Some(panel.title) };
            context.live.retry();
        }
    }
    if let Some(panel) = panels.iter().find(|panel| *tab == Some(panel.title)) {
        panel.panel.status(ui, context);
    }
}
