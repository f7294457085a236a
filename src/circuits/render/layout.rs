//! Where everything goes in a circuit's drawing: a row for each site, the embedding below, the
//! unembedding above.
//!
//! Residual channels that pass a row get a bend in it, so that their lines run between the boxes.
//! Positions are found in sweeps: the targets of a row's members are the means of their neighbours
//! in the rows before, and the row gets the nearest arrangement in that order without overlaps.
//!
//! A collapsed group is one box, in the row of the middle one of its members; what joins it to the
//! same other box is one line. Groups that were moved are moved last, which changes nothing else.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::residual::{ResidualUser, threads};
use crate::circuits::annotations::Annotations;
use crate::circuits::file::{Circuit, EdgeEntry};
use crate::circuits::nodes::{Node, NodeKind};

/// A node's box.
pub const BOX: (f64, f64) = (46.0, 24.0);
/// A box of the embedding or unembedding, without its tokens.
pub const TOKEN_BOX: (f64, f64) = (92.0, 20.0);
/// The box of a collapsed group.
pub const GROUP_BOX: (f64, f64) = (168.0, 24.0);
/// How far a group's frame is from its members.
pub const FRAME_PAD: f64 = 9.0;
/// How many tokens a box of the embedding or unembedding lists.
pub const TOKENS: usize = 3;
/// The height of a listed token.
pub const TOKEN_LINE: f64 = 13.0;
/// A head's label, above its nodes.
pub const GROUP_LABEL: f64 = 15.0;
/// The padding between a head's frame and its nodes.
pub const GROUP_PAD: f64 = 6.0;

const GAP: f64 = 12.0;
const LEVEL_GAP: f64 = 6.0;
const ROW_GAP: f64 = 44.0;
const BEND: f64 = 9.0;
/// Rows of more nodes than this are stacked.
const COLUMNS: usize = 20;
const SWEEPS: usize = 16;

/// A row of the drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// The embedding, through which tokens write channels.
    Embedding,
    /// The layer, and the first of the sites that share the row.
    Site(usize, NodeKind),
    /// The residual stream after the last layer.
    FinalResid,
    /// The unembedding, which channels write tokens through.
    Unembedding,
}

impl RowKey {
    /// What is in the row.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Site(_, NodeKind::AttnQ) => "attn.q, k, v",
            Self::Site(_, kind) => kind.name(),
            Self::FinalResid => NodeKind::FinalResid.name(),
            Self::Unembedding => "unembedding",
        }
    }

    /// The layer that it belongs to.
    pub fn layer(self) -> Option<usize> {
        if let Self::Site(layer, _) = self { Some(layer) } else { None }
    }
}

/// What a box holds; the numbers are positions in the circuit's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoxContent {
    /// One of the circuit's nodes.
    Node(usize),
    /// A residual channel that the embedding writes.
    Embedding(usize),
    /// A residual channel that the unembedding reads.
    Unembedding(usize),
    /// A collapsed group: its number, in the order of names.
    Group(usize),
    /// Nothing: a line passes.
    Bend,
}

/// A box in the drawing; y grows downwards.
#[derive(Clone, Debug)]
pub struct NodeBox {
    /// What is there.
    pub content: BoxContent,
    /// Its centre.
    pub x: f64,
    /// Where it begins.
    pub top: f64,
    /// Where it ends.
    pub bottom: f64,
    /// The group that it is in, or that it stands for.
    pub group: Option<usize>,
    row: usize,
    /// The head, and whether query, key or value.
    head: Option<(usize, NodeKind)>,
    level: usize,
}

impl NodeBox {
    fn new(content: BoxContent, row: usize, head: Option<(usize, NodeKind)>, group: Option<usize>) -> Self {
        Self { content, x: 0.0, top: 0.0, bottom: 0.0, group, row, head, level: 0 }
    }

