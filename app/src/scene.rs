//! The layout of a circuit and what a view shows of it, apart from drawing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use eframe::egui::{Pos2, Rect, Vec2, pos2, vec2};
use gossamer::circuits::color::{Importance, Widths};
use gossamer::circuits::layout::{BoxContent, CircuitLayout, Connector, FRAME_PAD, GroupFrame, LineKind, NodeBox};
use gossamer::circuits::{Annotations, Circuit, Counts};

use crate::item::Item;
use crate::timeline::Revision;
use crate::view::{Edits, Sublayer, Trace, View};

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
    /// Those of members of a collapsed group are that of the group.
    boxes: HashMap<Item, usize>,
    /// The items of groups that the scene has.
    members: BTreeMap<usize, Vec<Item>>,
}

/// What of a view decides a scene.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SceneKey {
    sublayer: Option<Sublayer>,
    revision: Option<Revision>,
    groups: BTreeMap<String, BTreeSet<Item>>,
    collapsed: BTreeSet<String>,
    offsets: BTreeMap<String, [f64; 2]>,
}

/// What is different from the last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    Nothing,
    /// Where groups were moved.
    Offsets,
    /// Groups, or which are collapsed.
    Groups,
    /// The sublayer or the checkpoint.
    Part,
}

impl SceneKey {
    /// Takes a view's, and says what changed.
    pub fn update(&mut self, view: &View, revision: Option<Revision>) -> Changed {
        let Edits { groups, collapsed, offsets, .. } = &view.edits;
        let changed = if (self.sublayer, self.revision) != (view.sublayer, revision) {
            Changed::Part
        } else if self.groups != *groups || self.collapsed != *collapsed {
            Changed::Groups
        } else if self.offsets != *offsets {
            Changed::Offsets
        } else {
            return Changed::Nothing;
        };
        *self = Self {
            sublayer: view.sublayer,
            revision,
            groups: groups.clone(),
            collapsed: collapsed.clone(),
            offsets: offsets.clone(),
        };
        changed
    }

