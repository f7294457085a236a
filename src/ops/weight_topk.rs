//! Weight top-k: exactly `keep` entries of a matrix survive, with a minimum per neuron, and then
//! decay. In place.
//!
//! Every entry has a key, a `u32`: its magnitude bits (see [`super::abs_topk`] for their order),
//! and as highest bit whether it is protected. The `min_alive` largest entries of each neuron are
//! protected (equal ones: the lowest index first). The `keep` largest keys survive (equal ones: the
//! lowest flat index first). So protected entries go first, and if they are more than `keep`, the
//! largest of *them* survive and nothing else.
//!
//! The protected entries are never stored: a neuron's are told from the others by two numbers, its
//! cut, and keys are computed from the weights whenever they are needed. The `keep`-th largest key
//! is found by a radix search.
//!
//! Decay multiplies by `1 − decay`, rounded once, rather than subtract a product, which some GPUs
//! would fuse and some not: all devices give the same bits.
//!
//! No gradient: it follows the optimizer's step.

use std::ops::RangeInclusive;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::abs_topk::{Cut, MAGNITUDE};
use super::{pack, together};
use crate::device::cpu::{arch, rows_per_block, vectorised};
use crate::device::{Backend, Launch, Queue, Shader, Tensor, Together, params};
use crate::{Error, Result};

params! {
    struct MatrixParams {
        first: u32,
        n: u32,
        cols: u32,
        neurons: u32,
        protect: u32,
        keep: u32,
        shift: u32,
        blocks: u32,
        cuts: u32,
        ties: u32,
        decays: u32,
        factor: f32,
    }
}

pub(super) const SHADER: Shader = Shader::new("weight_topk", include_str!("../../shaders/weight_topk.wgsl"));

/// The key's bit for protected entries.
const PROTECTED: u32 = 1 << 31;

/// Entries that one workgroup of the counting kernels handles.
const BLOCK: usize = 4096;

/// Which lines of a weight matrix belong to one neuron or attention channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neurons {
    /// One neuron a row: c_fc and c_attn.
    Rows,
    /// One neuron a column: both c_proj.
    Columns,
}

/// Which entries survive, and how they decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// How many entries survive; as many as there are, or more, for all.
    pub keep: usize,
    /// How many entries of each neuron survive before all others; 0 for none.
    pub min_alive: usize,
    /// What a neuron is; `None`: `min_alive` has no effect.
    pub neurons: Option<Neurons>,
    /// Survivors lose this fraction of themselves (weight decay times learning rate); 0 for none.
    pub decay: f32,
}

impl Rule {
    fn factor(&self) -> f32 {
        (1.0 - f64::from(self.decay)) as f32
    }
}

/// Zeroes all entries of `weight: (R, C)`, or `(C)` as one row, but those that `rule` keeps, and
/// decays these.
///
/// # Errors
/// [`Error::Shape`] for a tensor of more dimensions; [`Error::Device`] if `weight` has clones.
pub fn apply(weight: &mut Tensor, rule: &Rule) -> Result<()> {
    apply_all(&mut [(weight, *rule)])
}

/// As [`apply`], each to its own rule. On a GPU, matrices that were allocated together take as many
/// launches as one does.
///
/// # Errors
/// Those of [`apply`]; all shapes are looked at before anything is changed.
pub fn apply_all(weights: &mut [(&mut Tensor, Rule)]) -> Result<()> {
    if let Some((weight, _)) = weights.iter().find(|(weight, _)| weight.shape().len() > 2) {
        return Err(Error::shape("weight_topk", format!("{:?} is neither a matrix nor a vector", weight.shape())));
    }
    let mut matrices: Vec<Matrix> = Vec::new();
    for (weight, rule) in weights {
        let (rows, cols) = weight.rows_cols();
        if rule.keep == 0 || weight.is_empty() {
            weight.clear()?;
            continue;
        }
        // Lines that are protected whole, as in a matrix narrower than `min_alive`, all rank alike.
        let neurons = rule.neurons.filter(|n| {
            let extent = if *n == Neurons::Rows { cols } else { rows };
            (1..extent).contains(&rule.min_alive)
        });
        match weight.backend() {
            Backend::Gpu(_) => matrices.push(Matrix { weight, neurons, rule }),
            Backend::Meta => {}
            Backend::Cpu => select_cpu(weight.as_mut_slice()?, cols, neurons, rule),
        }
    }
    let Some(Backend::Gpu(queue)) = matrices.first().map(|m| m.weight.backend()) else { return Ok(()) };
    select_gpu(queue, &matrices)
}

