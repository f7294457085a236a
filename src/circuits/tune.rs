//! Pruning's hyper-parameters by random search around given ones and near the best (method: section
//! 4).
//!
//! The search is our own: the crates for it either optimise one number by itself, or are young and
//! would add more than the forty lines they replace.

use std::cmp::Ordering;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::prune::{self, SearchSettings};
use super::search::{CircuitSearch, OnStep, Ranking, SearchPlan, SearchResult};
use super::tasks::Task;
use super::{graph, parallel};
use crate::files::write_atomic;
use crate::{Error, Result};

/// One circuit that was tried, and what it was found with.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Its number; the first has the given settings.
    pub number: u64,
    /// The settings.
    pub settings: SearchSettings,
    /// Nodes.
    pub nodes: usize,
    /// Edges.
    pub edges: usize,
    /// The calibrated task loss on train pairs, in nats.
    pub loss: f64,
    /// Whether it holds on train templates that it was not chosen by.
    pub holds: bool,
    /// Whether no other that holds is smaller and has a lower loss.
    pub on_front: bool,
}

/// Prunes with the settings of `plan` and with random ones, `plan.trials` of them or until
/// `plan.minutes` have passed, and returns the smallest circuit that holds on train templates that
/// it was not chosen by: the one with the fewest nodes and edges together, of equals the one with
/// the lower loss on the train pairs. With `plan.clean_up`, a [local search](super::local_search)
/// with the nodes of all trials' circuits follows for the best trials.
///
/// Each trial multiplies lr, k_coef, weight_decay, temperature and the deviation of tau at the start
/// by random factors, log-uniform between 1/10 and 10 (lr and temperature: 1/4 and 4), draws the
/// mean of tau at the start from (0, 0.5), beta2 from (0.9, 0.999), log-uniform in 1 − beta2, and
/// the warm-up from (0, 0.3), and uses another seed. After the first [`ROUND`] trials every second
/// one starts from a trial on the Pareto front of size and loss instead, with factors of a quarter
/// the width. A trial depends on the seed, its number and the rounds before.
pub(crate) fn tune(search: &CircuitSearch, task: &Task, plan: &SearchPlan, on_step: &OnStep) -> Result<SearchResult> {
    plan.validate()?;
    let device = &search.model.device;
    let (start, budget) = (Instant::now(), Duration::try_from_secs_f64(60.0 * plan.minutes).unwrap_or(Duration::MAX));
    let over = || plan.minutes > 0.0 && start.elapsed() >= budget;
    let last = if plan.trials > 0 { plan.trials } else { u64::MAX };
    let (mut done, mut failure) = (Vec::new(), None);
    let mut first = 0;
    while first <= last && (first == 0 || !over()) {
        let count = ROUND.min((last - first).saturating_add(1));
        let front: Vec<SearchSettings> =
            front(&done).into_iter().map(|at: usize| done[at].settings().clone()).collect();
        let results = parallel::map(device, count as usize, |at| {
            let number = first + at as u64;
            if number > 0 && over() {
                return Ok(None);
            }
            let settings = propose(&plan.settings, &front, number);
            // The local search comes last, with the nodes of all trials.
            let without = SearchSettings { local_search_max: 0, ..settings.clone() };
            let scores = search.rank(task, &without, Ranking::Learned, on_step)?;
            let result = search.choose(task, &without, scores, plan.clean_up)?;
            let candidate = Candidate::new(search, number, SearchResult { settings, ..result })?;
            tracing::debug!("{}: trial {number}, {} nodes, {} edges", task.name, candidate.nodes, candidate.edges);
            Ok(Some(candidate))
        })?;
        for result in results {
            match result {
                Ok(candidate) => done.extend(candidate),
                // Other settings may find what these did not.
                Err(error @ Error::UnreachableTarget { .. }) => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
        first += count;
    }
    let trials = table(&done);
    done.sort_by(Candidate::compare);
    let in_some = |n: &usize| done.iter().any(|candidate| candidate.result.keep[*n]);
    let pool: Vec<usize> = (0..search.nodes.layout.len()).filter(in_some).collect();
    done.truncate(if plan.clean_up { REFINED } else { 1 });
    let refined = parallel::map(device, done.len(), |at| {
        let Candidate { number, result, .. } = done[at].clone();
        Candidate::new(search, number, if plan.clean_up { search.local_search(task, result, &pool)? } else { result })
    })?;
    let best = refined.into_iter().collect::<Result<Vec<_>>>()?.into_iter().min_by(Candidate::compare);
    // Without a trial that succeeded, at least one has failed.
    best.map(|best| SearchResult { trials, ..best.result }).ok_or_else(|| failure.unwrap_or(Error::Stopped))
}

/// Writes trials as a table, a line each.
///
/// # Errors
/// [`Error::Io`].
pub fn write_trials(path: &Path, trials: &[Trial]) -> Result<()> {
    let mut text = String::from(
        "trial,nodes,edges,loss,holds,on_front,lr,warmup_frac,k_coef,weight_decay,beta2,temperature,start_mean,\
         start_deviation,seed\n",
    );
    for trial in trials {
        let Trial { number, settings, nodes, edges, loss, holds, on_front } = trial;
        let SearchSettings { lr, warmup_frac, k_coef, weight_decay, beta2, temperature, start, seed, .. } = settings;
        let (mean, deviation) = start;
        text += &format!(
            "{number},{nodes},{edges},{loss},{holds},{on_front},{lr},{warmup_frac},{k_coef},{weight_decay},{beta2},\
             {temperature},{mean},{deviation},{seed}\n"
        );
    }
    write_atomic(path, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io(path, e)))
}

/// How many trials do not learn from each other.
pub const ROUND: u64 = 16;

/// How many of the trials' circuits are refined.
const REFINED: usize = 4;

/// A circuit and how large it is.
#[derive(Clone)]
struct Candidate {
    number: u64,
    nodes: usize,
    edges: usize,
    result: SearchResult,
}

impl Candidate {
    fn new(search: &CircuitSearch, number: u64, result: SearchResult) -> Result<Self> {
        let edges = graph(search.model, &search.nodes.layout, &result.keep)?.edges.len();
        Ok(Self { number, nodes: prune::kept_count(&result.keep), edges, result })
    }

    fn settings(&self) -> &SearchSettings {
        &self.result.settings
    }

    /// Nodes and edges, and the loss on train pairs.
    fn cost(&self) -> (usize, f64) {
        (self.nodes + self.edges, self.result.train.circuit)
    }

    /// One that holds on templates that it was not chosen by first, then the smaller one, of equals
    /// the one with the lower held-in loss.
    fn compare(&self, other: &Self) -> Ordering {
        let ((size, loss), (other_size, other_loss)) = (self.cost(), other.cost());
        other.result.holds.cmp(&self.result.holds).then(size.cmp(&other_size)).then(loss.total_cmp(&other_loss))
    }
}

/// Which of the candidates that hold, or of all if none does, no other beats in size and loss.
fn front(candidates: &[Candidate]) -> Vec<usize> {
    let any = candidates.iter().any(|candidate| candidate.result.holds);
    let allowed: Vec<usize> = (0..candidates.len()).filter(|&at| candidates[at].result.holds == any).collect();
    let costs: Vec<(usize, f64)> = allowed.iter().map(|&at| candidates[at].cost()).collect();
    pareto(&costs).into_iter().map(|at| allowed[at]).collect()
}

/// Which pairs no other pair is at most equal to in both numbers and less in one.
fn pareto(costs: &[(usize, f64)]) -> Vec<usize> {
    let beats = |a: (usize, f64), b: (usize, f64)| a.0 <= b.0 && a.1 <= b.1 && a != b;
    (0..costs.len()).filter(|&at| !costs.iter().any(|&other| beats(other, costs[at]))).collect()
}

fn table(candidates: &[Candidate]) -> Vec<Trial> {
    let front = front(candidates);
    let row = |(at, candidate): (usize, &Candidate)| Trial {
        number: candidate.number,
        settings: candidate.settings().clone(),
        nodes: candidate.nodes,
        edges: candidate.edges,
        loss: candidate.result.train.circuit,
        holds: candidate.result.holds,
        on_front: front.contains(&at),
    };
    candidates.iter().enumerate().map(row).collect()
}

/// The settings of a trial: the first are the given ones, every second one starts from one of
/// `front`, if there is any.
fn propose(centre: &SearchSettings, front: &[SearchSettings], number: u64) -> SearchSettings {
    if number == 0 {
        return centre.clone();
    }
    let mut rng = ChaCha8Rng::seed_from_u64(centre.seed);
    rng.set_stream(number);
    let near = !front.is_empty() && number.is_multiple_of(2);
    let from = if near { &front[rng.random_range(0..front.len())] } else { centre };
    let width = if near { 0.25 } else { 1.0 };
    let mut factor = |top: f64| top.powf(width * rng.random_range(-1.0..1.0));
    let (lr, k_coef, weight_decay) = (factor(4.0), factor(10.0), factor(10.0));
    let mut drawn = |low: f64, high: f64, at: f64| {
        let value = rng.random_range(low..high);
        if near { at + width * (value - at) } else { value }
    };
    let mean = drawn(0.0, 0.5, from.start.0);
    let deviation = drawn(-1.0, 1.0, 0.0);
    let temperature = drawn(-1.0, 1.0, 0.0);
    let beta2 = drawn(-3.0, -1.0, (1.0 - from.beta2).max(1e-3).log10());
    let warmup_frac = drawn(0.0, 0.3, from.warmup_frac);
    SearchSettings {
        lr: from.lr * lr,
        k_coef: from.k_coef * k_coef,
        weight_decay: from.weight_decay * weight_decay,
        start: (mean, from.start.1 * 10f64.powf(deviation)),
        temperature: from.temperature * 4f64.powf(temperature),
        beta2: 1.0 - 10f64.powf(beta2),
        warmup_frac,
        seed: centre.seed.wrapping_add(number),
        ..centre.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_has_what_nothing_beats() {
        let costs = [(30, 0.15), (20, 0.2), (30, 0.15), (40, 0.15), (20, 0.3), (50, 0.01), (10, 0.5)];
        assert_eq!(pareto(&costs), [0, 1, 2, 5, 6]);
    }

    #[test]
    fn every_second_trial_stays_near_the_front() {
        let centre = SearchSettings::default();
        let best = SearchSettings { lr: 0.5, k_coef: 1e-5, beta2: 0.99, warmup_frac: 0.2, ..centre.clone() };
        let ratio = |a: f64, b: f64| (a / b).ln().abs();
        for number in 1..200 {
            let [alone, guided] = [&[][..], std::slice::from_ref(&best)].map(|front| propose(&centre, front, number));
            if number % 2 == 1 {
                assert_eq!(alone, guided);
                assert!(ratio(guided.lr, centre.lr) <= 4f64.ln());
                continue;
            }
            assert!(ratio(guided.lr, best.lr) <= 0.25 * 4f64.ln() + 1e-12, "{guided:?}");
            assert!(ratio(guided.k_coef, best.k_coef) <= 0.25 * 10f64.ln() + 1e-12, "{guided:?}");
            assert!((guided.warmup_frac - 0.2).abs() <= 0.05 + 1e-12, "{guided:?}");
            assert!(ratio(1.0 - guided.beta2, 0.01) <= 0.25 * 10f64.ln() + 1e-12, "{guided:?}");
            assert!(guided.validate().is_ok());
        }
    }
}
