//! Gathers [activation statistics](super::statistics) in two passes over the sequences: moments and
//! quantiles, then histograms and snippets.

use std::collections::{BTreeSet, HashMap};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::statistics::{Activations, BINS, End, NodeStatistics, QUANTILES, SNIPPETS, Snippet, WINDOW};
use super::{Layout, Node};
use crate::model::{Batch, Model, NoHooks, Recorder, Site, Weights};
use crate::observer::{Observer, Stage};
use crate::tape::Tape;
use crate::{Error, Result};

/// Values of a node that are kept to find quantiles among.
pub const RESERVOIR: usize = 1 << 16;
/// Pairs of prompts whose differences are measured, at most: the activations of their
/// counterfactual prompts are held in memory.
pub(crate) const PAIRS: usize = 256;
/// Sequences that run at once.
const BATCH: usize = 8;

/// The statistics of `nodes` in the whole model, over a corpus, clean and counterfactual prompts
/// (see [`super::Statistics::measure`]).
///
/// # Errors
/// Those of [`super::Statistics::measure`].
pub fn node_statistics(
    model: &Model,
    nodes: &[Node],
    sets: [&[Vec<u32>]; 3],
    seed: u64,
    observer: &Observer,
) -> Result<Vec<NodeStatistics>> {
    check_nodes(model, nodes)?;
    gather(nodes, sets, seed, &|set, visit| run(model, nodes, sets[set as usize], visit, observer))
}

/// The sequences that nodes are measured on, in the order of the lists.
#[derive(Clone, Copy)]
pub(crate) enum SequenceSet {
    Corpus,
    Clean,
    Counterfactual,
}

impl SequenceSet {
    const ALL: [Self; 3] = [Self::Corpus, Self::Clean, Self::Counterfactual];
}

/// Called with a node's activations in a sequence: the node's position in the list, the sequence's
/// number, the values `(T)`.
pub(crate) type Visit<'a> = dyn FnMut(usize, usize, &[f32]) + 'a;

/// Visits all activations in one of the sets.
pub(crate) type VisitSet<'a> = dyn Fn(SequenceSet, &mut Visit) -> Result<()> + 'a;

/// The statistics of `nodes` from the activations that `show` visits: twice for each of the three
/// sets, and twice more for the prompts. A node that is never visited has empty statistics.
pub(crate) fn gather(
    nodes: &[Node],
    sets: [&[Vec<u32>]; 3],
    seed: u64,
    show: &VisitSet,
) -> Result<Vec<NodeStatistics>> {
    let mut moments = Vec::new();
    for (set, sequences) in SequenceSet::ALL.into_iter().zip(sets) {
        moments.push(first_pass(nodes, sequences, seed, &|visit| show(set, visit))?);
    }
    let mut differences = differences(nodes, [sets[1], sets[2]], seed, show)?.into_iter();

    let range = |n: usize| {
        let seen = moments.iter().map(|set| &set[n]).filter(|m| m.count > 0);
        let (low, high) = seen.fold((f32::MAX, f32::MIN), |(low, high), m| (low.min(m.min), high.max(m.max)));
        if low <= high { (low, high) } else { (0.0, 0.0) }
    };
    let ranges: Vec<(f32, f32)> = (0..nodes.len()).map(range).collect();
    let mut gathered = Vec::new();
    for ((set, sequences), moments) in SequenceSet::ALL.into_iter().zip(sets).zip(moments) {
        let activations = second_pass(nodes, sequences, &ranges, moments, seed, &|visit| show(set, visit))?;
        gathered.push(activations.into_iter());
    }
    let mut next = |set: SequenceSet| gathered[set as usize].next().unwrap_or_default();
    let entry = |(&node, (low, high))| NodeStatistics {
        node,
        low,
        high,
        corpus: next(SequenceSet::Corpus),
        clean: next(SequenceSet::Clean),
        counterfactual: next(SequenceSet::Counterfactual),
        difference: differences.next(),
    };
    Ok(nodes.iter().zip(ranges).map(entry).collect())
}

