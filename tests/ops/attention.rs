use crate::common::{assert_close, central_differences, dot, kernels, normal, put, rng, wide};
use gossamer::device::{Device, Tensor};
use gossamer::ops::attention::{self, AttentionOptions, Gradients};
use gossamer::tape::Tape;

/// Batch, time, heads, width.
type Sizes = [usize; 4];

/// Tall, wide, odd and single; around the kernels' blocks of 4 and 64 rows and 16 lanes.
const SIZES: [Sizes; 8] = [
    [1, 1, 1, 1],
    [2, 1, 3, 16],
    [1, 2, 1, 3],
    [2, 5, 2, 16],
    [1, 17, 3, 5],
    [1, 67, 1, 33],
    [2, 130, 1, 4],
    [1, 66, 2, 128],
];

/// Everything in float64: inputs q, k, v: (B, T, H·D), perhaps a sink: (H).
struct Oracle {
    y: Vec<f64>,
    lse: Vec<f64>,
    /// (B, H, T, T), zero after the query.
    p: Vec<f64>,
}

fn oracle(sizes: Sizes, qkv: [&[f64]; 3], sink: Option<&[f64]>) -> Oracle {
    oracle_with(sizes[2].into(), sizes, qkv, sink)
}

/// What products of queries and keys are multiplied by.
fn scale_of(options: AttentionOptions, width: usize) -> f64 {
    options.scale.map_or(1.0 / (width as f64).sqrt(), f64::from)
}

fn oracle_with(
    options: AttentionOptions,
    [batch, time, heads, width]: Sizes,
    [q, k, v]: [&[f64]; 3],
    sink: Option<&[f64]>,
) -> Oracle {
    let at = |b: usize, t: usize, h: usize| ((b * time + t) * heads + h) * width;
    let mut out = Oracle { y: vec![0.0; q.len()], lse: vec![], p: vec![0.0; batch * heads * time * time] };
    for (b, h, t) in indices([batch, heads, time]) {
        let row = &q[at(b, t, h)..][..width];
        let seen = |j: usize| options.window.is_none_or(|window| t - j < window);
        let score = |j: usize| dot(row, &k[at(b, j, h)..][..width]) * scale_of(options, width);
        let scores: Vec<f64> = (0..=t).map(|j| if seen(j) { score(j) } else { f64::NEG_INFINITY }).collect();
        let extra = sink.map(|s| s[h]);
        let top = scores.iter().copied().chain(extra).fold(f64::MIN, f64::max);
        let lse = top + scores.iter().copied().chain(extra).map(|s| (s - top).exp()).sum::<f64>().ln();
        for (j, score) in scores.iter().enumerate() {
            let p = (score - lse).exp();
            out.p[((b * heads + h) * time + t) * time + j] = p;
            for c in 0..width {
                out.y[at(b, t, h) + c] += p * v[at(b, j, h) + c];
            }
        }
        out.lse.push(lse);
    }
    out
}

/// The gradients of q, k, v and the sink, from the stored probabilities: the textbook way.
fn oracle_gradients(sizes: Sizes, qkv: [&[f64]; 3], sink: Option<&[f64]>, dout: &[f64]) -> [Vec<f64>; 4] {
    oracle_gradients_with(sizes[2].into(), sizes, qkv, sink, dout)
}

