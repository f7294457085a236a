//! Which tokens can be drawn, and how probable they are, against a plain implementation.

use gossamer::Error;
use gossamer::model::Sampling;
use rand::RngExt;

use crate::common::{normal, rng};

/// Temperature, then top-k, then top-p, one after the other over the whole vocabulary. Beside the
/// probabilities, by how much top-p was decided.
fn plain(sampling: &Sampling, logits: &[f32]) -> (Vec<f64>, f64) {
    let beats = |a: usize, b: usize| logits[a] > logits[b] || logits[a] == logits[b] && a < b;
    let rank = |a: usize| (0..logits.len()).filter(|&b| beats(b, a)).count();
    let ranks: Vec<usize> = (0..logits.len()).map(rank).collect();
    let k = if sampling.temperature == 0.0 { 1 } else { sampling.top_k.unwrap_or(logits.len()) };
    let temperature = if sampling.temperature == 0.0 { 1.0 } else { f64::from(sampling.temperature) };
    let top = logits.iter().fold(f64::NEG_INFINITY, |top, &l| top.max(f64::from(l)));
    let weigh = |a: usize| if ranks[a] < k { ((f64::from(logits[a]) - top) / temperature).exp() } else { 0.0 };
    let mut p: Vec<f64> = (0..logits.len()).map(weigh).collect();
    let total: f64 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= total);
    let mut margin = f64::INFINITY;
    if let Some(top_p) = sampling.top_p {
        // A token stays if those before it do not reach top_p by themselves.
        let before = |a: usize| (0..p.len()).filter(|&b| beats(b, a)).map(|b| p[b]).sum::<f64>();
        let stays: Vec<bool> = (0..p.len())
            .map(|a| {
                margin = margin.min((before(a) - top_p).abs());
                before(a) < top_p
            })
            .collect();
        p.iter_mut().zip(stays).for_each(|(p, stays)| *p = if stays { *p } else { 0.0 });
        let total: f64 = p.iter().sum();
        p.iter_mut().for_each(|p| *p /= total);
    }
    (p, margin)
}

fn random_logits(rng: &mut impl rand::Rng) -> Vec<f32> {
    let n = [1, 2, 3, 10, 40][rng.random_range(0..5usize)];
    let spread = [0.01, 1.0, 5.0, 60.0][rng.random_range(0..4usize)];
    let mut logits = normal(rng, n);
    let shape = rng.random_range(0..5);
    for v in &mut logits {
        *v *= spread;
        match shape {
            // Many equals.
            0 => *v = v.round(),
            1 if rng.random_range(0..2) == 0 => *v = f32::NEG_INFINITY,
            2 => *v = if rng.random_range(0..2) == 0 { 0.0 } else { -0.0 },
            _ => {}
        }
    }
    if logits.iter().all(|v| *v == f32::NEG_INFINITY) {
        logits[0] = 0.0;
    }
    logits
}

fn pick<T: Copy>(rng: &mut impl rand::Rng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

#[test]
fn distributions_are_those_of_the_plain_implementation() {
    let mut rng = rng(5);
    let (mut compared, mut cut) = (0, 0);
    for case in 0..4000 {
        let logits = random_logits(&mut rng);
        let sampling = Sampling {
            temperature: pick(&mut rng, &[0.0, 1e-3, 0.3, 1.0, 1.0, 2.0, 100.0]),
            top_k: pick(&mut rng, &[None, None, Some(1), Some(2), Some(7), Some(1000)]),
            top_p: pick(&mut rng, &[None, None, Some(1e-9), Some(0.3), Some(0.9), Some(0.999), Some(1.0)]),
            ..Sampling::default()
        };
        sampling.validate().unwrap();
        let what = format!("case {case}: {sampling:?} of {logits:?}");
        let got = sampling.distribution(&logits);
        let total: f64 = got.iter().map(|(_, p)| p).sum();
        assert!((total - 1.0).abs() < 1e-12 && got.iter().all(|(_, p)| (0.0..=1.0 + 1e-12).contains(p)), "{what}");
        // The most probable first, of equals the lowest id.
        let key = |(id, _): (u32, f64)| (logits[id as usize], id);
        let ordered = got.windows(2).all(|w| {
            let ((a, i), (b, j)) = (key(w[0]), key(w[1]));
            a > b || a == b && i < j
        });
        assert!(ordered, "{what}: {got:?}");
        let (want, margin) = plain(&sampling, &logits);
        if margin < 1e-12 {
            continue;
        }
        compared += 1;
        cut += usize::from(sampling.top_p.is_some() && got.len() < logits.len());
        let mut dense = vec![0.0; logits.len()];
        got.iter().for_each(|&(id, p)| dense[id as usize] = p);
        let off = dense.iter().zip(&want).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
        assert!(off < 1e-12, "{what}: {got:?}, not {want:?}");
        let possible = got.iter().filter(|(_, p)| *p > 0.0).count();
        assert_eq!(possible, want.iter().filter(|p| **p > 0.0).count(), "{what}");
    }
    assert!(compared > 3000 && cut > 500, "{compared} compared, {cut} of them cut");
}

/// Without the last token the kept ones do not reach top_p.
#[test]
fn top_p_keeps_the_smallest_set() {
    let logits = [0.5f32, 0.25, 0.125, 0.125].map(f32::ln);
    let kept = |top_p| {
        let kept = Sampling { top_p: Some(top_p), ..Sampling::default() }.distribution(&logits);
        kept.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
    };
    assert_eq!(kept(1e-12), [0]);
    assert_eq!(kept(0.4999), [0]);
    assert_eq!(kept(0.5001), [0, 1]);
    assert_eq!(kept(0.7499), [0, 1]);
    assert_eq!(kept(0.7501), [0, 1, 2]);
    assert_eq!(kept(0.9), [0, 1, 2, 3]);
    assert!(Sampling::default().distribution(&[]).is_empty());
}

#[test]
fn impossible_settings_are_named() {
    let default = Sampling::default();
    let all = |key: &str, settings: &[Sampling]| {
        for sampling in settings {
            let error = sampling.validate().unwrap_err();
            assert!(matches!(&error, Error::Config { key: named, .. } if named == key), "{error}");
        }
    };
    let temperature = |temperature| Sampling { temperature, ..default };
    all("temperature", &[-0.1, f32::NAN, f32::INFINITY].map(temperature));
    all("top-k", &[Sampling { top_k: Some(0), ..default }]);
    let top_p = |p| Sampling { top_p: Some(p), ..default };
    all("top-p", &[0.0, -1.0, 1.0001, f64::NAN, f64::INFINITY].map(top_p));
    for fine in [default, temperature(0.0), top_p(1.0), top_p(1e-300), Sampling { top_k: Some(1), ..default }] {
        fine.validate().unwrap();
    }
}
