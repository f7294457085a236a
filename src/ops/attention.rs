//! Causal multi-head attention, heads next to each other in the last dimension.
//!
//! q, k, v, y: (B, T, H·D); head h has the channels `h D .. (h + 1) D`. For every batch entry and
//! head `y[t] = sum over j of p[t, j] v[j]`, where `p[t, j] = e^(scale q[t]·k[j] - lse[t])` and
//! `lse[t]` is the logarithm of the sum of those exponentials. j goes over the keys that the query
//! sees: up to its own, `j <= t`, and with a window only the last ones, `j > t - window`. The scale
//! is `1 / sqrt(D)` unless another is given. A sink, (H), is one more logit per head whose value is
//! zero: `e^sink[h]` joins the sum.
//!
//! Gradient, with `delta[t] = dout[t]·y[t]` and `ds[t, j] = p[t, j] (dout[t]·v[j] - delta[t])`:
//! `dv[j] = sum of p[t, j] dout[t]`, `dq[t] = scale sum of ds[t, j] k[j]`, `dk[j] = scale sum of
//! ds[t, j] q[t]`, and `dsink = - sum over b and t of e^(sink - lse[t]) delta[t]`.
//!
//! Memory: the backward pass needs the inputs, the output and `lse`, (B, H, T); the probabilities
//! are recomputed from it. No device ever holds a T×T matrix.

mod native;

use crate::device::{Backend, Device, Launch, Queue, Shader, Tensor, params};
use crate::tape::{Tape, Var};
use crate::{Error, Result};
use native::Heads;

params! {
    struct BlockParams { t: u32, heads: u32, workgroups: u32, blocks: u32, scale: f32, has_sink: u32, window: u32 }
    struct DeltaParams { t: u32, heads: u32, n: u32 }
    struct SinkParams { t: u32, heads: u32, batch: u32 }
}

pub(super) const SHADER: Shader = Shader::new("attention", include_str!("../../shaders/attention.wgsl"));

/// The widest head that the GPU kernels take: what an invocation holds of its query or key.
pub(crate) const GPU_WIDTH_LIMIT: usize = 128;

/// Queries (or keys) of one workgroup.
const BLOCK: usize = 64;

/// How attention attends. A number stands for that many heads, with the usual scale and without a
/// window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionOptions {
    /// How many heads there are, H.
    pub n_head: usize,
    /// What products of queries and keys are multiplied by; none: 1 / sqrt(D).
    pub scale: Option<f32>,
    /// How many keys a query sees, the last ones up to its own; none: all of them.
    pub window: Option<usize>,
}

impl From<usize> for AttentionOptions {
    fn from(n_head: usize) -> Self {
        Self { n_head, scale: None, window: None }
    }
}

impl AttentionOptions {
    /// The scale for heads of `width` channels.
    pub fn scale_of(&self, width: usize) -> f32 {
        self.scale.unwrap_or(1.0 / (width as f32).sqrt())
    }

    /// The first of the keys that the query at time `t` sees.
    pub fn first_key(&self, t: usize) -> usize {
        self.window.map_or(0, |window| (t + 1).saturating_sub(window))
    }
}

