//! The windows in which training and the search for circuits are started and watched.

use std::path::{Path, PathBuf};

use eframe::egui::{Button, ComboBox, Context, Label, ProgressBar, RichText, ScrollArea, Ui, Window};
use gossamer::circuits::prune::SearchSettings;
use gossamer::circuits::tasks::{self, ContextLength, question_name};
use gossamer::train::lock::free;
use serde::{Deserialize, Serialize};

use crate::panels::{Series, chart};
use crate::runs::{self, JobSpec, RunJob};
use crate::widgets::{finite, number_field, text_field};

/// Where windows open: next to the controls, below the menus.
const POSITION: [f32; 2] = [260.0, 60.0];

/// The last choices.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct RunChoices {
    preset: String,
    changes: String,
    task: String,
    long_context: bool,
    target_loss: f64,
    steps: u64,
}

impl RunChoices {
    /// The name of the question to find a circuit for.
    fn question(&self) -> String {
        let context = if self.long_context { ContextLength::Long } else { ContextLength::Short };
        question_name(&self.task, 0, context)
    }
}

impl Default for RunChoices {
    fn default() -> Self {
        let SearchSettings { target_loss, steps, .. } = SearchSettings::default();
        Self {
            preset: "quickstart".into(),
            changes: String::new(),
            task: "single_double_quote".into(),
            long_context: false,
            target_loss,
            steps,
        }
    }
}

/// Which form is open.
#[derive(Default)]
enum Form {
    #[default]
    Nothing,
    Train {
        folder: String,
    },
    Find {
        model: String,
    },
}

/// The windows for starting a job and for the job that runs.
#[derive(Default)]
pub struct RunWindow {
    pub choices: RunChoices,
    request: Form,
    job: Option<RunJob>,
    shown: bool,
    error: Option<String>,
}

impl RunWindow {
    pub fn new(choices: RunChoices) -> Self {
        Self { choices, ..Self::default() }
    }

    pub fn has_job(&self) -> bool {
        self.job.is_some()
    }

    /// Shows the window of the job.
    pub fn show_window(&mut self) {
        self.shown = true;
    }

    /// Receives updates and shows a line about a running job.
    pub fn status(&mut self, ui: &mut Ui) {
        let running = self.running();
        self.job.iter_mut().for_each(RunJob::poll);
        // Its window opens when the job has ended.
        self.shown |= running && !self.running();
        if let Some(job) = self.job.as_ref().filter(|job| job.outcome.is_none()) {
            ui.weak(format!("{}: {} of {}", job.title, job.progress.done, job.progress.all));
        }
    }

    /// Opens the window that starts a training run.
    pub fn train(&mut self) {
        self.request = Form::Train { folder: suggested(&self.choices.preset) };
    }

    /// Opens the window that starts the search for a circuit.
    pub fn find(&mut self, model: Option<PathBuf>) {
        self.request = Form::Find { model: model.map(|path| path.display().to_string()).unwrap_or_default() };
    }

    pub fn running(&self) -> bool {
        self.job.as_ref().is_some_and(|job| job.outcome.is_none())
    }

    /// Starts a job and shows its window.
    pub fn start(&mut self, ctx: &Context, spec: JobSpec) {
        let waker = ctx.clone();
        self.job = Some(RunJob::start(spec, move || waker.request_repaint()));
        self.shown = true;
    }

    /// Shows the windows. Returns the path to open, if one was chosen.
    pub fn show(&mut self, ctx: &Context) -> Option<PathBuf> {
        let (mut open, mut spec) = (true, None);
        let (running, choices) = (self.running(), &mut self.choices);
        let title = match &self.request {
            Form::Nothing => return self.show_job(ctx),
            Form::Train { .. } => "Train",
            Form::Find { .. } => "Find a circuit",
        };
        let window = Window::new(title).collapsible(false).resizable(false).default_pos(POSITION);
        window.open(&mut open).show(ctx, |ui| match &mut self.request {
            Form::Nothing => {}
            Form::Train { folder } => {
                if train_form(ui, choices, folder, running) {
                    spec = Some(runs::settings(&choices.preset, &choices.changes).map(|config| JobSpec::Train {
                        config: Box::new(config),
                        folder: PathBuf::from(folder.trim()),
                    }));
                }
            }
            Form::Find { model } => {
                if circuit_form(ui, choices, model, running) {
                    let (target_loss, steps) = (choices.target_loss, choices.steps);
                    spec = Some(Ok(JobSpec::Find {
                        model: PathBuf::from(model.trim()),
                        task: choices.question(),
                        settings: Box::new(SearchSettings { target_loss, steps, ..SearchSettings::default() }),
                    }));
                }
            }
        });
        match spec {
            Some(Ok(spec)) => {
                self.start(ctx, spec);
                open = false;
            }
            Some(Err(e)) => self.error = Some(e.to_string()),
            None => {}
        }
        if !open {
            self.request = Form::Nothing;
        }
        self.show_job(ctx)
    }

