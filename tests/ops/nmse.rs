use crate::common::{assert_close, central_differences, kernels, normal, put, rng, wide};
use gossamer::ops::nmse;
use gossamer::tape::{Tape, Var};

/// The mean over rows of squared error over squared distance of the target from the rows' mean.
fn oracle(x: &[f64], target: &[f64], width: usize) -> f64 {
    let rows = target.len() / width;
    let mean: Vec<f64> = (0..width).map(|c| target.iter().skip(c).step_by(width).sum::<f64>() / rows as f64).collect();
    let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let row = |(x, t): (&[f64], &[f64])| square(x, t) / square(t, &mean);
    x.chunks(width).zip(target.chunks(width)).map(row).sum::<f64>() / rows as f64
}

#[test]
fn errors_agree_with_the_oracle() {
    let mut rng = rng(81);
    for device in kernels() {
        for (rows, width) in [(2, 1), (3, 5), (7, 257), (300, 17), (1000, 3)] {
            let (x, t) = (normal(&mut rng, rows * width), normal(&mut rng, rows * width));
            // A common offset, as residual streams have.
            let t: Vec<f32> = t.iter().map(|v| v + 10.0).collect();
            let shape = [rows, 1, width];
            let out = nmse::forward(&put(&device, &shape, &x), &put(&device, &shape, &t)).unwrap();
            let want = oracle(&wide(&x), &wide(&t), width);
            assert_eq!(out.loss.shape(), [1]);
            let got = f64::from(out.loss.read().unwrap()[0]);
            assert!((got - want).abs() <= 2e-5 * want, "{rows} rows of {width}: {got} instead of {want}");
        }
    }
}

#[test]
fn gradients_agree_with_differences_of_the_oracle() {
    let mut rng = rng(82);
    for device in kernels() {
        for (rows, width) in [(2, 1), (3, 5), (6, 9)] {
            let (x, t) = (normal(&mut rng, rows * width), normal(&mut rng, rows * width));
            let want = central_differences(&wide(&x), 1e-4, |x| -1.5 * oracle(x, &wide(&t), width));
            let (x, t) = (put(&device, &[rows, width], &x), put(&device, &[rows, width], &t));
            let out = nmse::forward(&x, &t).unwrap();
            let dx = nmse::backward(&put(&device, &[1], &[-1.5]), &x, &t, &out.weights).unwrap();
            assert_close("gradient", &dx.read().unwrap(), &want, 1e-5);
        }
    }
}

/// The scale is a constant, for a target that learns as well.
#[test]
fn a_target_that_learns_is_drawn_to_the_prediction() {
    let (mut rng, rows, width) = (rng(83), 6, 9);
    let (x, t) = (normal(&mut rng, rows * width), normal(&mut rng, rows * width));
    let mean: Vec<f64> =
        (0..width).map(|c| wide(&t).iter().skip(c).step_by(width).sum::<f64>() / rows as f64).collect();
    let square = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let scales: Vec<f64> = wide(&t).chunks(width).map(|t| rows as f64 * square(t, &mean)).collect();
    let error = |t: &[f64]| {
        let rows = wide(&x).chunks(width).zip(t.chunks(width)).map(|(x, t)| square(x, t)).collect::<Vec<_>>();
        rows.iter().zip(&scales).map(|(error, scale)| 0.5 * error / scale).sum()
    };
    let want = central_differences(&wide(&t), 1e-4, error);
    for device in kernels() {
        let mut tape = Tape::new();
        let (x, t) = (put(&device, &[rows, width], &x), tape.leaf(put(&device, &[rows, width], &t)));
        let loss = tape.nmse(&Var::constant(x), &t).unwrap();
        tape.backward(&loss, put(&device, &[1], &[0.5])).unwrap();
        assert_close("target", &tape.take_gradient(&t).unwrap().read().unwrap(), &want, 1e-5);
    }
}

#[test]
fn rows_at_the_mean_count_nothing() {
    for device in kernels() {
        // The mean is (0, 1): the second row is there, and only the others count, as two of three.
        let target = put(&device, &[3, 2], &[2.0, 1.0, 0.0, 1.0, -2.0, 1.0]);
        let x = put(&device, &[3, 2], &[2.0, 2.0, 5.0, 5.0, -1.0, 1.0]);
        let out = nmse::forward(&x, &target).unwrap();
        assert_close("error", &out.loss.read().unwrap(), &[(0.25 + 0.25) / 3.0], 1e-6);
        let dx = nmse::backward(&put(&device, &[1], &[6.0]), &x, &target, &out.weights).unwrap();
        assert_close("gradient", &dx.read().unwrap(), &[0.0, 1.0, 0.0, 0.0, 1.0, 0.0], 1e-6);

        let equal = put(&device, &[3, 2], &[0.3; 6]);
        assert_eq!(nmse::forward(&x, &equal).unwrap().loss.read().unwrap(), [0.0]);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for device in kernels() {
        let (x, y) = (put(&device, &[2, 3], &[1.0; 6]), put(&device, &[3, 2], &[1.0; 6]));
        assert!(nmse::forward(&x, &y).unwrap_err().to_string().contains("[2, 3]"));
        let none = put(&device, &[0, 3], &[]);
        assert!(nmse::forward(&none, &none).is_err());
        let weights = nmse::forward(&x, &x).unwrap().weights;
        assert!(nmse::backward(&put(&device, &[2], &[1.0; 2]), &x, &x, &weights).is_err());
        assert!(nmse::backward(&put(&device, &[1], &[1.0]), &y, &y, &weights).is_err());
    }
}