fn oracle_gradients_with(
    options: AttentionOptions,
    [batch, time, heads, width]: Sizes,
    [q, k, v]: [&[f64]; 3],
    sink: Option<&[f64]>,
    dout: &[f64],
) -> [Vec<f64>; 4] {
    let at = |b: usize, t: usize, h: usize| ((b * time + t) * heads + h) * width;
    let Oracle { lse, p, .. } = oracle_with(options, [batch, time, heads, width], [q, k, v], sink);
    let [mut dq, mut dk, mut dv] = [0, 1, 2].map(|_| vec![0.0; q.len()]);
    let mut dsink = vec![0.0; heads];
    for (row, (b, h, t)) in indices([batch, heads, time]).enumerate() {
        let p = &p[row * time..][..time];
        let dp: Vec<f64> = (0..=t).map(|j| dot(&dout[at(b, t, h)..][..width], &v[at(b, j, h)..][..width])).collect();
        let expected = dot(&p[..=t], &dp);
        for j in 0..=t {
            let ds = p[j] * (dp[j] - expected) * scale_of(options, width);
            for c in 0..width {
                dq[at(b, t, h) + c] += ds * k[at(b, j, h) + c];
                dk[at(b, j, h) + c] += ds * q[at(b, t, h) + c];
                dv[at(b, j, h) + c] += p[j] * dout[at(b, t, h) + c];
            }
        }
        if let Some(sink) = sink {
            dsink[h] -= (sink[h] - lse[row]).exp() * expected;
        }
    }
    [dq, dk, dv, dsink]
}

fn indices([a, b, c]: [usize; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a * b * c).map(move |i| (i / (b * c), i / c % b, i % c))
}

/// q, k, v, dout with the given spread of queries and keys, and a sink.
fn inputs(seed: u64, [batch, time, heads, width]: Sizes, spread: f32) -> ([Vec<f32>; 4], Vec<f32>) {
    let mut rng = rng(seed);
    let mut draw = |spread: f32| -> Vec<f32> {
        normal(&mut rng, batch * time * heads * width).iter().map(|x| x * spread).collect()
    };
    let qkvd = [draw(spread), draw(spread), draw(1.0), draw(1.0)];
    (qkvd, (0..heads).map(|h| spread * spread * (h as f32 - 0.4)).collect())
}

fn upload(device: &Device, [batch, time, heads, width]: Sizes, x: &[Vec<f32>; 4]) -> [Tensor; 4] {
    [0, 1, 2, 3].map(|i| put(device, &[batch, time, heads * width], &x[i]))
}

fn backward(sizes: Sizes, [q, k, v, dout]: &[Tensor; 4], sink: Option<&Tensor>) -> Gradients {
    let out = attention::forward(q, k, v, sink, sizes[2]).unwrap();
    attention::backward(dout, q, k, v, sink, &out, sizes[2]).unwrap()
}

#[test]
fn outputs_agree_with_the_oracle() {
    let devices = kernels();
    for sizes in SIZES {
        let (x, sink) = inputs(61, sizes, 1.0);
        let [q, k, v, _] = [0, 1, 2, 3].map(|i| wide(&x[i]));
        for sink in [None, Some(&sink)] {
            let want = oracle(sizes, [&q, &k, &v], sink.map(|s| wide(s)).as_deref());
            for device in &devices {
                let [q, k, v, _] = upload(device, sizes, &x);
                let sink = sink.map(|s| put(device, &[sizes[2]], s));
                let out = attention::forward(&q, &k, &v, sink.as_ref(), sizes[2]).unwrap();
                assert_eq!((out.y.shape(), out.lse.shape()), (q.shape(), &[sizes[0], sizes[2], sizes[1]][..]));
                assert_close(&format!("y {sizes:?}"), &out.y.read().unwrap(), &want.y, 5e-7);
                assert_close(&format!("lse {sizes:?}"), &out.lse.read().unwrap(), &want.lse, 5e-7);
            }
        }
    }
}

#[test]
fn the_gradient_oracle_agrees_with_differences() {
    let sizes = [2, 4, 2, 3];
    let (x, sink) = inputs(62, sizes, 1.0);
    let [q, k, v, dout] = [0, 1, 2, 3].map(|i| wide(&x[i]));
    let sink = wide(&sink);
    let want = oracle_gradients(sizes, [&q, &k, &v], Some(&sink), &dout);
    let all = [&q[..], &k, &v, &sink].concat();
    let n = q.len();
    let differences = central_differences(&all, 1e-5, |x| {
        dot(&dout, &oracle(sizes, [&x[..n], &x[n..2 * n], &x[2 * n..3 * n]], Some(&x[3 * n..])).y)
    });
    let got: Vec<f32> = want.concat().iter().map(|&g| g as f32).collect();
    assert_close("oracle", &got, &differences, 1e-7);
}

