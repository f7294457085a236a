use crate::common::{kernels, normal, put, rng};
use gossamer::ops::columns::{concat, slice};

fn take(x: &[f32], width: usize, start: usize, len: usize) -> Vec<f32> {
    x.chunks(width).flat_map(|row| row[start..start + len].to_vec()).collect()
}

#[test]
fn slices_are_the_columns_asked_for() {
    let mut rng = rng(41);
    let devices = kernels();
    for (rows, width, start, len) in
        [(1, 1, 0, 1), (5, 1, 0, 1), (1, 9, 8, 1), (7, 9, 0, 9), (301, 33, 3, 17), (3, 700, 257, 300)]
    {
        let x = normal(&mut rng, rows * width);
        for device in &devices {
            let part = slice(&put(device, &[rows, 1, width], &x), start, len).unwrap();
            assert_eq!(part.shape(), [rows, 1, len]);
            assert_eq!(part.read().unwrap(), take(&x, width, start, len));
        }
    }
}

#[test]
fn parts_lie_side_by_side_and_come_apart_again() {
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
            let whole = concat(&there.iter().collect::<Vec<_>>()).unwrap();
            assert_eq!(whole.shape(), [rows, widths.iter().sum()]);
            assert_eq!(whole.read().unwrap(), want);
            let mut start = 0;
            for (part, &width) in parts.iter().zip(&widths) {
                assert_eq!(&slice(&whole, start, width).unwrap().read().unwrap(), part);
                start += width;
            }
        }
    }
}

#[test]
fn a_tensor_may_lie_beside_itself() {
    for device in kernels() {
        let x = put(&device, &[2, 1], &[1.0, 2.0]);
        assert_eq!(concat(&[&x, &x]).unwrap().read().unwrap(), [1.0, 1.0, 2.0, 2.0]);
    }
}

#[test]
fn nothing_gives_nothing() {
    for device in kernels() {
        let x = put(&device, &[2, 3], &[1.0; 6]);
        assert_eq!(slice(&x, 3, 0).unwrap().shape(), [2, 0]);
        let none = put(&device, &[0, 3], &[]);
        assert_eq!(slice(&none, 1, 2).unwrap().shape(), [0, 2]);
        assert_eq!(concat(&[&none, &none]).unwrap().shape(), [0, 6]);
    }
}

#[test]
fn ranges_and_parts_that_do_not_fit_are_refused() {
    for device in kernels() {
        let (x, y) = (put(&device, &[2, 3], &[1.0; 6]), put(&device, &[3, 2], &[1.0; 6]));
        for (start, len) in [(0, 4), (3, 1), (4, 0), (usize::MAX, 2)] {
            let message = slice(&x, start, len).unwrap_err().to_string();
            assert!(message.contains("columns") && message.contains("[2, 3]"), "{message}");
        }
        assert!(concat(&[]).is_err());
        assert!(concat(&[&x, &y]).unwrap_err().to_string().contains("[[2, 3], [3, 2]]"));
    }
}
