//! Every operation alone, on inputs that show an error: ties, zeros of both signs, widths that no
//! tile or workgroup divides, more rows than a workgroup has invocations, large numbers. What is
//! right is said by plain loops in float64.
//!
//! Each module lists its operations in `OPERATIONS`. A test fails if they do not launch every
//! kernel.

/// Operations that are functions of their names.
macro_rules! operations {
    ($($name:ident),* $(,)?) => {
        &[$($crate::check::ops::Operation { name: stringify!($name), run: $name }),*]
    };
}

mod attention;
mod elementwise;
mod losses;
mod matrices;
mod norms;
mod selection;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Comparison, comparable};
use crate::device::{Device, Gpu, GpuOptions, Tensor};
use crate::ops::SHADERS;
use crate::{Error, Result};

/// One operation: all of its kernels, in all shapes in which they are launched.
#[derive(Clone, Copy)]
struct Operation {
    name: &'static str,
    run: fn(&mut Checker) -> Result<()>,
}

/// All operations, by name.
fn all() -> Vec<Operation> {
    let modules = [
        attention::OPERATIONS,
        elementwise::OPERATIONS,
        losses::OPERATIONS,
        matrices::OPERATIONS,
        norms::OPERATIONS,
        selection::OPERATIONS,
    ];
    let mut all = modules.concat();
    all.sort_by_key(|operation| operation.name);
    all
}

/// Runs every operation on `device`, or those named in `only`, and where the device has subgroup
/// operations those that use them once more without. One comparison an operation, the worst.
///
/// # Errors
/// [`Error::Config`] for a name that is none; otherwise if the device fails. Wrong numbers are
/// comparisons, not errors.
pub fn operations(device: &Device, only: &[String]) -> Result<Vec<Comparison>> {
    let selected = select(only)?;
    let mut comparisons = run(device, &selected, false)?;
    if let Device::Gpu(gpu) = device
        && gpu.subgroups()
    {
        let options = GpuOptions { subgroups: false, ..gpu.options().clone() };
        let without = Device::Gpu(gpu.reopen(&options)?);
        let mut differ = Vec::new();
        for operation in selected {
            if uses_subgroups(operation.name)? {
                differ.push(operation);
            }
        }
        comparisons.extend(run(&without, &differ, true)?);
    }
    Ok(comparisons)
}

fn select(only: &[String]) -> Result<Vec<Operation>> {
    let all = all();
    if let Some(unknown) = only.iter().find(|name| all.iter().all(|operation| operation.name != *name)) {
        let names: Vec<_> = all.iter().map(|operation| operation.name).collect();
        return Err(Error::config("only", format!("`{unknown}` is no operation; there are {}", names.join(", "))));
    }
    let selected =
        all.into_iter().filter(|operation| only.is_empty() || only.iter().any(|name| name == operation.name));
    Ok(selected.collect())
}

/// Whether an operation's kernels have another form for devices with subgroup operations.
fn uses_subgroups(name: &str) -> Result<bool> {
    SHADERS.iter().find(|shader| shader.name == name).map_or(Ok(true), |shader| shader.uses_subgroups())
}

fn run(device: &Device, operations: &[Operation], without_subgroups: bool) -> Result<Vec<Comparison>> {
    let comparison = |operation: &Operation| {
        let mut checker = Checker::new(device, without_subgroups);
        (operation.run)(&mut checker)?;
        let form = if without_subgroups { ", no subgroups" } else { "" };
        Ok(checker.comparison(format!("{}{form}", operation.name)))
    };
    operations.iter().map(comparison).collect()
}

/// Sums of float32 numbers, and functions that a driver may compute to a few units in the last
/// place: relative to the largest number.
const CLOSE: f64 = 2e-5;

/// Makes inputs, compares results, and keeps the worst comparison.
struct Checker<'a> {
    device: &'a Device,
    /// Whether this is the second run, for the kernels that have such a form.
    without_subgroups: bool,
    rng: ChaCha8Rng,
    worst: Option<Comparison>,
}

