use crate::common::{assert_close, central_differences, dot, kernels, normal, put, rng, wide};
use gossamer::device::{Device, Tensor};
use gossamer::ops::compress::{self, SparseMatrix};
use gossamer::ops::sparse_linear;
use rand::{Rng, RngExt};

/// A matrix with about this density, its first row and its last column empty unless it is dense.
fn sparse(rng: &mut impl Rng, outputs: usize, inputs: usize, density: f64) -> Vec<f32> {
    let mut w = normal(rng, outputs * inputs);
    for (at, v) in w.iter_mut().enumerate() {
        let kept = density >= 1.0 || (at >= inputs && at % inputs != inputs - 1);
        if !kept || rng.random_range(0.0..1.0) >= density {
            *v = 0.0;
        }
    }
    w
}

fn compressed(device: &Device, shape: [usize; 2], w: &[f32]) -> SparseMatrix {
    let nonzeros = w.iter().filter(|&&v| v != 0.0).count();
    compress::forward(&put(device, &shape, w), nonzeros).unwrap()
}

/// `x Wᵀ + b` in float64, dense.
fn oracle(x: &[f64], w: &[f64], b: Option<&[f64]>, inputs: usize) -> Vec<f64> {
    let outputs = w.len() / inputs;
    let row = |x: &[f64]| {
        let sum = |o: usize| dot(x, &w[o * inputs..][..inputs]) + b.map_or(0.0, |b| b[o]);
        (0..outputs).map(sum).collect::<Vec<_>>()
    };
    x.chunks(inputs).flat_map(row).collect()
}

fn transposed(w: &[f64], cols: usize) -> Vec<f64> {
    (0..cols).flat_map(|c| w.iter().skip(c).step_by(cols).copied()).collect()
}

#[test]
fn agrees_with_the_dense_product_at_every_density() {
    let mut rng = rng(44);
    let shapes: [(&[usize], usize, usize); 6] =
        [(&[1], 1, 1), (&[3], 40, 7), (&[2, 35], 300, 33), (&[17], 30, 270), (&[13], 513, 20), (&[70], 16, 64)];
    for device in kernels() {
        for (rows, inputs, outputs) in shapes {
            for density in [0.0, 1e-9, 1.0 / 64.0, 0.25, 1.0] {
                let n: usize = rows.iter().product();
                let mut w = sparse(&mut rng, outputs, inputs, density);
                if density == 1e-9 {
                    w[outputs * inputs / 2] = 1.5;
                }
                let (x, dy) = (normal(&mut rng, n * inputs), normal(&mut rng, n * outputs));
                let b = normal(&mut rng, outputs);
                let (wx, ww, wb, wdy) = (wide(&x), wide(&w), wide(&b), wide(&dy));
                let (x_shape, y_shape) = ([rows, &[inputs]].concat(), [rows, &[outputs]].concat());
                let (x, dy) = (put(&device, &x_shape, &x), put(&device, &y_shape, &dy));
                let (w, b) = (compressed(&device, [outputs, inputs], &w), put(&device, &[outputs], &b));
                let what = |name: &str| format!("{name} at {density}, {x_shape:?} to {outputs}, {}", device.describe());

                let y = sparse_linear::forward(&x, &w, Some(&b)).unwrap();
                assert_eq!(y.shape(), y_shape);
                assert_close(&what("forward"), &y.read().unwrap(), &oracle(&wx, &ww, Some(&wb), inputs), 2e-6);
                let y = sparse_linear::forward(&x, &w, None).unwrap();
                assert_close(&what("no bias"), &y.read().unwrap(), &oracle(&wx, &ww, None, inputs), 2e-6);
                let dx = sparse_linear::backward_input(&dy, &w).unwrap();
                assert_eq!(dx.shape(), x_shape);
                let want = oracle(&wdy, &transposed(&ww, inputs), None, outputs);
                assert_close(&what("dx"), &dx.read().unwrap(), &want, 2e-6);
            }
        }
    }
}