/// The statistics of each node's activations in clean prompts minus those in the counterfactual
/// prompts of the same pairs; empty without pairs.
fn differences(
    nodes: &[Node],
    [clean, counterfactual]: [&[Vec<u32>]; 2],
    seed: u64,
    show: &VisitSet,
) -> Result<Vec<Activations>> {
    if clean.is_empty() || counterfactual.is_empty() {
        return Ok(Vec::new());
    }
    // Prompts of different lengths are aligned at their ends.
    let left_out = |(clean, counterfactual): (&Vec<u32>, &Vec<u32>)| clean.len().saturating_sub(counterfactual.len());
    let left_out: Vec<usize> = clean.iter().zip(counterfactual).take(PAIRS).map(left_out).collect();
    let pairs: Vec<Vec<u32>> = clean.iter().zip(&left_out).map(|(prompt, &start)| prompt[start..].to_vec()).collect();
    let visit_differences = |visit: &mut Visit| {
        let mut subtrahends: HashMap<(usize, usize), Vec<f32>> = HashMap::new();
        show(SequenceSet::Counterfactual, &mut |n, pair, values| {
            if pair < pairs.len() {
                subtrahends.insert((n, pair), values.to_vec());
            }
        })?;
        show(SequenceSet::Clean, &mut |n, pair, values| {
            let Some(other) = subtrahends.get(&(n, pair)) else { return };
            let shared = values.len().min(other.len());
            let ends = values[values.len() - shared..].iter().zip(&other[other.len() - shared..]);
            visit(n, pair, &ends.map(|(a, b)| a - b).collect::<Vec<f32>>());
        })
    };
    let moments = first_pass(nodes, &pairs, seed, &visit_differences)?;
    let ranges: Vec<(f32, f32)> = moments.iter().map(|m| (m.min, m.max)).collect();
    let mut differences = second_pass(nodes, &pairs, &ranges, moments, seed, &visit_differences)?;
    for quantile in differences.iter_mut().flat_map(|set| &mut set.quantiles) {
        for snippet in quantile.bottom.snippets.iter_mut().chain(&mut quantile.top.snippets) {
            snippet.start += left_out[snippet.sequence];
        }
    }
    Ok(differences)
}

/// The activations of `nodes` in the whole model, by node and sequence.
///
/// # Errors
/// Those of [`node_statistics`].
pub(crate) fn node_activations(
    model: &Model,
    nodes: &[Node],
    sequences: &[Vec<u32>],
    observer: &Observer,
) -> Result<Vec<Vec<Vec<f32>>>> {
    check_nodes(model, nodes)?;
    let mut all = vec![vec![Vec::new(); sequences.len()]; nodes.len()];
    run(model, nodes, sequences, &mut |n, sequence, values| all[n][sequence] = values.to_vec(), observer)?;
    Ok(all)
}

fn check_nodes(model: &Model, nodes: &[Node]) -> Result<()> {
    let layout = Layout::with_final_resid(&model.config);
    match nodes.iter().find(|node| layout.number(**node).is_none()) {
        Some(node) => Err(Error::Mismatch(format!("the model has no node {node}"))),
        None => Ok(()),
    }
}

