//! The tab with the loss of circuits of every size.

use std::path::PathBuf;

use eframe::egui::{
    Align2, Color32, FontId, Pos2, Rect, Response, Role, Sense, Shape, Stroke, StrokeKind, Ui, WidgetInfo, pos2, vec2,
};
use gossamer::chart::COLORS;
use gossamer::circuits::curve::{Curve, CurvePoint};
use gossamer::circuits::search::Ranking;

use super::{Panel, PanelContext};
use crate::document::{Contents, Document};
use crate::sizes::{SizeCurve, describe};

#[derive(Default)]
pub struct SizesPanel {
    ranking: Ranking,
    by_edges: bool,
    curve: Option<SizeCurve>,
}

impl Panel for SizesPanel {
    fn status(&self, ui: &mut Ui, _: &PanelContext) {
        match &self.curve {
            Some(SizeCurve { outcome: None, progress, .. }) => drop(ui.weak(format!("computing: {progress}"))),
            Some(SizeCurve { outcome: Some(Err(_)), .. }) => drop(ui.label("no answer")),
            Some(SizeCurve { outcome: Some(Ok(_)), .. }) | None => {}
        }
    }

    fn ui(&mut self, ui: &mut Ui, context: &mut PanelContext) {
        if let Some(curve) = &mut self.curve {
            curve.poll();
        }
        let document = context.document;
        let (file, model) = match computable(document) {
            Ok(found) => found,
            Err(reason) => return drop(ui.label(reason)),
        };
        self.controls(ui, document, (file, model));
        match self.curve.as_ref().and_then(|curve| Some((curve.ranking, curve.outcome.as_ref()?))) {
            Some((_, Err(error))) => drop(ui.colored_label(ui.visuals().error_fg_color, error)),
            Some((ranking, Ok(curve))) => show_curve(ui, document, curve, (ranking, self.by_edges)),
            None => {}
        }
    }
}

/// The circuit's file and its model, or what is missing.
fn computable(document: &Document) -> Result<(PathBuf, PathBuf), &'static str> {
    if !matches!(document.contents, Contents::Circuit) || document.circuit.nodes.is_empty() {
        return Err("Open a circuit that was found in a model: its task and settings are needed.");
    }
    let file = document.path.clone().ok_or("Open a circuit's file: this one comes without its model.")?;
    let model = document.model_path().ok_or("The circuit's model was not found: open the circuit in its run.")?;
    Ok((file, model))
}

impl SizesPanel {
    fn controls(&mut self, ui: &mut Ui, document: &Document, (file, model): (PathBuf, PathBuf)) {
        ui.horizontal_wrapped(|ui| {
            ui.weak("nodes ranked by");
            let steps = document.circuit.settings.get("steps").and_then(|steps| steps.as_u64()).unwrap_or_default();
            ui.selectable_value(&mut self.ranking, Ranking::Learned, "learned gates")
                .on_hover_text(format!("as the circuit was found, with its settings: {steps} steps"));
            ui.selectable_value(&mut self.ranking, Ranking::Attribution, "attribution")
                .on_hover_text("gradient × (activation − mean): quick, but larger circuits for the same loss");
            match &self.curve {
                Some(curve) if curve.outcome.is_none() => {
                    let name = if curve.stopping() { "Stopping…" } else { "Stop computing" };
                    if ui.button(name).clicked() {
                        curve.stop();
                    }
                }
                _ => {
                    if ui.button("Compute the curve").clicked() {
                        let waker = ui.ctx().clone();
                        let circuit = (file, document.circuit.clone());
                        let wake = move || waker.request_repaint();
                        self.curve = Some(SizeCurve::start(circuit, model, self.ranking, wake));
                    }
                }
            }
            ui.separator();
            ui.selectable_value(&mut self.by_edges, false, "over nodes");
            ui.selectable_value(&mut self.by_edges, true, "over edges");
        });
    }
}

fn show_curve(ui: &mut Ui, document: &Document, curve: &Curve, (ranking, by_edges): (Ranking, bool)) {
    let model = curve.model_loss.first().copied().unwrap_or_default();
    let of = if ranking == Ranking::Learned { "learned gates" } else { "attribution" };
    let circuit = &document.circuit;
    let (own, loss) = (&circuit.counts, circuit.losses.test.circuit);
    ui.weak(format!(
        "the first nodes by {of}, calibrated as the circuit; the dashed line is the whole model, {model:.3}; the ring is \
         this circuit: {} nodes, {} edges, {loss:.3}",
        own.nodes, own.edges
    ));
    let size = |nodes: usize, edges: usize| if by_edges { edges } else { nodes };
    let points: Vec<(f64, f64)> =
        curve.points.iter().map(|point| (size(point.nodes, point.edges) as f64, point.loss)).collect();
    let plot = SizePlot::new(ui, &points, [(size(own.nodes, own.edges) as f64, loss), (1.0, model)]);
    plot.axes(ui, if by_edges { "edges" } else { "nodes" });
    let color = |number: usize| {
        let (r, g, b) = COLORS[number % COLORS.len()];
        let color = Color32::from_rgb(r, g, b);
        if ui.visuals().dark_mode { color.lerp_to_gamma(Color32::WHITE, 0.5) } else { color }
    };
    let painter = ui.painter();
    let line: Vec<Pos2> = points.iter().map(|&point| plot.position(point)).collect();
    for &at in &line {
        painter.circle_filled(at, 2.5, color(0));
    }
    painter.add(Shape::line(line.clone(), Stroke::new(1.8, color(0))));
    let level = plot.position((1.0, model)).y;
    let across = [pos2(plot.rect.left(), level), pos2(plot.rect.right(), level)];
    painter.extend(Shape::dashed_line(&across, Stroke::new(1.0, ui.visuals().weak_text_color()), 5.0, 4.0));
    let here = plot.position((size(own.nodes, own.edges) as f64, loss));
    painter.circle_stroke(here, 5.0, Stroke::new(2.0, ui.visuals().selection.stroke.color));
    plot.point_out(ui, &line, &curve.points);
}

