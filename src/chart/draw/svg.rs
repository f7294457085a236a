//! SVG elements, as text.

use std::fmt::Write as _;

use super::text::{self, FAMILIES};
use crate::Result;
use crate::chart::COLORS;
use crate::files::escape_xml;

/// The color of text, and of nothing else.
pub(super) const INK: &str = "#222";
/// The color of axes.
pub(super) const AXIS: &str = "#666";
/// The color of the lines at ticks.
pub(super) const GRID: &str = "#e4e4e4";

/// Where a text begins, or what of it is at its position.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// How a series looks.
#[derive(Clone, Copy)]
pub(super) struct Look {
    pub style: usize,
    pub faint: bool,
}

impl Look {
    pub(super) fn color(self) -> String {
        let (r, g, b) = COLORS[self.style % COLORS.len()];
        format!("#{r:02x}{g:02x}{b:02x}")
    }

    fn dashes(self) -> &'static str {
        const DASHES: [&str; COLORS.len()] = ["", "7 3", "2 2", "9 3 2 3", "14 3", "9 3 2 3 2 3"];
        DASHES[self.shifted()]
    }

    /// Styles of one color differ in their dashes and markers.
    fn shifted(self) -> usize {
        (self.style + self.style / COLORS.len()) % COLORS.len()
    }

    fn opacity(self) -> &'static str {
        if self.faint { "0.4" } else { "1" }
    }
}

/// Elements of a picture; positions in units of 1/96 inch, from the left and from the top.
#[derive(Default)]
pub(super) struct Svg {
    elements: String,
}

impl Svg {
    /// The whole file.
    pub(super) fn finish(self, title: &str, width: f64, height: f64) -> String {
        let (w, h) = (number(width), number(height));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" role=\"img\" \
             font-family=\"{FAMILIES}\" fill=\"{INK}\">\n<title>{}</title>\n<rect width=\"{w}\" height=\"{h}\" \
             fill=\"#fff\"/>\n{}</svg>\n",
            escape_xml(title),
            self.elements
        )
    }

    fn push(&mut self, element: std::fmt::Arguments) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.elements, "{element}");
    }

    /// A straight line of an axis or a grid.
    pub(super) fn rule(&mut self, from: (f64, f64), to: (f64, f64), color: &str) {
        let [x1, y1, x2, y2] = [from.0, from.1, to.0, to.1].map(number);
        self.push(format_args!("<path d=\"M{x1} {y1}L{x2} {y2}\" stroke=\"{color}\"/>"));
    }

    pub(super) fn polyline(&mut self, points: &[(f64, f64)], look: Look) {
        let width = if look.faint { "1.2" } else { "1.8" };
        let dashes = look.dashes();
        let dashes = if dashes.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dashes}\"") };
        self.push(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\" stroke-opacity=\"{}\" \
             stroke-linejoin=\"round\"{dashes}/>",
            list(points),
            look.color(),
            look.opacity()
        ));
    }

    /// A filled area around a line.
    pub(super) fn band(&mut self, points: &[(f64, f64)], look: Look) {
        self.push(format_args!(
            "<polygon points=\"{}\" fill=\"{}\" fill-opacity=\"0.18\"/>",
            list(points),
            look.color()
        ));
    }

    pub(super) fn rect(&mut self, (left, top): (f64, f64), (width, height): (f64, f64), color: &str) {
        let [x, y, w, h] = [left, top, width, height].map(number);
        self.push(format_args!("<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" fill=\"{color}\"/>"));
    }

    pub(super) fn marker(&mut self, (x, y): (f64, f64), look: Look) {
        let size = if look.faint { 0.75 } else { 1.0 };
        let rest = format!(
            "fill=\"{}\" fill-opacity=\"{}\" stroke=\"#fff\" stroke-width=\"0.7\"",
            look.color(),
            look.opacity()
        );
        if look.shifted() == 0 {
            return self.push(format_args!(
                "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" {rest}/>",
                number(x),
                number(y),
                3.4 * size
            ));
        }
        let corners: &[(f64, f64)] = match look.shifted() {
            1 => &[(-3.0, -3.0), (3.0, -3.0), (3.0, 3.0), (-3.0, 3.0)],
            2 => &[(0.0, -4.0), (3.8, 3.0), (-3.8, 3.0)],
            3 => &[(0.0, -4.4), (4.4, 0.0), (0.0, 4.4), (-4.4, 0.0)],
            4 => &[(0.0, 4.0), (3.8, -3.0), (-3.8, -3.0)],
            _ => &[
                (-1.3, -4.0),
                (1.3, -4.0),
                (1.3, -1.3),
                (4.0, -1.3),
                (4.0, 1.3),
                (1.3, 1.3),
                (1.3, 4.0),
                (-1.3, 4.0),
                (-1.3, 1.3),
                (-4.0, 1.3),
                (-4.0, -1.3),
                (-1.3, -1.3),
            ],
        };
        let corners: Vec<_> = corners.iter().map(|(dx, dy)| (x + dx * size, y + dy * size)).collect();
        self.push(format_args!("<polygon points=\"{}\" {rest}/>", list(&corners)));
    }

    /// A line of text whose baseline is at `at`, turned by `turn` degrees around it.
    pub(super) fn text(&mut self, text: &str, size: f64, at: (f64, f64), anchor: Anchor, turn: f64) -> Result<()> {
        if text.trim().is_empty() {
            return Ok(());
        }
        let (x, y, width) = (number(at.0), number(at.1), number(text::width(text, size)?));
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let turn = if turn == 0.0 { String::new() } else { format!(" transform=\"rotate({turn} {x} {y})\"") };
        // Where a viewer has other fonts, the layout stays.
        self.push(format_args!(
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" textLength=\"{width}\" \
             lengthAdjust=\"spacingAndGlyphs\"{anchor}{turn}>{}</text>",
            escape_xml(text)
        ));
        Ok(())
    }
}

/// Two decimals at most.
fn number(v: f64) -> String {
    let text = format!("{v:.2}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}

fn list(points: &[(f64, f64)]) -> String {
    points.iter().map(|&(x, y)| format!("{},{}", number(x), number(y))).collect::<Vec<_>>().join(" ")
}
