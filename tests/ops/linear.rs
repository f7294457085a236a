use crate::common::{assert_close, central_differences, devices, dot, normal, put, rng, wide};
use gossamer::device::Device;
use gossamer::ops::linear::{self, OutputShape, Tile};
use rand::{Rng, RngExt};

/// Both devices, the GPU once with each tile for all outputs.
fn tiles() -> Vec<Device> {
    let mut list = vec![Device::cpu()];
    for tile in Tile::ALL {
        list.extend(devices().into_iter().filter(|device| !device.is_cpu()));
        let Some(Device::Gpu(gpu)) = list.last() else { panic!("no GPU") };
        OutputShape::ALL.iter().for_each(|&output| linear::set_tile(gpu, output, tile).unwrap());
    }
    list
}

/// `y = x Wᵀ + b` in float64.
fn oracle(x: &[f64], w: &[f64], b: Option<&[f64]>, inputs: usize) -> Vec<f64> {
    let outputs = w.len() / inputs;
    let mut y = Vec::new();
    for x in x.chunks(inputs) {
        for o in 0..outputs {
            y.push(dot(x, &w[o * inputs..][..inputs]) + b.map_or(0.0, |b| b[o]));
        }
    }
    y
}

/// The gradients of `x`, `W` and `b` for `dy`, in float64.
fn oracle_gradients(x: &[f64], w: &[f64], dy: &[f64], inputs: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let outputs = w.len() / inputs;
    let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; w.len()], vec![0.0; outputs]);
    for (n, dy) in dy.chunks(outputs).enumerate() {
        for (o, dy) in dy.iter().enumerate() {
            db[o] += dy;
            for i in 0..inputs {
                dx[n * inputs + i] += dy * w[o * inputs + i];
                dw[o * inputs + i] += dy * x[n * inputs + i];
            }
        }
    }
    (dx, dw, db)
}

#[test]
fn all_products_agree_on_odd_shapes() {
    let mut rng = rng(40);
    let shapes: [(&[usize], usize, usize); 10] = [
        (&[1], 1, 1),
        (&[3], 5, 7),
        (&[4, 16], 64, 64),
        (&[2, 33], 17, 130),
        (&[1], 300, 65),
        (&[1, 1, 9], 1, 3),
        (&[700], 3, 5),
        (&[5000], 2, 1),
        (&[66], 530, 4),
        (&[2, 130], 33, 70),
    ];
    for device in tiles() {
        for (rows, inputs, outputs) in shapes {
            let n: usize = rows.iter().product();
            let (x, w) = (normal(&mut rng, n * inputs), normal(&mut rng, outputs * inputs));
            let (b, dy) = (normal(&mut rng, outputs), normal(&mut rng, n * outputs));
            let (wx, ww, wb) = (wide(&x), wide(&w), wide(&b));
            let (dx, dw, db) = oracle_gradients(&wx, &ww, &wide(&dy), inputs);
            let (x_shape, y_shape) = ([rows, &[inputs]].concat(), [rows, &[outputs]].concat());
            let (x, w) = (put(&device, &x_shape, &x), put(&device, &[outputs, inputs], &w));
            let (b, dy) = (put(&device, &[outputs], &b), put(&device, &y_shape, &dy));
            let what = |name: &str| format!("{name}, x {x_shape:?}, out {outputs}, {}", device.describe());

            let y = linear::forward(&x, &w, Some(&b)).unwrap();
            assert_eq!(y.shape(), y_shape);
            assert_close(&what("forward"), &y.read().unwrap(), &oracle(&wx, &ww, Some(&wb), inputs), 2e-6);
            let y = linear::forward(&x, &w, None).unwrap();
            assert_close(&what("no bias"), &y.read().unwrap(), &oracle(&wx, &ww, None, inputs), 2e-6);
            let got = linear::backward_input(&dy, &w).unwrap();
            assert_eq!(got.shape(), x_shape);
            assert_close(&what("dx"), &got.read().unwrap(), &dx, 2e-6);
            let got = linear::backward_weight(&dy, &x).unwrap();
            assert_eq!(got.shape(), [outputs, inputs]);
            assert_close(&what("dW"), &got.read().unwrap(), &dw, 2e-6);
            let got = linear::backward_bias(&dy).unwrap();
            assert_eq!(got.shape(), [outputs]);
            assert_close(&what("db"), &got.read().unwrap(), &db, 2e-6);
        }
    }
}