    /// How wide it is.
    pub fn width(&self) -> f64 {
        match self.content {
            BoxContent::Node(_) => BOX.0,
            BoxContent::Embedding(_) | BoxContent::Unembedding(_) => TOKEN_BOX.0,
            BoxContent::Group(_) => GROUP_BOX.0,
            BoxContent::Bend => 0.0,
        }
    }
}

/// What a line represents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// A weight: a position in the circuit's edges.
    Edge(usize),
    /// A residual channel.
    Channel(usize),
    /// All weights between a collapsed group and another box: a position in
    /// [`CircuitLayout::bundles`].
    Bundle(usize),
}

/// The weights between two boxes of which at least one is a collapsed group.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeBundle {
    /// Positions in the circuit's edges.
    pub edges: Vec<usize>,
    /// The sums of their weights and effects, with the ends of the first of them.
    pub sum: EdgeEntry,
}

/// A line through some boxes, upwards.
#[derive(Clone, Debug)]
pub struct Connector {
    /// What it represents.
    pub kind: LineKind,
    /// Where it passes: positions in [`CircuitLayout::boxes`].
    pub boxes: Vec<usize>,
}

/// A row of boxes.
#[derive(Clone, Debug)]
pub struct SiteRow {
    /// What is in it.
    pub key: RowKey,
    /// Where it begins.
    pub top: f64,
    /// Where it ends.
    pub bottom: f64,
}

/// The frame around the queries, keys and values of one head.
#[derive(Clone, Debug)]
pub struct HeadFrame {
    /// The head's number.
    pub head: usize,
    /// Where it begins.
    pub left: f64,
    /// Where it ends.
    pub right: f64,
    /// The position of its row in [`CircuitLayout::rows`].
    pub row: usize,
}

/// Where the members of a group are that has any in the drawing.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupFrame {
    /// Its number, in the order of names.
    pub group: usize,
    /// How many nodes of the circuit are in it.
    pub nodes: usize,
    /// How many channels of the embedding and the unembedding are in it.
    pub channels: usize,
    /// Whether it is drawn as one box.
    pub collapsed: bool,
    /// Around its members, or its box: left, top, right and bottom.
    pub bounds: [f64; 4],
}

/// A laid out circuit.
#[derive(Clone, Debug, Default)]
pub struct CircuitLayout {
    /// Where it begins: at 0, or further left if a group was moved there.
    pub left: f64,
    /// Where it begins: at 0, or further up if a group was moved there.
    pub top: f64,
    /// How wide it is.
    pub width: f64,
    /// How high it is.
    pub height: f64,
    /// From the bottom to the top.
    pub rows: Vec<SiteRow>,
    /// Nodes, channels and bends.
    pub boxes: Vec<NodeBox>,
    /// Edges and residual channels.
    pub lines: Vec<Connector>,
    /// What lines of collapsed groups sum.
    pub bundles: Vec<EdgeBundle>,
    /// Around the nodes of heads, without those that were moved with a group.
    pub frames: Vec<HeadFrame>,
    /// In the order of their numbers.
    pub groups: Vec<GroupFrame>,
    /// Without what was moved: width and height.
    arranged: [f64; 2],
    /// How far groups were moved.
    offsets: BTreeMap<usize, [f64; 2]>,
}

/// What annotations call an item.
fn item_name(circuit: &Circuit, content: BoxContent) -> String {
    match content {
        BoxContent::Node(i) => circuit.nodes[i].node().to_string(),
        BoxContent::Embedding(i) => format!("embedding[{}]", circuit.embeddings[i].channel),
        BoxContent::Unembedding(i) => format!("unembedding[{}]", circuit.unembeddings[i].channel),
        BoxContent::Group(_) | BoxContent::Bend => String::new(),
    }
}

/// A box to place: its row, content, head and group.
type Placed = (RowKey, BoxContent, Option<(usize, NodeKind)>, Option<usize>);

/// The boxes of the circuit's items; members of a collapsed group have that of the group.
#[derive(Default)]
struct ItemBoxes {
    nodes: HashMap<Node, usize>,
    channels: HashMap<(ResidualUser, usize), usize>,
}

