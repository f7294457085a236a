use crate::common::{assert_close, central_differences, dot, kernels, normal, put, rng, wide};
use gossamer::ops::layer_norm;

const EPS: f32 = 1e-5;
const SHAPES: [(usize, usize); 8] = [(1, 1), (5, 1), (1, 17), (19, 16), (7, 65), (67, 300), (259, 64), (3, 1031)];

struct Oracle {
    y: Vec<f64>,
    mean: Vec<f64>,
    rstd: Vec<f64>,
}

fn forward(x: &[f64], w: &[f64], b: &[f64], eps: f64) -> Oracle {
    let mut oracle = Oracle { y: Vec::new(), mean: Vec::new(), rstd: Vec::new() };
    let c = w.len() as f64;
    for row in x.chunks(w.len()) {
        let mean = row.iter().sum::<f64>() / c;
        let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / c;
        let rstd = 1.0 / (variance + eps).sqrt();
        oracle.mean.push(mean);
        oracle.rstd.push(rstd);
        oracle.y.extend((0..row.len()).map(|i| (row[i] - mean) * rstd * w[i] + b[i]));
    }
    oracle
}

/// The gradients of x and w, through the gradients of variance and mean.
fn backward(dout: &[f64], x: &[f64], w: &[f64], eps: f64) -> (Vec<f64>, Vec<f64>) {
    let c = w.len();
    let n = c as f64;
    let stats = forward(x, w, &vec![0.0; c], eps);
    let (mut dx, mut dw) = (Vec::new(), vec![0.0; c]);
    for (row, (d, x)) in dout.chunks(c).zip(x.chunks(c)).enumerate() {
        let (mean, rstd) = (stats.mean[row], stats.rstd[row]);
        let variance_grad: f64 = (0..c).map(|j| d[j] * w[j] * (x[j] - mean) * -0.5 * rstd.powi(3)).sum();
        let mean_grad: f64 = (0..c).map(|j| -d[j] * w[j] * rstd).sum();
        dx.extend((0..c).map(|i| d[i] * w[i] * rstd + variance_grad * 2.0 * (x[i] - mean) / n + mean_grad / n));
        (0..c).for_each(|i| dw[i] += d[i] * (x[i] - mean) * rstd);
    }
    (dx, dw)
}

#[test]
fn agrees_forward_and_backward() {
    let mut rng = rng(21);
    let devices = kernels();
    for (rows, c) in SHAPES {
        let (x, w, b) = (normal(&mut rng, rows * c), normal(&mut rng, c), normal(&mut rng, c));
        let x: Vec<f32> = x.iter().map(|v| v + 3.0).collect();
        let dout = normal(&mut rng, rows * c);
        let want = forward(&wide(&x), &wide(&w), &wide(&b), f64::from(EPS));
        let without_bias = forward(&wide(&x), &wide(&w), &vec![0.0; c], f64::from(EPS));
        let (want_dx, want_dw) = backward(&wide(&dout), &wide(&x), &wide(&w), f64::from(EPS));
        for device in &devices {
            let shape = [rows, 1, c];
            let (x, w, dout) = (put(device, &shape, &x), put(device, &[c], &w), put(device, &shape, &dout));
            let b = put(device, &[c], &b);
            let got = layer_norm::forward(&x, &w, Some(&b), EPS).unwrap();
            assert_eq!((got.y.shape(), got.mean.shape(), got.rstd.shape()), (&shape[..], &[rows][..], &[rows][..]));
            assert_close("y", &got.y.read().unwrap(), &want.y, 2e-6);
            assert_close("mean", &got.mean.read().unwrap(), &want.mean, 1e-6);
            assert_close("rstd", &got.rstd.read().unwrap(), &want.rstd, 1e-6);
            let plain = layer_norm::forward(&x, &w, None, EPS).unwrap();
            assert_close("y without bias", &plain.y.read().unwrap(), &without_bias.y, 2e-6);
            let dx = layer_norm::backward_input(&dout, &x, &w, &got.mean, &got.rstd).unwrap();
            assert_eq!(dx.shape(), shape);
            assert_close("dx", &dx.read().unwrap(), &want_dx, 2e-6);
            let dw = layer_norm::backward_weight(&dout, &x, &got.mean, &got.rstd).unwrap();
            assert_eq!(dw.shape(), [c]);
            assert_close("dw", &dw.read().unwrap(), &want_dw, 2e-6);

            let again = layer_norm::forward(&x, &w, Some(&b), EPS).unwrap();
            assert_eq!(again.y.read().unwrap(), got.y.read().unwrap());
            let dx2 = layer_norm::backward_input(&dout, &x, &w, &got.mean, &got.rstd).unwrap();
            assert_eq!(dx2.read().unwrap(), dx.read().unwrap());
            let dw2 = layer_norm::backward_weight(&dout, &x, &got.mean, &got.rstd).unwrap();
            assert_eq!(dw2.read().unwrap(), dw.read().unwrap());
        }
    }
}

