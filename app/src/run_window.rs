//! The menu and the windows that training and the search for circuits are started and watched in.

use std::path::{Path, PathBuf};

use eframe::egui::{Button, ComboBox, Context, DragValue, ProgressBar, TextEdit, Ui, Window};
use gossamer::circuits::prune::SearchSettings;
use gossamer::circuits::tasks;
use gossamer::train::lock::free;
use serde::{Deserialize, Serialize};

use crate::curves::{self, Series};
use crate::number::finite;
use crate::runs::{self, Order, Work};

/// Where windows open: beside the controls, below the menus.
const PLACE: [f32; 2] = [260.0, 60.0];

/// What was chosen last.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Choices {
    preset: String,
    changes: String,
    task: String,
    target_loss: f64,
    steps: u64,
}

impl Default for Choices {
    fn default() -> Self {
        let SearchSettings { target_loss, steps, .. } = SearchSettings::default();
        Self {
            preset: "quickstart".into(),
            changes: String::new(),
            task: "single_double_quote".into(),
            target_loss,
            steps,
        }
    }
}

/// Which window is open.
#[derive(Default)]
enum Asking {
    #[default]
    Nothing,
    /// The folder of the run.
    Train(String),
    /// The path of the model.
    Find(String),
}

/// What is asked for and what is under way.
#[derive(Default)]
pub struct Runs {
    /// What was chosen last.
    pub choices: Choices,
    asking: Asking,
    work: Option<Work>,
    shown: bool,
    trouble: Option<String>,
}

impl Runs {
    /// Nothing is under way yet.
    pub fn new(choices: Choices) -> Self {
        Self { choices, ..Self::default() }
    }

    /// The menu. `model` is where the open document's model is.
    pub fn menu(&mut self, ui: &mut Ui, model: impl FnOnce() -> Option<PathBuf>) {
        ui.menu_button("Run", |ui| {
            if ui.button("Train…").clicked() {
                self.asking = Asking::Train(suggested(&self.choices.preset));
                ui.close();
            }
            if ui.button("Find a circuit…").clicked() {
                self.find(model());
                ui.close();
            }
            ui.add_enabled_ui(self.work.is_some(), |ui| {
                if ui.button("What is under way").clicked() {
                    self.shown = true;
                    ui.close();
                }
            });
        });
        let busy = self.busy();
        self.work.iter_mut().for_each(Work::listen);
        // What came of it is told, whatever else is looked at by then.
        self.shown |= busy && !self.busy();
        if let Some(work) = self.work.as_ref().filter(|work| work.outcome.is_none()) {
            ui.weak(format!("{}: {} of {}", work.title, work.progress.done, work.progress.all));
        }
    }

    /// Asks which circuit is wanted.
    pub fn find(&mut self, model: Option<PathBuf>) {
        self.asking = Asking::Find(model.map(|path| path.display().to_string()).unwrap_or_default());
    }

    /// Whether something is under way.
    pub fn busy(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.outcome.is_none())
    }

    /// Shows the windows. Gives what shall be opened.
    pub fn show(&mut self, ctx: &Context) -> Option<PathBuf> {
        let mut keep = true;
        let busy = self.busy();
        let mut order = None;
        let choices = &mut self.choices;
        match &mut self.asking {
            Asking::Nothing => {}
            Asking::Train(folder) => {
                Window::new("Train").collapsible(false).resizable(false).default_pos(PLACE).open(&mut keep).show(
                    ctx,
                    |ui| {
                        if ask_for_training(ui, choices, folder, busy) {
                            order = Some(runs::settings(&choices.preset, &choices.changes).map(|config| {
                                Order::Train { config: Box::new(config), folder: PathBuf::from(folder.trim()) }
                            }));
                        }
                    },
                );
            }
            Asking::Find(model) => {
                Window::new("Find a circuit")
                    .collapsible(false)
                    .resizable(false)
                    .default_pos(PLACE)
                    .open(&mut keep)
                    .show(ctx, |ui| {
                        if ask_for_circuit(ui, choices, model, busy) {
                            let (target_loss, steps) = (choices.target_loss, choices.steps);
                            let settings = SearchSettings { target_loss, steps, ..SearchSettings::default() };
                            order = Some(Ok(Order::Find {
                                model: PathBuf::from(model.trim()),
                                task: choices.task.clone(),
                                settings: Box::new(settings),
                            }));
                        }
                    });
            }
        }
        match order {
            Some(Ok(order)) => {
                let waker = ctx.clone();
                self.work = Some(Work::start(order, move || waker.request_repaint()));
                (self.shown, self.asking) = (true, Asking::Nothing);
            }
            Some(Err(e)) => self.trouble = Some(e.to_string()),
            None => {}
        }
        if !keep {
            self.asking = Asking::Nothing;
        }
        self.under_way(ctx)
    }

    /// What went wrong with what was asked for, once.
    pub fn trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    fn under_way(&mut self, ctx: &Context) -> Option<PathBuf> {
        let work = self.work.as_ref().filter(|_| self.shown)?;
        let (mut keep, mut wanted) = (true, None);
        Window::new("Under way").default_pos(PLACE).default_width(420.0).open(&mut keep).show(ctx, |ui| {
            ui.strong(&work.title);
            let share = work.progress.done as f32 / work.progress.all.max(1) as f32;
            ui.add(ProgressBar::new(share).text(format!("step {} of {}", work.progress.done, work.progress.all)));
            if work.curve.len() > 1 {
                let line = Series { name: "loss".into(), points: work.curve.clone(), strong: true };
                curves::show(ui, "loss", &[line], None, 90.0);
            }
            match &work.outcome {
                None => {
                    ui.label(&work.progress.said);
                    let name = if work.stopping() { "Stopping…" } else { "Stop" };
                    if ui.add_enabled(!work.stopping(), Button::new(name)).clicked() {
                        work.stop();
                    }
                }
                Some(Ok((path, said))) => {
                    ui.label(said);
                    if ui.button("Open what was made").clicked() {
                        wanted = Some(path.clone());
                    }
                }
                Some(Err(why)) => drop(ui.colored_label(ui.visuals().error_fg_color, why)),
            }
        });
        self.shown = keep && wanted.is_none();
        wanted
    }
}

