use crate::common::{kernels, normal, put, rng};
use gossamer::device::Device;
use gossamer::ops::abs_topk::{self, Forward};
use rand::{Rng, RngExt};

const MAGNITUDE: u32 = 0x7fff_ffff;

/// Which entries a stable sort by descending magnitude puts among the first `k` of each row.
fn kept(x: &[f32], cols: usize, k: usize) -> Vec<bool> {
    let mut kept = vec![false; x.len()];
    for (r, row) in x.chunks(cols).enumerate() {
        let mut order: Vec<usize> = (0..cols).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(row[i].to_bits() & MAGNITUDE));
        order.into_iter().take(k).for_each(|i| kept[r * cols + i] = true);
    }
    kept
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Checks forward and backward against the sorted oracle, bit for bit, and returns the bits of `y`
/// and `zeros`.
fn check(device: &Device, x: &[f32], cols: usize, k: usize) -> (Vec<u32>, Vec<u32>) {
    let shape = [x.len() / cols, cols];
    let kept = kept(x, cols, k);
    let Forward { y, zeros } = abs_topk::forward(&put(device, &shape, x), k).unwrap();
    assert_eq!(y.shape(), shape);
    assert_eq!(zeros.shape(), &shape[..1]);
    let got = bits(&y.read().unwrap());
    let want: Vec<u32> = x.iter().zip(&kept).map(|(x, &kept)| if kept { x.to_bits() } else { 0 }).collect();
    let what = format!("{} {shape:?} k {k}", device.describe());
    assert!(got == want, "{what}: forward differs at {:?}", got.iter().zip(&want).position(|(a, b)| a != b));
    // Every gradient differs from zero, so that the gradient's pattern is the kept set, zeros
    // included.
    let dout: Vec<f32> = (0..x.len()).map(|i| 1.0 + i as f32).collect();
    let dx = abs_topk::backward(&put(device, &shape, &dout), &y, &zeros).unwrap().read().unwrap();
    let want: Vec<f32> = dout.iter().zip(&kept).map(|(&d, &kept)| if kept { d } else { 0.0 }).collect();
    assert!(dx == want, "{what}: backward differs at {:?}", dx.iter().zip(&want).position(|(a, b)| a != b));
    (got, zeros.read().unwrap())
}

/// Checks on every device, and that all agree to the bit.
fn check_all(devices: &[Device], x: &[f32], cols: usize, ks: &[usize]) {
    for &k in ks {
        let results: Vec<_> = devices.iter().map(|d| check(d, x, cols, k)).collect();
        assert!(results.windows(2).all(|w| w[0] == w[1]), "devices disagree, {cols} columns, k {k}");
    }
}

/// Few distinct values, both signs and both zeros: ties everywhere.
fn coarse(rng: &mut impl Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| [0.0, -0.0, 0.5, -0.5, 1.0, -1.5, 0.0][rng.random_range(0..7)]).collect()
}

#[test]
fn keeps_what_a_sort_keeps() {
    let devices = kernels();
    let mut rng = rng(1);
    for (rows, cols) in [(1, 1), (3, 1), (5, 2), (4, 7), (3, 64), (2, 255), (2, 257), (2, 1024), (1, 2049), (1, 5000)] {
        let ks = [0, 1, 2, cols / 4, cols / 2, cols - 1, cols, cols + 3];
        check_all(&devices, &normal(&mut rng, rows * cols), cols, &ks);
        check_all(&devices, &coarse(&mut rng, rows * cols), cols, &ks);
    }
}

/// Rows much like the one before, in which the CPU looks near its cut first; with equals at the cut,
/// and now and then a row that is not like it.
#[test]
fn rows_like_the_one_before() {
    let devices = kernels();
    let (rows, cols) = (40, 300);
    let mut x = normal(&mut rng(5), rows * cols);
    x.iter_mut().for_each(|x| *x = (*x * 16.0).round() / 16.0);
    for r in [7, 8, 20] {
        x[r * cols..(r + 1) * cols].iter_mut().for_each(|x| *x *= [1e-3, 1e3, 0.0][r % 3]);
    }
    check_all(&devices, &x, cols, &[1, 30, 75, 100, 299]);
}