/// Runs the model over all sequences and calls `visit` with each node's activations in each.
/// Negative zeros become zeros.
fn run(model: &Model, nodes: &[Node], set: &[Vec<u32>], visit: &mut Visit, observer: &Observer) -> Result<()> {
    if nodes.is_empty() {
        return Ok(());
    }
    let sites: BTreeSet<Site> = nodes.iter().map(Node::site).collect();
    let weights = Weights::constant(model, &[]);
    for (at, chunk) in set.chunks(BATCH).enumerate() {
        let (done, total) = ((at * BATCH) as u64, Some(set.len() as u64));
        observer.advance(&Stage { name: "measuring activations", done, total, unit: "sequences of this pass" })?;
        let longest = chunk.iter().map(Vec::len).max().unwrap_or(0);
        // In a causal model, padding after a sequence does not change activations within it.
        let padded = |sequence: &Vec<u32>| {
            let mut tokens = sequence.clone();
            tokens.resize(longest, 0);
            tokens
        };
        let tokens: Vec<u32> = chunk.iter().flat_map(padded).collect();
        let batch = Batch::new(&model.device, &model.config, &tokens, chunk.len())?;
        let mut recorder = Recorder::of(sites.iter().copied());
        model.forward(&mut Tape::new(), &weights, &batch, &mut recorder)?;
        for (recorded, value) in recorder.values {
            let values = value.value().read()?;
            model.check_finite(recorded, &values, &weights, &batch, &mut NoHooks)?;
            let width = values.len() / (chunk.len() * longest).max(1);
            for (n, node) in nodes.iter().enumerate().filter(|(_, node)| node.site() == recorded) {
                for (b, sequence) in chunk.iter().enumerate() {
                    let rows = (b * longest)..(b * longest + sequence.len());
                    let column: Vec<f32> = rows.map(|row| values[row * width + node.index] + 0.0).collect();
                    visit(n, at * BATCH + b, &column);
                }
            }
        }
    }
    Ok(())
}

/// What the first pass gathers about a node.
#[derive(Clone, Default)]
struct RunningMoments {
    count: u64,
    zeros: u64,
    min: f32,
    max: f32,
    mean: f64,
    /// The sum of squared distances from the mean (Welford's method).
    m2: f64,
    sample: Vec<f32>,
}

impl RunningMoments {
    fn add(&mut self, value: f32) {
        (self.min, self.max) = match self.count {
            0 => (value, value),
            _ => (self.min.min(value), self.max.max(value)),
        };
        self.count += 1;
        self.zeros += u64::from(value == 0.0);
        let from = f64::from(value) - self.mean;
        self.mean += from / self.count as f64;
        self.m2 += from * (f64::from(value) - self.mean);
    }

    /// The value at each quantile, from below and from above.
    fn quantiles(&mut self) -> Vec<[f32; 2]> {
        self.sample.sort_by(f32::total_cmp);
        let last = self.sample.len().saturating_sub(1);
        let rank = |q: f64| (q * last as f64).floor() as usize;
        let at = |rank: usize| self.sample.get(rank).copied().unwrap_or_default();
        QUANTILES.iter().map(|&q| [at(rank(q)), at(last - rank(q))]).collect()
    }
}

/// Where each sequence begins in their concatenation.
fn offsets(set: &[Vec<u32>]) -> (Vec<usize>, usize) {
    let (mut starts, mut total) = (Vec::with_capacity(set.len()), 0);
    for sequence in set {
        starts.push(total);
        total += sequence.len();
    }
    (starts, total)
}

/// Visits everything of one set.
type VisitAll<'a> = dyn Fn(&mut Visit) -> Result<()> + 'a;

fn first_pass(nodes: &[Node], set: &[Vec<u32>], seed: u64, show: &VisitAll) -> Result<Vec<RunningMoments>> {
    let (starts, total) = offsets(set);
    let mut sampled = vec![total <= RESERVOIR; total];
    if total > RESERVOIR {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rand::seq::index::sample(&mut rng, total, RESERVOIR).into_iter().for_each(|at| sampled[at] = true);
    }
    let mut moments = vec![RunningMoments::default(); nodes.len()];
    show(&mut |n, sequence, values| {
        for (t, &value) in values.iter().enumerate() {
            moments[n].add(value);
            if sampled[starts[sequence] + t] {
                moments[n].sample.push(value);
            }
        }
    })?;
    Ok(moments)
}

/// A position near a quantile, ranked by distance, then by hash.
#[derive(Clone)]
struct Candidate {
    distance: f32,
    hash: u64,
    snippet: Snippet,
}

