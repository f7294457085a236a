//! The help: what the drawing's signs mean, and what keys and the mouse do.

use eframe::egui::{
    CollapsingHeader, Color32, Context, Grid, Key, Pos2, Rect, ScrollArea, Sense, Shape, Stroke, StrokeKind, Ui,
    Window, vec2,
};
use gossamer::circuits::color::{RESIDUAL, sign};

use crate::commands;
use crate::graph::{Palette, group_color};

/// A sign of the drawing.
enum Sign {
    /// A node with this separation of the two kinds of prompts.
    Node(f64),
    Channel,
    Head,
    Bias,
    ByHand,
    Important,
    Pinned,
    Group,
    Collapsed,
    Selected,
    /// An edge's sign and width.
    Edge(f64, f32),
    Residual,
}

const LEGEND: &[(Sign, &str)] = &[
    (Sign::Node(1.0), "a node, higher in clean prompts; the deeper the blue, the better it tells them apart"),
    (Sign::Node(-1.0), "a node, higher in counterfactual prompts"),
    (Sign::Node(0.0), "a node that is much the same in both"),
    (Sign::Important, "the darker the outline and the longer the bar, the more the task loss changes without it"),
    (Sign::Bias, "a node with a bias: blue if it is positive, orange if it is negative"),
    (Sign::ByHand, "a node that is set by hand in prompts"),
    (Sign::Head, "the queries, keys and values of a head"),
    (Sign::Channel, "a residual channel at the embedding or the unembedding, with its strongest tokens"),
    (Sign::Edge(1.0, 1.5), "an edge, a positive weight"),
    (Sign::Edge(-1.0, 1.5), "an edge, a negative weight"),
    (Sign::Edge(1.0, 4.0), "wider: the task loss changes more when the edge is ablated"),
    (Sign::Residual, "a residual channel, from what writes it to what reads it"),
    (Sign::Selected, "selected; what is not connected to it fades"),
    (Sign::Pinned, "pinned: thresholds do not hide it"),
    (Sign::Group, "a member of a group, which has this color in the list on the left"),
    (Sign::Collapsed, "a collapsed group: one box for its members; a line sums their edges"),
];

const MOUSE: &[(&str, &str)] = &[
    ("click", "selects a box; elsewhere, nothing"),
    ("right click", "what can be done with a box"),
    ("point at it", "the numbers of a box or a line"),
    ("drag, wheel", "moves the drawing; a drag of a group's name or box, the group"),
    ("Ctrl and wheel, two fingers", "larger, smaller"),
    ("drag an edge of a panel", "its size; past its smallest one the panel closes"),
    ("drop a file", "opens it"),
];

/// Shows the window while `open`.
pub fn show(ctx: &Context, open: &mut bool) {
    let mut close = false;
    Window::new("Help").default_pos([260.0, 60.0]).default_width(600.0).open(open).show(ctx, |ui| {
        close = ui.input(|input| input.key_pressed(Key::Escape));
        ScrollArea::vertical().max_height(520.0).show(ui, |ui| {
            section(ui, "The drawing", |ui| {
                ui.label("Information flows upwards, from the embedding to the unembedding. A row is a site.");
                Grid::new("legend").num_columns(2).show(ui, |ui| {
                    for (sample, text) in LEGEND {
                        draw(ui, sample);
                        ui.label(*text);
                        ui.end_row();
                    }
                });
            });
            section(ui, "The mouse", |ui| rows(ui, "mouse", MOUSE.iter().map(|&(what, text)| (what.into(), text))));
            section(ui, "Keys", |ui| rows(ui, "keys", commands::shortcuts(ui.ctx()).into_iter()));
        });
    });
    *open &= !close;
}

fn section(ui: &mut Ui, name: &str, contents: impl FnOnce(&mut Ui)) {
    CollapsingHeader::new(name).default_open(true).show(ui, contents);
}

fn rows<'a>(ui: &mut Ui, name: &str, rows: impl Iterator<Item = (String, &'a str)>) {
    Grid::new(name).num_columns(2).striped(true).show(ui, |ui| {
        for (what, text) in rows {
            ui.strong(what);
            ui.label(text);
            ui.end_row();
        }
    });
}

fn draw(ui: &mut Ui, sample: &Sign) {
    let (rect, _) = ui.allocate_exact_size(vec2(52.0, 20.0), Sense::hover());
    let (palette, painter) = (Palette::new(ui), ui.painter());
    let node = rect.shrink2(vec2(8.0, 2.0));
    let outlined = |fill: Color32, stroke: Stroke| painter.rect(node, 4.0, fill, stroke, StrokeKind::Middle);
    let plain = Stroke::new(0.8, palette.outline);
    let line = |color, width| painter.hline(rect.x_range(), rect.center().y, Stroke::new(width, color));
    match *sample {
        Sign::Node(separation) => outlined(palette.shade(separation), plain),
        Sign::Channel => painter.rect(node, 8.0, palette.paper, plain, StrokeKind::Middle),
        Sign::Head => {
            painter.rect_filled(rect, 4.0, palette.frame);
            let box_of = |left: f32| Rect::from_min_size(Pos2::new(rect.left() + left, node.top()), vec2(18.0, 16.0));
            painter.rect(box_of(6.0), 4.0, palette.paper, plain, StrokeKind::Middle);
            painter.rect(box_of(28.0), 4.0, palette.paper, plain, StrokeKind::Middle)
        }
        Sign::Bias => {
            outlined(palette.paper, plain);
            painter.circle_filled(node.right_top() + vec2(-5.0, 5.0), 2.6, palette.line(sign(1.0)))
        }
        Sign::ByHand => {
            outlined(palette.paper, plain);
            let corner = node.left_top();
            let corners = vec![corner, corner + vec2(9.0, 0.0), corner + vec2(0.0, 9.0)];
            painter.add(Shape::convex_polygon(corners, palette.by_hand, Stroke::NONE))
        }
        Sign::Important => {
            outlined(palette.paper, Stroke::new(2.5, palette.ink));
            let bar = Rect::from_min_size(node.left_bottom() + vec2(4.0, -4.5), vec2(node.width() - 8.0, 2.5));
            painter.rect_filled(bar, 0.0, palette.ink)
        }
        Sign::Pinned => outlined(palette.paper, Stroke::new(2.0, palette.outline)),
        Sign::Group => outlined(palette.paper, Stroke::new(2.0, group_color(0))),
        Sign::Collapsed => {
            let fill = palette.paper.lerp_to_gamma(group_color(0), 0.2);
            outlined(fill, Stroke::new(2.0, group_color(0)))
        }
        Sign::Selected => outlined(palette.paper, Stroke::new(2.5, palette.selection)),
        Sign::Edge(weight, width) => line(palette.line(sign(weight)), width),
        Sign::Residual => line(palette.line(RESIDUAL), 1.5),
    };
}
