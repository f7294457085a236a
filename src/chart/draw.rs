//! The pictures of charts, by plotters.

use std::sync::Once;

use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::{Axis, Bars, Chart};
use crate::{Error, Result};

const FONT: &str = "built-in";

/// Heights and widths of [`Bars`] in pixels.
const BAR: i32 = 9;
const GAP: i32 = 9;
const HEAD: i32 = 44;
const TEXT: i32 = 400;
const PLOT: i32 = 460;

pub(super) fn chart(chart: &Chart, width: u32, height: u32) -> Result<Vec<u8>> {
    render_png(width, height, |pixels, size| chart.draw(pixels, size))
}

pub(super) fn bars(bars: &Bars) -> Result<Vec<u8>> {
    let group = bars.names.len().max(1) as i32 * BAR + GAP;
    let height = HEAD + 20 * bars.names.len() as i32 + group * bars.groups.len() as i32 + 40;
    render_png((TEXT + PLOT + 60) as u32, height.max(100) as u32, |pixels, size| bars.draw(pixels, size, group))
}

impl Chart {
    fn draw(&self, pixels: &mut [u8], size: (u32, u32)) -> Result<(), Box<dyn std::error::Error>> {
        let on_axes = |&(x, y): &(f64, f64)| {
            let point = (self.x.scaled(x), self.y.scaled(y));
            (point.0.is_finite() && point.1.is_finite()).then_some(point)
        };
        let points: Vec<Vec<(f64, f64)>> =
            self.series.iter().map(|series| series.points.iter().filter_map(on_axes).collect()).collect();
        let xs = range(points.iter().flatten().map(|point| point.0));
        let ys = range(points.iter().flatten().map(|point| point.1));

        let root = BitMapBackend::with_buffer(pixels, size).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(&self.title, (FONT, 20))
            .margin(14)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(xs, ys)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .axis_style(RGBColor(120, 120, 120))
            .label_style((FONT, 15))
            .axis_desc_style((FONT, 16))
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .x_label_formatter(&|v| self.x.tick(*v))
            .y_label_formatter(&|v| self.y.tick(*v))
            .draw()?;
        for (series, points) in self.series.iter().zip(points) {
            let color = RGBColor(series.color.0, series.color.1, series.color.2);
            if series.line {
                chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
            }
            let dots = chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, color.filled())))?;
            if !series.name.is_empty() {
                dots.label(&series.name).legend(move |(x, y)| Circle::new((x + 10, y), 4, color.filled()));
            }
        }
        if self.series.iter().any(|series| !series.name.is_empty()) {
            chart
                .configure_series_labels()
                .label_font((FONT, 15))
                .background_style(WHITE.mix(0.85))
                .border_style(RGBColor(200, 200, 200))
                .draw()?;
        }
        root.present()?;
        Ok(())
    }
}

impl Bars {
    fn draw(&self, pixels: &mut [u8], size: (u32, u32), group: i32) -> Result<(), Box<dyn std::error::Error>> {
        let root = BitMapBackend::with_buffer(pixels, size).into_drawing_area();
        root.fill(&WHITE)?;
        let logs = self.groups.iter().flat_map(|(_, bars)| bars).flatten().map(|v| v.log10()).filter(|v| v.is_finite());
        let shown = range(logs.chain([-0.05, 0.05]));
        let x = |log: f64| TEXT + ((log - shown.start) / (shown.end - shown.start) * f64::from(PLOT)) as i32;
        let text = |size: u32| (FONT, size).into_font().color(&BLACK);
        root.draw(&Text::new(self.title.as_str(), (14, 12), text(20)))?;
        let color = |i: usize| self.colors.get(i).map_or(RGBColor(0, 0, 0), |c| RGBColor(c.0, c.1, c.2));
        let mut top = HEAD;
        for (i, name) in self.names.iter().enumerate() {
            root.draw(&Rectangle::new([(14, top + 3), (26, top + 13)], color(i).filled()))?;
            root.draw(&Text::new(name.as_str(), (32, top), text(15)))?;
            top += 20;
        }
        top += 6;
        let bottom = top + group * self.groups.len() as i32;
        for tick in shown.start.ceil() as i32..=shown.end.floor() as i32 {
            let at = x(f64::from(tick));
            let grey = if tick == 0 { RGBColor(90, 90, 90) } else { RGBColor(220, 220, 220) };
            root.draw(&PathElement::new([(at, top - 4), (at, bottom)], grey.stroke_width(1)))?;
            root.draw(&Text::new(Axis::log("").tick(f64::from(tick)), (at - 6, bottom + 4), text(14)))?;
        }
        for (label, bars) in &self.groups {
            let middle = top + (group - GAP) / 2 - 8;
            root.draw(&Text::new(label.as_str(), (14, middle), text(14)))?;
            for (i, bar) in bars.iter().enumerate() {
                let at = top + i as i32 * BAR;
                if let Some(log) = bar.map(f64::log10).filter(|log| log.is_finite()) {
                    let (left, right) = (x(log.min(0.0)), x(log.max(0.0)).max(x(log.min(0.0)) + 1));
                    root.draw(&Rectangle::new([(left, at), (right, at + BAR - 2)], color(i).filled()))?;
                }
            }
            top += group;
        }
        root.present()?;
        Ok(())
    }
}

/// The bytes of a PNG file, `width` by `height` pixels, as `draw` colors them.
fn render_png(
    width: u32,
    height: u32,
    draw: impl FnOnce(&mut [u8], (u32, u32)) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<Vec<u8>> {
    if ![width, height].iter().all(|side| (100..=10_000).contains(side)) {
        return Err(Error::Request(format!("a picture of {width} by {height} pixels: 100 to 10,000 are possible")));
    }
    register();
    let mut pixels = vec![255; width as usize * height as usize * 3];
    draw(&mut pixels, (width, height)).map_err(|e| Error::Drawing(format!("drawing: {e}")))?;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&pixels));
    written.map_err(|e| Error::Drawing(format!("writing a PNG: {e}")))?;
    Ok(bytes)
}

/// From the smallest to the largest number, with a margin.
fn range(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    match (low <= high, high - low) {
        (false, _) => 0.0..1.0,
        (true, span) if span > 0.0 => low - 0.04 * span..high + 0.04 * span,
        _ => low - 0.5..low + 0.5,
    }
}

fn register() {
    static ONCE: Once = Once::new();
    // Without a font, drawing returns an error.
    ONCE.call_once(|| drop(register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)));
}
