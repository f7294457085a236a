//! Another circuit of the same folder, next to the open one.

use std::collections::BTreeSet;

use eframe::egui::Ui;
use gossamer::circuits::{Circuit, Node, NodeEntry};

use crate::document::Document;
use crate::graph::{self, Camera};
use crate::scene::Scene;
use crate::view::{Sublayer, View};

/// A second drawing, which shares the view of the first.
pub struct Compared {
    document: Document,
    scene: Scene,
    sublayer: Option<Sublayer>,
    camera: Camera,
}

impl Compared {
    pub fn new(document: Document) -> Self {
        let scene = Scene::new(&document.circuit, None);
        Self { document, scene, sublayer: None, camera: Camera::default() }
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
        if self.sublayer != view.sublayer {
            self.sublayer = view.sublayer;
            self.scene = Scene::new(circuit, view.sublayer);
            self.camera.fit();
        }
        graph::show(ui, "the compared circuit", &self.scene, view, &mut self.camera, &|_| None);
    }
}
