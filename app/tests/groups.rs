//! Groups: selected, collapsed and moved as one.

mod common;

use std::path::{Path, PathBuf};

use common::{Window, click, open, press};
use eframe::egui::{Key, Modifiers, Rect, Vec2, vec2};
use egui_kittest::kittest::{NodeT, Queryable};
use gossamer::circuits::layout::{BOX, GROUP_BOX};
use gossamer::circuits::{Annotations, Circuit, Node, svg};
use gossamer_explorer::document::Document;
use gossamer_explorer::item::Item;
use gossamer_explorer::view::Edits;

const GROUP: &str = "group the quotes";

/// Two nodes of the example with an edge from the first to the second.
fn members() -> [Node; 2] {
    let edge = Document::example().unwrap().circuit.edges[0].clone();
    [edge.from, edge.to]
}

/// The example's file with a group of these.
fn file(folder: &Path) -> PathBuf {
    let file = folder.join("quotes.json");
    Document::example().unwrap().circuit.save(&file).unwrap();
    let mut annotations = Annotations::default();
    annotations.groups.insert("the quotes".into(), members().map(|node| node.to_string()).into());
    annotations.save(&Annotations::path(&file)).unwrap();
    file
}

fn edits(harness: &Window) -> Edits {
    harness.state().view().unwrap().edits.clone()
}

/// Where the drawing has something of that name.
fn drawn(harness: &Window, name: &str) -> Option<Rect> {
    let canvas = harness.get_by_label("the circuit").rect();
    harness.query_all_by_label(name).map(|node| node.rect()).find(|rect| canvas.contains_rect(*rect))
}

/// Drags from the middle of `at`.
fn drag(harness: &mut Window, at: Rect, by: Vec2) {
    harness.drag_at(at.center());
    harness.step();
    harness.hover_at(at.center() + by / 2.0);
    harness.step();
    harness.hover_at(at.center() + by);
    harness.step();
    harness.drop_at(at.center() + by);
    harness.run();
}

#[test]
fn a_click_on_its_name_selects_a_group_and_a_key_collapses_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = open(&file(folder.path()));
    click(&mut harness, GROUP);
    assert_eq!(harness.state().view().unwrap().selected, Some(Item::Group(0)));
    let [from, to] = members().map(|node| node.to_string());
    assert!(drawn(&harness, &from).is_some() && drawn(&harness, &to).is_some());
    press(&mut harness, Modifiers::NONE, Key::G);
    assert!(drawn(&harness, &from).is_none() && drawn(&harness, &to).is_none());
    let [group, other] = [GROUP.to_string(), other().to_string()].map(|name| drawn(&harness, &name).unwrap());
    assert!((group.width() / other.width() - (GROUP_BOX.0 / BOX.0) as f32).abs() < 0.01, "{group} {other}");
    press(&mut harness, Modifiers::COMMAND, Key::Z);
    assert!(drawn(&harness, &from).is_some() && edits(&harness).collapsed.is_empty());
}

/// A node that is not in the group.
fn other() -> Node {
    let nodes = Document::example().unwrap().circuit.nodes;
    nodes.iter().map(|entry| entry.node()).find(|node| !members().contains(node)).unwrap()
}

#[test]
fn the_panel_lists_what_a_collapsed_group_sums() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = open(&file(folder.path()));
    click(&mut harness, GROUP);
    harness.get_by_label("2 members");
    click(&mut harness, "collapse");
    harness.run();
    let circuit = Document::example().unwrap().circuit;
    let outside = circuit.edges.iter().filter(|edge| {
        let inside = [edge.from, edge.to].map(|node| members().contains(&node));
        inside[0] != inside[1]
    });
    let listed = harness.query_all_by_label_contains("in all").map(|node| {
        let text = node.accesskit_node().label().unwrap();
        let count = text.split("   ").nth(1).unwrap().split(' ').next().unwrap();
        count.parse::<usize>().unwrap()
    });
    assert_eq!(listed.sum::<usize>(), outside.count(), "each edge that leaves the group is in one sum");
}

#[test]
fn a_dragged_group_takes_its_members_along_in_one_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = open(&file(folder.path()));
    let names = members().map(|node| node.to_string());
    let place = |harness: &Window| names.clone().map(|name| drawn(harness, &name).unwrap().center());
    let (before, still) = (place(&harness), drawn(&harness, &other().to_string()));
    let tag = drawn(&harness, GROUP).unwrap();
    let scale = drawn(&harness, &names[0]).unwrap().width() / BOX.0 as f32;
    let by = vec2(40.0, 26.0);
    drag(&mut harness, tag, by);
    for (before, after) in before.iter().zip(place(&harness)) {
        assert!((after - *before - by).length() < 0.5, "{before} {after}");
    }
    assert_eq!(drawn(&harness, &other().to_string()), still);
    let [x, y] = edits(&harness).offsets["the quotes"];
    assert!((x as f32 * scale - by.x).abs() < 0.1 && (y as f32 * scale - by.y).abs() < 0.1, "{x} {y}");
    press(&mut harness, Modifiers::COMMAND, Key::Z);
    assert_eq!(place(&harness), before);
    press(&mut harness, Modifiers::COMMAND | Modifiers::SHIFT, Key::Z);
    assert_eq!(edits(&harness).offsets["the quotes"], [x, y]);
}

#[test]
fn a_collapsed_and_moved_group_is_saved_and_exported_as_the_command_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(folder.path());
    let mut harness = open(&file);
    click(&mut harness, GROUP);
    press(&mut harness, Modifiers::NONE, Key::G);
    let tag = drawn(&harness, GROUP).unwrap();
    drag(&mut harness, tag, vec2(-60.0, 0.0));
    click(&mut harness, "File");
    click(&mut harness, "Save labels and groups");
    harness.run();
    click(&mut harness, "Replace it");
    click(&mut harness, "File");
    harness.get_by_label_contains("Save as .svg").click();
    harness.run();
    let exported = std::fs::read_to_string(file.with_extension("export.svg")).unwrap();
    let circuit = Circuit::load(&file).unwrap().with_annotations_of(&file).unwrap();
    assert_eq!(circuit.annotations.as_ref().unwrap().collapsed, ["the quotes".to_string()].into());
    assert!(exported.contains("class=\"collapsed\"") && exported == svg(&circuit));
    assert_eq!(edits(&open(&file)), Edits { live: Default::default(), ..edits(&harness) });
}
