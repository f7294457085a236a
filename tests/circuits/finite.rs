//! Numbers that are not finite end a search with the first site that has them, and nothing takes
//! them for success.

use std::sync::mpsc::channel;
use std::time::Duration;

use gossamer::Error;
use gossamer::circuits::prune::{self, CircuitScorer, SearchSettings};
use gossamer::circuits::{Calibration, CalibrationKind, Layout, LogitDiffs, Nodes, TaskBatch};
use gossamer::device::Device;
use gossamer::model::{Model, SiteKind, Weights};

use crate::prune::{nodes, pairs, planted};

#[test]
fn calibration_ends_whatever_the_answers_are() {
    for z in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e38, -1e300, f64::MAX] {
        let (said, heard) = channel();
        std::thread::spawn(move || {
            let answers = LogitDiffs { clean: vec![z, 1.0, -2.0], counterfactual: vec![0.5, -z, 3.0] };
            said.send([CalibrationKind::Scale, CalibrationKind::Affine].map(|kind| answers.calibrate(kind)))
        });
        for Calibration { scale, shift } in heard.recv_timeout(Duration::from_secs(20)).expect("it ends") {
            assert!(scale.is_finite() && scale > 0.0 && shift.is_finite(), "{z}: {scale} and {shift}");
        }
    }
}

/// The planted model with one weight that is not finite.
fn broken(name: &str, value: f32) -> Model {
    let mut model = planted(&Device::cpu());
    let parameter = model.parameters.iter_mut().find(|p| p.name == name).unwrap();
    let mut data = parameter.read().unwrap().data;
    data[3] = value;
    parameter.dense_mut().unwrap().write(&data).unwrap();
    model
}

#[track_caller]
fn site<T>(result: gossamer::Result<T>) -> String {
    match result {
        Err(Error::NonFiniteSite { site, .. }) => site,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is fine"),
    }
}

#[test]
fn every_step_of_a_search_names_the_first_site() {
    let whole = planted(&Device::cpu());
    for (name, first) in [("transformer.h.0.attn.c_attn.weight", "0.attn.q"), ("final_logits_bias", "logits")] {
        let model = broken(name, f32::NAN);
        let (weights, nodes) = (Weights::constant(&model, &[]), nodes(&whole));
        let task_batch = TaskBatch::new(&model, &pairs(4, 1)).unwrap();
        let scorer = CircuitScorer {
            model: (&model, &weights),
            nodes: &nodes,
            task_batch: &task_batch,
            calibration: Default::default(),
        };
        let all = vec![true; nodes.layout.len()];
        assert_eq!(site(scorer.loss(&all)), first);
        assert_eq!(site(scorer.within(&all, 0.1)), first);
        assert_eq!(site(prune::bisect(&scorer, &prune::rank_nodes(&vec![0.0; all.len()]), 0.1)), first);
        assert_eq!(site(scorer.binarise(&all)), first);
        let open = vec![1.0; all.len()];
        assert_eq!(site(prune::step(scorer.model, &nodes, &task_batch, &open, &SearchSettings::default())), first);
    }
}

#[test]
fn a_mean_that_is_not_finite_is_named() {
    let model = planted(&Device::cpu());
    let layout = Layout::new(&model.config);
    let mut means: std::collections::BTreeMap<_, _> =
        layout.blocks().iter().map(|block| (block.site, vec![0.0f32; block.width])).collect();
    means.get_mut(&SiteKind::AttnV.at(0)).unwrap()[2] = f32::NAN;
    let said = Nodes::new(layout, &means, &model.device).err().unwrap().to_string();
    assert!(said.contains("0.attn.v[2] is NaN"), "{said}");
}
