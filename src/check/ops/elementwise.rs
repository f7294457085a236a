//! What goes entry by entry, moves entries, or adds them up.

use super::{Checker, Operation, wide};
use crate::Result;
use crate::ops::{adam, add, affine, concat, embedding, gate, gelu, gelu_tanh, grad_rms, relu, threshold};

pub(super) const OPERATIONS: &[Operation] =
    operations![adam, add, affine, concat, embedding, gate, gelu, gelu_tanh, grad_rms, relu, threshold];

/// Around the 256 entries of a workgroup.
const LENGTHS: [usize; 4] = [1, 255, 257, 1000];

fn pairs(a: &[f32], b: &[f32], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    a.iter().zip(b).map(|(&a, &b)| f(a.into(), b.into())).collect()
}

fn add(b: &mut Checker) -> Result<()> {
    for n in LENGTHS {
        let (x, y) = (b.numbers(n), b.numbers(n));
        let want = pairs(&x, &y, |x, y| x + y);
        let (x, mut y) = (b.put(&[n], &x)?, b.put(&[n], &y)?);
        b.poison()?;
        b.close("forward", &add::forward(&x, &y)?, &want)?;
        add::accumulate(&mut y, &x)?;
        b.close("accumulate", &y, &want)?;
    }
    Ok(())
}

fn affine(b: &mut Checker) -> Result<()> {
    for n in LENGTHS {
        let (x, scale, shift) = (b.numbers(n), b.numbers(n), b.numbers(n));
        let product = pairs(&x, &scale, |x, scale| x * scale);
        let want: Vec<f64> = product.iter().zip(&shift).map(|(p, &s)| p + f64::from(s)).collect();
        let (x, scale, shift) = (b.put(&[n], &x)?, b.put(&[n], &scale)?, b.put(&[n], &shift)?);
        b.poison()?;
        b.close("forward", &affine::forward(&x, &scale, &shift)?, &want)?;
        b.close("backward", &affine::backward(&x, &scale)?, &product)?;
    }
    Ok(())
}

fn relu(b: &mut Checker) -> Result<()> {
    for n in LENGTHS {
        let (mut x, dout) = (b.numbers(n), b.numbers(n));
        x.iter_mut().step_by(5).for_each(|x| *x = 0.0);
        let want = pairs(&x, &x, |x, _| x.max(0.0));
        let slope = pairs(&x, &dout, |x, d| if x > 0.0 { d } else { 0.0 });
        let (x, dout) = (b.put(&[n], &x)?, b.put(&[n], &dout)?);
        b.poison()?;
        b.within(0.0, "forward", &relu::forward(&x)?, &want)?;
        b.within(0.0, "backward", &relu::backward(&dout, &x)?, &slope)?;
    }
    Ok(())
}

