use crate::common::{assert_close, central_differences, dot, kernels, normal, put, rng, wide};
use gossamer::ops::gelu_tanh;
use gossamer::tape::Tape;
use std::f64::consts::PI;

fn tanh_of(x: f64) -> f64 {
    ((2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + tanh_of(x))
}

/// -12 to 12 in steps of a thousandth, and the ends of the range.
fn grid() -> Vec<f32> {
    let mut x: Vec<f32> = (-12_000..=12_000).map(|i| i as f32 * 1e-3).collect();
    for end in [0.0, 1e-38, 1e-30, 1e-10, 1e-4, 9.999, 10.0, 13.5, 20.0, 100.0, 1e10, 1e20, 1e30, f32::MAX] {
        x.extend([end, -end]);
    }
    x
}

#[test]
fn values_are_those_of_pytorch() {
    // torch.nn.functional.gelu(x, approximate="tanh") in float64.
    let x = [-3.0, -1.0, -0.5, 0.25, 1.0, 2.0, 4.0];
    let want = [
        -0.0036373920817729943,
        -0.15880800939172324,
        -0.15428599017485606,
        0.149675350701685,
        0.8411919906082768,
        1.954597694087775,
        3.9999297540518075,
    ];
    for (x, want) in x.into_iter().zip(want) {
        assert!((gelu(x) - want).abs() < 1e-9, "{x}: {} instead of {want}", gelu(x));
    }
    for device in kernels() {
        let x = put(&device, &[x.len()], &x.map(|x| x as f32));
        assert_close("values", &gelu_tanh::forward(&x).unwrap().read().unwrap(), &want, 2e-7);
    }
}

#[test]
fn the_factor_is_within_two_ten_millionths_everywhere() {
    let x = grid();
    for device in kernels() {
        let input = put(&device, &[x.len()], &x);
        let y = gelu_tanh::forward(&input).unwrap().read().unwrap();
        for (&x, &y) in x.iter().zip(&y) {
            let (wide, allowed) = (f64::from(x), 2e-7 * f64::from(x).abs() + 1e-38);
            assert!((f64::from(y) - gelu(wide)).abs() <= allowed, "{x} on {}: {y}", device.describe());
        }
        let end = |x: f32| y[grid().iter().position(|&v| v == x).unwrap()];
        assert_eq!((end(f32::MAX), end(f32::MIN), end(20.0), end(-20.0)), (f32::MAX, 0.0, 20.0, 0.0));
    }
}

#[test]
fn the_slope_is_right_everywhere() {
    let x = grid();
    for device in kernels() {
        let input = put(&device, &[x.len()], &x);
        let ones = put(&device, &[x.len()], &vec![1.0; x.len()]);
        let slope = gelu_tanh::backward(&ones, &input).unwrap().read().unwrap();
        for (&x, &slope) in x.iter().zip(&slope) {
            let v = f64::from(x).clamp(-30.0, 30.0);
            let inner = (2.0 / PI).sqrt() * (1.0 + 3.0 * 0.044715 * v * v);
            let want = 0.5 * (1.0 + tanh_of(v)) + 0.5 * v * (1.0 - tanh_of(v).powi(2)) * inner;
            assert!((f64::from(slope) - want).abs() < 1e-6, "{x} on {}: {slope} against {want}", device.describe());
        }
    }
}

#[test]
fn gradients_on_the_tape_agree_with_differences_of_the_oracle() {
    let mut rng = rng(42);
    for device in kernels() {
        for shape in [vec![1], vec![3, 1], vec![2, 3, 43]] {
            let n: usize = shape.iter().product();
            let (x, dout) = (normal(&mut rng, n), normal(&mut rng, n));
            let weights = wide(&dout);
            let f = |x: &[f64]| dot(&weights, &x.iter().map(|&x| gelu(x)).collect::<Vec<_>>());
            let want = central_differences(&wide(&x), 1e-5, f);
            let (x, dout) = (put(&device, &shape, &x), put(&device, &shape, &dout));
            let mut tape = Tape::new();
            let leaf = tape.leaf(x);
            let y = tape.gelu_tanh(&leaf).unwrap();
            assert_eq!(y.value().shape(), shape);
            tape.backward(&y, dout).unwrap();
            let dx = tape.take_gradient(&leaf).unwrap();
            assert_eq!(dx.shape(), shape);
            assert_close("backward", &dx.read().unwrap(), &want, 1e-6);
        }
    }
}

#[test]
fn different_shapes_are_refused() {
    for device in kernels() {
        let (a, b) = (put(&device, &[2], &[1.0, 2.0]), put(&device, &[1, 2], &[1.0, 2.0]));
        assert!(gelu_tanh::backward(&a, &b).unwrap_err().to_string().contains("gelu_tanh"));
    }
}
