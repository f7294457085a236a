//! The timeline: a run's curves, and its checkpoints one after the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use eframe::egui::{Slider, Ui};
use gossamer::circuits::Node;

use super::curves::{self, Series};
use super::{Panel, PanelContext};
use crate::document::Document;
use crate::item::Item;
use crate::timeline::{self, CheckpointData, Timeline};
use crate::view::View;

#[derive(Default)]
pub struct TimelinePanel {
    /// While it plays: since when the selected checkpoint is shown.
    since: Option<f64>,
}

impl Panel for TimelinePanel {
    fn is_open(&self, view: &View) -> bool {
        view.timeline
    }

    fn close(&mut self, view: &mut View) {
        view.timeline = false;
    }

    fn ui(&mut self, ui: &mut Ui, context: &mut PanelContext) {
        let document = context.document;
        let timeline = context.timeline.get_or_insert_with(|| {
            self.since = None;
            start(ui, document)
        });
        match timeline {
            Ok(timeline) => {
                timeline.poll();
                let reload = self.controls(ui, timeline);
                if let Some(error) = &timeline.error {
                    ui.colored_label(ui.visuals().warn_fg_color, error);
                }
                let task = &document.circuit.task.name;
                ui.label(summary(timeline, task));
                show_charts(ui, timeline, context.view.selected, task);
                if reload {
                    *context.timeline = None;
                }
            }
            Err(error) => drop(ui.label(&*error)),
        }
    }
}

fn start(ui: &Ui, document: &Document) -> Result<Timeline, String> {
    let model = Path::new(&document.circuit.model.path);
    let run = timeline::run_of(document.path.as_deref(), model).ok_or_else(|| {
        "No run with checkpoints was found: open a run, or a circuit in a run's folder `circuits`. \
         Run › Train… makes one with 24 checkpoints."
            .to_string()
    })?;
    let waker = ui.ctx().clone();
    Ok(Timeline::start(&run, document.circuit.clone(), move || waker.request_repaint()))
}

/// How many seconds a checkpoint is shown.
const PAUSE: f64 = 0.7;

impl TimelinePanel {
    /// Returns whether to read the run again.
    fn controls(&mut self, ui: &mut Ui, timeline: &mut Timeline) -> bool {
        let last = timeline.steps.len().saturating_sub(1);
        let row = ui.horizontal(|ui| {
            ui.strong("timeline");
            let playing = self.since.is_some();
            let now = ui.input(|input| input.time);
            if ui.button(if playing { "Pause" } else { "Play" }).clicked() {
                self.since = (!playing).then_some(now);
                if !playing && timeline.selected() == last {
                    timeline.select(0);
                }
            }
            let mut number = timeline.selected();
            let steps = timeline.steps.clone();
            let name = move |at: f64, _| steps.get(at as usize).map(|step| format!("step {step}")).unwrap_or_default();
            ui.spacing_mut().slider_width = 260.0;
            if ui.add(Slider::new(&mut number, 0..=last).text("checkpoint").custom_formatter(name)).changed() {
                timeline.select(number);
            }
            self.play(ui, timeline, last, now);
            let reload = ui.button("Read again").on_hover_text("a run that trains has more by now").clicked();
            let (done, all) = (timeline.checkpoints().len(), timeline.steps.len());
            if all == 0 && timeline.error.is_none() {
                ui.weak("no checkpoint yet");
            } else if done < all {
                ui.weak(format!("{done} of {all} checkpoints evaluated"));
            }
            reload
        });
        row.inner
    }

    /// Selects the next checkpoint when it is time.
    fn play(&mut self, ui: &Ui, timeline: &mut Timeline, last: usize, now: f64) {
        let Some(start) = self.since else { return };
        if timeline.selected() >= last {
            self.since = None;
            return;
        }
        if now - start >= PAUSE {
            timeline.select(timeline.selected() + 1);
            self.since = Some(now);
        }
        ui.ctx().request_repaint_after(Duration::from_secs_f64(PAUSE));
    }
}

