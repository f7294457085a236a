//! Groups in drawings: collapsed to one box, and moved.

use gossamer::circuits::layout::{BoxContent, CircuitLayout, GROUP_BOX, LineKind};
use gossamer::circuits::{Annotations, Circuit, json, svg};
use serde_json::json;

use crate::file::{elements, weighed};

/// Two neurons between a channel that is read and one that is written, with these annotations.
fn grouped(annotations: serde_json::Value) -> Circuit {
    let annotations: Annotations = serde_json::from_value(annotations).unwrap();
    let circuit = weighed([0.5; 4], [0.3, 0.03, -0.01]).normalised();
    Circuit { annotations: Some(annotations), ..circuit }
}

const NEURONS: [&str; 2] = ["0.mlp.post_act[1]", "0.mlp.post_act[2]"];

fn collapsed() -> Circuit {
    grouped(json!({"version": 1, "groups": {"middle": NEURONS}, "collapsed": ["middle"]}))
}

/// What is in the boxes, with their centers and tops.
fn boxes(layout: &CircuitLayout) -> Vec<(BoxContent, f64, f64)> {
    layout.boxes.iter().map(|node_box| (node_box.content, node_box.x, node_box.top)).collect()
}

#[test]
fn a_collapsed_group_is_one_box_in_its_members_row() {
    let layout = CircuitLayout::new(&collapsed());
    let expected = [
        (BoxContent::Embedding(0), 90.0, 307.0),
        (BoxContent::Node(0), 90.0, 239.0),
        (BoxContent::Group(0), 90.0, 171.0),
        (BoxContent::Node(3), 90.0, 103.0),
        (BoxContent::Unembedding(0), 90.0, 0.0),
    ];
    assert_eq!(boxes(&layout), expected);
    assert_eq!((layout.width, layout.height), (GROUP_BOX.0 + 12.0, 366.0));
    let [frame] = layout.groups.as_slice() else { panic!("one group") };
    assert_eq!((frame.nodes, frame.channels, frame.collapsed), (2, 0, true));
    assert_eq!(frame.bounds, [90.0 - 84.0, 171.0, 90.0 + 84.0, 195.0]);
}

#[test]
fn edges_of_a_collapsed_group_are_summed() {
    let layout = CircuitLayout::new(&collapsed());
    let sums: Vec<_> = layout.bundles.iter().map(|b| (b.edges.clone(), b.sum.weight, b.sum.effect)).collect();
    assert_eq!(sums, [(vec![0, 1], 2.0, 0.3 + 0.03), (vec![2], 1.0, -0.01)]);
    let lines: Vec<_> = layout.lines.iter().map(|line| (line.kind, line.boxes.clone())).collect();
    let expected = [
        (LineKind::Bundle(0), vec![1, 2]),
        (LineKind::Bundle(1), vec![2, 3]),
        (LineKind::Channel(3), vec![0, 1]),
        (LineKind::Channel(4), vec![3, 4]),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn edges_within_a_collapsed_group_are_not_drawn() {
    let group = ["embedding[3]", "0.mlp.act_in[3]", NEURONS[0], NEURONS[1]];
    let layout = CircuitLayout::new(&grouped(json!({"version": 1, "groups": {"in": group}, "collapsed": ["in"]})));
    assert_eq!(layout.bundles.iter().map(|bundle| bundle.edges.clone()).collect::<Vec<_>>(), [[2]]);
    assert_eq!(layout.lines.len(), 2, "one to the node that writes, and its residual channel");
    assert_eq!((layout.groups[0].nodes, layout.groups[0].channels), (3, 1));
    assert_eq!(layout.rows.len(), 3, "rows of which nothing is left are gone");
}

#[test]
fn a_moved_group_takes_its_members_along_and_nothing_else() {
    let plain = CircuitLayout::new(&grouped(json!({"version": 1, "groups": {"middle": NEURONS}})));
    let moved = grouped(json!({"version": 1, "groups": {"middle": NEURONS}, "offsets": {"middle": [-100.0, 12.5]}}));
    let layout = CircuitLayout::new(&moved);
    for (before, after) in plain.boxes.iter().zip(&layout.boxes) {
        let by = if before.group == Some(0) { [-100.0, 12.5] } else { [0.0, 0.0] };
        assert_eq!([after.x - before.x, after.top - before.top, after.bottom - before.bottom], [by[0], by[1], by[1]]);
    }
    // The drawing begins where the group does, and its right side stays.
    assert_eq!(layout.left, layout.groups[0].bounds[0] - 6.0);
    assert_eq!((layout.left + layout.width, layout.height), (plain.width, plain.height));
    let mut back = layout;
    let mut unmoved = moved.annotations.unwrap();
    unmoved.offsets.clear();
    back.move_groups(&unmoved);
    assert_eq!((boxes(&back), back.left, back.width), (boxes(&plain), 0.0, plain.width));
}

#[test]
fn a_group_without_members_in_the_circuit_is_not_drawn() {
    let group = json!({"version": 1, "groups": {"other": ["7.attn.q[1]"]}, "collapsed": ["other", "missing"]});
    let layout = CircuitLayout::new(&grouped(group));
    assert!(layout.groups.is_empty() && layout.bundles.is_empty());
    assert_eq!(layout.boxes.len(), 6);
}

#[test]
fn pictures_and_json_keep_collapsed_groups() {
    let circuit = collapsed();
    let drawn = svg(&circuit);
    let elements = elements(&drawn);
    let class = |name: &str| elements.iter().filter(|(_, a, _)| a.get("class").is_some_and(|c| c == name)).count();
    assert_eq!((class("collapsed"), class("bundle"), class("node"), class("edge")), (1, 2, 2, 0));
    assert!(
        drawn.contains(">middle · 2 nodes</text>") && drawn.contains("2 edges, weight +2.000, effect +0.330 in all")
    );
    let read = Circuit::from_json(json(&circuit).as_bytes()).unwrap();
    assert_eq!(read.annotations, circuit.annotations);
}