/// A matrix on a GPU, of which some entries survive.
struct Matrix<'a> {
    weight: &'a Tensor,
    neurons: Option<Neurons>,
    rule: &'a Rule,
}

impl Matrix<'_> {
    /// Workgroups of the kernels that count.
    fn blocks(&self) -> usize {
        self.weight.len().div_ceil(BLOCK)
    }

    /// How many neurons protect entries.
    fn lines(&self) -> usize {
        let (rows, cols) = self.weight.rows_cols();
        match self.neurons {
            None => 0,
            Some(Neurons::Rows) => rows,
            Some(Neurons::Columns) => cols,
        }
    }

    /// Workgroups that find the protected entries: one takes a row, or 16 columns.
    fn protecting_groups(&self) -> usize {
        self.lines().div_ceil(if self.neurons == Some(Neurons::Columns) { 16 } else { 1 })
    }
}

/// What a launch knows of each matrix of a group.
fn rows<'a>(group: &'a [&'a Matrix<'a>], shift: u32) -> impl Iterator<Item = MatrixParams> + 'a {
    let (mut cuts, mut ties) = (0, 0);
    group.iter().map(move |m| {
        let row = MatrixParams {
            first: m.weight.offset() as u32,
            n: m.weight.len() as u32,
            cols: m.weight.rows_cols().1 as u32,
            neurons: match m.neurons {
                None => 0,
                Some(Neurons::Rows) => 1,
                Some(Neurons::Columns) => 2,
            },
            protect: m.rule.min_alive as u32,
            keep: m.rule.keep as u32,
            shift,
            blocks: m.blocks() as u32,
            cuts: cuts as u32,
            ties: ties as u32,
            decays: u32::from(m.rule.decay != 0.0),
            factor: m.rule.factor(),
        };
        cuts += 2 * m.lines();
        ties += m.blocks();
        row
    })
}

fn launch(kernel: &'static str, rows: impl Iterator<Item = MatrixParams>) -> Launch {
    Launch::table::<MatrixParams, MATRICES>(&SHADER, kernel, rows)
}

fn weights<'a>(group: &[&'a Matrix]) -> Vec<&'a Tensor> {
    group.iter().map(|m| m.weight).collect()
}

/// Entries of the largest matrix of a group, and of all.
fn extent(group: &[&Matrix]) -> (usize, usize) {
    let lengths = || group.iter().map(|m| m.weight.len());
    (lengths().max().unwrap_or_default(), lengths().sum())
}

/// Matrices that one launch can handle, as in the shader.
const MATRICES: usize = 64;

fn select_gpu(queue: Queue, matrices: &[Matrix]) -> Result<()> {
    let groups = |which: &dyn Fn(&Matrix) -> bool| {
        together::groups(matrices.iter().filter(|m| which(m)), MATRICES, |m| m.weight, Matrix::blocks)
    };
    let all_stay = |m: &Matrix| m.rule.keep >= m.weight.len();
    groups(&|m| !all_stay(m)).iter().try_for_each(|group| select_group(queue, group))?;
    for group in groups(&|m| all_stay(m) && m.rule.decay != 0.0) {
        let (n, all) = extent(&group);
        launch("decay", rows(&group, 0)).bind(&[&Together(&weights(&group))]).threads(n, 256).cost(all).run(queue)?;
    }
    Ok(())
}