fn second_pass(
    nodes: &[Node],
    set: &[Vec<u32>],
    ranges: &[(f32, f32)],
    mut moments: Vec<RunningMoments>,
    seed: u64,
    show: &VisitAll,
) -> Result<Vec<Activations>> {
    let (starts, _) = offsets(set);
    let goals: Vec<Vec<[f32; 2]>> = moments.iter_mut().map(RunningMoments::quantiles).collect();
    let mut histograms = vec![vec![0u64; BINS]; nodes.len()];
    let mut nearest: Vec<[[Vec<Candidate>; 2]; QUANTILES.len()]> = vec![Default::default(); nodes.len()];
    show(&mut |n, sequence, values| {
        values.iter().filter(|v| **v != 0.0).for_each(|&v| histograms[n][bin(v, ranges[n])] += 1);
        for (goals, lists) in goals[n].iter().zip(&mut nearest[n]) {
            for (&goal, list) in goals.iter().zip(lists) {
                if let Some((distance, hash, t)) = closest(values, goal, |t| mixed(seed, starts[sequence] + t)) {
                    insert(list, (distance, hash), || snippet(&set[sequence], sequence, t, values));
                }
            }
        }
    })?;
    let all = moments.into_iter().zip(goals).zip(histograms.into_iter().zip(nearest));
    Ok(all.map(|((moments, goals), (histogram, nearest))| activations(&moments, &goals, histogram, nearest)).collect())
}

fn activations(
    moments: &RunningMoments,
    goals: &[[f32; 2]],
    histogram: Vec<u64>,
    nearest: [[Vec<Candidate>; 2]; QUANTILES.len()],
) -> Activations {
    let end =
        |value, list: Vec<Candidate>| End { value, snippets: list.into_iter().map(|near| near.snippet).collect() };
    let quantiles = QUANTILES.iter().zip(goals.iter().zip(nearest)).map(|(&quantile, (goals, [bottom, top]))| {
        super::statistics::Quantile { quantile, bottom: end(goals[0], bottom), top: end(goals[1], top) }
    });
    Activations {
        count: moments.count,
        zeros: moments.zeros,
        min: moments.min,
        max: moments.max,
        mean: moments.mean,
        std: (moments.m2 / moments.count.max(1) as f64).sqrt(),
        histogram,
        quantiles: quantiles.collect(),
    }
}

/// The histogram's bin of a value in the range.
fn bin(value: f32, (low, high): (f32, f32)) -> usize {
    let (value, low, high) = (f64::from(value), f64::from(low), f64::from(high));
    let position = (value - low) / (high - low) * BINS as f64;
    // A range of one value divides zero by zero; the cast makes that 0.
    (position as usize).min(BINS - 1)
}

/// The position of a sequence whose value is closest to `goal`, with its distance and hash: of
/// equals the one with the least hash.
fn closest(values: &[f32], goal: f32, hash: impl Fn(usize) -> u64) -> Option<(f32, u64, usize)> {
    let mut best: Option<(f32, u64, usize)> = None;
    for (t, value) in values.iter().enumerate() {
        let distance = (value - goal).abs();
        if best.is_none_or(|(least, ..)| distance <= least) {
            let hash = hash(t);
            if best.is_none_or(|(least, other, _)| (distance, hash) < (least, other)) {
                best = Some((distance, hash, t));
            }
        }
    }
    best
}

/// Inserts a position into the list, if it is among the nearest.
fn insert(list: &mut Vec<Candidate>, (distance, hash): (f32, u64), snippet: impl FnOnce() -> Snippet) {
    let at = list.partition_point(|near| (near.distance, near.hash) < (distance, hash));
    if at < SNIPPETS {
        list.insert(at, Candidate { distance, hash, snippet: snippet() });
        list.truncate(SNIPPETS);
    }
}

/// The window around position `t` of a sequence.
pub(crate) fn snippet(tokens: &[u32], sequence: usize, t: usize, values: &[f32]) -> Snippet {
    let length = tokens.len().min(WINDOW);
    let start = t.saturating_sub(WINDOW / 2).min(tokens.len() - length);
    let (tokens, activations) = (&tokens[start..start + length], &values[start..start + length]);
    Snippet { sequence, start, position: t - start, tokens: tokens.to_vec(), activations: activations.to_vec() }
}

/// A hash of a position (the finaliser of SplitMix64).
fn mixed(seed: u64, position: usize) -> u64 {
    let mut x = seed.wrapping_add((position as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
