//! The layout of groups of horizontal bars.

use super::svg::{AXIS, Anchor, GRID, Look, Svg};
use super::{LABEL, LINE, MARGIN, SMALL, TITLE, text, ticks};
use crate::chart::Bars;
use crate::{Error, Result};

const WIDTH: f64 = 864.0;
/// The highest picture.
const MOST: f64 = 10_000.0;
/// The widest title of a group.
const GROUP: f64 = 360.0;
/// A bar, and the space between groups.
const BAR: f64 = 14.0;
const GAP: f64 = 9.0;

pub(in crate::chart) fn bars(bars: &Bars) -> Result<String> {
    let group = bars.names.len().max(1) as f64 * BAR + GAP;
    let title = text::wrapped(&bars.title, TITLE, WIDTH - 2.0 * MARGIN, 3)?;
    let top = MARGIN + title.len() as f64 * (TITLE + 4.0) + bars.names.len() as f64 * LINE + 2.0 * GAP;
    let bottom = top + group * bars.groups.len() as f64;
    let height = bottom + SMALL + LABEL + 3.0 * GAP + MARGIN;
    if height > MOST {
        return Err(Error::Request(format!("a picture {height:.0} high: {MOST} are possible, compare less at once")));
    }
    let (mut left, mut right, mut low, mut high) = (0.0f64, 0.0f64, 0.8f64, 1.25f64);
    for (name, bars) in &bars.groups {
        left = left.max(text::width(&text::shortened(name, SMALL, GROUP)?, SMALL)?);
        for bar in bars.iter().flatten() {
            right = right.max(text::width(&bar.text, SMALL - 2.0)?);
            if bar.ratio.is_finite() && bar.ratio > 0.0 {
                (low, high) = (low.min(bar.ratio), high.max(bar.ratio));
            }
        }
    }
    let left = MARGIN + left + 2.0 * GAP;
    let plot = (WIDTH - left - right - MARGIN - GAP).max(100.0);
    let x = |ratio: f64| left + (ratio / low).log10() / (high / low).log10() * plot;

    let mut svg = Svg::default();
    for (number, line) in title.iter().enumerate() {
        let baseline = MARGIN + TITLE + number as f64 * (TITLE + 4.0);
        svg.text(line, TITLE, (MARGIN, baseline), Anchor::Start, 0.0)?;
    }
    for (style, name) in bars.names.iter().enumerate() {
        let y = top - 2.0 * GAP - (bars.names.len() - style) as f64 * LINE + GAP;
        svg.rect((MARGIN, y), (BAR, BAR - 3.0), &color(style));
        let name = text::shortened(name, SMALL, WIDTH - 2.0 * MARGIN - BAR - GAP)?;
        svg.text(&name, SMALL, (MARGIN + BAR + GAP, y + BAR - 4.0), Anchor::Start, 0.0)?;
    }
    let ticks = ticks::log(low, high, (plot / 48.0) as usize);
    for tick in &ticks {
        svg.rule((x(*tick), top), (x(*tick), bottom), GRID);
        let label = format!("×{}", ticks::label(*tick));
        svg.text(&label, SMALL, (x(*tick), bottom + SMALL + 4.0), Anchor::Middle, 0.0)?;
    }
    for (number, (name, bars)) in bars.groups.iter().enumerate() {
        let top = top + number as f64 * group + GAP / 2.0;
        let baseline = top + (group - GAP) / 2.0 + 0.35 * SMALL;
        svg.text(&text::shortened(name, SMALL, GROUP)?, SMALL, (left - 2.0 * GAP, baseline), Anchor::End, 0.0)?;
        for (style, bar) in bars.iter().enumerate() {
            let Some(bar) = bar else { continue };
            let y = top + style as f64 * BAR;
            let mut end = x(1.0);
            if bar.ratio.is_finite() && bar.ratio > 0.0 {
                let (from, to) = (x(bar.ratio.min(1.0)), x(bar.ratio.max(1.0)));
                svg.rect((from, y), ((to - from).max(1.5), BAR - 2.0), &color(style));
                end = to;
            }
            let baseline = y + BAR / 2.0 - 1.0 + 0.35 * (SMALL - 2.0);
            svg.text(&bar.text, SMALL - 2.0, (end + GAP / 1.5, baseline), Anchor::Start, 0.0)?;
        }
    }
    svg.rule((x(1.0), top), (x(1.0), bottom), AXIS);
    let label = text::shortened(&bars.baseline, LABEL, plot + right)?;
    svg.text(&label, LABEL, (left + plot / 2.0, bottom + SMALL + LABEL + 2.0 * GAP), Anchor::Middle, 0.0)?;
    Ok(svg.finish(&bars.title, WIDTH, height))
}

fn color(style: usize) -> String {
    Look { style, faint: false }.color()
}
