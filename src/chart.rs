//! Charts as PNG pictures: lines and dots over two axes, linear or logarithmic. Needs no font and
//! no system library.

#[cfg(feature = "plots")]
mod draw;
#[cfg(not(feature = "plots"))]
#[path = "chart/no_plots.rs"]
mod draw;

use std::path::Path;

use crate::files::write_atomic;
use crate::{Error, Result};

/// A chart of lines and dots.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The caption.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The series, the last on top.
    pub series: Vec<Series>,
}

/// An axis of a chart.
#[derive(Clone, Debug)]
pub struct Axis {
    /// The label.
    pub label: String,
    /// Whether the axis is logarithmic. Numbers that are not above 0 are then left out.
    pub log: bool,
}

/// Points of one color.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend; empty if it is not in the legend.
    pub name: String,
    /// Red, green, blue.
    pub color: (u8, u8, u8),
    /// Whether lines join the points.
    pub line: bool,
    /// The points. Those that are not finite are not drawn.
    pub points: Vec<(f64, f64)>,
}

/// Colors that differ on white and for most color-blind eyes.
pub const COLORS: [(u8, u8, u8); 6] =
    [(31, 78, 140), (192, 96, 43), (90, 143, 60), (136, 86, 160), (110, 110, 110), (200, 160, 30)];

impl Chart {
    /// The chart as the bytes of a PNG file, `width` by `height` pixels.
    ///
    /// # Errors
    /// Returns [`Error::Request`] for less than 100 or more than 10,000 pixels in either direction,
    /// and [`Error::Drawing`].
    pub fn png(&self, width: u32, height: u32) -> Result<Vec<u8>> {
        draw::chart(self, width, height)
    }

    /// Writes the chart to a file, 900 by 560 pixels.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be written, and [`Error::Drawing`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = self.png(900, 560)?;
        write_atomic(path, |out| out.write_all(&bytes).map_err(|e| Error::io(path, e)))
    }
}

/// Groups of horizontal bars on a logarithmic axis, for ratios.
#[derive(Clone, Debug)]
pub struct Bars {
    /// The caption.
    pub title: String,
    /// The names of the bars of a group.
    pub names: Vec<String>,
    /// Their colors.
    pub colors: Vec<(u8, u8, u8)>,
    /// The titles of groups and their bars, in the order of the names; a bar can be missing.
    pub groups: Vec<(String, Vec<Option<f64>>)>,
}

impl Bars {
    /// Writes the picture to a PNG file, as high as it needs to be.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        let bytes = self.png()?;
        write_atomic(path, |out| out.write_all(&bytes).map_err(|e| Error::io(path, e)))
    }

    /// The bytes of a PNG file.
    ///
    /// # Errors
    /// Returns [`Error::Request`] for more bars than fit into 10,000 pixels, and
    /// [`Error::Drawing`].
    pub fn png(&self) -> Result<Vec<u8>> {
        draw::bars(self)
    }
}

impl Axis {
    /// A linear axis.
    pub fn linear(label: impl Into<String>) -> Self {
        Self { label: label.into(), log: false }
    }

    /// A logarithmic axis.
    pub fn log(label: impl Into<String>) -> Self {
        Self { label: label.into(), log: true }
    }

    #[cfg(feature = "plots")]
    fn scaled(&self, v: f64) -> f64 {
        if self.log { v.log10() } else { v }
    }

    #[cfg(feature = "plots")]
    fn tick(&self, v: f64) -> String {
        let v = if self.log { 10f64.powf(v) } else { v };
        match v.abs() {
            0.0 => "0".into(),
            size if !(1e-3..1e6).contains(&size) => format!("{v:.1e}"),
            size if size >= 100.0 => format!("{v:.0}"),
            // Three digits, without the zeros at their end.
            size => {
                let text = format!("{v:.*}", (2.0 - size.log10().floor()).clamp(0.0, 5.0) as usize);
                text.trim_end_matches('0').trim_end_matches('.').to_string()
            }
        }
    }
}
