use crate::common::{kernels, normal, put, rng};
use gossamer::device::Device;
use gossamer::ops::compress::{self, Nonzeros};
use rand::RngExt;

/// Offsets, indices and values of the nonzeros of `list(i, e)`, `count` lists of `length` entries.
fn oracle(count: usize, length: usize, entry: impl Fn(usize, usize) -> f32) -> (Vec<u32>, Vec<u32>, Vec<f32>) {
    let (mut offsets, mut indices, mut values) = (vec![0], Vec::new(), Vec::new());
    for i in 0..count {
        for e in 0..length {
            if entry(i, e) != 0.0 {
                indices.push(e as u32);
                values.push(entry(i, e));
            }
        }
        offsets.push(indices.len() as u32);
    }
    (offsets, indices, values)
}

#[track_caller]
fn assert_lists(what: &str, lists: &Nonzeros, want: &(Vec<u32>, Vec<u32>, Vec<f32>)) {
    let used = want.1.len();
    assert_eq!(lists.offsets().read().unwrap(), want.0, "{what}: offsets");
    assert!(lists.indices().read().unwrap()[..used] == want.1, "{what}: indices");
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert!(bits(&lists.values().read().unwrap()[..used]) == bits(&want.2), "{what}: values");
}

fn check(device: &Device, (outputs, inputs): (usize, usize), w: &[f32], spare: usize) {
    let what = format!("({outputs}, {inputs}), {}", device.describe());
    let nonzeros = w.iter().filter(|&&v| v != 0.0).count();
    let made = compress::forward(&put(device, &[outputs, inputs], w), nonzeros + spare).unwrap();
    assert_eq!((made.shape(), made.csr().values().len()), ((outputs, inputs), nonzeros + spare));
    assert_lists(&format!("rows of {what}"), made.csr(), &oracle(outputs, inputs, |i, e| w[i * inputs + e]));
    assert_lists(&format!("columns of {what}"), made.csc(), &oracle(inputs, outputs, |i, e| w[e * inputs + i]));
    let back = made.to_dense().unwrap();
    assert_eq!(back.shape(), [outputs, inputs]);
    // Adding zero turns the negative zeros that compression drops into the positive ones that come back.
    let same = back.read().unwrap().iter().zip(w).all(|(b, w)| b.to_bits() == (w + 0.0).to_bits());
    assert!(same && !w.is_empty(), "{what}: the dense matrix again");
}

#[test]
fn lists_hold_exactly_the_nonzeros_in_order() {
    let mut rng = rng(43);
    for device in kernels() {
        for shape in [(1, 1), (1, 200), (200, 1), (5, 64), (64, 65), (33, 130), (300, 301)] {
            for (density, spare) in [(0.0, 1), (0.03, 0), (0.3, 7), (1.0, 0)] {
                let n = shape.0 * shape.1;
                let mut w = normal(&mut rng, n);
                w.iter_mut().for_each(|v| {
                    if rng.random_range(0.0..1.0) >= density {
                        *v = if rng.random_range(0..2) == 0 { 0.0 } else { -0.0 };
                    }
                });
                check(&device, shape, &w, spare);
            }
            let mut one = vec![0.0; shape.0 * shape.1];
            one[shape.0 * shape.1 * 2 / 3] = -2.5;
            check(&device, shape, &one, 0);
        }
    }
}

#[test]
fn the_smallest_numbers_are_not_zeros() {
    let w = [0.0, f32::from_bits(1), -0.0, -f32::from_bits(1), 0.0, f32::MIN_POSITIVE];
    for device in kernels() {
        let made = compress::forward(&put(&device, &[2, 3], &w), 3).unwrap();
        assert_eq!(made.csr().offsets().read().unwrap(), [0, 1, 3]);
        assert_eq!(made.csr().indices().read().unwrap(), [1, 0, 2]);
        assert_eq!(made.csc().offsets().read().unwrap(), [0, 1, 2, 3]);
        assert_eq!(made.csc().indices().read().unwrap(), [1, 0, 1]);
    }
}

#[test]
fn too_many_nonzeros_are_refused_or_dropped() {
    let w = [1.0, 2.0, 0.0, 3.0, 4.0, 5.0];
    for device in kernels() {
        let made = compress::forward(&put(&device, &[2, 3], &w), 3);
        if device.is_cpu() {
            assert_eq!(made.unwrap_err().to_string(), "compress: 5 nonzeros do not fit into a capacity of 3");
            continue;
        }
        let made = made.unwrap();
        assert_lists("rows", made.csr(), &(vec![0, 2, 3], vec![0, 1, 0], vec![1.0, 2.0, 3.0]));
        assert_lists("columns", made.csc(), &(vec![0, 2, 3, 3], vec![0, 1, 0], vec![1.0, 3.0, 2.0]));
        assert_eq!(made.to_dense().unwrap().read().unwrap(), [1.0, 2.0, 0.0, 3.0, 0.0, 0.0]);
    }
}

#[test]
fn empty_and_misshapen_weights() {
    for device in kernels() {
        let made = compress::forward(&device.zeros("w", &[3, 0]).unwrap(), 0).unwrap();
        assert_eq!(made.csr().offsets().read().unwrap(), [0; 4]);
        assert_eq!(made.csc().offsets().read().unwrap(), [0]);
        assert!(made.to_dense().unwrap().is_empty());
        let made = compress::forward(&device.zeros("w", &[0, 2]).unwrap(), 0).unwrap();
        assert_eq!(made.csc().offsets().read().unwrap(), [0; 3]);
        assert!(compress::forward(&device.zeros("w", &[3]).unwrap(), 1).unwrap_err().to_string().contains("[3]"));
    }
}