/// What [`forward`] gives, and [`backward`] needs again.
#[derive(Debug)]
pub struct Forward {
    /// The heads' outputs next to each other: (B, T, H·D).
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

/// Attends: q, k, v: (B, T, H·D), sink: (H).
///
/// # Errors
/// [`Error::Shape`] if the shapes do not fit or a window is 0, and on a GPU for heads wider than
/// `GPU_WIDTH_LIMIT`.
pub fn forward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    sink: Option<&Tensor>,
    options: impl Into<AttentionOptions>,
) -> Result<Forward> {
    let heads = check(q, k, v, sink, options.into())?;
    let device = q.device();
    let mut y = device.empty("attention", q.shape())?;
    let mut lse = device.empty("log-sum-exp of attention", &[heads.batch, heads.count, heads.time])?;
    let mut packed = packed(device, "attention by heads", q.len())?;
    match q.backend() {
        Backend::Gpu(queue) => blocks(heads, "forward", sink.is_some())?
            // Something must be bound; it is not read without a sink.
            .bind(&[q, k, v, sink.unwrap_or(q), &y, &lse])
            .run(queue)?,
        Backend::Cpu => {
            let sink = sink.map(Tensor::as_slice).transpose()?;
            let inputs = [q.as_slice()?, k.as_slice()?, v.as_slice()?];
            native::forward(heads, inputs, sink, packed.as_mut_slice()?, lse.as_mut_slice()?);
            native::unpack(heads, packed.as_slice()?, 1, 0, y.as_mut_slice()?);
        }
        Backend::Meta => {}
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
    options: impl Into<AttentionOptions>,
) -> Result<Gradients> {
    let heads = check(q, k, v, sink, options.into())?;
    super::expect_same("attention", dout, q)?;
    super::expect_same("attention", &forward.y, q)?;
    super::expect_shape("attention", "lse", &forward.lse, &[heads.batch, heads.count, heads.time])?;
    let device = q.device();
    let mut grads = Gradients {
        q: device.empty("query gradient", q.shape())?,
        k: device.empty("key gradient", q.shape())?,
        v: device.empty("value gradient", q.shape())?,
        sink: sink.map(|s| device.empty("sink gradient", s.shape())).transpose()?,
    };
    let mut packed = packed(device, "attention gradients by heads", 3 * q.len())?;
    match q.backend() {
        Backend::Gpu(queue) => gpu_backward(queue, heads, dout, [q, k, v], sink, forward, &grads)?,
        Backend::Cpu => {
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
        Backend::Meta => {}
    }
    Ok(grads)
}

/// Where the CPU computes head by head: `len` numbers there, none on a GPU.
fn packed(device: &Device, name: &str, len: usize) -> Result<Tensor> {
    device.empty(name, &[if device.is_cpu() { len } else { 0 }])
}

/// Three passes instead of one with atomic additions, so that every sum has a fixed order: by
/// query, by key and by head.
fn gpu_backward(
    queue: Queue,
    heads: Heads,
    dout: &Tensor,
    [q, k, v]: [&Tensor; 3],
    sink: Option<&Tensor>,
    forward: &Forward,
    grads: &Gradients,
) -> Result<()> {
    let lse = &forward.lse;
    let delta: Tensor = q.device().empty("attention delta", lse.shape())?;
    Launch::new(
        &SHADER,
        "backward_delta",
        DeltaParams { t: heads.time as u32, heads: heads.count as u32, n: delta.len() as u32 },
    )
    .constant("D", heads.width as f64)
    .bind(&[dout, &forward.y, &delta])
    .threads(delta.len(), 256)
    .cost(q.len().saturating_mul(2))
    .run(queue)?;
    let inputs = |kernel| Ok::<_, Error>(blocks(heads, kernel, sink.is_some())?.bind(&[q, k, v, dout, lse, &delta]));
    inputs("backward_query")?.bind(&[&grads.q]).run(queue)?;
    inputs("backward_key")?.bind(&[&grads.k, &grads.v]).run(queue)?;
    match (sink, &grads.sink) {
        (Some(sink), Some(dsink)) => Launch::new(
            &SHADER,
            "backward_sink",
            SinkParams { t: heads.time as u32, heads: heads.count as u32, batch: heads.batch as u32 },
        )
        .bind(&[sink, lse, &delta, dsink])
        .workgroups(heads.count)
        .cost(lse.len().saturating_mul(4))
        .run(queue),
        _ => Ok(()),
    }
}

/// A launch of one workgroup for every batch entry, head and block of queries or keys.
fn blocks(heads: Heads, kernel: &'static str, has_sink: bool) -> Result<Launch> {
    if heads.width > GPU_WIDTH_LIMIT {
        let message = format!("heads are {} wide; on a GPU they are at most {GPU_WIDTH_LIMIT}", heads.width);
        return Err(Error::shape("attention", message));
    }
    let quads = heads.width.div_ceil(4);
    let blocks = heads.time.div_ceil(BLOCK);
    let workgroups = heads.batch * heads.count * blocks;
    let params = BlockParams {
        t: heads.time as u32,
        heads: heads.count as u32,
        workgroups: workgroups as u32,
        blocks: blocks as u32,
        scale: heads.scale,
        has_sink: u32::from(has_sink),
        window: heads.window as u32,
    };
    Ok(Launch::new(&SHADER, kernel, params)
        .constant("D", heads.width as f64)
        .constant("QUADS", quads as f64)
        // Two tiles of 480 quads fill the 16 KiB that every adapter has, together with two rows of
        // statistics.
        .constant("TILE", (480 / quads).min(BLOCK) as f64)
        .workgroups(workgroups)
        .cost((heads.batch * heads.count * heads.width * 4).saturating_mul(heads.time.saturating_mul(heads.window))))
}

fn check(q: &Tensor, k: &Tensor, v: &Tensor, sink: Option<&Tensor>, options: AttentionOptions) -> Result<Heads> {
    let n_head = options.n_head;
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
    if options.window == Some(0) {
        return Err(Error::shape("attention", "a window of 0 keys; a query sees at least its own"));
    }
    let width = channels / n_head;
    let window = options.window.unwrap_or(time).min(time);
    Ok(Heads { batch, time, count: n_head, width, scale: options.scale_of(width), window })
}

impl Tape {
    /// Causal attention; `q`, `k`, `v`: `(B, T, H·dh)`, `sink`: `(H)`. Saves its inputs, its output
    /// and one number for each query of each head.
    pub fn attention(
        &mut self,
        q: &Var,
        k: &Var,
        v: &Var,
        sink: Option<&Var>,
        options: impl Into<AttentionOptions>,
    ) -> Result<Var> {
        let options = options.into();
        let forward = forward(q.value(), k.value(), v.value(), sink.map(Var::value), options)?;
        let (qv, kv, vv) = (q.value().clone(), k.value().clone(), v.value().clone());
        let sv = sink.map(|s| s.value().clone());
        let inputs: Vec<_> = [Some(q), Some(k), Some(v), sink].into_iter().flatten().collect();
        let y = forward.y.clone();
        self.record_one(&inputs, y, move |dout, needs| {
            let g = backward(&dout, &qv, &kv, &vv, sv.as_ref(), &forward, options)?;
            let mut gradients = vec![Some(g.q), Some(g.k), Some(g.v)];
            gradients.extend((needs.len() > 3).then_some(g.sink));
            Ok(gradients)
        })
    }
}