#[test]
fn gradients_agree_with_the_oracle() {
    let devices = kernels();
    for sizes in SIZES {
        let (x, sink) = inputs(63, sizes, 1.0);
        let [q, k, v, dout] = [0, 1, 2, 3].map(|i| wide(&x[i]));
        for sink in [None, Some(&sink)] {
            let want = oracle_gradients(sizes, [&q, &k, &v], sink.map(|s| wide(s)).as_deref(), &dout);
            for device in &devices {
                let tensors = upload(device, sizes, &x);
                let sink = sink.map(|s| put(device, &[sizes[2]], s));
                let got = backward(sizes, &tensors, sink.as_ref());
                for (name, got, want) in [("dq", got.q, &want[0]), ("dk", got.k, &want[1]), ("dv", got.v, &want[2])] {
                    assert_eq!(got.shape(), tensors[0].shape());
                    assert_close(&format!("{name} {sizes:?}"), &got.read().unwrap(), want, 1e-6);
                }
                assert_eq!(got.sink.is_some(), sink.is_some());
                if let Some(dsink) = got.sink {
                    assert_close(&format!("dsink {sizes:?}"), &dsink.read().unwrap(), &want[3], 1e-6);
                }
            }
        }
    }
}

/// Windows of one key, around the kernels' blocks and tiles, and longer than any sequence.
const WINDOWS: [Option<usize>; 6] = [None, Some(1), Some(5), Some(17), Some(65), Some(1000)];

#[test]
fn scales_and_windows_agree_with_the_oracle() {
    let devices = kernels();
    for sizes in SIZES.into_iter().filter(|sizes| sizes[1] > 1 && sizes[3] != 5) {
        let (x, sink) = inputs(66, sizes, 1.0);
        let [q, k, v, dout] = [0, 1, 2, 3].map(|i| wide(&x[i]));
        for (at, window) in WINDOWS.into_iter().enumerate() {
            let scale = [None, Some(1.0), Some(0.3)][at % 3];
            let options = AttentionOptions { n_head: sizes[2], scale, window };
            let sink = (at % 2 == 0).then_some(&sink);
            let wide_sink = sink.map(|s| wide(s));
            let want = oracle_with(options, sizes, [&q, &k, &v], wide_sink.as_deref());
            let gradients = oracle_gradients_with(options, sizes, [&q, &k, &v], wide_sink.as_deref(), &dout);
            for device in &devices {
                let [q, k, v, dout] = upload(device, sizes, &x);
                let mut tape = Tape::new();
                let [q, k, v] = [q, k, v].map(|x| tape.leaf(x));
                let sink = sink.map(|s| tape.leaf(put(device, &[sizes[2]], s)));
                let y = tape.attention(&q, &k, &v, sink.as_ref(), options).unwrap();
                let what = |name: &str| format!("{name} {sizes:?} {options:?} on {}", device.describe());
                // Unscaled scores are large, and a rounding of theirs is one of the exponential's factor.
                assert_close(&what("y"), &y.value().read().unwrap(), &want.y, 5e-6);
                tape.backward(&y, dout).unwrap();
                let names = ["dq", "dk", "dv", "dsink"];
                for ((name, leaf), want) in names.into_iter().zip([Some(q), Some(k), Some(v), sink]).zip(&gradients) {
                    let Some(leaf) = leaf else { continue };
                    // With a window of one key, the gradients of scores are differences of equal sums.
                    let tolerance = if window == Some(1) { 1e-4 } else { 2e-5 };
                    assert_close(&what(name), &tape.take_gradient(&leaf).unwrap().read().unwrap(), want, tolerance);
                }
            }
        }
    }
}

