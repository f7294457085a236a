//! The layout of a circuit and what a view shows of it, apart from drawing.

use std::collections::{HashMap, HashSet, VecDeque};

use eframe::egui::{Pos2, Rect, Vec2, pos2, vec2};
use gossamer::circuits::color::{Importance, Widths};
use gossamer::circuits::layout::{BOX, BoxContent, CircuitLayout, Connector, LineKind, NodeBox, TOKEN_BOX};
use gossamer::circuits::{Circuit, Counts};

use crate::item::Item;
use crate::view::{Sublayer, Trace, View};

/// A circuit, or a sublayer of it, with its layout.
pub struct Scene {
    /// The shown part of the circuit, its lists in order.
    pub circuit: Circuit,
    pub layout: CircuitLayout,
    pub widths: Widths,
    /// The item of each box of the layout; `None` where lines only pass.
    pub items: Vec<Option<Item>>,
    /// Each line's share of the largest effect; 1 for residual channels.
    pub shares: Vec<f64>,
    /// Each box's share of the largest change of the task loss by ablation; 1 for what is no node.
    node_shares: Vec<f64>,
    /// Of the circuit's nodes, 0 to 1 ([`Importance::of`]).
    pub importances: Vec<f64>,
    /// Each line's curve, from its first box to its last.
    pub curves: Vec<Vec<Pos2>>,
    boxes: HashMap<Item, usize>,
}

/// How something is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Emphasis {
    Hidden,
    /// Something else is selected.
    Faint,
    Plain,
    /// It belongs to the selection.
    Strong,
}

/// The emphasis of everything in a scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub boxes: Vec<Emphasis>,
    pub lines: Vec<Emphasis>,
}

impl Scene {
    /// Lays out a circuit, or one sublayer of it.
    pub fn new(circuit: &Circuit, sublayer: Option<Sublayer>) -> Self {
        let mut circuit = circuit.clone().normalised();
        if let Some(sublayer) = sublayer {
            circuit.nodes.retain(|entry| Sublayer::of(entry.node()) == Some(sublayer));
            circuit.edges.retain(|edge| Sublayer::of(edge.to) == Some(sublayer));
            circuit.biases.retain(|bias| Sublayer::of(bias.node) == Some(sublayer));
            circuit.embeddings.clear();
            circuit.unembeddings.clear();
        }
        let layout = CircuitLayout::new(&circuit);
        let widths = Widths::new(&circuit);
        let item = |node_box: &NodeBox| match node_box.content {
            BoxContent::Node(i) => Some(Item::Node(circuit.nodes[i].node())),
            BoxContent::Embedding(i) => Some(Item::Embedding(circuit.embeddings[i].channel)),
            BoxContent::Unembedding(i) => Some(Item::Unembedding(circuit.unembeddings[i].channel)),
            BoxContent::Bend => None,
        };
        let items: Vec<_> = layout.boxes.iter().map(item).collect();
        let boxes = items.iter().enumerate().filter_map(|(number, item)| Some(((*item)?, number))).collect();
        let share = |line: &Connector| match line.kind {
            LineKind::Edge(i) => widths.of(&circuit.edges[i]).powi(2),
            LineKind::Channel(_) => 1.0,
        };
        let shares = layout.lines.iter().map(share).collect();
        let importance = Importance::new(&circuit);
        let node_share = |node_box: &NodeBox| match node_box.content {
            // Of published circuits it is not known.
            BoxContent::Node(i) if importance.largest > 0.0 => importance.of(&circuit.nodes[i]).powi(2),
            _ => 1.0,
        };
        let node_shares = layout.boxes.iter().map(node_share).collect();
        let importances = circuit.nodes.iter().map(|entry| importance.of(entry)).collect();
        let curves = layout.lines.iter().map(|line| curve(line, &layout)).collect();
        Self { circuit, layout, widths, items, shares, node_shares, importances, curves, boxes }
    }

    /// All items, from the bottom row to the top.
    pub fn all(&self) -> impl Iterator<Item = Item> {
        self.items.iter().flatten().copied()
    }

