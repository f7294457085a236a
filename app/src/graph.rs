//! The drawing of a circuit, which can be moved, zoomed and pointed at.

use eframe::egui::emath::TSTransform;
use eframe::egui::{
    Align2, Color32, FontId, Id, Painter, Pos2, Rect, Response, Role, Sense, Shape, Stroke, StrokeKind, Ui, Vec2,
    WidgetInfo, vec2,
};
use gossamer::circuits::color::{GROUPS, Importance, RESIDUAL, separation, sign};
use gossamer::circuits::labels::{bundle_text, clipped, group_text, visible};
use gossamer::circuits::layout::{BoxContent, GROUP_LABEL, GROUP_PAD, LineKind, TOKEN_BOX, TOKEN_LINE, TOKENS};
use gossamer::circuits::{Circuit, EdgeEntry, NodeKind, TokenWeight};

use crate::item::Item;
use crate::item_menu::{self, Choice};
use crate::scene::{Emphasis, Scene, Shown};
use crate::text;
use crate::view::View;

/// With more visible lines than this, each is drawn as few straight pieces.
const MANY: usize = 2000;
/// Text smaller than this is not drawn.
const LEGIBLE: f32 = 5.0;

/// The visible part of the drawing and its scale.
#[derive(Clone, Copy, Debug, Default)]
pub struct Camera {
    /// From the layout to the window; `None` until it is fitted into the window.
    to_window: Option<TSTransform>,
    /// Whether all of it is fitted into the window, however small.
    whole: bool,
    /// The rectangle of the last drawing.
    window: Option<Rect>,
    /// Whether a person chose the part, which then stays when the window changes.
    chosen: bool,
}

impl Camera {
    const SMALLEST: f32 = 0.02;
    const LARGEST: f32 = 8.0;
    /// Names of nodes and tokens can still be read.
    const READABLE: f32 = 0.75;

    pub fn window(&self) -> Option<Rect> {
        self.window
    }

    /// Shows the layout with the next drawing: all of it if it can be read then, or else its upper
    /// end.
    pub fn fit(&mut self) {
        *self = Self { window: self.window, ..Self::default() };
    }

    /// Shows all of the layout with the next drawing.
    pub fn fit_whole(&mut self) {
        *self = Self { whole: true, window: self.window, ..Self::default() };
    }

    /// Makes everything `factor` times as large; the point `at` of the window, by default its
    /// center, stays.
    pub fn zoom(&mut self, factor: f32, at: Option<Pos2>) {
        let center = self.window.map(|window| window.center());
        if let (Some(camera), Some(at)) = (&mut self.to_window, at.or(center)) {
            let factor = factor.clamp(Self::SMALLEST / camera.scaling, Self::LARGEST / camera.scaling);
            self.chosen = true;
            camera.translation = at.to_vec2() + (camera.translation - at.to_vec2()) * factor;
            camera.scaling *= factor;
        }
    }

    pub fn pan(&mut self, by: Vec2) {
        if let Some(camera) = &mut self.to_window {
            self.chosen |= by != Vec2::ZERO;
            camera.translation += by;
        }
    }

    /// Moves a point of the layout into the middle of the drawing.
    pub fn center(&mut self, at: Pos2) {
        if let (Some(camera), Some(window)) = (&mut self.to_window, self.window) {
            self.chosen = true;
            camera.translation += window.center() - *camera * at;
        }
    }

    /// Keeps what was at `old` of the layout where it is in the window, now that it is at `new`; fits
    /// the layout again as long as nobody chose a part.
    pub fn follow(&mut self, old: Pos2, new: Pos2) {
        match &mut self.to_window {
            Some(camera) if self.chosen => camera.translation += (old - new) * camera.scaling,
            _ => self.to_window = None,
        }
    }

    fn fitted(&mut self, layout: Rect, window: Rect) -> TSTransform {
        const MARGIN: Vec2 = vec2(110.0, 28.0);
        if self.window.replace(window) != Some(window) && !self.chosen {
            self.to_window = None;
        }
        *self.to_window.get_or_insert_with(|| {
            let room = (window.size() - 2.0 * MARGIN).max(Vec2::splat(50.0));
            let scale = (room.x / layout.width().max(1.0)).min(room.y / layout.height().max(1.0));
            let scale = scale.clamp(if self.whole { Self::SMALLEST } else { Self::READABLE }, 1.6);
            let mut corner = window.center() - layout.center().to_vec2() * scale;
            // The upper end of a circuit that is higher than the window, with the logits.
            corner.y = corner.y.max(window.top() + MARGIN.y - layout.top() * scale);
            TSTransform::new(corner.to_vec2(), scale)
        })
    }
}

