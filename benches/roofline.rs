//! What each part of a training step reaches of what this processor can do.
//!
//! `cargo bench --bench roofline` first measures the peaks with all threads: multiply-adds in
//! registers, multiply-adds that take one factor from the first-level cache, and bytes from and to
//! memory. Then it times every part at the sizes of a layer of the preset `paper` (1,024 tokens,
//! width 1,024), and prints its counted operations and bytes, its time, and the share that the
//! slower of both bounds has of it. What comes after `--` chooses parts by a piece of their name.
//!
//! Counted are the operations that are left once zeros are skipped (of weights, or of one factor
//! with activations), two for a multiply-add, and every array read or written once.

use std::hint::black_box;
use std::time::Instant;

use gossamer::Result;
use gossamer::device::{Device, Tensor, on_worker};
use gossamer::ops::weight_topk::{self, Neurons};
use gossamer::ops::{
    abs_topk, adam, attention, compress, cross_entropy, embedding, gelu, grad_rms, linear, rms_norm, sparse_linear,
};
use pulp::{Arch, Simd, WithSimd};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

const ROWS: usize = 1024;
const WIDTH: usize = 1024;
const MLP: usize = 4096;
const VOCABULARY: usize = 2048;
/// Seconds for each part, at least.
const BUDGET: f64 = 0.5;

fn main() -> Result<()> {
    on_worker(run)
}

fn run() -> Result<()> {
    let peaks = Peaks::measure();
    println!(
        "{}: multiply-adds {:.0} GFLOP/s in registers, {:.0} with a factor from the first-level cache;\n\
         memory {:.1} GB/s read, {:.1} read and written\n",
        Device::cpu().describe(),
        peaks.registers / 1e9,
        peaks.cached / 1e9,
        peaks.read / 1e9,
        peaks.update / 1e9
    );
    println!("{:44} {:>9} {:>9} {:>9}  {:>8} {:>6}  bound by", "", "MFLOP", "MB", "ms", "bound ms", "share");
    let wanted = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let mut table = Table { peaks, wanted };
    products(&mut table)?;
    table.attention()?;
    table.rows()?;
    table.weights()
}

/// What this machine does in a second.
struct Peaks {
    /// Operations with all numbers in registers.
    registers: f64,
    /// Operations that take one factor from the first-level cache.
    cached: f64,
    /// Bytes of a sum over memory.
    read: f64,
    /// Bytes of an update in memory, of which three arrays of four are also written, as by Adam.
    update: f64,
}

impl Peaks {
    fn measure() -> Self {
        let flops = |cached| {
            // The second time: the first one wakes the threads.
            [(); 3]
                .map(|()| rayon::broadcast(|_| Arch::new().dispatch(MultiplyAdds { cached })).into_iter().sum::<f64>())
                .into_iter()
                .fold(0.0, f64::max)
        };
        let len = 1 << 26;
        let arrays: [Vec<f32>; 4] = std::array::from_fn(|i| vec![i as f32; len]);
        let [mut w, mut m, mut v, g] = arrays;
        let read = seconds(|| {
            black_box(g.par_chunks(1 << 16).map(|g| Arch::new().dispatch(Sum(g))).sum::<f32>());
        });
        let update = seconds(|| {
            let state = w.par_chunks_mut(1 << 14).zip(m.par_chunks_mut(1 << 14)).zip(v.par_chunks_mut(1 << 14));
            state.zip(g.par_chunks(1 << 14)).for_each(|(((w, m), v), g)| Arch::new().dispatch(Update { w, m, v, g }));
        });
        let bytes = 4.0 * len as f64;
        Self { registers: flops(false), cached: flops(true), read: bytes / read, update: 7.0 * bytes / update }
    }
}

/// Operations a second of one thread.
struct MultiplyAdds {
    cached: bool,
}

impl WithSimd for MultiplyAdds {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        const SUMS: usize = 8;
        const ROUNDS: usize = 4_000_000;
        let rows = vec![1e-3f32; 16 * SUMS * S::F32_LANES + 16];
        // From the start of a cache line on: no vector lies across two.
        let rows = &rows[rows.as_ptr().align_offset(64)..];
        let rows = S::as_simd_f32s(rows).0.as_chunks::<SUMS>().0;
        let (factor, mut sums) = (simd.splat_f32s(black_box(0.5)), [simd.splat_f32s(1.0); SUMS]);
        let start = Instant::now();
        for round in 0..ROUNDS {
            let row = if self.cached { black_box(&rows[round % 16]) } else { &rows[0] };
            for (sum, row) in sums.iter_mut().zip(row) {
                *sum = simd.mul_add_e_f32s(factor, if self.cached { *row } else { factor }, *sum);
            }
        }
        black_box(sums.map(|sum| simd.reduce_sum_f32s(sum)));
        (2 * ROUNDS * SUMS * S::F32_LANES) as f64 / start.elapsed().as_secs_f64()
    }
}

struct Sum<'a>(&'a [f32]);

