use crate::common::{assert_close, central_differences, dot, kernels, normal, put, rng, wide};
use gossamer::ops::threshold::{backward_input, backward_log_eps, forward};
use gossamer::tape::Tape;

/// Rows and channels, and the sharpness.
const CASES: [(usize, usize, f32); 5] = [(1, 1, 1.0), (3, 5, 4.0), (64, 70, 1.0), (130, 257, 20.0), (700, 3, 0.5)];

fn hard(z: &[f64], log_eps: &[f64]) -> Vec<f64> {
    let keep = |(i, z): (usize, &f64)| if z.abs() >= log_eps[i % log_eps.len()].exp() { *z } else { 0.0 };
    z.iter().enumerate().map(keep).collect()
}

fn soft(z: &[f64], log_eps: &[f64], sharpness: f64) -> Vec<f64> {
    let gate = |z: f64, log_eps: f64| 1.0 / (1.0 + (-sharpness * (z.abs() - log_eps.exp())).exp());
    z.iter().enumerate().map(|(i, z)| z * gate(*z, log_eps[i % log_eps.len()])).collect()
}

#[test]
fn values_of_every_size_agree_with_the_oracle() {
    let mut rng = rng(31);
    for device in kernels() {
        for (rows, width, sharpness) in CASES {
            let (z, log_eps) = (normal(&mut rng, rows * width), normal(&mut rng, width));
            let (z_in, eps_in) = (put(&device, &[rows, 1, width], &z), put(&device, &[width], &log_eps));
            let y = forward(&z_in, &eps_in, None).unwrap();
            assert_eq!(y.shape(), [rows, 1, width]);
            assert_close("hard", &y.read().unwrap(), &hard(&wide(&z), &wide(&log_eps)), 0.0);
            let y = forward(&z_in, &eps_in, Some(sharpness)).unwrap().read().unwrap();
            assert_close("soft", &y, &soft(&wide(&z), &wide(&log_eps), sharpness.into()), 1e-5);
        }
    }
}

/// Through the tape, so that its rule is compared too.
#[test]
fn gradients_agree_with_differences_of_the_oracle() {
    let mut rng = rng(32);
    for device in kernels() {
        for (rows, width, sharpness) in [(1, 1, 1.0f32), (70, 3, 1.0), (5, 7, 9.0)] {
            let (z, log_eps) = (normal(&mut rng, rows * width), normal(&mut rng, width));
            let dout = normal(&mut rng, rows * width);
            let value = |z: &[f64], log_eps: &[f64]| dot(&soft(z, log_eps, sharpness.into()), &wide(&dout));
            let want_z = central_differences(&wide(&z), 1e-6, |z| value(z, &wide(&log_eps)));
            let want_eps = central_differences(&wide(&log_eps), 1e-6, |log_eps| value(&wide(&z), log_eps));
            let mut tape = Tape::new();
            let z = tape.leaf(put(&device, &[rows, width], &z));
            let log_eps = tape.leaf(put(&device, &[width], &log_eps));
            let y = tape.threshold(&z, &log_eps, Some(sharpness)).unwrap();
            tape.backward(&y, put(&device, &[rows, width], &dout)).unwrap();
            assert_close("z", &tape.take_gradient(&z).unwrap().read().unwrap(), &want_z, 1e-5);
            assert_close("log_eps", &tape.take_gradient(&log_eps).unwrap().read().unwrap(), &want_eps, 1e-5);
        }
    }
}

#[test]
fn hard_thresholds_pass_gradients_of_what_they_keep_and_do_not_learn() {
    for device in kernels() {
        let mut tape = Tape::new();
        let z = tape.leaf(put(&device, &[2, 2], &[0.5, -3.0, -1.0, 0.99]));
        let log_eps = tape.leaf(put(&device, &[2], &[-1.0, 0.0]));
        let y = tape.threshold(&z, &log_eps, None).unwrap();
        assert_eq!(y.value().read().unwrap(), [0.5, -3.0, -1.0, 0.0]);
        tape.backward(&y, put(&device, &[2, 2], &[1.0, 2.0, 3.0, 4.0])).unwrap();
        assert_eq!(tape.take_gradient(&z).unwrap().read().unwrap(), [1.0, 2.0, 3.0, 0.0]);
        assert!(tape.take_gradient(&log_eps).is_none());
    }
}

#[test]
fn large_entries_thresholds_and_sharpness_do_not_overflow() {
    for device in kernels() {
        let z = put(&device, &[1, 6], &[3e38, -3e38, 1e30, 0.0, 3e38, -1e-30]);
        let log_eps = put(&device, &[6], &[0.0, 1e4, -1e4, -1e30, 60.0, 0.0]);
        let ones = put(&device, &[1, 6], &[1.0; 6]);
        let kept = [3e38, -3e38, 1e30, 0.0, 3e38, 0.0];
        assert_eq!(forward(&z, &log_eps, None).unwrap().read().unwrap(), kept);
        for sharpness in [1e-3, 1.0, 1e6] {
            let y = forward(&z, &log_eps, Some(sharpness)).unwrap().read().unwrap();
            assert!(y.iter().all(|y| y.is_finite()), "{y:?}");
            assert_eq!(y[..3], kept[..3]);
            let dz = backward_input(&ones, &z, &log_eps, Some(sharpness)).unwrap().read().unwrap();
            assert_eq!(dz[..3], [1.0; 3]);
            let dlog_eps = backward_log_eps(&ones, &z, &log_eps, sharpness).unwrap().read().unwrap();
            assert!(dz.iter().chain(&dlog_eps).all(|d| d.is_finite()), "{dz:?} {dlog_eps:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for device in kernels() {
        let (z, log_eps) = (put(&device, &[2, 2], &[0.0; 4]), put(&device, &[3], &[0.0; 3]));
        let fits = put(&device, &[2], &[0.0; 2]);
        assert!(forward(&z, &log_eps, None).unwrap_err().to_string().contains("log_eps is [3], expected [2]"));
        assert!(backward_input(&fits, &z, &fits, None).is_err());
        assert!(backward_log_eps(&fits, &z, &fits, 1.0).is_err());
        for sharpness in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(forward(&z, &fits, Some(sharpness)).unwrap_err().to_string().contains("sharpness"));
        }
        assert_eq!(forward(&put(&device, &[0, 2], &[]), &fits, Some(1.0)).unwrap().shape(), [0, 2]);
    }
}
