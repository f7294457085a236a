//! Pruning's hyper-parameters by random search around given ones (method: section 4).

use std::cmp::Ordering;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::prune::{self, SearchSettings};
use super::search::{CircuitSearch, OnStep, Ranking, SearchResult};
use super::tasks::Task;
use super::{graph, parallel};
use crate::{Error, Result};

/// Prunes with the given settings and with `trials` random ones, and returns the smallest circuit with its settings: the one
/// with the fewest nodes and edges together, of equals the one with the lower held-in loss. With `clean`,
/// the best trials' circuits are [refined](super::local_search) with the nodes of all trials' circuits to choose from.
///
/// Each trial multiplies lr, k_coef and weight_decay by random factors, log-uniform between 1/10 and 10 (lr: 1/4 and 4), draws
/// the mean of tau at the start from (0, 0.5), and takes another seed. Trials depend on the seed and their number alone.
///
/// # Errors
/// Those of [`CircuitSearch::find`], [`Error::Stopped`] among them; [`Error::UnreachableTarget`] only if no trial succeeds.
pub fn tune(
    search: &CircuitSearch,
    task: &Task,
    centre: &SearchSettings,
    trials: u64,
    clean_up: bool,
    watch: &OnStep,
) -> Result<(SearchResult, SearchSettings)> {
    let count = usize::try_from(trials.saturating_add(1)).unwrap_or(usize::MAX);
    let device = &search.model.device;
    let results = parallel::map(device, count, |trial| {
        let settings = around(centre, trial as u64);
        let plain = SearchSettings { local_search_max: 0, ..settings.clone() };
        let result = search.run(task, &plain, Ranking::Learned, clean_up, watch)?;
        let trial = Trial::new(search, result, settings)?;
        tracing::debug!("{}: {} nodes and edges, {:?}", task.name, trial.size, trial.settings);
        Ok(trial)
    })?;
    let (mut done, mut failure) = (Vec::new(), None);
    for result in results {
        match result {
            Ok(trial) => done.push(trial),
            // Other settings may find what these did not. Any other error is no answer.
            Err(error @ Error::UnreachableTarget { .. }) => failure = Some(error),
            Err(error) => return Err(error),
        }
    }
    done.sort_by(Trial::compare);
    let in_some = |n: &usize| done.iter().any(|trial| trial.result.keep[*n]);
    let pool: Vec<usize> = (0..search.nodes.layout.len()).filter(in_some).collect();
    done.truncate(if clean_up { REFINED } else { 1 });
    let refined = parallel::map(device, done.len(), |at| {
        let Trial { result, settings, .. } = &done[at];
        let result =
            if clean_up { search.local_search(task, settings, result.clone(), &pool)? } else { result.clone() };
        Trial::new(search, result, settings.clone())
    })?;
    match (refined.into_iter().collect::<Result<Vec<_>>>()?.into_iter().min_by(Trial::compare), failure) {
        (Some(best), _) => Ok((best.result, best.settings)),
        (None, Some(error)) => Err(error),
        (None, None) => Err(Error::Text(format!("{}: no trial", task.name))),
    }
}

/// How many of the trials' circuits are refined.
const REFINED: usize = 4;

/// A circuit, how large it is, and what it was found with.
struct Trial {
    /// Nodes and edges.
    size: usize,
    result: SearchResult,
    settings: SearchSettings,
}

impl Trial {
    fn new(search: &CircuitSearch, result: SearchResult, settings: SearchSettings) -> Result<Self> {
        let edges = graph(search.model, &search.nodes.layout, &result.keep)?.edges.len();
        let size = prune::count(&result.keep) + edges;
        Ok(Self { size, result, settings })
    }

    /// The smaller one first, of equals the one with the lower held-in loss.
    fn compare(&self, other: &Self) -> Ordering {
        let losses = self.result.train.circuit.total_cmp(&other.result.train.circuit);
        self.size.cmp(&other.size).then(losses)
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
        start: (rng.random_range(0.0..0.5), centre.start.1),
        seed: centre.seed.wrapping_add(trial),
        ..centre.clone()
    }
}