/// Normal numbers, of which about `share` stay and the others are zero.
fn holed(rng: &mut impl Rng, n: usize, share: f64) -> Vec<f32> {
    normal(rng, n).into_iter().map(|v| if rng.random_bool(share) { v } else { 0.0 }).collect()
}

#[test]
fn the_weights_gradient_with_zeros_in_either_factor() {
    let mut rng = rng(43);
    // Below, at and above the groups and blocks of the product that skips zeros.
    let shapes = [
        (1, 1, 1),
        (3, 5, 7),
        (70, 1, 5),
        (70, 5, 1),
        (130, 1, 1),
        (63, 64, 31),
        (64, 65, 32),
        (65, 130, 33),
        (200, 17, 100),
        (129, 128, 64),
    ];
    for device in tiles() {
        for (n, inputs, outputs) in shapes {
            for (x_share, dy_share) in [(1.0, 0.25), (0.25, 1.0), (0.25, 0.2), (0.0, 1.0), (1.0, 0.0), (0.5, 0.5)] {
                let (x, dy) = (holed(&mut rng, n * inputs, x_share), holed(&mut rng, n * outputs, dy_share));
                let zero = vec![0.0; outputs * inputs];
                let (_, want, _) = oracle_gradients(&wide(&x), &zero, &wide(&dy), inputs);
                let (x, dy) = (put(&device, &[n, inputs], &x), put(&device, &[n, outputs], &dy));
                let got = linear::backward_weight(&dy, &x).unwrap();
                let what = format!("dW of {n} rows, {inputs} × {x_share} to {outputs} × {dy_share}");
                assert_eq!(got.shape(), [outputs, inputs]);
                assert_close(&what, &got.read().unwrap(), &want, 2e-6);
                assert_eq!(got.read().unwrap(), linear::backward_weight(&dy, &x).unwrap().read().unwrap());
            }
        }
    }
}

#[test]
fn activations_with_zeros_by_a_dense_weight() {
    let mut rng = rng(44);
    // Around the least sides and rows that are skipped through, and below, at and above its groups, blocks and panels.
    let shapes = [(3, 511, 512), (1, 512, 512), (255, 512, 513), (256, 576, 640), (257, 513, 600), (300, 700, 515)];
    for device in tiles() {
        // The GPU multiplies everything.
        let shapes = if device.is_cpu() { &shapes[..] } else { &shapes[..2] };
        for &(n, inputs, outputs) in shapes {
            for share in [0.0, 0.02, 0.25] {
                let (x, dy) = (holed(&mut rng, n * inputs, share), holed(&mut rng, n * outputs, share));
                let (w, b) = (normal(&mut rng, outputs * inputs), normal(&mut rng, outputs));
                let (wx, ww, wb) = (wide(&x), wide(&w), wide(&b));
                let (want_dx, _, _) = oracle_gradients(&wx, &ww, &wide(&dy), inputs);
                let (x, dy) = (put(&device, &[n, inputs], &x), put(&device, &[n, outputs], &dy));
                let (w, b) = (put(&device, &[outputs, inputs], &w), put(&device, &[outputs], &b));
                let what = |name: &str| format!("{name} of {n} rows, {inputs} to {outputs}, {share} of them nonzero");
                let results = || {
                    let results = [
                        linear::forward(&x, &w, Some(&b)),
                        linear::forward(&x, &w, None),
                        linear::backward_input(&dy, &w),
                    ];
                    results.map(|result| result.unwrap().read().unwrap())
                };
                let [y, plain, dx] = results();
                assert_close(&what("forward"), &y, &oracle(&wx, &ww, Some(&wb), inputs), 2e-6);
                assert_close(&what("no bias"), &plain, &oracle(&wx, &ww, None, inputs), 2e-6);
                assert_close(&what("dx"), &dx, &want_dx, 2e-6);
                let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
                assert!(alone.install(results) == [y, plain, dx], "{}: other bits on one thread", what("all"));
            }
        }
    }
}

