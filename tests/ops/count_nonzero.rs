use crate::common::{kernels, put, rng};
use gossamer::ops::count_nonzero;
use rand::RngExt;

#[test]
fn counts_all_but_zeros_of_either_sign() {
    let mut rng = rng(1);
    for device in kernels() {
        for n in [0, 1, 2, 255, 4096, 4097, 50_001] {
            let x: Vec<f32> =
                (0..n).map(|_| [0.0, -0.0, 1.0, -1e-45, f32::NAN, 0.0, f32::MAX][rng.random_range(0..7)]).collect();
            let want = x.iter().filter(|x| **x != 0.0).count() as u32;
            let count = count_nonzero::forward(&put(&device, &[n], &x)).unwrap();
            assert_eq!(count.shape(), [1]);
            assert_eq!(count.read().unwrap(), [want], "{n} entries");
        }
        assert_eq!(count_nonzero::forward(&put(&device, &[3, 2], &[-0.0; 6])).unwrap().read().unwrap(), [0]);
    }
}

#[test]
fn counts_each_row_and_each_column() {
    let mut rng = rng(2);
    for device in kernels() {
        for (rows, cols) in [(1, 1), (3, 5), (2, 257), (300, 7), (513, 300)] {
            let x: Vec<f32> =
                (0..rows * cols).map(|_| [0.0, -0.0, 0.0, -1e-45, f32::NAN][rng.random_range(0..5)]).collect();
            let (mut by_row, mut by_column) = (vec![0; rows], vec![0; cols]);
            for (i, _) in x.iter().enumerate().filter(|(_, x)| **x != 0.0) {
                by_row[i / cols] += 1;
                by_column[i % cols] += 1;
            }
            let x = put(&device, &[rows, cols], &x);
            assert_eq!(count_nonzero::by_row(&x).unwrap().read().unwrap(), by_row, "rows of {rows} x {cols}");
            assert_eq!(count_nonzero::by_column(&x).unwrap().read().unwrap(), by_column, "columns of {rows} x {cols}");
        }
    }
}