fn select_group(queue: Queue, group: &[&Matrix]) -> Result<()> {
    let device = group[0].weight.device();
    let (n, all) = extent(group);
    let blocks = n.div_ceil(BLOCK);
    let lines: usize = group.iter().map(|m| m.lines()).sum();
    let protected: usize = group.iter().map(|m| 4 * m.rule.min_alive * m.weight.len()).sum();
    let cuts = device.empty::<u32>("weight_topk cuts", &[lines.max(1), 2])?;
    let state = device.empty::<u32>("weight_topk state", &[group.len(), 3])?;
    let bins = device.zeros::<u32>("weight_topk bins", &[group.len(), 256])?;
    let ties = device.empty::<u32>("weight_topk ties", &[group.iter().map(|m| m.blocks()).sum()])?;
    let weights = weights(group);
    let weights = Together(&weights);
    let kernel = |name, shift| launch(name, rows(group, shift));
    let across = group.iter().map(|m| m.protecting_groups()).max().unwrap_or_default();
    kernel("protect", 0).bind(&[&weights, &cuts]).workgroups(across).cost(protected).run(queue)?;
    for shift in [24, 16, 8, 0] {
        let histogram = kernel("histogram", shift).bind(&[&weights, &cuts, &state, &bins]);
        histogram.workgroups(blocks).cost(8 * all).run(queue)?;
        kernel("pick", shift).bind(&[&state, &bins]).workgroups(1).cost(BLOCK * group.len()).run(queue)?;
    }
    let count_ties = kernel("count_ties", 0).bind(&[&weights, &cuts, &state, &ties]);
    count_ties.workgroups(blocks).cost(8 * all).run(queue)?;
    let locate = kernel("locate", 0).bind(&[&weights, &cuts, &ties, &state]);
    locate.workgroups(1).cost(BLOCK * group.len() + ties.len()).run(queue)?;
    kernel("apply", 0).bind(&[&weights, &cuts, &state]).threads(n, 256).cost(8 * all).run(queue)
}

fn select_cpu(weight: &mut [f32], cols: usize, neurons: Option<Neurons>, rule: &Rule) {
    let factor = (rule.decay != 0.0).then(|| rule.factor());
    let keys = Keys::new(weight, cols, neurons, rule.min_alive);
    if rule.keep >= weight.len() {
        if let Some(factor) = factor {
            weight.par_chunks_mut(rows_per_block(1)).for_each(|w| vectorised!(w.iter_mut().for_each(|w| *w *= factor)));
        }
        return;
    }
    let (threshold, bound) = threshold(weight, &keys, rule.keep);
    weight.par_chunks_mut(keys.block).enumerate().for_each(|(b, block)| {
        vectorised!({
            let mut buffer = [0u32; PIECE];
            let mut start = b * keys.block;
            for piece in keys.pieces_mut(block) {
                let keys = keys.fill(piece, start, &mut buffer);
                let ties = bound.saturating_sub(start).min(piece.len());
                let (early, late) = piece.split_at_mut(ties);
                survive(early, &keys[..ties], threshold, factor);
                // No key is above u32::MAX, should the threshold be that.
                match threshold.checked_add(1) {
                    Some(above) => survive(late, &keys[ties..], above, factor),
                    None => late.fill(0.0),
                }
                start += piece.len();
            }
        })
    });
}

#[inline(always)]
fn survive(w: &mut [f32], keys: &[u32], least: u32, factor: Option<f32>) {
    match factor {
        Some(factor) => w.iter_mut().zip(keys).for_each(|(w, &k)| *w = if k >= least { *w * factor } else { 0.0 }),
        None => w.iter_mut().zip(keys).for_each(|(w, &k)| *w = if k >= least { *w } else { 0.0 }),
    }
}

/// The key's leading bits by which [`threshold`] first sorts all entries: protection, exponent, and
/// five bits more.
const DIGIT: u32 = 14;

