use crate::common::{kernels, normal, put, rng};
use gossamer::ops::relu;
use gossamer::tape::Tape;

#[test]
fn the_negative_half_is_cut_off_and_passes_no_gradient() {
    let mut rng = rng(41);
    for device in kernels() {
        for shape in [vec![1], vec![3, 1], vec![2, 3, 257], vec![70_001]] {
            let n: usize = shape.iter().product();
            let mut x = normal(&mut rng, n);
            x.iter_mut().step_by(7).for_each(|x| *x = 0.0);
            let dout = normal(&mut rng, n);
            let want: Vec<f32> = x.iter().map(|&x| if x > 0.0 { x } else { 0.0 }).collect();
            let want_dx: Vec<f32> = x.iter().zip(&dout).map(|(&x, &d)| if x > 0.0 { d } else { 0.0 }).collect();
            let (x, dout) = (put(&device, &shape, &x), put(&device, &shape, &dout));
            let y = relu::forward(&x).unwrap();
            assert_eq!(y.shape(), shape);
            assert_eq!(y.read().unwrap(), want);
            assert_eq!(relu::backward(&dout, &x).unwrap().read().unwrap(), want_dx);
            assert_eq!(relu::backward(&dout, &y).unwrap().read().unwrap(), want_dx, "given the output");
        }
    }
}

#[test]
fn zeros_tiny_and_huge_numbers_come_out_exactly() {
    for device in kernels() {
        let x = put(&device, &[6], &[0.0, -0.0, f32::MIN_POSITIVE, -f32::MIN_POSITIVE, f32::MAX, f32::MIN]);
        let y = relu::forward(&x).unwrap().read().unwrap();
        assert_eq!(y, [0.0, 0.0, f32::MIN_POSITIVE, 0.0, f32::MAX, 0.0]);
    }
}

#[test]
fn different_shapes_are_refused() {
    for device in kernels() {
        let (a, b) = (put(&device, &[2], &[1.0, 2.0]), put(&device, &[1, 2], &[1.0, 2.0]));
        assert!(relu::backward(&a, &b).unwrap_err().to_string().contains("relu"));
    }
}

#[test]
fn the_tape_goes_back_through_it() {
    for device in kernels() {
        let mut tape = Tape::new();
        let x = tape.leaf(put(&device, &[3], &[-1.0, 0.0, 2.0]));
        let y = tape.relu(&x).unwrap();
        assert_eq!(y.value().read().unwrap(), [0.0, 0.0, 2.0]);
        tape.backward(&y, put(&device, &[3], &[3.0, 5.0, 7.0])).unwrap();
        assert_eq!(tape.take_gradient(&x).unwrap().read().unwrap(), [0.0, 0.0, 7.0]);
    }
}
