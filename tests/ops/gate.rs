use crate::common::{assert_close, central_differences, dot, kernels, normal, put, rng, wide};
use gossamer::ops::gate;

fn slope(tau: f64, temperature: f64) -> f64 {
    let s = 1.0 / (1.0 + (-tau / temperature).exp());
    s * (1.0 - s) / temperature
}

#[test]
fn values_and_gradients_of_every_size() {
    let mut rng = rng(3);
    for device in kernels() {
        for (rows, width, temperature) in [(1, 1, 1.0), (3, 5, 0.5), (64, 70, 1.0), (130, 257, 2.0), (700, 3, 1.0)] {
            let [x, dout] = [(); 2].map(|()| normal(&mut rng, rows * width));
            let [mut tau, mean] = [(); 2].map(|()| normal(&mut rng, width));
            tau[0] = 0.0;
            let (wx, wd, wt, wm) = (wide(&x), wide(&dout), wide(&tau), wide(&mean));
            let kept = |i: usize| wt[i % width] >= 0.0;
            let y: Vec<f64> = (0..wx.len()).map(|i| if kept(i) { wx[i] } else { wm[i % width] }).collect();
            let dx: Vec<f64> = (0..wx.len()).map(|i| if kept(i) { wd[i] } else { 0.0 }).collect();
            let dtau: Vec<f64> = (0..width)
                .map(|c| {
                    let sum: f64 = (0..rows).map(|r| wd[r * width + c] * (wx[r * width + c] - wm[c])).sum();
                    sum * slope(wt[c], temperature)
                })
                .collect();
            let [x, dout] = [x, dout].map(|data| put(&device, &[rows, width], &data));
            let [tau, mean] = [tau, mean].map(|data| put(&device, &[width], &data));
            assert_close("forward", &gate::forward(&x, &tau, &mean).unwrap().read().unwrap(), &y, 0.0);
            assert_close("input", &gate::backward_input(&dout, &tau).unwrap().read().unwrap(), &dx, 0.0);
            let got = gate::backward_tau(&dout, &x, &tau, &mean, temperature as f32).unwrap().read().unwrap();
            assert_close("tau", &got, &dtau, 2e-6);
        }
    }
}

/// The rule for tau is the true gradient of the soft gate `s x + (1 − s) mean`, taken with hard
/// values elsewhere.
#[test]
fn the_rule_for_tau_is_that_of_the_soft_gate() {
    let mut rng = rng(4);
    let (rows, width) = (4, 3);
    let [x, dout] = [(); 2].map(|()| wide(&normal(&mut rng, rows * width)));
    let [tau, mean] = [(); 2].map(|()| normal(&mut rng, width));
    let soft = |tau: &[f64]| {
        let y: Vec<f64> = (0..rows * width)
            .map(|i| {
                let (s, m) = (1.0 / (1.0 + (-tau[i % width]).exp()), f64::from(mean[i % width]));
                s * x[i] + (1.0 - s) * m
            })
            .collect();
        dot(&y, &dout)
    };
    let want = central_differences(&wide(&tau), 1e-5, soft);
    for device in kernels() {
        let narrow = |data: &[f64]| data.iter().map(|&v| v as f32).collect::<Vec<_>>();
        let [x, dout] = [&x, &dout].map(|data| put(&device, &[rows, width], &narrow(data)));
        let [tau, mean] = [&tau, &mean].map(|data| put(&device, &[width], data));
        let got = gate::backward_tau(&dout, &x, &tau, &mean, 1.0).unwrap().read().unwrap();
        assert_close("tau", &got, &want, 1e-6);
    }
}

#[test]
fn extreme_gates_do_not_overflow() {
    for device in kernels() {
        let x = put(&device, &[1, 2], &[3.0, 4.0]);
        let tau = put(&device, &[2], &[-1e4, 1e4]);
        let mean = put(&device, &[2], &[1.0, 1.0]);
        assert_eq!(gate::backward_tau(&x, &x, &tau, &mean, 1.0).unwrap().read().unwrap(), [0.0, 0.0]);
    }
}

#[test]
fn other_shapes_are_refused() {
    for device in kernels() {
        let (x, tau) = (put(&device, &[2, 2], &[0.0; 4]), put(&device, &[3], &[0.0; 3]));
        assert!(gate::forward(&x, &tau, &tau).is_err());
        assert!(gate::backward_input(&x, &tau).is_err());
        assert!(gate::backward_tau(&x, &x, &tau, &tau, 1.0).is_err());
    }
}