impl<'a> Checker<'a> {
    fn new(device: &'a Device, without_subgroups: bool) -> Self {
        Self { device, without_subgroups, rng: ChaCha8Rng::seed_from_u64(24), worst: None }
    }

    /// `n` numbers between -2 and 2, none of them near 0.
    fn numbers(&mut self, n: usize) -> Vec<f32> {
        let number = |_| {
            let size = self.rng.random_range(0.05f32..2.0);
            if self.rng.random_bool(0.5) { size } else { -size }
        };
        (0..n).map(number).collect()
    }

    /// `n` numbers of which most have others of the same magnitude, and some are zeros of either
    /// sign.
    fn ties(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 3e38, -2.0][self.rng.random_range(0..8)]).collect()
    }

    fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end)
    }

    fn gpu(&self) -> Option<Gpu> {
        if let Device::Gpu(gpu) = self.device { Some(gpu.clone()) } else { None }
    }

    fn put(&self, shape: &[usize], data: &[f32]) -> Result<Tensor> {
        self.device.upload("check", shape, data)
    }

    fn put_ids(&self, shape: &[usize], data: &[u32]) -> Result<Tensor<u32>> {
        self.device.upload("check", shape, data)
    }

    /// Makes an operation that leaves a part of its result unwritten fail. To be called before
    /// every operation.
    fn poison(&self) -> Result<()> {
        self.device.poison_free_memory()
    }

    /// Compares up to rounding, relative to the largest number.
    fn close(&mut self, what: &str, got: &Tensor, want: &[f64]) -> Result<()> {
        self.within(CLOSE, what, got, want)
    }

    fn within(&mut self, tolerance: f64, what: &str, got: &Tensor, want: &[f64]) -> Result<()> {
        let rounded: Vec<f32> = want.iter().map(|&w| w as f32).collect();
        let got = got.read()?;
        let (error, reason) = match comparable(&got, &rounded) {
            Ok(()) => {
                let scale = want.iter().fold(f64::MIN_POSITIVE, |m, w| m.max(w.abs()));
                (got.iter().zip(want).fold(0.0f64, |m, (&g, w)| m.max((f64::from(g) - w).abs())) / scale, None)
            }
            Err(reason) => (f64::INFINITY, Some(reason)),
        };
        self.see(tolerance, what, error, reason);
        Ok(())
    }

    /// Compares bits: the error is the share of numbers that differ.
    fn exact(&mut self, what: &str, got: &Tensor, want: &[f32]) -> Result<()> {
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        self.same(what, &bits(&got.read()?), &bits(want));
        Ok(())
    }

    fn same(&mut self, what: &str, got: &[u32], want: &[u32]) {
        let (error, reason) = if got.len() == want.len() {
            let differ = got.iter().zip(want).filter(|(got, want)| got != want).count();
            (differ as f64 / want.len().max(1) as f64, None)
        } else {
            (f64::INFINITY, Some(format!("{} numbers, expected {}", got.len(), want.len())))
        };
        self.see(0.0, what, error, reason);
    }

    fn see(&mut self, tolerance: f64, what: &str, error: f64, reason: Option<String>) {
        // Relative to the tolerance, or to a tiny one where the tolerance is 0.
        let badness = |error: f64, tolerance: f64| error / tolerance.max(1e-12);
        if self.worst.as_ref().is_none_or(|worst| badness(error, tolerance) > badness(worst.error, worst.tolerance)) {
            let at = reason.map_or(what.to_string(), |reason| format!("{what}: {reason}"));
            self.worst = Some(Comparison { quantity: String::new(), error, tolerance, at });
        }
    }

    fn comparison(self, quantity: String) -> Comparison {
        match self.worst {
            Some(worst) => Comparison { quantity, ..worst },
            None => Comparison { quantity, error: f64::INFINITY, tolerance: 0.0, at: "nothing to compare".into() },
        }
    }
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}