#[test]
fn the_gradient_oracle_of_windows_agrees_with_differences() {
    let sizes = [1, 5, 2, 3];
    let options = AttentionOptions { n_head: 2, scale: Some(0.7), window: Some(2) };
    let (x, _) = inputs(67, sizes, 1.0);
    let [q, k, v, dout] = [0, 1, 2, 3].map(|i| wide(&x[i]));
    let [dq, dk, dv, _] = oracle_gradients_with(options, sizes, [&q, &k, &v], None, &dout);
    let n = q.len();
    let differences = central_differences(&[&q[..], &k, &v].concat(), 1e-5, |x| {
        dot(&dout, &oracle_with(options, sizes, [&x[..n], &x[n..2 * n], &x[2 * n..]], None).y)
    });
    let got: Vec<f32> = [dq, dk, dv].concat().iter().map(|&g| g as f32).collect();
    assert_close("oracle", &got, &differences, 1e-7);
}

/// What a model without these options computes does not change by them.
#[test]
fn a_window_as_long_as_the_sequence_and_the_usual_scale_change_no_bit() {
    for sizes in [[2, 5, 2, 16], [1, 67, 1, 33], [2, 130, 1, 4]] {
        let (x, sink) = inputs(68, sizes, 1.0);
        for device in kernels() {
            let [q, k, v, dout] = upload(&device, sizes, &x);
            let sink = put(&device, &[sizes[2]], &sink);
            let bits = |options: AttentionOptions| {
                let out = attention::forward(&q, &k, &v, Some(&sink), options).unwrap();
                let g = attention::backward(&dout, &q, &k, &v, Some(&sink), &out, options).unwrap();
                [out.y, out.lse, g.q, g.k, g.v, g.sink.unwrap()]
                    .map(|x| x.read().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>())
            };
            let usual = bits(sizes[2].into());
            let scale = Some(1.0 / (sizes[3] as f32).sqrt());
            assert_eq!(bits(AttentionOptions { n_head: sizes[2], scale, window: Some(sizes[1]) }), usual, "{sizes:?}");
        }
    }
}

#[test]
fn logits_of_hundreds_are_harmless() {
    let devices = kernels();
    for spread in [12.0, 30.0] {
        let sizes = [1, 40, 2, 16];
        let (x, sink) = inputs(64, sizes, spread);
        let [q, k, v, dout] = [0, 1, 2, 3].map(|i| wide(&x[i]));
        let sinks = wide(&sink);
        let want = oracle(sizes, [&q, &k, &v], Some(&sinks));
        assert!(want.lse.iter().any(|&l| l > 300.0));
        let gradients = oracle_gradients(sizes, [&q, &k, &v], Some(&sinks), &dout);
        for device in &devices {
            let tensors = upload(device, sizes, &x);
            let sink = put(device, &[2], &sink);
            let out = attention::forward(&tensors[0], &tensors[1], &tensors[2], Some(&sink), 2).unwrap();
            // A score of 1000 is known to 1e-4 in f32, and with it the probabilities.
            assert_close("y", &out.y.read().unwrap(), &want.y, 1e-3);
            assert_close("lse", &out.lse.read().unwrap(), &want.lse, 1e-6);
            let got = backward(sizes, &tensors, Some(&sink));
            assert_close("dq", &got.q.read().unwrap(), &gradients[0], 1e-3);
            assert_close("dk", &got.k.read().unwrap(), &gradients[1], 1e-3);
            assert_close("dv", &got.v.read().unwrap(), &gradients[2], 1e-3);
        }
    }
}

