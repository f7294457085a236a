//! Charts as PNG, SVG and PDF: lines, dots, spreads and bars. Needs no font and no system library.
//!
//! A chart is laid out once, as SVG. PNG and PDF are made of that SVG, so that all three show the
//! same.

#[cfg(feature = "plots")]
mod draw;
#[cfg(not(feature = "plots"))]
#[path = "chart/no_plots.rs"]
mod draw;

use std::path::{Path, PathBuf};

use crate::files::{is_stdout, write_atomic};
use crate::{Error, Result};

/// The kinds of pictures, which are also the files' extensions.
pub const FORMATS: [&str; 3] = ["png", "svg", "pdf"];

/// Width and height of [`Chart::save`] in units of 1/96 inch: as wide as the text of a paper.
const SIZE: (f64, f64) = (672.0, 420.0);

/// Red, green and blue of the styles 0, 1, …
///
/// Any two of them are at least 20 apart (CIEDE2000) for eyes with and without protanopia,
/// deuteranopia and tritanopia, and each has a contrast of at least 4.5 on white.
pub const COLORS: [(u8, u8, u8); 6] =
    [(3, 118, 223), (193, 79, 120), (1, 62, 2), (126, 121, 0), (0, 0, 200), (56, 43, 53)];

/// Series over two axes.
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
    /// The label, with the unit.
    pub label: String,
    /// Whether the axis is logarithmic. Numbers that are not above 0 are then left out.
    pub log: bool,
    /// What stands at 0, 1, 2, … in place of numbers; empty for numbers.
    pub names: Vec<String>,
}

/// Points of one look.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its name in the legend; empty if it is not in the legend.
    pub name: String,
    /// Which color, marker and dashes; 36 differ.
    pub style: usize,
    /// Whether it stays in the background: pale and thin.
    pub faint: bool,
    /// Whether lines join the points.
    pub line: bool,
    /// The points. Those that are not finite are not drawn.
    pub points: Vec<(f64, f64)>,
    /// The spread around the points, as x, lowest and highest y.
    pub band: Vec<(f64, f64, f64)>,
}

/// Groups of horizontal bars on a logarithmic axis, for ratios.
#[derive(Clone, Debug, Default)]
pub struct Bars {
    /// The caption.
    pub title: String,
    /// What 1 stands for, and the label of the axis.
    pub baseline: String,
    /// The names of the bars of a group.
    pub names: Vec<String>,
    /// The titles of groups and their bars, in the order of the names; a bar can be missing.
    pub groups: Vec<(String, Vec<Option<Bar>>)>,
}

/// A bar from 1 to a ratio.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Where it ends; without a finite logarithm, there is only the text.
    pub ratio: f64,
    /// What stands at its end.
    pub text: String,
}

/// A chart that has been laid out.
#[derive(Clone, Debug)]
pub struct Picture {
    title: String,
    svg: String,
}

impl Chart {
    /// Lays the chart out in `width` by `height` units of 1/96 inch. A legend with long names is
    /// below the chart, and makes the picture higher.
    ///
    /// # Errors
    /// Returns [`Error::Request`] for less than 200 or more than 10,000 units in either direction,
    /// and [`Error::Drawing`].
    pub fn draw(&self, width: f64, height: f64) -> Result<Picture> {
        if ![width, height].iter().all(|side| (200.0..=10_000.0).contains(side)) {
            return Err(Error::Request(format!("a picture of {width} by {height}: 200 to 10,000 are possible")));
        }
        Ok(Picture { title: self.title.clone(), svg: draw::chart(self, width, height)? })
    }

    /// Writes the chart to a file whose extension is one of [`FORMATS`], 7 inches wide.
    ///
    /// # Errors
    /// Those of [`Picture::save`] and [`Chart::draw`].
    pub fn save(&self, path: &Path) -> Result<()> {
        self.draw(SIZE.0, SIZE.1)?.save(path)
    }
}

impl Bars {
    /// Lays the bars out, 9 inches wide and as high as it needs to be.
    ///
    /// # Errors
    /// Returns [`Error::Request`] for more bars than fit into 10,000 units of 1/96 inch, and
    /// [`Error::Drawing`].
    pub fn draw(&self) -> Result<Picture> {
        Ok(Picture { title: self.title.clone(), svg: draw::bars(self)? })
    }
}

