use crate::common::{assert_close, kernels, normal, put, rng, wide};
use gossamer::ops::add;

#[test]
fn sums_agree_on_every_size() {
    let mut rng = rng(1);
    for device in kernels() {
        for shape in [vec![1], vec![3, 1], vec![1, 255], vec![2, 3, 257], vec![70_001]] {
            let n: usize = shape.iter().product();
            let (a, b) = (normal(&mut rng, n), normal(&mut rng, n));
            let want: Vec<f64> = wide(&a).iter().zip(wide(&b)).map(|(x, y)| x + y).collect();
            let (a, b, mut total) = (put(&device, &shape, &a), put(&device, &shape, &b), put(&device, &shape, &a));
            let sum = add::forward(&a, &b).unwrap();
            assert_eq!(sum.shape(), shape);
            assert_close("forward", &sum.read().unwrap(), &want, 1e-7);
            add::accumulate(&mut total, &b).unwrap();
            assert_close("accumulate", &total.read().unwrap(), &want, 1e-7);
        }
    }
}

#[test]
fn different_shapes_are_refused() {
    for device in kernels() {
        let (a, b) = (put(&device, &[2], &[1.0, 2.0]), put(&device, &[1, 2], &[1.0, 2.0]));
        assert!(add::forward(&a, &b).unwrap_err().to_string().contains("[2]"));
    }
}

#[test]
fn more_than_65535_workgroups() {
    let n = 65_535 * 256 + 300;
    for device in kernels() {
        let ones = device.upload("ones", &[n], &vec![1.0f32; n]).unwrap();
        let sum = add::forward(&ones, &ones).unwrap().read().unwrap();
        assert!(sum.iter().all(|&v| v == 2.0));
    }
}
