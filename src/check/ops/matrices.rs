//! Products of matrices, dense and compressed.

use super::{Checker, Operation, wide};
use crate::Result;
use crate::device::Tensor;
use crate::ops::linear::{OutputShape, Tile};
use crate::ops::{compress, linear, sparse_linear};

pub(super) const OPERATIONS: &[Operation] = operations![compress, linear, sparse_linear];

/// `a b` with `a: (m, k)`, `b: (k, n)`.
fn product(a: &[f64], b: &[f64], (m, n, k): (usize, usize, usize)) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    for (out, a) in out.chunks_mut(n).zip(a.chunks(k)) {
        for (&a, b) in a.iter().zip(b.chunks(n)) {
            out.iter_mut().zip(b).for_each(|(out, b)| *out += a * b);
        }
    }
    out
}

fn transposed(x: &[f64], cols: usize) -> Vec<f64> {
    (0..cols).flat_map(|c| x.iter().skip(c).step_by(cols).copied()).collect()
}

fn column_sums(x: &[f64], cols: usize) -> Vec<f64> {
    (0..cols).map(|c| x.iter().skip(c).step_by(cols).sum()).collect()
}

fn linear(b: &mut Checker) -> Result<()> {
    // Rows, inputs, outputs. Ragged; then one that is cut along its inner dimension.
    let shapes = [(1, 1, 1), (33, 21, 70), (130, 5, 140), (67, 130, 9), (3, 600, 5), (40, 515, 35)];
    let Some(gpu) = b.gpu() else {
        shapes.into_iter().try_for_each(|shape| products(b, shape))?;
        return bias_gradients(b);
    };
    // Each tile for every kind of output, and then again what was chosen before.
    let before = OutputShape::ALL.map(|output| linear::tile(&gpu, output));
    for tile in Tile::ALL {
        OutputShape::ALL.into_iter().try_for_each(|output| linear::set_tile(&gpu, output, tile))?;
        shapes.into_iter().try_for_each(|shape| products(b, shape))?;
    }
    for (output, tile) in OutputShape::ALL.into_iter().zip(before) {
        linear::set_tile(&gpu, output, tile?)?;
    }
    bias_gradients(b)
}

fn products(b: &mut Checker, (rows, inputs, outputs): (usize, usize, usize)) -> Result<()> {
    let (x, w) = (b.numbers(rows * inputs), b.numbers(outputs * inputs));
    let (bias, dout) = (b.numbers(outputs), b.numbers(rows * outputs));
    let (x64, w64, d64) = (wide(&x), wide(&w), wide(&dout));
    let plain = product(&x64, &transposed(&w64, inputs), (rows, outputs, inputs));
    let biased: Vec<f64> = plain.iter().enumerate().map(|(i, y)| y + f64::from(bias[i % outputs])).collect();
    let (x, w) = (b.put(&[rows, inputs], &x)?, b.put(&[outputs, inputs], &w)?);
    let (bias, dout) = (b.put(&[outputs], &bias)?, b.put(&[rows, outputs], &dout)?);
    b.poison()?;
    let at = |what: &str| format!("{what}, ({rows}, {inputs}) to {outputs}");
    b.close(&at("forward"), &linear::forward(&x, &w, None)?, &plain)?;
    b.close(&at("forward with bias"), &linear::forward(&x, &w, Some(&bias))?, &biased)?;
    b.close(&at("backward_input"), &linear::backward_input(&dout, &w)?, &product(&d64, &w64, (rows, inputs, outputs)))?;
    let want = product(&transposed(&d64, outputs), &x64, (outputs, inputs, rows));
    b.close(&at("backward_weight"), &linear::backward_weight(&dout, &x)?, &want)
}

/// The last needs partial sums of partial sums.
fn bias_gradients(b: &mut Checker) -> Result<()> {
    for (rows, width) in [(1, 1), (17, 130), (65, 64), (129, 70), (4200, 3)] {
        let dout = b.numbers(rows * width);
        let want = column_sums(&wide(&dout), width);
        let dout = b.put(&[rows, width], &dout)?;
        b.poison()?;
        b.close(&format!("backward_bias, {rows} rows of {width}"), &linear::backward_bias(&dout)?, &want)?;
    }
    Ok(())
}

/// A matrix of which some rows and columns are empty, some full, with zeros of either sign.
fn sparse(b: &mut Checker, rows: usize, cols: usize) -> Vec<f32> {
    let mut w = b.numbers(rows * cols);
    for (i, w) in w.iter_mut().enumerate() {
        let (r, c) = (i / cols, i % cols);
        let zero = r % 7 == 3 || c % 5 == 2 || (r % 11 != 4 && b.below(4) > 0);
        if zero {
            *w = if i % 2 == 0 { 0.0 } else { -0.0 };
        }
    }
    w[rows * cols - 1] = 0.75;
    w
}