#[test]
fn the_gradient_is_that_of_central_differences() {
    let (n, inputs, outputs) = (3, 6, 5);
    let mut rng = rng(45);
    let (x, w) = (normal(&mut rng, n * inputs), sparse(&mut rng, outputs, inputs, 0.5));
    let dy = normal(&mut rng, n * outputs);
    let (ww, wdy) = (wide(&w), wide(&dy));
    let want = central_differences(&wide(&x), 1e-4, |x| dot(&oracle(x, &ww, None, inputs), &wdy));
    for device in kernels() {
        let w = compressed(&device, [outputs, inputs], &w);
        let dx = sparse_linear::backward_input(&put(&device, &[n, outputs], &dy), &w).unwrap();
        assert_close("dx", &dx.read().unwrap(), &want, 1e-6);
    }
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.read().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn the_same_bits_every_time_and_with_any_number_of_threads() {
    let mut rng = rng(46);
    let (n, inputs, outputs) = (150, 90, 80);
    let (x, w) = (normal(&mut rng, n * inputs), sparse(&mut rng, outputs, inputs, 0.2));
    for device in kernels() {
        let run = || {
            let w = compressed(&device, [outputs, inputs], &w);
            bits(&sparse_linear::forward(&put(&device, &[n, inputs], &x), &w, None).unwrap())
        };
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let first = run();
        assert!(first == run(), "{}", device.describe());
        assert!(first == pool(1).install(run) && first == pool(3).install(run), "{}", device.describe());
    }
}

#[test]
fn on_the_cpu_a_row_does_not_depend_on_its_neighbours() {
    let mut rng = rng(47);
    let (n, inputs, outputs) = (107, 50, 40);
    let (x, w) = (normal(&mut rng, n * inputs), sparse(&mut rng, outputs, inputs, 0.3));
    let device = Device::cpu();
    let w = compressed(&device, [outputs, inputs], &w);
    let b = put(&device, &[outputs], &normal(&mut rng, outputs));
    let all = bits(&sparse_linear::forward(&put(&device, &[n, inputs], &x), &w, Some(&b)).unwrap());
    for row in [0, 63, 64, 95, 96, 104, 106] {
        let x = put(&device, &[1, inputs], &x[row * inputs..][..inputs]);
        let alone = bits(&sparse_linear::forward(&x, &w, Some(&b)).unwrap());
        assert!(alone == all[row * outputs..][..outputs], "row {row}");
    }
}

#[test]
fn empty_inputs_and_shapes_that_do_not_fit() {
    for device in kernels() {
        let zeros = |shape: &[usize]| device.zeros(&format!("{shape:?}"), shape).unwrap();
        let w = compressed(&device, [2, 3], &[1.0, 0.0, 2.0, 0.0, 0.0, 3.0]);
        assert_eq!(sparse_linear::forward(&zeros(&[0, 3]), &w, None).unwrap().shape(), [0, 2]);
        let empty = compress::forward(&zeros(&[2, 0]), 0).unwrap();
        let bias = put(&device, &[2], &[1.0, -1.0]);
        let y = sparse_linear::forward(&zeros(&[1, 0]), &empty, Some(&bias)).unwrap();
        assert_eq!(y.read().unwrap(), [1.0, -1.0]);
        assert!(sparse_linear::backward_input(&zeros(&[4, 2]), &empty).unwrap().is_empty());
        let message = |result: gossamer::Result<Tensor>| result.unwrap_err().to_string();
        assert!(message(sparse_linear::forward(&zeros(&[5, 2]), &w, None)).contains("[5, 2]"));
        assert!(message(sparse_linear::forward(&zeros(&[5, 3]), &w, Some(&zeros(&[3])))).contains("bias is [3]"));
        assert!(message(sparse_linear::backward_input(&zeros(&[5, 3]), &w)).contains("[5, 3]"));
    }
}

#[test]
fn sparse_weights_are_worth_compressing_and_dense_ones_are_not() {
    for device in kernels() {
        assert!(sparse_linear::prefer_sparse(&device, 1.0 / 64.0));
        assert!(!sparse_linear::prefer_sparse(&device, 0.5));
        // Where the dense product skips zeros, too, it stays the better one for longer.
        let after_topk = |shape, density| sparse_linear::prefer_sparse_after_topk(&device, shape, density);
        assert!(after_topk((1024, 1024), 1.0 / 64.0) && !after_topk((1024, 1024), 0.2) && !after_topk((64, 1024), 0.5));
        assert_eq!(after_topk((64, 1024), 0.2), device.is_cpu());
    }
}
