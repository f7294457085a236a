//! burn's side of `benches/peers/burn-wgpu`, written plainly, as its book teaches.
//!
//! `peer-burn product M K N` multiplies two dense matrices; `peer-burn step FOLDER` trains a dense
//! GPT of the shape, and on the tokens, that `cargo bench --bench peer -- prepare FOLDER` wrote.
//! Both print one JSON line.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use burn::module::Initializer;
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig, generate_autoregressive_mask};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, Gelu, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::prelude::*;
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Runs before the clock starts: kernels are compiled, tried and fused, memory is allocated.
const WARM: usize = 4;
const RUNS: usize = 5;

fn main() -> Outcome<()> {
    // The environment chooses, as it does for gossamer's `--device gpu`: VK_DRIVER_FILES,
    // CUBECL_WGPU_DEFAULT_DEVICE.
    let (device, setup) = Device::wgpu_options().init_with_setup()?;
    let info = setup.adapter.get_info();
    // As gossamer describes it, so that the script can tell whether it is the same.
    let adapter =
        format!("GPU {} ({}, {} {})", info.name, info.backend, info.driver, info.driver_info).replace(" )", ")");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut line = match words.as_slice() {
        ["product", m, k, n] => product(m.parse()?, k.parse()?, n.parse()?, &device)?,
        ["step", folder] => step(Path::new(folder), &device.autodiff())?,
        _ => return Err("peer-burn product M K N, or peer-burn step FOLDER".into()),
    };
    line["adapter"] = json!(adapter);
    println!("{line}");
    Ok(())
}

/// The median of several runs, each to its end.
fn seconds(device: &Device, warm: usize, mut run: impl FnMut()) -> Outcome<f64> {
    let mut seconds = Vec::new();
    for _ in 0..warm + RUNS {
        let start = Instant::now();
        run();
        device.sync()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.drain(..warm);
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

/// Entry `i` of a factor, the same formula as in `benches/peer.rs`.
fn entry(i: usize, seed: usize) -> f32 {
    ((i * 7919 + seed) % 1009) as f32 / 504.0 - 1.0
}

fn product(m: usize, k: usize, n: usize, device: &Device) -> Outcome<serde_json::Value> {
    let matrix = |rows: usize, columns: usize, seed: usize| {
        let data: Vec<f32> = (0..rows * columns).map(|i| entry(i, seed)).collect();
        Tensor::<2>::from_data(TensorData::new(data, [rows, columns]), device)
    };
    let (a, b) = (matrix(m, k, 1), matrix(k, n, 2));
    let mut out = None;
    let seconds = seconds(device, WARM, || out = Some(a.clone().matmul(b.clone())))?;
    let out = out.ok_or("nothing was computed")?.into_data().try_into_vec::<f32>()?;
    let checksum: f64 = out.iter().enumerate().map(|(i, v)| f64::from(*v) * f64::from(entry(i, 3))).sum();
    let scale: f64 = out.iter().map(|v| f64::from(v.abs())).sum();
    Ok(json!({ "seconds": seconds, "checksum": checksum, "scale": scale }))
}

#[derive(Module, Debug)]
struct Block {
    attention_norm: RmsNorm,
    attention: MultiHeadAttention,
    mlp_norm: RmsNorm,
    up: Linear,
    gelu: Gelu,
    down: Linear,
}

/// gossamer's layers without AbsTopK; positions, which that preset does not train, are left out.
#[derive(Module, Debug)]
struct Gpt {
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    head: Linear,
    bigram: Embedding,
}

impl Gpt {
    fn new(shape: &toml::Table, device: &Device) -> Outcome<Self> {
        let size = |name: &str| -> Outcome<usize> {
            let value = shape.get(name).and_then(toml::Value::as_integer).ok_or_else(|| format!("no {name}"))?;
            Ok(value.try_into()?)
        };
        let (vocabulary, width) = (size("vocab_size")?, size("d_model")?);
        let hidden = size("d_mlp").unwrap_or(4 * width);
        let small = Initializer::Normal { mean: 0.0, std: 0.02 };
        let linear = |from, to| LinearConfig::new(from, to).with_initializer(small.clone());
        let norm = || RmsNormConfig::new(width).init(device);
        let heads = size("n_head")?;
        let block = || Block {
            attention_norm: norm(),
            attention: MultiHeadAttentionConfig::new(width, heads)
                .with_dropout(0.0)
                .with_initializer(small.clone())
                .init(device),
            mlp_norm: norm(),
            up: linear(width, hidden).init(device),
            gelu: Gelu::new(),
            down: linear(hidden, width).init(device),
        };
        Ok(Self {
            embedding: EmbeddingConfig::new(vocabulary, width).with_initializer(small.clone()).init(device),
            blocks: (0..size("n_layer")?).map(|_| block()).collect(),
            norm: norm(),
            head: linear(width, vocabulary).with_bias(false).init(device),
            bigram: EmbeddingConfig::new(vocabulary, vocabulary).with_initializer(Initializer::Zeros).init(device),
        })
    }

    /// Logits `(B, T, V)` of tokens `(B, T)`.
    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [batch, time] = tokens.dims();
        // burn's masks are true where nothing may be read.
        let mask = generate_autoregressive_mask(batch, time, &tokens.device());
        let mut x = self.embedding.forward(tokens.clone());
        for block in &self.blocks {
            let input = MhaInput::self_attn(block.attention_norm.forward(x.clone())).mask_attn(mask.clone());
            x = x + block.attention.forward(input).context;
            let hidden = block.gelu.forward(block.up.forward(block.mlp_norm.forward(x.clone())));
            x = x + block.down.forward(hidden);
        }
        self.head.forward(self.norm.forward(x)) + self.bigram.forward(tokens)
    }

    /// Mean cross-entropy of every token but each sequence's first.
    fn loss(&self, tokens: Tensor<2, Int>) -> Tensor<1> {
        let [batch, time] = tokens.dims();
        let logits = self.forward(tokens.clone()).slice([0..batch, 0..time - 1]).flatten(0, 1);
        let targets = tokens.slice([0..batch, 1..time]).flatten(0, 1);
        CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, targets)
    }
}

