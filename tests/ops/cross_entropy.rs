use crate::common::{assert_close, central_differences, kernels, normal, put, rng, wide};
use gossamer::device::{Device, Tensor};
use gossamer::ops::cross_entropy::{self, IGNORE};
use rand::{Rng, RngExt};

/// The loss and log-sum-exp of every row.
fn oracle(logits: &[f64], targets: &[u32], vocab: usize) -> (Vec<f64>, Vec<f64>) {
    let lse = |row: &[f64]| {
        let top = row.iter().fold(f64::MIN, |m, &v| m.max(v));
        top + row.iter().map(|v| (v - top).exp()).sum::<f64>().ln()
    };
    let lses: Vec<f64> = logits.chunks(vocab).map(lse).collect();
    let loss = |(i, &t): (usize, &u32)| if t == IGNORE { 0.0 } else { lses[i] - logits[i * vocab + t as usize] };
    (targets.iter().enumerate().map(loss).collect(), lses)
}

fn mean(logits: &[f64], targets: &[u32], vocab: usize) -> f64 {
    oracle(logits, targets, vocab).0.iter().sum::<f64>() / count(targets) as f64
}

fn count(targets: &[u32]) -> usize {
    targets.iter().filter(|&&t| t != IGNORE).count()
}

/// Targets for `rows` rows, a third of them ignored, the first not.
fn random_targets(rng: &mut impl Rng, rows: usize, vocab: usize) -> Vec<u32> {
    let draw = |row| match rng.random_range(0..3) {
        0 if row > 0 => IGNORE,
        _ => rng.random_range(0..vocab as u32),
    };
    (0..rows).map(draw).collect()
}

fn put_targets(device: &Device, targets: &[u32]) -> Tensor<u32> {
    device.upload("targets", &[targets.len()], targets).unwrap()
}

const SHAPES: [&[usize]; 7] = [&[1, 1], &[3, 1], &[1, 7], &[2, 3, 5], &[7, 255], &[5, 257], &[3, 1000]];

#[test]
fn losses_agree_with_the_oracle() {
    let mut rng = rng(51);
    for device in kernels() {
        for shape in SHAPES {
            let vocab = shape[shape.len() - 1];
            let rows = shape.iter().product::<usize>() / vocab;
            let x: Vec<f32> = normal(&mut rng, rows * vocab).iter().map(|v| 5.0 * v).collect();
            let targets = random_targets(&mut rng, rows, vocab);
            let (losses, lse) = oracle(&wide(&x), &targets, vocab);
            let (logits, ids) = (put(&device, shape, &x), put_targets(&device, &targets));
            let out = cross_entropy::forward(&logits, &ids, count(&targets)).unwrap();
            assert_eq!((out.loss.shape(), out.losses.shape(), out.lse.shape()), (&[1][..], &[rows][..], &[rows][..]));
            assert_close("losses", &out.losses.read().unwrap(), &losses, 3e-7);
            assert_close("lse", &out.lse.read().unwrap(), &lse, 3e-7);
            assert_close("mean", &out.loss.read().unwrap(), &[mean(&wide(&x), &targets, vocab)], 3e-7);
            for (loss, _) in out.losses.read().unwrap().iter().zip(&targets).filter(|(_, t)| **t == IGNORE) {
                assert_eq!(*loss, 0.0);
            }
        }
    }
}

#[test]
fn gradients_agree_with_differences_of_the_oracle() {
    let mut rng = rng(52);
    for device in kernels() {
        for shape in [&[1, 1][..], &[3, 2], &[2, 3, 5], &[4, 33]] {
            let vocab = shape[shape.len() - 1];
            let rows = shape.iter().product::<usize>() / vocab;
            let x = normal(&mut rng, rows * vocab);
            let targets = random_targets(&mut rng, rows, vocab);
            let want = central_differences(&wide(&x), 1e-5, |x| -1.5 * mean(x, &targets, vocab));
            let (logits, ids) = (put(&device, shape, &x), put_targets(&device, &targets));
            let out = cross_entropy::forward(&logits, &ids, count(&targets)).unwrap();
            let dx = cross_entropy::backward(&put(&device, &[1], &[-1.5]), &logits, &ids, &out).unwrap();
            assert_eq!(dx.shape(), shape);
            assert_close("gradient", &dx.read().unwrap(), &want, 1e-6);
        }
    }
}