    /// The number now of the group that had one before `view`; none if it is gone.
    pub fn renumbered(&self, number: usize, view: &View) -> Option<usize> {
        let name = self.groups.keys().nth(number)?;
        view.edits.groups.keys().position(|other| other == name)
    }
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
    /// Lays out a circuit, or one sublayer of it, with the groups of its annotations.
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
            BoxContent::Group(number) => Some(Item::Group(number)),
            BoxContent::Bend => None,
        };
        let items: Vec<_> = layout.boxes.iter().map(item).collect();
        let members = members(&circuit);
        let mut boxes: HashMap<Item, usize> =
            items.iter().enumerate().filter_map(|(number, item)| Some(((*item)?, number))).collect();
        for (&group, members) in &members {
            if let Some(&number) = boxes.get(&Item::Group(group)) {
                boxes.extend(members.iter().map(|&member| (member, number)));
            }
        }
        let shares = layout.lines.iter().map(|line| line_share(line, &layout, &circuit, &widths)).collect();
        let importance = Importance::new(&circuit);
        let share = |i: usize| importance.of(&circuit.nodes[i]).powi(2);
        let of_item: HashMap<Item, f64> =
            circuit.nodes.iter().enumerate().map(|(i, entry)| (Item::Node(entry.node()), share(i))).collect();
        let node_share = |node_box: &NodeBox| match node_box.content {
            // Of published circuits it is not known.
            _ if importance.largest == 0.0 => 1.0,
            BoxContent::Node(i) => share(i),
            BoxContent::Group(group) => {
                let shares = members.get(&group).into_iter().flatten();
                shares.map(|member| of_item.get(member).copied().unwrap_or(1.0)).fold(0.0, f64::max)
            }
            _ => 1.0,
        };
        let node_shares = layout.boxes.iter().map(node_share).collect();
        let importances = circuit.nodes.iter().map(|entry| importance.of(entry)).collect();
        let curves = layout.lines.iter().map(|line| curve(line, &layout)).collect();
        Self { circuit, layout, widths, items, shares, node_shares, importances, curves, boxes, members }
    }

    /// What a view shows of a circuit.
    pub fn of_view(circuit: &Circuit, view: &View) -> Self {
        let circuit = Circuit { annotations: Some(view.edits.annotations()), ..circuit.clone() };
        Self::new(&circuit, view.sublayer)
    }

    /// Moves groups to where these annotations have them, which are otherwise those of the scene.
    pub fn move_groups(&mut self, annotations: Annotations) {
        self.layout.move_groups(&annotations);
        for (line, points) in self.layout.lines.iter().zip(&mut self.curves) {
            if line.boxes.iter().any(|&number| self.layout.boxes[number].group.is_some()) {
                *points = curve(line, &self.layout);
            }
        }
        self.circuit.annotations = Some(annotations);
    }

    /// All items, from the bottom row to the top, then those within collapsed groups, then groups
    /// that are not collapsed.
    pub fn all(&self) -> impl Iterator<Item = Item> {
        let collapsed = |group: &usize| self.boxes.contains_key(&Item::Group(*group));
        let inside = self.members.iter().filter(move |(group, _)| collapsed(group)).flat_map(|(_, members)| members);
        let expanded = self.members.keys().filter(move |group| !collapsed(group)).map(|&group| Item::Group(group));
        self.items.iter().flatten().chain(inside).copied().chain(expanded)
    }

    /// The items of a group that the scene has.
    pub fn members(&self, group: usize) -> &[Item] {
        self.members.get(&group).map_or(&[], Vec::as_slice)
    }

    /// Where the members of a group are; nothing if it has none here.
    pub fn group(&self, number: usize) -> Option<&GroupFrame> {
        self.layout.groups.iter().find(|frame| frame.group == number)
    }

    /// The box of an item, or of the collapsed group that it is in.
    pub fn box_number(&self, item: Item) -> Option<usize> {
        self.boxes.get(&item).copied()
    }

    pub fn rect(&self, number: usize) -> Rect {
        let node_box @ NodeBox { x, top, bottom, .. } = &self.layout.boxes[number];
        let half = node_box.width() / 2.0;
        Rect::from_min_max(point(x - half, *top), point(x + half, *bottom))
    }

    /// Where an item is drawn: its box, or around the members of a group.
    pub fn place(&self, item: Item) -> Option<Rect> {
        let framed = |number| self.group(number).map(frame_rect);
        match item {
            Item::Group(number) => framed(number),
            item => self.box_number(item).map(|number| self.rect(number)),
        }
    }

    /// All of the picture.
    pub fn bounds(&self) -> Rect {
        let CircuitLayout { left, top, width, height, .. } = self.layout;
        Rect::from_min_size(point(left, top), vec(width, height))
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
            *share = line_share(line, &self.layout, &self.circuit, &widths);
        }
        Self { widths, ..self }
    }

    /// The items that a line joins; `None` for an edge of weight 0, which another checkpoint has.
    pub fn ends(&self, line: usize) -> Option<(Item, Item)> {
        let absent = |&i: &usize| self.circuit.edges[i].weight == 0.0;
        match self.layout.lines[line].kind {
            LineKind::Edge(i) if absent(&i) => return None,
            LineKind::Bundle(i) if self.layout.bundles[i].edges.iter().all(absent) => return None,
            _ => {}
        }
        let boxes = &self.layout.lines[line].boxes;
        let item = |number: Option<&usize>| self.items.get(*number?).copied().flatten();
        Some((item(boxes.first())?, item(boxes.last())?))
    }

    /// The circuit without what the view hides.
    pub fn visible(&self, view: &View) -> Circuit {
        let shown = self.shown(&View { selected: None, ..view.clone() });
        let mut gone = HashSet::new();
        for (line, _) in self.layout.lines.iter().zip(&shown.lines).filter(|(_, line)| **line == Emphasis::Hidden) {
            match line.kind {
                LineKind::Edge(i) => gone.extend([i]),
                LineKind::Bundle(i) => gone.extend(&self.layout.bundles[i].edges),
                LineKind::Channel(_) => {}
            }
        }
        let hidden = |item: Item| {
            view.edits.hidden.contains(&item)
                || self.box_number(item).is_some_and(|number| shown.boxes[number] == Emphasis::Hidden)
        };
        let mut circuit = self.circuit.clone();
        let mut number = 0..;
        circuit.edges.retain(|edge| {
            let kept = number.next().is_some_and(|i| !gone.contains(&i));
            kept && ![edge.from, edge.to].into_iter().any(|node| hidden(Item::Node(node)))
        });
        circuit.nodes.retain(|entry| !hidden(Item::Node(entry.node())));
        circuit.biases.retain(|bias| !hidden(Item::Node(bias.node)));
        circuit.embeddings.retain(|entry| !hidden(Item::Embedding(entry.channel)));
        circuit.unembeddings.retain(|entry| !hidden(Item::Unembedding(entry.channel)));
        circuit.counts = Counts::of(circuit.model.n_layer, &circuit.nodes, &circuit.edges, &circuit.biases);
        circuit
    }

    pub fn shown(&self, view: &View) -> Shown {
        let all_in = |items: &BTreeSet<Item>, item: Item| match item {
            Item::Group(group) => self.members(group).iter().all(|member| items.contains(member)),
            item => items.contains(&item),
        };
        let pinned = |item: Item| all_in(&view.edits.pinned, item);
        let hidden = |(item, &share): (&Option<Item>, &f64)| {
            let by_hand = |item| all_in(&view.edits.hidden, item);
            item.is_some_and(|item| by_hand(item) || (share < view.node_threshold && !pinned(item)))
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
        let selected = view.selected.map(|item| self.drawn_as(item)).unwrap_or_default();
        if !selected.is_empty() {
            let traced = self.trace(&selected, view.trace, &lines);
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

    /// The items whose boxes stand for one: itself, the collapsed group that it is in, or the members
    /// of a group. None if it is not drawn.
    fn drawn_as(&self, item: Item) -> Vec<Item> {
        match (self.box_number(item), item) {
            (Some(number), _) => self.items[number].into_iter().collect(),
            (None, Item::Group(group)) => self.members(group).to_vec(),
            (None, _) => Vec::new(),
        }
    }

    /// The items and lines that are reached from `start` along visible lines.
    fn trace(&self, start: &[Item], trace: Trace, lines: &[Emphasis]) -> Traced {
        let mut inputs: HashMap<Item, Vec<(usize, Item)>> = HashMap::new();
        let mut outputs: HashMap<Item, Vec<(usize, Item)>> = HashMap::new();
        for line in (0..lines.len()).filter(|&line| lines[line] != Emphasis::Hidden) {
            if let Some((from, to)) = self.ends(line) {
                inputs.entry(to).or_default().push((line, from));
                outputs.entry(from).or_default().push((line, to));
            }
        }
        let mut traced = Traced { items: start.iter().copied().collect(), lines: HashSet::new() };
        let far = trace != Trace::Neighbors;
        let ways = [(&inputs, trace != Trace::Downstream), (&outputs, trace != Trace::Upstream)];
        for way in ways.into_iter().filter_map(|(way, followed)| followed.then_some(way)) {
            let mut seen: HashSet<Item> = start.iter().copied().collect();
            let mut next: VecDeque<Item> = start.iter().copied().collect();
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

/// A line's share of the largest effect; 1 for a residual channel.
fn line_share(line: &Connector, layout: &CircuitLayout, circuit: &Circuit, widths: &Widths) -> f64 {
    match line.kind {
        LineKind::Edge(i) => widths.of(&circuit.edges[i]).powi(2),
        LineKind::Bundle(i) => widths.of(&layout.bundles[i].sum).powi(2),
        LineKind::Channel(_) => 1.0,
    }
}

/// The items of the annotations' groups that the circuit has; each in the first group that names it.
fn members(circuit: &Circuit) -> BTreeMap<usize, Vec<Item>> {
    let mut members: BTreeMap<usize, Vec<Item>> = BTreeMap::new();
    let Some(annotations) = circuit.annotations.as_ref().filter(|known| !known.groups.is_empty()) else {
        return members;
    };
    let nodes = circuit.nodes.iter().map(|entry| Item::Node(entry.node()));
    let channels = circuit.embeddings.iter().map(|entry| Item::Embedding(entry.channel));
    let channels = channels.chain(circuit.unembeddings.iter().map(|entry| Item::Unembedding(entry.channel)));
    for item in nodes.chain(channels) {
        if let Some(group) = annotations.group_of(&item.to_string()) {
            members.entry(group).or_default().push(item);
        }
    }
    members
}

/// Around the members of a group, in the layout.
fn frame_rect(frame: &GroupFrame) -> Rect {
    let [left, top, right, bottom] = frame.bounds;
    Rect::from_min_max(point(left, top), point(right, bottom)).expand(FRAME_PAD as f32)
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
