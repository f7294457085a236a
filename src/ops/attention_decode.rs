//! Attention of one new query a sequence over keys and values kept from before: generation, token
//! by token.
//!
//! q: (B, 1, H·D); keys, values: (B, capacity, H·D), of which the first `length` times hold
//! something. The formula is [`super::attention`]'s, where the query is the last of its sequence.
//! No gradient: what generates does not learn.

use rayon::prelude::*;

use super::attention::AttentionOptions;
use super::math::{exp, largest};
use super::{concat, expect_same, expect_shape};
use crate::device::cpu::vectorised;
use crate::device::{Backend, Launch, Shader, Tensor, params};
use crate::{Error, Result};

params! {
    struct ScoreParams { n: u32, first: u32, length: u32, capacity: u32, heads: u32, width: u32, scale: f32 }
    struct MixParams { n: u32, first: u32, length: u32, capacity: u32, heads: u32, width: u32, has_sink: u32 }
}

pub(super) const SHADER: Shader = Shader::new("attention_decode", include_str!("../../shaders/attention_decode.wgsl"));

/// Copies `rows: (B, T, C)` into `store: (B, capacity, C)`, from time `at` on.
///
/// # Errors
/// [`Error::Shape`] if they do not fit.
pub fn append(rows: &Tensor, store: &mut Tensor, at: usize) -> Result<()> {
    let (&[batch, time, width], &[entries, capacity, channels]) = (rows.shape(), store.shape()) else {
        let message = format!("rows {:?} and store {:?}, expected (B, T, C)", rows.shape(), store.shape());
        return Err(Error::shape("attention_decode", message));
    };
    if (batch, width) != (entries, channels) || at.checked_add(time).is_none_or(|end| end > capacity) {
        let message = format!("rows {:?} do not fit into {:?} at time {at}", rows.shape(), store.shape());
        return Err(Error::shape("attention_decode", message));
    }
    concat::write(rows, store, 1, at)
}

/// The heads' outputs, (B, 1, H·D), of queries that see the first `length` times of `keys` and
/// `values`, or of those the last ones that are in their window.
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit or a window is 0.
pub fn forward(
    q: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    length: usize,
    sink: Option<&Tensor>,
    options: impl Into<AttentionOptions>,
) -> Result<Tensor> {
    let options = options.into();
    let n_head = options.n_head;
    let (&[batch, 1, channels], &[_, capacity, _]) = (q.shape(), keys.shape()) else {
        let message = format!("q is {:?} and keys {:?}, expected (B, 1, H·D)", q.shape(), keys.shape());
        return Err(Error::shape("attention_decode", message));
    };
    expect_shape("attention_decode", "keys", keys, &[batch, capacity, channels])?;
    expect_same("attention_decode", keys, values)?;
    if n_head == 0 || channels % n_head != 0 || !(1..=capacity).contains(&length) {
        let message = format!("{n_head} heads of {channels} channels, {length} of {capacity} times");
        return Err(Error::shape("attention_decode", message));
    }
    if options.window == Some(0) {
        return Err(Error::shape("attention_decode", "a window of 0 keys; a query sees at least its own"));
    }
    if let Some(sink) = sink {
        expect_shape("attention_decode", "sink", sink, &[n_head])?;
    }
    let width = channels / n_head;
    let scale = options.scale_of(width);
    let first = options.first_key(length - 1);
    let length = length - first;
    let mut y = q.device().empty("attention", q.shape())?;
    match q.backend() {
        Backend::Gpu(queue) => {
            let scores: Tensor = q.device().empty("attention scores", &[batch, n_head, length])?;
            let sizes = [scores.len(), first, length, capacity, n_head, width];
            let [n, first, length, capacity, heads, width] = sizes.map(|n| n as u32);
            Launch::new(&SHADER, "score", ScoreParams { n, first, length, capacity, heads, width, scale })
                .bind(&[q, keys, &scores])
                .threads(scores.len(), 64)
                .cost(scores.len() * width as usize)
                .run(queue)?;
            let has_sink = u32::from(sink.is_some());
            Launch::new(&SHADER, "mix", MixParams { n, first, length, capacity, heads, width, has_sink })
                // Something must be bound; it is not read without a sink.
                .bind(&[&scores, values, sink.unwrap_or(q), &y])
                .workgroups(batch * n_head)
                .cost(scores.len() * width as usize)
                .run(queue)?;
        }
        Backend::Cpu => {
            let (q, keys, values) = (q.as_slice()?, keys.as_slice()?, values.as_slice()?);
            let sink = sink.map(Tensor::as_slice).transpose()?;
            y.as_mut_slice()?.par_chunks_exact_mut(width).enumerate().for_each_init(Vec::new, |scores, (at, y)| {
                let start = (at / n_head * capacity + first) * channels + at % n_head * width;
                let rows = [keys, values].map(|x| x[start..].chunks(channels).take(length));
                let sink = sink.map(|sink| sink[at % n_head]);
                vectorised!(attend(&q[at * width..][..width], rows, sink, scale, scores, y));
            });
        }
        Backend::Meta => {}
    }
    Ok(y)
}

/// One head: `keys` and `values` give at least a head's channels for every time.
#[inline(always)]
fn attend<'a>(
    q: &[f32],
    [keys, values]: [impl Iterator<Item = &'a [f32]>; 2],
    sink: Option<f32>,
    scale: f32,
    scores: &mut Vec<f32>,
    y: &mut [f32],
) {
    scores.clear();
    scores.extend(keys.map(|key| scale * q.iter().zip(key).map(|(a, b)| a * b).sum::<f32>()));
    let top = largest(scores).max(sink.unwrap_or(f32::NEG_INFINITY));
    let mut total = sink.map_or(0.0, |sink| exp(sink - top));
    y.fill(0.0);
    for (&score, value) in scores.iter().zip(values) {
        let p = exp(score - top);
        total += p;
        y.iter_mut().zip(value).for_each(|(y, v)| *y += p * v);
    }
    y.iter_mut().for_each(|y| *y /= total);
}
