//! A description of the document: a circuit, a published circuit, or a model without circuits.

use eframe::egui::{RichText, Ui};
use gossamer::circuits::labels::{count, signed, token};
use gossamer::circuits::{Calibration, Circuit};
use gossamer::formats::Payload;
use gossamer::model::WeightReport;

use super::curves::{self, Series};
use crate::document::{Contents, Document};

/// Returns whether to open the window that finds a circuit.
pub fn show(ui: &mut Ui, document: &Document) -> bool {
    let circuit = &document.circuit;
    ui.heading(circuit.task.question());
    ui.label(&circuit.task.description);
    ui.separator();
    match &document.contents {
        Contents::Circuit => circuit_file(ui, document),
        Contents::Published(payload) => published(ui, document, payload),
        Contents::Model(report) => return model(ui, document, report),
    }
    false
}

fn circuit_file(ui: &mut Ui, document: &Document) {
    let circuit = &document.circuit;
    let (task, losses) = (&circuit.task, &circuit.losses.test);
    for (side, prompt, answer) in
        [("clean", &task.clean, &task.target), ("counterfactual", &task.counterfactual, &task.alternative)]
    {
        ui.weak(format!("a {side} prompt, followed by {}", token(&answer.text)));
        ui.label(RichText::new(prompt).monospace().size(10.5));
    }
    ui.separator();
    ui.label(format!("{} nodes, {} edges", circuit.counts.nodes, circuit.counts.edges));
    let row = |name: &str, loss: f64, accuracy: f64| {
        format!("{name}: task loss {loss:.3}, accuracy {:.1} %", 100.0 * accuracy)
    };
    ui.label(row("the whole model", losses.model, losses.accuracy_model));
    for (name, calibrated, uncalibrated, calibration) in [
        (
            "the circuit",
            (losses.circuit, losses.accuracy_circuit),
            Some((losses.circuit_uncalibrated, losses.accuracy_circuit_uncalibrated)),
            Some(circuit.calibration),
        ),
        (
            "the complement",
            (losses.ablated, losses.accuracy_ablated),
            losses.ablated_uncalibrated.map(|loss| (loss, losses.accuracy_ablated_uncalibrated)),
            losses.ablated_calibration,
        ),
    ] {
        let neutral = calibration.is_none_or(|calibration| calibration == Calibration::default());
        let name = if neutral { name.to_string() } else { format!("{name}, calibrated") };
        let label = ui.label(row(&name, calibrated.0, calibrated.1));
        if let Some(Calibration { scale, shift }) = calibration.filter(|_| !neutral) {
            let shift = if shift == 0.0 { String::new() } else { format!(" and {} added to it", signed(shift)) };
            label.on_hover_text(format!(
                "the logit difference of the two answers is multiplied by {scale:.3}{shift}; fitted on train pairs"
            ));
        }
        if let Some((loss, accuracy)) = uncalibrated.filter(|_| !neutral) {
            let accuracy = accuracy.map(|accuracy| format!(", accuracy {:.1} %", 100.0 * accuracy)).unwrap_or_default();
            ui.weak(format!("    uncalibrated: task loss {loss:.3}{accuracy}"));
        }
    }
    layers(ui, document);
}

fn layers(ui: &mut Ui, document: &Document) {
    let circuit = &document.circuit;
    ui.separator();
    for layer in &circuit.counts.layers {
        let nodes: usize = layer.nodes.values().sum();
        let delta = delta(circuit, Some(layer.layer));
        ui.label(format!("layer {}: {nodes} nodes, {} edges, Δ {}", layer.layer, layer.edges, signed(delta)));
    }
    let last = circuit.nodes.iter().filter(|entry| entry.layer.is_none()).count();
    if last > 0 {
        ui.label(format!("final residual stream: {last} nodes, Δ {}", signed(delta(circuit, None))));
    }
    ui.separator();
    ui.weak(format!("model {}", circuit.model.path));
    ui.weak("click a box of the drawing for its details");
}

/// How much the task loss rises without nodes of a layer, one at a time; of the final residual
/// stream if it is none.
fn delta(circuit: &Circuit, layer: Option<usize>) -> f64 {
    circuit.nodes.iter().filter(|entry| entry.layer == layer).map(|entry| entry.ablation_delta).sum()
}

fn published(ui: &mut Ui, document: &Document, payload: &Payload) {
    let counts = &document.circuit.counts;
    let of = payload.total_nodes.map(|total| format!(" of {total}")).unwrap_or_default();
    ui.label(format!("{} nodes{of}, {} edges", counts.nodes, counts.edges));
    for (name, loss) in [("the circuit", payload.circuit_loss), ("the whole model", payload.loss)] {
        if let Some(loss) = loss {
            ui.label(format!("{name}: task loss {loss:.3}"));
        }
    }
    ui.weak("an edge's number is its signed effect");
    for (name, delta) in &payload.sublayers {
        ui.label(format!("{name} ablated: task loss {}", signed(*delta)));
    }
    for (side, prompts) in ["clean", "counterfactual"].into_iter().zip(&payload.prompts) {
        if let Some(prompt) = prompts.first() {
            ui.weak(format!("a {side} prompt, one of {}", prompts.len()));
            let text: String = prompt.iter().map(|&id| document.token(id)).collect();
            ui.label(RichText::new(text).monospace().size(10.5));
        }
    }
    if payload.curve.len() > 1 {
        let series = [Series { name: "loss".into(), points: payload.curve.clone(), strong: true }];
        curves::chart(ui, "loss while it was pruned", &series, None, 70.0);
    }
    for text in &payload.missing {
        ui.weak(text);
    }
    layers(ui, document);
}

fn model(ui: &mut Ui, document: &Document, report: &WeightReport) -> bool {
    let sizes = &document.circuit.model;
    ui.label(format!(
        "{}, {} of {}, width {}, {}",
        count(sizes.n_layer, "layer"),
        count(sizes.n_head, "head"),
        sizes.d_head,
        sizes.d_model,
        count(sizes.d_mlp, "neuron")
    ));
    ui.label(format!(
        "{} of {} matrix weights are nonzero ({:.2} %)",
        report.matrix_nonzeros,
        report.matrix_parameters,
        100.0 * report.matrix_nonzeros as f64 / report.matrix_parameters.max(1) as f64
    ));
    let find = ui.button("Find a circuit…").clicked();
    ui.separator();
    for tensor in &report.tensors {
        let shape: Vec<_> = tensor.shape.iter().map(ToString::to_string).collect();
        let share = 100.0 * tensor.density;
        ui.label(RichText::new(&tensor.name).small());
        ui.weak(format!("{}, {share:.2} % nonzero, rms {:.4}", shape.join("×"), tensor.rms));
    }
    find
}
