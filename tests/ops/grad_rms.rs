use crate::common::{assert_close, kernels, normal, put, rng, wide};
use gossamer::ops::grad_rms::{self, Rule};

#[test]
fn sums_of_squares_fill_their_slots() {
    let mut rng = rng(1);
    for device in kernels() {
        let sizes = [1usize, 3, 255, 257, 4097, 70_001];
        let mut sums = put(&device, &[sizes.len() + 1], &[7.0; 7]);
        let mut want = vec![];
        for (slot, &n) in sizes.iter().enumerate() {
            let x = normal(&mut rng, n);
            want.push(wide(&x).iter().map(|x| x * x).sum::<f64>());
            grad_rms::square_sum(&put(&device, &[n], &x), &mut sums, slot).unwrap();
        }
        let got = sums.read().unwrap();
        for (got, want) in got.iter().zip(&want) {
            assert!((f64::from(*got) / want - 1.0).abs() < 5e-7, "{got} against {want}");
        }
        assert_eq!(got[6], 7.0, "no tensor used the last slot");
    }
}

#[test]
fn millions_of_entries_lose_nothing() {
    let n = 4 << 20;
    let mut rng = rng(2);
    let x: Vec<f32> = normal(&mut rng, n / 16).iter().flat_map(|&x| [x * 1e-4; 16]).collect();
    let want: f64 = wide(&x).iter().map(|x| x * x).sum();
    for device in kernels() {
        let x = put(&device, &[2, n / 2], &x);
        let mut sums = put(&device, &[2], &[0.0; 2]);
        grad_rms::square_sum(&x, &mut sums, 0).unwrap();
        grad_rms::square_sum(&x, &mut sums, 1).unwrap();
        let got = sums.read().unwrap();
        assert!((f64::from(got[0]) / want - 1.0).abs() < 1e-6, "{} against {want}", got[0]);
        assert_eq!(got[0].to_bits(), got[1].to_bits());
    }
}

#[test]
fn factors_follow_their_rules() {
    for device in kernels() {
        for (sums, numel) in
            [(vec![3.0f32, 1.0, 12.0], 4), (vec![0.5], 50), (vec![0.0, 0.0], 10), (vec![0.25; 2000], 7)]
        {
            let rms = (sums.iter().map(|&s| f64::from(s)).sum::<f64>() / numel as f64).sqrt();
            let sums = put(&device, &[sums.len()], &sums);
            for (rule, want) in
                [(Rule::Normalize, 1.0 / (rms + 1e-5)), (Rule::Clip, 1.0 / rms.max(1.0)), (Rule::None, 1.0)]
            {
                let got = grad_rms::factor(&sums, numel, rule).unwrap();
                assert_eq!(got.shape(), [2]);
                assert_close(&format!("{rule:?} of {rms}"), &got.read().unwrap(), &[want, rms], 1e-6);
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_visible() {
    for device in kernels() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30] {
            let mut x = vec![1e-3f32; 5000];
            x[4321] = bad;
            let mut sums = put(&device, &[1], &[0.0]);
            grad_rms::square_sum(&put(&device, &[5000], &x), &mut sums, 0).unwrap();
            assert!(!sums.read().unwrap()[0].is_finite(), "{bad} was lost");
            let factor = grad_rms::factor(&sums, 5000, Rule::Normalize).unwrap().read().unwrap();
            assert!(!factor[1].is_finite(), "{bad} was lost in the root");
        }
    }
}

#[test]
fn empty_tensors_add_nothing_and_wrong_shapes_are_refused() {
    for device in kernels() {
        let mut sums = put(&device, &[2], &[5.0, 5.0]);
        grad_rms::square_sum(&put(&device, &[0], &[]), &mut sums, 1).unwrap();
        assert_eq!(sums.read().unwrap(), [5.0, 0.0]);
        let x = put(&device, &[1], &[1.0]);
        assert!(grad_rms::square_sum(&x, &mut sums, 2).unwrap_err().to_string().contains("slot 2"));
        let mut matrix = put(&device, &[1, 2], &[0.0; 2]);
        assert!(grad_rms::square_sum(&x, &mut matrix, 0).is_err());
        assert!(grad_rms::factor(&matrix, 1, Rule::None).is_err());
        assert!(grad_rms::factor(&sums, 0, Rule::None).is_err());
    }
}
