use crate::common::{assert_close, kernels, normal, put, rng, wide};
use gossamer::ops::affine;

#[test]
fn values_and_gradient() {
    let mut rng = rng(5);
    for device in kernels() {
        for shape in [vec![1], vec![2, 3, 85], vec![40_001]] {
            let n: usize = shape.iter().product();
            let [x, scale, shift] = [(); 3].map(|()| normal(&mut rng, n));
            let (wx, ws, wt) = (wide(&x), wide(&scale), wide(&shift));
            let want: Vec<f64> = (0..n).map(|i| ws[i] * wx[i] + wt[i]).collect();
            let gradient: Vec<f64> = (0..n).map(|i| ws[i] * wx[i]).collect();
            let [x, scale, shift] = [x, scale, shift].map(|data| put(&device, &shape, &data));
            assert_close("forward", &affine::forward(&x, &scale, &shift).unwrap().read().unwrap(), &want, 1e-6);
            assert_close("backward", &affine::backward(&x, &scale).unwrap().read().unwrap(), &gradient, 1e-6);
        }
    }
}

#[test]
fn setting_and_keeping_are_exact() {
    for device in kernels() {
        let x = put(&device, &[4], &[0.1, -7.25, 3e30, 1e-30]);
        let (scale, shift) = (put(&device, &[4], &[1.0, 0.0, 0.0, 1.0]), put(&device, &[4], &[0.0, 0.3, 0.0, 0.0]));
        assert_eq!(affine::forward(&x, &scale, &shift).unwrap().read().unwrap(), [0.1, 0.3, 0.0, 1e-30]);
    }
}

#[test]
fn other_shapes_are_refused() {
    for device in kernels() {
        let (a, b) = (put(&device, &[2], &[1.0; 2]), put(&device, &[3], &[1.0; 3]));
        assert!(affine::forward(&a, &a, &b).is_err());
        assert!(affine::forward(&a, &b, &a).is_err());
        assert!(affine::backward(&a, &b).is_err());
    }
}
