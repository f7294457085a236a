use crate::common::{assert_close, devices, dot, normal, put, rng, wide};
use gossamer::ops::rows::{concat, slice};
use gossamer::tape::Tape;

#[test]
fn parts_lie_one_after_the_other_and_come_apart_again() {
    let mut rng = rng(61);
    let devices = devices();
    for (counts, inner) in [(vec![1], 1), (vec![2, 1], 3), (vec![67, 300, 2], 35), (vec![3, 0, 4], 259)] {
        let parts: Vec<_> = counts.iter().map(|n| normal(&mut rng, n * inner)).collect();
        for device in &devices {
            let there: Vec<_> = parts.iter().zip(&counts).map(|(p, &n)| put(device, &[n, 1, inner], p)).collect();
            let whole = concat(&there.iter().collect::<Vec<_>>()).unwrap();
            assert_eq!(whole.shape(), [counts.iter().sum(), 1, inner]);
            assert_eq!(whole.read().unwrap(), parts.concat());
            let mut start = 0;
            for (part, &n) in parts.iter().zip(&counts) {
                let got = slice(&whole, start, n).unwrap();
                assert_eq!((got.shape(), &got.read().unwrap()), (&[n, 1, inner][..], part));
                start += n;
            }
        }
    }
}

/// Gradients of parts are the parts of the gradient; of one that is there repeatedly, their sum.
#[test]
fn gradients_go_back_to_their_parts() {
    let mut rng = rng(62);
    let (a, b, weights) = (normal(&mut rng, 6), normal(&mut rng, 3), normal(&mut rng, 15));
    let sum = |a: &[f64], b: &[f64]| dot(&[a, b, a].concat(), &wide(&weights));
    let want_a = crate::common::central_differences(&wide(&a), 1e-3, |a| sum(a, &wide(&b)));
    let want_b = crate::common::central_differences(&wide(&b), 1e-3, |b| sum(&wide(&a), b));
    for device in devices() {
        let mut tape = Tape::new();
        let (va, vb) = (tape.leaf(put(&device, &[2, 3], &a)), tape.leaf(put(&device, &[1, 3], &b)));
        let whole = tape.stack(&[&va, &vb, &va]).unwrap();
        tape.backward(&whole, put(&device, &[5, 3], &weights)).unwrap();
        assert_close("twice", &tape.take_gradient(&va).unwrap().read().unwrap(), &want_a, 1e-6);
        assert_close("once", &tape.take_gradient(&vb).unwrap().read().unwrap(), &want_b, 1e-6);
    }
}

#[test]
fn ranges_and_parts_that_do_not_fit_are_refused() {
    for device in devices() {
        let (x, y) = (put(&device, &[2, 3], &[1.0; 6]), put(&device, &[3, 2], &[1.0; 6]));
        for (start, len) in [(0, 3), (2, 1), (3, 0), (usize::MAX, 2)] {
            let message = slice(&x, start, len).unwrap_err().to_string();
            assert!(message.contains("rows") && message.contains("[2, 3]"), "{message}");
        }
        assert!(concat(&[]).is_err());
        assert!(concat(&[&x, &y]).unwrap_err().to_string().contains("[[2, 3], [3, 2]]"));
        let number = put(&device, &[], &[1.0]);
        assert!(concat(&[&number]).is_err() && slice(&number, 0, 1).is_err());
    }
}
