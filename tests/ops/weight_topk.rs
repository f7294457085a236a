use crate::common::{kernels, normal, put, rng};
use gossamer::device::Device;
use gossamer::ops::weight_topk::{self, Neurons, Rule};
use rand::{Rng, RngExt};

const MAGNITUDE: u32 = 0x7fff_ffff;

/// The survivors by sorting: first each neuron's entries for protection, then all by (protected,
/// magnitude, index).
fn survivors(w: &[f32], cols: usize, rule: &Rule) -> Vec<bool> {
    let magnitude = |i: &usize| std::cmp::Reverse(w[*i].to_bits() & MAGNITUDE);
    let mut protected = vec![false; w.len()];
    let lines: Vec<Vec<usize>> = match rule.neurons {
        None => vec![],
        Some(Neurons::Rows) => (0..w.len() / cols).map(|r| (r * cols..(r + 1) * cols).collect()).collect(),
        Some(Neurons::Columns) => (0..cols).map(|c| (c..w.len()).step_by(cols).collect()).collect(),
    };
    for mut line in lines {
        line.sort_by_key(magnitude);
        line.into_iter().take(rule.min_alive).for_each(|i| protected[i] = true);
    }
    let mut order: Vec<usize> = (0..w.len()).collect();
    order.sort_by_key(|i| (!protected[*i], magnitude(i)));
    let mut survives = vec![false; w.len()];
    order.into_iter().take(rule.keep).for_each(|i| survives[i] = true);
    survives
}

/// Checks against the sorted oracle, bit for bit, and returns the bits.
fn check(device: &Device, w: &[f32], cols: usize, rule: &Rule) -> Vec<u32> {
    let mut weight = put(device, &[w.len() / cols, cols], w);
    weight_topk::apply(&mut weight, rule).unwrap();
    let got = weight.read().unwrap();
    let factor = (1.0 - f64::from(rule.decay)) as f32;
    for (i, (survives, &w)) in survivors(w, cols, rule).into_iter().zip(w).enumerate() {
        let want = match survives {
            true if rule.decay == 0.0 => w,
            true => w * factor,
            false => 0.0,
        };
        assert!(
            got[i].to_bits() == want.to_bits() || got[i].is_nan() && want.is_nan(),
            "{}, {} columns, {rule:?}: entry {i} is {:e}, expected {want:e}",
            device.describe(),
            cols,
            got[i],
        );
    }
    got.into_iter().map(f32::to_bits).collect()
}

fn check_all(devices: &[Device], w: &[f32], cols: usize, rules: impl IntoIterator<Item = Rule>) {
    for rule in rules {
        let results: Vec<_> = devices.iter().map(|d| check(d, w, cols, &rule)).collect();
        assert!(results.windows(2).all(|w| w[0] == w[1]), "devices disagree, {cols} columns, {rule:?}");
    }
}

/// Rules with every way of being a neuron and these numbers of survivors.
fn rules(keeps: &[usize], min_alive: usize, decay: f32) -> Vec<Rule> {
    let ways = [None, Some(Neurons::Rows), Some(Neurons::Columns)];
    ways.into_iter()
        .flat_map(|neurons| keeps.iter().map(move |&keep| Rule { keep, min_alive, neurons, decay }))
        .collect()
}

/// Few distinct values, both signs and both zeros: ties everywhere.
fn coarse(rng: &mut impl Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| [0.0, -0.0, 0.25, -0.25, 1.0][rng.random_range(0..5)]).collect()
}

#[test]
fn keeps_what_a_sort_keeps() {
    let devices = kernels();
    let mut rng = rng(1);
    for (rows, cols, min_alive) in
        [(1, 1, 1), (7, 5, 2), (40, 30, 4), (1, 77, 3), (77, 1, 3), (19, 300, 1), (66, 70, 5)]
    {
        let n = rows * cols;
        let keeps = [0, 1, n / 64, n / 3, n - 1, n, n + 9];
        check_all(&devices, &normal(&mut rng, n), cols, rules(&keeps, min_alive, 0.0));
        check_all(&devices, &coarse(&mut rng, n), cols, rules(&keeps, min_alive, 0.0));
    }
}

#[test]
fn several_blocks_with_a_tail() {
    let devices = kernels();
    let mut rng = rng(2);
    let (rows, cols) = (70, 1111);
    for w in [normal(&mut rng, rows * cols), coarse(&mut rng, rows * cols), vec![-0.5; rows * cols]] {
        check_all(&devices, &w, cols, rules(&[cols * rows / 8, 5000, 66_000], 4, 0.01));
    }
}