fn step(folder: &Path, device: &Device) -> Outcome<serde_json::Value> {
    let settings: toml::Table = std::fs::read_to_string(folder.join("run.toml"))?.parse()?;
    let table = |name: &str| settings.get(name).and_then(toml::Value::as_table).ok_or_else(|| format!("no [{name}]"));
    let tokens: Vec<i32> = serde_json::from_slice(&std::fs::read(folder.join("tokens.json"))?)?;
    let batch = table("train")?.get("batch_size").and_then(toml::Value::as_integer).ok_or("no batch_size")? as usize;
    let shape = [batch, tokens.len() / batch];

    device.seed(0);
    let mut model = Some(Gpt::new(table("model")?, device)?);
    let mut adam = AdamConfig::new().with_beta_2(0.95).init();
    let mut losses = Vec::new();
    let seconds = seconds(device, WARM, || {
        if let Some(before) = model.take() {
            let loss = before.loss(Tensor::from_data(TensorData::new(tokens.clone(), shape), device));
            let gradients = GradientsParams::from_grads(loss.backward(), &before);
            losses.push(loss.detach());
            model = Some(adam.step(1e-3, before, gradients));
        }
    })?;
    let (Some(first), Some(last)) = (losses.first(), losses.last()) else { return Err("no step was done".into()) };
    let (first, last) = (first.clone().into_scalar::<f32>(), last.clone().into_scalar::<f32>());
    // The batch is always the same: whatever trains will know it better after a few steps.
    if last.is_nan() || last >= first {
        return Err(format!("the loss went from {first} to {last}").into());
    }
    Ok(json!({ "seconds": seconds, "loss": first, "last_loss": last }))
}
