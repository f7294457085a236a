use crate::common::{assert_close, central_differences, kernels, normal, put, rng, wide};
use gossamer::ops::kl;

/// Mean divergence of every block of rows from the target's.
fn oracle(logits: &[f64], target: &[f64], vocab: usize) -> Vec<f64> {
    let log_softmax = |row: &[f64]| {
        let top = row.iter().fold(f64::MIN, |m, &v| m.max(v));
        let lse = top + row.iter().map(|v| (v - top).exp()).sum::<f64>().ln();
        row.iter().map(|v| v - lse).collect::<Vec<_>>()
    };
    let block_mean = |block: &[f64]| {
        let rows = block.chunks(vocab).zip(target.chunks(vocab));
        let sum: f64 = rows
            .map(|(x, t)| {
                let (log_q, log_p) = (log_softmax(x), log_softmax(t));
                log_p.iter().zip(&log_q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
            })
            .sum();
        sum * vocab as f64 / target.len() as f64
    };
    logits.chunks(target.len()).map(block_mean).collect()
}

/// Blocks, rows of each, vocabulary.
const SHAPES: [(usize, usize, usize); 6] = [(1, 1, 1), (1, 3, 7), (3, 2, 5), (5, 4, 257), (2, 300, 3), (1, 2, 1000)];

#[test]
fn divergences_agree_with_the_oracle() {
    let mut rng = rng(71);
    for device in kernels() {
        for (n, m, v) in SHAPES {
            let x: Vec<f32> = normal(&mut rng, n * m * v).iter().map(|v| 3.0 * v).collect();
            let t: Vec<f32> = normal(&mut rng, m * v).iter().map(|v| 3.0 * v).collect();
            let out = kl::forward(&put(&device, &[n * m, v], &x), &put(&device, &[m, 1, v], &t)).unwrap();
            assert_eq!(out.loss.shape(), [n]);
            assert_close("divergence", &out.loss.read().unwrap(), &oracle(&wide(&x), &wide(&t), v), 1e-6);
        }
    }
}

#[test]
fn gradients_agree_with_differences_of_the_oracle() {
    let mut rng = rng(72);
    for device in kernels() {
        for (n, m, v) in [(1, 1, 2), (3, 2, 5), (2, 3, 33)] {
            let (x, t) = (normal(&mut rng, n * m * v), normal(&mut rng, m * v));
            let dloss: Vec<f32> = normal(&mut rng, n);
            let sum = |x: &[f64]| {
                let losses = oracle(x, &wide(&t), v);
                losses.iter().zip(&dloss).map(|(l, d)| l * f64::from(*d)).sum()
            };
            let want = central_differences(&wide(&x), 1e-5, sum);
            let (logits, target) = (put(&device, &[n * m, v], &x), put(&device, &[m, v], &t));
            let out = kl::forward(&logits, &target).unwrap();
            let dx = kl::backward(&put(&device, &[n], &dloss), &logits, &target, &out).unwrap();
            assert_eq!(dx.shape(), [n * m, v]);
            assert_close("gradient", &dx.read().unwrap(), &want, 1e-6);
        }
    }
}

#[test]
fn equal_predictions_do_not_diverge_and_large_logits_are_harmless() {
    let x = [1e4, 1e4, -1e4, 500.0, -500.0, 499.0];
    // Shifted logits are the same prediction.
    let shifted: Vec<f32> = x.iter().map(|v| v + 64.0).collect();
    for device in kernels() {
        let (a, b) = (put(&device, &[2, 3], &x), put(&device, &[2, 3], &shifted));
        let out = kl::forward(&a, &b).unwrap();
        assert_close("the same", &out.loss.read().unwrap(), &[0.0], 1e-3);
        let dx = kl::backward(&put(&device, &[1], &[1.0]), &a, &b, &out).unwrap().read().unwrap();
        assert_close("no way to go", &dx, &[0.0; 6], 1e-3);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for device in kernels() {
        let target = put(&device, &[2, 3], &[0.0; 6]);
        for shape in [&[3, 3][..], &[2, 4], &[0, 3]] {
            let logits = put(&device, shape, &vec![0.0; shape.iter().product()]);
            let message = kl::forward(&logits, &target).unwrap_err().to_string();
            assert!(message.starts_with("kl") && message.contains("[2, 3]"), "{message}");
        }
        let logits = put(&device, &[4, 3], &[0.0; 12]);
        let out = kl::forward(&logits, &target).unwrap();
        assert!(kl::backward(&put(&device, &[1], &[1.0]), &logits, &target, &out).is_err());
        assert!(kl::backward(&put(&device, &[2], &[1.0; 2]), &target, &target, &out).is_err());
    }
}