impl ItemBoxes {
    fn insert(&mut self, circuit: &Circuit, content: BoxContent, number: usize) {
        match content {
            BoxContent::Node(i) => drop(self.nodes.insert(circuit.nodes[i].node(), number)),
            BoxContent::Embedding(i) => {
                self.channels.insert((ResidualUser::Embedding, circuit.embeddings[i].channel), number);
            }
            BoxContent::Unembedding(i) => {
                self.channels.insert((ResidualUser::Unembedding, circuit.unembeddings[i].channel), number);
            }
            BoxContent::Group(_) | BoxContent::Bend => {}
        }
    }

    fn of(&self, user: ResidualUser, channel: usize) -> Option<usize> {
        match user {
            ResidualUser::Node(node) => self.nodes.get(&node).copied(),
            tokens => self.channels.get(&(tokens, channel)).copied(),
        }
    }
}

impl CircuitLayout {
    /// Lays out a circuit whose lists are in order ([`Circuit::normalised`]), with its annotations'
    /// groups.
    pub fn new(circuit: &Circuit) -> Self {
        let mut layout = Self::default();
        let boxes = layout.place_boxes(circuit);
        layout.draw_lines(circuit, &boxes);
        layout.arrange();
        layout.stack();
        layout.arranged = [layout.width, layout.height];
        layout.frame();
        if let Some(annotations) = &circuit.annotations {
            layout.move_groups(annotations);
        }
        layout
    }

    /// Moves groups to where annotations have them, which must be those of the circuit but for
    /// [`Annotations::offsets`].
    pub fn move_groups(&mut self, annotations: &Annotations) {
        let offset = |name: &String| annotations.offsets.get(name).copied().unwrap_or_default();
        let offsets: BTreeMap<usize, [f64; 2]> = annotations.groups.keys().map(offset).enumerate().collect();
        for node_box in &mut self.boxes {
            let Some(group) = node_box.group else { continue };
            let [old, new] = [&self.offsets, &offsets].map(|all| all.get(&group).copied().unwrap_or_default());
            node_box.x += new[0] - old[0];
            node_box.top += new[1] - old[1];
            node_box.bottom += new[1] - old[1];
        }
        self.offsets = offsets;
        self.frame();
        self.enclose();
    }

    /// Finds the bounds, and those of groups.
    fn enclose(&mut self) {
        let [mut right, mut bottom] = self.arranged;
        (self.left, self.top) = (0.0, 0.0);
        for frame in &mut self.groups {
            frame.bounds = [f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY];
        }
        for node_box in &self.boxes {
            let Some(group) = node_box.group else { continue };
            let half = node_box.width() / 2.0;
            let bounds = [node_box.x - half, node_box.top, node_box.x + half, node_box.bottom];
            (self.left, self.top) = (self.left.min(bounds[0] - GROUP_PAD), self.top.min(bounds[1]));
            (right, bottom) = (right.max(bounds[2] + GROUP_PAD), bottom.max(bounds[3]));
            if let Some(frame) = self.groups.iter_mut().find(|frame| frame.group == group) {
                let [left, top, right, bottom] = frame.bounds;
                frame.bounds = [left.min(bounds[0]), top.min(bounds[1]), right.max(bounds[2]), bottom.max(bounds[3])];
            }
        }
        (self.width, self.height) = (right - self.left, bottom - self.top);
    }

    /// A line as the path of an SVG, upwards from the top of its first box to the bottom of its
    /// last.
    pub fn path(&self, line: &Connector) -> String {
        let boxes: Vec<_> = line.boxes.iter().map(|&i| &self.boxes[i]).collect();
        let mut path = String::new();
        for pair in boxes.windows(2) {
            let ((x, y), (to_x, to_y)) = ((pair[0].x, pair[0].top), (pair[1].x, pair[1].bottom));
            let pull = ((y - to_y) * 0.5).max(12.0);
            let (start, out, into) = (format!("{x:.1} {y:.1}"), y - pull, to_y + pull);
            path.push_str(&if path.is_empty() { format!("M{start}") } else { format!(" L{start}") });
            path.push_str(&format!(" C{x:.1} {out:.1} {to_x:.1} {into:.1} {to_x:.1} {to_y:.1}"));
        }
        path
    }