    pub fn box_number(&self, item: Item) -> Option<usize> {
        self.boxes.get(&item).copied()
    }

    pub fn rect(&self, number: usize) -> Rect {
        let NodeBox { content, x, top, bottom, .. } = &self.layout.boxes[number];
        let width = match content {
            BoxContent::Node(_) => BOX.0,
            BoxContent::Embedding(_) | BoxContent::Unembedding(_) => TOKEN_BOX.0,
            BoxContent::Bend => 0.0,
        };
        let half = width / 2.0;
        Rect::from_min_max(point(x - half, *top), point(x + half, *bottom))
    }

    /// All of the picture.
    pub fn bounds(&self) -> Rect {
        Rect::from_min_size(Pos2::ZERO, vec(self.layout.width, self.layout.height))
    }

    /// The lines that end at an item and those that begin there, with the items at their other
    /// ends.
    pub fn neighbors(&self, item: Item) -> [Vec<(usize, Item)>; 2] {
        let [mut inputs, mut outputs] = [Vec::new(), Vec::new()];
        for line in 0..self.layout.lines.len() {
            let Some((from, to)) = self.ends(line) else { continue };
            if to == item {
                inputs.push((line, from));
            }
            if from == item {
                outputs.push((line, to));
            }
        }
        [inputs, outputs]
    }

    /// The same with other widths, such as those of several circuits.
    pub fn with_widths(mut self, widths: Widths) -> Self {
        for (share, line) in self.shares.iter_mut().zip(&self.layout.lines) {
            if let LineKind::Edge(i) = line.kind {
                *share = widths.of(&self.circuit.edges[i]).powi(2);
            }
        }
        Self { widths, ..self }
    }

    /// The items that a line joins; `None` for an edge of weight 0, which another checkpoint has.
    pub fn ends(&self, line: usize) -> Option<(Item, Item)> {
        if let LineKind::Edge(i) = self.layout.lines[line].kind
            && self.circuit.edges[i].weight == 0.0
        {
            return None;
        }
        let boxes = &self.layout.lines[line].boxes;
        let item = |number: Option<&usize>| self.items.get(*number?).copied().flatten();
        Some((item(boxes.first())?, item(boxes.last())?))
    }

    /// The circuit without what the view hides.
    pub fn visible(&self, view: &View) -> Circuit {
        let shown = self.shown(&View { selected: None, ..view.clone() });
        let lines = self.layout.lines.iter().zip(&shown.lines).filter(|(_, line)| **line != Emphasis::Hidden);
        let kept: HashSet<_> =
            lines.filter_map(|(line, _)| if let LineKind::Edge(i) = line.kind { Some(i) } else { None }).collect();
        let hidden = |item: Item| self.box_number(item).is_some_and(|number| shown.boxes[number] == Emphasis::Hidden);
        let mut circuit = self.circuit.clone();
        let mut number = 0..;
        circuit.edges.retain(|_| number.next().is_some_and(|i| kept.contains(&i)));
        circuit.nodes.retain(|entry| !hidden(Item::Node(entry.node())));
        circuit.biases.retain(|bias| !hidden(Item::Node(bias.node)));
        circuit.embeddings.retain(|entry| !hidden(Item::Embedding(entry.channel)));
        circuit.unembeddings.retain(|entry| !hidden(Item::Unembedding(entry.channel)));
        circuit.counts = Counts::of(circuit.model.n_layer, &circuit.nodes, &circuit.edges, &circuit.biases);
        circuit
    }