/// Offsets, indices and values of a matrix's rows, at most `capacity` entries.
fn lists(w: &[f32], cols: usize, capacity: usize) -> (Vec<u32>, Vec<u32>, Vec<f32>) {
    let (mut offsets, mut indices, mut values) = (vec![0], vec![], vec![]);
    for row in w.chunks(cols) {
        for (c, &w) in row.iter().enumerate().filter(|(_, w)| **w != 0.0) {
            if values.len() < capacity {
                indices.push(c as u32);
                values.push(w);
            }
        }
        offsets.push(values.len() as u32);
    }
    (offsets, indices, values)
}

fn compress(b: &mut Checker) -> Result<()> {
    for (rows, cols) in [(1, 1), (3, 70), (65, 129), (45, 1700)] {
        let w = sparse(b, rows, cols);
        let across: Vec<f32> = (0..cols).flat_map(|c| w.iter().skip(c).step_by(cols).copied()).collect();
        let nonzeros = w.iter().filter(|w| **w != 0.0).count();
        let weight = b.put(&[rows, cols], &w)?;
        // On a GPU what does not fit is dropped.
        let short = if b.device.is_cpu() { nonzeros } else { nonzeros.div_ceil(2) };
        for capacity in [nonzeros, nonzeros + 5, short] {
            b.poison()?;
            let compressed = compress::forward(&weight, capacity)?;
            for (name, got, w, length) in
                [("rows", compressed.csr(), &w, cols), ("columns", compressed.csc(), &across, rows)]
            {
                let (offsets, indices, values) = lists(w, length, capacity);
                let at = |what: &str| format!("{what} of {name}, {rows} x {cols}, capacity {capacity} of {nonzeros}");
                b.same(&at("offsets"), &got.offsets().read()?, &offsets);
                b.same(&at("indices"), &got.indices().read()?[..indices.len()], &indices);
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                b.same(&at("values"), &bits(&got.values().read()?[..values.len()]), &bits(&values));
            }
            if capacity >= nonzeros {
                let want: Vec<f32> = w.iter().map(|&w| if w == 0.0 { 0.0 } else { w }).collect();
                b.exact(&format!("decompress, {rows} x {cols}"), &compressed.to_dense()?, &want)?;
            }
        }
    }
    // More workgroups than one dimension of the grid takes, and one more than two equal rows of
    // them hold.
    let (rows, cols) = (65_537, 2);
    let w: Vec<f32> = (0..rows * cols).map(|i| if i % 3 == 0 { i as f32 } else { 0.0 }).collect();
    let compressed = compress::from_host(b.device, (rows, cols), &w)?;
    b.poison()?;
    b.exact("decompress, a folded grid", &compressed.to_dense()?, &w)
}

fn sparse_linear(b: &mut Checker) -> Result<()> {
    // Rows, inputs, outputs.
    for (rows, inputs, outputs) in [(1, 1, 1), (17, 300, 5), (3, 5, 300), (40, 513, 260)] {
        let w = sparse(b, outputs, inputs);
        let (x, bias, dout) = (b.numbers(rows * inputs), b.numbers(outputs), b.numbers(rows * outputs));
        let (x64, w64) = (wide(&x), wide(&w));
        let plain = product(&x64, &transposed(&w64, inputs), (rows, outputs, inputs));
        let biased: Vec<f64> = plain.iter().enumerate().map(|(i, y)| y + f64::from(bias[i % outputs])).collect();
        let dx = product(&wide(&dout), &w64, (rows, inputs, outputs));
        let weight = compress::from_host(b.device, (outputs, inputs), &w)?;
        let (x, dout): (Tensor, Tensor) = (b.put(&[rows, inputs], &x)?, b.put(&[rows, outputs], &dout)?);
        let bias = b.put(&[outputs], &bias)?;
        b.poison()?;
        let at = |what: &str| format!("{what}, ({rows}, {inputs}) to {outputs}");
        b.close(&at("forward"), &sparse_linear::forward(&x, &weight, None)?, &plain)?;
        b.close(&at("forward with bias"), &sparse_linear::forward(&x, &weight, Some(&bias))?, &biased)?;
        b.close(&at("backward_input"), &sparse_linear::backward_input(&dout, &weight)?, &dx)?;
    }
    Ok(())
}