/// The selected checkpoint in a line.
fn summary(timeline: &Timeline, task: &str) -> String {
    let Some(step) = timeline.step() else { return format!("reading {}", timeline.run.display()) };
    let mut parts = vec![format!("step {step}")];
    let logged = |name: &str| timeline.logged.iter().rev().filter(|l| l.step <= step).find_map(|l| l.get(name));
    for (label, name) in [("loss", "loss"), ("validation", "validation_loss"), ("density", "density")] {
        parts.extend(logged(name).map(|value| format!("{label} {value:.4}")));
    }
    match timeline.checkpoint() {
        None => parts.push("not evaluated yet".into()),
        Some(data) => parts.extend(evaluation(data, task)),
    }
    parts.join(" · ")
}

fn evaluation(data: &CheckpointData, task: &str) -> Vec<String> {
    let mut parts = Vec::new();
    match &data.scores {
        Ok(scores) => {
            let good = scores.iter().filter(|score| score.accuracy >= 0.9).count();
            parts.push(format!("{good} of {} tasks with an accuracy of at least 90 %", scores.len()));
            let score = scores.iter().find(|score| score.task == task);
            parts.extend(score.map(|score| format!("{task} {:.1} %", 100.0 * score.accuracy)));
        }
        Err(error) => parts.push(error.clone()),
    }
    match &data.circuit {
        Ok(circuit) => {
            let (edges, loss) = (circuit.counts.edges, circuit.losses.test.circuit);
            parts.push(format!("the circuit's nodes: {edges} edges, task loss {loss:.3}"));
        }
        Err(error) if data.scores.as_ref().err() == Some(error) => {}
        Err(error) => parts.push(error.clone()),
    }
    parts
}

/// Draws the charts; a click selects the nearest checkpoint.
fn show_charts(ui: &mut Ui, timeline: &mut Timeline, selected: Option<Item>, task: &str) {
    let step = timeline.step().map(|step| step as f64);
    let charts = charts(timeline, selected, task);
    let mut clicked = None;
    ui.columns(charts.len(), |columns| {
        for (ui, (name, series)) in columns.iter_mut().zip(&charts) {
            let height = ui.available_height().clamp(70.0, 400.0);
            clicked = curves::chart(ui, name, series, step, height).or(clicked);
        }
    });
    if let Some(step) = clicked {
        let distance = |number: &usize| (timeline.steps[*number] as f64 - step).abs();
        let nearest = (0..timeline.steps.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)));
        nearest.into_iter().for_each(|number| timeline.select(number));
    }
}

/// The charts: their names and series.
fn charts(timeline: &Timeline, selected: Option<Item>, task: &str) -> Vec<(String, Vec<Series>)> {
    let logged = |name: &str, strong| Series {
        name: name.replace('_', " "),
        points: timeline.logged.iter().filter_map(|line| Some((line.step as f64, line.get(name)?))).collect(),
        strong,
    };
    let mut tasks: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for data in timeline.checkpoints() {
        for score in data.scores.iter().flatten() {
            tasks.entry(&score.task).or_default().push((data.step as f64, score.accuracy));
        }
    }
    let tasks = tasks.into_iter().map(|(name, points)| Series { name: name.into(), points, strong: name == task });
    let mut charts = vec![
        ("loss".to_string(), vec![logged("loss", false), logged("validation_loss", true)]),
        ("density".to_string(), vec![logged("density", true)]),
        ("tasks, accuracy".to_string(), tasks.collect()),
    ];
    if let Some(Item::Node(node)) = selected {
        let line = |((from, to), points): ((Node, Node), Vec<(f64, f64)>)| {
            let other = if from == node { to } else { from };
            Series { name: other.to_string(), points, strong: true }
        };
        charts.push((format!("weights at {node}"), timeline.weights(node).into_iter().map(line).collect()));
    }
    charts
}
