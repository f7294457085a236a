//! The layout of lines, dots and spreads over two axes.

use super::legend::Legend;
use super::svg::{AXIS, Anchor, GRID, Look, Svg};
use super::{LABEL, LINE, MARGIN, SMALL, TITLE, text, ticks};
use crate::Result;
use crate::chart::{Axis, Chart, Series};

/// From the axis to the texts of its ticks.
const GAP: f64 = 7.0;
/// Least distances of ticks.
const TICK_X: f64 = 72.0;
const TICK_Y: f64 = 36.0;
/// The longest name of a tick.
const NAME: f64 = 130.0;
/// A line with more points than this has markers at some of them, one in each part of the width.
const MARKERS: usize = 24;
const SLOTS: u32 = 8;

/// A position on an axis.
struct Scale<'a> {
    axis: &'a Axis,
    /// The ends, logarithms where the axis is logarithmic.
    low: f64,
    high: f64,
}

impl<'a> Scale<'a> {
    fn new(axis: &'a Axis, values: impl Iterator<Item = f64>) -> Self {
        if !axis.names.is_empty() {
            return Self { axis, low: -0.5, high: axis.names.len() as f64 - 0.5 };
        }
        let scaled = values.filter_map(|v| scaled(axis, v));
        let (low, high) = scaled.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let (low, high) = match () {
            () if low > high => (0.0, 1.0),
            () if high > low => {
                let margin = 0.04 * (high - low);
                // An axis of numbers above 0 does not go below it.
                let floor = if low > 0.0 && !axis.log { 0.0 } else { f64::NEG_INFINITY };
                ((low - margin).max(floor), high + margin)
            }
            () => {
                let margin = if axis.log || low == 0.0 { 0.5 } else { 0.1 * low.abs() };
                (low - margin, high + margin)
            }
        };
        Self { axis, low, high }
    }

    /// How far along the axis a number is: 0 to 1.
    fn share(&self, v: f64) -> Option<f64> {
        scaled(self.axis, v).map(|v| (v - self.low) / (self.high - self.low))
    }

    /// Ticks that are at least `distance` apart on `length`, and their texts.
    fn ticks(&self, length: f64, distance: f64) -> Result<Vec<(f64, String)>> {
        if !self.axis.names.is_empty() {
            let every = (distance * self.axis.names.len() as f64 / length).ceil().max(1.0) as usize;
            let names = self.axis.names.iter().enumerate().step_by(every);
            return names.map(|(at, name)| Ok((at as f64, text::shortened(name, SMALL, NAME)?))).collect();
        }
        let most = ((length / distance) as usize).max(2);
        let ticks = match self.axis.log {
            true => ticks::log(10f64.powf(self.low), 10f64.powf(self.high), most),
            false => ticks::linear(self.low, self.high, most),
        };
        let labels = ticks::labels(&ticks, self.axis.log);
        Ok(ticks.into_iter().zip(labels).collect())
    }
}

fn scaled(axis: &Axis, v: f64) -> Option<f64> {
    Some(if axis.log { v.log10() } else { v }).filter(|v| v.is_finite())
}

/// The area of the axes.
#[derive(Clone, Copy)]
struct Plot {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

pub(in crate::chart) fn chart(chart: &Chart, width: f64, height: f64) -> Result<String> {
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let bands = || chart.series.iter().flat_map(|series| &series.band);
    let drawn = |x: f64, y: f64| scaled(&chart.x, x).is_some() && scaled(&chart.y, y).is_some();
    let xs = points().filter(|p| drawn(p.0, p.1)).map(|p| p.0).chain(bands().filter(|b| drawn(b.0, b.1)).map(|b| b.0));
    let ends = bands().flat_map(|&(x, low, high)| [(x, low), (x, high)]);
    let ys = points().copied().chain(ends).filter(|&(x, y)| drawn(x, y)).map(|p| p.1);
    let (x, y) = (Scale::new(&chart.x, xs), Scale::new(&chart.y, ys));

    let title = text::wrapped(&chart.title, TITLE, width - 2.0 * MARGIN, 3)?;
    let top = MARGIN + title.len() as f64 * (TITLE + 4.0) + 6.0;
    let legend = Legend::new(&chart.series, width, height - top - 60.0)?;
    let y_ticks = y.ticks(height - top - 60.0, TICK_Y)?;
    let mut widest = 0.0f64;
    for (_, label) in &y_ticks {
        widest = widest.max(text::width(label, SMALL)?);
    }
    let left = MARGIN + LABEL + 8.0 + widest + GAP;
    let right = (2.0 * MARGIN).max(legend.width_at_right() + MARGIN);
    let plot_width = (width - left - right).max(20.0);
    let x_ticks = x.ticks(plot_width, if chart.x.names.is_empty() { TICK_X } else { LINE })?;
    let mut longest = 0.0f64;
    for (_, label) in &x_ticks {
        longest = longest.max(text::width(label, SMALL)?);
    }
    let turned = !chart.x.names.is_empty() && longest > plot_width / x_ticks.len().max(1) as f64 - 8.0;
    let names = if turned { longest.mul_add(0.71, SMALL) } else { SMALL };
    let bottom = GAP + names + 8.0 + LABEL + MARGIN;
    let plot = Plot { left, top, width: plot_width, height: (height - top - bottom).max(20.0) };

    let mut svg = Svg::default();
    for (number, line) in title.iter().enumerate() {
        let baseline = MARGIN + TITLE + number as f64 * (TITLE + 4.0);
        svg.text(line, TITLE, (MARGIN, baseline), Anchor::Start, 0.0)?;
    }
    plot.axes(&mut svg, (&x, &x_ticks, turned), (&y, &y_ticks))?;
    let (middle, base) = (plot.left + plot.width / 2.0, plot.bottom() + bottom - MARGIN - 2.0);
    svg.text(&text::shortened(&chart.x.label, LABEL, plot.width)?, LABEL, (middle, base), Anchor::Middle, 0.0)?;
    let at = (MARGIN + LABEL - 2.0, plot.top + plot.height / 2.0);
    svg.text(&text::shortened(&chart.y.label, LABEL, plot.height)?, LABEL, at, Anchor::Middle, -90.0)?;
    let lines = chart.series.iter().filter(|series| series.line).count();
    let mut line = 0;
    for series in &chart.series {
        plot.series(&mut svg, series, &x, &y, (line, lines));
        line += usize::from(series.line);
    }
    let corner =
        if legend.right { (plot.left + plot.width + MARGIN, plot.top) } else { (MARGIN, height - MARGIN / 2.0) };
    legend.draw(&mut svg, corner)?;
    Ok(svg.finish(&chart.title, width, height + legend.below()))
}

impl Plot {
    fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// Where a point is; nothing if it cannot be drawn.
    fn at(&self, x: &Scale, y: &Scale, point: (f64, f64)) -> Option<(f64, f64)> {
        let (across, up) = (x.share(point.0)?, y.share(point.1)?);
        Some((self.left + across * self.width, self.bottom() - up * self.height))
    }

