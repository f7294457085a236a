use crate::common::{assert_close, central_differences, dot, kernels, normal, put, rng, wide};
use gossamer::ops::embedding::{self, Index};
use rand::RngExt;

fn gather(table: &[f64], width: usize, ids: &[u32]) -> Vec<f64> {
    ids.iter().flat_map(|&id| table[id as usize * width..][..width].to_vec()).collect()
}

fn scatter(dout: &[f64], width: usize, ids: &[u32], vocab: usize) -> Vec<f64> {
    let mut table = vec![0.0; vocab * width];
    for (d, &id) in dout.chunks(width).zip(ids) {
        (0..width).for_each(|c| table[id as usize * width + c] += d[c]);
    }
    table
}

#[test]
fn rows_out_and_gradients_back() {
    let mut rng = rng(31);
    let devices = kernels();
    for (vocab, width, n) in [(1, 1, 1), (1, 5, 9), (7, 1, 20), (300, 33, 1), (11, 16, 300), (65, 257, 70)] {
        for unbalanced in [false, true] {
            let mut ids: Vec<u32> = (0..n).map(|_| rng.random_range(0..vocab as u32)).collect();
            if unbalanced {
                ids.iter_mut().skip(1).for_each(|id| *id = vocab as u32 - 1);
            }
            let (table, dout) = (normal(&mut rng, vocab * width), normal(&mut rng, n * width));
            for device in &devices {
                let index = Index::new(device, &ids, vocab).unwrap();
                assert_eq!((index.len(), index.is_empty(), index.vocab()), (n, false, vocab));
                assert_eq!(index.ids().read().unwrap(), ids);
                let out = embedding::forward(&put(device, &[vocab, width], &table), &index).unwrap();
                assert_eq!(out.shape(), [n, width]);
                assert_close("rows", &out.read().unwrap(), &gather(&wide(&table), width, &ids), 0.0);

                // What the table's memory held before must not show through in rows that no id
                // named.
                drop(put(device, &[vocab, width], &vec![f32::NAN; vocab * width]));
                let dout_there = put(device, &[n, width], &dout);
                let got = embedding::backward(&dout_there, &index).unwrap();
                assert_eq!(got.shape(), [vocab, width]);
                let want = scatter(&wide(&dout), width, &ids, vocab);
                assert_close("gradient", &got.read().unwrap(), &want, 1e-6);
                let again = embedding::backward(&dout_there, &index).unwrap();
                assert_eq!(again.read().unwrap(), got.read().unwrap());
            }
        }
    }
}

#[test]
fn sums_run_in_ascending_position_order() {
    // In f32, 1 + 2^24 - 2^24 is 0 from the left and 1 in any order that lets the large ones meet
    // first.
    let large = 16_777_216.0;
    for device in kernels() {
        let index = Index::new(&device, &[1, 0, 1, 1], 2).unwrap();
        let dout = put(&device, &[4, 1], &[1.0, 7.0, large, -large]);
        assert_eq!(embedding::backward(&dout, &index).unwrap().read().unwrap(), [7.0, 0.0]);
    }
}

#[test]
fn gradients_are_those_of_central_differences() {
    let (vocab, width, ids) = (4, 3, [2, 0, 2, 2, 1]);
    let mut rng = rng(32);
    let (table, dout) = (normal(&mut rng, vocab * width), normal(&mut rng, ids.len() * width));
    let want = central_differences(&wide(&table), 1e-4, |t| dot(&gather(t, width, &ids), &wide(&dout)));
    for device in kernels() {
        let index = Index::new(&device, &ids, vocab).unwrap();
        let got = embedding::backward(&put(&device, &[ids.len(), width], &dout), &index).unwrap();
        assert_close("gradient", &got.read().unwrap(), &want, 1e-6);
    }
}

#[test]
fn no_ids_give_no_rows_and_no_gradient() {
    for device in kernels() {
        let index = Index::new(&device, &[], 3).unwrap();
        assert!(index.is_empty());
        let out = embedding::forward(&put(&device, &[3, 2], &[1.0; 6]), &index).unwrap();
        assert_eq!(out.shape(), [0, 2]);
        assert_eq!(embedding::backward(&out, &index).unwrap().read().unwrap(), [0.0; 6]);
    }
}

#[test]
fn ids_and_shapes_that_do_not_fit_are_refused() {
    for device in kernels() {
        for id in [5, u32::MAX] {
            let message = Index::new(&device, &[4, 0, id], 5).unwrap_err().to_string();
            assert!(
                message.contains(&format!("id {id} at position 2")) && message.contains("vocabulary's 5"),
                "{message}"
            );
        }
        let index = Index::new(&device, &[4, 0, 3], 5).unwrap();
        let t = |shape: &[usize]| put(&device, shape, &vec![1.0; shape.iter().product()]);
        let message = embedding::forward(&t(&[4, 2]), &index).unwrap_err().to_string();
        assert!(message.contains("table is [4, 2], expected [5, 2]"), "{message}");
        assert!(embedding::forward(&t(&[5, 1, 2]), &index).is_err());
        let message = embedding::backward(&t(&[5, 2]), &index).unwrap_err().to_string();
        assert!(message.contains("dout is [5, 2], expected [3, 2]"), "{message}");
    }
}
