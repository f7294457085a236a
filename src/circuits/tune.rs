//! Pruning's hyper-parameters by random search around given ones (method: section 4).

use std::cmp::Ordering;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::find::{Finder, Found, Ranking, Watch};
use super::prune::{self, Settings};
use super::tasks::Task;
use super::{graph, parallel};
use crate::{Error, Result};

/// Prunes with the given settings and with `trials` random ones, and returns the smallest circuit with its settings: the one
/// with the fewest nodes and edges together, of equals the one with the lower held-in loss. With `clean`,
/// the best trials' circuits are [polished](super::polish) with the nodes of all trials' circuits to choose from.
///
/// Each trial multiplies lr, k_coef and weight_decay by random factors, log-uniform between 1/10 and 10 (lr: 1/4 and 4), draws
/// the mean of tau at the start from (0, 0.5), and takes another seed. Trials depend on the seed and their number alone.
///
/// # Errors
/// Those of [`Finder::find`], [`Error::Stopped`] among them; [`Error::OutOfReach`] only if no trial succeeds.
pub fn tune(
    finder: &Finder,
    task: &Task,
    centre: &Settings,
    trials: u64,
    clean: bool,
    watch: &Watch,
) -> Result<(Found, Settings)> {
    let count = usize::try_from(trials.saturating_add(1)).unwrap_or(usize::MAX);
    let device = &finder.model.device;
    let results = parallel::map(device, count, |trial| {
        let settings = around(centre, trial as u64);
        let plain = Settings { polish: 0, ..settings.clone() };
        let found = finder.find(task, &plain, Ranking::Learned, clean, watch)?;
        let trial = Trial::new(finder, found, settings)?;
        tracing::debug!("{}: {} nodes and edges, {:?}", task.name, trial.size, trial.settings);
        Ok(trial)
    })?;
    let (mut done, mut failure) = (Vec::new(), None);
    for result in results {
        match result {
            Ok(trial) => done.push(trial),
            // Other settings may find what these did not. Any other error is no answer.
            Err(error @ Error::OutOfReach { .. }) => failure = Some(error),
            Err(error) => return Err(error),
        }
    }
    done.sort_by(Trial::compare);
    let in_some = |n: &usize| done.iter().any(|trial| trial.found.keep[*n]);
    let pool: Vec<usize> = (0..finder.nodes.layout.len()).filter(in_some).collect();
    done.truncate(if clean { POLISHED } else { 1 });
    let polished = parallel::map(device, done.len(), |at| {
        let Trial { found, settings, .. } = &done[at];
        let found = if clean { finder.polish(task, settings, found.clone(), &pool)? } else { found.clone() };
        Trial::new(finder, found, settings.clone())
    })?;
    match (polished.into_iter().collect::<Result<Vec<_>>>()?.into_iter().min_by(Trial::compare), failure) {
        (Some(best), _) => Ok((best.found, best.settings)),
        (None, Some(error)) => Err(error),
        (None, None) => Err(Error::Text(format!("{}: no trial", task.name))),
    }
}

/// How many of the trials' circuits are polished.
const POLISHED: usize = 4;

/// A circuit, how large it is, and what it was found with.
struct Trial {
    /// Nodes and edges.
    size: usize,
    found: Found,
    settings: Settings,
}

impl Trial {
    fn new(finder: &Finder, found: Found, settings: Settings) -> Result<Self> {
        let edges = graph(finder.model, &finder.nodes.layout, &found.keep)?.edges.len();
        let size = prune::count(&found.keep) + edges;
        Ok(Self { size, found, settings })
    }

    /// The smaller one first, of equals the one with the lower held-in loss.
    fn compare(&self, other: &Self) -> Ordering {
        let losses = self.found.train.circuit.total_cmp(&other.found.train.circuit);
        self.size.cmp(&other.size).then(losses)
    }
}

/// The settings of a trial; the first are the given ones.
fn around(centre: &Settings, trial: u64) -> Settings {
    if trial == 0 {
        return centre.clone();
    }
    let mut rng = ChaCha8Rng::seed_from_u64(centre.seed);
    rng.set_stream(trial);
    let mut factor = |top: f64| top.powf(rng.random_range(-1.0..1.0));
    let (lr, k_coef, weight_decay) = (factor(4.0), factor(10.0), factor(10.0));
    Settings {
        lr: centre.lr * lr,
        k_coef: centre.k_coef * k_coef,
        weight_decay: centre.weight_decay * weight_decay,
        start: (rng.random_range(0.0..0.5), centre.start.1),
        seed: centre.seed.wrapping_add(trial),
        ..centre.clone()
    }
}
