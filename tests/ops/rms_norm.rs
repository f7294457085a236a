use crate::common::{assert_close, central_differences, dot, kernels, normal, put, rng, wide};
use gossamer::ops::rms_norm;

const EPS: f32 = 1.192_092_9e-7;
const SHAPES: [(usize, usize); 8] = [(1, 1), (5, 1), (1, 17), (19, 16), (7, 65), (67, 300), (259, 64), (3, 1031)];

struct Oracle {
    y: Vec<f64>,
    rstd: Vec<f64>,
}

fn forward(x: &[f64], w: &[f64], eps: f64) -> Oracle {
    let mut oracle = Oracle { y: Vec::new(), rstd: Vec::new() };
    for row in x.chunks(w.len()) {
        let mean = row.iter().map(|v| v * v).sum::<f64>() / w.len() as f64;
        let rstd = 1.0 / (mean + eps).sqrt();
        oracle.rstd.push(rstd);
        oracle.y.extend(row.iter().zip(w).map(|(x, w)| x * rstd * w));
    }
    oracle
}

/// The gradients of x and w, from the quotient rule written out entry by entry.
fn backward(dout: &[f64], x: &[f64], w: &[f64], eps: f64) -> (Vec<f64>, Vec<f64>) {
    let c = w.len();
    let (mut dx, mut dw) = (Vec::new(), vec![0.0; c]);
    for (d, x) in dout.chunks(c).zip(x.chunks(c)) {
        let s = (x.iter().map(|v| v * v).sum::<f64>() / c as f64 + eps).sqrt();
        let inner: f64 = (0..c).map(|j| d[j] * w[j] * x[j]).sum();
        dx.extend((0..c).map(|i| d[i] * w[i] / s - inner * x[i] / (c as f64 * s * s * s)));
        (0..c).for_each(|i| dw[i] += d[i] * x[i] / s);
    }
    (dx, dw)
}

#[test]
fn agrees_forward_and_backward() {
    let mut rng = rng(11);
    let devices = kernels();
    for (rows, c) in SHAPES {
        let (mut x, w, dout) = (normal(&mut rng, rows * c), normal(&mut rng, c), normal(&mut rng, rows * c));
        x[..c].iter_mut().for_each(|v| *v *= 0.1);
        let want = forward(&wide(&x), &wide(&w), f64::from(EPS));
        let (want_dx, want_dw) = backward(&wide(&dout), &wide(&x), &wide(&w), f64::from(EPS));
        for device in &devices {
            let shape = [1, rows, c];
            let (x, w, dout) = (put(device, &shape, &x), put(device, &[c], &w), put(device, &shape, &dout));
            let got = rms_norm::forward(&x, &w, EPS).unwrap();
            assert_eq!((got.y.shape(), got.rstd.shape()), (&shape[..], &[rows][..]));
            assert_close("y", &got.y.read().unwrap(), &want.y, 1e-6);
            assert_close("rstd", &got.rstd.read().unwrap(), &want.rstd, 1e-6);
            let dx = rms_norm::backward_input(&dout, &x, &w, &got.rstd).unwrap();
            assert_eq!(dx.shape(), shape);
            assert_close("dx", &dx.read().unwrap(), &want_dx, 2e-6);
            let dw = rms_norm::backward_weight(&dout, &x, &got.rstd).unwrap();
            assert_eq!(dw.shape(), [c]);
            assert_close("dw", &dw.read().unwrap(), &want_dw, 2e-6);

            let again = rms_norm::forward(&x, &w, EPS).unwrap();
            assert_eq!(again.y.read().unwrap(), got.y.read().unwrap());
            let dx2 = rms_norm::backward_input(&dout, &x, &w, &got.rstd).unwrap();
            assert_eq!(dx2.read().unwrap(), dx.read().unwrap());
            let dw2 = rms_norm::backward_weight(&dout, &x, &got.rstd).unwrap();
            assert_eq!(dw2.read().unwrap(), dw.read().unwrap());
        }
    }
}