    /// Makes rows and boxes. Returns where the circuit's items are.
    fn place_boxes(&mut self, circuit: &Circuit) -> ItemBoxes {
        let mut placed = placed(circuit);
        placed.sort_by_key(|&(key, ..)| key);
        let hidden = self.collapse(circuit, &mut placed);
        placed.sort_by_key(|&(key, ..)| key);
        let mut boxes = ItemBoxes::default();
        for (key, content, head, group) in placed {
            if self.rows.last().is_none_or(|row| row.key != key) {
                self.rows.push(SiteRow { key, top: 0.0, bottom: 0.0 });
            }
            let number = self.boxes.len();
            boxes.insert(circuit, content, number);
            if let BoxContent::Group(group) = content {
                hidden.iter().filter(|(of, _)| *of == group).for_each(|&(_, member)| {
                    boxes.insert(circuit, member, number);
                });
            }
            self.boxes.push(NodeBox::new(content, self.rows.len() - 1, head, group));
        }
        boxes
    }

    /// Counts the members of groups, and puts one box in the place of those that are collapsed.
    /// Returns what these boxes stand for, with the groups' numbers.
    fn collapse(&mut self, circuit: &Circuit, placed: &mut Vec<Placed>) -> Vec<(usize, BoxContent)> {
        let Some(annotations) = &circuit.annotations else { return Vec::new() };
        let mut hidden = Vec::new();
        for (group, name) in annotations.groups.keys().enumerate() {
            let members: Vec<_> = placed.iter().filter(|(.., of)| *of == Some(group)).copied().collect();
            let Some(&(middle, ..)) = members.get(members.len().saturating_sub(1) / 2) else { continue };
            let nodes = members.iter().filter(|(_, content, ..)| matches!(content, BoxContent::Node(_))).count();
            let collapsed = annotations.collapsed.contains(name);
            let channels = members.len() - nodes;
            self.groups.push(GroupFrame { group, nodes, channels, collapsed, bounds: [0.0; 4] });
            if collapsed {
                placed.retain(|(.., of)| *of != Some(group));
                placed.push((middle, BoxContent::Group(group), None, Some(group)));
                hidden.extend(members.into_iter().map(|(_, content, ..)| (group, content)));
            }
        }
        hidden
    }

    fn draw_lines(&mut self, circuit: &Circuit, boxes: &ItemBoxes) {
        let collapsed: Vec<bool> =
            self.boxes.iter().map(|node_box| matches!(node_box.content, BoxContent::Group(_))).collect();
        let mut bundles: BTreeMap<(usize, usize), EdgeBundle> = BTreeMap::new();
        for (i, edge) in circuit.edges.iter().enumerate() {
            let (Some(&from), Some(&to)) = (boxes.nodes.get(&edge.from), boxes.nodes.get(&edge.to)) else { continue };
            if !collapsed[from] && !collapsed[to] {
                self.lines.push(Connector { kind: LineKind::Edge(i), boxes: vec![from, to] });
            } else if from != to {
                let nothing = EdgeEntry { weight: 0.0, effect: 0.0, ..edge.clone() };
                let bundle = bundles.entry((from, to)).or_insert(EdgeBundle { edges: Vec::new(), sum: nothing });
                bundle.edges.push(i);
                bundle.sum.weight += edge.weight;
                bundle.sum.effect += edge.effect;
            }
        }
        for ((from, to), bundle) in bundles {
            self.connect(LineKind::Bundle(self.bundles.len()), from, to);
            self.bundles.push(bundle);
        }
        let mut drawn = HashSet::new();
        for (channel, from, to) in threads(circuit) {
            let (Some(from), Some(to)) = (boxes.of(from, channel), boxes.of(to, channel)) else { continue };
            // Within a collapsed group, or between two of them once more.
            if from != to && drawn.insert((channel, from, to)) {
                self.connect(LineKind::Channel(channel), from, to);
            }
        }
    }

