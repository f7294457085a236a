//! Which entries are kept: exact on every device, ties included.

use std::cmp::Reverse;

use super::{Checker, Operation, wide};
use crate::Result;
use crate::ops::weight_topk::{Neurons, Rule};
use crate::ops::{abs_topk, count_nonzero, topk_logits, weight_topk};

pub(super) const OPERATIONS: &[Operation] = operations![abs_topk, count_nonzero, topk_logits, weight_topk];

fn magnitude(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

/// The indices of the `k` largest keys, the lowest of equal ones first.
fn largest(keys: &[u64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    if k < keys.len() && k > 0 {
        order.select_nth_unstable_by_key(k - 1, |&i| (Reverse(keys[i]), i));
    }
    order.truncate(k);
    order
}

fn marks(n: usize, kept: &[usize]) -> Vec<bool> {
    let mut marks = vec![false; n];
    kept.iter().for_each(|&i| marks[i] = true);
    marks
}

fn abs_topk(b: &mut Checker) -> Result<()> {
    let fill = |b: &mut Checker, kind: usize, n: usize| match kind {
        0 => b.numbers(n),
        1 => b.ties(n),
        2 => vec![-0.0; n],
        3 => vec![-1.5; n],
        // A few that are not zero, and all sizes that there are: digits of every pass decide.
        4 => (0..n).map(|_| if b.below(9) == 0 { b.numbers(1)[0] } else { 0.0 }).collect(),
        _ => (0..n)
            .map(|_| f32::from_bits(0x3f80_0000 ^ (b.below(2) << 3 | b.below(4) << 8 | b.below(3) << 16) as u32))
            .collect(),
    };
    for (rows, cols) in [(5, 1), (3, 7), (4, 255), (2, 300), (2, 2048), (2, 2049), (1, 5000)] {
        for kind in 0..6 {
            let x = fill(b, kind, rows * cols);
            let input = b.put(&[rows, cols], &x)?;
            let dout = b.numbers(rows * cols);
            let gradient = b.put(&[rows, cols], &dout)?;
            for k in [0, 1, cols / 4, cols / 2 + 1, cols - cols / 5, cols] {
                let (mut y, mut dx, mut zeros) = (vec![], vec![], vec![]);
                for (x, dout) in x.chunks(cols).zip(dout.chunks(cols)) {
                    let keys: Vec<u64> = x.iter().map(|&x| magnitude(x).into()).collect();
                    let kept = largest(&keys, k.min(cols));
                    let is_kept = marks(cols, &kept);
                    zeros
                        .push(kept.iter().filter(|&&i| magnitude(x[i]) == 0).map(|&i| i as u32 + 1).max().unwrap_or(0));
                    y.extend(x.iter().zip(&is_kept).map(|(&x, &kept)| if kept { x } else { 0.0 }));
                    dx.extend(dout.iter().zip(&is_kept).map(|(&d, &kept)| if kept { d } else { 0.0 }));
                }
                b.poison()?;
                let forward = abs_topk::forward(&input, k)?;
                let at = |what: &str| format!("{what}, {k} of {cols}, input {kind}");
                b.exact(&at("forward"), &forward.y, &y)?;
                b.same(&at("kept zeros"), &forward.zeros.read()?, &zeros);
                b.exact(&at("backward"), &abs_topk::backward(&gradient, &forward.y, &forward.zeros)?, &dx)?;
            }
        }
    }
    Ok(())
}

fn count_nonzero(b: &mut Checker) -> Result<()> {
    for n in [1, 255, 257, 4095, 4097, 10_000] {
        let mut x = b.ties(n);
        // The smallest number there is, whose bits no driver may take for a zero.
        x[n - 1] = f32::from_bits(1);
        let want = x.iter().filter(|x| **x != 0.0).count() as u32;
        let x = b.put(&[n], &x)?;
        b.poison()?;
        b.same(&format!("of {n}"), &count_nonzero::forward(&x)?.read()?, &[want]);
    }
    for (rows, cols) in [(1, 1), (3, 257), (300, 5)] {
        let x = b.ties(rows * cols);
        let (mut by_row, mut by_column) = (vec![0; rows], vec![0; cols]);
        for (i, _) in x.iter().enumerate().filter(|(_, x)| **x != 0.0) {
            by_row[i / cols] += 1;
            by_column[i % cols] += 1;
        }
        let x = b.put(&[rows, cols], &x)?;
        b.poison()?;
        b.same(&format!("of {rows} rows"), &count_nonzero::by_row(&x)?.read()?, &by_row);
        b.same(&format!("of {cols} columns"), &count_nonzero::by_column(&x)?.read()?, &by_column);
    }
    Ok(())
}

fn topk_logits(b: &mut Checker) -> Result<()> {
    for (rows, v, n) in [(1, 1, 1), (3, 100, 1), (4, 300, 7), (2, 300, 300)] {
        // Steps of a half, so that no two logits differ by little, with ties, and some whose
        // probability is 0 in float32. With another row's sum, exponentials would overflow.
        let mut logit = |i: usize| {
            let offset = [0.0, 150.0, -150.0][i / v % 3];
            offset + if i % v == 5 { -190.0 } else { b.below(40) as f32 * 0.5 - 3.0 }
        };
        let x: Vec<f32> = (0..rows * v).map(&mut logit).collect();
        let (mut keep, mut want) = (vec![], vec![]);
        for row in x.chunks(v) {
            let x = wide(row);
            let lse = 200.0 + x.iter().map(|x| (x - 200.0).exp()).sum::<f64>().ln();
            let keys: Vec<u64> = x.iter().map(|x| (x + 1000.0).to_bits()).collect();
            let possible = |i: &usize| x[*i] - lse > -100.0;
            let kept: Vec<usize> = largest(&keys, n.min(v)).into_iter().filter(possible).collect();
            for (i, kept) in marks(v, &kept).into_iter().enumerate() {
                keep.push(u32::from(kept));
                want.push(if kept { x[i] } else { lse - 200.0 });
            }
        }
        let x_in = b.put(&[rows, v], &x)?;
        b.poison()?;
        let y = topk_logits::forward(&x_in, n)?;
        let got: Vec<u32> = y.read()?.iter().zip(&x).map(|(y, x)| u32::from(y == x)).collect();
        b.same(&format!("{n} of {v}"), &got, &keep);
        b.within(1e-6, &format!("values of {n} of {v}"), &y, &want)?;
    }
    Ok(())
}

/// What the rule makes of a matrix, by sorting.
fn survivors(w: &[f32], cols: usize, rule: &Rule) -> Vec<f32> {
    let mut keys: Vec<u64> = w.iter().map(|&w| magnitude(w).into()).collect();
    let rows = w.len() / cols;
    let lines: Vec<Vec<usize>> = match rule.neurons {
        Some(Neurons::Rows) => (0..rows).map(|r| (r * cols..(r + 1) * cols).collect()).collect(),
        Some(Neurons::Columns) => (0..cols).map(|c| (c..w.len()).step_by(cols).collect()).collect(),
        None => vec![],
    };
    for line in lines {
        let mut order = line;
        order.sort_by_key(|&i| (Reverse(magnitude(w[i])), i));
        order.iter().take(rule.min_alive).for_each(|&i| keys[i] |= 1 << 40);
    }
    let kept = marks(w.len(), &largest(&keys, rule.keep.min(w.len())));
    let factor = (1.0 - f64::from(rule.decay)) as f32;
    w.iter().zip(kept).map(|(&w, kept)| if kept { w * factor } else { 0.0 }).collect()
}

fn weight_topk(b: &mut Checker) -> Result<()> {
    let both = [None, Some(Neurons::Rows), Some(Neurons::Columns)];
    for (rows, cols) in [(1, 1), (1, 40), (5, 3), (40, 33), (70, 130), (19, 500)] {
        for (kind, neurons) in [0, 1].into_iter().flat_map(|kind| both.map(|neurons| (kind, neurons))) {
            let n = rows * cols;
            let w = if kind == 0 { b.numbers(n) } else { b.ties(n) };
            for (keep, min_alive, decay) in
                [(0, 1, 0.0), (1, 0, 0.0), (n / 20, 1, 0.125), (n / 4, 3, 0.0), (n / 2 + 1, 2, 0.0), (n, 2, 0.125)]
            {
                let rule = Rule { keep, min_alive, neurons, decay };
                let mut weight = b.put(&[rows, cols], &w)?;
                b.poison()?;
                weight_topk::apply(&mut weight, &rule)?;
                let at = format!("{keep} of {rows} x {cols}, input {kind}, {neurons:?}, min-alive {min_alive}");
                b.exact(&at, &weight, &survivors(&w, cols, &rule))?;
            }
        }
    }
    // More blocks than a workgroup has invocations.
    let (rows, cols) = (1030, 1030);
    let w = b.ties(rows * cols);
    let mut weight = b.put(&[rows, cols], &w)?;
    let rule = Rule { keep: rows * cols / 2, min_alive: 0, neurons: None, decay: 0.0 };
    weight_topk::apply(&mut weight, &rule)?;
    b.exact("half of a large matrix", &weight, &survivors(&w, cols, &rule))?;
    // The last survivor is the last of a block.
    let keep = 101 * 4096;
    let mut weight = b.put(&[rows, cols], &vec![1.0; rows * cols])?;
    weight_topk::apply(&mut weight, &Rule { keep, ..rule })?;
    let want: Vec<f32> = (0..rows * cols).map(|i| if i < keep { 1.0 } else { 0.0 }).collect();
    b.exact("whole blocks of equals", &weight, &want)
}