    /// Takes the error of the last request.
    pub fn error(&mut self) -> Option<String> {
        self.error.take()
    }

    fn show_job(&mut self, ctx: &Context) -> Option<PathBuf> {
        let job = self.job.as_ref().filter(|_| self.shown)?;
        let (mut open, mut chosen) = (true, None);
        Window::new("Job").default_pos(POSITION).default_width(420.0).open(&mut open).show(ctx, |ui| {
            ui.strong(&job.title);
            let share = job.progress.done as f32 / job.progress.all.max(1) as f32;
            ui.add(ProgressBar::new(share).text(format!("step {} of {}", job.progress.done, job.progress.all)));
            match &job.outcome {
                None => {
                    let name = if job.stopping() { "Stopping…" } else { "Stop" };
                    if ui.add_enabled(!job.stopping(), Button::new(name)).clicked() {
                        job.stop();
                    }
                    ui.label(&job.progress.message);
                }
                Some(Ok(outcome)) => {
                    ui.label(&outcome.message);
                    if let Some(report) = &outcome.report {
                        let text = RichText::new(report).monospace().size(10.5);
                        ScrollArea::both().max_height(400.0).show(ui, |ui| ui.add(Label::new(text).extend()));
                    }
                    if ui.button("Open the result").clicked() {
                        chosen = Some(outcome.path.clone());
                    }
                }
                Some(Err(error)) => drop(ui.colored_label(ui.visuals().error_fg_color, error)),
            }
            // Below the button, which must not move when a line is added.
            if job.curve.len() > 1 {
                let line = Series { name: "loss".into(), points: job.curve.clone(), strong: true };
                chart(ui, "loss", &[line], None, 90.0);
            }
            for note in &job.notes {
                ui.weak(format!("note: {note}"));
            }
        });
        self.shown = open && chosen.is_none();
        chosen
    }
}

/// An unused folder for a run of the preset.
fn suggested(preset: &str) -> String {
    let free = free(Path::new(&format!("runs/{preset}")));
    std::path::absolute(&free).unwrap_or(free).display().to_string()
}

/// Returns whether to start.
fn train_form(ui: &mut Ui, choices: &mut RunChoices, folder: &mut String, running: bool) -> bool {
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
    text_field(ui, "settings", &mut choices.changes, "such as steps=600 data.paths=[\"/path/to/code\"]", 380.0);
    text_field(ui, "folder", folder, "a new folder, or a run to continue", 380.0);
    start(ui, running, folder)
}

/// Returns whether to start.
fn circuit_form(ui: &mut Ui, choices: &mut RunChoices, model: &mut String, running: bool) -> bool {
    ui.label("Finds the fewest channels with which the model does a task. The result is in the folder `circuits` next to the model.");
    text_field(ui, "model", model, "a run, a checkpoint or the folder of a model", 380.0);
    ComboBox::from_label("task").selected_text(&choices.task).show_ui(ui, |ui| {
        for name in tasks::names() {
            let label = ui.selectable_label(choices.task == name, name);
            let label = label.on_hover_ui(|ui| drop(tasks::find(name).map(|task| ui.label(task.description))));
            if label.clicked() {
                choices.task = name.into();
            }
        }
    });
    ui.checkbox(&mut choices.long_context, "long context")
        .on_hover_text("up to 600 bytes of other code before each question");
    ui.horizontal(|ui| {
        finite(&mut choices.target_loss, |value| {
            number_field(ui, "target loss", value, |number| number.speed(0.01).range(0.001..=0.69))
        })
    });
    ui.horizontal(|ui| number_field(ui, "steps", &mut choices.steps, |number| number.range(1..=10_000)));
    if runs::circuit_file(Path::new(model.trim()), &choices.question()).exists() {
        ui.weak("replaces the existing circuit of this task");
    }
    start(ui, running, model)
}

fn start(ui: &mut Ui, running: bool, path: &str) -> bool {
    if running {
        ui.weak("another job is running: stop it first, or wait");
    }
    ui.add_enabled(!running && !path.trim().is_empty(), Button::new("Start")).clicked()
}
