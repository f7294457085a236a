//! Losses, and the logit difference.

use super::{Checker, Operation, wide};
use crate::Result;
use crate::ops::kl::Support;
use crate::ops::{cross_entropy, kl, logit_diff, nmse};

pub(super) const OPERATIONS: &[Operation] = operations![cross_entropy, kl, logit_diff, nmse];

/// Logits whose exponentials would overflow, unless the largest is taken out first, be it a single
/// one.
fn logits(b: &mut Checker, rows: usize, v: usize) -> Vec<f32> {
    let offsets: Vec<f32> = (0..rows).map(|r| [0.0, 90.0, -200.0][r % 3]).collect();
    let mut x: Vec<f32> = b.numbers(rows * v).iter().enumerate().map(|(i, x)| 3.0 * x + offsets[i / v]).collect();
    for r in (1..rows).step_by(2) {
        x[r * v + (b.below(v) | 1).min(v - 1)] = 150.0;
    }
    x
}

/// The logarithm of the sum of exponentials of a row.
fn log_sum_exp(row: &[f64]) -> f64 {
    let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + row.iter().map(|x| (x - top).exp()).sum::<f64>().ln()
}

fn cross_entropy(b: &mut Checker) -> Result<()> {
    for (rows, v) in [(1, 1), (7, 255), (5, 300), (3, 1100), (4200, 2), (9000, 3)] {
        let x = logits(b, rows, v);
        let targets: Vec<u32> = (0..rows)
            .map(|r| match r % 4 {
                0 => (v - 1) as u32,
                3 => cross_entropy::IGNORE,
                _ => b.below(v) as u32,
            })
            .collect();
        // That of a whole batch, of which this is a part.
        let count = rows + 3;
        let dloss = 1.7f64;
        let (mut losses, mut lse, mut dx) = (vec![], vec![], vec![]);
        for (row, &target) in wide(&x).chunks(v).zip(&targets) {
            let sum = log_sum_exp(row);
            lse.push(sum);
            losses.push(row.get(target as usize).map_or(0.0, |x| sum - x));
            let scale = if (target as usize) < v { dloss / count as f64 } else { 0.0 };
            dx.extend(row.iter().enumerate().map(|(c, x)| ((x - sum).exp() - f64::from(c == target as usize)) * scale));
        }
        let loss = losses.iter().sum::<f64>() / count as f64;
        let (x, targets) = (b.put(&[rows, v], &x)?, b.put_ids(&[rows], &targets)?);
        let dloss = b.put(&[1], &[dloss as f32])?;
        b.poison()?;
        let forward = cross_entropy::forward(&x, &targets, count)?;
        let at = |what: &str| format!("{what}, {rows} rows of {v}");
        b.close(&at("losses"), &forward.losses, &losses)?;
        b.close(&at("lse"), &forward.lse, &lse)?;
        b.close(&at("loss"), &forward.loss, &[loss])?;
        // What exp makes of the rounding of logits of 200 is larger.
        b.within(1e-4, &at("backward"), &cross_entropy::backward(&dloss, &x, &targets, &forward)?, &dx)?;
    }
    Ok(())
}

fn kl(b: &mut Checker) -> Result<()> {
    // At least two entries of each target within reach: what is exactly 0 has no relative error.
    for (blocks, rows, v) in [(1, 1, 4), (3, 5, 300), (2, 300, 7), (2, 3, 1100)] {
        for support in [Support::All, Support::OfTarget] {
            compare_kl(b, (blocks, rows, v), support)?;
        }
    }
    Ok(())
}

fn compare_kl(b: &mut Checker, (blocks, rows, v): (usize, usize, usize), support: Support) -> Result<()> {
    let (x, mut target) = (logits(b, blocks * rows, v), logits(b, rows, v));
    if support == Support::OfTarget {
        // Out of reach of the others, but for the first entry of a row.
        target.iter_mut().enumerate().filter(|(i, _)| i % v % 3 == 1).for_each(|(_, t)| *t = -600.0);
    }
    let dloss = b.numbers(blocks);
    let expected: Vec<Vec<f64>> = wide(&target)
        .chunks(v)
        .map(|row| {
            let sum = log_sum_exp(row);
            row.iter().map(|x| x - sum).collect()
        })
        .collect();
    let (mut loss, mut lse, mut dx) = (vec![0.0; blocks], vec![], vec![]);
    for (r, row) in wide(&x).chunks(v).enumerate() {
        let (block, want) = (r / rows, &expected[r % rows]);
        let kept = |log_p: f64| support == Support::All || log_p >= -150.0;
        let of: Vec<f64> = row.iter().zip(want).filter(|(_, log_p)| kept(**log_p)).map(|(x, _)| *x).collect();
        let sum = log_sum_exp(&of);
        lse.push(sum);
        for (x, &log_p) in row.iter().zip(want) {
            let log_q = x - sum;
            let (p, q) = (log_p.exp(), if kept(log_p) { log_q.exp() } else { 0.0 });
            loss[block] += if p > 0.0 { p * (log_p - log_q) / rows as f64 } else { 0.0 };
            dx.push((q - p) * f64::from(dloss[block]) / rows as f64);
        }
    }
    let (x, target) = (b.put(&[blocks * rows, v], &x)?, b.put(&[rows, v], &target)?);
    let dloss = b.put(&[blocks], &dloss)?;
    b.poison()?;
    let forward = kl::forward(&x, &target, support)?;
    let at = |what: &str| format!("{what}, {blocks} blocks of {rows} rows of {v}, {support:?}");
    b.close(&at("lse"), &forward.lse, &lse)?;
    b.within(1e-4, &at("loss"), &forward.loss, &loss)?;
    b.within(1e-4, &at("backward"), &kl::backward(&dloss, &x, &target, &forward)?, &dx)
}

