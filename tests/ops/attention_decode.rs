use crate::common::{assert_close, dot, kernels, normal, put, rng, wide};
use gossamer::ops::attention::AttentionOptions;
use gossamer::ops::attention_decode as step;

/// Batch, heads, width, capacity, length.
const SIZES: [[usize; 5]; 6] =
    [[1, 1, 1, 1, 1], [1, 3, 16, 9, 1], [2, 2, 5, 70, 65], [3, 1, 33, 8, 8], [1, 2, 130, 7, 3], [2, 4, 16, 300, 257]];

/// In float64, the textbook way.
fn oracle(
    [batch, heads, width, capacity, length]: [usize; 5],
    [q, k, v]: [&[f64]; 3],
    sink: Option<&[f64]>,
    options: AttentionOptions,
) -> Vec<f64> {
    let scale = options.scale.map_or(1.0 / (width as f64).sqrt(), f64::from);
    let hidden = |t: usize| options.window.is_some_and(|window| length - 1 - t >= window);
    let mut y = Vec::new();
    for at in 0..batch * heads {
        let (b, h) = (at / heads, at % heads);
        let row = |x: &'_ [f64], t: usize| x[((b * capacity + t) * heads + h) * width..][..width].to_vec();
        let query = &q[at * width..][..width];
        let weight = |t: usize| if hidden(t) { 0.0 } else { (dot(query, &row(k, t)) * scale).exp() };
        let weights: Vec<f64> = (0..length).map(weight).collect();
        let total = weights.iter().sum::<f64>() + sink.map_or(0.0, |s| s[h].exp());
        for c in 0..width {
            y.push((0..length).map(|t| weights[t] * row(v, t)[c]).sum::<f64>() / total);
        }
    }
    y
}

#[test]
fn one_query_against_the_textbook() {
    let mut rng = rng(11);
    for device in kernels() {
        for sizes in SIZES {
            let [batch, heads, width, capacity, length] = sizes;
            let (channels, stored) = (heads * width, batch * capacity * heads * width);
            let q = normal(&mut rng, batch * channels);
            let [k, v] = [(); 2].map(|()| normal(&mut rng, stored));
            let sink = normal(&mut rng, heads);
            let (wq, wk, wv, ws) = (wide(&q), wide(&k), wide(&v), wide(&sink));
            let q = put(&device, &[batch, 1, channels], &q);
            let [k, v] = [k, v].map(|x| put(&device, &[batch, capacity, channels], &x));
            let sink = put(&device, &[heads], &sink);
            for (given, wide_sink) in [(None, None), (Some(&sink), Some(&ws[..]))] {
                for (scale, window) in [(None, None), (Some(1.0), Some(1)), (None, Some(3)), (Some(0.1), Some(200))] {
                    let options = AttentionOptions { n_head: heads, scale, window };
                    let got = step::forward(&q, &k, &v, length, given, options).unwrap();
                    assert_eq!(got.shape(), [batch, 1, channels]);
                    let want = oracle(sizes, [&wq, &wk, &wv], wide_sink, options);
                    assert_close(&format!("{sizes:?} {options:?}"), &got.read().unwrap(), &want, 2e-6);
                }
            }
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    for device in kernels() {
        let q = put(&device, &[1, 1, 1], &[100.0]);
        let k = put(&device, &[1, 2, 1], &[100.0, -100.0]);
        let v = put(&device, &[1, 2, 1], &[2.0, 3.0]);
        let sink = put(&device, &[1], &[-1e4]);
        assert_eq!(step::forward(&q, &k, &v, 2, Some(&sink), 1).unwrap().read().unwrap(), [2.0]);
    }
}

#[test]
fn rows_land_where_they_should() {
    for device in kernels() {
        let mut store = device.zeros("store", &[2, 4, 3]).unwrap();
        let rows = put(&device, &[2, 2, 3], &(1..=12).map(|i| i as f32).collect::<Vec<_>>());
        step::append(&rows, &mut store, 1).unwrap();
        let mut want = [0.0; 24];
        want[3..9].copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        want[15..21].copy_from_slice(&[7.0, 8.0, 9.0, 10.0, 11.0, 12.0]);
        assert_eq!(store.read().unwrap(), want);
        assert!(step::append(&rows, &mut store, 3).is_err(), "past the end");
    }
}

#[test]
fn impossible_shapes_are_refused() {
    for device in kernels() {
        let q = put(&device, &[1, 1, 6], &[0.0; 6]);
        let k = put(&device, &[1, 2, 6], &[0.0; 12]);
        let narrow = put(&device, &[1, 2, 3], &[0.0; 6]);
        assert!(step::forward(&q, &k, &k, 1, None, 4).is_err(), "heads");
        assert!(step::forward(&q, &k, &k, 0, None, 2).is_err(), "no time");
        let no_window = AttentionOptions { window: Some(0), ..2.into() };
        assert!(step::forward(&q, &k, &k, 1, None, no_window).is_err(), "no window");
        assert!(step::forward(&q, &k, &k, 3, None, 2).is_err(), "too many times");
        assert!(step::forward(&q, &k, &narrow, 1, None, 2).is_err(), "values");
        assert!(step::forward(&k, &k, &k, 1, None, 2).is_err(), "two queries");
        assert!(step::forward(&q, &k, &k, 1, Some(&q), 2).is_err(), "sink");
    }
}