    /// Adds a line that bends in the rows that it passes.
    fn connect(&mut self, kind: LineKind, from: usize, to: usize) {
        let mut boxes = vec![from];
        for row in self.boxes[from].row + 1..self.boxes[to].row {
            boxes.push(self.boxes.len());
            self.boxes.push(NodeBox::new(BoxContent::Bend, row, None, None));
        }
        boxes.push(to);
        self.lines.push(Connector { kind, boxes });
    }

    /// Finds the `x` of every box.
    fn arrange(&mut self) {
        let mut members = vec![Vec::new(); self.rows.len()];
        for (i, node_box) in self.boxes.iter().enumerate() {
            members[node_box.row].push(i);
        }
        let (mut below, mut above) = (vec![Vec::new(); self.boxes.len()], vec![Vec::new(); self.boxes.len()]);
        for pair in self.lines.iter().flat_map(|line| line.boxes.windows(2)) {
            below[pair[1]].push(pair[0]);
            above[pair[0]].push(pair[1]);
        }
        for row in &members {
            for (position, &i) in row.iter().enumerate() {
                self.boxes[i].x = (position as f64 - row.len() as f64 / 2.0) * (BOX.0 + GAP);
            }
            self.arrange_row(row);
        }
        for sweep in 0..SWEEPS {
            let upwards = sweep % 2 == 0;
            // In the last sweeps the neighbours on both sides count, which straightens lines once
            // the order is settled.
            let last = sweep + 4 >= SWEEPS;
            for step in 0..members.len() {
                let row = &members[if upwards { step } else { members.len() - 1 - step }];
                for &i in row {
                    let (near, far) = if upwards { (&below[i], &above[i]) } else { (&above[i], &below[i]) };
                    let pulls: Vec<_> = near.iter().chain(far.iter().filter(|_| last)).collect();
                    if !pulls.is_empty() {
                        self.boxes[i].x = pulls.iter().map(|&&j| self.boxes[j].x).sum::<f64>() / pulls.len() as f64;
                    }
                }
                self.arrange_row(row);
            }
        }
        let half = |node_box: &NodeBox| breadth(node_box) / 2.0 + GROUP_PAD;
        let left = self.boxes.iter().map(|node_box| node_box.x - half(node_box)).fold(f64::INFINITY, f64::min);
        self.boxes.iter_mut().for_each(|node_box| node_box.x -= left);
        self.width = self.boxes.iter().map(|node_box| node_box.x + half(node_box)).fold(0.0, f64::max);
    }

    /// Moves the members of a row apart, as little as possible, in the order of their targets.
    /// Nodes of one head stay together.
    fn arrange_row(&mut self, row: &[usize]) {
        let boxes = row.iter().filter(|&&i| self.boxes[i].content != BoxContent::Bend).count();
        let levels = boxes.div_ceil(COLUMNS).max(1);
        let mut target = row.to_vec();
        target.sort_by(|&a, &b| self.boxes[a].x.total_cmp(&self.boxes[b].x).then(a.cmp(&b)));

        let mut blocks = Vec::new();
        let mut heads: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut loose = Vec::new();
        for i in target {
            match (self.boxes[i].content, self.boxes[i].head) {
                (BoxContent::Bend | BoxContent::Group(_), _) => blocks.push(self.block(vec![vec![i]])),
                (_, Some((head, _))) => heads.entry(head).or_default().push(i),
                (_, None) => loose.push(i),
            }
        }
        blocks.extend(loose.chunks(levels).map(|column| self.block(vec![column.to_vec()])));
        for mut members in heads.into_values() {
            members.sort_by_key(|&i| self.boxes[i].head);
            let kinds = members.chunk_by(|&a, &b| self.boxes[a].head == self.boxes[b].head);
            blocks.push(self.block(kinds.flat_map(|kind| kind.chunks(levels)).map(<[usize]>::to_vec).collect()));
        }

        blocks.sort_by(|a, b| a.target.total_cmp(&b.target));
        let sizes: Vec<_> = blocks.iter().map(|block| (block.target, block.width)).collect();
        for (centre, Block { columns, pitch, .. }) in without_overlaps(&sizes).into_iter().zip(&blocks) {
            let left = centre - pitch * (columns.len() as f64 - 1.0) / 2.0;
            for (position, members) in columns.iter().enumerate() {
                for (level, &i) in members.iter().enumerate() {
                    self.boxes[i].x = left + pitch * position as f64;
                    self.boxes[i].level = level;
                }
            }
        }
    }