fn nmse(b: &mut Checker) -> Result<()> {
    for (rows, width, all_at_mean) in [(2, 1, false), (5, 300, false), (300, 7, false), (600, 260, false), (4, 5, true)]
    {
        let (x, mut target) = (b.numbers(rows * width), b.numbers(rows * width));
        if all_at_mean {
            target = target[..width].repeat(rows);
        }
        let (x64, t64, r64) = (wide(&x), wide(&target), rows as f64);
        let mean: Vec<f64> = (0..width).map(|c| t64.iter().skip(c).step_by(width).sum::<f64>() / r64).collect();
        let (mut loss, mut weights, mut dx) = (0.0, vec![], vec![]);
        let dloss = -0.6f32;
        for (x, t) in x64.chunks(width).zip(t64.chunks(width)) {
            let distance: f64 = t.iter().zip(&mean).map(|(t, m)| (t - m) * (t - m)).sum();
            let weight = if all_at_mean { 0.0 } else { 1.0 / (r64 * distance) };
            weights.push(weight);
            for (x, t) in x.iter().zip(t) {
                loss += weight * (x - t) * (x - t);
                dx.push(2.0 * (x - t) * weight * f64::from(dloss));
            }
        }
        let (x, target) = (b.put(&[rows, width], &x)?, b.put(&[rows, width], &target)?);
        let dloss = b.put(&[1], &[dloss])?;
        b.poison()?;
        let forward = nmse::forward(&x, &target)?;
        let at = |what: &str| format!("{what}, {rows} rows of {width}");
        b.close(&at("loss"), &forward.loss, &[loss])?;
        b.close(&at("weights"), &forward.weights, &weights)?;
        b.close(&at("backward"), &nmse::backward(&dloss, &x, &target, &forward.weights)?, &dx)?;
    }
    far_below(b)?;
    at_the_limit(b)
}

/// Targets near their mean, followed by others that are far from it.
fn far_below(b: &mut Checker) -> Result<()> {
    let (rows, width) = (600, 3);
    let size = |r: usize| if r < 256 { 1e-3f64 } else { 1e3 };
    let mut target = vec![0.0; rows * width];
    for r in 0..rows {
        target[r * width] = if r % 2 == 0 { size(r) as f32 } else { -size(r) as f32 };
    }
    let weight = |r: usize| if r < 256 { 0.0 } else { 1.0 / (rows as f64 * size(r) * size(r)) };
    let x = b.numbers(rows * width);
    let (x, target) = (b.put(&[rows, width], &x)?, b.put(&[rows, width], &target)?);
    b.poison()?;
    let want: Vec<f64> = (0..rows).map(weight).collect();
    b.close("weights near the mean and far from it", &nmse::forward(&x, &target)?.weights, &want)
}

/// Targets about as far from their mean as counts at least, the mean itself being far from 0.
fn at_the_limit(b: &mut Checker) -> Result<()> {
    let width = 300;
    for (off, counts) in [(0.012f32, true), (0.009, false)] {
        let mut target = vec![0.0; 2 * width];
        (target[290], target[width + 290]) = (1024.0, 1024.0);
        (target[3], target[width + 3]) = (off, -off);
        let x = b.numbers(2 * width);
        let (x, target) = (b.put(&[2, width], &x)?, b.put(&[2, width], &target)?);
        b.poison()?;
        let weight = if counts { 0.5 / (f64::from(off) * f64::from(off)) } else { 0.0 };
        b.close(&format!("weights {off} from the mean"), &nmse::forward(&x, &target)?.weights, &[weight; 2])?;
    }
    Ok(())
}

fn logit_diff(b: &mut Checker) -> Result<()> {
    for (batch, time, vocab) in [(1, 1, 1), (3, 4, 5), (70, 2, 9)] {
        let n = batch * time * vocab;
        let logits = b.numbers(n);
        let choices: Vec<_> =
            (0..batch).map(|_| (b.below(time), b.below(vocab) as u32, b.below(vocab) as u32)).collect();
        let dz = b.numbers(batch);
        let (mut z, mut dlogits) = (vec![], vec![0.0; n]);
        for (i, &(at, right, wrong)) in choices.iter().enumerate() {
            let row = (i * time + at) * vocab;
            let (right, wrong) = (row + right as usize, row + wrong as usize);
            z.push(f64::from(logits[right]) - f64::from(logits[wrong]));
            dlogits[right] += f64::from(dz[i]);
            dlogits[wrong] -= f64::from(dz[i]);
        }
        let shape = [batch, time, vocab];
        let choices = logit_diff::TokenPairs::new(b.device, shape, &choices)?;
        let (logits, dz) = (b.put(&shape, &logits)?, b.put(&[batch], &dz)?);
        b.poison()?;
        b.close("forward", &logit_diff::forward(&logits, &choices)?, &z)?;
        b.close("backward", &logit_diff::backward(&dz, &choices)?, &dlogits)?;
    }
    Ok(())
}