/// The colors of the drawing.
pub struct Palette {
    dark: bool,
    pub ink: Color32,
    pub quiet: Color32,
    pub background: Color32,
    pub band: Color32,
    pub frame: Color32,
    pub paper: Color32,
    pub outline: Color32,
    pub selection: Color32,
    /// Of the marks of nodes that are set in prompts.
    pub by_hand: Color32,
}

impl Palette {
    pub fn new(ui: &Ui) -> Self {
        let visuals = ui.visuals();
        let (dark, selection) = (visuals.dark_mode, visuals.selection.stroke.color);
        let grey = |light: u8, night: u8| Color32::from_gray(if dark { night } else { light });
        Self {
            dark,
            ink: grey(31, 225),
            quiet: grey(105, 150),
            background: visuals.panel_fill,
            band: grey(246, 32),
            frame: grey(231, 44),
            paper: grey(255, 27),
            outline: grey(95, 140),
            selection,
            by_hand: if dark { Color32::from_rgb(200, 150, 255) } else { Color32::from_rgb(120, 60, 190) },
        }
    }

    /// A color of the library's, legible on this background.
    pub fn line(&self, [r, g, b]: [u8; 3]) -> Color32 {
        let lift = |part: u8| if self.dark { part + (255 - part) / 3 } else { part };
        Color32::from_rgb(lift(r), lift(g), lift(b))
    }

    /// From the paper at 0 to most of a sign's color at 1 and -1; text stays legible on it.
    pub fn shade(&self, value: f64) -> Color32 {
        self.paper.lerp_to_gamma(self.line(sign(value)), 0.55 * value.abs().min(1.0) as f32)
    }
}

pub fn group_color(number: usize) -> Color32 {
    let [r, g, b] = GROUPS[number % GROUPS.len()];
    Color32::from_rgb(r, g, b)
}

/// The name of the open circuit's drawing.
pub const OPEN: &str = "the circuit";

/// Draws the scene into the remaining space and lets it be moved. A click selects what it hits, or
/// nothing. `name` tells drawings apart; `hint` is another line about an item that is pointed at.
pub fn show(
    ui: &mut Ui,
    name: &'static str,
    scene: &Scene,
    view: &mut View,
    camera: &mut Camera,
    hint: &dyn Fn(Item) -> Option<String>,
) {
    let (window, background) = ui.allocate_exact_size(ui.available_size(), Sense::click_and_drag());
    background.widget_info(|| WidgetInfo::labeled(Role::Canvas, true, name));
    camera.fitted(scene.bounds(), window);
    move_camera(ui, &background, camera);
    scroll_bars(ui, name, scene.bounds(), window, camera);
    let to_window = camera.fitted(scene.bounds(), window);
    let shown = scene.shown(view);
    let painter = ui.painter().with_clip_rect(window);
    let drawing =
        Drawing { name, scene, view: &*view, shown: &shown, palette: Palette::new(ui), to_window, window, painter };
    drawing.layers();
    drawing.frames();
    drawing.lines();
    let mut used = drawing.boxes(ui, hint);
    drawing.groups(ui, &mut used);
    drawing.rows();
    let Used { clicked, chosen, dragged } = used;
    let hovered = background.hover_pos().filter(|_| background.hovered()).and_then(|at| drawing.line_at(at));
    if let Some(text) = hovered.map(|line| drawing.line_text(line)) {
        background.clone().on_hover_text_at_pointer(text);
    }
    if background.clicked() {
        view.selected = None;
    }
    if clicked.is_some() {
        view.selected = clicked;
    }
    if let Some((item, choice)) = chosen {
        choice.apply(ui.ctx(), item, view);
        ui.ctx().request_repaint();
    }
    if let Some((group, by)) = dragged {
        let by = by / to_window.scaling;
        view.edits.move_group(group, [by.x.into(), by.y.into()]);
        ui.ctx().request_repaint();
    }
}

