//! Causal multi-head attention, heads side by side in the last dimension.
//!
//! q, k, v, y: (B, T, H·D); head h has the channels `h D .. (h + 1) D`. For every batch entry and head
//! `y[t] = sum over j <= t of p[t, j] v[j]`, where `p[t, j] = e^(q[t]·k[j] / sqrt(D) - lse[t])` and `lse[t]` is the logarithm of the
//! sum of those exponentials. A sink, (H), is one more logit per head whose value is zero: `e^sink[h]` joins the sum.
//!
//! Gradient, with `delta[t] = dout[t]·y[t]` and `ds[t, j] = p[t, j] (dout[t]·v[j] - delta[t])`:
//! `dv[j] = sum of p[t, j] dout[t]`, `dq[t] = sum of ds[t, j] k[j] / sqrt(D)`, `dk[j] = sum of ds[t, j] q[t] / sqrt(D)`, and
//! `dsink = - sum over b and t of e^(sink - lse[t]) delta[t]`.
//!
//! Memory: between forward and backward only `lse` is kept, (B, H, T), beside the inputs and the output; the probabilities are
//! recomputed from it. No device ever holds a T×T matrix.

mod native;

use crate::device::{Gpu, Launch, Shader, Tensor};
use crate::{Error, Result};
use native::Heads;

/// The kernels.
pub const SHADER: Shader = Shader::new("attention", include_str!("../../shaders/attention.wgsl"));

/// The widest head that the GPU kernels take: what an invocation holds of its query or key.
pub const GPU_WIDTH_LIMIT: usize = 128;

/// Queries (or keys) of one workgroup.
const BLOCK: usize = 64;

/// What [`forward`] gives, and [`backward`] needs again.
#[derive(Debug)]
pub struct Forward {
    /// The heads' outputs side by side: (B, T, H·D).
    pub y: Tensor,
    /// The log-sum-exp of every query's logits, the sink's among them: (B, H, T).
    pub lse: Tensor,
}

/// The gradients of what [`forward`] was given, each in its shape.
#[derive(Debug)]
pub struct Gradients {
    /// Of the queries: (B, T, H·D).
    pub q: Tensor,
    /// Of the keys: (B, T, H·D).
    pub k: Tensor,
    /// Of the values: (B, T, H·D).
    pub v: Tensor,
    /// Of the sink, if there was one: (H).
    pub sink: Option<Tensor>,
}

/// Attends: q, k, v: (B, T, H·D) with H = `n_head`, sink: (H).
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit, and on a GPU for heads wider than [`GPU_WIDTH_LIMIT`].
pub fn forward(q: &Tensor, k: &Tensor, v: &Tensor, sink: Option<&Tensor>, n_head: usize) -> Result<Forward> {
    let heads = check(q, k, v, sink, n_head)?;
    let device = q.device();
    let mut y = device.empty("attention", q.shape())?;
    let mut lse = device.empty("log-sum-exp of attention", &[heads.batch, n_head, heads.time])?;
    match q.gpu() {
        Some(gpu) => blocks(heads, "forward")?
            .bind(q)
            .bind(k)
            .bind(v)
            // Something must be bound; it is not read without a sink.
            .bind(sink.unwrap_or(q))
            .bind(&y)
            .bind(&lse)
            .word(usize::from(sink.is_some()))
            .run(gpu)?,
        None => {
            let mut packed = device.empty("attention by heads", q.shape())?;
            let sink = sink.map(Tensor::as_slice).transpose()?;
            let inputs = [q.as_slice()?, k.as_slice()?, v.as_slice()?];
            native::forward(heads, inputs, sink, packed.as_mut_slice()?, lse.as_mut_slice()?);
            native::unpack(heads, packed.as_slice()?, 1, 0, y.as_mut_slice()?);
        }
    }
    Ok(Forward { y, lse })
}

