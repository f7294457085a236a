//! The timeline's panel: a run's curves, and its checkpoints one after the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use eframe::egui::{Panel, Slider, Ui};
use gossamer::circuits::Node;

use crate::curves::{self, Series};
use crate::document::Document;
use crate::item::Item;
use crate::scene::Scene;
use crate::timeline::{self, Revision, Timeline};
use crate::view::{Sublayer, View};

/// An open document's timeline.
#[derive(Default)]
pub struct Film {
    /// Nothing while it is not shown; otherwise it, or why there is none.
    timeline: Option<Result<Timeline, String>>,
    /// Where the drawing is.
    frame: Option<Revision>,
    /// Since when the present checkpoint is shown, while they follow each other by themselves.
    since: Option<f64>,
}

impl Film {
    /// The panel, where the view has it.
    pub fn panel(&mut self, ui: &mut Ui, document: &Document, view: &View) {
        if !view.timeline {
            self.timeline = None;
            return;
        }
        let timeline = self.timeline.get_or_insert_with(|| start(ui, document));
        let mut again = false;
        Panel::bottom("timeline").default_size(190.0).min_size(150.0).show(ui, |ui| match timeline {
            Ok(timeline) => again = show(ui, timeline, &mut self.since, view.selected, &document.circuit.task.name),
            Err(why) => drop(ui.label(&*why)),
        });
        if again {
            self.timeline = None;
        }
    }

    /// Whether the drawing is of another time than the one that is looked at.
    pub fn turned(&self) -> bool {
        self.frame != self.now()
    }

    /// The drawing of the time that is looked at.
    pub fn scene(&mut self, document: &Document, sublayer: Option<Sublayer>) -> Scene {
        self.frame = self.now();
        let timeline = self.timeline.as_ref().and_then(|timeline| timeline.as_ref().ok());
        match timeline.and_then(|timeline| Some((timeline.circuit()?, timeline.widths()))) {
            Some((circuit, widths)) => Scene::new(&circuit, sublayer).with_widths(widths),
            None => Scene::new(&document.circuit, sublayer),
        }
    }

    fn now(&self) -> Option<Revision> {
        self.timeline.as_ref()?.as_ref().ok()?.revision()
    }
}

fn start(ui: &Ui, document: &Document) -> Result<Timeline, String> {
    let model = Path::new(&document.circuit.model.path);
    let run = timeline::run_of(document.path.as_deref(), model).ok_or_else(|| {
        "There is no run at hand whose checkpoints could be looked at: open a run, or a circuit in a run's folder `circuits`. \
         Run › Train… makes one with a checkpoint for every 24th of its way."
            .to_string()
    })?;
    let waker = ui.ctx().clone();
    Ok(Timeline::start(&run, document.circuit.clone(), move || waker.request_repaint()))
}

/// Seconds that a checkpoint is shown for.
const PAUSE: f64 = 0.7;

/// Shows the timeline; `selected` and `task` are what most is told about. Whether all shall be read again.
fn show(ui: &mut Ui, timeline: &mut Timeline, since: &mut Option<f64>, selected: Option<Item>, task: &str) -> bool {
    let mut again = false;
    timeline.poll();
    let last = timeline.steps.len().saturating_sub(1);
    ui.horizontal(|ui| {
        ui.strong("timeline");
        let playing = since.is_some();
        let now = ui.input(|input| input.time);
        if ui.button(if playing { "Pause" } else { "Play" }).clicked() {
            *since = (!playing).then_some(now);
            if !playing && timeline.selected() == last {
                timeline.select(0);
            }
        }
        let mut at = timeline.selected();
        let steps = timeline.steps.clone();
        let shown = move |at: f64, _| steps.get(at as usize).map(|step| format!("step {step}")).unwrap_or_default();
        ui.spacing_mut().slider_width = 260.0;
        if ui.add(Slider::new(&mut at, 0..=last).text("checkpoint").custom_formatter(shown)).changed() {
            timeline.select(at);
        }
        play(ui, timeline, since, (last, now));
        again = ui.button("Read again").on_hover_text("a run that goes on has more by now").clicked();
        let (done, all) = (timeline.checkpoints().len(), timeline.steps.len());
        if all == 0 && timeline.error.is_none() {
            ui.weak("no checkpoint yet");
        } else if done < all {
            ui.weak(format!("{done} of {all} checkpoints looked at"));
        }
    });
    if let Some(error) = &timeline.error {
        ui.colored_label(ui.visuals().warn_fg_color, error);
    }
    ui.label(told(timeline, task));
    let step = timeline.step().map(|step| step as f64);
    let charts = charts(timeline, selected, task);
    let mut wanted = None;
    ui.columns(charts.len(), |columns| {
        for (ui, (name, series)) in columns.iter_mut().zip(&charts) {
            let height = ui.available_height().clamp(70.0, 140.0);
            wanted = curves::show(ui, name, series, step, height).or(wanted);
        }
    });
    if let Some(step) = wanted {
        let distance = |at: &usize| (timeline.steps[*at] as f64 - step).abs();
        let nearest = (0..timeline.steps.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)));
        nearest.into_iter().for_each(|at| timeline.select(at));
    }
    again
}

/// Goes on to the next checkpoint when it is time.
fn play(ui: &Ui, timeline: &mut Timeline, since: &mut Option<f64>, (last, now): (usize, f64)) {
    let Some(start) = *since else { return };
    if timeline.selected() >= last {
        *since = None;
        return;
    }
    if now - start >= PAUSE {
        timeline.select(timeline.selected() + 1);
        *since = Some(now);
    }
    ui.ctx().request_repaint_after(Duration::from_secs_f64(PAUSE));
}

/// The present checkpoint in a line.
fn told(timeline: &Timeline, task: &str) -> String {
    let Some(step) = timeline.step() else { return format!("{} is being read", timeline.run.display()) };
    let mut parts = vec![format!("step {step}")];
    let logged = |name: &str| timeline.logged.iter().rev().filter(|l| l.step <= step).find_map(|l| l.get(name));
    for (what, name) in [("loss", "loss"), ("validation", "validation_loss"), ("density", "density")] {
        parts.extend(logged(name).map(|value| format!("{what} {value:.4}")));
    }
    match timeline.checkpoint() {
        None => parts.push("not looked at yet".into()),
        Some(data) => {
            match &data.scores {
                Ok(scores) => {
                    let good = scores.iter().filter(|score| score.accuracy >= 0.9).count();
                    parts.push(format!("{good} of {} tasks at least 90 % right", scores.len()));
                    let own = scores.iter().find(|score| score.task == task);
                    parts.extend(own.map(|own| format!("{task} {:.1} %", 100.0 * own.accuracy)));
                }
                Err(why) => parts.push(why.clone()),
            }
            match &data.circuit {
                Ok(circuit) => {
                    let (edges, loss) = (circuit.counts.edges, circuit.losses.test.circuit);
                    parts.push(format!("the circuit's nodes: {edges} edges, task loss {loss:.3}"));
                }
                Err(why) if data.scores.as_ref().err() == Some(why) => {}
                Err(why) => parts.push(why.clone()),
            }
        }
    }
    parts.join(" · ")
}

/// What is drawn: a chart's name and its lines.
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
        ("tasks, share right".to_string(), tasks.collect()),
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