#[test]
fn gradients_of_many_rows_agree_and_ignored_rows_get_none() {
    let mut rng = rng(53);
    let (rows, vocab) = (61, 517);
    let x: Vec<f32> = normal(&mut rng, rows * vocab).iter().map(|v| 3.0 * v).collect();
    let targets = random_targets(&mut rng, rows, vocab);
    let (_, lse) = oracle(&wide(&x), &targets, vocab);
    let entry = |(i, &x): (usize, &f32)| match targets[i / vocab] {
        IGNORE => 0.0,
        t => {
            ((f64::from(x) - lse[i / vocab]).exp() - f64::from(t as usize == i % vocab)) * 1000.0
                / count(&targets) as f64
        }
    };
    let want: Vec<f64> = x.iter().enumerate().map(entry).collect();
    for device in kernels() {
        let (logits, ids) = (put(&device, &[rows, vocab], &x), put_targets(&device, &targets));
        let out = cross_entropy::forward(&logits, &ids, count(&targets)).unwrap();
        let dloss = put(&device, &[1], &[1000.0]);
        let dx = cross_entropy::backward(&dloss, &logits, &ids, &out).unwrap().read().unwrap();
        assert_close("gradient", &dx, &want, 1e-6);
        let again = cross_entropy::backward(&dloss, &logits, &ids, &out).unwrap().read().unwrap();
        assert_eq!(dx, again);
        for (row, _) in dx.chunks(vocab).zip(&targets).filter(|(_, t)| **t == IGNORE) {
            assert!(row.iter().all(|&d| d == 0.0));
        }
    }
}

#[test]
fn large_logits_and_ties_are_harmless() {
    let rows: [[f32; 4]; 5] = [
        [1e4, 1e4, 1e4, 1e4],
        [-3e38, -3e38, 100.0, -3e38],
        [500.0, -500.0, 0.0, 499.0],
        [-1e4, -1e4, -1e4, -2e4],
        [0.0; 4],
    ];
    let (x, targets) = (rows.concat(), [3, 2, 3, 0, 1]);
    let (want, _) = oracle(&wide(&x), &targets, 4);
    for device in kernels() {
        let (logits, ids) = (put(&device, &[5, 4], &x), put_targets(&device, &targets));
        let out = cross_entropy::forward(&logits, &ids, 5).unwrap();
        assert_close("losses", &out.losses.read().unwrap(), &want, 3e-7);
        let dx = cross_entropy::backward(&put(&device, &[1], &[5.0]), &logits, &ids, &out).unwrap().read().unwrap();
        assert_close("ties", &dx[..4], &[0.25, 0.25, 0.25, -0.75], 1e-3);
        assert_close("certainty", &dx[4..8], &[0.0; 4], 1e-6);
    }
}

#[test]
fn the_mean_of_many_rows_is_exact_and_repeatable() {
    let mut rng = rng(54);
    let rows = 9_001;
    let x: Vec<f32> = normal(&mut rng, rows * 2);
    let targets = random_targets(&mut rng, rows, 2);
    for device in kernels() {
        let (logits, ids) = (put(&device, &[rows, 2], &x), put_targets(&device, &targets));
        let run = || cross_entropy::forward(&logits, &ids, count(&targets)).unwrap().loss.read().unwrap();
        let loss = run();
        assert_close("mean", &loss, &[mean(&wide(&x), &targets, 2)], 1e-7);
        assert_eq!(loss, run());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for device in kernels() {
        let logits = put(&device, &[2, 3], &[0.0; 6]);
        let good = put_targets(&device, &[0, 2]);
        let three = put_targets(&device, &[0, 1, 2]);
        assert!(cross_entropy::forward(&logits, &three, 3).unwrap_err().to_string().contains("[3]"));
        assert!(cross_entropy::forward(&logits, &good, 0).unwrap_err().to_string().contains("mean"));
        assert!(cross_entropy::forward(&put(&device, &[2, 0], &[]), &good, 2).is_err());
        let out = cross_entropy::forward(&logits, &good, 2).unwrap();
        assert!(cross_entropy::backward(&put(&device, &[2], &[1.0; 2]), &logits, &good, &out).is_err());
    }
}

#[test]
fn a_target_beyond_the_vocabulary_reads_nothing() {
    let targets = [0, 3];
    for device in kernels() {
        let (logits, ids) = (put(&device, &[2, 3], &[0.0; 6]), put_targets(&device, &targets));
        let result = cross_entropy::forward(&logits, &ids, 1);
        if device.is_cpu() {
            assert!(result.unwrap_err().to_string().contains("target 3 of row 1"));
            continue;
        }
        let out = result.unwrap();
        assert_close("loss", &out.losses.read().unwrap(), &[3f64.ln(), 0.0], 1e-6);
        let dx = cross_entropy::backward(&put(&device, &[1], &[1.0]), &logits, &ids, &out).unwrap();
        assert_eq!(dx.read().unwrap()[3..], [0.0; 3]);
    }
}