/// A folder for a run of that preset.
fn suggested(preset: &str) -> String {
    free(Path::new(&format!("runs/{preset}"))).display().to_string()
}

/// Whether it shall start.
fn ask_for_training(ui: &mut Ui, choices: &mut Choices, folder: &mut String, busy: bool) -> bool {
    ui.label("Trains a weight-sparse model on generated Python. quickstart takes about three minutes on two cores.");
    ComboBox::from_label("preset").selected_text(&choices.preset).show_ui(ui, |ui| {
        for preset in ["quickstart", "circuits", "small"] {
            if ui.selectable_label(choices.preset == preset, preset).clicked() {
                if *folder == suggested(&choices.preset) {
                    *folder = suggested(preset);
                }
                choices.preset = preset.into();
            }
        }
    });
    field(ui, "settings", &mut choices.changes, "such as steps=600 data.paths=[\"/path/to/code\"]");
    field(ui, "folder", folder, "where the run goes; one that is there goes on");
    start(ui, busy, folder)
}

/// Whether it shall start.
fn ask_for_circuit(ui: &mut Ui, choices: &mut Choices, model: &mut String, busy: bool) -> bool {
    ui.label("Finds the fewest channels with which the model does a task. It is kept in the folder `circuits` beside the model.");
    field(ui, "model", model, "a run, a checkpoint or the folder of a model");
    ComboBox::from_label("task").selected_text(&choices.task).show_ui(ui, |ui| {
        for name in tasks::names() {
            let label = ui.selectable_label(choices.task == name, name);
            let label = label.on_hover_ui(|ui| drop(tasks::find(name).map(|task| ui.label(task.description))));
            if label.clicked() {
                choices.task = name.into();
            }
        }
    });
    ui.horizontal(|ui| {
        let name = ui.label("target loss");
        finite(&mut choices.target_loss, |value| {
            ui.add(DragValue::new(value).speed(0.01).range(0.001..=0.69)).labelled_by(name.id)
        });
    });
    ui.horizontal(|ui| {
        let name = ui.label("steps");
        ui.add(DragValue::new(&mut choices.steps).range(1..=10_000)).labelled_by(name.id);
    });
    if runs::circuit_file(Path::new(model.trim()), &choices.task).exists() {
        ui.weak("replaces the circuit of this task that is there");
    }
    start(ui, busy, model)
}

fn field(ui: &mut Ui, name: &str, text: &mut String, hint: &str) {
    ui.horizontal(|ui| {
        let name = ui.label(name);
        ui.add(TextEdit::singleline(text).hint_text(hint).desired_width(380.0)).labelled_by(name.id);
    });
}

fn start(ui: &mut Ui, busy: bool, path: &str) -> bool {
    if busy {
        ui.weak("something else is under way: stop it first, or wait");
    }
    ui.add_enabled(!busy && !path.trim().is_empty(), Button::new("Start")).clicked()
}
