use crate::common::{assert_close, kernels, normal, put, rng, wide};
use gossamer::ops::adam::{self, Settings};

const SETTINGS: Settings = Settings { lr: 0.0128, beta1: 0.9, beta2: 0.95, eps: 0.1, step: 1, decay: 0.0 };

/// The textbook, in float64.
fn textbook(w: &mut f64, g: f64, m: &mut f64, v: &mut f64, s: &Settings) {
    let (beta1, beta2) = (f64::from(s.beta1), f64::from(s.beta2));
    *m = beta1 * *m + (1.0 - beta1) * g;
    *v = beta2 * *v + (1.0 - beta2) * g * g;
    let (first, second) = (*m / (1.0 - beta1.powi(s.step as i32)), *v / (1.0 - beta2.powi(s.step as i32)));
    *w -= f64::from(s.lr) * first / (second.sqrt() + f64::from(s.eps));
    *w -= f64::from(s.decay) * *w;
}

#[test]
fn several_steps_follow_the_textbook() {
    let mut rng = rng(1);
    for device in kernels() {
        for (n, eps, decay, scaled) in [(1, 0.1, 0.0, true), (257, 1e-8, 0.01, false), (20_001, 0.1, 0.1, true)] {
            let start = normal(&mut rng, n);
            let mut w = put(&device, &[n], &start);
            let mut m = device.zeros("m", &[n]).unwrap();
            let mut v = device.zeros("v", &[n]).unwrap();
            let (mut want_w, mut want_m, mut want_v) = (wide(&start), vec![0.0; n], vec![0.0; n]);
            for step in 1..=4 {
                let settings = Settings { eps, decay, step, lr: 0.05 / step as f32, ..SETTINGS };
                let grad = normal(&mut rng, n);
                let scale = 0.25 * step as f32;
                let factor = put(&device, &[2], &[scale, 99.0]);
                let grad_here = put(&device, &[n], &grad);
                adam::apply(&mut w, &grad_here, &mut m, &mut v, scaled.then_some(&factor), &settings).unwrap();
                for i in 0..n {
                    let g = f64::from(grad[i]) * if scaled { f64::from(scale) } else { 1.0 };
                    textbook(&mut want_w[i], g, &mut want_m[i], &mut want_v[i], &settings);
                }
            }
            assert_close("weight", &w.read().unwrap(), &want_w, 1e-6);
            assert_close("first moment", &m.read().unwrap(), &want_m, 3e-7);
            assert_close("second moment", &v.read().unwrap(), &want_v, 3e-7);
        }
    }
}

#[test]
fn the_first_step_moves_by_the_learning_rate_and_decay_comes_after() {
    for device in kernels() {
        let settings = Settings { eps: 0.0, lr: 0.125, decay: 0.5, ..SETTINGS };
        let mut w = put(&device, &[2], &[1.0, 1.0]);
        let (mut m, mut v) = (put(&device, &[2], &[0.0; 2]), put(&device, &[2], &[0.0; 2]));
        adam::apply(&mut w, &put(&device, &[2], &[3.0, -0.01]), &mut m, &mut v, None, &settings).unwrap();
        assert_close("weight", &w.read().unwrap(), &[0.875 / 2.0, 1.125 / 2.0], 1e-6);
    }
}

#[test]
fn late_steps_need_no_correction_and_repeat_to_the_bit() {
    for device in kernels() {
        let settings = Settings { step: 10_000_000_000, ..SETTINGS };
        let run = || {
            let mut w = put(&device, &[300], &vec![0.5; 300]);
            let (mut m, mut v) = (put(&device, &[300], &vec![0.1; 300]), put(&device, &[300], &vec![0.04; 300]));
            adam::apply(&mut w, &put(&device, &[300], &vec![0.1; 300]), &mut m, &mut v, None, &settings).unwrap();
            w.read().unwrap()
        };
        let want = 0.5 - 0.0128 * 0.1 / ((0.95 * 0.04 + 0.05 * 0.01f64).sqrt() + 0.1);
        assert_close("weight", &run(), &vec![want; 300], 1e-6);
        assert_eq!(run(), run());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for device in kernels() {
        let tensor = |n: usize| put(&device, &[n], &vec![0.0; n]);
        let apply = |g, m, v, factor: Option<usize>, settings| {
            let factor = factor.map(&tensor);
            adam::apply(&mut tensor(2), &tensor(g), &mut tensor(m), &mut tensor(v), factor.as_ref(), &settings)
        };
        assert!(apply(2, 2, 2, Some(1), SETTINGS).is_ok());
        assert!(apply(3, 2, 2, None, SETTINGS).is_err());
        assert!(apply(2, 3, 2, None, SETTINGS).is_err());
        assert!(apply(2, 2, 3, None, SETTINGS).is_err());
        assert!(apply(2, 2, 2, Some(0), SETTINGS).is_err());
        assert!(apply(2, 2, 2, None, Settings { step: 0, ..SETTINGS }).is_err());
        assert!(apply(2, 2, 2, None, Settings { beta2: 1.0, ..SETTINGS }).is_err());
        assert!(apply(0, 2, 2, None, SETTINGS).is_err());
    }
}