/// The normal distribution function: a series of positive terms, and far out a continued fraction
/// for the tail.
fn normal_cdf(x: f64) -> f64 {
    let bell = (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
    let a = x.abs();
    let tail = if a < 4.0 {
        let (mut term, mut sum, mut n) = (a, a, 1.0);
        while term > 1e-18 * sum {
            n += 2.0;
            term *= a * a / n;
            sum += term;
        }
        0.5 - bell * sum
    } else {
        bell / (1..=60).rev().fold(a, |below, n| a + f64::from(n) / below)
    };
    if x < 0.0 { tail } else { 1.0 - tail }
}

fn gelu(b: &mut Checker) -> Result<()> {
    // Each range is compared alone, so that its small numbers count.
    for (first, last) in
        [(-0.01, 0.01), (-1.0, 1.0), (-3.0, -1.0), (-5.0, -3.0), (1.0, 12.5), (12.9, 20.0), (-1e20, 1e20)]
    {
        let x: Vec<f32> = (0..300).map(|i| (first + (last - first) * f64::from(i) / 299.0) as f32).collect();
        let dout = b.numbers(x.len());
        let want: Vec<f64> = wide(&x).iter().map(|&x| x * normal_cdf(x)).collect();
        let bell = |x: f64| x * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
        let slope = pairs(&x, &dout, |x, d| d * (normal_cdf(x) + bell(x)));
        let (x, dout) = (b.put(&[300], &x)?, b.put(&[300], &dout)?);
        b.poison()?;
        b.close(&format!("forward, {first} to {last}"), &gelu::forward(&x)?, &want)?;
        b.close(&format!("backward, {first} to {last}"), &gelu::backward(&dout, &x)?, &slope)?;
    }
    // Where a float cannot tell the result from 0, it is 0.
    let (x, dout) = (b.put(&[4], &[-14.0, -20.0, -1e4, -1e20])?, b.put(&[4], &[1.0; 4])?);
    b.within(0.0, "forward, far below 0", &gelu::forward(&x)?, &[0.0; 4])?;
    b.within(0.0, "backward, far below 0", &gelu::backward(&dout, &x)?, &[0.0; 4])
}

fn gelu_tanh(b: &mut Checker) -> Result<()> {
    let factor = (2.0 / std::f64::consts::PI).sqrt();
    // Each range is compared alone, so that its small numbers count.
    for (first, last) in
        [(-0.01, 0.01), (-1.0, 1.0), (-3.0, -1.0), (-5.0, -3.0), (1.0, 9.9), (9.9, 20.0), (-1e30, 1e30)]
    {
        let x: Vec<f32> = (0..300).map(|i| (first + (last - first) * f64::from(i) / 299.0) as f32).collect();
        let dout = b.numbers(x.len());
        let tanh = |x: f64| (factor * (x + 0.044715 * x.powi(3))).tanh();
        let want: Vec<f64> = wide(&x).iter().map(|&x| x * 0.5 * (1.0 + tanh(x))).collect();
        // Where tanh is 1 up to rounding, its slope times a power of x is 0.
        let bend = |x: f64| match 1.0 - tanh(x).powi(2) {
            0.0 => 0.0,
            slope => 0.5 * x * slope * factor * (1.0 + 3.0 * 0.044715 * x * x),
        };
        let slope = pairs(&x, &dout, |x, d| d * (0.5 * (1.0 + tanh(x)) + bend(x)));
        let (x, dout) = (b.put(&[300], &x)?, b.put(&[300], &dout)?);
        b.poison()?;
        b.close(&format!("forward, {first} to {last}"), &gelu_tanh::forward(&x)?, &want)?;
        b.close(&format!("backward, {first} to {last}"), &gelu_tanh::backward(&dout, &x)?, &slope)?;
    }
    // Where a float cannot tell the result from 0, it is 0.
    let (x, dout) = (b.put(&[4], &[-10.0, -20.0, -1e4, -1e30])?, b.put(&[4], &[1.0; 4])?);
    b.within(0.0, "forward, far below 0", &gelu_tanh::forward(&x)?, &[0.0; 4])?;
    b.within(0.0, "backward, far below 0", &gelu_tanh::backward(&dout, &x)?, &[0.0; 4])
}

fn adam(b: &mut Checker) -> Result<()> {
    for (n, factor, decay) in [(1, None, 0.0), (257, Some(0.3f32), 0.02), (1000, None, 0.01)] {
        let (w, grad, m) = (b.numbers(n), b.numbers(n), b.numbers(n));
        let v: Vec<f32> = b.numbers(n).iter().map(|v| v * v).collect();
        let settings = adam::Settings { lr: 0.02, beta1: 0.9, beta2: 0.95, eps: 0.1, step: 3, decay };
        let [lr, beta1, beta2, eps] = [settings.lr, settings.beta1, settings.beta2, settings.eps].map(f64::from);
        let g: Vec<f64> = grad.iter().map(|&g| f64::from(g) * f64::from(factor.unwrap_or(1.0))).collect();
        let mix = |old: &[f32], new: &dyn Fn(f64) -> f64, beta: f64| -> Vec<f64> {
            old.iter().zip(&g).map(|(&old, &g)| beta * f64::from(old) + (1.0 - beta) * new(g)).collect()
        };
        let (first, second) = (mix(&m, &|g| g, beta1), mix(&v, &|g| g * g, beta2));
        let update = |i: usize| {
            let (m, v) = (first[i] / (1.0 - beta1.powi(3)), second[i] / (1.0 - beta2.powi(3)));
            (f64::from(w[i]) - lr * m / (v.sqrt() + eps)) * (1.0 - f64::from(decay))
        };
        let want: Vec<f64> = (0..n).map(update).collect();
        let (mut w, grad, mut m, mut v) = (b.put(&[n], &w)?, b.put(&[n], &grad)?, b.put(&[n], &m)?, b.put(&[n], &v)?);
        let factor = factor.map(|factor| b.put(&[1], &[factor])).transpose()?;
        adam::apply(&mut w, &grad, &mut m, &mut v, factor.as_ref(), &settings)?;
        // The update is a hundredth of the weight.
        b.within(1e-6, "weight", &w, &want)?;
        b.close("first moment", &m, &first)?;
        b.close("second moment", &v, &second)?;
    }
    Ok(())
}

fn gate(b: &mut Checker) -> Result<()> {
    for (rows, width) in [(1, 1), (3, 70), (130, 5), (200, 65)] {
        let n = rows * width;
        let (x, dout, mut tau, mean) = (b.numbers(n), b.numbers(n), b.numbers(width), b.numbers(width));
        tau[0] = 0.0;
        if let Some(tau) = tau.get_mut(1) {
            *tau = -1e-6;
        }
        if let Some(tau) = tau.get_mut(2) {
            *tau = -300.0;
        }
        let at = |i: usize, open: f32, closed: f32| f64::from(if tau[i % width] >= 0.0 { open } else { closed });
        let forward: Vec<f64> = (0..n).map(|i| at(i, x[i], mean[i % width])).collect();
        let dx: Vec<f64> = (0..n).map(|i| at(i, dout[i], 0.0)).collect();
        let temperature = 0.7f32;
        let mut dtau = vec![0.0f64; width];
        for i in 0..n {
            dtau[i % width] += f64::from(dout[i]) * (f64::from(x[i]) - f64::from(mean[i % width]));
        }
        for (sum, &tau) in dtau.iter_mut().zip(&tau) {
            let e = (-f64::from(tau).abs() / f64::from(temperature)).exp();
            *sum *= e / ((1.0 + e) * (1.0 + e) * f64::from(temperature));
        }
        let (x, dout) = (b.put(&[rows, width], &x)?, b.put(&[rows, width], &dout)?);
        let (tau, mean) = (b.put(&[width], &tau)?, b.put(&[width], &mean)?);
        b.poison()?;
        b.within(0.0, "forward", &gate::forward(&x, &tau, &mean)?, &forward)?;
        b.within(0.0, "backward_input", &gate::backward_input(&dout, &tau)?, &dx)?;
        b.close("backward_tau", &gate::backward_tau(&dout, &x, &tau, &mean, temperature)?, &dtau)?;
    }
    Ok(())
}

fn threshold(b: &mut Checker) -> Result<()> {
    for (rows, width, sharpness) in [(1, 1, 1.0f32), (3, 70, 8.0), (130, 5, 1.0), (200, 65, 30.0)] {
        let n = rows * width;
        let (x, dout, log_eps) = (b.numbers(n), b.numbers(n), b.numbers(width));
        let at = |i: usize| {
            let (z, eps, sharpness) = (f64::from(x[i]), f64::from(log_eps[i % width]).exp(), f64::from(sharpness));
            let open = 1.0 / (1.0 + (-sharpness * (z.abs() - eps)).exp());
            (z, eps, open, sharpness * open * (1.0 - open))
        };
        let hard = |values: &[f32]| -> Vec<f64> {
            let kept = |i: usize| if at(i).0.abs() >= at(i).1 { f64::from(values[i]) } else { 0.0 };
            (0..n).map(kept).collect()
        };
        let (kept, kept_gradient) = (hard(&x), hard(&dout));
        let soft: Vec<f64> = (0..n).map(|i| at(i).0 * at(i).2).collect();
        let dz: Vec<f64> = (0..n).map(|i| f64::from(dout[i]) * (at(i).2 + at(i).0.abs() * at(i).3)).collect();
        let mut dlog_eps = vec![0.0f64; width];
        for i in 0..n {
            let (z, eps, _, slope) = at(i);
            dlog_eps[i % width] -= f64::from(dout[i]) * z * slope * eps;
        }
        let (x, dout) = (b.put(&[rows, width], &x)?, b.put(&[rows, width], &dout)?);
        let log_eps = b.put(&[width], &log_eps)?;
        b.poison()?;
        b.within(0.0, "hard", &threshold::forward(&x, &log_eps, None)?, &kept)?;
        b.within(0.0, "backward_hard", &threshold::backward_input(&dout, &x, &log_eps, None)?, &kept_gradient)?;
        // The rounding of a difference is multiplied by the sharpness.
        let close = 1e-4;
        b.within(close, "soft", &threshold::forward(&x, &log_eps, Some(sharpness))?, &soft)?;
        let got = threshold::backward_input(&dout, &x, &log_eps, Some(sharpness))?;
        b.within(close, "backward_soft", &got, &dz)?;
        let got = threshold::backward_log_eps(&dout, &x, &log_eps, sharpness)?;
        b.within(close, "backward_log_eps", &got, &dlog_eps)?;
    }
    Ok(())
}

fn concat(b: &mut Checker) -> Result<()> {
    for (before, left, right, after) in [(1, 1, 1, 1), (5, 70, 3, 1), (90, 7, 13, 1), (1, 3, 2, 100), (3, 40, 9, 7)] {
        let (x, y) = (b.numbers(before * left * after), b.numbers(before * right * after));
        let runs = x.chunks(left * after).zip(y.chunks(right * after));
        let both: Vec<f32> = runs.flat_map(|(x, y)| x.iter().chain(y)).copied().collect();
        let (x_in, y_in) = (b.put(&[before, left, after], &x)?, b.put(&[before, right, after], &y)?);
        b.poison()?;
        let joined = concat::forward(&[&x_in, &y_in], 1)?;
        b.exact("concat", &joined, &both)?;
        b.exact("narrow from the start", &concat::narrow(&joined, 1, 0, left)?, &x)?;
        b.exact("narrow to the end", &concat::narrow(&joined, 1, left, right)?, &y)?;
    }
    Ok(())
}

fn embedding(b: &mut Checker) -> Result<()> {
    for (vocab, width, positions) in [(1, 1, 1), (10, 60, 40), (300, 3, 700)] {
        let table = b.numbers(vocab * width);
        // Some ids many times, some never.
        let ids: Vec<u32> = (0..positions).map(|_| (b.below(vocab) * b.below(vocab + 1) / vocab) as u32).collect();
        let dout = b.numbers(positions * width);
        let want: Vec<f32> = ids.iter().flat_map(|&id| &table[id as usize * width..][..width]).copied().collect();
        let mut gathered = vec![0.0f64; vocab * width];
        for (&id, dout) in ids.iter().zip(dout.chunks(width)) {
            for (sum, &d) in gathered[id as usize * width..].iter_mut().zip(dout) {
                *sum += f64::from(d);
            }
        }
        let index = embedding::Index::new(b.device, &ids, vocab)?;
        let (table, dout) = (b.put(&[vocab, width], &table)?, b.put(&[positions, width], &dout)?);
        b.poison()?;
        b.exact("forward", &embedding::forward(&table, &index)?, &want)?;
        b.close("backward", &embedding::backward(&dout, &index)?, &gathered)?;
    }
    Ok(())
}

fn grad_rms(b: &mut Checker) -> Result<()> {
    for n in [1, 255, 300, 600, 900, 4095, 4096, 4097, 9000] {
        let x = b.numbers(n);
        let sum: f64 = wide(&x).iter().map(|x| x * x).sum();
        let (x, mut sums) = (b.put(&[n], &x)?, b.put(&[3], &[1.0, 2.0, 3.0])?);
        b.poison()?;
        grad_rms::square_sum(&x, &mut sums, 1)?;
        let sums = wide(&sums.read()?);
        let got = b.put(&[1], &[sums[1] as f32])?;
        b.close(&format!("square_sum of {n}"), &got, &[sum])?;
        b.same("other slots", &[sums[0] as u32, sums[2] as u32], &[1, 3]);
    }
    use grad_rms::Rule;
    // More sums than a workgroup takes in one, four, and eight rounds.
    for (n, count) in [(1, 3), (200, 50), (257, 2000), (520, 100), (800, 5), (2500, 9000)] {
        let sums: Vec<f32> = b.numbers(n).iter().map(|x| x.abs()).collect();
        let rms = (wide(&sums).iter().sum::<f64>() / count as f64).sqrt();
        let sums = b.put(&[n], &sums)?;
        for (rule, factor) in
            [(Rule::Normalize, 1.0 / (rms + 1e-5)), (Rule::Clip, 1.0 / rms.max(1.0)), (Rule::None, 1.0)]
        {
            b.poison()?;
            let got = grad_rms::factor(&sums, count, rule)?.read()?;
            for (name, got, want) in [("factor", got[0], factor), ("rms", got[1], rms)] {
                let got = b.put(&[1], &[got])?;
                b.close(&format!("{name} of {n} sums, {rule:?}"), &got, &[want])?;
            }
        }
    }
    // So small that what is added to it counts.
    let sums = b.put(&[1], &[1e-10])?;
    let got = grad_rms::factor(&sums, 1, Rule::Normalize)?;
    b.close("factor of a small sum", &got, &[1.0 / (1e-5 + 1e-5), 1e-5])
}
