//! Each kernel alone, at the sizes of a layer of width 1024 on 512 tokens.
//!
//! `cargo bench --bench kernels` measures all on the native device, `cargo bench --bench kernels --
//! AbsTopK` those of that name; `DEVICE=gpu` chooses another device, by any name that `--device`
//! takes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gossamer::Result;
use gossamer::device::{Device, Tensor};
use gossamer::ops::weight_topk::{self, Neurons};
use gossamer::ops::{
    abs_topk, adam, attention, attention_decode, compress, cross_entropy, embedding, gelu, linear, rms_norm,
    sparse_linear,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ROWS: usize = 512;
const WIDTH: usize = 1024;
const VOCABULARY: usize = 2048;

/// The device, and what measures it.
struct Bench<'a> {
    criterion: &'a mut Criterion,
    device: Device,
}

impl Bench<'_> {
    /// Times `job`, which goes over `entries` numbers, until its result is there.
    fn time<R>(&mut self, name: &str, shape: &str, entries: usize, mut job: impl FnMut() -> Result<R>) -> Result<()> {
        job()?;
        let device = self.device.clone();
        let mut group = self.criterion.benchmark_group(name);
        group.sample_size(20).throughput(Throughput::Elements(entries as u64));
        let mut failure = None;
        group.bench_function(BenchmarkId::from_parameter(shape), |bencher| {
            bencher.iter(|| {
                if let Err(error) = job().and_then(|_| device.sync()) {
                    failure.get_or_insert(error);
                }
            });
        });
        group.finish();
        failure.map_or(Ok(()), Err)
    }

    /// Numbers around 0, of which `share` are not zero.
    fn numbers(&self, seed: u64, shape: &[usize], share: f64) -> Result<Tensor> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut number = || if rng.random_bool(share) { rng.random_range(-1.0..1.0f32) } else { 0.0 };
        let data: Vec<f32> = (0..shape.iter().product()).map(|_| number()).collect();
        self.device.upload("benchmark", shape, &data)
    }

    fn products(&mut self) -> Result<()> {
        let (x, dy) = (self.numbers(0, &[ROWS, WIDTH], 0.25)?, self.numbers(1, &[ROWS, WIDTH], 0.25)?);
        let full = self.numbers(2, &[ROWS, WIDTH], 1.0)?;
        let dense = self.numbers(3, &[WIDTH, WIDTH], 1.0)?;
        let work = ROWS * WIDTH * WIDTH;
        self.time("linear", "dense", work, || linear::forward(&full, &dense, None))?;
        self.time("linear", "activations 1/4", work, || linear::forward(&x, &dense, None))?;
        for every in [4, 16, 64] {
            let weight = self.numbers(4, &[WIDTH, WIDTH], 1.0 / f64::from(every))?;
            let weight = compress::forward(&weight, WIDTH * WIDTH)?;
            let shape = format!("density 1/{every}");
            self.time("linear, sparse weights", &shape, work, || sparse_linear::forward(&x, &weight, None))?;
            self.time("linear, sparse weights, input gradient", &shape, work, || {
                sparse_linear::backward_input(&dy, &weight)
            })?;
        }
        self.time("linear, input gradient", "dense", work, || linear::backward_input(&full, &dense))?;
        self.time("linear, input gradient", "gradients 1/4", work, || linear::backward_input(&dy, &dense))?;
        self.time("linear, weight gradient", "dense", work, || linear::backward_weight(&full, &full))?;
        self.time("linear, weight gradient", "1/4 of both", work, || linear::backward_weight(&dy, &x))?;
        self.time("linear, bias gradient", "dense", ROWS * WIDTH, || linear::backward_bias(&full))
    }

    fn weights(&mut self) -> Result<()> {
        let (shape, count) = ([4 * WIDTH, WIDTH], 4 * WIDTH * WIDTH);
        let gradient = self.numbers(0, &shape, 1.0)?;
        let mut weight = self.numbers(1, &shape, 1.0)?;
        let (mut m, mut v) = (self.numbers(2, &shape, 1.0)?, self.device.zeros("benchmark", &shape)?);
        let settings = adam::Settings { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 0.1, step: 10, decay: 1e-4 };
        self.time("Adam", "4096 × 1024", count, || {
            adam::apply(&mut weight, &gradient, &mut m, &mut v, None, &settings)
        })?;
        // Only one entry is removed, so that every run does the same work.
        let rule = weight_topk::Rule { keep: count - 1, min_alive: 4, neurons: Some(Neurons::Rows), decay: 0.0 };
        self.time("weight top-k", "4096 × 1024", count, || weight_topk::apply(&mut weight, &rule))?;
        let sparse = self.numbers(3, &shape, 1.0 / 64.0)?;
        self.time("compress", "4096 × 1024, 1/64", count, || compress::forward(&sparse, count / 32))
    }

    fn activations(&mut self) -> Result<()> {
        let count = ROWS * WIDTH;
        let (x, dy) = (self.numbers(0, &[ROWS, WIDTH], 1.0)?, self.numbers(1, &[ROWS, WIDTH], 1.0)?);
        let kept = abs_topk::forward(&x, WIDTH / 4)?;
        self.time("AbsTopK", "512 × 1024, 1/4", count, || abs_topk::forward(&x, WIDTH / 4))?;
        self.time("AbsTopK, gradient", "512 × 1024, 1/4", count, || abs_topk::backward(&dy, &kept.y, &kept.zeros))?;
        self.time("GELU", "512 × 1024", count, || gelu::forward(&x))?;
        self.time("GELU, gradient", "512 × 1024", count, || gelu::backward(&dy, &x))?;
        let scale = self.numbers(2, &[WIDTH], 1.0)?;
        let normed = rms_norm::forward(&x, &scale, 1e-5)?;
        self.time("RMSNorm", "512 × 1024", count, || rms_norm::forward(&x, &scale, 1e-5))?;
        self.time("RMSNorm, gradient", "512 × 1024", count, || {
            rms_norm::backward_weight(&dy, &x, &normed.rstd)?;
            rms_norm::backward_input(&dy, &x, &scale, &normed.rstd)
        })
    }

    fn attention(&mut self) -> Result<()> {
        let (batch, time, heads) = (2, 256, 64);
        let shape = [batch, time, WIDTH];
        let q = self.numbers(0, &shape, 0.25)?;
        let (k, v) = (self.numbers(1, &shape, 0.25)?, self.numbers(2, &shape, 0.25)?);
        let (dy, sink) = (self.numbers(3, &shape, 1.0)?, self.numbers(4, &[heads], 1.0)?);
        let done = attention::forward(&q, &k, &v, Some(&sink), heads)?;
        let pairs = batch * heads * time * time / 2;
        self.time("attention", "2 × 256, 64 heads", pairs, || attention::forward(&q, &k, &v, Some(&sink), heads))?;
        self.time("attention, gradient", "2 × 256, 64 heads", pairs, || {
            attention::backward(&dy, &q, &k, &v, Some(&sink), &done, heads)
        })?;
        let one = self.numbers(5, &[1, 1, WIDTH], 1.0)?;
        let (keys, values) = (self.numbers(6, &[1, time, WIDTH], 1.0)?, self.numbers(7, &[1, time, WIDTH], 1.0)?);
        self.time("attention, one token", "256 before it, 64 heads", heads * time, || {
            attention_decode::forward(&one, &keys, &values, time, Some(&sink), heads)
        })
    }

    fn ends(&mut self) -> Result<()> {
        let ids: Vec<u32> = (0..ROWS as u32).map(|i| i.wrapping_mul(2_654_435_761) % VOCABULARY as u32).collect();
        let index = embedding::Index::new(&self.device, &ids, VOCABULARY)?;
        let (table, dy) = (self.numbers(0, &[VOCABULARY, WIDTH], 1.0)?, self.numbers(1, &[ROWS, WIDTH], 1.0)?);
        self.time("embedding", "512 of 2048 × 1024", ROWS * WIDTH, || embedding::forward(&table, &index))?;
        self.time("embedding, gradient", "512 of 2048 × 1024", ROWS * WIDTH, || embedding::backward(&dy, &index))?;
        let logits = self.numbers(2, &[ROWS, VOCABULARY], 1.0)?;
        let one = self.device.upload("benchmark", &[1], &[1.0])?;
        let targets = index.ids();
        let done = cross_entropy::forward(&logits, targets, ROWS)?;
        let count = ROWS * VOCABULARY;
        self.time("cross-entropy", "512 × 2048", count, || cross_entropy::forward(&logits, targets, ROWS))?;
        self.time("cross-entropy, gradient", "512 × 2048", count, || {
            cross_entropy::backward(&one, &logits, targets, &done)
        })
    }
}

fn kernels(criterion: &mut Criterion) {
    let mut run = || -> Result<()> {
        let device = Device::open(&std::env::var("DEVICE").unwrap_or("cpu".into()))?;
        let mut bench = Bench { criterion, device };
        bench.products()?;
        bench.weights()?;
        bench.activations()?;
        bench.attention()?;
        bench.ends()
    };
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
