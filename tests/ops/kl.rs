use crate::common::{assert_close, central_differences, kernels, normal, put, rng, wide};
use gossamer::ops::kl::{self, Support};
use gossamer::ops::topk_logits;

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
            let out = kl::forward(&put(&device, &[n * m, v], &x), &put(&device, &[m, 1, v], &t), Support::All).unwrap();
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
            let out = kl::forward(&logits, &target, Support::All).unwrap();
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
        let out = kl::forward(&a, &b, Support::All).unwrap();
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
            let message = kl::forward(&logits, &target, Support::All).unwrap_err().to_string();
            assert!(message.starts_with("kl") && message.contains("[2, 3]"), "{message}");
        }
        let logits = put(&device, &[4, 3], &[0.0; 12]);
        let out = kl::forward(&logits, &target, Support::All).unwrap();
        assert!(kl::backward(&put(&device, &[1], &[1.0]), &logits, &target, &out).is_err());
        assert!(kl::backward(&put(&device, &[2], &[1.0; 2]), &target, &target, &out).is_err());
    }
}

/// Between the softmaxes over the `n` largest entries of the target alone, of one block: the `n`
/// largest have no ties.
fn restricted(logits: &[f64], target: &[f64], vocab: usize, n: usize) -> f64 {
    let rows = logits.chunks(vocab).zip(target.chunks(vocab)).map(|(x, t)| {
        let mut order: Vec<usize> = (0..vocab).collect();
        order.sort_by(|&a, &b| t[b].total_cmp(&t[a]));
        order.truncate(n);
        let of = |row: &[f64]| order.iter().map(|&i| row[i]).collect::<Vec<f64>>();
        oracle(&of(x), &of(t), order.len())[0]
    });
    rows.sum::<f64>() * vocab as f64 / target.len() as f64
}

#[test]
fn over_the_support_both_are_softmaxes_of_the_most_probable() {
    let mut rng = rng(73);
    for device in kernels() {
        for (m, v, top) in [(1, 2, 1), (3, 5, 2), (2, 33, 7), (2, 300, 64), (2, 9, 20)] {
            let scaled = |rng: &mut _, n| normal(rng, n).iter().map(|v| 3.0 * v).collect::<Vec<f32>>();
            let (x, t) = (scaled(&mut rng, m * v), scaled(&mut rng, m * v));
            let (logits, target) = (put(&device, &[m, v], &x), put(&device, &[m, v], &t));
            let target = topk_logits::forward(&target, top).unwrap();
            let out = kl::forward(&logits, &target, Support::OfTarget).unwrap();
            let want = restricted(&wide(&x), &wide(&t), v, top);
            assert_close("divergence", &out.loss.read().unwrap(), &[want], 1e-6);
            let dx = kl::backward(&put(&device, &[1], &[0.7]), &logits, &target, &out).unwrap().read().unwrap();
            let want = central_differences(&wide(&x), 1e-5, |x| 0.7 * restricted(x, &wide(&t), v, top));
            assert_close("gradient", &dx, &want, 1e-6);
            let zeros = dx.iter().filter(|d| **d == 0.0).count();
            assert!(zeros >= m * v.saturating_sub(top), "{zeros} zeros");
        }
    }
}

/// Frozen from PyTorch 2 in float64: `topk`, `gather`, `softmax` and `kl_div` with `batchmean`, and
/// the gradient of the first block's divergence less half of the second's.
#[test]
fn over_the_support_the_numbers_are_those_of_pytorch() {
    const LOSSES: [f64; 2] = [0.581609477, 0.610525727];
    #[rustfmt::skip]
    const GRADIENT: [f64; 42] = [
        0.0, 0.0, 0.123333488, -0.068861487, 0.0, 0.0, -0.054472, -0.113524308, 0.0, 0.0, -0.052276587, 0.165800895,
        0.0, 0.0, 0.0, 0.1179519, 0.0, 0.0, -0.000627273, -0.117324627, 0.0, 0.0, 0.0, -0.061666744, 0.034430744, 0.0,
        0.0, 0.027236, 0.060991962, 0.0, 0.0, -0.074361507, 0.013369544, 0.0, 0.0, 0.0, -0.05897595, 0.0, 0.0,
        0.000313636, 0.058662313, 0.0,
    ];
    let x: Vec<f32> = (0..42).map(|i| (i * 37 % 41) as f32 / 8.0).collect();
    let t: Vec<f32> = (0..21).map(|i| (i * 29 % 23) as f32 / 6.0).collect();
    for device in kernels() {
        let (logits, target) = (put(&device, &[6, 7], &x), put(&device, &[3, 7], &t));
        let target = topk_logits::forward(&target, 3).unwrap();
        let out = kl::forward(&logits, &target, Support::OfTarget).unwrap();
        assert_close("divergences", &out.loss.read().unwrap(), &LOSSES, 1e-6);
        let dx = kl::backward(&put(&device, &[2], &[1.0, -0.5]), &logits, &target, &out).unwrap();
        assert_close("gradient", &dx.read().unwrap(), &GRADIENT, 1e-6);
    }
}