/// The `keep`-th largest key (1 <= keep < length), and one past the flat index of the last survivor
/// that equals it.
///
/// Most entries are told from the threshold at sight: by where a sample of them expects it or, should
/// that fail, by their leading digit. The few others are gathered and searched.
fn threshold(weight: &[f32], keys: &Keys, keep: usize) -> (u32, usize) {
    let expected = keys.expect(weight, keep).and_then(|range| {
        let (above, near) = keys.gather(weight, range);
        (above < keep && keep - above <= near.len()).then(|| (keep - above, near))
    });
    let (mut remaining, mut near) = expected.unwrap_or_else(|| {
        let bins = keys.histogram(weight);
        let mut remaining = keep;
        let mut digit = bins.len() - 1;
        while digit > 0 && remaining > bins[digit] {
            remaining -= bins[digit];
            digit -= 1;
        }
        let first = (digit as u32) << (32 - DIGIT);
        (remaining, keys.gather(weight, first..=first | (u32::MAX >> DIGIT)).1)
    });
    let (larger, &mut found, _) = near.select_nth_unstable_by(remaining - 1, |a, b| b.cmp(a));
    remaining -= larger.iter().filter(|&&k| k > found).count();
    let equal = near.iter().filter(|&&k| k == found).count();
    (found, if equal == remaining { weight.len() } else { keys.nth(weight, found, remaining) })
}

/// Entries of a sample of keys, about; a matrix of fewer than eight times as many is not sampled.
const SAMPLE: usize = 1 << 14;

/// Entries whose keys are made at once: 4 KiB of keys, in the first-level cache.
const PIECE: usize = 1024;

/// The keys of a matrix, as functions of its entries.
struct Keys {
    cols: usize,
    /// Entries that a thread takes at once: whole rows where rows matter.
    block: usize,
    cuts: Cuts,
}

enum Cuts {
    None,
    Rows(Vec<Cut>),
    /// The cuts' magnitudes, and their bounds.
    Columns(Vec<u32>, Vec<u32>),
}

impl Keys {
    fn new(weight: &[f32], cols: usize, neurons: Option<Neurons>, protect: usize) -> Self {
        let cuts = match neurons {
            None => return Self { cols: PIECE, block: rows_per_block(PIECE) * PIECE, cuts: Cuts::None },
            Some(Neurons::Rows) => Cuts::Rows(weight.par_chunks(cols).map(|row| Cut::of_few(row, protect)).collect()),
            Some(Neurons::Columns) => {
                let (mut magnitudes, mut bounds) = (vec![0; cols], vec![0; cols]);
                // Wide strips read memory best, several keep all threads busy.
                let strip = (cols / 8).next_multiple_of(16).clamp(16, 512);
                let strips = magnitudes.par_chunks_mut(strip).zip(bounds.par_chunks_mut(strip)).enumerate();
                strips.for_each(|(s, (magnitudes, bounds))| {
                    vectorised!(cut_columns(&weight[s * strip..], cols, protect, magnitudes, bounds))
                });
                Cuts::Columns(magnitudes, bounds)
            }
        };
        Self { cols, block: rows_per_block(cols) * cols, cuts }
    }

