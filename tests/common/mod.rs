//! Shared by the tests: the devices under test, random inputs, and comparators that have been seen
//! to fail.
#![allow(dead_code)]

use gossamer::device::{Device, Gpu, GpuOptions, Tensor};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Both devices. A machine without any adapter fails here: tests never skip the GPU silently.
pub fn devices() -> Vec<Device> {
    vec![Device::cpu(), gpu(true, false)]
}

/// All forms of every kernel: both devices, and the GPU once more with checked kernels, without
/// subgroup operations.
pub fn kernels() -> Vec<Device> {
    let mut devices = devices();
    devices.push(gpu(false, true));
    devices
}

/// The GPU, with or without subgroup operations and checks.
pub fn gpu(subgroups: bool, checked: bool) -> Device {
    let options = GpuOptions { subgroups, checked, ..GpuOptions::from_env() };
    let gpu = Gpu::open_with(None, &options);
    Device::Gpu(gpu.expect("the tests need a Vulkan, Metal, DX12 or GL adapter; scripts/test installs one"))
}

/// A generator with a fixed seed.
pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// `n` numbers, roughly normal with standard deviation 1 (sum of four uniforms).
pub fn normal(rng: &mut impl Rng, n: usize) -> Vec<f32> {
    (0..n)
        .map(|_| {
            let sum: f32 = (0..4).map(|_| rng.random_range(-1.0f32..1.0)).sum();
            sum * 0.866
        })
        .collect()
}

/// The same numbers in float64.
pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

/// Uploads `data` as a tensor of `shape`.
pub fn put(device: &Device, shape: &[usize], data: &[f32]) -> Tensor {
    device.upload("test input", shape, data).expect("upload")
}

/// The largest absolute difference relative to `1 + max|want|`, or why the two cannot be compared.
pub fn error(got: &[f32], want: &[f64]) -> Result<f64, String> {
    if got.len() != want.len() {
        return Err(format!("{} entries, expected {}", got.len(), want.len()));
    }
    if got.is_empty() {
        return Err("nothing to compare".into());
    }
    if let Some(i) = (0..got.len()).find(|&i| !got[i].is_finite() || !want[i].is_finite()) {
        return Err(format!("entry {i} is not finite: {} against {}", got[i], want[i]));
    }
    let scale = 1.0 + want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    Ok(got.iter().zip(want).fold(0.0f64, |m, (&g, &w)| m.max((f64::from(g) - w).abs())) / scale)
}

/// Panics unless `got` agrees with the float64 oracle: max|got - want| <= tolerance * (1 +
/// max|want|).
#[track_caller]
pub fn assert_close(what: &str, got: &[f32], want: &[f64], tolerance: f64) {
    match error(got, want) {
        Ok(e) if e <= tolerance => {}
        Ok(e) => panic!("{what}: error {e:.3e} exceeds {tolerance:.1e}"),
        Err(reason) => panic!("{what}: {reason}"),
    }
}

/// Central differences of `f` at `x`: the gradient that a backward rule must reproduce, in float64.
pub fn central_differences(x: &[f64], step: f64, f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut at = x.to_vec();
    (0..x.len())
        .map(|i| {
            at[i] = x[i] + step;
            let up = f(&at);
            at[i] = x[i] - step;
            let down = f(&at);
            at[i] = x[i];
            (up - down) / (2.0 * step)
        })
        .collect()
}

/// Sum of products: turns a tensor-valued function into the scalar that central differences need.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