    pub fn shown(&self, view: &View) -> Shown {
        let pinned = |item: Item| view.edits.pinned.contains(&item);
        let hidden = |(item, &share): (&Option<Item>, &f64)| {
            item.is_some_and(|item| view.edits.hidden.contains(&item) || (share < view.node_threshold && !pinned(item)))
        };
        let emphasis = |hidden: bool| if hidden { Emphasis::Hidden } else { Emphasis::Plain };
        let mut boxes: Vec<_> = self.items.iter().zip(&self.node_shares).map(|of| emphasis(hidden(of))).collect();
        let gone = |item: Item| self.box_number(item).is_none_or(|number| boxes[number] == Emphasis::Hidden);
        let visible = |line: usize| {
            let Some((from, to)) = self.ends(line) else { return false };
            let shown = self.shares[line] >= view.threshold || (pinned(from) && pinned(to));
            shown && !gone(from) && !gone(to)
        };
        let mut lines: Vec<_> = (0..self.layout.lines.len()).map(|line| emphasis(!visible(line))).collect();
        if let Some(selected) = view.selected.filter(|&item| self.box_number(item).is_some()) {
            let traced = self.trace(selected, view.trace, &lines);
            let of = |emphasis: Emphasis, strong: bool| match emphasis {
                Emphasis::Hidden => Emphasis::Hidden,
                _ if strong => Emphasis::Strong,
                _ => Emphasis::Faint,
            };
            for (shown, item) in boxes.iter_mut().zip(&self.items) {
                *shown = of(*shown, item.is_some_and(|item| traced.items.contains(&item)));
            }
            for (number, line) in lines.iter_mut().enumerate() {
                *line = of(*line, traced.lines.contains(&number));
            }
        }
        Shown { boxes, lines }
    }

    /// The items and lines that are reached from `start` along visible lines.
    fn trace(&self, start: Item, trace: Trace, lines: &[Emphasis]) -> Traced {
        let mut inputs: HashMap<Item, Vec<(usize, Item)>> = HashMap::new();
        let mut outputs: HashMap<Item, Vec<(usize, Item)>> = HashMap::new();
        for line in (0..lines.len()).filter(|&line| lines[line] != Emphasis::Hidden) {
            if let Some((from, to)) = self.ends(line) {
                inputs.entry(to).or_default().push((line, from));
                outputs.entry(from).or_default().push((line, to));
            }
        }
        let mut traced = Traced { items: HashSet::from([start]), lines: HashSet::new() };
        let far = trace != Trace::Neighbors;
        let ways = [(&inputs, trace != Trace::Downstream), (&outputs, trace != Trace::Upstream)];
        for way in ways.into_iter().filter_map(|(way, followed)| followed.then_some(way)) {
            let (mut seen, mut next) = (HashSet::from([start]), VecDeque::from([start]));
            while let Some(item) = next.pop_front() {
                for &(line, other) in way.get(&item).into_iter().flatten() {
                    traced.lines.insert(line);
                    if seen.insert(other) && far {
                        next.push_back(other);
                    }
                }
            }
            traced.items.extend(seen);
        }
        traced
    }
}

struct Traced {
    items: HashSet<Item>,
    lines: HashSet<usize>,
}

fn point(x: f64, y: f64) -> Pos2 {
    pos2(x as f32, y as f32)
}

fn vec(x: f64, y: f64) -> Vec2 {
    vec2(x as f32, y as f32)
}

/// A line upwards from the top of each box to the bottom of the next: Bézier curves that leave and
/// arrive vertically, in straight pieces.
fn curve(line: &Connector, layout: &CircuitLayout) -> Vec<Pos2> {
    const PIECES: usize = 12;
    let boxes: Vec<_> = line.boxes.iter().map(|&number| &layout.boxes[number]).collect();
    let mut points = Vec::with_capacity(boxes.len() * (PIECES + 1));
    for pair in boxes.windows(2) {
        let (start, end) = (point(pair[0].x, pair[0].top), point(pair[1].x, pair[1].bottom));
        let pull = vec2(0.0, ((start.y - end.y) * 0.5).max(12.0));
        let control = [start, start - pull, end + pull, end];
        points.extend((0..=PIECES).map(|i| bezier(control, i as f32 / PIECES as f32)));
    }
    points
}

fn bezier([a, b, c, d]: [Pos2; 4], t: f32) -> Pos2 {
    let u = 1.0 - t;
    let [a, b, c, d] = [(a, u * u * u), (b, 3.0 * u * u * t), (c, 3.0 * u * t * t), (d, t * t * t)]
        .map(|(point, weight)| point.to_vec2() * weight);
    (a + b + c + d).to_pos2()
}