    fn block(&self, columns: Vec<Vec<usize>>) -> Block {
        let members = columns.iter().map(Vec::len).sum::<usize>() as f64;
        let target = columns.iter().flatten().map(|&i| self.boxes[i].x).sum::<f64>() / members;
        let first = &self.boxes[columns[0][0]];
        let pad = if first.head.is_some() { 2.0 * GROUP_PAD } else { 0.0 };
        let pitch = breadth(first) + if first.content == BoxContent::Bend { 0.0 } else { GAP };
        Block { target, width: pitch * columns.len() as f64 + pad, pitch, columns }
    }

    /// Finds the heights, from the top row down.
    fn stack(&mut self) {
        let mut levels = vec![1; self.rows.len()];
        for node_box in &self.boxes {
            levels[node_box.row] = levels[node_box.row].max(node_box.level + 1);
        }
        let mut y = 0.0;
        for (row, &levels) in self.rows.iter_mut().zip(&levels).rev() {
            let levels = levels as f64;
            row.top = y;
            row.bottom = y + level_height(row.key) * levels + LEVEL_GAP * (levels - 1.0) + label_height(row.key);
            y = row.bottom + ROW_GAP;
        }
        self.height = (y - ROW_GAP).max(0.0);
        for node_box in &mut self.boxes {
            let row = &self.rows[node_box.row];
            let level = level_height(row.key);
            (node_box.top, node_box.bottom) = match node_box.content {
                BoxContent::Bend => (row.top, row.bottom),
                BoxContent::Group(_) if row.key == RowKey::Unembedding => (row.bottom - GROUP_BOX.1, row.bottom),
                BoxContent::Group(_) => {
                    let top = row.top + label_height(row.key);
                    (top, top + GROUP_BOX.1)
                }
                _ => {
                    let top = row.top + label_height(row.key) + (level + LEVEL_GAP) * node_box.level as f64;
                    (top, top + level)
                }
            };
        }
    }

    /// Frames the nodes of heads.
    fn frame(&mut self) {
        self.frames.clear();
        let moved = |group| self.offsets.get(&group).is_some_and(|by| *by != [0.0; 2]);
        for node_box in self.boxes.iter().filter(|node_box| !node_box.group.is_some_and(moved)) {
            let Some((head, _)) = node_box.head else { continue };
            let (left, right) = (node_box.x - BOX.0 / 2.0 - GROUP_PAD, node_box.x + BOX.0 / 2.0 + GROUP_PAD);
            match self.frames.iter_mut().find(|frame| (frame.row, frame.head) == (node_box.row, head)) {
                Some(frame) => (frame.left, frame.right) = (frame.left.min(left), frame.right.max(right)),
                None => self.frames.push(HeadFrame { head, left, right, row: node_box.row }),
            }
        }
    }
}

