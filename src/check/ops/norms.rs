//! Norms over the last dimension.

use super::{Checker, Operation};
use crate::Result;
use crate::ops::{layer_norm, rms_norm};

pub(super) const OPERATIONS: &[Operation] = operations![layer_norm, rms_norm];

/// Rows and widths for every number of invocations that share a row, with rows left over in the
/// last workgroup, and with more rows than one partial sum of the weight's gradient takes.
const SHAPES: [(usize, usize); 10] =
    [(1, 1), (70, 3), (33, 12), (17, 31), (9, 40), (200, 66), (5, 100), (3, 300), (2, 600), (3, 1100)];

struct Inputs {
    x: Vec<f32>,
    dout: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Inputs {
    fn new(b: &mut Checker, rows: usize, width: usize) -> Self {
        // Far from 0, as activations may be; and a row of zeros.
        let mut x: Vec<f32> = b.numbers(rows * width).iter().map(|x| x + 3.0).collect();
        if rows > 2 {
            x[width..2 * width].fill(0.0);
        }
        Self { x, dout: b.numbers(rows * width), weight: b.numbers(width), bias: b.numbers(width) }
    }
}

/// Not small compared with what it is added to.
const EPS: f32 = 1.0;

fn layer_norm(b: &mut Checker) -> Result<()> {
    norm(b, true)
}

fn rms_norm(b: &mut Checker) -> Result<()> {
    norm(b, false)
}

fn norm(b: &mut Checker, centred: bool) -> Result<()> {
    for (rows, width) in SHAPES {
        let Inputs { x, dout, weight, bias } = Inputs::new(b, rows, width);
        let n = width as f64;
        let row = |r: usize, data: &[f32]| super::wide(&data[r * width..][..width]);
        let w = super::wide(&weight);
        let (mut y, mut with_bias, mut dx, mut means, mut scales) = (vec![], vec![], vec![], vec![], vec![]);
        let mut dweight = vec![0.0; width];
        for r in 0..rows {
            let (x, d) = (row(r, &x), row(r, &dout));
            let mean = if centred { x.iter().sum::<f64>() / n } else { 0.0 };
            let rstd = 1.0 / (x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n + f64::from(EPS)).sqrt();
            let unit: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
            let g: Vec<f64> = d.iter().zip(&w).map(|(d, w)| d * w).collect();
            let along = g.iter().zip(&unit).map(|(g, u)| g * u).sum::<f64>() / n;
            let level = if centred { g.iter().sum::<f64>() / n } else { 0.0 };
            for c in 0..width {
                y.push(unit[c] * w[c]);
                with_bias.push(unit[c] * w[c] + f64::from(bias[c]));
                dx.push(rstd * (g[c] - level - unit[c] * along));
                dweight[c] += d[c] * unit[c];
            }
            means.push(mean);
            scales.push(rstd);
        }
        let shape = [rows, width];
        let (x, dout) = (b.put(&shape, &x)?, b.put(&shape, &dout)?);
        let (weight, bias) = (b.put(&[width], &weight)?, b.put(&[width], &bias)?);
        b.poison()?;
        let at = |what: &str| format!("{what}, {rows} rows of {width}");
        if !centred {
            let forward = rms_norm::forward(&x, &weight, EPS)?;
            b.close(&at("forward"), &forward.y, &y)?;
            b.close(&at("rstd"), &forward.rstd, &scales)?;
            b.close(&at("backward_input"), &rms_norm::backward_input(&dout, &x, &weight, &forward.rstd)?, &dx)?;
            b.close(&at("backward_weight"), &rms_norm::backward_weight(&dout, &x, &forward.rstd)?, &dweight)?;
            continue;
        }
        let forward = layer_norm::forward(&x, &weight, None, EPS)?;
        let (mean, rstd) = (&forward.mean, &forward.rstd);
        b.close(&at("forward"), &forward.y, &y)?;
        b.close(&at("mean"), mean, &means)?;
        b.close(&at("rstd"), rstd, &scales)?;
        let biased = layer_norm::forward(&x, &weight, Some(&bias), EPS)?;
        b.close(&at("forward_bias"), &biased.y, &with_bias)?;
        b.close(&at("mean with bias"), &biased.mean, &means)?;
        b.close(&at("backward_input"), &layer_norm::backward_input(&dout, &x, &weight, mean, rstd)?, &dx)?;
        b.close(&at("backward_weight"), &layer_norm::backward_weight(&dout, &x, mean, rstd)?, &dweight)?;
    }
    Ok(())
}
