//! Pruning's hyper-parameters by random search around given ones (method: section 4).

use std::cmp::Ordering;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::prune::{self, SearchSettings};
use super::search::{CircuitSearch, OnStep, Ranking, SearchPlan, SearchResult};
use super::tasks::Task;
use super::{graph, parallel};
use crate::{Error, Result};

/// Prunes with the settings of `plan` and with `plan.trials` random ones, and returns the smallest
/// circuit that holds on train templates that it was not chosen by: the one with the fewest nodes
/// and edges together, of equals the one with the lower loss on the train pairs. With `plan.clean_up`, a [local search](super::local_search) with the nodes
/// of all trials' circuits follows for the best trials.
///
/// Each trial multiplies lr, k_coef, weight_decay, temperature and the deviation of tau at the start
/// by random factors, log-uniform between 1/10 and 10 (lr and temperature: 1/4 and 4), draws the
/// mean of tau at the start from (0, 0.5), beta2 from (0.9, 0.999), log-uniform in 1 − beta2, and
/// the warm-up from (0, 0.3), and uses another seed. A trial depends on the seed and its number
/// alone.
pub(crate) fn tune(search: &CircuitSearch, task: &Task, plan: &SearchPlan, on_step: &OnStep) -> Result<SearchResult> {
    plan.validate()?;
    let count = usize::try_from(plan.trials.saturating_add(1)).unwrap_or(usize::MAX);
    let device = &search.model.device;
    let results = parallel::map(device, count, |trial| {
        let settings = around(&plan.settings, trial as u64);
        // The local search comes last, with the nodes of all trials.
        let first = SearchSettings { local_search_max: 0, ..settings.clone() };
        let scores = search.rank(task, &first, Ranking::Learned, on_step)?;
        let result = search.choose(task, &first, scores, plan.clean_up)?;
        let trial = Trial::new(search, SearchResult { settings, ..result })?;
        tracing::debug!("{}: {} nodes and edges, {:?}", task.name, trial.size, trial.result.settings);
        Ok(trial)
    })?;
    let (mut done, mut failure) = (Vec::new(), None);
    for result in results {
        match result {
            Ok(trial) => done.push(trial),
            // Other settings may find what these did not.
            Err(error @ Error::UnreachableTarget { .. }) => failure = Some(error),
            Err(error) => return Err(error),
        }
    }
    done.sort_by(Trial::compare);
    let in_some = |n: &usize| done.iter().any(|trial| trial.result.keep[*n]);
    let pool: Vec<usize> = (0..search.nodes.layout.len()).filter(in_some).collect();
    done.truncate(if plan.clean_up { REFINED } else { 1 });
    let refined = parallel::map(device, done.len(), |at| {
        let result = done[at].result.clone();
        Trial::new(search, if plan.clean_up { search.local_search(task, result, &pool)? } else { result })
    })?;
    let best = refined.into_iter().collect::<Result<Vec<_>>>()?.into_iter().min_by(Trial::compare);
    // Without a trial that succeeded, at least one has failed.
    best.map(|best| best.result).ok_or_else(|| failure.unwrap_or(Error::Stopped))
}

/// How many of the trials' circuits are refined.
const REFINED: usize = 4;

/// A circuit and how large it is.
struct Trial {
    /// Nodes and edges.
    size: usize,
    result: SearchResult,
}

impl Trial {
    fn new(search: &CircuitSearch, result: SearchResult) -> Result<Self> {
        let edges = graph(search.model, &search.nodes.layout, &result.keep)?.edges.len();
        let size = prune::kept_count(&result.keep) + edges;
        Ok(Self { size, result })
    }

    /// One that holds on templates that it was not chosen by first, then the smaller one, of equals
    /// the one with the lower held-in loss.
    fn compare(&self, other: &Self) -> Ordering {
        let losses = self.result.train.circuit.total_cmp(&other.result.train.circuit);
        other.result.holds.cmp(&self.result.holds).then(self.size.cmp(&other.size)).then(losses)
    }
}

/// The settings of a trial; the first are the given ones.
fn around(centre: &SearchSettings, trial: u64) -> SearchSettings {
    if trial == 0 {
        return centre.clone();
    }
    let mut rng = ChaCha8Rng::seed_from_u64(centre.seed);
    rng.set_stream(trial);
    let mut factor = |top: f64| top.powf(rng.random_range(-1.0..1.0));
    let (lr, k_coef, weight_decay) = (factor(4.0), factor(10.0), factor(10.0));
    SearchSettings {
        lr: centre.lr * lr,
        k_coef: centre.k_coef * k_coef,
        weight_decay: centre.weight_decay * weight_decay,
        start: (rng.random_range(0.0..0.5), centre.start.1 * 10f64.powf(rng.random_range(-1.0..1.0))),
        temperature: centre.temperature * 4f64.powf(rng.random_range(-1.0..1.0)),
        beta2: 1.0 - 10f64.powf(rng.random_range(-3.0..-1.0)),
        warmup_frac: rng.random_range(0.0..0.3),
        seed: centre.seed.wrapping_add(trial),
        ..centre.clone()
    }
}