#[test]
fn what_is_skipped_multiplies_nothing() {
    let device = Device::cpu();
    let mut x = vec![0.0; 256 * 512];
    (x[3], x[512 + 5]) = (2.0, 3.0);
    let mut w = vec![1.0; 512 * 512];
    (0..512).for_each(|o| w[o * 512 + 7] = f32::INFINITY);
    let w = put(&device, &[512, 512], &w);
    let y = linear::forward(&put(&device, &[256, 512], &x), &w, None).unwrap().read().unwrap();
    for (row, want) in y.chunks(512).zip([2.0, 3.0, 0.0]) {
        assert!(row.iter().all(|&y| y == want), "{want}");
    }
    // With half of it nonzero, or few rows, it is not worthwhile.
    let half: Vec<f32> = (0..256 * 512).map(|i| if i % 2 == 0 { 1.0 } else { 0.0 }).collect();
    for (rows, x) in [(256, &half), (255, &x)] {
        let x = put(&device, &[rows, 512], &x[..rows * 512]);
        assert!(linear::forward(&x, &w, None).unwrap().read().unwrap()[0].is_nan(), "{rows} rows");
    }
}

#[test]
fn gradients_are_those_of_central_differences() {
    let (n, inputs, outputs) = (3, 4, 5);
    let mut rng = rng(41);
    let (x, w) = (normal(&mut rng, n * inputs), normal(&mut rng, outputs * inputs));
    let (b, dy) = (normal(&mut rng, outputs), normal(&mut rng, n * outputs));
    let (wx, ww, wb, wdy) = (wide(&x), wide(&w), wide(&b), wide(&dy));
    let loss = |x: &[f64], w: &[f64], b: &[f64]| dot(&oracle(x, w, Some(b), inputs), &wdy);
    let dx = central_differences(&wx, 1e-4, |x| loss(x, &ww, &wb));
    let dw = central_differences(&ww, 1e-4, |w| loss(&wx, w, &wb));
    let db = central_differences(&wb, 1e-4, |b| loss(&wx, &ww, b));
    for device in tiles() {
        let (x, w) = (put(&device, &[n, inputs], &x), put(&device, &[outputs, inputs], &w));
        let dy = put(&device, &[n, outputs], &dy);
        assert_close("dx", &linear::backward_input(&dy, &w).unwrap().read().unwrap(), &dx, 1e-6);
        assert_close("dW", &linear::backward_weight(&dy, &x).unwrap().read().unwrap(), &dw, 1e-6);
        assert_close("db", &linear::backward_bias(&dy).unwrap().read().unwrap(), &db, 1e-6);
    }
}

/// All results of one set of inputs, as bits.
fn bits(device: &Device, (n, inputs, outputs): (usize, usize, usize)) -> Vec<u32> {
    let mut rng = rng(42);
    let x = put(device, &[n, inputs], &normal(&mut rng, n * inputs));
    let w = put(device, &[outputs, inputs], &normal(&mut rng, outputs * inputs));
    let b = put(device, &[outputs], &normal(&mut rng, outputs));
    let dy = put(device, &[n, outputs], &normal(&mut rng, n * outputs));
    let results = [
        linear::forward(&x, &w, Some(&b)),
        linear::backward_input(&dy, &w),
        linear::backward_weight(&dy, &x),
        linear::backward_bias(&dy),
    ];
    results.iter().flat_map(|r| r.as_ref().unwrap().read().unwrap()).map(f32::to_bits).collect()
}

#[test]
fn the_same_bits_every_time() {
    for device in tiles() {
        let shape = (if device.is_cpu() { 2100 } else { 600 }, 70, 90);
        assert!(bits(&device, shape) == bits(&device, shape), "{}", device.describe());
    }
}

