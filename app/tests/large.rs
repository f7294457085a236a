//! A circuit of 600 nodes and 3,000 edges can still be read.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use common::{Window, open, press};
use eframe::egui::{Key, Modifiers, Rect};
use egui_kittest::kittest::{NodeT, Queryable};
use gossamer::circuits::layout::{BOX, BoxContent, CircuitLayout};
use gossamer::circuits::{Annotations, Circuit, Counts, EdgeEntry, Node, NodeEntry, NodeKind};
use gossamer_explorer::document::Document;
use gossamer_explorer::scene::{Emphasis, Scene};
use gossamer_explorer::view::View;

/// The nodes of each of four layers, by kind; 150 in all.
const NODES: [(NodeKind, usize); 8] = [
    (NodeKind::AttnIn, 20),
    (NodeKind::AttnQ, 10),
    (NodeKind::AttnK, 10),
    (NodeKind::AttnV, 20),
    (NodeKind::AttnOut, 20),
    (NodeKind::MlpIn, 20),
    (NodeKind::MlpNeuron, 30),
    (NodeKind::MlpOut, 20),
];
/// The edges of each layer, by the kinds of their ends; 750 in all.
const EDGES: [(NodeKind, NodeKind, usize); 6] = [
    (NodeKind::AttnIn, NodeKind::AttnQ, 60),
    (NodeKind::AttnIn, NodeKind::AttnK, 60),
    (NodeKind::AttnIn, NodeKind::AttnV, 130),
    (NodeKind::AttnV, NodeKind::AttnOut, 120),
    (NodeKind::MlpIn, NodeKind::MlpNeuron, 190),
    (NodeKind::MlpNeuron, NodeKind::MlpOut, 190),
];

/// Numbers that look random, from 0 to 1.
struct Draw(u64);

impl Draw {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as f64 / f64::from(1u32 << 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.unit() * count as f64) as usize
    }
}

/// In a model of four layers, with few large effects and many small ones, as measured circuits have.
fn large() -> Circuit {
    let (mut circuit, mut draw) = (Document::example().unwrap().circuit, Draw(7));
    (circuit.nodes, circuit.edges, circuit.biases) = Default::default();
    circuit.model.n_layer = 4;
    for layer in 0..4 {
        let mut nodes: BTreeMap<NodeKind, Vec<Node>> = BTreeMap::new();
        for (kind, count) in NODES {
            let width = circuit.model.width(kind);
            let mut chosen = BTreeSet::new();
            while chosen.len() < count {
                chosen.insert(draw.below(width));
            }
            let node = |index| Node { layer: Some(layer), kind, index };
            nodes.insert(kind, chosen.into_iter().map(node).collect());
        }
        let entry =
            |node: &Node| NodeEntry { ablation_delta: draw.unit().powi(6), ..NodeEntry::new(*node, &circuit.model) };
        let entries: Vec<_> = nodes.values().flatten().map(entry).collect();
        circuit.nodes.extend(entries);
        for (from, to, count) in EDGES {
            let mut ends = BTreeSet::new();
            while ends.len() < count {
                ends.insert((nodes[&from][draw.below(nodes[&from].len())], nodes[&to][draw.below(nodes[&to].len())]));
            }
            let edge = |(from, to)| EdgeEntry { from, to, weight: draw.unit() - 0.5, effect: draw.unit().powi(8) };
            circuit.edges.extend(ends.into_iter().map(edge));
        }
    }
    circuit.counts = Counts::of(4, &circuit.nodes, &circuit.edges, &circuit.biases);
    circuit.normalised()
}

fn saved(folder: &Path) -> PathBuf {
    let file = folder.join("large.json");
    large().save(&file).unwrap();
    file
}

#[test]
fn it_has_the_size_that_it_is_to_have() {
    let circuit = large();
    assert_eq!((circuit.nodes.len(), circuit.edges.len()), (600, 3000));
}

#[test]
fn no_two_boxes_overlap() {
    let layout = CircuitLayout::new(&large());
    let boxes: Vec<_> = layout.boxes.iter().filter(|node_box| node_box.content != BoxContent::Bend).collect();
    assert!(boxes.len() >= 600);
    for (number, a) in boxes.iter().enumerate() {
        for b in &boxes[number + 1..] {
            let beside = (a.x - b.x).abs() >= (a.width() + b.width()) / 2.0;
            assert!(beside || a.top >= b.bottom || b.top >= a.bottom, "{:?} and {:?}", a.content, b.content);
        }
    }
}

#[test]
fn names_can_be_read_and_any_node_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = open(&saved(folder.path()));
    let canvas = harness.get_by_label("the circuit").rect();
    let boxes = |harness: &Window| -> Vec<(String, Rect)> {
        let nodes = harness.query_all_by_label_contains("[").map(|node| (node.accesskit_node().label(), node.rect()));
        nodes.filter_map(|(name, rect)| Some((name?, rect))).filter(|(_, rect)| canvas.contains_rect(*rect)).collect()
    };
    let first = boxes(&harness);
    let whole = first.iter().filter(|(name, _)| !name.contains("embedding")).map(|(_, rect)| rect.width());
    let scale = whole.fold(0.0, f32::max) / BOX.0 as f32;
    // Names are 11 units high.
    assert!(scale * 11.0 >= 8.0, "names are {} points high", scale * 11.0);
    assert!(first.len() >= 20, "{} boxes at the start", first.len());
    for entry in large().nodes.iter().step_by(67) {
        let name = entry.node().to_string();
        press(&mut harness, Modifiers::COMMAND, Key::F);
        harness.get_by_label("Find").type_text(&name);
        harness.run();
        press(&mut harness, Modifiers::NONE, Key::Enter);
        let (_, found) = boxes(&harness).into_iter().find(|(other, _)| *other == name).expect("it is in the window");
        assert!((found.width() / BOX.0 as f32 - scale).abs() < 1e-3, "{name}");
    }
}

#[test]
fn thresholds_leave_what_matters() {
    let scene = Scene::new(&large(), None);
    let lines = |view: &View| scene.shown(view).lines.iter().filter(|line| **line != Emphasis::Hidden).count();
    let (all, strong) = (lines(&View::default()), lines(&View { threshold: 0.1, ..View::default() }));
    assert!(strong * 2 < all, "{strong} of {all} lines");
    let few = scene.visible(&View { node_threshold: 0.1, ..View::default() });
    assert!(few.nodes.len() * 2 < 600 && !few.edges.is_empty(), "{} nodes", few.nodes.len());
}

#[test]
fn collapsed_layers_fit_into_the_window() {
    let folder = tempfile::tempdir().unwrap();
    let file = saved(folder.path());
    let mut annotations = Annotations::default();
    for layer in 0..4 {
        let within = large().nodes.into_iter().map(|entry| entry.node()).filter(|node| node.layer == Some(layer));
        annotations.groups.insert(format!("layer {layer}"), within.map(|node| node.to_string()).collect());
        annotations.collapsed.insert(format!("layer {layer}"));
    }
    annotations.save(&Annotations::path(&file)).unwrap();
    let harness = open(&file);
    let canvas = harness.get_by_label("the circuit").rect();
    for layer in 0..4 {
        let group = harness.get_by_label(&format!("group layer {layer}")).rect();
        assert!(canvas.contains_rect(group) && group.height() >= 18.0, "{group}");
    }
    assert!(fs::metadata(&file).unwrap().len() < 1_000_000);
}
