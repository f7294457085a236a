use crate::common::{assert_close, kernels, normal, put, rng, wide};
use gossamer::ops::{kl, topk_logits};

/// `Σ p (log p − log q)` over the `n` largest target logits of one row, with p the softmax over
/// these and q that of all logits.
fn oracle(logits: &[f64], target: &[f64], n: usize) -> f64 {
    let lse = |row: &[f64]| row.iter().map(|v| v.exp()).sum::<f64>().ln();
    let mut order: Vec<usize> = (0..target.len()).collect();
    order.sort_by(|&a, &b| target[b].total_cmp(&target[a]));
    order.truncate(n);
    let kept: Vec<f64> = order.iter().map(|&i| target[i]).collect();
    let (of_kept, of_all) = (lse(&kept), lse(logits));
    let term = |&i: &usize| {
        let log_p = target[i] - of_kept;
        log_p.exp() * (log_p - (logits[i] - of_all))
    };
    order.iter().map(term).sum()
}

#[test]
fn divergences_from_the_most_probable_agree_with_the_oracle() {
    let mut rng = rng(91);
    for device in kernels() {
        for (rows, vocab, n) in [(1, 1, 1), (3, 7, 1), (2, 300, 5), (5, 257, 64), (2, 2500, 100), (2, 9, 9), (2, 9, 20)]
        {
            let logits = |rng: &mut _| -> Vec<f32> { normal(rng, rows * vocab).iter().map(|v| 4.0 * v).collect() };
            let (x, target) = (logits(&mut rng), logits(&mut rng));
            let wanted = topk_logits::forward(&put(&device, &[1, rows, vocab], &target), n).unwrap();
            assert_eq!(wanted.shape(), [1, rows, vocab]);
            let kept = wanted.read().unwrap();
            for (kept, target) in kept.chunks(vocab).zip(target.chunks(vocab)) {
                let same = kept.iter().zip(target).filter(|(a, b)| a == b).count();
                assert_eq!(same, n.min(vocab), "{n} of {vocab}");
            }
            let rows_of = |v: &[f32]| wide(v).chunks(vocab).map(<[f64]>::to_vec).collect::<Vec<_>>();
            let each = rows_of(&x).into_iter().zip(rows_of(&target)).map(|(x, t)| oracle(&x, &t, n));
            let want = each.sum::<f64>() / rows as f64;
            let got = kl::forward(&put(&device, &[rows, vocab], &x), &wanted, kl::Support::All).unwrap();
            let what = format!("{n} of {vocab}, {}", device.describe());
            assert_close(&what, &got.loss.read().unwrap(), &[want], 2e-6);
        }
    }
}

#[test]
fn ties_large_logits_and_what_is_refused() {
    for device in kernels() {
        let x = put(&device, &[2, 4], &[3.0, 5.0, 5.0, 5.0, 1e4, -1e4, 1e4 - 1.0, 0.0]);
        let y = topk_logits::forward(&x, 2).unwrap().read().unwrap();
        let kept: Vec<bool> = y.iter().zip(x.read().unwrap()).map(|(y, x)| *y == x).collect();
        assert_eq!(kept, [false, true, true, false, true, false, true, false]);
        assert!(y.iter().all(|y| y.is_finite()));
        assert!(topk_logits::forward(&x, 0).is_err());
        assert!(topk_logits::forward(&put(&device, &[2, 0], &[]), 1).is_err());
        let none = topk_logits::forward(&put(&device, &[0, 3], &[]), 1).unwrap();
        assert_eq!(none.shape(), [0, 3]);
    }
}
