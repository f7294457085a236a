//! Small charts of numbers over steps.

use eframe::egui::{Align2, Color32, FontId, Role, Sense, Shape, Stroke, StrokeKind, Ui, WidgetInfo, pos2, vec2};
use gossamer::chart::COLORS;

/// A line of a chart.
#[derive(Clone, Debug, Default)]
pub struct Series {
    pub name: String,
    /// Steps and values, in order.
    pub points: Vec<(f64, f64)>,
    /// Whether it stands out.
    pub strong: bool,
}

/// Draws the series with a mark `at` a step, as wide as possible. Returns the clicked step.
pub fn chart(ui: &mut Ui, name: &str, series: &[Series], at: Option<f64>, height: f32) -> Option<f64> {
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::click());
    let points = || series.iter().flat_map(|series| &series.points).filter(|(x, y)| x.is_finite() && y.is_finite());
    let (left, right) = span(points().map(|point| point.0));
    let (low, high) = span(points().map(|point| point.1));
    let empty = points().next().is_none();
    let text = if empty { format!("{name}: not known") } else { format!("{name}: {low:.3} to {high:.3}") };
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, &text));
    let painter = ui.painter().with_clip_rect(rect);
    let visuals = ui.visuals();
    let (ink, quiet) = (visuals.text_color(), visuals.weak_text_color());
    let plot = rect.shrink2(vec2(2.0, 13.0));
    let position = |(x, y): (f64, f64)| {
        let share =
            |value: f64, low: f64, high: f64| if high > low { ((value - low) / (high - low)) as f32 } else { 0.5 };
        pos2(plot.left() + plot.width() * share(x, left, right), plot.bottom() - plot.height() * share(y, low, high))
    };
    painter.rect_stroke(plot, 2.0, Stroke::new(0.5, quiet), StrokeKind::Outside);
    for (number, line) in series.iter().enumerate() {
        let (r, g, b) = COLORS[number % COLORS.len()];
        let color = Color32::from_rgb(r, g, b);
        // The colors are made for white paper.
        let color = if visuals.dark_mode { color.lerp_to_gamma(Color32::WHITE, 0.5) } else { color };
        let color = if line.strong { color } else { color.gamma_multiply(0.45) };
        let finite = line.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite());
        let path: Vec<_> = finite.map(position).collect();
        if let [only] = path.as_slice() {
            painter.circle_filled(*only, 2.0, color);
        }
        painter.add(Shape::line(path, Stroke::new(if line.strong { 1.8 } else { 1.0 }, color)));
    }
    if let Some(at) = at.filter(|_| !empty) {
        let x = position((at, low)).x;
        painter.vline(x, plot.y_range(), Stroke::new(1.0, visuals.selection.stroke.color));
    }
    let font = FontId::proportional(10.0);
    painter.text(rect.left_top(), Align2::LEFT_TOP, &text, font.clone(), ink);
    if !empty {
        painter.text(rect.left_bottom(), Align2::LEFT_BOTTOM, format!("{left:.0}"), font.clone(), quiet);
        painter.text(rect.right_bottom(), Align2::RIGHT_BOTTOM, format!("step {right:.0}"), font, quiet);
    }
    let step = |x: f32| left + f64::from((x - plot.left()) / plot.width().max(1.0)) * (right - left);
    let clicked = response.clicked().then(|| response.interact_pointer_pos()).flatten().map(|at| step(at.x));
    if let Some(at) = response.hover_pos().filter(|_| !empty) {
        response.on_hover_ui(|ui| {
            let step = step(at.x);
            for series in series {
                let near = series.points.iter().min_by(|a, b| (a.0 - step).abs().total_cmp(&(b.0 - step).abs()));
                if let Some((x, y)) = near {
                    ui.label(format!("{} at step {x:.0}: {y:.4}", series.name));
                }
            }
        });
    }
    clicked
}

fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low <= high { (low, high) } else { (0.0, 0.0) }
}
