//! The same training in different ways gives the same losses.

use gossamer::device::Device;
use gossamer::model::{Batch, LossOutput, NoHooks, Weights};
use gossamer::ops::sparse_linear;
use gossamer::tape::Tape;
use gossamer::train::config::{GradRms, OptimizerConfig};
use gossamer::train::step::Trainer;

use crate::common::devices;
use crate::tiny::{losses, model, optimizer, schedule, sequences, step, trainer};

fn start(device: &Device, steps: u64) -> Trainer {
    trainer(device, model(), optimizer(steps), schedule())
}

#[track_caller]
fn assert_follow(what: &str, a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(((a - b) / b).abs() <= tolerance, "{what}: step {i}: {a} and {b}");
    }
}

/// The bits of all parameters.
fn bits(trainer: &Trainer) -> Vec<u32> {
    let host = trainer.model.parameters.to_host().unwrap();
    host.values().flat_map(|t| t.data.iter().map(|v| v.to_bits())).collect()
}

#[test]
fn devices_follow_each_other_for_twenty_steps() {
    let [cpu, gpu] = devices().try_into().unwrap();
    let (mut on_cpu, mut on_gpu) = (start(&cpu, 20), start(&gpu, 20));
    let (want, got) = (losses(&mut on_cpu), losses(&mut on_gpu));
    for (i, (want, got)) in want.iter().zip(&got).enumerate() {
        assert!((want - got).abs() <= 1e-3, "step {i}: {want} on the CPU, {got} on the GPU");
    }
    // They did learn, and ended with compressed weights on both.
    assert!(want[19] < want[0] - 0.1, "{want:?}");
    for trainer in [on_cpu, on_gpu] {
        assert!(sparse_linear::prefer_sparse(&trainer.model.device, schedule().target_density));
        assert!(trainer.compressed().iter().flatten().count() >= 8);
    }
}

#[test]
fn compressed_weights_give_the_same_curve_as_dense_ones() {
    for device in devices() {
        let curve = |use_compressed| {
            let mut trainer = start(&device, 50);
            trainer.use_compressed = use_compressed;
            let losses = losses(&mut trainer);
            let compressed = trainer.compressed().iter().flatten().count();
            (losses, compressed)
        };
        let (dense, none) = curve(Some(false));
        let (always, all) = curve(Some(true));
        let (chosen, some) = curve(None);
        // Four matrices a layer, embedding and unembedding.
        assert_eq!((none, all), (0, 10));
        assert!(some >= 8, "{some}");
        assert_follow("compressed", &always, &dense, 1e-5);
        assert_follow("where worthwhile", &chosen, &dense, 1e-5);
    }
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    for device in devices() {
        let run = || {
            let mut trainer = start(&device, 12);
            let losses = losses(&mut trainer);
            (losses.iter().map(|l| l.to_bits()).collect::<Vec<_>>(), bits(&trainer))
        };
        let (first, second) = (run(), run());
        assert!(first == second, "{}: {:?} and {:?}", device.describe(), first.0, second.0);
    }
}

#[test]
fn accumulated_micro_batches_are_one_batch() {
    for device in devices() {
        for grad_rms in [GradRms::Normalize, GradRms::None] {
            // Without scaling the gradient is small, and only a large rate makes it felt.
            let lr = if grad_rms == GradRms::None { 1.0 } else { 2e-2 };
            let curve = |batch_size, accumulate| {
                let optimizer = OptimizerConfig { batch_size, accumulate, grad_rms, lr, ..optimizer(8) };
                losses(&mut trainer(&device, model(), optimizer, schedule()))
            };
            let whole = curve(4, 1);
            assert_follow("two of two", &curve(2, 2), &whole, 1e-5);
            assert_follow("four of one", &curve(1, 4), &whole, 1e-5);
            assert!(whole[7] < whole[0] - 0.01, "{whole:?}");
        }
    }
}

#[test]
fn a_wrong_number_of_micro_batches_is_refused() {
    let device = Device::cpu();
    let mut trainer = trainer(&device, model(), OptimizerConfig { accumulate: 2, ..optimizer(4) }, schedule());
    let batch = Batch::new(&device, &model(), &sequences(&model(), 0, 4).concat(), 4).unwrap();
    let error = trainer.step(&[batch]).err().unwrap().to_string();
    assert!(error.contains("1 batches for accumulate = 2"), "{error}");
}

#[test]
fn evaluation_by_compressed_weights_equals_dense() {
    for device in devices() {
        let mut trainer = start(&device, 12);
        trainer.use_compressed = Some(true);
        while trainer.steps_done() < 12 {
            step(&mut trainer).unwrap();
        }
        let config = &trainer.model.config;
        let batch = Batch::new(&device, config, &sequences(config, 77, 4).concat(), 4).unwrap();
        let loss = |compressed: &[_]| {
            let weights = Weights::constant(&trainer.model, compressed);
            let LossOutput { loss, .. } =
                trainer.model.forward_loss(&mut Tape::new(), &weights, &batch, &mut NoHooks).unwrap();
            f64::from(loss.value().read().unwrap()[0])
        };
        let (dense, compressed) = (loss(&[]), loss(trainer.compressed()));
        assert!(trainer.compressed().iter().flatten().count() == 10);
        assert!(((dense - compressed) / dense).abs() < 1e-6, "{dense} and {compressed}");
    }
}
