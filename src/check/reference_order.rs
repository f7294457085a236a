//! Which of more protected weights than places the golden runs kept.
//!
//! Where min-alive protects more weights than may survive, the method leaves the choice open. The product keeps the largest.
//! The golden runs came from a library that held all protected weights for equally (infinitely) large and kept those that
//! its selection happened to bring to the front: C++'s `nth_element` as GNU's library does it (quickselect with the median
//! of three as pivot). To follow a golden run past such a step, the check repeats that choice. Nothing else uses this.

use crate::device::Tensor;
use crate::model::{Kind, Parameter, Parameters};
use crate::ops::weight_topk::Neurons;
use crate::sparsity::{self, Schedule};
use crate::{Error, Result};

/// As [`sparsity::enforce`], but with the golden runs' choice for those matrices where more weights are protected than may
/// survive. Returns how many these were.
pub(super) fn enforce(
    parameters: &mut Parameters,
    schedule: &Schedule,
    at: (u64, u64),
    weight_decay_lr: f32,
) -> Result<usize> {
    let mut chosen = Vec::new();
    for (i, Parameter { kind, value, .. }) in parameters.iter().enumerate() {
        let (Kind::Hidden(neurons), &[rows, columns]) = (kind, value.shape()) else { continue };
        let keep = (schedule.density(at.0, at.1) * value.len() as f64).floor() as usize;
        let (count, width) = match neurons {
            Neurons::Rows => (rows, columns),
            Neurons::Columns => (columns, rows),
        };
        if count * schedule.min_alive.min(width) > keep {
            chosen.push((i, select(value, *neurons, schedule.min_alive, keep, weight_decay_lr)?));
        }
    }
    sparsity::enforce(parameters, schedule, at, weight_decay_lr)?;
    let count = chosen.len();
    for (i, data) in chosen {
        if let Some(p) = parameters.iter_mut().nth(i) {
            p.value.write(&data)?;
        }
    }
    Ok(count)
}

fn select(weight: &Tensor, neurons: Neurons, min_alive: usize, keep: usize, decay: f32) -> Result<Vec<f32>> {
    let (rows, columns) = weight.rows_cols();
    let mut data = weight.read()?;
    let mut keys: Vec<(f32, usize)> = data.iter().map(|w| w.abs()).zip(0..).collect();
    let lines: Vec<Vec<usize>> = match neurons {
        Neurons::Rows => (0..rows).map(|r| (0..columns).map(|c| r * columns + c).collect()).collect(),
        Neurons::Columns => (0..columns).map(|c| (0..rows).map(|r| r * columns + c).collect()).collect(),
    };
    for line in lines {
        let mut line: Vec<Item> = line.into_iter().map(|i| keys[i]).collect();
        nth_element(&mut line, min_alive.saturating_sub(1))?;
        line.iter().take(min_alive).for_each(|&(_, i)| keys[i].0 = f32::INFINITY);
    }
    nth_element(&mut keys, keep.saturating_sub(1))?;
    let mut survives = vec![false; data.len()];
    keys[..keep].iter().for_each(|&(_, i)| survives[i] = true);
    for (w, survives) in data.iter_mut().zip(survives) {
        *w = if survives { *w - decay * *w } else { 0.0 };
    }
    Ok(data)
}

type Item = (f32, usize);

fn before(a: Item, b: Item) -> bool {
    a.0 > b.0
}

/// Brings the `nth + 1` first items in descending order to the front, ties as GNU's library leaves them.
fn nth_element(items: &mut [Item], nth: usize) -> Result<()> {
    let (mut first, mut last) = (0, items.len());
    let mut depth = 2 * items.len().max(1).ilog2();
    while last - first > 3 {
        if depth == 0 {
            return Err(Error::Text("the golden run's selection cannot be followed".into()));
        }
        depth -= 1;
        let middle = first + (last - first) / 2;
        median_to_first(items, first, [first + 1, middle, last - 1]);
        let cut = partition(items, first + 1, last, items[first]);
        if cut <= nth { first = cut } else { last = cut }
    }
    for i in first + 1..last {
        let mut j = i;
        while j > first && before(items[j], items[j - 1]) {
            items.swap(j, j - 1);
            j -= 1;
        }
    }
    Ok(())
}

fn median_to_first(items: &mut [Item], result: usize, [a, b, c]: [usize; 3]) {
    let less = |x: usize, y: usize| before(items[x], items[y]);
    let median = match less(a, b) {
        true if less(b, c) => b,
        true if less(a, c) => c,
        true => a,
        false if less(a, c) => a,
        false if less(b, c) => c,
        false => b,
    };
    items.swap(result, median);
}

fn partition(items: &mut [Item], mut first: usize, mut last: usize, pivot: Item) -> usize {
    loop {
        while before(items[first], pivot) {
            first += 1;
        }
        last -= 1;
        while before(pivot, items[last]) {
            last -= 1;
        }
        if first >= last {
            return first;
        }
        items.swap(first, last);
        first += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_to_the_front() {
        let mut items: Vec<Item> = (0..101).map(|i| (((i * 37) % 101) as f32, i)).collect();
        nth_element(&mut items, 9).unwrap();
        let mut front: Vec<_> = items[..10].iter().map(|i| i.0 as usize).collect();
        front.sort_unstable();
        assert_eq!(front, (91..101).collect::<Vec<_>>());
    }
}
