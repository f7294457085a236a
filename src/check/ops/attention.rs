//! Attention over whole sequences, and of one query a sequence over what is kept.

use super::{Checker, Operation, wide};
use crate::Result;
use crate::ops::attention::AttentionOptions;
use crate::ops::{attention, attention_decode};

pub(super) const OPERATIONS: &[Operation] = operations![attention, attention_decode];

/// Sequences, times, heads, and channels of a head.
#[derive(Clone, Copy)]
struct Shape {
    batch: usize,
    time: usize,
    heads: usize,
    width: usize,
}

impl Shape {
    fn len(self) -> usize {
        self.batch * self.time * self.heads * self.width
    }

    /// Where the channels of a head begin.
    fn at(self, b: usize, t: usize, h: usize) -> usize {
        ((b * self.time + t) * self.heads + h) * self.width
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Output, lse, and the gradients of queries, keys, values and sink.
struct Right {
    y: Vec<f64>,
    lse: Vec<f64>,
    gradients: [Vec<f64>; 3],
    dsink: Vec<f64>,
}

/// Heads with the usual scale and no window, and with others.
fn variants(heads: usize, time: usize) -> [AttentionOptions; 3] {
    let plain = AttentionOptions::from(heads);
    [
        plain,
        AttentionOptions { scale: Some(0.8), window: Some(time.div_ceil(3)), ..plain },
        AttentionOptions { window: Some(1), ..plain },
    ]
}

fn right(s: Shape, [q, k, v, dout]: [&[f64]; 4], sink: Option<&[f64]>, options: AttentionOptions) -> Right {
    let (n, scale) = (s.len(), options.scale.map_or(1.0 / (s.width as f64).sqrt(), f64::from));
    let zeros = || vec![0.0; n];
    let mut r = Right { y: zeros(), lse: vec![], gradients: [zeros(), zeros(), zeros()], dsink: vec![0.0; s.heads] };
    for (b, h) in (0..s.batch).flat_map(|b| (0..s.heads).map(move |h| (b, h))) {
        for t in 0..s.time {
            let row = |x: usize| s.at(b, x, h)..s.at(b, x, h) + s.width;
            let hidden = |j: usize| options.window.is_some_and(|window| t - j >= window);
            let score = |j| if hidden(j) { f64::NEG_INFINITY } else { dot(&q[row(t)], &k[row(j)]) * scale };
            let scores: Vec<f64> = (0..=t).map(score).collect();
            let sink = sink.map(|sink| sink[h]);
            let top = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().copied().chain(sink).map(|x| (x - top).exp()).sum();
            let lse = top + sum.ln();
            r.lse.push(lse);
            for (j, score) in scores.iter().enumerate() {
                let p = (score - lse).exp();
                for (c, i) in row(t).enumerate() {
                    r.y[i] += p * v[row(j).start + c];
                }
            }
            let delta = dot(&dout[row(t)], &r.y[row(t)]);
            for (j, score) in scores.iter().enumerate() {
                let p = (score - lse).exp();
                let ds = p * (dot(&dout[row(t)], &v[row(j)]) - delta);
                for c in 0..s.width {
                    let (t, j) = (row(t).start + c, row(j).start + c);
                    r.gradients[0][t] += ds * scale * k[j];
                    r.gradients[1][j] += ds * scale * q[t];
                    r.gradients[2][j] += p * dout[t];
                }
            }
            if let Some(sink) = sink {
                r.dsink[h] -= (sink - lse).exp() * delta;
            }
        }
    }
    r
}

fn attention(b: &mut Checker) -> Result<()> {
    let shape = |(batch, time, heads, width)| Shape { batch, time, heads, width };
    // Widths for full and for smaller tiles, with and without channels left over; times around
    // blocks of 64.
    let shapes = [(1, 1, 1, 5), (2, 5, 3, 5), (1, 131, 2, 5), (9, 65, 1, 2), (1, 66, 1, 39), (1, 67, 1, 128)];
    // Only the sink's gradient has a form without subgroups.
    let shapes = if b.without_subgroups { &shapes[1..4] } else { &shapes[..] };
    for (s, with_sink) in shapes.iter().copied().map(shape).flat_map(|s| [(s, false), (s, true)]) {
        for options in variants(s.heads, s.time) {
            whole_sequences(b, s, with_sink, options)?;
        }
    }
    large_scores(b)
}

fn whole_sequences(b: &mut Checker, s: Shape, with_sink: bool, options: AttentionOptions) -> Result<()> {
    let n = s.len();
    let q: Vec<f32> = b.numbers(n).iter().map(|q| 2.0 * q).collect();
    let (k, v, dout, sink) = (b.numbers(n), b.numbers(n), b.numbers(n), b.numbers(s.heads));
    let inputs = [&wide(&q)[..], &wide(&k), &wide(&v), &wide(&dout)];
    let want = right(s, inputs, with_sink.then(|| wide(&sink)).as_deref(), options);
    let dimensions = [s.batch, s.time, s.heads * s.width];
    let (q, k) = (b.put(&dimensions, &q)?, b.put(&dimensions, &k)?);
    let (v, dout) = (b.put(&dimensions, &v)?, b.put(&dimensions, &dout)?);
    let sink = b.put(&[s.heads], &sink)?;
    let sink = with_sink.then_some(&sink);
    b.poison()?;
    let at = |what: &str| format!("{what}, {dimensions:?}, {options:?}, sink {with_sink}");
    let forward = attention::forward(&q, &k, &v, sink, options)?;
    b.close(&at("forward"), &forward.y, &want.y)?;
    b.close(&at("lse"), &forward.lse, &want.lse)?;
    let got = attention::backward(&dout, &q, &k, &v, sink, &forward, options)?;
    // Where a query sees one key, the gradients of both are 0 up to rounding.
    let alone = s.time == 1 || options.window == Some(1);
    for (name, got, want) in [
        ("queries", &got.q, &want.gradients[0]),
        ("keys", &got.k, &want.gradients[1]),
        ("values", &got.v, &want.gradients[2]),
    ] {
        if !alone || name == "values" {
            b.close(&at(&format!("gradient of {name}")), got, want)?;
        }
    }
    if let Some(got) = &got.sink {
        b.close(&at("gradient of the sink"), got, &want.dsink)?;
    }
    Ok(())
}

/// Scores that grow from key to key, so far that their exponentials overflow unless the largest one
/// met so far is taken out.
fn large_scores(b: &mut Checker) -> Result<()> {
    let s = Shape { batch: 1, time: 70, heads: 1, width: 5 };
    let q = vec![8.0; s.len()];
    let k: Vec<f32> = (0..s.len()).map(|i| (i / s.width) as f32 * 0.25).collect();
    let v = b.numbers(s.len());
    let want = right(s, [&wide(&q), &wide(&k), &wide(&v), &wide(&v)], None, s.heads.into());
    let dimensions = [s.batch, s.time, s.width];
    let (q, k, v) = (b.put(&dimensions, &q)?, b.put(&dimensions, &k)?, b.put(&dimensions, &v)?);
    b.poison()?;
    let forward = attention::forward(&q, &k, &v, None, s.heads)?;
    // What exp makes of the rounding of scores of 300 is larger than elsewhere.
    b.within(1e-3, "forward, large scores", &forward.y, &want.y)?;
    b.close("lse, large scores", &forward.lse, &want.lse)
}

fn attention_decode(b: &mut Checker) -> Result<()> {
    for (batch, capacity, heads, width) in [(1, 1, 1, 1), (2, 9, 3, 5), (3, 140, 2, 16), (1, 70, 1, 70)] {
        let s = Shape { batch, time: capacity, heads, width };
        let channels = heads * width;
        let kept = [batch, capacity, channels];
        let (k, v) = (b.numbers(s.len()), b.numbers(s.len()));
        let part = |x: &[f32], from: usize, to: usize| -> Vec<f32> {
            let rows = x.chunks(capacity * channels).flat_map(|x| &x[from * channels..to * channels]);
            rows.copied().collect()
        };
        // Positions one by one at first, as they are generated; then the others at once, as a
        // prompt is read.
        let (mut keys, mut values) = (b.device.zeros("keys", &kept)?, b.device.zeros("values", &kept)?);
        let mut lengths: Vec<usize> =
            [1, 2, 3, capacity / 2, capacity].into_iter().filter(|&l| l <= capacity && l > 0).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let mut before = 0;
        for length in lengths {
            for (data, store) in [(&k, &mut keys), (&v, &mut values)] {
                let rows = b.put(&[batch, length - before, channels], &part(data, before, length))?;
                attention_decode::append(&rows, store, before)?;
            }
            before = length;
            let q: Vec<f32> = b.numbers(batch * channels).iter().map(|q| 2.0 * q).collect();
            // Of either order: the sink's logit or a score is the largest. Beside another head's,
            // its exponential would overflow.
            let sink: Vec<f32> = (0..heads)
                .map(|h| match (h % 2, heads) {
                    (0, 1) => 3.0,
                    (0, _) => 95.0,
                    _ => -1.0,
                })
                .collect();
            let query = b.put(&[batch, 1, channels], &q)?;
            let sink_in = b.put(&[heads], &sink)?;
            for with_sink in [false, true] {
                // As the last query of whole sequences of that length.
                let whole = Shape { time: length, ..s };
                let mut queries = vec![0.0; whole.len()];
                for (queries, q) in queries.chunks_mut(length * channels).zip(q.chunks(channels)) {
                    queries[(length - 1) * channels..].copy_from_slice(&wide(q));
                }
                let (k, v) = (wide(&part(&k, 0, length)), wide(&part(&v, 0, length)));
                for options in variants(heads, capacity) {
                    let with = with_sink.then(|| wide(&sink));
                    let y = right(whole, [&queries, &k, &v, &queries], with.as_deref(), options).y;
                    let last = y.chunks(length * channels).flat_map(|y| &y[(length - 1) * channels..]);
                    let want: Vec<f64> = last.copied().collect();
                    b.poison()?;
                    let given = with_sink.then_some(&sink_in);
                    let got = attention_decode::forward(&query, &keys, &values, length, given, options)?;
                    b.close(&format!("{length} of {kept:?}, {options:?}, sink {with_sink}"), &got, &want)?;
                }
            }
        }
        b.exact("append", &keys, &k)?;
    }
    Ok(())
}
