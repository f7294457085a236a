//! Binarisation on the planted circuit, which two states a node suffice for, and its file.

use std::fs;

use gossamer::circuits::Binary;
use gossamer::circuits::binarise::{BinaryLoss, BinaryStep, BinarySteps, FRACTIONS};
use gossamer::circuits::prune::CircuitScorer;
use gossamer::circuits::{Calibration, CalibrationKind, TaskBatch};
use gossamer::model::{Batch, Recorder, Weights};
use gossamer::tape::Tape;

use crate::common::devices;
use crate::prune::{PLANTED, nodes, pairs, planted};

#[test]
fn the_planted_circuit_works_with_two_states_a_node() {
    for device in devices() {
        let model = planted(&device);
        let (weights, nodes) = (Weights::constant(&model, &[]), nodes(&model));
        let task_batch = TaskBatch::new(&model, &pairs(32, 999)).unwrap();
        let scorer = CircuitScorer {
            model: (&model, &weights),
            nodes: &nodes,
            task_batch: &task_batch,
            calibration: CalibrationKind::Affine,
        };
        let mut keep = vec![false; nodes.layout.len()];
        PLANTED.iter().for_each(|node| keep[nodes.layout.number(*node).unwrap()] = true);
        let steps = scorer.binarise(&keep).unwrap();
        assert_eq!(steps.iter().map(|step| step.node).collect::<Vec<_>>(), PLANTED);
        for BinaryStep { low, high, threshold, fraction, .. } in &steps {
            assert!(low < high && FRACTIONS.contains(fraction));
            assert!((f64::from(low + (high - low) * *fraction as f32) - f64::from(*threshold)).abs() < 1e-5);
        }
        let loss = |steps: &[BinaryStep]| {
            let answers = scorer.stepped(&keep, steps).unwrap();
            answers.loss(answers.calibrate(CalibrationKind::Affine))
        };
        let (plain, _) = scorer.loss(&keep).unwrap();
        assert_eq!(loss(&[]), plain);
        assert!(plain < 0.1 && loss(&steps) < 0.1, "{plain} becomes {}: {steps:?}", loss(&steps));
        // Other pairs have the same circuit.
        let others = TaskBatch::new(&model, &pairs(32, 5)).unwrap();
        let scorer = CircuitScorer {
            model: (&model, &weights),
            nodes: &nodes,
            task_batch: &others,
            calibration: CalibrationKind::Affine,
        };
        let answers = scorer.stepped(&keep, &steps).unwrap();
        assert!(answers.loss(answers.calibrate(CalibrationKind::Affine)) < 0.15);

        // A threshold that nothing reaches leaves one state, which says nothing.
        for broken in 0..steps.len() {
            let mut steps = steps.clone();
            steps[broken].threshold = f32::MAX;
            let chance = loss(&steps);
            assert!((chance - std::f64::consts::LN_2).abs() < 1e-3, "{broken}: {chance}");
        }
    }
}

#[test]
fn steps_replace_their_channel_alone() {
    for device in devices() {
        let model = planted(&device);
        let weights = Weights::constant(&model, &[]);
        let batch = Batch::new(&device, &model.config, &[0, 4, 5, 6, 1, 7, 8, 9], 2).unwrap();
        let step = BinaryStep { node: PLANTED[0], low: -0.5, high: 0.25, threshold: 0.0, fraction: 0.5 };
        let mut sites = (Recorder::default(), (BinarySteps::new(&[step]), Recorder::default()));
        model.forward(&mut Tape::new(), &weights, &batch, &mut sites).unwrap();
        let find = |recorder: &Recorder| recorder.values[&PLANTED[0].site()].value().read().unwrap();
        let (before, after) = (find(&sites.0), find(&sites.1.1));
        assert_eq!(before.len(), 2 * 4 * 8);
        for (i, (x, y)) in before.iter().zip(&after).enumerate() {
            let want = match i % 8 {
                0 if *x >= 0.0 => 0.25,
                0 => -0.5,
                _ => *x,
            };
            assert_eq!(*y, want, "{i}");
        }
        assert!(before[0] > 0.0 && before[4 * 8] < 0.0);
        let outside = BinaryStep { node: gossamer::circuits::Node { index: 8, ..PLANTED[0] }, ..step };
        let refused = model.forward(&mut Tape::new(), &weights, &batch, &mut BinarySteps::new(&[outside]));
        assert!(refused.err().unwrap().to_string().contains("0.attn.act_in[8]"));
    }
}

#[test]
fn the_file_is_read_as_written_and_damage_is_named() {
    let step = BinaryStep { node: PLANTED[1], low: 0.0, high: 1.5, threshold: 0.75, fraction: 0.5 };
    let binary = Binary {
        version: 1,
        model: "sha256:0".into(),
        task: "quotes".into(),
        steps: vec![step],
        alone: vec![0.1],
        calibration: Calibration::default(),
        train: BinaryLoss { binary: 0.1, ..BinaryLoss::default() },
        test: BinaryLoss::default(),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("quotes.binary.json");
    binary.save(&path).unwrap();
    assert_eq!(Binary::load(&path).unwrap(), binary);
    for (wrong, what) in [
        (Binary { alone: vec![], ..binary.clone() }, "0 losses of 1 steps"),
        (Binary { steps: vec![step; 2], alone: vec![0.0; 2], ..binary.clone() }, "listed twice"),
        (Binary { steps: vec![BinaryStep { threshold: 2.0, ..step }], ..binary.clone() }, "between the levels"),
        (Binary { alone: vec![f64::NAN], ..binary.clone() }, "NaN"),
    ] {
        let said = wrong.save(&path).unwrap_err().to_string();
        assert!(said.contains(what) && said.contains("quotes.binary.json"), "{said}");
    }
    assert_eq!(Binary::load(&path).unwrap(), binary, "what is refused leaves the file as it was");
    for (contents, what) in [("{", "not a file of a binary"), ("{}", "no `version`"), ("{\"version\":2}", "version 2")]
    {
        fs::write(&path, contents).unwrap();
        let said = Binary::load(&path).unwrap_err().to_string();
        assert!(said.contains(what), "{said}");
    }
}
