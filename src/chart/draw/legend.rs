//! The legend, which is next to the plot or below it, never in it.

use super::svg::{Anchor, Look, Svg};
use super::{LINE, MARGIN, SMALL, text};
use crate::Result;
use crate::chart::Series;

/// The width of the drawn sample, and the space after it.
const SAMPLE: f64 = 34.0;
const GAP: f64 = 7.0;
/// The space between columns.
const COLUMN: f64 = 18.0;

pub(super) struct Legend<'a> {
    entries: Vec<(&'a Series, String)>,
    /// The width of the widest entry.
    width: f64,
    columns: usize,
    /// Whether it is next to the plot, at its right.
    pub right: bool,
}

impl<'a> Legend<'a> {
    /// Of the series with a name, those in the background last, in a picture `width` wide whose plot is `height` high.
    pub(super) fn new(series: &'a [Series], width: f64, height: f64) -> Result<Self> {
        let room = width - 2.0 * MARGIN - SAMPLE - GAP;
        let mut entries = Vec::new();
        let mut widest = 0.0f64;
        let named = |faint: bool| series.iter().filter(move |series| !series.name.is_empty() && series.faint == faint);
        for series in named(false).chain(named(true)) {
            let name = text::shortened(&series.name, SMALL, room)?;
            widest = widest.max(text::width(&name, SMALL)?);
            entries.push((series, name));
        }
        let right = SAMPLE + GAP + widest <= 0.3 * width && entries.len() as f64 * LINE <= height;
        let widest = SAMPLE + GAP + widest;
        let fit = (((width - 2.0 * MARGIN + COLUMN) / (widest + COLUMN)) as usize).max(1);
        // Columns of one height, and no more of them than that takes.
        let rows = entries.len().div_ceil(fit).max(1);
        let columns = if right { 1 } else { entries.len().div_ceil(rows).max(1) };
        Ok(Self { entries, width: widest, columns, right })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What the plot loses at its right.
    pub(super) fn width_at_right(&self) -> f64 {
        if self.right && !self.is_empty() { self.width + MARGIN } else { 0.0 }
    }

    /// What is added below the plot.
    pub(super) fn below(&self) -> f64 {
        let rows = self.entries.len().div_ceil(self.columns.max(1));
        if self.right || self.is_empty() { 0.0 } else { rows as f64 * LINE + MARGIN / 2.0 }
    }

    /// Draws it with its upper left corner at `left` and `top`.
    pub(super) fn draw(&self, svg: &mut Svg, (left, top): (f64, f64)) -> Result<()> {
        let rows = self.entries.len().div_ceil(self.columns.max(1)).max(1);
        for (at, (series, name)) in self.entries.iter().enumerate() {
            let x = left + (at / rows) as f64 * (self.width + COLUMN);
            let y = top + ((at % rows) as f64 + 0.5) * LINE;
            let look = Look { style: series.style, faint: series.faint };
            if !series.band.is_empty() {
                let (up, down) = (y - 5.0, y + 5.0);
                svg.band(&[(x, up), (x + SAMPLE, up), (x + SAMPLE, down), (x, down)], look);
            }
            if series.line {
                svg.polyline(&[(x, y), (x + SAMPLE, y)], look);
            }
            svg.marker((x + SAMPLE / 2.0, y), look);
            svg.text(name, SMALL, (x + SAMPLE + GAP, y + 0.35 * SMALL), Anchor::Start, 0.0)?;
        }
        Ok(())
    }
}