/// Columns of boxes that move together: a bend, a column of boxes, or a head with its queries, keys
/// and values.
struct Block {
    /// Where its centre should be.
    target: f64,
    width: f64,
    /// From the centre of a column to that of the next.
    pitch: f64,
    /// Positions of boxes, from the top of each column.
    columns: Vec<Vec<usize>>,
}

/// The row of a node: queries, keys and values share one.
fn row_of(node: Node) -> RowKey {
    let kind = if node.kind.has_heads() { NodeKind::AttnQ } else { node.kind };
    node.layer.map_or(RowKey::FinalResid, |layer| RowKey::Site(layer, kind))
}

/// What the circuit's items need to be placed, from the embedding to the unembedding.
fn placed(circuit: &Circuit) -> Vec<Placed> {
    let nodes = circuit.nodes.iter().enumerate().map(|(i, entry)| {
        let head = entry.head.map(|head| (head, entry.kind));
        (row_of(entry.node()), BoxContent::Node(i), head)
    });
    let boxes = |list: usize, key, content: fn(usize) -> BoxContent| (0..list).map(move |i| (key, content(i), None));
    let all = boxes(circuit.embeddings.len(), RowKey::Embedding, BoxContent::Embedding).chain(nodes).chain(boxes(
        circuit.unembeddings.len(),
        RowKey::Unembedding,
        BoxContent::Unembedding,
    ));
    let annotations = circuit.annotations.as_ref().filter(|annotations| !annotations.groups.is_empty());
    let group = |content| annotations?.group_of(&item_name(circuit, content));
    all.map(|(key, content, head)| (key, content, head, group(content))).collect()
}

/// How much of a row a box takes.
fn breadth(node_box: &NodeBox) -> f64 {
    if node_box.content == BoxContent::Bend { BEND } else { node_box.width() }
}

fn level_height(key: RowKey) -> f64 {
    match key {
        RowKey::Site(..) | RowKey::FinalResid => BOX.1,
        RowKey::Embedding | RowKey::Unembedding => TOKEN_BOX.1 + TOKEN_LINE * TOKENS as f64,
    }
}

fn label_height(key: RowKey) -> f64 {
    if matches!(key, RowKey::Site(_, NodeKind::AttnQ)) { GROUP_LABEL } else { 0.0 }
}

/// Centres for items of (target centre, width) in this order without overlaps: those with the least
/// squared distance from the targets (isotonic regression by pooling adjacent violators).
fn without_overlaps(things: &[(f64, f64)]) -> Vec<f64> {
    // Measured from their positions when packed, centres must not decrease.
    let mut packed = Vec::with_capacity(things.len());
    let mut left = 0.0;
    for &(_, width) in things {
        packed.push(left + width / 2.0);
        left += width;
    }
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (&(target, _), packed) in things.iter().zip(&packed) {
        let mut pool = (target - packed, 1);
        while let Some(&(mean, members)) = pools.last()
            && mean > pool.0
        {
            pools.pop();
            let total = mean * members as f64 + pool.0 * pool.1 as f64;
            pool = (total / (members + pool.1) as f64, members + pool.1);
        }
        pools.push(pool);
    }
    let shifts = pools.into_iter().flat_map(|(mean, members)| std::iter::repeat_n(mean, members));
    shifts.zip(packed).map(|(shift, packed)| shift + packed).collect()
}

#[cfg(test)]
mod tests {
    use super::without_overlaps;

    #[test]
    fn things_stay_where_they_want_to_be_unless_they_overlap() {
        assert!(without_overlaps(&[]).is_empty());
        assert_eq!(without_overlaps(&[(0.0, 10.0), (30.0, 20.0)]), [0.0, 30.0]);
        // Two of width 10 with one target share the distance; a third is pushed along.
        assert_eq!(without_overlaps(&[(5.0, 10.0), (5.0, 10.0)]), [0.0, 10.0]);
        assert_eq!(without_overlaps(&[(5.0, 10.0), (5.0, 10.0), (5.0, 10.0), (90.0, 4.0)]), [-5.0, 5.0, 15.0, 90.0]);
    }
}