/// Dragging and the wheel move; the wheel with Ctrl and two fingers zoom.
fn move_camera(ui: &Ui, background: &Response, camera: &mut Camera) {
    camera.pan(background.drag_delta());
    // Above a box, too.
    if let Some(at) = ui.input(|input| input.pointer.hover_pos()).filter(|_| background.contains_pointer()) {
        let (factor, scrolled) = ui.input(|input| (input.zoom_delta(), input.smooth_scroll_delta()));
        camera.pan(scrolled);
        if factor != 1.0 {
            camera.zoom(factor, Some(at));
        }
    }
}

/// Bars at the lower and the right edge where a part of the drawing is outside of the window.
fn scroll_bars(ui: &mut Ui, drawing: &str, layout: Rect, window: Rect, camera: &mut Camera) {
    const WIDTH: f32 = 9.0;
    let Some(to_window) = camera.to_window else { return };
    let whole = to_window * layout;
    for (name, along) in [("scroll sideways", Vec2::X), ("scroll up and down", Vec2::Y)] {
        let across = Vec2::splat(1.0) - along;
        let on = |at: Pos2| at.to_vec2().dot(along);
        let (start, end) = (on(window.min), on(window.max));
        let (low, high) = (on(whole.min).min(start), on(whole.max).max(end));
        if high - low <= end - start + 1.0 {
            continue;
        }
        let track =
            Rect::from_min_max(window.max - (window.size() * along + WIDTH * across), window.max - WIDTH * along);
        let share = (on(track.max) - on(track.min)) / (high - low);
        let position = |at: f32| track.min + along * (at - low) * share;
        let thumb = Rect::from_min_max(position(start), position(end) + WIDTH * across);
        let response = ui.interact(track, Id::unique((drawing, name)), Sense::click_and_drag());
        response.widget_info(|| WidgetInfo::labeled(Role::ScrollBar, true, name));
        let jump = response.interact_pointer_pos().filter(|_| response.clicked());
        let jump = jump.map_or(Vec2::ZERO, |at| (at - thumb.center()) * along);
        camera.pan(-(response.drag_delta() * along + jump) / share);
        let visuals = ui.style().interact(&response);
        ui.painter().rect_filled(thumb.shrink(1.5), WIDTH / 2.0, visuals.fg_stroke.color.gamma_multiply(0.5));
    }
}

/// What was done with the boxes.
#[derive(Default)]
struct Used {
    /// Clicked with either button.
    clicked: Option<Item>,
    /// Chosen in an item's menu.
    chosen: Option<(Item, Choice)>,
    /// A group, and how far in the window.
    dragged: Option<(usize, Vec2)>,
}

impl Used {
    /// What is done with an item's box or a group's name.
    fn respond(&mut self, response: &Response, item: Item, view: &View) {
        if response.clicked() || response.secondary_clicked() {
            self.clicked = Some(item);
        }
        if let Item::Group(number) = item
            && response.drag_delta() != Vec2::ZERO
        {
            self.dragged = Some((number, response.drag_delta()));
        }
        response.context_menu(|ui| {
            let choice = item_menu::show(ui, item, view);
            self.chosen = self.chosen.or(choice.map(|choice| (item, choice)));
        });
    }
}

struct Drawing<'a> {
    name: &'static str,
    scene: &'a Scene,
    view: &'a View,
    shown: &'a Shown,
    palette: Palette,
    to_window: TSTransform,
    window: Rect,
    painter: Painter,
}