/// So many entries that the CPU looks for the threshold where a sample expects it.
#[test]
fn a_sample_that_misleads_changes_nothing() {
    let (rows, cols) = (512, 300);
    let n = rows * cols;
    let plain = normal(&mut rng(3), n);
    // Sixteen of every 144 entries are looked at: here they are all larger, or all smaller, than the
    // others.
    let seen = |i: usize| i % 144 / 16 == i / 144 * 7 % 9;
    let mislead = |factor: f32| plain.iter().enumerate().map(move |(i, w)| if seen(i) { w * factor } else { *w });
    for w in [plain.clone(), coarse(&mut rng(4), n), mislead(1e3).collect(), mislead(1e-3).collect()] {
        check_all(&[Device::cpu()], &w, cols, rules(&[1, n / 64, n / 3, n - 1], 4, 0.01));
    }
}

#[test]
fn special_values() {
    let devices = kernels();
    let (rows, cols) = (6, 40);
    for w in [
        vec![0.0; rows * cols],
        vec![-0.0; rows * cols],
        vec![f32::NAN; rows * cols],
        vec![f32::from_bits(u32::MAX); rows * cols],
        (0..rows * cols).map(|i| f32::from_bits(i as u32 / 2)).collect(),
        (0..rows * cols).map(|i| if i % 7 == 0 { f32::NAN } else { f32::MAX / (1 + i) as f32 }).collect(),
        (0..rows * cols).map(|i| if i / cols == 2 { f32::NAN } else { -(i as f32) }).collect(),
    ] {
        check_all(&devices, &w, cols, rules(&[1, 3, 50, 239], 4, 0.0));
    }
}

#[test]
fn with_room_for_all_every_neuron_keeps_its_minimum() {
    // Rows and columns differ in scale, so that plain top-k would kill most of them.
    let mut rng = rng(3);
    let (rows, cols) = (32, 24);
    let mut w = normal(&mut rng, rows * cols);
    w.iter_mut().enumerate().for_each(|(i, w)| *w *= 0.5f32.powi((i / cols + i % cols) as i32));
    for device in kernels() {
        let alive = |neurons| {
            let mut weight = put(&device, &[rows, cols], &w);
            weight_topk::apply(&mut weight, &Rule { keep: 140, min_alive: 4, neurons, decay: 0.0 }).unwrap();
            let w = weight.read().unwrap();
            assert_eq!(w.iter().filter(|w| **w != 0.0).count(), 140);
            let row = |r: usize| w[r * cols..][..cols].iter().filter(|w| **w != 0.0).count();
            let col = |c: usize| w[c..].iter().step_by(cols).filter(|w| **w != 0.0).count();
            ((0..rows).map(row).min().unwrap(), (0..cols).map(col).min().unwrap())
        };
        assert_eq!(alive(None), (0, 0));
        assert_eq!(alive(Some(Neurons::Rows)).0, 4);
        assert_eq!(alive(Some(Neurons::Columns)).1, 4);
    }
}

#[test]
fn more_protected_than_kept_leaves_only_protected() {
    let w = [9.0, 8.0, 7.0, -6.0, 1.0, 2.0, 3.0, -4.0];
    for device in kernels() {
        let mut weight = put(&device, &[2, 4], &w);
        let rule = Rule { keep: 3, min_alive: 2, neurons: Some(Neurons::Rows), decay: 0.5 };
        weight_topk::apply(&mut weight, &rule).unwrap();
        assert_eq!(weight.read().unwrap(), [4.5, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, -2.0]);
    }
}

#[test]
fn a_vector_is_one_row() {
    for device in kernels() {
        let mut bias = put(&device, &[5], &[0.1, -0.3, 0.2, 0.3, 0.0]);
        let rule = Rule { keep: 2, min_alive: 1, neurons: Some(Neurons::Rows), decay: 0.0 };
        weight_topk::apply(&mut bias, &rule).unwrap();
        assert_eq!(bias.read().unwrap(), [0.0, -0.3, 0.0, 0.3, 0.0]);
        let mut empty = put(&device, &[0, 3], &[]);
        weight_topk::apply(&mut empty, &rule).unwrap();
        let cube = &mut put(&device, &[1, 1, 1], &[1.0]);
        assert!(weight_topk::apply(cube, &rule).unwrap_err().to_string().contains("[1, 1, 1]"));
    }
}
