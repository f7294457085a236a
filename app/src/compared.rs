//! Another circuit of the same folder, next to the open one.

use std::collections::BTreeSet;

use eframe::egui::Ui;
use gossamer::circuits::{Circuit, Node, NodeEntry};

use crate::document::Document;
use crate::graph::{self, Camera};
use crate::scene::{Changed, Scene, SceneKey};
use crate::view::View;

/// A second drawing, which shares the view of the first.
pub struct Compared {
    document: Document,
    scene: Scene,
    /// What `scene` was made of.
    key: SceneKey,
    camera: Camera,
}

impl Compared {
    pub fn new(document: Document) -> Self {
        let scene = Scene::new(&document.circuit, None);
        Self { document, scene, key: SceneKey::default(), camera: Camera::default() }
    }

    pub fn name(&self) -> String {
        self.document.name()
    }

    /// Shows it with what it has in common with the open circuit. What is selected, labelled or
    /// hidden in one drawing is so in both.
    pub fn show(&mut self, ui: &mut Ui, open: &Circuit, view: &mut View) {
        let circuit = &self.document.circuit;
        ui.strong(self.document.name());
        let nodes = |circuit: &Circuit| circuit.nodes.iter().map(NodeEntry::node).collect::<BTreeSet<Node>>();
        let both = nodes(circuit).intersection(&nodes(open)).count();
        let loss = circuit.losses.test.circuit;
        let counts = &circuit.counts;
        ui.weak(format!(
            "{} nodes, {both} of them in both; {} edges; task loss {loss:.3}, calibrated",
            counts.nodes, counts.edges
        ));
        match self.key.update(view, None) {
            Changed::Nothing => {}
            Changed::Offsets => self.scene.move_groups(view.edits.annotations()),
            Changed::Groups => self.scene = Scene::of_view(circuit, view),
            Changed::Part => {
                self.scene = Scene::of_view(circuit, view);
                self.camera.fit();
            }
        }
        graph::show(ui, "the compared circuit", &self.scene, view, &mut self.camera, &|_| None);
    }
}