impl Drawing<'_> {
    fn circuit(&self) -> &Circuit {
        &self.scene.circuit
    }

    fn scaled(&self, size: f64) -> f32 {
        size as f32 * self.to_window.scaling
    }

    /// Text of a size in the layout's units; text that is too small to read is not drawn.
    fn write(&self, at: Pos2, anchor: Align2, size: f32, monospace: bool, color: Color32, text: &str) {
        // In half points: every size that is used fills the font's texture.
        let size = (size * self.to_window.scaling * 2.0).round() / 2.0;
        if size >= LEGIBLE && self.window.contains(at) {
            let font = if monospace { FontId::monospace(size) } else { FontId::proportional(size) };
            self.painter.text(at, anchor, text, font, color);
        }
    }

    /// Where a height of the layout is in the window.
    fn height(&self, y: f64) -> f32 {
        self.to_window.translation.y + self.scaled(y)
    }

    /// The layers' backgrounds.
    fn layers(&self) {
        for rows in self.scene.layout.rows.chunk_by(|a, b| a.key.layer() == b.key.layer()) {
            let (Some(top), Some(bottom)) = (rows.last(), rows.first()) else { continue };
            let Some(layer) = bottom.key.layer() else { continue };
            let pad = self.scaled(15.0);
            let band = Rect::from_x_y_ranges(
                self.window.left() + 8.0..=self.window.right() - 8.0,
                self.height(top.top) - pad..=self.height(bottom.bottom) + pad,
            );
            self.painter.rect_filled(band, 6.0, self.palette.band);
            let font = FontId::proportional(11.0);
            let at = band.right_top() + vec2(-8.0, 4.0);
            self.painter.text(at, Align2::RIGHT_TOP, format!("layer {layer}"), font, self.palette.quiet);
        }
    }

    /// The rows' names, which stay at the left edge.
    fn rows(&self) {
        for row in &self.scene.layout.rows {
            let at = Pos2::new(self.window.left() + 16.0, self.height(f64::midpoint(row.top, row.bottom)));
            if self.scaled(row.bottom - row.top) >= 9.0 {
                let name = row.key.name().to_string();
                let name = self.painter.layout_no_wrap(name, FontId::proportional(11.0), self.palette.quiet);
                let rect = Align2::LEFT_CENTER.anchor_size(at, name.size());
                let background = if row.key.layer().is_some() { self.palette.band } else { self.palette.background };
                self.painter.rect_filled(rect.expand(3.0), 3.0, background.gamma_multiply(0.85));
                self.painter.galley(rect.min, name, self.palette.quiet);
            }
        }
    }

    fn frames(&self) {
        for frame in &self.scene.layout.frames {
            let row = &self.scene.layout.rows[frame.row];
            let min = Pos2::new(frame.left as f32, row.top as f32 - 2.0);
            let rect = Rect::from_min_max(min, Pos2::new(frame.right as f32, row.bottom as f32 + 6.0));
            let rect = self.to_window * rect;
            self.painter.rect_filled(rect, self.scaled(8.0), self.palette.frame);
            let at = rect.left_top() + vec2(self.scaled(GROUP_PAD), self.scaled(GROUP_LABEL / 2.0));
            self.write(at, Align2::LEFT_CENTER, 9.5, false, self.palette.quiet, &format!("h{}", frame.head));
        }
    }

    /// Whether lines are drawn as few straight pieces.
    fn many(&self) -> bool {
        self.shown.lines.iter().filter(|&&line| line != Emphasis::Hidden).count() > MANY
    }

    fn lines(&self) {
        let many = self.many();
        let circuit = self.circuit();
        let mut order: Vec<_> =
            (0..self.shown.lines.len()).filter(|&i| self.shown.lines[i] != Emphasis::Hidden).collect();
        // The strongest lines are drawn last, on top.
        order.sort_by(|&a, &b| {
            let rank = |line: usize| {
                (self.shown.lines[line], !matches!(self.scene.layout.lines[line].kind, LineKind::Channel(_)))
            };
            rank(a).cmp(&rank(b)).then(self.scene.shares[a].total_cmp(&self.scene.shares[b]))
        });
        let thickness = self.to_window.scaling.clamp(0.35, 1.5);
        let weighed =
            |edge: &EdgeEntry| (self.palette.line(sign(edge.weight)), 1.0 + 4.5 * self.scene.widths.of(edge) as f32);
        let shapes = order.into_iter().filter_map(|line| {
            let (color, width) = match self.scene.layout.lines[line].kind {
                LineKind::Edge(i) => weighed(&circuit.edges[i]),
                LineKind::Bundle(i) => weighed(&self.scene.layout.bundles[i].sum),
                LineKind::Channel(_) => (self.palette.line(RESIDUAL), 1.0),
            };
            let opacity = if self.shown.lines[line] == Emphasis::Faint { 0.1 } else { 0.85 };
            let stroke = Stroke::new(width * thickness, color.gamma_multiply(opacity));
            let points = self.points(line, many);
            let visible = Rect::from_points(&points).intersects(self.window);
            visible.then(|| Shape::line(points, stroke))
        });
        self.painter.extend(shapes);
    }

    /// A line in the window; with `many` lines only its ends and the rows that it passes.
    fn points(&self, line: usize, many: bool) -> Vec<Pos2> {
        let curve = &self.scene.curves[line];
        let step = if many { curve.len() / (self.scene.layout.lines[line].boxes.len() - 1).max(1) - 1 } else { 1 };
        curve.iter().step_by(step.max(1)).map(|&point| self.to_window * point).collect()
    }

    /// The visible line that passes within a few points of `at`.
    fn line_at(&self, at: Pos2) -> Option<usize> {
        const NEAR: f32 = 5.0;
        let many = self.many();
        let distance = |line: usize| {
            let points = self.points(line, many);
            points.windows(2).map(|pair| to_segment(at, pair[0], pair[1])).fold(f32::INFINITY, f32::min)
        };
        let lines = (0..self.shown.lines.len()).filter(|&line| self.shown.lines[line] > Emphasis::Faint);
        let nearest = lines.map(|line| (line, distance(line))).min_by(|a, b| a.1.total_cmp(&b.1))?;
        (nearest.1 <= NEAR).then_some(nearest.0)
    }

    fn line_text(&self, line: usize) -> String {
        match self.scene.layout.lines[line].kind {
            LineKind::Channel(channel) => format!("residual channel {channel}"),
            LineKind::Edge(i) => {
                let edge = &self.circuit().edges[i];
                format!("{} to {}\n{}", edge.from, edge.to, text::numbers(edge))
            }
            LineKind::Bundle(i) => {
                let numbers = bundle_text(&self.scene.layout.bundles[i]);
                let name = |item| text::title(self.circuit(), item);
                let ends = self.scene.ends(line).map(|(from, to)| format!("{} to {}\n", name(from), name(to)));
                ends.unwrap_or_default() + &numbers
            }
        }
    }

    fn boxes(&self, ui: &mut Ui, hint: &dyn Fn(Item) -> Option<String>) -> Used {
        let mut used = Used::default();
        for (number, item) in self.scene.items.iter().enumerate() {
            let Some(item) = *item else { continue };
            let rect = self.to_window * self.scene.rect(number);
            let emphasis = self.shown.boxes[number];
            if emphasis == Emphasis::Hidden || !rect.intersects(self.window) {
                continue;
            }
            let response = self.interact(ui, rect, item);
            let selected = self.view.selected == Some(item);
            let label = self.view.edits.labels.get(&item);
            used.respond(&response, item, self.view);
            let outline = self.outline(item, number, selected, response.hovered() || response.has_focus());
            let opacity = if emphasis == Emphasis::Faint { 0.3 } else { 1.0 };
            match self.scene.layout.boxes[number].content {
                BoxContent::Node(i) => self.node(i, rect, outline, opacity),
                BoxContent::Embedding(i) => {
                    self.tokens(&self.circuit().embeddings[i].tokens, item, rect, outline, opacity)
                }
                BoxContent::Unembedding(i) => {
                    self.tokens(&self.circuit().unembeddings[i].tokens, item, rect, outline, opacity)
                }
                BoxContent::Group(number) => self.collapsed(number, rect, outline, opacity),
                BoxContent::Bend => {}
            }
            if let Some(label) = label {
                self.write(
                    rect.right_center() + vec2(3.0, 0.0),
                    Align2::LEFT_CENTER,
                    10.0,
                    false,
                    self.palette.ink,
                    label,
                );
            }
            let by_hand = self.by_hand(ui, rect, item);
            response.on_hover_ui(|ui| {
                ui.strong(text::title(self.circuit(), item));
                let lines = text::summary(self.circuit(), item).into_iter().chain(by_hand).chain(hint(item));
                lines.for_each(|line| drop(ui.label(line)));
            });
        }
        used
    }

    /// What a node is set to in prompts, also as the name of its mark.
    fn by_hand(&self, ui: &Ui, rect: Rect, item: Item) -> Option<String> {
        let Item::Node(node) = item else { return None };
        let setting = self.view.edits.live.settings.get(&node)?;
        let text = format!("{item}: {}", setting.text());
        let mark = Rect::from_min_size(rect.min, Vec2::splat(self.scaled(10.0))).intersect(self.window);
        let mark = ui.interact(mark, Id::unique((self.name, item, "by hand")), Sense::hover());
        mark.widget_info(|| WidgetInfo::labeled(Role::Image, true, &text));
        Some(setting.text())
    }

    /// A button with the item's name.
    fn interact(&self, ui: &Ui, rect: Rect, item: Item) -> Response {
        // Boxes of nodes leave dragging to the drawing.
        let sense = if matches!(item, Item::Group(_)) { Sense::click_and_drag() } else { Sense::click() };
        let response = ui.interact(rect.intersect(self.window), Id::unique((self.name, item)), sense);
        let selected = self.view.selected == Some(item);
        let name = match (item, self.view.edits.labels.get(&item)) {
            (Item::Group(_), _) => text::title(self.circuit(), item),
            (item, Some(label)) => format!("{item}, {label}"),
            (item, None) => item.to_string(),
        };
        let name = if self.name == OPEN { name } else { format!("{name}, in {}", self.name) };
        response.widget_info(|| WidgetInfo::selected(Role::Button, true, selected, &name));
        response
    }

    /// A collapsed group's box.
    fn collapsed(&self, number: usize, rect: Rect, outline: Stroke, opacity: f32) {
        let fill = self.palette.paper.lerp_to_gamma(group_color(number), 0.2).gamma_multiply(opacity);
        let outline = Stroke::new(outline.width, outline.color.gamma_multiply(opacity));
        self.painter.rect(rect, self.scaled(6.0), fill, outline, StrokeKind::Middle);
        let ink = self.palette.ink.gamma_multiply(opacity);
        let (Some(frame), Some(name)) = (self.scene.group(number), self.view.edits.group_name(number)) else { return };
        self.write(rect.center(), Align2::CENTER_CENTER, 11.0, false, ink, &group_text(name, frame));
    }

    /// The frames of groups that are not collapsed, each with its name, which is clicked and dragged.
    fn groups(&self, ui: &Ui, used: &mut Used) {
        for frame in self.scene.layout.groups.iter().filter(|frame| !frame.collapsed) {
            let item = Item::Group(frame.group);
            let shown = |member: &Item| self.scene.box_number(*member).map(|number| self.shown.boxes[number]);
            let members = self.scene.members(frame.group);
            let Some(emphasis) = members.iter().filter_map(shown).max().filter(|&most| most != Emphasis::Hidden) else {
                continue;
            };
            let (Some(place), Some(name)) = (self.scene.place(item), self.view.edits.group_name(frame.group)) else {
                continue;
            };
            let rect = self.to_window * place;
            let opacity = if emphasis == Emphasis::Faint { 0.3 } else { 1.0 };
            let color = group_color(frame.group).gamma_multiply(opacity);
            let ink = self.palette.ink.gamma_multiply(opacity);
            let font = FontId::proportional((11.0 * self.to_window.scaling).clamp(9.0, 16.0));
            let text = self.painter.layout_no_wrap(clipped(&visible(name), 24), font, ink);
            let tag =
                Rect::from_min_size(rect.left_top() - vec2(0.0, text.size().y + 3.0), text.size() + vec2(10.0, 3.0));
            if !rect.union(tag).intersects(self.window) {
                continue;
            }
            let response = self.interact(ui, tag, item);
            used.respond(&response, item, self.view);
            let strong = self.view.selected == Some(item) || response.hovered() || response.has_focus();
            let stroke = Stroke::new(if strong { 2.5 } else { 1.2 }, color);
            self.painter.rect_stroke(rect, self.scaled(10.0), stroke, StrokeKind::Middle);
            self.painter.rect(tag, 3.0, self.palette.paper.lerp_to_gamma(color, 0.3), stroke, StrokeKind::Middle);
            self.painter.galley(tag.min + vec2(5.0, 1.5), text, ink);
            response.on_hover_text("click selects the group, dragging moves it");
        }
    }

    fn outline(&self, item: Item, number: usize, selected: bool, pointed: bool) -> Stroke {
        match self.view.edits.group_at(item) {
            _ if selected => Stroke::new(2.5, self.palette.selection),
            _ if pointed => Stroke::new(2.0, self.palette.ink),
            Some(number) => Stroke::new(2.0, group_color(number)),
            None if self.view.edits.pinned.contains(&item) => Stroke::new(2.0, self.palette.outline),
            None => match self.scene.layout.boxes[number].content {
                // The more it matters, the wider and darker.
                BoxContent::Node(node) => {
                    let importance = self.scene.importances[node];
                    let (wide, _) = Importance::outline(importance);
                    Stroke::new(wide as f32, self.palette.outline.lerp_to_gamma(self.palette.ink, importance as f32))
                }
                _ => Stroke::new(0.8, self.palette.outline),
            },
        }
    }

    fn node(&self, number: usize, rect: Rect, outline: Stroke, opacity: f32) {
        let entry = &self.circuit().nodes[number];
        let fill = self.palette.shade(separation(entry)).gamma_multiply(opacity);
        let outline = Stroke::new(outline.width, outline.color.gamma_multiply(opacity));
        self.painter.rect(rect, self.scaled(6.0), fill, outline, StrokeKind::Middle);
        // In proportion to the change of the loss, along the lower edge.
        let (pad, high) = (self.scaled(4.0), self.scaled(2.5));
        let long = (rect.width() - 2.0 * pad) * self.scene.importances[number].powi(2) as f32;
        let bar = Rect::from_min_size(rect.left_bottom() + vec2(pad, -high - self.scaled(2.0)), vec2(long, high));
        self.painter.rect_filled(bar, 0.0, self.palette.ink.gamma_multiply(opacity));
        if let Some(bias) = self.circuit().biases.iter().find(|bias| bias.node == entry.node()) {
            let at = rect.right_top() + vec2(-self.scaled(6.0), self.scaled(6.0));
            let color = self.palette.line(sign(bias.value)).gamma_multiply(opacity);
            self.painter.circle_filled(at, self.scaled(2.6), color);
        }
        if self.view.edits.live.settings.contains_key(&entry.node()) {
            let corner = rect.left_top();
            let side = self.scaled(10.0).max(4.0);
            let corners = vec![corner, corner + vec2(side, 0.0), corner + vec2(0.0, side)];
            self.painter.add(Shape::convex_polygon(corners, self.palette.by_hand, Stroke::NONE));
        }
        let name = match entry.kind {
            NodeKind::AttnQ => format!("q {}", entry.index),
            NodeKind::AttnK => format!("k {}", entry.index),
            NodeKind::AttnV => format!("v {}", entry.index),
            _ => entry.index.to_string(),
        };
        self.write(rect.center(), Align2::CENTER_CENTER, 11.0, false, self.palette.ink.gamma_multiply(opacity), &name);
    }

    /// A residual channel at the embedding or unembedding, with its strongest tokens.
    fn tokens(&self, tokens: &[TokenWeight], item: Item, rect: Rect, outline: Stroke, opacity: f32) {
        let (channel, above) = match item {
            Item::Embedding(channel) => (channel, false),
            Item::Unembedding(channel) => (channel, true),
            Item::Node(_) | Item::Group(_) => return,
        };
        let answers = [self.circuit().task.target.id, self.circuit().task.alternative.id];
        let height = self.scaled(TOKEN_BOX.1);
        let pill = match above {
            true => Rect::from_min_max(rect.left_bottom() - vec2(0.0, height), rect.right_bottom()),
            false => Rect::from_min_max(rect.left_top(), rect.right_top() + vec2(0.0, height)),
        };
        let pill = pill.shrink2(vec2(self.scaled(16.0), 0.0));
        let outline = Stroke::new(outline.width, outline.color.gamma_multiply(opacity));
        self.painter.rect(pill, height / 2.0, self.palette.paper, outline, StrokeKind::Middle);
        let quiet = self.palette.quiet.gamma_multiply(opacity);
        self.write(pill.center(), Align2::CENTER_CENTER, 11.0, false, quiet, &channel.to_string());

        let mut listed: Vec<_> = tokens.iter().collect();
        if above {
            // The task's two answers first.
            listed.sort_by_key(|t| answers.iter().position(|&id| id == t.id).unwrap_or(answers.len()));
        }
        listed.truncate(TOKENS);
        let line = self.scaled(TOKEN_LINE);
        let mut y = match above {
            true => pill.top() - line * (listed.len() as f32 - 0.5) - self.scaled(2.0),
            false => pill.bottom() + line * 0.5 + self.scaled(2.0),
        };
        for token in listed {
            let color = self.palette.line(sign(token.weight)).gamma_multiply(opacity);
            let shown = clipped(&visible(&token.text.replace(' ', "·")), 8);
            self.write(Pos2::new(rect.center().x, y), Align2::RIGHT_CENTER, 10.0, true, color, &shown);
            let weight = format!("{:+.2}", token.weight);
            self.write(
                Pos2::new(rect.center().x + self.scaled(6.0), y),
                Align2::LEFT_CENTER,
                10.0,
                false,
                color,
                &weight,
            );
            y += line;
        }
    }
}

/// How far `at` is from the straight line between two points.
fn to_segment(at: Pos2, start: Pos2, end: Pos2) -> f32 {
    let along = end - start;
    let share = (at - start).dot(along) / along.length_sq().max(1e-6);
    (at - (start + along * share.clamp(0.0, 1.0))).length()
}