impl WithSimd for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let mut sums = [simd.splat_f32s(0.0); 4];
        for x in S::as_simd_f32s(self.0).0.as_chunks::<4>().0 {
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum = simd.add_f32s(*sum, *x));
        }
        sums.into_iter().map(|sum| simd.reduce_sum_f32s(sum)).sum()
    }
}

struct Update<'a> {
    w: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    g: &'a [f32],
}

impl WithSimd for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (((w, m), v), g) in self.w.iter_mut().zip(self.m).zip(self.v).zip(self.g) {
            *m += g;
            *v += g * *m;
            *w += *m * *v;
        }
    }
}

/// Seconds of a job: the median of as many runs as fit the budget.
fn seconds(mut job: impl FnMut()) -> f64 {
    job();
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed().as_secs_f64() < BUDGET || times.len() < 5 {
        let start = Instant::now();
        job();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Numbers around 0, of which `share` are not zero.
fn numbers(seed: u64, shape: &[usize], share: f64) -> Result<Tensor> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut number = || if rng.random_bool(share) { rng.random_range(-1.0..1.0f32) } else { 0.0 };
    let data: Vec<f32> = (0..shape.iter().product()).map(|_| number()).collect();
    Device::cpu().upload("benchmark", shape, &data)
}

/// What bounds a part's operations.
#[derive(Clone, Copy)]
enum Factors {
    /// Numbers in registers, as in dense products.
    Registers,
    /// One factor from the first-level cache, as where zeros are skipped.
    Cached,
}

struct Table {
    peaks: Peaks,
    wanted: Vec<String>,
}

impl Table {
    /// A line of the table. `floats` are four bytes each, read and written.
    fn part<R>(
        &mut self,
        name: &str,
        (operations, factors): (f64, Factors),
        [read, written]: [usize; 2],
        mut job: impl FnMut() -> Result<R>,
    ) -> Result<()> {
        if !self.wanted.is_empty() && !self.wanted.iter().any(|wanted| name.contains(wanted)) {
            return Ok(());
        }
        let mut failure = None;
        let time = seconds(|| failure = job().err());
        if let Some(error) = failure {
            return Err(error);
        }
        let bytes = 4.0 * (read + written) as f64;
        let compute =
            operations / if matches!(factors, Factors::Cached) { self.peaks.cached } else { self.peaks.registers };
        let memory = bytes / if written == 0 { self.peaks.read } else { self.peaks.update };
        let bound = compute.max(memory);
        println!(
            "{name:44} {:9.0} {:9.1} {:9.2}  {:8.2} {:5.0} %  {}",
            operations / 1e6,
            bytes / 1e6,
            1e3 * time,
            1e3 * bound,
            100.0 * bound / time,
            if compute > memory { "multiply-adds" } else { "memory" }
        );
        Ok(())
    }

    fn attention(&mut self) -> Result<()> {
        let (time, heads) = (256, 64);
        let (batch, shape) = (ROWS / time, [ROWS / time, time, WIDTH]);
        let (q, k, v) = (numbers(0, &shape, 0.25)?, numbers(1, &shape, 0.25)?, numbers(2, &shape, 0.25)?);
        let dy = numbers(3, &shape, 1.0)?;
        let done = attention::forward(&q, &k, &v, None, heads)?;
        let pairs = (batch * heads * time * (time + 1) / 2) as f64;
        let product = 2.0 * pairs * (WIDTH / heads) as f64;
        // An exponential is some twenty operations.
        let (forward, backward) = (2.0 * product + 20.0 * pairs, 5.0 * product + 20.0 * pairs);
        let n = ROWS * WIDTH;
        self.part("attention, 64 heads of 16", (forward, Factors::Registers), [3 * n, n], || {
            attention::forward(&q, &k, &v, None, heads)
        })?;
        self.part("attention, gradient", (backward, Factors::Registers), [5 * n, 3 * n], || {
            attention::backward(&dy, &q, &k, &v, None, &done, heads)
        })
    }

    fn rows(&mut self) -> Result<()> {
        let n = ROWS * MLP;
        let (x, dy) = (numbers(0, &[ROWS, MLP], 1.0)?, numbers(1, &[ROWS, MLP], 1.0)?);
        let none = |per_entry: f64, n: usize| (per_entry * n as f64, Factors::Registers);
        let kept = abs_topk::forward(&x, MLP / 4)?;
        self.part("AbsTopK, 4,096 wide", none(0.0, n), [n, n], || abs_topk::forward(&x, MLP / 4))?;
        self.part("AbsTopK, gradient", none(0.0, n), [2 * n, n], || abs_topk::backward(&dy, &kept.y, &kept.zeros))?;
        self.part("GELU, 4,096 wide", none(40.0, n), [n, n], || gelu::forward(&x))?;
        self.part("GELU, gradient", none(40.0, n), [2 * n, n], || gelu::backward(&dy, &x))?;
        let (x, dy) = (numbers(2, &[ROWS, WIDTH], 1.0)?, numbers(3, &[ROWS, WIDTH], 1.0)?);
        let (n, scale) = (ROWS * WIDTH, numbers(4, &[WIDTH], 1.0)?);
        let normed = rms_norm::forward(&x, &scale, 1e-5)?;
        self.part("RMSNorm, 1,024 wide", none(4.0, n), [n, n], || rms_norm::forward(&x, &scale, 1e-5))?;
        self.part("RMSNorm, gradients", none(10.0, n), [2 * n, n], || {
            rms_norm::backward_weight(&dy, &x, &normed.rstd)?;
            rms_norm::backward_input(&dy, &x, &scale, &normed.rstd)
        })?;
        let logits = numbers(5, &[ROWS, VOCABULARY], 1.0)?;
        let ids: Vec<u32> = (0..ROWS as u32).map(|i| i * 7 % VOCABULARY as u32).collect();
        let index = embedding::Index::new(&Device::cpu(), &ids, VOCABULARY)?;
        let one = Device::cpu().upload("benchmark", &[1], &[1.0])?;
        let done = cross_entropy::forward(&logits, index.ids(), ROWS)?;
        let n = ROWS * VOCABULARY;
        self.part("cross-entropy, 2,048 tokens", none(20.0, n), [n, 0], || {
            cross_entropy::forward(&logits, index.ids(), ROWS)
        })?;
        self.part("cross-entropy, gradient", none(20.0, n), [n, n], || {
            cross_entropy::backward(&one, &logits, index.ids(), &done)
        })
    }

    fn weights(&mut self) -> Result<()> {
        let (shape, n) = ([MLP, WIDTH], MLP * WIDTH);
        let gradient = numbers(0, &shape, 1.0)?;
        let mut weight = numbers(1, &shape, 1.0)?;
        let (mut m, mut v) = (numbers(2, &shape, 1.0)?, Device::cpu().zeros("benchmark", &shape)?);
        let mut sums = Device::cpu().zeros("benchmark", &[1])?;
        let settings = adam::Settings { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 0.1, step: 10, decay: 1e-4 };
        self.part("square sum of a gradient", (2.0 * n as f64, Factors::Registers), [n, 0], || {
            grad_rms::square_sum(&gradient, &mut sums, 0)
        })?;
        // A root and a division are some thirty operations.
        self.part("Adam, 4,096 × 1,024", (40.0 * n as f64, Factors::Registers), [4 * n, 3 * n], || {
            adam::apply(&mut weight, &gradient, &mut m, &mut v, None, &settings)
        })?;
        // One entry less than there are: every run does the same work.
        for (name, neurons) in
            [("weight top-k, neurons in rows", Neurons::Rows), ("weight top-k, in columns", Neurons::Columns)]
        {
            let rule = weight_topk::Rule { keep: n - 1, min_alive: 4, neurons: Some(neurons), decay: 0.0 };
            self.part(name, (0.0, Factors::Registers), [2 * n, n], || weight_topk::apply(&mut weight, &rule))?;
        }
        let sparse = numbers(3, &shape, 1.0 / 64.0)?;
        self.part("compress, 1/64", (0.0, Factors::Registers), [n, n / 16], || compress::forward(&sparse, n / 32))
    }
}

fn products(table: &mut Table) -> Result<()> {
    let (x, dy) = (numbers(0, &[ROWS, WIDTH], 0.25)?, numbers(1, &[ROWS, MLP], 0.25)?);
    let work = 2.0 * (ROWS * WIDTH * MLP) as f64;
    let (n_in, n_out, n_weight) = (ROWS * WIDTH, ROWS * MLP, WIDTH * MLP);
    for every in [16, 64] {
        let weight = numbers(4, &[MLP, WIDTH], 1.0 / f64::from(every))?;
        let nonzeros = n_weight / every as usize;
        let weight = compress::forward(&weight, 2 * nonzeros)?;
        let cost = (work / f64::from(every), Factors::Cached);
        table.part(&format!("1,024 → 4,096, weights 1/{every}"), cost, [n_in + 2 * nonzeros, n_out], || {
            sparse_linear::forward(&x, &weight, None)
        })?;
        table.part(&format!("  its input gradient, weights 1/{every}"), cost, [n_out + 2 * nonzeros, n_in], || {
            sparse_linear::backward_input(&dy, &weight)
        })?;
    }
    let dense = numbers(5, &[MLP, WIDTH], 1.0)?;
    let full = numbers(6, &[ROWS, WIDTH], 1.0)?;
    table.part(
        "1,024 → 4,096, all weights, activations 1/4",
        (work / 4.0, Factors::Cached),
        [n_in + n_weight, n_out],
        || linear::forward(&x, &dense, None),
    )?;
    table.part(
        "  its input gradient, gradients 1/4",
        (work / 4.0, Factors::Cached),
        [n_out + n_weight, n_in],
        || linear::backward_input(&dy, &dense),
    )?;
    table.part("  weight gradient, 1/4 of both", (work / 4.0, Factors::Cached), [n_in + n_out, n_weight], || {
        linear::backward_weight(&dy, &x)
    })?;
    table.part("1,024 → 4,096, nothing skipped", (work, Factors::Registers), [n_in + n_weight, n_out], || {
        linear::forward(&full, &dense, None)
    })
}
