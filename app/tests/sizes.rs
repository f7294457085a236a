//! Loss against the size of circuits.

mod common;

use std::sync::Arc;

use common::{click, open, train, wait_for, window};
use egui_kittest::kittest::Queryable;
use gossamer::circuits::Circuit;
use gossamer::circuits::search::Ranking;
use gossamer::device::Device;
use gossamer::formats::ModelFiles;
use gossamer::model::WeightFormat;
use gossamer::observer::Observer;
use gossamer::pipelines::{CircuitRequest, size_curve};
use gossamer::text::source::Source;

#[test]
fn the_curve_is_that_of_the_library_with_the_circuit_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = train(folder.path());
    let file = common::circuit(&run);
    let mut harness = open(&file);
    click(&mut harness, "Size");
    click(&mut harness, "attribution");
    click(&mut harness, "Compute the curve");
    wait_for(&mut harness, "task loss against size");
    let circuit = Circuit::load(&file).unwrap();
    let device = Device::open("auto").unwrap();
    let model = ModelFiles::open(&run).unwrap().pretrained(WeightFormat::Sparse, &device).unwrap();
    let data = Source::default();
    let request =
        CircuitRequest { circuit: &circuit, file: &file, payload: None, task: None, data: &data, max_tokens: 512 };
    let watched = (&Arc::default(), &Observer::default());
    let curve = size_curve(&model, &request, Ranking::Attribution, &|_| (), watched).unwrap();
    let (first, last) = (&curve.points[0], curve.points.last().unwrap());
    let text = |by: fn(usize, usize) -> usize| {
        let at = |nodes, edges, loss: f64| format!("{loss:.3} at {}", by(nodes, edges));
        format!(
            "task loss against size: {} to {}, this circuit {}",
            at(first.nodes, first.edges, first.loss),
            at(last.nodes, last.edges, last.loss),
            at(circuit.counts.nodes, circuit.counts.edges, circuit.losses.test.circuit)
        )
    };
    harness.get_by_label(&text(|nodes, _| nodes));
    click(&mut harness, "over edges");
    harness.get_by_label(&text(|_, edges| edges));
    let middle = harness.get_by_label(&text(|_, edges| edges)).rect().center();
    harness.hover_at(middle);
    wait_for(&mut harness, "nodes of the ranking");
}

#[test]
fn what_is_missing_is_said() {
    let mut harness = window(None);
    click(&mut harness, "Size");
    wait_for(&mut harness, "this one comes without its model");
    assert!(harness.query_by_label("Compute the curve").is_none());
}

#[test]
fn an_error_is_shown_and_it_can_be_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let run = train(folder.path());
    let file = common::circuit(&run);
    let mut circuit = Circuit::load(&file).unwrap();
    circuit.task.name = "no_such_task".into();
    circuit.save(&file).unwrap();
    let mut harness = open(&file);
    click(&mut harness, "Size");
    click(&mut harness, "Compute the curve");
    wait_for(&mut harness, "no_such_task");
    wait_for(&mut harness, "no answer");
    harness.get_by_label("Compute the curve");
}
