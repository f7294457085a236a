use crate::common::{assert_close, central_differences, kernels, normal, put, rng, wide};
use gossamer::ops::logit_diff::{self, TokenPairs};

#[test]
fn differences_and_their_gradient() {
    let mut rng = rng(8);
    for device in kernels() {
        let shape = [3, 4, 7];
        let logits = normal(&mut rng, 84);
        let at = [(3, 6, 0), (0, 1, 2), (2, 5, 5)];
        let choices = TokenPairs::new(&device, shape, &at).unwrap();
        let place = |b: usize, t: usize, v: u32| (b * 4 + t) * 7 + v as usize;
        let difference = |x: &[f64]| -> Vec<f64> {
            at.iter().enumerate().map(|(b, &(t, r, w))| x[place(b, t, r)] - x[place(b, t, w)]).collect()
        };
        let z = logit_diff::forward(&put(&device, &shape, &logits), &choices).unwrap();
        assert_close("forward", &z.read().unwrap(), &difference(&wide(&logits)), 1e-7);
        let dz = [0.5, -2.0, 3.0];
        let sum = |x: &[f64]| difference(x).iter().zip(dz).map(|(z, d)| z * d).sum();
        let want = central_differences(&wide(&logits), 1e-3, sum);
        let got = logit_diff::backward(&put(&device, &[3], &dz.map(|d| d as f32)), &choices).unwrap();
        assert_eq!(got.shape(), shape);
        assert_close("backward", &got.read().unwrap(), &want, 1e-6);
    }
}

#[test]
fn the_loss_is_that_of_a_softmax_over_two() {
    for z in [-3.0, -0.1, 0.0, 0.7, 12.0] {
        let (loss, slope) = logit_diff::loss(z);
        let (right, wrong) = (f64::exp(z), 1.0);
        assert!((loss + (right / (right + wrong)).ln()).abs() < 1e-12);
        let difference = (logit_diff::loss(z + 1e-6).0 - logit_diff::loss(z - 1e-6).0) / 2e-6;
        assert!((slope + difference).abs() < 1e-8, "{z}");
    }
    assert_eq!(logit_diff::loss(1e6), (0.0, 0.0));
    assert_eq!(logit_diff::loss(-1e6), (1e6, 1.0));
}

#[test]
fn choices_outside_the_logits_are_refused() {
    for device in kernels() {
        for bad in [vec![], vec![(4, 0, 1)], vec![(0, 7, 1)], vec![(0, 0, 7)], vec![(0, 0, 1); 2]] {
            assert!(TokenPairs::new(&device, [1, 4, 7], &bad).is_err(), "{bad:?}");
        }
        let choices = TokenPairs::new(&device, [1, 4, 7], &[(0, 0, 1)]).unwrap();
        assert!(logit_diff::forward(&put(&device, &[1, 4, 6], &[0.0; 24]), &choices).is_err());
        assert!(logit_diff::backward(&put(&device, &[2], &[0.0; 2]), &choices).is_err());
    }
}