#[test]
fn gradients_are_those_of_central_differences() {
    let (rows, c, eps) = (3, 5, 0.1f32);
    let mut rng = rng(12);
    let (x, w, dout) = (normal(&mut rng, rows * c), normal(&mut rng, c), normal(&mut rng, rows * c));
    let (x64, w64, d64) = (wide(&x), wide(&w), wide(&dout));
    let dx = central_differences(&x64, 1e-5, |x| dot(&forward(x, &w64, f64::from(eps)).y, &d64));
    let dw = central_differences(&w64, 1e-5, |w| dot(&forward(&x64, w, f64::from(eps)).y, &d64));
    for device in kernels() {
        let (x, w, dout) = (put(&device, &[rows, c], &x), put(&device, &[c], &w), put(&device, &[rows, c], &dout));
        let rstd = rms_norm::forward(&x, &w, eps).unwrap().rstd;
        assert_close("dx", &rms_norm::backward_input(&dout, &x, &w, &rstd).unwrap().read().unwrap(), &dx, 1e-6);
        assert_close("dw", &rms_norm::backward_weight(&dout, &x, &rstd).unwrap().read().unwrap(), &dw, 1e-6);
    }
}

#[test]
fn rows_of_zeros_stay_zeros() {
    for device in kernels() {
        let (x, w) = (put(&device, &[3, 70], &[0.0; 210]), put(&device, &[70], &[2.0; 70]));
        let dout = put(&device, &[3, 70], &[0.5; 210]);
        let got = rms_norm::forward(&x, &w, EPS).unwrap();
        assert_eq!(got.y.read().unwrap(), [0.0; 210]);
        let scale = 1.0 / f64::from(EPS).sqrt();
        assert_close("rstd", &got.rstd.read().unwrap(), &[scale; 3], 1e-6);
        let dx = rms_norm::backward_input(&dout, &x, &w, &got.rstd).unwrap();
        assert_close("dx", &dx.read().unwrap(), &[scale; 210], 1e-6);
        assert_eq!(rms_norm::backward_weight(&dout, &x, &got.rstd).unwrap().read().unwrap(), [0.0; 70]);
    }
}

#[test]
fn no_rows_are_no_trouble() {
    for device in kernels() {
        let (x, w) = (put(&device, &[0, 3], &[]), put(&device, &[3], &[1.0; 3]));
        let got = rms_norm::forward(&x, &w, EPS).unwrap();
        assert_eq!(got.y.shape(), [0, 3]);
        assert!(rms_norm::backward_input(&x, &x, &w, &got.rstd).unwrap().is_empty());
        assert_eq!(rms_norm::backward_weight(&x, &x, &got.rstd).unwrap().read().unwrap(), [0.0; 3]);
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    for device in kernels() {
        let t = |shape: &[usize]| put(&device, shape, &vec![1.0; shape.iter().product()]);
        let (x, w, r) = (t(&[2, 3]), t(&[3]), t(&[2]));
        assert!(rms_norm::forward(&x, &t(&[2]), EPS).unwrap_err().to_string().contains("weight is [2]"));
        assert!(rms_norm::forward(&t(&[2, 0]), &t(&[0]), EPS).unwrap_err().to_string().contains("[2, 0]"));
        assert!(rms_norm::backward_input(&t(&[3, 2]), &x, &w, &r).unwrap_err().to_string().contains("dout is [3, 2]"));
        assert!(rms_norm::backward_input(&x, &x, &w, &t(&[3])).unwrap_err().to_string().contains("rstd is [3]"));
        assert!(rms_norm::backward_weight(&w, &x, &r).unwrap_err().to_string().contains("dout is [3]"));
    }
}

#[test]
fn a_row_whose_squares_overflow_is_not_finite() {
    for device in kernels() {
        let (x, w) = (put(&device, &[2, 3], &[1.0, 1e30, 2.0, 1.0, 1e3, 2.0]), put(&device, &[3], &[1.0; 3]));
        let y = rms_norm::forward(&x, &w, EPS).unwrap().y.read().unwrap();
        assert!(y[..3].iter().all(|v| !v.is_finite()), "{y:?} on {}", device.describe());
        assert!(y[3..].iter().all(|v| v.is_finite()), "{y:?} on {}", device.describe());
    }
}
