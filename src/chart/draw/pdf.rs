//! A PDF of one page, whose shapes are those of an SVG.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, TextStr};
use resvg::tiny_skia::{PathSegment, Point};
use resvg::usvg::{FillRule, Group, LineJoin, Node, Paint, Path};

use super::{UNITS, text};
use crate::{Error, Result};

/// Points of a PDF in a unit of the SVG.
const POINTS: f32 = 72.0 / UNITS;

pub(in crate::chart) fn pdf(title: &str, svg: &str) -> Result<Vec<u8>> {
    let tree = text::parse(svg)?;
    let mut page = Page { content: Content::new(), opacities: Vec::new() };
    let (width, height) = (tree.size().width() * POINTS, tree.size().height() * POINTS);
    // The origin of a PDF is at the bottom.
    page.content.transform([POINTS, 0.0, 0.0, -POINTS, 0.0, height]);
    page.group(tree.root());
    page.write(title, width, height).map_err(|e| Error::Drawing(format!("writing a PDF: {e}")))
}

struct Page {
    content: Content,
    /// Pairs of the opacities of fills and strokes; `G0` names the first.
    opacities: Vec<(f32, f32)>,
}

impl Page {
    fn group(&mut self, group: &Group) {
        for node in group.children() {
            match node {
                Node::Group(group) => self.group(group),
                Node::Path(path) => self.path(path),
                Node::Text(text) => self.group(text.flattened()),
                Node::Image(_) => {}
            }
        }
    }

    fn path(&mut self, path: &Path) {
        let (fill, stroke) = (path.fill(), path.stroke());
        let opacities = (fill.map_or(1.0, |fill| fill.opacity().get()), stroke.map_or(1.0, |s| s.opacity().get()));
        let number = self.opacities.iter().position(|known| *known == opacities).unwrap_or_else(|| {
            self.opacities.push(opacities);
            self.opacities.len() - 1
        });
        let t = path.abs_transform();
        let content = &mut self.content;
        content.save_state();
        content.set_parameters(Name(format!("G{number}").as_bytes()));
        content.transform([t.sx, t.ky, t.kx, t.sy, t.tx, t.ty]);
        if let Some([r, g, b]) = fill.and_then(|fill| rgb(fill.paint())) {
            content.set_fill_rgb(r, g, b);
        }
        if let Some(stroke) = stroke {
            if let Some([r, g, b]) = rgb(stroke.paint()) {
                content.set_stroke_rgb(r, g, b);
            }
            content.set_line_width(stroke.width().get());
            if stroke.linejoin() == LineJoin::Round {
                content.set_line_join(pdf_writer::types::LineJoinStyle::RoundJoin);
            }
            if let Some(dashes) = stroke.dasharray() {
                content.set_dash_pattern(dashes.iter().copied(), stroke.dashoffset());
            }
        }
        outline(content, path);
        let even_odd = fill.is_some_and(|fill| fill.rule() == FillRule::EvenOdd);
        match (fill.is_some(), stroke.is_some()) {
            (true, true) if even_odd => drop(content.fill_even_odd_and_stroke()),
            (true, true) => drop(content.fill_nonzero_and_stroke()),
            (true, false) if even_odd => drop(content.fill_even_odd()),
            (true, false) => drop(content.fill_nonzero()),
            (false, true) => drop(content.stroke()),
            (false, false) => drop(content.end_path()),
        }
        self.content.restore_state();
    }

    fn write(self, title: &str, width: f32, height: f32) -> std::io::Result<Vec<u8>> {
        let [catalog, pages, page, content, about] = [1, 2, 3, 4, 5].map(Ref::new);
        let mut stream = ZlibEncoder::new(Vec::new(), Compression::best());
        stream.write_all(&self.content.finish())?;
        let mut pdf = Pdf::new();
        pdf.catalog(catalog).pages(pages);
        pdf.pages(pages).kids([page]).count(1);
        pdf.document_info(about).title(TextStr(title)).creator(TextStr("gossamer"));
        let mut writer = pdf.page(page);
        writer.parent(pages).media_box(Rect::new(0.0, 0.0, width, height)).contents(content);
        let mut resources = writer.resources();
        let mut states = resources.ext_g_states();
        for (number, (fill, stroke)) in self.opacities.iter().enumerate() {
            let mut state =
                states.insert(Name(format!("G{number}").as_bytes())).start::<pdf_writer::writers::ExtGraphicsState>();
            state.non_stroking_alpha(*fill).stroking_alpha(*stroke);
        }
        states.finish();
        resources.finish();
        writer.finish();
        pdf.stream(content, &stream.finish()?).filter(Filter::FlateDecode);
        Ok(pdf.finish())
    }
}

fn outline(content: &mut Content, path: &Path) {
    // More digits than a printer has would double the file.
    let round = |p: Point| Point::from_xy((p.x * 100.0).round() / 100.0, (p.y * 100.0).round() / 100.0);
    let mut last = Point::zero();
    for segment in path.data().segments() {
        let mut cubic = |a: Point, b: Point, end: Point| {
            let (a, b, end) = (round(a), round(b), round(end));
            content.cubic_to(a.x, a.y, b.x, b.y, end.x, end.y);
        };
        last = match segment {
            PathSegment::MoveTo(p) => {
                content.move_to(round(p).x, round(p).y);
                p
            }
            PathSegment::LineTo(p) => {
                content.line_to(round(p).x, round(p).y);
                p
            }
            // PDF has no quadratic curves; this cubic one is the same.
            PathSegment::QuadTo(control, p) => {
                let near = |end: Point| {
                    Point::from_xy(end.x + (control.x - end.x) * 2.0 / 3.0, end.y + (control.y - end.y) * 2.0 / 3.0)
                };
                cubic(near(last), near(p), p);
                p
            }
            PathSegment::CubicTo(a, b, p) => {
                cubic(a, b, p);
                p
            }
            PathSegment::Close => {
                content.close_path();
                last
            }
        };
    }
}

fn rgb(paint: &Paint) -> Option<[f32; 3]> {
    match paint {
        Paint::Color(color) => Some([color.red, color.green, color.blue].map(|c| f32::from(c) / 255.0)),
        _ => None,
    }
}
