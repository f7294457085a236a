use crate::common::{assert_close, central_differences, dot, kernels, normal, put, rng, wide};
use gossamer::ops::gelu;
use std::f64::consts::{PI, SQRT_2};

/// The error function, from its power series near zero and from the continued fraction of its
/// complement far out.
fn erf(x: f64) -> f64 {
    if x.abs() < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * 2.0 / PI.sqrt();
    }
    let a = x.abs();
    let fraction = (1..=120).rev().fold(a, |tail, n| a + f64::from(n) / 2.0 / tail);
    x.signum() * (1.0 - (-a * a).exp() / fraction / PI.sqrt())
}

fn cdf(x: f64) -> f64 {
    0.5 * (1.0 + erf(x / SQRT_2))
}

/// -12 to 12 in steps of a thousandth, and the ends of the range.
fn grid() -> Vec<f32> {
    let mut x: Vec<f32> = (-12_000..=12_000).map(|i| i as f32 * 1e-3).collect();
    for end in [0.0, 1e-38, 1e-30, 1e-10, 1e-4, 13.0, 13.5, 14.5, 20.0, 100.0, 1e10, 1e20, 1e30] {
        x.extend([end, -end]);
    }
    x
}

#[test]
fn the_oracle_knows_published_values() {
    // Abramowitz and Stegun, table 7.1.
    for (x, want) in [(0.5, 0.5204998778), (1.0, 0.8427007929), (2.0, 0.9953222650), (3.0, 0.9999779095)] {
        assert!((erf(x) - want).abs() < 1e-10 && (erf(-x) + want).abs() < 1e-10, "{x}");
    }
    assert!((erf(2.5 - 1e-12) - erf(2.5 + 1e-12)).abs() < 1e-12);
}

#[test]
fn the_distribution_function_is_within_a_ten_millionth() {
    let x = grid();
    for device in kernels() {
        // WGSL lets a driver's exp be off by several units in the last place.
        let precision = if device.is_cpu() { 1.2e-7 } else { 2e-7 };
        let input = put(&device, &[x.len()], &x);
        let y = gelu::forward(&input).unwrap().read().unwrap();
        for (&x, &y) in x.iter().zip(&y) {
            let want = f64::from(x) * cdf(f64::from(x));
            let allowed = precision * f64::from(x).abs() + 1e-38;
            assert!((f64::from(y) - want).abs() <= allowed, "{x} on {}: {y} against {want}", device.describe());
        }
        let end = |x: f32| y[grid().iter().position(|&v| v == x).unwrap()];
        assert_eq!((end(1e30), end(-1e30), end(20.0), end(-20.0)), (1e30, 0.0, 20.0, 0.0));
    }
}

#[test]
fn the_slope_is_right_everywhere() {
    let x = grid();
    for device in kernels() {
        let input = put(&device, &[x.len()], &x);
        let ones = put(&device, &[x.len()], &vec![1.0; x.len()]);
        let slope = gelu::backward(&ones, &input).unwrap().read().unwrap();
        for (&x, &slope) in x.iter().zip(&slope) {
            let v = f64::from(x);
            let want = cdf(v) + v * (-0.5 * v * v).exp() / (2.0 * PI).sqrt();
            assert!((f64::from(slope) - want).abs() < 3e-7, "{x} on {}: {slope} against {want}", device.describe());
        }
    }
}

#[test]
fn backward_agrees_with_differences_of_the_oracle() {
    let mut rng = rng(42);
    for device in kernels() {
        for shape in [vec![1], vec![3, 1], vec![2, 3, 43]] {
            let n: usize = shape.iter().product();
            let (x, dout) = (normal(&mut rng, n), normal(&mut rng, n));
            let weights = wide(&dout);
            let f = |x: &[f64]| dot(&weights, &x.iter().map(|&x| x * cdf(x)).collect::<Vec<_>>());
            let want = central_differences(&wide(&x), 1e-5, f);
            let (x, dout) = (put(&device, &shape, &x), put(&device, &shape, &dout));
            let dx = gelu::backward(&dout, &x).unwrap();
            assert_eq!(dx.shape(), shape);
            assert_close("backward", &dx.read().unwrap(), &want, 1e-6);
        }
    }
}

#[test]
fn different_shapes_are_refused() {
    for device in kernels() {
        let (a, b) = (put(&device, &[2], &[1.0, 2.0]), put(&device, &[1, 2], &[1.0, 2.0]));
        assert!(gelu::backward(&a, &b).unwrap_err().to_string().contains("gelu"));
    }
}