/// The gradients, given that of the output: dout: (B, T, H·D).
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit those given to [`forward`].
pub fn backward(
    dout: &Tensor,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    sink: Option<&Tensor>,
    forward: &Forward,
    n_head: usize,
) -> Result<Gradients> {
    let heads = check(q, k, v, sink, n_head)?;
    super::expect_same("attention", dout, q)?;
    super::expect_same("attention", &forward.y, q)?;
    super::expect_shape("attention", "lse", &forward.lse, &[heads.batch, n_head, heads.time])?;
    let device = q.device();
    let mut grads = Gradients {
        q: device.empty("query gradient", q.shape())?,
        k: device.empty("key gradient", q.shape())?,
        v: device.empty("value gradient", q.shape())?,
        sink: sink.map(|s| device.empty("sink gradient", s.shape())).transpose()?,
    };
    match q.gpu() {
        Some(gpu) => gpu_backward(gpu, heads, dout, [q, k, v], sink, forward, &grads)?,
        None => {
            let mut packed = device.empty("attention gradients by heads", &[3, q.len()])?;
            let native_sink = sink.map(Tensor::as_slice).transpose()?;
            let inputs = [q.as_slice()?, k.as_slice()?, v.as_slice()?, dout.as_slice()?, forward.y.as_slice()?];
            let dsink = native::backward(heads, inputs, native_sink, forward.lse.as_slice()?, packed.as_mut_slice()?);
            for (part, out) in [&mut grads.q, &mut grads.k, &mut grads.v].into_iter().enumerate() {
                native::unpack(heads, packed.as_slice()?, 3, part, out.as_mut_slice()?);
            }
            if let Some(out) = &mut grads.sink {
                out.as_mut_slice()?.copy_from_slice(&dsink);
            }
        }
    }
    Ok(grads)
}

/// Three passes instead of one with atomic additions, so that every sum has its fixed order: each query's own, each key's
/// own, each head's own.
fn gpu_backward(
    gpu: &Gpu,
    heads: Heads,
    dout: &Tensor,
    [q, k, v]: [&Tensor; 3],
    sink: Option<&Tensor>,
    forward: &Forward,
    grads: &Gradients,
) -> Result<()> {
    let lse = &forward.lse;
    let delta: Tensor = q.device().empty("attention delta", lse.shape())?;
    Launch::new(&SHADER, "backward_delta")
        .constant("D", heads.width as f64)
        .bind(dout)
        .bind(&forward.y)
        .bind(&delta)
        .word(heads.time)
        .word(heads.count)
        .word(delta.len())
        .items(delta.len(), 256)
        .work(q.len().saturating_mul(2))
        .run(gpu)?;
    let inputs =
        |entry| Ok::<_, Error>(blocks(heads, entry)?.bind(q).bind(k).bind(v).bind(dout).bind(lse).bind(&delta));
    inputs("backward_query")?.bind(&grads.q).run(gpu)?;
    inputs("backward_key")?.bind(&grads.k).bind(&grads.v).run(gpu)?;
    match (sink, &grads.sink) {
        (Some(sink), Some(dsink)) => Launch::new(&SHADER, "backward_sink")
            .bind(sink)
            .bind(lse)
            .bind(&delta)
            .bind(dsink)
            .word(heads.time)
            .word(heads.count)
            .word(heads.batch)
            .groups(heads.count)
            .work(lse.len().saturating_mul(4))
            .run(gpu),
        _ => Ok(()),
    }
}

/// A launch of one workgroup for every batch entry, head and block of queries or keys.
fn blocks(heads: Heads, entry: &'static str) -> Result<Launch> {
    if heads.width > GPU_WIDTH_LIMIT {
        let message = format!("heads are {} wide; on a GPU they are at most {GPU_WIDTH_LIMIT}", heads.width);
        return Err(Error::shape("attention", message));
    }
    let quads = heads.width.div_ceil(4);
    let blocks = heads.time.div_ceil(BLOCK);
    let groups = heads.batch * heads.count * blocks;
    Ok(Launch::new(&SHADER, entry)
        .constant("D", heads.width as f64)
        .constant("QUADS", quads as f64)
        // Two tiles of 480 quads fill the 16 KiB that every adapter has, with room for two rows of statistics.
        .constant("TILE", (480 / quads).min(BLOCK) as f64)
        .word(heads.time)
        .word(heads.count)
        .word(groups)
        .word(blocks)
        .float(heads.scale())
        .groups(groups)
        .work((heads.batch * heads.count * heads.width * 4).saturating_mul(heads.time.saturating_mul(heads.time))))
}

fn check(q: &Tensor, k: &Tensor, v: &Tensor, sink: Option<&Tensor>, n_head: usize) -> Result<Heads> {
    let &[batch, time, channels] = q.shape() else {
        return Err(Error::shape("attention", format!("q is {:?}, expected (B, T, H·D)", q.shape())));
    };
    if n_head == 0 || channels == 0 || channels % n_head != 0 {
        return Err(Error::shape("attention", format!("q is {:?}: no {n_head} heads of equal width", q.shape())));
    }
    super::expect_same("attention", q, k)?;
    super::expect_same("attention", q, v)?;
    if let Some(sink) = sink {
        super::expect_shape("attention", "sink", sink, &[n_head])?;
    }
    Ok(Heads { batch, time, count: n_head, width: channels / n_head })
}