#[test]
fn gradients_are_those_of_central_differences() {
    let (rows, c, eps) = (3, 5, 0.1f32);
    let mut rng = rng(22);
    let (x, w, dout) = (normal(&mut rng, rows * c), normal(&mut rng, c), normal(&mut rng, rows * c));
    let (x64, w64, d64) = (wide(&x), wide(&w), wide(&dout));
    let value = |x: &[f64], w: &[f64]| dot(&forward(x, w, &[0.0; 5], f64::from(eps)).y, &d64);
    let dx = central_differences(&x64, 1e-5, |x| value(x, &w64));
    let dw = central_differences(&w64, 1e-5, |w| value(&x64, w));
    for device in kernels() {
        let (x, w, dout) = (put(&device, &[rows, c], &x), put(&device, &[c], &w), put(&device, &[rows, c], &dout));
        let f = layer_norm::forward(&x, &w, None, eps).unwrap();
        let got = layer_norm::backward_input(&dout, &x, &w, &f.mean, &f.rstd).unwrap();
        assert_close("dx", &got.read().unwrap(), &dx, 1e-6);
        let got = layer_norm::backward_weight(&dout, &x, &f.mean, &f.rstd).unwrap();
        assert_close("dw", &got.read().unwrap(), &dw, 1e-6);
    }
}

#[test]
fn a_large_mean_does_not_cancel_the_variance() {
    // 1000 and 1001 alternately: variance 1/4. In f32, mean(x^2) - mean(x)^2 would be off by whole
    // units.
    let x: Vec<f32> = (0..512).map(|i| 1000.0 + (i % 2) as f32).collect();
    for device in kernels() {
        let got =
            layer_norm::forward(&put(&device, &[2, 256], &x), &put(&device, &[256], &[1.0; 256]), None, EPS).unwrap();
        assert_close("rstd", &got.rstd.read().unwrap(), &[1.0 / (0.25f64 + 1e-5).sqrt(); 2], 1e-6);
    }
}

#[test]
fn rows_of_one_value_give_the_bias() {
    for device in kernels() {
        let t = |shape: &[usize], v: f32| put(&device, shape, &vec![v; shape.iter().product()]);
        for value in [0.0, 2.5] {
            let x = t(&[3, 70], value);
            let got = layer_norm::forward(&x, &t(&[70], 2.0), Some(&t(&[70], 0.25)), EPS).unwrap();
            assert_eq!(got.y.read().unwrap(), [0.25; 210]);
            assert_close("rstd", &got.rstd.read().unwrap(), &[1.0 / 1e-5f64.sqrt(); 3], 1e-6);
            let dx = layer_norm::backward_input(&t(&[3, 70], 0.5), &x, &t(&[70], 2.0), &got.mean, &got.rstd).unwrap();
            assert_close("dx", &dx.read().unwrap(), &[0.0; 210], 1e-4);
        }
    }
}

#[test]
fn no_rows_are_no_trouble() {
    for device in kernels() {
        let (x, w) = (put(&device, &[0, 3], &[]), put(&device, &[3], &[1.0; 3]));
        let got = layer_norm::forward(&x, &w, Some(&w), EPS).unwrap();
        assert!(layer_norm::backward_input(&x, &x, &w, &got.mean, &got.rstd).unwrap().is_empty());
        let dw = layer_norm::backward_weight(&x, &x, &got.mean, &got.rstd).unwrap();
        assert_eq!(dw.read().unwrap(), [0.0; 3]);
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    for device in kernels() {
        let t = |shape: &[usize]| put(&device, shape, &vec![1.0; shape.iter().product()]);
        let (x, w, r) = (t(&[2, 3]), t(&[3]), t(&[2]));
        let refused = |result: gossamer::Result<()>, reason: &str| {
            let message = result.unwrap_err().to_string();
            assert!(message.contains("layer_norm") && message.contains(reason), "{message}");
        };
        refused(layer_norm::forward(&x, &r, None, EPS).map(drop), "weight is [2]");
        refused(layer_norm::forward(&x, &w, Some(&r), EPS).map(drop), "bias is [2]");
        refused(layer_norm::forward(&t(&[2, 0]), &t(&[0]), None, EPS).map(drop), "[2, 0]");
        refused(layer_norm::backward_input(&w, &x, &w, &r, &r).map(drop), "dout is [3]");
        refused(layer_norm::backward_input(&x, &x, &w, &w, &r).map(drop), "mean is [3]");
        refused(layer_norm::backward_input(&x, &x, &w, &r, &w).map(drop), "rstd is [3]");
        refused(layer_norm::backward_weight(&w, &x, &r, &r).map(drop), "dout is [3]");
    }
}

#[test]
fn a_row_whose_squares_overflow_is_not_finite() {
    for device in kernels() {
        let (x, w) = (put(&device, &[2, 3], &[1.0, 1e30, 2.0, 1.0, 1e3, 2.0]), put(&device, &[3], &[1.0; 3]));
        let y = layer_norm::forward(&x, &w, None, 1e-5).unwrap().y.read().unwrap();
        assert!(y[..3].iter().all(|v| !v.is_finite()), "{y:?} on {}", device.describe());
        assert!(y[3..].iter().all(|v| v.is_finite()), "{y:?} on {}", device.describe());
    }
}