    /// A block of [`Keys::block`] entries in pieces that lie within one row and fit the key buffer.
    #[inline(always)]
    fn pieces<'a>(&self, block: &'a [f32]) -> impl Iterator<Item = &'a [f32]> {
        block.chunks(self.cols).flat_map(|row| row.chunks(PIECE))
    }

    #[inline(always)]
    fn pieces_mut<'a>(&self, block: &'a mut [f32]) -> impl Iterator<Item = &'a mut [f32]> {
        block.chunks_mut(self.cols).flat_map(|row| row.chunks_mut(PIECE))
    }

    /// The keys of `piece`, whose first entry has flat index `start`.
    #[inline(always)]
    fn fill<'a>(&self, piece: &[f32], start: usize, buffer: &'a mut [u32; PIECE]) -> &'a [u32] {
        let keys = &mut buffer[..piece.len()];
        let (row, col) = (start / self.cols, start % self.cols);
        match &self.cuts {
            Cuts::None => keys.iter_mut().zip(piece).for_each(|(k, w)| *k = w.to_bits() & MAGNITUDE),
            Cuts::Rows(cuts) => {
                let cut = cuts[row];
                for (i, (k, w)) in keys.iter_mut().zip(piece).enumerate() {
                    *k = key(w, cut.magnitude, cut.bound, (col + i) as u32);
                }
            }
            Cuts::Columns(magnitudes, bounds) => {
                let (magnitudes, bounds) = (&magnitudes[col..][..piece.len()], &bounds[col..][..piece.len()]);
                for (i, (k, w)) in keys.iter_mut().zip(piece).enumerate() {
                    *k = key(w, magnitudes[i], bounds[i], row as u32);
                }
            }
        }
        keys
    }

    /// How many keys have each leading digit. Integer sums: the threads' order does not matter.
    fn histogram(&self, weight: &[f32]) -> Vec<usize> {
        let none = || vec![0u32; 1 << DIGIT];
        let count = |mut bins: Vec<u32>, (b, block): (usize, &[f32])| {
            vectorised!({
                let mut start = b * self.block;
                let mut buffer = [0u32; PIECE];
                for piece in self.pieces(block) {
                    for &key in self.fill(piece, start, &mut buffer) {
                        bins[(key >> (32 - DIGIT)) as usize] += 1;
                    }
                    start += piece.len();
                }
            });
            bins
        };
        let sum = |mut a: Vec<usize>, b: Vec<u32>| {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b as usize);
            a
        };
        let parts: Vec<Vec<u32>> = weight.par_chunks(self.block).enumerate().fold(none, count).collect();
        parts.into_iter().fold(vec![0; 1 << DIGIT], sum)
    }

    /// Where a sample expects the `keep`-th largest key, except once in a billion times; nothing if
    /// there are too few to sample.
    fn expect(&self, weight: &[f32], keep: usize) -> Option<RangeInclusive<u32>> {
        const RUN: usize = 16;
        let step = weight.len() / SAMPLE * RUN;
        if step < 8 * RUN {
            return None;
        }
        let (mut sample, mut buffer) = (Vec::with_capacity(SAMPLE + RUN), [0u32; PIECE]);
        for (number, start) in (0..weight.len()).step_by(step).enumerate() {
            // Not always the same columns.
            let start = start + number * 7 % (step / RUN) * RUN;
            let end = weight.len().min(start + RUN).min((start / self.cols + 1) * self.cols);
            if let Some(run) = weight.get(start..end) {
                sample.extend_from_slice(self.fill(run, start, &mut buffer));
            }
        }
        let share = keep as f64 / weight.len() as f64;
        let expected = share * sample.len() as f64;
        let margin = 6.0 * (expected * (1.0 - share)).sqrt() + 8.0;
        let mut ranked = |rank: f64| {
            let rank = rank.round() as usize;
            (rank < sample.len()).then(|| *sample.select_nth_unstable_by(rank, |a, b| b.cmp(a)).1)
        };
        let high = if expected > margin { ranked(expected - margin) } else { None };
        Some(ranked(expected + margin).unwrap_or(0)..=high.unwrap_or(u32::MAX))
    }

    /// How many keys are above `range`, and those in it, in no particular order.
    fn gather(&self, weight: &[f32], range: RangeInclusive<u32>) -> (usize, Vec<u32>) {
        let add = |(above, mut near): (usize, Vec<u32>), (b, block): (usize, &[f32])| {
            let range = range.clone().into_inner();
            let more = arch().dispatch(Gather { keys: self, block, start: b * self.block, range, near: &mut near });
            (above + more, near)
        };
        let parts = weight.par_chunks(self.block).enumerate().fold(|| (0, Vec::new()), add);
        let sum = |(a, mut near): (usize, Vec<u32>), (b, more): (usize, Vec<u32>)| {
            near.extend_from_slice(&more);
            (a + b, near)
        };
        parts.reduce(|| (0, Vec::new()), sum)
    }

    /// One past the flat index of the `n`-th key equal to `key`.
    fn nth(&self, weight: &[f32], key: u32, n: usize) -> usize {
        let equal: Vec<usize> = weight
            .par_chunks(self.block)
            .enumerate()
            .map(|(b, block)| {
                vectorised!({
                    let mut buffer = [0u32; PIECE];
                    let mut start = b * self.block;
                    let mut equal = 0;
                    for piece in self.pieces(block) {
                        let keys = self.fill(piece, start, &mut buffer);
                        equal += keys.iter().map(|&k| u32::from(k == key)).sum::<u32>() as usize;
                        start += piece.len();
                    }
                    equal
                })
            })
            .collect();
        let mut remaining = n;
        let mut b = 0;
        while remaining > equal[b] {
            remaining -= equal[b];
            b += 1;
        }
        let mut start = b * self.block;
        let mut buffer = [0u32; PIECE];
        for piece in self.pieces(&weight[start..]) {
            for &k in self.fill(piece, start, &mut buffer) {
                start += 1;
                remaining -= usize::from(k == key);
                if remaining == 0 {
                    return start;
                }
            }
        }
        start
    }
}

