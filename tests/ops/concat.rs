use crate::common::{assert_close, devices, dot, kernels, normal, put, rng, wide};
use gossamer::ops::concat::{self, narrow};
use gossamer::tape::Tape;

fn range(x: &[f32], whole: usize, start: usize, len: usize) -> Vec<f32> {
    x.chunks(whole).flat_map(|run| run[start..start + len].to_vec()).collect()
}

#[test]
fn narrow_takes_the_positions_asked_for() {
    let mut rng = rng(41);
    let devices = kernels();
    for (rows, width, start, len) in
        [(1, 1, 0, 1), (5, 1, 0, 1), (1, 9, 8, 1), (7, 9, 0, 9), (301, 33, 3, 17), (3, 700, 257, 300)]
    {
        for inner in [1, 3] {
            let x = normal(&mut rng, rows * width * inner);
            for device in &devices {
                let part = narrow(&put(device, &[rows, width, inner], &x), 1, start, len).unwrap();
                assert_eq!(part.shape(), [rows, len, inner]);
                assert_eq!(part.read().unwrap(), range(&x, width * inner, start * inner, len * inner));
            }
        }
    }
}

#[test]
fn parts_of_the_first_dimension_follow_each_other_and_come_apart_again() {
    let mut rng = rng(61);
    let devices = devices();
    for (counts, inner) in [(vec![1], 1), (vec![2, 1], 3), (vec![67, 300, 2], 35), (vec![3, 0, 4], 259)] {
        let parts: Vec<_> = counts.iter().map(|n| normal(&mut rng, n * inner)).collect();
        for device in &devices {
            let there: Vec<_> = parts.iter().zip(&counts).map(|(p, &n)| put(device, &[n, 1, inner], p)).collect();
            let whole = concat::forward(&there.iter().collect::<Vec<_>>(), 0).unwrap();
            assert_eq!(whole.shape(), [counts.iter().sum(), 1, inner]);
            assert_eq!(whole.read().unwrap(), parts.concat());
            let mut start = 0;
            for (part, &n) in parts.iter().zip(&counts) {
                let got = narrow(&whole, 0, start, n).unwrap();
                assert_eq!((got.shape(), &got.read().unwrap()), (&[n, 1, inner][..], part));
                start += n;
            }
        }
    }
}

#[test]
fn parts_of_the_last_dimension_stand_next_to_each_other_and_come_apart_again() {
    let mut rng = rng(42);
    let devices = kernels();
    for (rows, widths) in [(1, vec![1]), (3, vec![1, 1]), (67, vec![5, 300, 2]), (259, vec![3, 0, 4])] {
        let parts: Vec<_> = widths.iter().map(|w| normal(&mut rng, rows * w)).collect();
        let mut want: Vec<f32> = Vec::new();
        for row in 0..rows {
            for (part, width) in parts.iter().zip(&widths) {
                want.extend(&part[row * width..][..*width]);
            }
        }
        for device in &devices {
            let there: Vec<_> =
                parts.iter().zip(&widths).map(|(part, &width)| put(device, &[rows, width], part)).collect();
            let whole = concat::forward(&there.iter().collect::<Vec<_>>(), 1).unwrap();
            assert_eq!(whole.shape(), [rows, widths.iter().sum()]);
            assert_eq!(whole.read().unwrap(), want);
            let mut start = 0;
            for (part, &width) in parts.iter().zip(&widths) {
                assert_eq!(&narrow(&whole, 1, start, width).unwrap().read().unwrap(), part);
                start += width;
            }
        }
    }
}

#[test]
fn a_tensor_may_be_joined_to_itself() {
    for device in kernels() {
        let x = put(&device, &[2, 1], &[1.0, 2.0]);
        assert_eq!(concat::forward(&[&x, &x], 1).unwrap().read().unwrap(), [1.0, 1.0, 2.0, 2.0]);
    }
}

#[test]
fn nothing_gives_nothing() {
    for device in kernels() {
        let x = put(&device, &[2, 3], &[1.0; 6]);
        assert_eq!(narrow(&x, 1, 3, 0).unwrap().shape(), [2, 0]);
        let none = put(&device, &[0, 3], &[]);
        assert_eq!(narrow(&none, 1, 1, 2).unwrap().shape(), [0, 2]);
        assert_eq!(concat::forward(&[&none, &none], 1).unwrap().shape(), [0, 6]);
    }
}

/// Gradients of parts are the parts of the gradient; of one that occurs repeatedly, their sum.
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
        let whole = tape.concat(&[&va, &vb, &va], 0).unwrap();
        tape.backward(&whole, put(&device, &[5, 3], &weights)).unwrap();
        assert_close("twice", &tape.take_gradient(&va).unwrap().read().unwrap(), &want_a, 1e-6);
        assert_close("once", &tape.take_gradient(&vb).unwrap().read().unwrap(), &want_b, 1e-6);
    }
}

#[test]
fn ranges_and_parts_that_do_not_fit_are_refused() {
    for device in kernels() {
        let (x, y) = (put(&device, &[2, 3], &[1.0; 6]), put(&device, &[3, 2], &[1.0; 6]));
        for (dim, start, len) in [(1, 0, 4), (1, 3, 1), (1, 4, 0), (1, usize::MAX, 2), (0, 0, 3), (0, 2, 1), (2, 0, 1)]
        {
            let message = narrow(&x, dim, start, len).unwrap_err().to_string();
            assert!(message.contains("concat") && message.contains("[2, 3]"), "{message}");
        }
        for dim in [0, 1] {
            assert!(concat::forward(&[], dim).is_err());
            assert!(concat::forward(&[&x, &y], dim).unwrap_err().to_string().contains("[[2, 3], [3, 2]]"));
        }
        let number = put(&device, &[], &[1.0]);
        assert!(concat::forward(&[&number], 0).is_err() && narrow(&number, 0, 0, 1).is_err());
    }
}