#[test]
fn tiles_change_the_last_bits_at_most() {
    // Above and below all tiles, and an inner dimension that is split.
    for shape in [(200, 70, 140), (20, 600, 30), (129, 33, 65)] {
        let results = tiles().iter().skip(1).map(|gpu| bits(gpu, shape)).collect::<Vec<_>>();
        let want: Vec<f64> = results[0].iter().map(|&bits| f64::from(f32::from_bits(bits))).collect();
        for other in &results[1..] {
            let other: Vec<f32> = other.iter().map(|&bits| f32::from_bits(bits)).collect();
            assert_close("another tile", &other, &want, 1e-6);
        }
    }
}

#[test]
fn every_output_has_its_tile() {
    let Some(Device::Gpu(gpu)) = devices().pop() else { panic!("no GPU") };
    linear::set_tile(&gpu, OutputShape::Small, Tile::Large).unwrap();
    assert_eq!(linear::tile(&gpu, OutputShape::Small).unwrap(), Tile::Large);
    // What is no tile, as another version might have kept, is as good as nothing.
    gpu.set_tuned("linear small", 3).unwrap();
    assert!(Tile::ALL.contains(&linear::tile(&gpu, OutputShape::Small).unwrap()));
    assert_eq!(Tile::ALL.map(Tile::shape), [(32, 32), (64, 64), (128, 128)]);
}

#[test]
fn the_same_bits_with_any_number_of_threads() {
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| [(2100, 130, 257), (1, 300, 200), (40, 1030, 33)].map(|shape| bits(&Device::cpu(), shape)))
    };
    let one = with(1);
    for threads in [2, 3, 8] {
        assert!(with(threads) == one, "{threads} threads differ from one");
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    for device in tiles() {
        let zeros = |shape: &[usize]| device.zeros(&format!("{shape:?}"), shape).unwrap();
        let (x, w, dy) = (zeros(&[2, 3, 4]), zeros(&[5, 4]), zeros(&[2, 3, 5]));
        let message =
            |result: gossamer::Result<_>| result.map(|_: gossamer::device::Tensor| ()).unwrap_err().to_string();
        assert!(message(linear::forward(&x, &zeros(&[4, 5]), None)).contains("[4, 5]"));
        assert!(message(linear::forward(&x, &zeros(&[4]), None)).contains("[4]"));
        assert!(message(linear::forward(&x, &w, Some(&zeros(&[4])))).contains("bias is [4], expected [5]"));
        assert!(message(linear::backward_input(&x, &w)).contains("[2, 3, 4]"));
        assert!(message(linear::backward_weight(&dy, &zeros(&[5, 4]))).contains("[5, 4]"));
        assert_eq!(linear::backward_weight(&dy, &x).unwrap().shape(), [5, 4]);
    }
}

#[test]
fn nothing_in_gives_sums_of_nothing() {
    for device in tiles() {
        let zeros = |shape: &[usize]| device.zeros(&format!("{shape:?}"), shape).unwrap();
        let bias = put(&device, &[2], &[3.0, -4.0]);
        assert_eq!(linear::forward(&zeros(&[0, 3]), &zeros(&[2, 3]), Some(&bias)).unwrap().shape(), [0, 2]);
        let y = linear::forward(&zeros(&[2, 0]), &zeros(&[2, 0]), Some(&bias)).unwrap();
        assert_eq!(y.read().unwrap(), [3.0, -4.0, 3.0, -4.0]);
        assert_eq!(linear::forward(&zeros(&[2, 3]), &zeros(&[0, 3]), None).unwrap().shape(), [2, 0]);
        assert_eq!(linear::backward_weight(&zeros(&[0, 1]), &zeros(&[0, 2])).unwrap().read().unwrap(), [0.0; 2]);
        assert_eq!(linear::backward_bias(&zeros(&[0, 2])).unwrap().read().unwrap(), [0.0; 2]);
        assert!(linear::backward_bias(&zeros(&[2, 0])).unwrap().is_empty());
    }
}
