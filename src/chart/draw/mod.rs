//! Charts as SVG, and SVG as PNG and PDF.

mod bars;
mod chart;
mod legend;
mod pdf;
mod svg;
mod text;
mod ticks;

pub(super) use bars::bars;
pub(super) use chart::chart;
pub(super) use pdf::pdf;

use resvg::tiny_skia::{Color, Pixmap, Transform};

use crate::{Error, Result};

/// Units of layout and pixels in an inch.
const UNITS: f32 = 96.0;
const PIXELS: f32 = 300.0;
/// A picture has no more pixels than this in either direction.
const MOST: f32 = 10_000.0;

/// Space around the picture.
const MARGIN: f64 = 12.0;
/// Heights of text.
const TITLE: f64 = 16.0;
const LABEL: f64 = 13.5;
const SMALL: f64 = 12.5;
/// From one line of small text to the next.
const LINE: f64 = 18.0;

pub(super) fn png(svg: &str) -> Result<Vec<u8>> {
    let tree = text::parse(svg)?;
    let (width, height) = (tree.size().width(), tree.size().height());
    let scale = (PIXELS / UNITS).min(MOST / width.max(height));
    let pixels = |side: f32| (side * scale).round().max(1.0) as u32;
    let (width, height) = (pixels(width), pixels(height));
    let failed = |message: String| Error::Drawing(format!("writing a PNG: {message}"));
    let mut picture = Pixmap::new(width, height).ok_or_else(|| failed("it is too large".into()))?;
    picture.fill(Color::WHITE);
    resvg::render(&tree, Transform::from_scale(scale, scale), &mut picture.as_mut());
    // Nothing is transparent on white.
    let rgb: Vec<u8> = picture.data().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let a_metre = (scale * UNITS / 0.0254).round() as u32;
    encoder.set_pixel_dims(Some(png::PixelDimensions { xppu: a_metre, yppu: a_metre, unit: png::Unit::Meter }));
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(&rgb));
    written.map_err(|e| failed(e.to_string()))?;
    Ok(bytes)
}