/// The area of the curve: sizes are logarithmic, losses from 0.
struct SizePlot {
    rect: Rect,
    response: Response,
    largest: f64,
    highest: f64,
}

impl SizePlot {
    fn new(ui: &mut Ui, points: &[(f64, f64)], others: [(f64, f64); 2]) -> Self {
        const LEFT: f32 = 44.0;
        const BELOW: f32 = 30.0;
        let height = ui.available_height().clamp(110.0, 420.0);
        let (area, response) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::hover());
        let all = || points.iter().chain(&others).filter(|(_, loss)| loss.is_finite());
        let largest = all().map(|point| point.0).fold(2.0, f64::max);
        let highest = all().map(|point| point.1).fold(0.1, f64::max) * 1.05;
        let rect = Rect::from_min_max(area.min + vec2(LEFT, 6.0), area.max - vec2(14.0, BELOW));
        let (first, last) = (points.first().copied().unwrap_or_default(), points.last().copied().unwrap_or_default());
        let text = format!(
            "task loss against size: {:.3} at {:.0} to {:.3} at {:.0}, this circuit {:.3} at {:.0}",
            first.1, first.0, last.1, last.0, others[0].1, others[0].0
        );
        response.widget_info(|| WidgetInfo::labeled(Role::Image, true, &text));
        Self { rect, response, largest, highest }
    }

    /// Where a size and a loss are. Nothing is left of size 1: circuits without edges are there.
    fn position(&self, (size, loss): (f64, f64)) -> Pos2 {
        let x = (size.max(1.0).ln() / self.largest.ln()) as f32;
        let y = if loss.is_finite() { (loss / self.highest) as f32 } else { 1.0 };
        pos2(self.rect.left() + self.rect.width() * x, self.rect.bottom() - self.rect.height() * y)
    }

    fn axes(&self, ui: &Ui, name: &str) {
        let (painter, quiet, font) = (ui.painter(), ui.visuals().weak_text_color(), FontId::proportional(10.0));
        let grid = Stroke::new(0.5, quiet.gamma_multiply(0.4));
        painter.rect_stroke(self.rect, 2.0, Stroke::new(0.5, quiet), StrokeKind::Outside);
        let mut size = 1.0;
        while size <= self.largest {
            let at = self.position((size, 0.0));
            painter.vline(at.x, self.rect.y_range(), grid);
            painter.text(at + vec2(0.0, 3.0), Align2::CENTER_TOP, format!("{size:.0}"), font.clone(), quiet);
            size *= if self.largest > 300.0 { 10.0 } else { 4.0 };
        }
        for share in 0..=4 {
            let loss = self.highest / 1.05 * f64::from(share) / 4.0;
            let at = pos2(self.rect.left(), self.position((1.0, loss)).y);
            painter.hline(self.rect.x_range(), at.y, grid);
            painter.text(at - vec2(4.0, 0.0), Align2::RIGHT_CENTER, format!("{loss:.2}"), font.clone(), quiet);
        }
        let below = self.rect.center_bottom() + vec2(0.0, 16.0);
        painter.text(
            below,
            Align2::CENTER_TOP,
            format!("{name}, logarithmic; upwards the task loss in nats"),
            font,
            quiet,
        );
    }

    /// Shows the numbers of the point nearest to the pointer.
    fn point_out(&self, ui: &Ui, drawn: &[Pos2], points: &[CurvePoint]) {
        let Some(pointer) = self.response.hover_pos() else { return };
        let distance = |at: &Pos2| (at.x - pointer.x).abs();
        let nearest = drawn.iter().zip(points).min_by(|a, b| distance(a.0).total_cmp(&distance(b.0)));
        let Some((at, point)) = nearest else { return };
        ui.painter().circle_filled(*at, 4.0, ui.visuals().selection.stroke.color);
        self.response.clone().on_hover_ui_at_pointer(|ui| {
            describe(point).into_iter().for_each(|line| drop(ui.label(line)));
        });
    }
}