    fn axes(
        &self,
        svg: &mut Svg,
        (x, x_ticks, turned): (&Scale, &[(f64, String)], bool),
        (y, y_ticks): (&Scale, &[(f64, String)]),
    ) -> Result<()> {
        let (right, bottom) = (self.left + self.width, self.bottom());
        for (value, label) in y_ticks {
            let at = bottom - y.share(*value).unwrap_or_default() * self.height;
            svg.rule((self.left, at), (right, at), GRID);
            svg.text(label, SMALL, (self.left - GAP, at + 0.35 * SMALL), Anchor::End, 0.0)?;
        }
        for (value, label) in x_ticks {
            let at = self.left + x.share(*value).unwrap_or_default() * self.width;
            svg.rule((at, self.top), (at, bottom), GRID);
            svg.rule((at, bottom), (at, bottom + 4.0), AXIS);
            if turned {
                svg.text(label, SMALL, (at + 0.35 * SMALL, bottom + GAP + 5.0), Anchor::End, -45.0)?;
            } else {
                svg.text(label, SMALL, (at, bottom + GAP + SMALL - 1.0), Anchor::Middle, 0.0)?;
            }
        }
        svg.rule((self.left, self.top), (self.left, bottom), AXIS);
        svg.rule((self.left, bottom), (right, bottom), AXIS);
        Ok(())
    }

    /// Draws a series, which is line `number` of so many.
    fn series(&self, svg: &mut Svg, series: &Series, x: &Scale, y: &Scale, (number, lines): (usize, usize)) {
        let look = Look { style: series.style, faint: series.faint };
        let ends: Vec<_> = series
            .band
            .iter()
            .filter_map(|&(at, low, high)| Some((self.at(x, y, (at, low))?, self.at(x, y, (at, high))?)))
            .collect();
        if ends.len() > 1 {
            let lower = ends.iter().map(|ends| ends.0);
            svg.band(&ends.iter().map(|ends| ends.1).chain(lower.rev()).collect::<Vec<_>>(), look);
        }
        let points: Vec<_> = series.points.iter().filter_map(|&point| self.at(x, y, point)).collect();
        if series.line && points.len() > 1 {
            svg.polyline(&thinned(&points), look);
        }
        if series.line && series.faint && points.len() > 1 {
            return;
        }
        if !series.line || points.len() <= MARKERS {
            points.iter().for_each(|&point| svg.marker(point, look));
            return;
        }
        // Lines of many points have markers at different places.
        for slot in 0..SLOTS {
            let share = (number as f64 + 0.5) / lines.max(1) as f64;
            let x = self.left + self.width * (f64::from(slot) + share) / f64::from(SLOTS);
            let near = points.iter().min_by(|a, b| (a.0 - x).abs().total_cmp(&(b.0 - x).abs()));
            if let Some(&point) = near.filter(|point| (point.0 - x).abs() < self.width / f64::from(2 * SLOTS)) {
                svg.marker(point, look);
            }
        }
    }
}

/// The first, lowest, highest and last point of each half unit across, where there are more: a line
/// through them looks the same.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let column = |point: &(f64, f64)| (point.0 * 2.0).floor();
    let mut kept = Vec::new();
    for same in points.chunk_by(|a, b| column(a) == column(b)) {
        if same.len() <= 4 {
            kept.extend(same);
            continue;
        }
        let extreme = |sign: f64| (0..same.len()).max_by(|&a, &b| (sign * same[a].1).total_cmp(&(sign * same[b].1)));
        let mut at =
            [Some(0), extreme(1.0), extreme(-1.0), Some(same.len() - 1)].into_iter().flatten().collect::<Vec<_>>();
        at.sort_unstable();
        at.dedup();
        kept.extend(at.into_iter().map(|at| same[at]));
    }
    kept
}