impl Picture {
    /// The text of an SVG file. Its text is text, set in the width that it has in [`Picture::png`].
    pub fn svg(&self) -> &str {
        &self.svg
    }

    /// The bytes of a PNG file with 300 pixels an inch, or fewer where a side would have more than
    /// 10,000.
    ///
    /// # Errors
    /// Returns [`Error::Drawing`].
    pub fn png(&self) -> Result<Vec<u8>> {
        draw::png(&self.svg)
    }

    /// The bytes of a PDF file of one page, whose text is drawn as outlines, so that it needs no
    /// fonts.
    ///
    /// # Errors
    /// Returns [`Error::Drawing`].
    pub fn pdf(&self) -> Result<Vec<u8>> {
        draw::pdf(&self.title, &self.svg)
    }

    /// Writes the picture to a file whose extension is one of [`FORMATS`]. The standard output, a
    /// pipe or a device without extension receives a PNG.
    ///
    /// # Errors
    /// Returns [`Error::Request`] for another extension, [`Error::Io`] if the file cannot be
    /// written, and [`Error::Drawing`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = match format_of(path)? {
            "svg" => self.svg.clone().into_bytes(),
            "pdf" => self.pdf()?,
            _ => self.png()?,
        };
        write_atomic(path, |out| out.write_all(&bytes).map_err(|e| Error::io(path, e)))
    }
}

/// The file of a picture, for command lines.
///
/// # Errors
/// Returns [`Error::Request`] if its extension is none of [`FORMATS`].
pub fn picture_file(path: &str) -> Result<PathBuf> {
    let path = PathBuf::from(path);
    format_of(&path)?;
    Ok(path)
}

fn format_of(path: &Path) -> Result<&'static str> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    let file = || path.metadata().map_or(true, |about| about.is_file() || about.is_dir());
    if is_stdout(path) || (extension.is_none() && !file()) {
        return Ok("png");
    }
    let named = FORMATS.into_iter().find(|format| extension.as_deref() == Some(format));
    named.ok_or_else(|| {
        let known = FORMATS.map(|format| format!(".{format}")).join(", ");
        Error::Request(format!("{}: charts are written to files that end in {known}", path.display()))
    })
}

impl Axis {
    /// A linear axis.
    pub fn linear(label: impl Into<String>) -> Self {
        Self { label: label.into(), log: false, names: Vec::new() }
    }

    /// A logarithmic axis.
    pub fn log(label: impl Into<String>) -> Self {
        Self { log: true, ..Self::linear(label) }
    }

    /// An axis with names at 0, 1, 2, …
    pub fn named(label: impl Into<String>, names: impl IntoIterator<Item = String>) -> Self {
        Self { names: names.into_iter().collect(), ..Self::linear(label) }
    }
}

impl Series {
    /// Points that lines join.
    pub fn line(name: impl Into<String>, style: usize, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), style, line: true, points, ..Self::default() }
    }

    /// The mean over runs at each x, and the lowest and highest value around it; one run alone as it
    /// is. Where not all runs have an x, the mean is of those that do.
    pub fn spread(name: impl Into<String>, style: usize, runs: &[Vec<(f64, f64)>]) -> Self {
        if let [only] = runs {
            return Self::line(name, style, only.clone());
        }
        let mut points = runs.concat();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut means, mut band) = (Vec::new(), Vec::new());
        for same in points.chunk_by(|a, b| a.0 == b.0) {
            let values = || same.iter().map(|point| point.1);
            means.push((same[0].0, values().sum::<f64>() / same.len() as f64));
            band.push((same[0].0, values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max)));
        }
        Self::line(name, style, means).band(band)
    }

    /// Points alone.
    pub fn dots(name: impl Into<String>, style: usize, points: Vec<(f64, f64)>) -> Self {
        Self { line: false, ..Self::line(name, style, points) }
    }

    /// The series in the background.
    #[must_use]
    pub fn faint(self) -> Self {
        Self { faint: true, ..self }
    }

    /// The series with a spread around it: x, lowest and highest y.
    #[must_use]
    pub fn band(self, band: Vec<(f64, f64, f64)>) -> Self {
        Self { band, ..self }
    }
}