#[test]
fn very_low_scores_do_not_overflow() {
    for device in kernels() {
        let [q, k, v] = [[-200.0, -210.0], [200.0, 190.0], [3.0, 5.0]].map(|x| put(&device, &[1, 2, 1], &x));
        let out = attention::forward(&q, &k, &v, None, 1).unwrap();
        assert_close("y", &out.y.read().unwrap(), &[3.0, 5.0], 1e-6);
        assert_close("lse", &out.lse.read().unwrap(), &[-40_000.0, -39_900.0], 1e-6);
    }
}

#[test]
fn equal_keys_share_equally_and_a_strong_sink_takes_all() {
    for device in kernels() {
        let zeros = put(&device, &[1, 4, 2], &[0.0; 8]);
        let v = put(&device, &[1, 4, 2], &[1.0, 0.0, 3.0, 0.0, 5.0, 0.0, 7.0, 0.0]);
        let y = attention::forward(&zeros, &zeros, &v, None, 1).unwrap().y;
        assert_close("means", &y.read().unwrap(), &[1.0, 0.0, 2.0, 0.0, 3.0, 0.0, 4.0, 0.0], 1e-7);
        let sink = put(&device, &[2], &[0.0, 200.0]);
        let y = attention::forward(&zeros, &zeros, &v, Some(&sink), 2).unwrap().y;
        assert_close("sinks", &y.read().unwrap(), &[0.5, 0.0, 4.0 / 3.0, 0.0, 2.25, 0.0, 3.2, 0.0], 1e-7);
    }
}

#[test]
fn repeated_runs_give_the_same_bits() {
    let sizes = [2, 70, 3, 16];
    let (x, sink) = inputs(65, sizes, 1.0);
    for device in kernels() {
        let tensors = upload(&device, sizes, &x);
        let sink = put(&device, &[3], &sink);
        let run = || {
            let Gradients { q, k, v, sink } = backward(sizes, &tensors, Some(&sink));
            [q, k, v, sink.unwrap()].map(|g| g.read().unwrap())
        };
        assert_eq!(run(), run());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for device in kernels() {
        let x = put(&device, &[1, 2, 6], &[0.0; 12]);
        let flat = put(&device, &[2, 6], &[0.0; 12]);
        let long = put(&device, &[1, 3, 6], &[0.0; 18]);
        let sink = put(&device, &[3], &[0.0; 3]);
        let refused = |r: gossamer::Result<attention::Forward>| r.unwrap_err().to_string();
        assert!(refused(attention::forward(&flat, &flat, &flat, None, 1)).contains("[2, 6]"));
        assert!(refused(attention::forward(&x, &x, &x, None, 4)).contains("4 heads"));
        assert!(refused(attention::forward(&x, &x, &x, None, 0)).contains("0 heads"));
        assert!(refused(attention::forward(&x, &long, &x, None, 2)).contains("differ"));
        assert!(refused(attention::forward(&x, &x, &x, Some(&sink), 2)).contains("sink"));
        let no_window = AttentionOptions { window: Some(0), ..2.into() };
        assert!(refused(attention::forward(&x, &x, &x, None, no_window)).contains("window of 0"));
        let out = attention::forward(&x, &x, &x, None, 2).unwrap();
        assert!(attention::backward(&long, &x, &x, &x, None, &out, 2).is_err());
        assert!(attention::backward(&x, &x, &x, &x, None, &out, 3).is_err());
        let wide = put(&device, &[1, 2, 129], &[0.0; 258]);
        match attention::forward(&wide, &wide, &wide, None, 1) {
            Ok(_) => assert!(device.is_cpu()),
            Err(e) => assert!(!device.is_cpu() && e.to_string().contains("128")),
        }
        let none = put(&device, &[0, 2, 6], &[]);
        let sink = put(&device, &[2], &[1.0, 2.0]);
        let out = attention::forward(&none, &none, &none, Some(&sink), 2).unwrap();
        let got = attention::backward(&none, &none, &none, &none, Some(&sink), &out, 2).unwrap();
        assert_eq!(got.sink.unwrap().read().unwrap(), [0.0, 0.0]);
    }
}