#[test]
fn special_rows() {
    let devices = kernels();
    let cols = 40;
    let wild = |i: usize| match i % 8 {
        0 => f32::MAX,
        1 => -f32::MIN_POSITIVE,
        2 => f32::from_bits(1),
        3 => -f32::from_bits(3),
        4 => f32::INFINITY,
        5 => 1e-30 * i as f32,
        6 => -0.0,
        _ => -1e38,
    };
    let mut x = vec![0.0f32; cols];
    x.extend(vec![-0.0f32; cols]);
    x.extend(vec![-2.5f32; cols]);
    x.extend((0..cols).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }));
    x.extend((0..cols).map(|i| f32::from_bits(i as u32)));
    x.extend((0..cols).map(wild));
    x.extend(vec![f32::NAN; cols]);
    x.extend((0..cols).map(|i| f32::from_bits(if i % 3 == 0 { u32::MAX } else { 0x7fff_fffe })));
    x.extend((0..cols).map(|i| if i % 5 == 0 { f32::NAN } else { i as f32 }));
    x.extend((0..cols).map(|i| if i == 17 { 3.0 } else { 0.0 }));
    check_all(&devices, &x, cols, &[0, 1, 2, 3, 9, 10, 20, 39, 40, 41]);
}

#[test]
fn zeros_says_where_the_kept_zeros_end() {
    for device in kernels() {
        let x = [0.0, 5.0, -0.0, 0.0, /**/ 1.0, 2.0, 0.0, 4.0, /**/ 0.0, 0.0, 0.0, 0.0];
        let result = abs_topk::forward(&put(&device, &[3, 4], &x), 2).unwrap();
        assert_eq!(result.zeros.read().unwrap(), [1, 0, 2]);
        let result = abs_topk::forward(&put(&device, &[3, 4], &x), 3).unwrap();
        assert_eq!(result.zeros.read().unwrap(), [3, 0, 3]);
        let result = abs_topk::forward(&put(&device, &[3, 4], &x), 4).unwrap();
        assert_eq!(result.zeros.read().unwrap(), [4, 3, 4]);
    }
}

#[test]
fn more_rows_than_one_grid_dimension_holds() {
    let devices = kernels();
    let x: Vec<f32> = (0..2 * 65_600).map(|i| ((i * 7919) % 13) as f32 - 6.0).collect();
    check_all(&devices, &x, 2, &[1]);
}

#[test]
fn every_dimension_but_the_last_counts_rows() {
    for device in kernels() {
        let x = put(&device, &[2, 2, 3], &[1.0, -2.0, 0.5, 3.0, 3.0, -3.0, 0.0, 0.0, 0.0, -1.0, 9.0, 8.0]);
        let Forward { y, zeros } = abs_topk::forward(&x, 1).unwrap();
        assert_eq!(y.shape(), [2, 2, 3]);
        assert_eq!(y.read().unwrap(), [0.0, -2.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0, 0.0]);
        assert_eq!(zeros.read().unwrap(), [0, 0, 1, 0]);
    }
}

#[test]
fn wrong_shapes_are_refused_and_empty_ones_are_not() {
    for device in kernels() {
        let x = put(&device, &[2, 3], &[1.0; 6]);
        let Forward { y, zeros } = abs_topk::forward(&x, 2).unwrap();
        let other = put(&device, &[3, 2], &[1.0; 6]);
        assert!(abs_topk::backward(&other, &y, &zeros).unwrap_err().to_string().contains("[3, 2]"));
        let short = device.upload("zeros", &[1], &[0u32]).unwrap();
        assert!(abs_topk::backward(&x, &y, &short).unwrap_err().to_string().contains("zeros"));
        for shape in [[0, 4], [2, 0]] {
            let Forward { y, zeros } = abs_topk::forward(&put(&device, &shape, &[]), 1).unwrap();
            assert!(y.is_empty() && zeros.read().unwrap() == vec![0; shape[0]]);
            assert!(abs_topk::backward(&y, &y, &zeros).unwrap().is_empty());
        }
    }
}