/// Adds to `near` the keys within a range of a block that begins at flat index `start`; gives how
/// many are above.
struct Gather<'a> {
    keys: &'a Keys,
    block: &'a [f32],
    start: usize,
    range: (u32, u32),
    near: &'a mut Vec<u32>,
}

impl WithSimd for Gather<'_> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        let Self { keys, block, mut start, range, near } = self;
        let (mut buffer, mut found) = ([0u32; PIECE], [0u32; PIECE + pack::SLACK]);
        let mut above = 0;
        for piece in keys.pieces(block) {
            let (more, n) = pack::between::<S>(keys.fill(piece, start, &mut buffer), u32::MAX, range, &mut found);
            above += more;
            near.extend_from_slice(&found[..n]);
            start += piece.len();
        }
        above
    }
}

#[inline(always)]
fn key(w: &f32, cut: u32, bound: u32, position: u32) -> u32 {
    let magnitude = w.to_bits() & MAGNITUDE;
    let safe = (magnitude > cut) | ((magnitude == cut) & (position < bound));
    magnitude | if safe { PROTECTED } else { 0 }
}

/// The cuts that keep `k` entries (1 <= k < rows) of some neighbouring columns; `weight` begins at
/// the first of them.
#[inline(always)]
fn cut_columns(weight: &[f32], cols: usize, k: usize, magnitudes: &mut [u32], bounds: &mut [u32]) {
    let width = magnitudes.len();
    // The k + 1 largest of each column, in descending order, pushed down by every larger newcomer.
    let mut best = vec![0u32; (k + 1) * width];
    let mut new = vec![0u32; width];
    for row in weight.chunks(cols) {
        new.iter_mut().zip(&row[..width]).for_each(|(n, w)| *n = w.to_bits() & MAGNITUDE);
        for held in best.chunks_exact_mut(width) {
            for (held, new) in held.iter_mut().zip(&mut new) {
                (*held, *new) = ((*held).max(*new), (*held).min(*new));
            }
        }
    }
    let (best, next) = best.split_at(k * width);
    magnitudes.copy_from_slice(&best[(k - 1) * width..]);
    bounds.fill(u32::MAX);
    if magnitudes.iter().zip(next).all(|(m, n)| m > n) {
        return;
    }
    // Some column has equal entries on both sides of its cut: the first ones are in.
    let mut need = vec![0u32; width];
    for held in best.chunks_exact(width) {
        need.iter_mut().zip(held).zip(&*magnitudes).for_each(|((n, h), m)| *n += u32::from(h == m));
    }
    for (r, row) in weight.chunks(cols).enumerate() {
        for (c, w) in row[..width].iter().enumerate() {
            let equal = w.to_bits() & MAGNITUDE == magnitudes[c] && need[c] > 0;
            need[c] -= u32::from(equal);
            bounds[c] = if equal { r as u32 + 1 } else { bounds[c] };
        }
    }
}
